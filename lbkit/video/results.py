"""Results of a video as text: JSON lines, one a frame, and a table, one row a person and frame."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from lbkit.core.keypoints import KeypointSchema
from lbkit.video.pipeline import FramePoses


def frame_record(result: FramePoses, *, path: str) -> dict[str, Any]:
    """Return one frame's JSON object: path, frame, time_s, width, height, and people, each with its `id`.

    Args:
        result: The frame.
        path: The video as it was named.
    """
    size = result.poses.image_size
    people = [{"id": number, **person} for number, person in zip(result.ids, result.poses.to_dicts(), strict=True)]
    return {
        "path": path,
        "frame": result.index,
        "time_s": round(result.time_s, 6),
        "width": size.width,
        "height": size.height,
        "people": people,
    }


def json_line(result: FramePoses, *, path: str) -> str:
    """Return one frame's line of JSON (see `frame_record`)."""
    return json.dumps(frame_record(result, path=path)) + "\n"


def csv_header(keypoints: KeypointSchema) -> str:
    """Return the table's header line.

    Args:
        keypoints: The joints, in the model's order.
    """
    joints = [f"{name}_{field}" for name in keypoints.names for field in ("x", "y", "score")]
    fixed = ["path", "frame", "time_s", "width", "height", "id", "left", "top", "right", "bottom", "score"]
    return _csv_line([*fixed, *joints])


def csv_rows(result: FramePoses, *, path: str) -> str:
    """Return one frame's rows, one a person; none where nobody was found."""
    record = frame_record(result, path=path)
    head = [record[name] for name in ("path", "frame", "time_s", "width", "height")]
    return "".join(_csv_line([*head, person["id"], *_flat(person)]) for person in record["people"])


def _flat(person: dict[str, Any]) -> list[float]:
    joints = [joint[field] for joint in person["keypoints"].values() for field in ("x", "y", "score")]
    return [*person["box_xyxy"], person["score"], *joints]


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
