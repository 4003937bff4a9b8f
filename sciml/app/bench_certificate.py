"""The certificate's bounds over the true error, for smooth, rough and random guesses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import sciml
from sciml.core.discretize import discretize
from sciml.core.grid import Box, Grid
from sciml.core.linear import LinearSystem
from sciml.core.problem import Condition, Equation, Problem
from sciml.solvers.certify import certify

_STEPS = (0, 2, 5)
_CONTRAST = 1e4
_BLOCK = 32


def certificate_table(size: int = 255, seed: int = 0) -> str:
    """A markdown table: lower and upper bound over the true energy error on a ``size``^2 grid.

    Coefficients: constant, random blocks of 32 cells a side, a Gaussian field cut at its median,
    and independent log-uniform cells, at contrast 1e4; -div(K grad u) = 1, u = 0 on the rim.
    """
    lines = [
        "| coefficient | u | " + " | ".join(f"{k} steps" for k in _STEPS) + " | rho |",
        "|---|---|" + "---|" * (len(_STEPS) + 1),
    ]
    rng = np.random.default_rng(seed)
    for name, K in _coefficients(size, rng):
        system = _system(K)
        exact = sciml.solve(system, sciml.solvers.Direct()).value
        for kind, error in _errors(exact, rng):
            true = (error * system.A.apply(error)).sum().sqrt()
            certificates = [certify(exact + error, system, steps=k) for k in _STEPS]
            cells = [f"{c.lower / true:.4f} / {c.upper / true:.4f}" for c in certificates]
            rho = float(certificates[0].contraction)
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} | {rho:.3f} |")
    return "\n".join(lines) + "\n"


def _system(K: np.ndarray) -> LinearSystem:
    box = Box((0.0, 0.0), (1.0, 1.0))
    boundary = {side: Condition(dirichlet=0.0) for side in box.sides}
    problem = Problem(box, Equation(K=torch.as_tensor(K), f=1.0), boundary)
    return discretize(problem, Grid(K.shape, "cell"))


def _coefficients(n: int, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    yield "constant", np.ones((n, n))
    many = -(-n // _BLOCK)
    high = rng.random((many, many)) < 0.5
    blocks = np.kron(high, np.ones((_BLOCK, _BLOCK), dtype=bool))[:n, :n]
    yield "blocks", np.where(blocks, _CONTRAST, 1.0)
    k = np.fft.fftfreq(n, 1 / n)
    spectrum = 1 / (4 * np.pi**2 * (k[:, None] ** 2 + k**2) + 9)
    noise = np.fft.fft2(rng.standard_normal((n, n)))
    values = np.fft.ifft2(spectrum * noise).real
    # The mean dominates this field: a threshold at zero may leave a single phase.
    yield "Gaussian field", np.where(values > np.median(values), _CONTRAST, 1.0)
    yield "log-uniform cells", _CONTRAST ** rng.random((n, n))


def _errors(exact: torch.Tensor, rng: np.random.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Errors of a tenth of the solution's size: one wave, a checkerboard of waves, white noise."""
    n, size = exact.shape[0], 0.1 * exact.abs().max()
    t = torch.linspace(0, torch.pi, n, dtype=exact.dtype)
    for kind, waves in (("smooth", 1), ("rough", n // 3)):
        wave = torch.sin(waves * t)
        yield kind, size * wave[:, None] * wave
    yield "random", size * torch.as_tensor(rng.standard_normal(exact.shape))
