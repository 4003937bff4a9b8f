"""Eigenvalues: the modes of a problem."""
