"""The joints of one person over time: what video hands to motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6


@dataclass(frozen=True, slots=True, eq=False)
class PoseTrack:
    """One person's six lower-body joints over T frames.

    Attributes:
        time_s: (T,) float64, strictly increasing seconds, as the container gives them; steps may be uneven.
        joints_xy: (T, 6, 2) float64 image pixels, the centre of the top-left pixel being (0, 0); NaN where the person
            was not found.
        scores: (T, 6) float64 in 0 to 1; 0 where the person was not found.
        image_size: Size of every frame.
        track_id: The person's number, the same through the whole recording.
        company: Share of the looks for somebody else in which there was one; None where nobody looked.
    """

    time_s: NDArray[np.float64]
    joints_xy: NDArray[np.float64]
    scores: NDArray[np.float64]
    image_size: ImageSize
    track_id: int = 0
    company: float | None = None

    def __post_init__(self) -> None:
        for name in ("time_s", "joints_xy", "scores"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float64))
        frames, joints = self.time_s.size, len(LOWER_BODY_6)
        for name, shape in {"time_s": (frames,), "joints_xy": (frames, joints, 2), "scores": (frames, joints)}.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} should have shape {shape}, got {getattr(self, name).shape}")
        self._check_values()

    def __len__(self) -> int:
        return self.time_s.size

    @property
    def found(self) -> NDArray[np.bool_]:
        """(T, 6) whether a joint has a place in a frame."""
        return np.asarray(np.isfinite(self.joints_xy).all(axis=-1))

    def _check_values(self) -> None:
        if not np.isfinite(self.time_s).all() or (np.diff(self.time_s) <= 0).any():
            raise ValueError("time_s must be finite and strictly increasing")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("scores must lie in 0 to 1; clip them where a heatmap's peak overshoots")
        if np.isinf(self.joints_xy).any():
            raise ValueError("joints_xy must be finite, or NaN where the person was not found")
        if (self.scores[~self.found] != 0).any():
            raise ValueError("scores must be 0 where joints_xy is NaN")
