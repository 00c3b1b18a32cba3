"""The names of what is measured of a repetition."""

from __future__ import annotations

from typing import Final

MEASURES: Final = (
    "depth_deg",
    "max_knee_flexion_deg",
    "estimated_flexion_deg",
    "hip_drop_legs",
    "hip_above_knee_legs",
    "descent_s",
    "bottom_s",
    "ascent_s",
    "left_valgus_deg",
    "right_valgus_deg",
    "mean_valgus_deg",
    "max_valgus_deg",
    "knee_to_ankle_separation_ratio",
    "knee_flexion_difference_deg",
    "estimated_flexion_difference_deg",
    "pelvic_obliquity_change_deg",
    "sway_legs",
)
"""What is measured of a repetition.

depth_deg is max_knee_flexion_deg where that can be measured, else estimated_flexion_deg, the knee flexion that a squat
with flat feet has at this height of the hips. hip_drop_legs is how far the hips sank, and hip_above_knee_legs how far
they stayed above the knees, in lengths of the leg. Valgus, separation and difference are medians over the bottom;
mean_valgus_deg is that of both knees, in which a camera a little beside the front cancels out, and max_valgus_deg that
of the worse knee, or the mean where single knees cannot be told. knee_flexion_difference_deg is that of the picture,
and estimated_flexion_difference_deg what the sinking of each hip over its own ankle calls for, which the front shows;
both are left less right. pelvic_obliquity_change_deg is the pelvis's tilt at the bottom less that in standing.
sway_legs is how far the hips moved sideways over the feet.
"""
