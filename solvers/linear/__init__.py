"""Solvers of A x = b, preconditioners, and bounds of the error."""
