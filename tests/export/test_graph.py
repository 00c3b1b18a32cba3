"""The decoders and the normalisation inside the graph against the host's, over everything a heatmap can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import DECODERS, DecoderName, HeatmapSpec, InputSpec, ModelContract
from lbkit.core.geometry import ImageSize
from lbkit.core.preprocess import normalize_crops
from lbkit.export.graph import DecodeKeypoints, DeploymentGraph, NormalizeInput
from lbkit.export.onnx_export import export_graph

HEIGHT, WIDTH, JOINTS = 24, 17, 3
SPEC = HeatmapSpec(size=ImageSize(HEIGHT, WIDTH), stride=4, sigma=2.0, decoder="dark", decoded_in_graph=False)
Run = Callable[[np.ndarray], np.ndarray]


def gaussians(centers_xy: np.ndarray, *, height: float = 1.0) -> np.ndarray:
    """(M, 2) centres to (M, 1, h, w) maps."""
    x, y = np.arange(WIDTH), np.arange(HEIGHT)
    along_x = np.exp(-((x - centers_xy[:, :1]) ** 2) / (2 * SPEC.sigma**2))
    along_y = np.exp(-((y - centers_xy[:, 1:]) ** 2) / (2 * SPEC.sigma**2))
    return (height * along_y[:, None, :, None] * along_x[:, None, None, :]).astype(np.float32)


def sub_cell_gaussians() -> np.ndarray:
    steps = np.arange(0, 1, 0.125) + 8.03
    return gaussians(np.array([(x, y + 4) for x in steps for y in steps]))


def gaussians_everywhere() -> np.ndarray:
    """A peak on every cell, borders and corners too, off its centre by a third of a cell."""
    return gaussians(np.array([(x + 0.29, y - 0.31) for y in range(HEIGHT) for x in range(WIDTH)]))


def noisy_peaks() -> np.ndarray:
    rng = np.random.default_rng(3)
    maps = gaussians(rng.uniform([0, 0], [WIDTH - 1, HEIGHT - 1], size=(200, 2)), height=0.6)
    return (maps + rng.normal(0, 0.03, maps.shape)).astype(np.float32)


def noise() -> np.ndarray:
    return np.random.default_rng(4).uniform(0.1, 1.0, (200, 1, HEIGHT, WIDTH)).astype(np.float32)


def negative() -> np.ndarray:
    return noise() - np.float32(2.0)


def partly_negative() -> np.ndarray:
    return noisy_peaks() - np.float32(0.2)


def flat() -> np.ndarray:
    values = np.array([0.0, 1.0, -1.0, 0.37], np.float32)
    return np.broadcast_to(values[:, None, None, None], (4, 1, HEIGHT, WIDTH)).copy()


def ties() -> np.ndarray:
    """Equal highest cells on a slope: in one row, in one column, at the border, next to another."""
    slope = np.add.outer(np.arange(HEIGHT), 2 * np.arange(WIDTH)).astype(np.float32) / 1000
    pairs = [((12, 8), (12, 11)), ((5, 9), (17, 9)), ((0, 3), (0, 4)), ((23, 16), (0, 16)), ((10, 10), (11, 9))]
    maps = np.broadcast_to(slope, (len(pairs), 1, HEIGHT, WIDTH)).copy()
    for plane, pair in zip(maps[:, 0], pairs, strict=True):
        for cell in (*pair, (20, 15)):
            plane[cell] = 2.0
    return maps


def peaked_neighbours() -> np.ndarray:
    """Equal neighbours left and right, above and below: the quarter shift must be none."""
    return gaussians(np.array([[8.0, 12.0], [0.0, 12.0], [8.0, 0.0], [16.0, 23.0]]))


def pits() -> np.ndarray:
    """A lone highest cell at the bottom of a pit: smoothed, it is a minimum, and DARK must leave it."""
    maps = np.float32(0.9) - np.float32(0.8) * gaussians(np.array([[8.3, 12.2]]))
    maps[0, 0, 12, 8] = 1.0
    return maps


def faint() -> np.ndarray:
    return sub_cell_gaussians() * np.float32(1e-6)


CASES = (
    sub_cell_gaussians,
    gaussians_everywhere,
    noisy_peaks,
    noise,
    negative,
    partly_negative,
    flat,
    pits,
    faint,
    ties,
    peaked_neighbours,
)


def as_joints(maps: np.ndarray) -> np.ndarray:
    """(M, 1, h, w) to (N, JOINTS, h, w), filled up with the first."""
    missing = -len(maps) % JOINTS
    return np.concatenate([maps, maps[:1].repeat(missing, axis=0)]).reshape(-1, JOINTS, HEIGHT, WIDTH)


def torch_decode(decoder: DecoderName) -> Run:
    module = DecodeKeypoints(SPEC, decoder=decoder).eval()
    return lambda maps: module(torch.from_numpy(maps)).numpy()


class Bare(nn.Module):
    """A network whose heatmaps are its input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 1.0


def identity_contract(contract: ModelContract, decoder: DecoderName) -> ModelContract:
    """The contract of `Bare`: three joints, whose maps are the input's three channels."""
    keypoints = dataclasses.replace(
        contract.keypoints,
        names=contract.keypoints.names[:JOINTS],
        oks_sigmas=contract.keypoints.oks_sigmas[:JOINTS],
        coco_indices=contract.keypoints.coco_indices[:JOINTS],
        flip_pairs=((0, 1),),
        skeleton=(),
    )
    return contract.replace(
        keypoints=keypoints,
        input=dataclasses.replace(contract.input, size=SPEC.size),
        heatmap=dataclasses.replace(SPEC, stride=1, decoder=decoder, decoded_in_graph=True),
        outputs=("keypoints",),
    )


@pytest.fixture(scope="module")
def runtime_decode(fitted) -> Callable[[DecoderName], Run]:
    """Decoders exported and run by ONNX Runtime; their coordinates are in cells."""
    made: dict[str, Run] = {}

    def make(decoder: DecoderName) -> Run:
        contract = identity_contract(fitted("cnn").contract, decoder)
        model = export_graph(DeploymentGraph(Bare(), contract).eval(), contract, opset=18)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda maps: session.run(None, {"images": maps})[0]

    return lambda decoder: made.setdefault(decoder, made.get(decoder) or make(decoder))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("decoder", DECODERS)
def test_torch_decoder_is_the_hosts(decoder: DecoderName, case: Callable[[], np.ndarray]):
    maps = as_joints(case())
    found, expected = torch_decode(decoder)(maps), decode_heatmaps(maps, spec=SPEC, decoder=decoder)
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=0)
    assert np.array_equal(found[..., 2], maps.max(axis=(2, 3)))


@pytest.mark.parametrize("decoder", DECODERS)
def test_exported_decoder_is_the_hosts(decoder: DecoderName, runtime_decode):
    maps = np.concatenate([as_joints(case()) for case in CASES])
    spec = dataclasses.replace(SPEC, stride=1)
    found, expected = runtime_decode(decoder)(maps), decode_heatmaps(maps, spec=spec, decoder=decoder)
    np.testing.assert_allclose(found, expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize("decoder", ["argmax", "quarter"])
def test_decoders_on_whole_cells_are_equal_to_the_bit(decoder: DecoderName):
    for case in CASES:
        maps = as_joints(case())
        assert np.array_equal(torch_decode(decoder)(maps), decode_heatmaps(maps, spec=SPEC, decoder=decoder)), case


def test_first_of_equal_cells_wins_in_row_order():
    found = torch_decode("argmax")(as_joints(ties()))
    cells = (found[..., :2].reshape(-1, 2) + 0.5) / SPEC.stride - 0.5
    assert cells[:5].tolist() == [[8, 12], [9, 5], [3, 0], [16, 0], [10, 10]]


def test_dark_moves_the_peak_only_where_the_host_does():
    found = torch_decode("dark")(as_joints(gaussians_everywhere())).reshape(-1, 3)[: HEIGHT * WIDTH]
    cells = (found[:, :2].reshape(HEIGHT, WIDTH, 2) + 0.5) / SPEC.stride - 0.5
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    moved = np.abs(cells - np.stack([x, y], axis=-1)).max(axis=-1) > 0.1
    assert not moved[0].any()
    assert not moved[-1].any()
    assert not moved[:, 0].any()
    assert not moved[:, -1].any()
    assert moved[1:-1, 1:-1].all()


def test_normalisation_is_the_hosts_to_the_bit():
    rng = np.random.default_rng(0)
    spec = InputSpec("images", ImageSize(16, 48), "uint8", "NHWC", "RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    every_byte = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=2).repeat(3, axis=3)
    crops = np.concatenate([every_byte, rng.integers(0, 256, (2, 16, 48, 3), dtype=np.uint8)])
    found = NormalizeInput(spec)(torch.from_numpy(crops)).numpy()
    assert found.dtype == np.float32
    assert np.array_equal(found, normalize_crops(crops, spec))


def test_graph_gives_the_outputs_of_its_contract_in_order(fitted):
    checkpoint = fitted("cnn")
    heatmap = dataclasses.replace(checkpoint.contract.heatmap, decoded_in_graph=True)
    contract = checkpoint.contract.replace(heatmap=heatmap, outputs=("keypoints", "heatmaps"))
    images = torch.zeros(2, 3, 256, 192)
    keypoints, heatmaps = DeploymentGraph(checkpoint.to_module(), contract)(images)
    assert keypoints.shape == (2, 6, 3)
    assert heatmaps.shape == (2, 6, 64, 48)
    (alone,) = DeploymentGraph(checkpoint.to_module(), checkpoint.contract)(images)
    assert torch.equal(alone, heatmaps)
