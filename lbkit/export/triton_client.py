"""Ask a server of the Open Inference Protocol (Triton, `lbkit serve`) for the golden pictures' joints and compare.

    python client.py [--url http://127.0.0.1:8000] [--token-file FILE] [--slack 1]

Needs nothing but Python. Ends with 0 where every number agrees, 3 where one does not, 1 where the server cannot be
asked. It shows how to send tensors by the binary tensor data extension; `golden.json` names tensor, shape and files.
"""

from __future__ import annotations

import argparse
import array
import json
import math
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HEADER_LENGTH = "Inference-Header-Content-Length"


def ask(url: str, golden: dict[str, Any], pixels: bytes, token: str | None = None) -> dict[str, array.array[float]]:
    """Send pictures in one request.

    Args:
        url: The server's.
        golden: What `golden.json` holds.
        pixels: The pictures' tensors, one after the other.
        token: A bearer token, if the server asks for one.

    Returns:
        The outputs by name, each as its numbers in row-major order.
    """
    count = len(golden["files"])
    tensor = dict(golden["input"], shape=[count, *golden["input"]["shape"]])
    tensor["parameters"] = {"binary_data_size": len(pixels)}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    request = urllib.request.Request(f"{url}/v2/models/{golden['model']}/infer", data=header + pixels, method="POST")
    request.add_header(HEADER_LENGTH, str(len(header)))
    request.add_header("Content-Type", "application/octet-stream")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as response:
        body = response.read()
        cut = int(response.headers[HEADER_LENGTH])
    outputs, position = {}, cut
    for record in json.loads(body[:cut])["outputs"]:
        end = position + record["parameters"]["binary_data_size"]
        numbers = array.array("f", body[position:end])
        if sys.byteorder == "big":
            numbers.byteswap()
        outputs[record["name"]], position = numbers, end
    return outputs


def worst_keypoint(golden: dict[str, Any], found: array.array[float]) -> float:
    """Return the greatest distance of a joint from where it should be, in pixels of the input."""
    expected = [joint for person in golden["keypoints"] for joint in person]
    return greatest(
        [math.hypot(found[3 * index] - x, found[3 * index + 1] - y) for index, (x, y, _) in enumerate(expected)]
    )


def worst_cell(golden: dict[str, Any], found: array.array[float]) -> float:
    """Return the greatest difference of a heatmap from the cells that are known."""
    joints, rows, columns = golden["outputs"]["heatmaps"]
    return greatest(
        [
            abs(found[((picture * joints + joint) * rows + row) * columns + column] - value)
            for picture, joint, row, column, value in golden["heatmap_samples"]
        ]
    )


def greatest(differences: list[float]) -> float:
    """Return the greatest, infinity where one is no number."""
    return math.inf if any(map(math.isnan, differences)) else max(differences)


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description="Compare a server's answers with the golden vectors.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="file of a bearer token")
    parser.add_argument("--slack", metavar="FACTOR", type=float, default=1.0, help="on the tolerances (TF32, FP16)")
    arguments = parser.parse_args()
    folder = Path(__file__).parent
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    pixels = b"".join((folder / name).read_bytes() for name in golden["files"])
    token = arguments.token_file.read_text(encoding="utf-8").strip() if arguments.token_file else None
    try:
        outputs = ask(arguments.url, golden, pixels, token)
    except urllib.error.HTTPError as error:
        print(f"error: {arguments.url} answers {error.code}: {error.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {arguments.url} cannot be asked ({error})", file=sys.stderr)
        return 1
    agrees = not [name for name in outputs if not _agrees(golden, name, outputs[name], slack=arguments.slack)]
    print("the answers agree" if agrees else "the answers DIFFER")
    return 0 if agrees else 3


def _agrees(golden: dict[str, Any], name: str, numbers: array.array[float], *, slack: float) -> bool:
    """Print how far an output is from what it should be, and return whether that is near enough."""
    measure, field = {"keypoints": (worst_keypoint, "keypoints_px"), "heatmaps": (worst_cell, "heatmaps")}[name]
    worst, limit = measure(golden, numbers), slack * golden["tolerance"][field]
    print(f"{name}: at most {worst:.2g} apart, tolerance {limit:g}")
    return bool(worst <= limit)


if __name__ == "__main__":
    sys.exit(main())
