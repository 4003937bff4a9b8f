"""The systems of ``sciml bench elliptic``: constant, jumping and random coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sciml.core.discretize import discretize
from sciml.core.grid import Box, Grid
from sciml.core.linear import LinearSystem
from sciml.core.problem import Condition, Equation, Problem


def poisson(n: int, dimension: int) -> LinearSystem:
    """-Lap u = f with n^d unknowns on the nodes of the unit box, normal right-hand side."""
    return _system(1.0, Grid((n + 2,) * dimension), dimension)


def contrast(field: np.ndarray) -> LinearSystem:
    """-div(K grad u) = f on cells, zero Dirichlet data, normal right-hand side."""
    return _system(torch.from_numpy(field), Grid(field.shape, "cell"), field.ndim)


def _system(K: Any, grid: Grid, dimension: int) -> LinearSystem:
    domain = Box((0.0,) * dimension, (1.0,) * dimension)
    walls = {side: Condition(dirichlet=0.0) for side in domain.sides}
    system = discretize(Problem(domain, Equation(K=K, f=1.0), walls), grid)
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(system.b.shape, generator=generator, dtype=torch.float64)
    return LinearSystem(system.A, b)


def coefficient(kind: str, n: int, dimension: int, ratio: float = 1e4) -> np.ndarray:
    """A field of contrast ``ratio``: blocks, field, cells or checkerboard."""
    random = np.random.default_rng(0)
    shape = (n,) * dimension
    if kind == "cells":
        return ratio ** random.random(shape)
    if kind == "blocks":
        blocks = ratio ** random.random((-(-n // 32),) * dimension)
        for axis in range(dimension):
            blocks = np.repeat(blocks, 32, axis)
        return np.ascontiguousarray(blocks[(slice(0, n),) * dimension])
    if kind == "checkerboard":
        parity = sum(np.meshgrid(*[np.arange(n) // 32] * dimension, indexing="ij"))
        return np.where(np.asarray(parity) % 2, ratio, 1.0)
    waves = [np.fft.fftfreq(n, 1 / n) ** 2] * dimension
    squares = sum(np.meshgrid(*waves, indexing="ij"))
    spectrum = np.fft.fftn(random.standard_normal(shape)) / (4 * np.pi**2 * np.asarray(squares) + 9)
    values = np.fft.ifftn(spectrum).real
    # The mean dominates this field: a threshold at zero may leave a single phase.
    return np.where(values > np.median(values), ratio, 1.0)


def darcy(n: int, seed: int) -> np.ndarray:
    """3 or 12 by the sign of a Gaussian field of zero mean with covariance (-Lap + 9)^-2."""
    random = np.random.default_rng(seed)
    k = np.fft.fftfreq(n, 1 / n) ** 2
    decay = 1 / (4 * np.pi**2 * (k[:, None] + k[None, :]) + 9)
    decay[0, 0] = 0.0
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal((n, n))) * decay).real
    return np.where(field > 0, 12.0, 3.0)
