"""What checkpoints see in annotated people: `python -m training.panel CHECKPOINT... --annotations FILE --images DIR`.

One PNG a person, a row a checkpoint: the crop with annotated and found joints, and the six heatmaps with their targets.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lbkit.core.boxes import checked_boxes
from lbkit.core.coco import CocoFile, CocoPerson, read_coco
from lbkit.core.codec import encode_heatmaps
from lbkit.core.contract import ModelContract
from lbkit.core.draw import FAINT_PEAK, LEFT_COLOR, MIDDLE_COLOR, OUTLINE_COLOR, RIGHT_COLOR
from lbkit.core.estimator import PoseEstimator
from lbkit.core.files import refuse_overwrite
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.images import read_image
from lbkit.core.preprocess import crop_person
from lbkit.errors import AnnotationError, InputError, LbkitError
from lbkit.evaluation.pck import box_heights_px, pck, relative_distances
from lbkit.models.checkpoint import load_checkpoint
from lbkit.models.torch_backend import TorchBackend
from training.curve_figures import new_figure, save_figure
from training.endings import errors_as_lines, tell_error
from training.losses import JointsMSELoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOT_LABELLED = "not labelled"
KEY = (
    "Crop: rings are annotated joints (squares where hidden, v = 1), discs found ones, and white lines join the two. "
    "Left is orange, right is blue; left\nis the person's own. Heatmaps: each is drawn relative to its own peak, or to "
    f"{FAINT_PEAK} if that is higher; off is the distance of the found joint (disc) from\nthe annotated one (cross) in "
    "heights of the person's box made 4:3."
)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


_OUTLINE, _MIDDLE = _hex(OUTLINE_COLOR), _hex(MIDDLE_COLOR)

DPI = 120
_TILE_WIDTH_IN, _GAP_IN, _MARGIN_IN = 2.1, 0.06, 0.12
_ROW_HEAD_IN, _HEAD_IN, _FOOT_IN = 0.75, 0.36, 0.62
_DIM = 0.45


@dataclass(frozen=True, slots=True, eq=False)
class PersonView:
    """What one checkpoint makes of one person; points are in pixels of its input.

    Attributes:
        label: The checkpoint's name in figures.
        contract: Its contract.
        crop: (H, W, 3) uint8 RGB, its input.
        heatmaps: (K, h, w) float32 that it put out.
        found_xy: (K, 2) decoded joints.
        true_xy: (K, 2) annotated joints; meaningless where v is 0.
        visibility: (K,) COCO's v.
        weights: (K,) float32, 1 where a joint is labelled and inside the crop, so that it has a target.
        distances: (K,) errors as fractions of the height of the person's 4:3 box.
        loss_fixed: Loss divided by K.
        loss_visible: Loss divided by the sum of the weights.
    """

    label: str
    contract: ModelContract
    crop: ImageArray
    heatmaps: NDArray[np.float32]
    found_xy: NDArray[np.float64]
    true_xy: NDArray[np.float64]
    visibility: NDArray[np.int64]
    weights: NDArray[np.float32]
    distances: NDArray[np.float64]
    loss_fixed: float
    loss_visible: float

    @property
    def title(self) -> str:
        """Loss and PCK of this person in one line."""
        labelled = self.visibility > 0
        if not labelled.any():
            return f"loss and PCK: {NOT_LABELLED}"
        parts = [f"loss 1/6 {self.loss_fixed:.5f}, visible {self.loss_visible:.5f}"]
        if not self.weights.any():
            parts = ["loss: no labelled joint inside the crop"]
        for threshold in (0.05, 0.10):
            share = pck(self.distances[None], labelled[None], threshold=threshold)
            parts.append(f"PCK@{threshold:.2f} {share:.2f} ({round(share * labelled.sum())} of {labelled.sum()})")
        return "    ".join(parts)


def view_person(estimator: PoseEstimator, image: ImageArray, *, person: CocoPerson, label: str) -> PersonView:
    """Run a network on one annotated person, with the annotated box, and measure the result at its own contract.

    Args:
        estimator: The network, putting out heatmaps.
        image: (H, W, 3) uint8 RGB.
        person: The annotation.
        label: Name of the network in figures.

    Raises:
        BoxError: The box cannot be used on the image.
        ModelError: The network put out something that is not a finite number.
    """
    (box_xyxy,) = checked_boxes(person.box_xyxy, ImageSize.of(image))
    crop, transform = crop_person(image, box_xyxy, contract=estimator.contract)
    keypoints, output = estimator.predict_batch([crop], [transform])
    assert output.heatmaps is not None  # the bare network of a checkpoint puts out nothing else
    found_xy = keypoints[0, :, :2]
    distances = relative_distances(found_xy[None], person.joints_xy[None], heights_px=box_heights_px(box_xyxy))
    true_xy = transform.to_input(person.joints_xy)
    targets, weights = encode_heatmaps(true_xy, person.visibility > 0, spec=estimator.contract.heatmap)
    maps = [torch.from_numpy(array)[None] for array in (output.heatmaps[0], targets, weights)]
    return PersonView(
        label=label,
        contract=estimator.contract,
        crop=crop,
        heatmaps=output.heatmaps[0],
        found_xy=np.asarray(transform.to_input(found_xy), np.float64),
        true_xy=np.asarray(true_xy, np.float64),
        visibility=person.visibility,
        weights=weights,
        distances=distances[0],
        loss_fixed=float(JointsMSELoss(reduction="fixed")(*maps)),
        loss_visible=float(JointsMSELoss(reduction="visible")(*maps)),
    )


def panel_figure(views: Sequence[PersonView], *, title: str) -> Figure:
    """Return the figure of one person, a row a checkpoint.

    Args:
        views: What each checkpoint makes of the person.
        title: Title above the rows.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    tiles = 1 + max(len(view.heatmaps) for view in views)
    heights_in = [_TILE_WIDTH_IN * view.contract.input.size.aspect for view in views]
    width_in = 2 * _MARGIN_IN + tiles * (_TILE_WIDTH_IN + _GAP_IN) - _GAP_IN
    height_in = _HEAD_IN + sum(heights_in) + _ROW_HEAD_IN * len(views) + _FOOT_IN
    figure = new_figure(width_in, height_in, dpi=DPI)
    left = _MARGIN_IN / width_in
    figure.text(left, 1 - 0.12 / height_in, title, fontsize=13, fontweight="bold", va="top", parse_math=False)
    bottom_in = height_in - _HEAD_IN
    for view, tile_in in zip(views, heights_in, strict=True):
        row_title = f"{view.label}    {view.title}"
        figure.text(left, (bottom_in - 0.26) / height_in, row_title, fontsize=11, fontweight="bold", parse_math=False)
        bottom_in -= _ROW_HEAD_IN + tile_in
        for index in range(1 + len(view.heatmaps)):
            left_in = _MARGIN_IN + index * (_TILE_WIDTH_IN + _GAP_IN)
            corner = (left_in / width_in, bottom_in / height_in)
            axes = figure.add_axes((*corner, _TILE_WIDTH_IN / width_in, tile_in / height_in), label=f"tile {index}")
            if index == 0:
                _draw_photo(axes, view)
            else:
                _draw_heatmap(axes, view, joint=index - 1)
            _show_crop(axes, view)
    figure.text(left, 0.1 / height_in, KEY, fontsize=8.5, va="bottom")
    return figure


def _show_crop(axes: Axes, view: PersonView) -> None:
    """Show exactly the crop, whatever was drawn; an image's pixel centres are whole numbers, as points' are."""
    size = view.contract.input.size
    axes.set_xlim(-0.5, size.width - 0.5)
    axes.set_ylim(size.height - 0.5, -0.5)
    axes.set_axis_off()


def _draw_photo(axes: Axes, view: PersonView) -> None:
    """Draw the crop with the network's skeleton, the annotated joints, and lines between the two."""
    axes.imshow(view.crop, interpolation="bilinear")
    axes.set_title("crop", fontsize=9, pad=5)
    schema = view.contract.keypoints
    for first, second in schema.skeleton:
        colors = {_side_color(schema.names[joint]) for joint in (first, second)}
        _draw_line(axes, view.found_xy[[first, second]], color=colors.pop() if len(colors) == 1 else _MIDDLE, width=2.0)
    labelled = [joint for joint in range(len(schema)) if view.visibility[joint] > 0]
    for joint in labelled:
        _draw_line(axes, np.stack([view.true_xy[joint], view.found_xy[joint]]), color="white", width=1.0)
    for joint in range(len(schema)):
        _draw_disc(axes, view, joint=joint)
    for joint in labelled:
        mark = "o" if view.visibility[joint] > 1 else "s"
        _draw_mark(axes, view.true_xy[joint], mark=mark, color=_side_color(schema.names[joint]))


def _draw_heatmap(axes: Axes, view: PersonView, *, joint: int) -> None:
    """Draw a heatmap over the dimmed crop, the higher the brighter and more opaque, with its target and its joint."""
    heatmap, size = view.heatmaps[joint], view.contract.input.size
    height = np.clip(heatmap / max(float(heatmap.max()), FAINT_PEAK), 0.0, 1.0)
    grey = _DIM * cv2.cvtColor(view.crop, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    # A map covers the whole crop: its cells are `stride` pixels large.
    extent = (-0.5, size.width - 0.5, size.height - 0.5, -0.5)
    alpha = 0.9 * np.sqrt(height)
    axes.imshow(height, cmap="inferno", vmin=0, vmax=1, alpha=alpha, extent=extent, interpolation="nearest")
    _draw_disc(axes, view, joint=joint)
    if view.weights[joint] > 0:
        _draw_mark(axes, view.true_xy[joint], mark="+", color="white")
    name = view.contract.keypoints.names[joint].replace("_", " ")
    axes.set_title(f"{name}\n{_found(view, joint)}", fontsize=9, pad=5)


def _found(view: PersonView, joint: int) -> str:
    """Say how high a joint's peak is and how far it lies from the annotation."""
    peak = f"peak {view.heatmaps[joint].max():.2f}"
    if view.visibility[joint] == 0:
        return f"{peak}, {NOT_LABELLED}"
    place = "" if view.weights[joint] else ", not in the crop"
    return f"{peak}, off {view.distances[joint]:.3f}{place}"


def _draw_line(axes: Axes, points_xy: NDArray[np.float64], *, color: str, width: float) -> None:
    for stroke, line_width in ((_OUTLINE, width + 1.3), (color, width)):
        axes.plot(*points_xy.T, color=stroke, linewidth=line_width)


def _draw_mark(axes: Axes, point_xy: NDArray[np.float64], *, mark: str, color: str) -> None:
    """Draw an outlined mark that leaves what is under it to be seen."""
    for stroke, width in ((_OUTLINE, 3.4), (color, 1.7)):
        axes.plot(
            *point_xy, marker=mark, markersize=12, fillstyle="none", markeredgecolor=stroke, markeredgewidth=width
        )


def _draw_disc(axes: Axes, view: PersonView, *, joint: int) -> None:
    color = _side_color(view.contract.keypoints.names[joint])
    axes.plot(*view.found_xy[joint], marker="o", markersize=5.5, color=color, markeredgecolor=_OUTLINE)


def _side_color(name: str) -> str:
    return _hex(LEFT_COLOR if name.startswith("left") else RIGHT_COLOR)


def find_persons(coco: CocoFile, ids: Sequence[int]) -> list[CocoPerson]:
    """Return the persons of annotation ids, in that order, each once.

    Raises:
        AnnotationError: An id is none of the file's; the message offers what may have been meant.
    """
    known = {person.ann_id: person for person in coco.persons}
    unknown = [ann_id for ann_id in dict.fromkeys(ids) if ann_id not in known]
    if unknown:
        problems = "; ".join(_unknown_id(coco, ann_id, known) for ann_id in unknown)
        raise AnnotationError(problems, where=coco.path, remedy=f"choose among its {len(known)} ids, or --random N")
    return [known[ann_id] for ann_id in dict.fromkeys(ids)]


def random_persons(coco: CocoFile, count: int, *, seed: int) -> list[CocoPerson]:
    """Return persons with a labelled joint, drawn by chance; the same seed draws the same ones of a file.

    Raises:
        InputError: The file has fewer.
    """
    labelled = [person for person in coco.persons if person.labelled_joints and not person.is_crowd]
    if count > len(labelled):
        problem = f"has {len(labelled)} persons with a labelled joint, and {count} are asked for"
        raise InputError(problem, where=coco.path, remedy="give a smaller --random")
    order = np.random.default_rng(seed).permutation(len(labelled))  # so that a smaller count draws the first of them
    return [labelled[index] for index in order[:count]]


def write_panels(
    checkpoints: Sequence[Path],
    coco: CocoFile,
    *,
    persons: Sequence[CocoPerson],
    images: Path,
    output: Path,
    force: bool = False,
) -> Iterator[Path | LbkitError]:
    """Write person-ID.png for each person, and yield its path, or what kept that person from being drawn.

    Args:
        checkpoints: The networks, a row each.
        coco: The file that the persons are of.
        persons: Whom to draw.
        images: Folder of the file's pictures.
        output: Folder of the panels; it is made if need be.
        force: Replace files that exist.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ModelError: A checkpoint cannot be used.
        OutputError: A file exists already or cannot be written.
    """
    targets = {person.ann_id: output / f"person-{person.ann_id}.png" for person in persons}
    for target in targets.values():
        refuse_overwrite(target, force=force)
    networks = [_load(path) for path in checkpoints]
    for person in persons:
        path = images / coco.images[person.image_id].file_name
        try:
            image = read_image(path)
            views = [view_person(network, image, person=person, label=label) for label, network in networks]
        except InputError as error:
            problem = f"person {person.ann_id}: {error.problem}"
            yield type(error)(problem, where=error.where or path, remedy=error.remedy)
            continue
        labelled = f"{person.labelled_joints} of {len(person.visibility)} joints labelled"
        title = f"person {person.ann_id} of {path.name}, {labelled}{', a crowd' if person.is_crowd else ''}"
        save_figure(panel_figure(views, title=title), targets[person.ann_id])
        yield targets[person.ann_id]


def _load(path: Path) -> tuple[str, PoseEstimator]:
    """Return a network and its name; the folder is in it, because every run names its checkpoints alike."""
    network = PoseEstimator(TorchBackend(load_checkpoint(path)))
    return f"{network.contract.model} ({path.resolve().parent.name}/{path.name})", network


def _unknown_id(coco: CocoFile, ann_id: int, known: Mapping[int, CocoPerson]) -> str:
    """Say what an id is that is no person's, and which ids may have been meant."""
    rejected = next((entry for entry in coco.rejected if entry.ann_id == ann_id), None)
    if rejected:
        return f"annotation {ann_id} cannot be used ({rejected.reason})"
    problem = f"no person has the annotation id {ann_id}"
    if ann_id in coco.images:
        own = [str(person.ann_id) for person in known.values() if person.image_id == ann_id]
        return f"{problem}, but an image has, and its persons are {', '.join(own) or 'none'}"
    near = difflib.get_close_matches(str(ann_id), map(str, known), n=3, cutoff=0.5)
    return f"{problem}; close ones are {', '.join(near)}" if near else problem


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--annotations", required=True, type=click.Path(dir_okay=False, path_type=Path), help="COCO JSON.")
@click.option("--images", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of pictures.")
@click.option("--person", "ids", multiple=True, type=int, metavar="ID", help="A COCO annotation id; may be repeated.")
@click.option("--random", "count", type=click.IntRange(min=1), metavar="N", help="Draw N labelled persons by chance.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides whom --random draws.")
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def main(
    checkpoints: tuple[Path, ...],
    annotations: Path,
    *,
    images: Path,
    ids: tuple[int, ...],
    count: int | None,
    seed: int,
    output: Path,
    force: bool,
) -> None:
    """Draw what CHECKPOINTs make of annotated persons, a picture a person, a row a checkpoint."""
    if bool(ids) == bool(count):
        raise click.UsageError("give either --person, once or more, or --random")
    results: list[Path | LbkitError] = []
    with errors_as_lines(on_interrupt="pictures drawn so far are whole"):
        coco = read_coco(annotations)
        persons = find_persons(coco, ids) if count is None else random_persons(coco, count, seed=seed)
        for result in write_panels(checkpoints, coco, persons=persons, images=images, output=output, force=force):
            results.append(result)
            if isinstance(result, LbkitError):
                tell_error(result)
            else:
                click.echo(f"wrote {result}")
    if any(isinstance(result, LbkitError) for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
