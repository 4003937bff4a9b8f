"""Neural operators: maps between functions as networks, and nothing else."""

from __future__ import annotations

if __name__ != "sciml.operators":
    raise ImportError("import this package as sciml.operators")
