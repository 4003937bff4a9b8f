"""Learned solvers and preconditioners: what a network says, made safe by what is proven."""
