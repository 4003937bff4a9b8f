"""Finite elements, P1 and P2, on simplices."""
