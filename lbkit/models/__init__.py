"""The three networks in PyTorch, their registry and their checkpoints."""
