"""Solvers of F(u) = 0."""
