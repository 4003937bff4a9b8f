"""Integrators in time."""
