"""Families of problems, and the data sets generated from them."""

from __future__ import annotations

if __name__ != "sciml.datasets":
    raise ImportError("import this package as sciml.datasets")
