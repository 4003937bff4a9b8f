"""Learned solvers: what a network answers, bounded and polished by what is proven."""

from __future__ import annotations

from sciml.solvers.learned.surrogate import Surrogate

__all__ = ["Surrogate"]
