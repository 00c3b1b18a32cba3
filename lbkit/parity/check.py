"""The check: every photograph read once, every checkpoint run once, every file compared with its own checkpoint."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lbkit.core.contract import ModelContract
from lbkit.core.pipeline import map_ahead
from lbkit.core.threads import thread_limits
from lbkit.errors import ConfigError, InputError, LbkitError
from lbkit.evaluation.truth import DEFAULT_ALLOWED_MISSING
from lbkit.evaluation.walk import Cut, Unusable, cut_targets
from lbkit.parity.annotated import accuracy_changes
from lbkit.parity.batches import batch_findings
from lbkit.parity.bisect import first_node
from lbkit.parity.candidates import (
    CandidateModel,
    Reference,
    contract_differences,
    exact_pytorch,
    one_pytorch_thread_pool,
    reference_of,
    refuse_other_network,
)
from lbkit.parity.definitions import CandidateReport, ParityReport, Preset, Problem, SampleSummary
from lbkit.parity.measures import ReferenceBatch, compare_batch, reference_batch
from lbkit.parity.presets import load_preset
from lbkit.parity.samples import Samples
from lbkit.parity.tally import Answers, Tally
from lbkit.parity.verdict import culprit_of, findings_of, stage_findings
from lbkit.runtime.loading import find_model

log = logging.getLogger(__name__)

BATCH_SIZE = 8
DISTINCT_CROPS = 7
"""The dynamic batch is made of so many different crops."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How a check is done.

    Attributes:
        providers: Where every model is run.
        checkpoint: The reference of every model; found by the weights' hash when None.
        preset: A preset's name or TOML file; by each file's precision when None.
        bisect: Look for the first node that leaves tolerance, in files that fail at it.
        batch_size: People that run through a model at once.
        threads: Threads inside a candidate; half of what this process may use when None, PyTorch having the other half.
        allow_missing: Share of photographs that may be missing or unreadable.
    """

    providers: tuple[str, ...] = ("cpu",)
    checkpoint: Path | None = None
    preset: str | None = None
    bisect: bool = False
    batch_size: int = BATCH_SIZE
    threads: int | None = None
    allow_missing: float = DEFAULT_ALLOWED_MISSING


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A report, and the joints it comes from.

    Attributes:
        report: The report.
        answers: Each of its candidates' joints, in the same order.
        samples: What they were compared on.
    """

    report: ParityReport
    answers: tuple[Answers, ...]
    samples: Samples


@dataclass(slots=True, eq=False)
class _Subject:
    """One candidate under way."""

    name: str
    model: CandidateModel
    reference: Reference
    preset: Preset
    tally: Tally = field(default_factory=Tally)
    first_cuts: list[Cut] = field(default_factory=list)


_ReferenceBatches = dict[int, ReferenceBatch | LbkitError]
"""What each reference, by its identity, made of a batch of people."""


def check_models(
    models: Sequence[str],
    samples: Samples,
    *,
    options: CheckOptions,
    on_image: Callable[[], object] = lambda: None,
) -> Checked:
    """Compare files with the checkpoints they were made from.

    A file that cannot be opened or run is among the report's problems, and the others are still checked.

    Args:
        models: Names or ONNX files.
        samples: The people.
        options: How.
        on_image: Called after each photograph.

    Raises:
        InputError: There is nobody to compare on, or too many photographs cannot be used.
        ConfigError: There is no such preset.
    """
    if not samples.targets:
        raise InputError("there is nobody to compare on", remedy="give pictures by --images or --coco, or leave both")
    if options.preset is not None:
        load_preset(options.preset)
    problems: list[Problem] = []
    subjects = _open_all(models, options, problems)
    unusable = Unusable()
    if subjects:
        with exact_pytorch():
            _walk(subjects, samples, unusable, problems, options=options, on_image=on_image)
            _check_samples(samples, unusable, options)
            reports, answers = _finish(subjects, samples, unusable, problems, options)
    else:
        reports, answers = [], []
    seconds = sum({id(subject.reference): subject.reference.seconds for subject in subjects}.values())
    report = ParityReport(_summary(samples, unusable), tuple(reports), tuple(problems), seconds)
    return Checked(report, tuple(answers), samples)


def _open_all(models: Sequence[str], options: CheckOptions, problems: list[Problem]) -> list[_Subject]:
    references: dict[Path | str, Reference] = {}
    names, threads = _names(models), options.threads or max(1, thread_limits().threads // 2)
    subjects: list[_Subject] = []
    for (model, name), provider in itertools.product(zip(models, names, strict=True), options.providers):
        with _noting(problems, model, provider):
            candidate = CandidateModel(find_model(model), provider=provider, threads=threads)
            preset = load_preset(options.preset or candidate.contract.precision)
            key = options.checkpoint or candidate.contract.weights_sha256
            if key not in references:
                references[key] = reference_of(candidate.contract, where=candidate.path, checkpoint=options.checkpoint)
            refuse_other_network(candidate.contract, references[key], where=candidate.path)
            subjects.append(_Subject(name, candidate, references[key], preset))
    return subjects


@contextlib.contextmanager
def _noting(problems: list[Problem], model: str, provider: str) -> Iterator[None]:
    """Note down that a model cannot be checked, and go on."""
    try:
        yield
    except ConfigError:
        raise
    except LbkitError as error:
        problems.append(Problem(model, provider, str(error)))


def _names(models: Sequence[str]) -> list[str]:
    """Name files by their last part, or in full where two would be named alike."""
    short = [Path(model).name for model in models]
    counts = Counter(short)
    return [name if counts[name] == 1 else model for name, model in zip(short, models, strict=True)]


def _walk(
    subjects: list[_Subject],
    samples: Samples,
    unusable: Unusable,
    problems: list[Problem],
    *,
    options: CheckOptions,
    on_image: Callable[[], object],
) -> None:
    """Take people batch by batch; PyTorch is a batch ahead of ONNX Runtime, each with half of the processors."""
    references = list({id(subject.reference): subject.reference for subject in subjects}.values())
    contracts: list[ModelContract] = [item.contract for s in subjects for item in (s.reference, s.model)]
    cuts = cut_targets(
        samples.targets, contracts, read=samples.read, sizes=samples.sizes, unusable=unusable, on_image=on_image
    )

    def run_references(batch: list[Cut]) -> _ReferenceBatches:
        return {id(reference): _reference_outcome(reference, batch) for reference in references}

    with contextlib.closing(cuts), one_pytorch_thread_pool() as pool:
        batches = iter(lambda: list(itertools.islice(cuts, options.batch_size)), [])
        for outcomes in map_ahead(pool, run_references, batches, ahead=lambda: 2):
            _compare(subjects, outcomes, problems)
            if not subjects:
                break


def _reference_outcome(reference: Reference, batch: list[Cut]) -> ReferenceBatch | LbkitError:
    try:
        return reference_batch(reference, batch)
    except LbkitError as error:
        return error


def _compare(subjects: list[_Subject], outcomes: _ReferenceBatches, problems: list[Problem]) -> None:
    """Run each candidate on its reference's batch; one that cannot be compared is dropped and noted."""
    failed: list[_Subject] = []
    for subject in subjects:
        before = len(problems)
        with _noting(problems, subject.name, subject.model.provider):
            batch = outcomes[id(subject.reference)]
            if isinstance(batch, LbkitError):
                raise batch
            compared = compare_batch(batch, subject.reference, candidate=subject.model, preset=subject.preset)
            subject.tally.add(compared)
            subject.first_cuts += batch.cuts[: max(0, DISTINCT_CROPS - len(subject.first_cuts))]
        failed += [subject] if len(problems) > before else []
    subjects[:] = [subject for subject in subjects if subject not in failed]


def _check_samples(samples: Samples, unusable: Unusable, options: CheckOptions) -> None:
    images = {target.image_id for target in samples.targets}
    left_out = len(unusable.images)
    if left_out and (left_out > options.allow_missing * len(images) or left_out == len(images)):
        first = samples.names[next(iter(unusable.images))]
        reasons = ", ".join(f"{reason}: {count}" for reason, count in Counter(unusable.images.values()).items())
        raise InputError(
            f"{left_out} of {len(images)} photographs cannot be used ({reasons}; the first is {first})",
            remedy="get the files, or allow it with --allow-missing SHARE",
        )
    if len(unusable.rows) >= len(samples.targets):
        raise InputError("no box can be used on its photograph", remedy="check the annotations")


def _finish(
    subjects: Sequence[_Subject],
    samples: Samples,
    unusable: Unusable,
    problems: list[Problem],
    options: CheckOptions,
) -> tuple[list[CandidateReport], list[Answers]]:
    for subject in subjects:
        subject.model.close()  # the largest batch needs the memory that idle sessions hold
    reports, answers = [], []
    for subject in subjects:
        with _noting(problems, subject.name, subject.model.provider):
            reports.append(_report(subject, samples, unusable, options))
            answers.append(subject.tally.answers())
    return reports, answers


def _report(subject: _Subject, samples: Samples, unusable: Unusable, options: CheckOptions) -> CandidateReport:
    model, reference, preset, tally = subject.model, subject.reference, subject.preset, subject.tally
    margins = np.concatenate(tally.margins)[: len(subject.first_cuts)]
    decided = margins > preset.near_tie_margin.at_most
    batches = batch_findings(model, subject.first_cuts, decided=decided, threads=options.threads)
    pck_change, ap_change = accuracy_changes(samples, tally.answers(), unusable)
    measures = tally.measures(
        preset, pck_change=pck_change, ap_change=ap_change, batch_max=max(finding.difference for finding in batches)
    )
    differences = contract_differences(model.contract, reference.contract)
    findings = findings_of(measures, preset)
    stages = stage_findings(
        measures, findings, tensor_is_pixels=tally.tensor_is_pixels, images=_images(samples, unusable)
    )
    culprit = culprit_of(stages, differences)
    heatmap = model.contract.heatmap
    image_of = {target.row: target.image_id for target in samples.targets}
    node = None
    if options.bisect:
        node = first_node(model, reference, cut=subject.first_cuts[0], tolerance=preset.node_relative.at_most)
    return CandidateReport(
        name=subject.name,
        file=model.path,
        file_sha256=model.sha256,
        provider=model.provider,
        precision=model.contract.precision,
        decoder=f"{heatmap.decoder} {'in the graph' if heatmap.decoded_in_graph else 'on the host'}",
        input_dtype=model.contract.input.dtype,
        checkpoint=reference.path,
        preset=preset,
        persons=tally.persons,
        contract_differences=differences,
        measures=measures,
        findings=findings,
        stages=stages,
        ties=tally.ties(preset),
        batches=batches,
        worst=tally.worst(samples.names, image_of.__getitem__),
        node=node,
        culprit=culprit,
        model_seconds=model.seconds,
    )


def _images(samples: Samples, unusable: Unusable) -> tuple[int, int]:
    """Return how many photographs were read, and how many there are."""
    count = len({target.image_id for target in samples.targets})
    return count - len(unusable.images), count


def _summary(samples: Samples, unusable: Unusable) -> SampleSummary:
    before = {} if samples.truth is None else samples.truth.skipped
    gone = set(unusable.rows) | {t.row for t in samples.targets if t.image_id in unusable.images}
    reasons = Counter(before) + Counter(unusable.images.values()) + Counter(unusable.rows.values())
    return SampleSummary(samples.text, _images(samples, unusable)[0], len(samples.targets) - len(gone), dict(reasons))
