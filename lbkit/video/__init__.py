"""Video: read with its own time stamps, people followed from frame to frame, and written again."""
