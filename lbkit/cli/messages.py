"""Lines that a terminal shows as they are, whatever a file's name holds."""

from __future__ import annotations


def plain_line(text: str) -> str:
    """Return text as one line: its lines joined by spaces, and control characters spelled out."""
    joined = " ".join(text.splitlines())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in joined)
