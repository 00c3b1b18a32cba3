"""Motion from joints over time: smoothing, angles, squats. Pure functions of time, joints and scores."""
