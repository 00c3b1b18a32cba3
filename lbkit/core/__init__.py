"""What every part of lbkit shares: contract, geometry, codec, poses, estimator. NumPy and OpenCV only."""
