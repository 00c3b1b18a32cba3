"""Whether a deployed file does what its checkpoint does, stage by stage, in pixels of the photograph."""
