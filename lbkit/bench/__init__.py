"""How fast models run on this machine: on each provider, and in PyTorch, which is imported only when asked for."""
