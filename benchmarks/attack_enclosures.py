"""Attack the certificate of the differential equation: problems whose solutions are known.

    python benchmarks/attack_enclosures.py [--tried 1000] [--journal FILE]

Diffusion and reaction in one to three dimensions, K smooth or constant in stripes of contrast up to
1e6, scalar or one per axis, all kinds of sides. The solution is a product of functions of one
coordinate each, whose fluxes along x are smooth across the stripes, so that the true error is an
integral. v is an interpolant with and without an error, noise, zero, a solution or an iteration
that was stopped, a smooth function near the solution, or a network that was not trained.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attack import ANSWERED, REFUSED, WRONG, Journal

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.condition import Condition, Robin
from sciml.core.problem.grid import SIDES, Box, Grid
from sciml.core.problem.problem import Equation, Problem
from sciml.core.run.certificate import PdeCertificate
from sciml.solvers.linear.krylov import CG

Tensor = torch.Tensor
_ROUNDING = 1e-9
KINDS = (
    "interpolant", "wrong", "noise", "zero", "solved", "stopped", "smooth", "network",
)  # fmt: skip


@dataclass(frozen=True)
class Factor:
    """A function of one coordinate with (k w')', k constant in even stripes."""

    k: Tensor
    low: float
    high: float
    amplitude: float
    frequency: float
    slope: float
    shift: float

    def stripe(self, x: Tensor) -> Tensor:
        """The number of the stripe of each point."""
        n = len(self.k)
        return ((x - self.low) / (self.high - self.low) * n).floor().long().clamp(0, n - 1)

    def conductivity(self, x: Tensor) -> Tensor:
        """k."""
        return self.k[self.stripe(x)]

    def flux(self, x: Tensor) -> Tensor:
        """k w'."""
        return self.slope + self.amplitude * torch.cos(self.frequency * (x - self.low))

    def _primitive(self, x: Tensor) -> Tensor:
        y = x - self.low
        return self.slope * y + self.amplitude * torch.sin(self.frequency * y) / self.frequency

    def value(self, x: Tensor) -> Tensor:
        """w."""
        n = len(self.k)
        ends = self.low + (self.high - self.low) * torch.arange(n + 1, dtype=torch.float64) / n
        rises = self._primitive(ends).diff() / self.k
        start = torch.cat([torch.zeros(1, dtype=torch.float64), rises.cumsum(0)])
        here = self.stripe(x)
        own = (self._primitive(x) - self._primitive(ends[here])) / self.k[here]
        return self.shift + start[here] + own

    def gradient(self, x: Tensor) -> Tensor:
        """w'."""
        return self.flux(x) / self.conductivity(x)

    def divergence(self, x: Tensor) -> Tensor:
        """(k w')'."""
        return -self.amplitude * self.frequency * torch.sin(self.frequency * (x - self.low))


@dataclass(frozen=True)
class Case:
    """A problem whose solution is a product, its grid, and v."""

    problem: Problem
    on: Grid
    factors: tuple[Factor, ...]
    c: float
    scalar: bool
    kind: str
    v: Any

    def value(self, points: Sequence[Tensor]) -> Tensor:
        """u at points that broadcast."""
        return math.prod(
            (f.value(x) for f, x in zip(self.factors, points, strict=True)), start=torch.ones(())
        )

    def conductivity(self, axis: int, points: Sequence[Tensor]) -> Tensor:
        """K along one axis."""
        own = 0 if self.scalar else axis
        return self.factors[own].conductivity(points[own])

    def slope(self, axis: int, points: Sequence[Tensor]) -> Tensor:
        """du/dx along one axis."""
        parts = [
            f.gradient(x) if k == axis else f.value(x)
            for k, (f, x) in enumerate(zip(self.factors, points, strict=True))
        ]
        return math.prod(parts, start=torch.ones(()))

    def source(self, points: Sequence[Tensor]) -> Tensor:
        """f."""
        total = self.c * self.value(points)
        for axis, (own, x) in enumerate(zip(self.factors, points, strict=True)):
            others = [f.value(y) for k, (f, y) in enumerate(zip(self.factors, points)) if k != axis]
            # Of a scalar K only the first factor has stripes.
            scale = self.conductivity(0, points) if self.scalar and axis else 1.0
            total = total - scale * math.prod(others, start=own.divergence(x))
        return total


def random_case(rng: np.random.Generator) -> Case:
    """One of them."""
    d = int(rng.choice([1, 2, 2, 2, 3]))
    most = {1: 40, 2: 20, 3: 8}[d]
    shape = tuple(int(n) for n in rng.integers(4, most, d))
    lower = tuple(float(a) for a in rng.uniform(-1, 1, d))
    upper = tuple(a + float(10 ** rng.uniform(-0.7, 0.5)) for a in lower)
    box = Box(lower, upper)
    scalar = bool(rng.random() < 0.5)
    periodic = [bool(rng.random() < 0.15) for _ in range(d)]
    factors = tuple(
        _factor(rng, lower[k], upper[k], shape[k], scalar and k > 0, periodic[k]) for k in range(d)
    )
    c = float(rng.choice([0.0, 10 ** rng.uniform(-4, 4)]))
    kinds = [[Condition(periodic=True)] * 2 if wraps else [None, None] for wraps in periodic]
    blank = Problem(box, Equation(f=1.0), {"all": Condition(dirichlet=0.0)})
    case = Case(blank, Grid(tuple(n + 1 for n in shape), domain=box), factors, c, scalar, "", None)
    sides: dict[str, Condition] = {}
    for axis in range(d):
        for end in (0, 1):
            name = SIDES[axis][end]
            sides[name] = kinds[axis][end] or _condition(rng, case, axis, end)
    loose = all(side.kind in ("neumann", "periodic") for side in sides.values())
    if loose and rng.random() < 0.5:
        case = replace(case, c=c or 1.0)
    K = _conductivities(case)
    equation = Equation(K=K, c=case.c, f=_function(case, case.source))
    case = replace(case, problem=Problem(box, equation, sides))
    kind = str(rng.choice(KINDS))
    if kind in ("smooth", "network") and (any(periodic) or any(len(f.k) > 1 for f in factors)):
        kind = "wrong"
    if rng.random() < 0.2:
        case = replace(case, on=case.on.cells)
    return replace(case, kind=kind, v=_guess(rng, case, kind))


def _factor(
    rng: np.random.Generator, low: float, high: float, n: int, plain: bool, periodic: bool
) -> Factor:
    stripes = 1 if plain or periodic or rng.random() < 0.4 else n
    contrast = 10 ** rng.uniform(0, 6)
    k = torch.as_tensor(contrast ** rng.random(stripes))
    if rng.random() < 0.5 and stripes > 1:
        k = torch.where(torch.as_tensor(rng.random(stripes)) < 0.5, 1.0, contrast).double()
    if plain or stripes == 1:
        k = torch.ones(1, dtype=torch.float64)
    if periodic:
        frequency = 2 * math.pi * int(rng.integers(1, 3)) / (high - low)
        return Factor(k, low, high, float(rng.uniform(0.5, 2)), frequency, 0.0, 1.5)
    frequency = float(rng.uniform(0.3, 4)) * math.pi / (high - low)
    slope, shift = (float(s) for s in rng.uniform(-1, 1, 2))
    return Factor(k, low, high, float(rng.uniform(0.5, 2)), frequency, slope, shift)


def _condition(rng: np.random.Generator, case: Case, axis: int, end: int) -> Condition:
    kind = rng.choice(["dirichlet", "dirichlet", "neumann", "robin"])
    out = 1.0 if end else -1.0
    alpha = float(10 ** rng.uniform(-3, 3))

    def flux(points: Sequence[Tensor]) -> Tensor:
        # On a face of the box K is that of the cells beside it.
        return out * case.conductivity(axis, points) * case.slope(axis, points)

    if kind == "dirichlet":
        return Condition(dirichlet=_function(case, case.value))
    if kind == "neumann":
        return Condition(neumann=_function(case, flux))
    both = _function(case, lambda points: alpha * case.value(points) + flux(points))
    return Condition(robin=Robin(alpha, both))


def _function(case: Case, of: Callable[[Sequence[Tensor]], Tensor]) -> Callable[..., Tensor]:
    names = "xyz"[: len(case.factors)]
    if len(names) == 1:
        return lambda x: of((x,))
    if len(names) == 2:
        return lambda x, y: of((x, y))
    return lambda x, y, z: of((x, y, z))


def _conductivities(case: Case) -> Any:
    if all(len(f.k) == 1 for f in case.factors):
        return 1.0
    shape = tuple(n - 1 for n in case.on.shape)
    points = Grid(shape, "cell", case.on.domain).axes()
    d = len(shape)
    lines = [p.reshape([-1 if j == k else 1 for j in range(d)]) for k, p in enumerate(points)]
    fields = [case.conductivity(k, lines).expand(shape).clone() for k in range(d)]
    return fields[0] if case.scalar or d == 1 else fields


def _guess(rng: np.random.Generator, case: Case, kind: str) -> Any:
    lines = torch.meshgrid(*case.on.axes(), indexing="ij")
    exact = case.value(lines)
    size = float(10 ** rng.uniform(-6, 0))
    waves = [float(w) for w in rng.uniform(-3, 3, len(lines))]
    if kind == "zero":
        return torch.zeros_like(exact)
    if kind == "wrong":
        phase = sum(w * x for w, x in zip(waves, lines, strict=True))
        return exact * (1 + size * torch.cos(phase))
    if kind == "noise":
        return exact + size * torch.as_tensor(rng.standard_normal(exact.shape))
    if kind in ("solved", "stopped"):
        few = None if kind == "solved" else int(rng.integers(1, 5))
        solver = CG(**({} if few is None else {"max_iterations": few}))
        return sciml.solve(case.problem, solver, on=case.on, throw=False)
    if kind == "smooth":
        factors = case.factors

        def near(points: Tensor) -> Tensor:
            columns = points.unbind(1)
            phase = sum(w * x for w, x in zip(waves, columns, strict=True))
            value = math.prod(
                (_smooth(f, x) for f, x in zip(factors, columns, strict=True)),
                start=torch.ones_like(phase),
            )
            return (value * (1 + size * torch.cos(phase)))[:, None]

        return near
    if kind == "network":
        d, width = len(lines), 8
        A = torch.as_tensor(rng.standard_normal((d, width)))
        b, out = (torch.as_tensor(rng.standard_normal(width)) for _ in range(2))
        return lambda points: (torch.tanh(points @ A + b) @ out)[:, None]
    return exact


def _smooth(factor: Factor, x: Tensor) -> Tensor:
    return factor.shift + factor._primitive(x) / factor.k[0]


def true_error(case: Case, nodal: Tensor | None) -> float:
    """|u - v|_E by six Gauss points in each cell, v nodal values or the case's own function."""
    x, w = np.polynomial.legendre.leggauss(6)
    x, w = (x + 1) / 2, w / 2
    cells = case.on.cells.bind(case.problem.box)
    d, spacing = len(case.factors), cells.spacing
    edges = [
        a + h * torch.arange(n, dtype=torch.float64)
        for a, h, n in zip(case.problem.box.lower, spacing, cells.shape, strict=True)
    ]
    total = 0.0

    def look(place: Sequence[float], only: tuple[int, int] | None) -> tuple[Any, ...]:
        lines = [e + p * h for e, p, h in zip(edges, place, spacing, strict=True)]
        if only is not None:
            axis, end = only
            lines[axis] = torch.tensor(
                [(case.problem.box.lower, case.problem.box.upper)[end][axis]], dtype=torch.float64
            )
        grid = torch.meshgrid(*lines, indexing="ij")
        if nodal is None:
            points = torch.stack(grid, -1).reshape(-1, d).requires_grad_()
            value = case.v(points)[:, 0]
            (slopes,) = torch.autograd.grad(value.sum(), points)
            shape = grid[0].shape
            return grid, value.detach().reshape(shape), slopes.T.reshape(d, *shape)
        from sciml.solvers.linear.equilibrated import multilinear

        value, slopes = multilinear(nodal, place, spacing)
        if only is not None:
            axis, end = only
            value = value.narrow(axis, 0 if end == 0 else value.shape[axis] - 1, 1)
        return grid, value, slopes

    for index in np.ndindex(*(6,) * d):
        place = [float(x[i]) for i in index]
        grid, value, slopes = look(place, None)
        part = case.c * (case.value(grid) - value).square()
        for axis in range(d):
            gap = case.slope(axis, grid) - slopes[axis]
            part = part + case.conductivity(axis, grid) * gap.square()
        total += float(part.sum()) * math.prod(w[i] for i in index) * math.prod(spacing)
    for axis in range(d):
        for end in (0, 1):
            condition = case.problem.boundary[SIDES[axis][end]]
            if condition.robin is None:
                continue
            alpha = float(condition.robin.alpha)
            for index in np.ndindex(*(6,) * (d - 1)):
                weights = math.prod(w[i] for i in index)
                place = [float(x[i]) for i in index]
                place.insert(axis, float(end))
                grid, value, _ = look(place, (axis, end))
                gap = alpha * (case.value(grid) - value).square()
                area = math.prod(spacing) / spacing[axis]
                total += float(gap.sum()) * weights * area
    return math.sqrt(total)


def judged(case: Case) -> tuple[PdeCertificate, float]:
    """The certificate and the true error."""
    from sciml.discretization.volumes.equilibrium import cells_of
    from sciml.solvers.linear.equilibrated import _Nodal

    found = sciml.certify(case.v, case.problem, case.on, of="pde")
    nodal = None
    if not callable(case.v):
        here = cells_of(case.problem, case.on.cells.bind(case.problem.box))
        nodal = _Nodal.of(case.v, here, case.on).values
    return found, true_error(case, nodal)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tried", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=Path("runs/attack/enclosures.jsonl"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    journal, family = Journal(chosen.journal), "enclosures of the differential equation's solution"
    done = journal.done()
    for number in range(chosen.tried):
        name = f"{chosen.seed}-{number}"
        if (family, name) in done:
            continue
        rng, begin = np.random.default_rng((chosen.seed, number)), time.perf_counter()
        case = random_case(rng)
        try:
            found, error = judged(case)
        except InputError as reason:
            journal.add(family, name, REFUSED, why=str(reason), kind=case.kind,
                        seconds=time.perf_counter() - begin)  # fmt: skip
            continue
        low, high = float(found.lower.max()), float(found.upper.max())
        slack = _ROUNDING * max(error, 1e-300)
        good = low <= error + slack and high >= error - slack
        journal.add(
            family, name, ANSWERED if good else WRONG, kind=case.kind, error=error,
            below=low / error if error else 1.0, above=high / error if error else 1.0,
            seconds=time.perf_counter() - begin,
        )  # fmt: skip
        if not good:
            print("WRONG", name, case.kind, low, error, high, found)


if __name__ == "__main__":
    main()
