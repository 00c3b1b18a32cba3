"""The model card: measured figures in a model's contract, in the ONNX file and in the JSON beside it."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbkit.core.contract import CONTRACT_KEY, Figure, ModelContract
from lbkit.core.files import atomic_path
from lbkit.core.records import record_to_mapping
from lbkit.core.sidecar import sidecar_path, write_sidecar
from lbkit.errors import ModelError

if TYPE_CHECKING:
    from lbkit.evaluation.scoring import Evaluation

log = logging.getLogger(__name__)

CHECKPOINT_SUFFIX = ".safetensors"
_EXPORT_AGAIN = "export it again with `lbkit export`"
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a model file says of itself.

    Attributes:
        path: The file.
        kind: "onnx" or "checkpoint".
        size_bytes: Its size.
        sha256: Its hash.
        contract: The contract inside, with the measured figures.
        training: How a checkpoint came to be; empty for an ONNX file.
    """

    path: Path
    kind: str
    size_bytes: int
    sha256: str
    contract: ModelContract
    training: Mapping[str, Any] = field(default_factory=dict)


def describe_model(name_or_path: str | Path) -> ModelDescription:
    """Read what a model file says of itself, and check that it says the truth of its graph or weights.

    Args:
        name_or_path: A shipped or exported model's name, an ONNX file, or a checkpoint.

    Raises:
        ModelError: There is no such model, or its contract is missing or contradicted.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    if Path(name_or_path).suffix == CHECKPOINT_SUFFIX:
        from lbkit.models.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(Path(name_or_path))
        return _description(Path(name_or_path), "checkpoint", checkpoint.contract, checkpoint.training)
    from lbkit.runtime.loading import find_model
    from lbkit.runtime.ort_backend import OrtBackend

    path = find_model(name_or_path)
    return _description(path, "onnx", OrtBackend(path).contract, {})


def card_figures(evaluation: Evaluation, *, date: datetime.date) -> tuple[Figure, ...]:
    """Return the figures of an evaluation that a card keeps: PCK at 0.05 and 0.10 by rule, and OKS AP and AR.

    What differs from the usual way (annotated boxes, the box norm, no flip, the model's own decoder) stands in the
    metric's name.

    Args:
        evaluation: The figures measured.
        date: When they were measured.
    """
    from lbkit.evaluation.scoring import RULES, TABLE_THRESHOLDS

    suffix = _metric_suffix(evaluation)
    figures = []
    for threshold in TABLE_THRESHOLDS:
        for rule in RULES:
            estimate = evaluation.pck(threshold, rule=rule)
            if estimate.value is None or estimate.low is None or estimate.high is None:
                continue
            bounds = (round(estimate.low, _DIGITS), round(estimate.high, _DIGITS))
            metric = f"pck@{threshold:.2f} {rule}{suffix}"
            figures.append(_figure(evaluation, metric, estimate.value, estimate.persons, date, interval=bounds))
    for name, value in (("oks ap", evaluation.oks.ap), ("oks ar", evaluation.oks.ar)):
        if value is not None:
            figures.append(_figure(evaluation, f"{name}{suffix}", value, evaluation.oks.persons, date))
    return tuple(figures)


def write_card(path: Path, figures: Sequence[Figure]) -> None:
    """Put figures into an ONNX file's contract and into the JSON beside it; the graph stays as it is.

    Figures of the same metric and data are replaced, others stay.

    Args:
        path: An ONNX file exported by lbkit.
        figures: The figures.

    Raises:
        ModelError: The file carries no contract, or the JSON beside it is of another file.
        OutputError: One of the two cannot be written.
    """
    import onnx

    before = path.read_bytes()
    model = onnx.load_from_string(before)
    carried = [entry for entry in model.metadata_props if entry.key == CONTRACT_KEY]
    if not carried:
        raise ModelError(f"carries no lbkit contract (metadata {CONTRACT_KEY})", where=path, remedy=_EXPORT_AGAIN)
    contract = _with_figures(ModelContract.from_json(carried[0].value, where=str(path)), figures)
    carried[0].value = contract.to_json()
    after = model.SerializeToString()
    sidecar = sidecar_path(path)
    record = _sidecar_record(sidecar, before)
    if record is None:
        log.warning("%s: there is no such file, so the figures are in the ONNX file alone", sidecar)
        with atomic_path(path) as temporary:
            temporary.write_bytes(after)
        return
    record |= {"sha256": hashlib.sha256(after).hexdigest(), "size_bytes": len(after)}
    record["contract"] = record_to_mapping(contract)
    with atomic_path(sidecar) as json_file, atomic_path(path) as onnx_file:
        onnx_file.write_bytes(after)
        write_sidecar(json_file, record)


def _figure(
    evaluation: Evaluation,
    metric: str,
    value: float,
    persons: int,
    date: datetime.date,
    *,
    interval: tuple[float, float] | None = None,
) -> Figure:
    data = evaluation.data
    return Figure(
        metric, round(value, _DIGITS), data.name, persons, date.isoformat(), interval, data.annotations_sha256
    )


def _metric_suffix(evaluation: Evaluation) -> str:
    subject = evaluation.subject
    parts = [
        "flip" if subject.flip else "",
        "" if evaluation.norm == "box" else f"by {evaluation.norm}",
        "" if subject.boxes == "gt" else f"in {subject.boxes}",
        "" if subject.is_own_decoder else f"with {subject.decoder}",
    ]
    return "".join(f" {part}" for part in parts if part)


def _with_figures(contract: ModelContract, figures: Sequence[Figure]) -> ModelContract:
    measured = {(figure.metric, figure.data) for figure in figures}
    kept = [figure for figure in contract.evaluation if (figure.metric, figure.data) not in measured]
    return contract.replace(evaluation=(*kept, *figures))


def _sidecar_record(sidecar: Path, onnx_bytes: bytes) -> dict[str, Any] | None:
    """Return what lies beside an ONNX file, None where nothing does."""
    if not sidecar.is_file():
        return None
    try:
        record = json.loads(sidecar.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"is not JSON ({error})", where=sidecar, remedy=_EXPORT_AGAIN) from error
    if not isinstance(record, dict) or record.get("sha256") != hashlib.sha256(onnx_bytes).hexdigest():
        problem = "is not of the ONNX file beside it: their sha256 differ"
        raise ModelError(problem, where=sidecar, remedy=_EXPORT_AGAIN)
    return record


def _description(path: Path, kind: str, contract: ModelContract, training: Mapping[str, Any]) -> ModelDescription:
    data = path.read_bytes()
    return ModelDescription(path, kind, len(data), hashlib.sha256(data).hexdigest(), contract, training)
