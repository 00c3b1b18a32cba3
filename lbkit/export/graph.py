"""What is folded into an exported graph about the network: normalisation in front, a decoder behind.

The decoders are those of `lbkit.core.codec`, written so that they become few and common ONNX operators: what depends
only on a peak's cell is looked up in constant tables, one pad and one gather cut a patch about each peak, and DARK
smooths only the 3x3 cells that its Newton step reads instead of the whole map. Weighted sums are multiplications and
a reduction, never a matrix product, because GPUs round those to TF32 unless told otherwise, which would move a
soft-argmax by up to 0.1 px. A test keeps the two modules equal.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lbkit.core.codec import DARK_FLOOR, SOFT_ARGMAX_BETA, smoothing_kernel, smoothing_radius
from lbkit.core.contract import DecoderName, HeatmapSpec, InputSpec, ModelContract
from lbkit.core.geometry import ImageSize
from lbkit.core.preprocess import normalization_coefficients

CENTRAL_DIFFERENCES = (
    # over the 3x3 cells in row order: what dx, dy, dxx, dyy and dxy take of each
    ((0.0, 0.0, 0.0), (-0.5, 0.0, 0.5), (0.0, 0.0, 0.0)),
    ((0.0, -0.5, 0.0), (0.0, 0.0, 0.0), (0.0, 0.5, 0.0)),
    ((0.0, 0.0, 0.0), (1.0, -2.0, 1.0), (0.0, 0.0, 0.0)),
    ((0.0, 1.0, 0.0), (0.0, -2.0, 0.0), (0.0, 1.0, 0.0)),
    ((0.25, 0.0, -0.25), (0.0, 0.0, 0.0), (-0.25, 0.0, 0.25)),
)


class NormalizeInput(nn.Module):
    """The host's `normalize_crops` as a module: (N, H, W, 3) uint8 RGB to (N, 3, H, W) normalised float32.

    Args:
        spec: The contract's input.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        scale, offset = normalization_coefficients(spec)
        self.register_buffer("scale", torch.from_numpy(scale).reshape(1, 3, 1, 1))
        self.register_buffer("offset", torch.from_numpy(offset).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 3, H, W) float32; the bytes are transposed before they are widened, a quarter of the traffic."""
        return images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.offset


class _PeakDecoder(nn.Module):
    """The highest cell, the first in row order when several are equal: (N, K, h, w) to (N, K, 2) x, y in cells.

    Args:
        spec: The contract's heatmap.
        radius: How far the patches about the peaks reach, in cells.
    """

    cells_xy: Tensor
    border_xy: Tensor
    patch_index: Tensor
    patch_offsets: Tensor

    def __init__(self, spec: HeatmapSpec, *, radius: int = 0) -> None:
        super().__init__()
        self.radius = radius
        cells_xy = _cell_coordinates(spec.size)
        last_xy = torch.tensor([spec.size.width - 1, spec.size.height - 1])
        row_length, side = spec.size.width + 2 * radius, torch.arange(2 * radius + 1)
        self.register_buffer("cells_xy", cells_xy.to(torch.float32))
        self.register_buffer("border_xy", torch.minimum(cells_xy, last_xy - cells_xy))
        self.register_buffer("patch_index", cells_xy[:, 1] * row_length + cells_xy[:, 0])
        self.register_buffer("patch_offsets", (side[:, None] * row_length + side).flatten())

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Return the (N, K, 2) cells."""
        return self.cells_xy[self.peaks(heatmaps)]

    def peaks(self, heatmaps: Tensor) -> Tensor:
        """Return the (N, K) indices of the peaks in row order, the first of equals."""
        return _flat(heatmaps).argmax(dim=2)

    def patches(self, heatmaps: Tensor, peaks: Tensor) -> Tensor:
        """Return the (N, K, side * side) cells about the peaks in row order, zero beyond the border."""
        padded = functional.pad(heatmaps, (self.radius,) * 4)
        index = self.patch_index[peaks][:, :, None] + self.patch_offsets
        return _flat(padded).gather(2, index)


class _Quarter(_PeakDecoder):
    """The highest cell, a quarter cell nearer the higher neighbour (Newell et al., 2016); not at the border."""

    differences: Tensor

    def __init__(self, spec: HeatmapSpec) -> None:
        super().__init__(spec, radius=1)
        self.register_buffer("differences", _difference_weights()[:, :2])

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Return the (N, K, 2) cells."""
        peaks = self.peaks(heatmaps)
        slope_xy = _weighted(self.patches(heatmaps, peaks), self.differences)
        inside_xy = self.border_xy[peaks] >= 1
        return self.cells_xy[peaks] + 0.25 * torch.sign(slope_xy) * inside_xy


class _Dark(_PeakDecoder):
    """One Newton step on the logarithm of the smoothed map (Zhang et al., 2020), with the host's border rules."""

    smoothing: Tensor
    center: Tensor
    differences: Tensor

    def __init__(self, spec: HeatmapSpec) -> None:
        reach = smoothing_radius(spec.sigma)
        super().__init__(spec, radius=reach + 1)
        self.reach = reach
        self.register_buffer("smoothing", _smoothing_weights(spec.sigma))
        self.register_buffer("center", _center_cells(self.radius))
        self.register_buffer("differences", _difference_weights())

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Return the (N, K, 2) cells."""
        peaks = self.peaks(heatmaps)
        patches = self.patches(heatmaps, peaks)
        border = self.border_xy[peaks].amin(dim=2, keepdim=True)
        raw = patches.index_select(2, self.center)
        near = torch.where(border >= self.reach, _weighted(patches, self.smoothing), raw)
        step_xy = _newton_step(_weighted(near.clamp(min=DARK_FLOOR).log(), self.differences))
        return self.cells_xy[peaks] + torch.where(border >= 1, step_xy, 0.0)


class _SoftArgmax(nn.Module):
    """The mean position under softmax(beta * h): (N, K, h, w) to (N, K, 2) x, y in cells (Sun et al., 2018)."""

    columns: Tensor
    rows: Tensor

    def __init__(self, spec: HeatmapSpec) -> None:
        super().__init__()
        self.register_buffer("columns", torch.arange(spec.size.width, dtype=torch.float32))
        self.register_buffer("rows", torch.arange(spec.size.height, dtype=torch.float32))

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Return the (N, K, 2) cells."""
        weights = torch.exp(SOFT_ARGMAX_BETA * (heatmaps - heatmaps.amax(dim=(2, 3), keepdim=True)))
        x = (weights.sum(dim=2) * self.columns).sum(dim=2)
        y = (weights.sum(dim=3) * self.rows).sum(dim=2)
        return torch.stack([x, y], dim=2) / weights.sum(dim=(2, 3))[:, :, None]


_DECODERS: dict[DecoderName, type[nn.Module]] = {
    "argmax": _PeakDecoder,
    "soft-argmax": _SoftArgmax,
    "quarter": _Quarter,
    "dark": _Dark,
}


class DecodeKeypoints(nn.Module):
    """The host's `decode_heatmaps` as a module: (N, K, h, w) float32 to (N, K, 3) of x, y in input pixels and score.

    Args:
        spec: The contract's heatmap.
        decoder: One of `DECODERS`; the contract's own when None.
    """

    def __init__(self, spec: HeatmapSpec, *, decoder: DecoderName | None = None) -> None:
        super().__init__()
        self.stride = spec.stride
        self.locate = _DECODERS[decoder or spec.decoder](spec)

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Return (N, K, 3) float32: x, y in input pixels, and the map's highest value."""
        input_xy = (self.locate(heatmaps) + 0.5) * self.stride - 0.5
        return torch.cat([input_xy, heatmaps.amax(dim=(2, 3))[:, :, None]], dim=2)


class DeploymentGraph(nn.Module):
    """A bare network with what its exported file's contract promises before and behind it.

    Args:
        module: The bare network: (N, 3, H, W) normalised float32 to (N, K, h, w) heatmaps.
        contract: The contract of the exported file; its input's type says whether pixels are normalised inside, its
            outputs what comes out.
    """

    def __init__(self, module: nn.Module, contract: ModelContract) -> None:
        super().__init__()
        self.outputs = contract.outputs
        self.normalize = NormalizeInput(contract.input) if contract.input.dtype == "uint8" else nn.Identity()
        self.network = module
        self.decode = DecodeKeypoints(contract.heatmap) if contract.heatmap.decoded_in_graph else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the contract's outputs, in its order.

        Args:
            images: (N, H, W, 3) uint8 RGB, or (N, 3, H, W) normalised float32, as the contract's input says.
        """
        heatmaps = cast(Tensor, self.network(self.normalize(images)))
        if self.decode is None:
            return (heatmaps,)
        made = {"heatmaps": heatmaps, "keypoints": self.decode(heatmaps)}
        return tuple(made[name] for name in self.outputs)


def _flat(maps: Tensor) -> Tensor:
    """Return (N, K, h * w) maps; -1 stands for the batch, so that no shape is computed inside the graph."""
    return maps.reshape(-1, maps.shape[1], maps.shape[2] * maps.shape[3])


def _weighted(cells: Tensor, weights: Tensor) -> Tensor:
    """Return the (N, K, m) sums of (N, K, n) cells under (n, m) weights."""
    return (cells[:, :, :, None] * weights).sum(dim=2)


def _cell_coordinates(size: ImageSize) -> Tensor:
    """Return the (h * w, 2) int64 x, y of a map's cells in row order."""
    y, x = torch.meshgrid(torch.arange(size.height), torch.arange(size.width), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def _center_cells(radius: int) -> Tensor:
    """Return the (9,) indices of the 3x3 cells in the middle of a patch."""
    middle = torch.arange(radius - 1, radius + 2)
    return (middle[:, None] * (2 * radius + 1) + middle).flatten()


def _difference_weights() -> Tensor:
    """Return the (9, 5) weights of dx, dy, dxx, dyy and dxy on 3x3 cells."""
    return torch.tensor(CENTRAL_DIFFERENCES).reshape(5, 9).T.contiguous()


def _smoothing_weights(sigma: float) -> Tensor:
    """Return the (side * side, 9) weights that turn a patch into its 3x3 smoothed middle cells."""
    kernel = torch.from_numpy(smoothing_kernel(sigma)).to(torch.float64)
    side = len(kernel) + 2
    shifted = torch.stack([functional.pad(kernel, (shift, 2 - shift)) for shift in range(3)])
    weights = torch.einsum("ay,bx->yxab", shifted, shifted)
    return weights.reshape(side * side, 9).to(torch.float32)


def _newton_step(derivatives: Tensor) -> Tensor:
    """Return minus the inverse Hessian times the gradient, (N, K, 2), zero where there is no maximum.

    Args:
        derivatives: (N, K, 5) of dx, dy, dxx, dyy, dxy.
    """
    dx, dy, dxx, dyy, dxy = torch.split(derivatives, 1, dim=2)
    determinant = dxx * dyy - dxy * dxy
    valid = (determinant > 0) & (dxx < 0)
    toward_xy = torch.cat([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=2)
    step_xy = (toward_xy / torch.where(valid, determinant, 1.0)).clamp(-1, 1)
    return torch.where(valid, step_xy, 0.0)
