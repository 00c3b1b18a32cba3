"""A run that a test kills: `python run_worker.py FOLDER COUNT`."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

spec = importlib.util.spec_from_file_location("test_run", Path(__file__).with_name("test_run.py"))
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

plan, count = module.plan_of(Path(sys.argv[1])), int(sys.argv[2])
print("begun", flush=True)
with module.opened_run(plan, sources=lambda: module.names(count), resume=True) as manifest:
    module.run_parts(
        plan, manifest, infer=module.answers, watcher=module.Watcher(take=lambda _result: time.sleep(0.0003))
    )
