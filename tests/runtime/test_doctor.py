from __future__ import annotations

import dataclasses
import json
import platform
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lbkit.runtime import doctor
from lbkit.runtime.cpu import INSTRUCTION_SETS, CpuFacts, read_cpu_facts
from lbkit.runtime.probe import ProviderStatus
from lbkit.runtime.providers import ORT_PROVIDERS, PROVIDERS
from lbkit.runtime.wheels import Obstacle

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


def test_instruction_sets_of_the_first_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(XEON)
    facts = read_cpu_facts(cpuinfo=tmp_path / "cpuinfo")
    assert facts.model == "Intel(R) Xeon(R) Platinum 8481C"
    assert facts.instruction_sets == {name: name != "avx_vnni" for name in INSTRUCTION_SETS}


@pytest.mark.parametrize("text", [None, "processor : 0\nBogoMIPS : 50.00\nFeatures : fp asimd\n"])
def test_unknown_instruction_sets(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    facts = read_cpu_facts(cpuinfo=tmp_path / "cpuinfo")
    assert facts.instruction_sets is None
    assert facts.model


def test_facts_name_every_instruction_set() -> None:
    with pytest.raises(ValueError, match="instruction_sets"):
        CpuFacts("x", {"avx2": True})


def test_this_machine(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBKIT_MODELS", str(toy_model.parent))
    diagnosis = doctor.examine()
    assert [status.name for status in diagnosis.providers] == list(PROVIDERS)
    assert diagnosis.providers[0].works
    assert diagnosis.any_provider_works
    assert diagnosis.versions["python"] == platform.python_version()
    assert diagnosis.versions["torch"] == metadata.version("torch")
    assert diagnosis.models["toy"] == toy_model


def test_json_says_what_the_diagnosis_says() -> None:
    diagnosis = doctor.examine()
    mapping = json.loads(json.dumps(diagnosis.to_dict()))
    assert mapping["providers"]["cpu"]["works"] is True
    assert mapping["threads"]["used"] == diagnosis.threads.threads
    assert mapping["versions"] == diagnosis.versions
    assert set(mapping) == {field.name for field in dataclasses.fields(doctor.Diagnosis)}


def test_clash_of_wheels_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    clash = Obstacle("two wheels", "take one")
    monkeypatch.setattr(doctor, "wheel_clash", lambda: clash)
    assert doctor.examine().problems == (clash,)


def test_without_onnxruntime_no_provider_works_and_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    diagnosis = doctor.examine()
    assert not diagnosis.any_provider_works
    problems = {status.name: status.problem for status in diagnosis.providers}
    assert [problems[name] for name in ORT_PROVIDERS] == ["onnxruntime is not installed"] * len(ORT_PROVIDERS)
    assert problems["openvino"] == "openvino is not installed"
    assert 'pip install "lbkit[cpu]"' in diagnosis.providers[0].remedy


def test_providers_are_there_once() -> None:
    diagnosis = doctor.examine()
    twice = (ProviderStatus("cpu", works=True),) * 2
    with pytest.raises(ValueError, match="every provider should be there once"):
        dataclasses.replace(diagnosis, providers=twice)
