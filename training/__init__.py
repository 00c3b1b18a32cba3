"""Training runs, recipes and data; not part of the wheel."""
