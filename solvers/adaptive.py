"""As fine as an accuracy asks for: solve, bound the error, refine where it is.

The error is that of the answer against the solution of the *differential* equation, guaranteed by
two-sided bounds (``linear.equilibrated``). On a mesh the elements that have most of the bound, a
share of its square (Doerfler 1996), are divided and what is around them kept conforming
(:mod:`sciml.core.problem.bisection`): of the unknowns the error then falls as fast as polynomials
can make it, whatever corners and jumps do (Cascon, Kreuzer, Nochetto and Siebert 2008). A grid is
refined as a whole, to the size at which the order seen so far meets the error; the first two steps
see it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.errors import InputError
from sciml.core.problem.bisection import bisected
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh, sample
from sciml.core.problem.problem import Problem
from sciml.core.run.certificate import PdeCertificate
from sciml.core.run.solution import Solution
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.auto import Auto
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct
from sciml.solvers.linear.equilibrated import certify_pde, check_bounded
from sciml.solvers.linear.fast_poisson import FastPoisson
from sciml.solvers.linear.krylov import CG, GMRES, MINRES
from sciml.solvers.linear.multigrid import Multigrid

Inner: TypeAlias = Auto | CG | MINRES | GMRES | Direct | Multigrid | AMG | FastPoisson

_BELOW = 0.9  # of the error asked for, that a grid is made for
_FARTHEST = 16.0  # times as many unknowns in one step: orders are seen on coarse grids, too
_ENOUGH = 1.05  # of the square of the bound, beyond what is needed
_LEAST = 0.1  # of that square: steps too small to be worth a solve
_STILL, _LONG = 0.9, 16.0  # of a bound that fell to this share only, by so many times the unknowns


@dataclass(frozen=True)
class AdaptiveState:
    """The problem, where it begins, and the state of the solver there."""

    problem: Problem
    on: Grid | Mesh
    first: Any


@dataclass(frozen=True)
class Adaptive:
    """Refines the mesh or the grid until the answer is guaranteed to be as accurate as asked.

    ``error``: its distance to the solution of the differential equation, in the energy norm and
    relative to the solution's own. ``solver`` answers on each mesh or grid. ``share``: of the
    square of the bound, that the elements which are divided have; less where less is enough.
    ``most``: unknowns, at which it ends as INACCURATE, as it does where the bound no longer falls.
    """

    error: float = 0.01
    solver: Inner = field(default_factory=Auto)
    share: float = 0.5
    most: int = 1_000_000
    kind: Literal["adaptive"] = "adaptive"
    reads_problem = True  # itself, not its discretisation
    progresses = "mesh {step}, an error of at most {reached:.2e}"

    def __post_init__(self) -> None:
        if not 0 < self.error < math.inf:
            raise InputError(f"error must be positive; got {self.error:g}", "solver.error")
        if not 0 < self.share <= 1:
            raise InputError(f"share must be in (0, 1]; got {self.share:g}", "solver.share")
        if self.most < 1:
            raise InputError(f"most must be at least 1; got {self.most}", "solver.most")

    def init(self, problem: Problem | LinearSystem, on: Any = None) -> AdaptiveState:
        """Where it begins; raises InputError for a matrix, and for points."""
        if isinstance(problem, LinearSystem):
            stated, on = problem.problem, problem.on
            if stated is None:
                raise InputError("a matrix has no differential equation", "solver.kind")
            problem = stated
        if on is None or isinstance(on, Points):
            raise InputError("give a grid or a mesh to begin with", "grid")
        check_bounded(problem, on)
        on = on.bind(problem.box) if isinstance(on, Grid) else on
        inner: Any = self.solver
        return AdaptiveState(problem, on, inner.init(problem, on))

    def run(
        self,
        state: AdaptiveState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Until the bound is met; ``progress(level, bound)`` after every solve.

        Raises InputError for a right-hand side, and for problems that have no such bound.
        """
        if b is not None:
            raise InputError("a right-hand side belongs to one grid; leave b out")
        begun, on, known, setup = time.perf_counter(), state.on, initial, 0.0
        levels: list[Level] = []
        inner: Any = self.solver
        while True:
            own = inner.init(state.problem, on) if levels else state.first
            solution = replace(inner.run(own, initial=known), on=on)
            setup += solution.stats.setup_seconds
            if not solution.status.success:
                return self._ended(solution, levels, solution.status, setup, begun)
            bounds = certify_pde(solution, state.problem, on)
            solution = replace(solution, certificate=bounds)
            upper = float(bounds.relative_upper.max())
            levels.append(Level(int(np.prod(on.shape)), upper, float(bounds.upper.max())))
            if progress is not None:
                progress(len(levels), upper)
            if upper <= self.error:
                sure = Status.INACCURATE if bounds.notes else Status.CERTIFIED
                return self._ended(solution, levels, sure, setup, begun)
            finer = None if bounds.reason or _still(levels) else self._finer(on, bounds, levels)
            if finer is None or math.prod(finer.shape) > self.most:
                return self._ended(solution, levels, Status.INACCURATE, setup, begun)
            known = _carried(solution, on, finer)
            on = finer

    def _finer(self, on: Grid | Mesh, bounds: PdeCertificate, levels: list[Level]) -> Grid | Mesh:
        if isinstance(on, Grid):
            return _finer_grid(on, levels, self.error, self.most)
        share = self.share
        if math.isfinite(levels[-1].upper):
            # What all marked elements halved would leave.
            left = 1 - (self.error / levels[-1].upper) ** 2
            share = min(share, max(_LEAST, _ENOUGH * left / (1 - 4.0**-on.degree)))
        square = (
            bounds.cells.square().flatten(0, -2).amax(0)
            if bounds.cells.ndim > 1
            else (bounds.cells.square())
        )
        return bisected(on, marked(square.numpy(), share))

    def _ended(
        self, solution: Solution, levels: list[Level], status: Status, setup: float, begun: float
    ) -> Solution:
        met = solution.certificate
        notes = [f"{k.unknowns:,} unknowns: an error of at most {k.upper:.2g}" for k in levels[-6:]]
        told = (*solution.notes, *notes)
        if isinstance(met, PdeCertificate) and met.notes:
            told = (*told, *(f"not guaranteed: {note}" for note in met.notes))
        if isinstance(met, PdeCertificate) and met.reason:
            told = (*told, f"there is no bound of the error: {met.reason}")
        elif status is Status.INACCURATE and _still(levels):
            told = (*told, "the bound no longer falls with the unknowns: K jumps within cells, "
                    "the solution's own norm is zero, or rtol is too large")  # fmt: skip
        whole = time.perf_counter() - begun
        stats = replace(solution.stats, setup_seconds=setup, solve_seconds=whole - setup)
        statuses = tuple(status if old.success else old for old in solution.statuses)
        return replace(solution, statuses=statuses, stats=stats, notes=told, solver=self)


@dataclass(frozen=True)
class Level:
    """How many unknowns, and the bounds of the relative and the absolute error."""

    unknowns: int
    upper: float
    absolute: float


def marked(square: np.ndarray, share: float) -> np.ndarray:
    """The fewest elements that have a ``share`` of the sum of ``square`` (m,); at least one."""
    order = np.argsort(-square, kind="stable")
    total = np.cumsum(square[order])
    count = int(np.searchsorted(total, share * total[-1])) + 1
    return order[:count]


def _still(levels: list[Level]) -> bool:
    """Whether the bound has all but ceased to fall, by many times the unknowns."""
    last = levels[-1]
    before = [k for k in levels if _LONG * k.unknowns <= last.unknowns]
    return bool(before) and last.absolute > _STILL * before[-1].absolute


def _finer_grid(on: Grid, levels: list[Level], error: float, most: int) -> Grid:
    """Twice as fine at first; then as the order that was seen asks for, as far as is allowed."""
    d, factor = len(on.shape), 2.0
    if len(levels) > 1 and math.isfinite(levels[-1].upper):
        fall = math.log(levels[-2].upper / levels[-1].upper)
        ratio = (levels[-1].unknowns / levels[-2].unknowns) ** (1 / d)
        order = max(fall / math.log(ratio), 0.25)
        factor = (levels[-1].upper / (_BELOW * error)) ** (1 / order)
        factor = min(max(factor, 1.1), _FARTHEST ** (1 / d))
    less = 1 if on.centring == "node" else 0
    # Multiples of eight suit multigrid.
    cells = [8 * math.ceil((n - less) * factor / 8 - 1e-9) for n in on.shape]
    cells = [max(c, n - less + 8) for c, n in zip(cells, on.shape, strict=True)]
    finer = replace(on, shape=tuple(c + less for c in cells))
    room = (most / math.prod(on.shape)) ** (1 / d)
    if math.prod(finer.shape) > most and room > 1.2:
        shape = [8 * math.floor((n * room - less) / 8) + less for n in on.shape]
        if all(wide > n for wide, n in zip(shape, on.shape, strict=True)):
            return replace(on, shape=tuple(shape))
    return finer


def _carried(solution: Solution, on: Grid | Mesh, finer: Grid | Mesh) -> torch.Tensor | None:
    """The answer at the nodes of the finer mesh; of a grid it is not worth the way."""
    if not isinstance(on, Mesh) or not isinstance(finer, Mesh):
        return None
    return sample(on, solution.value, torch.from_numpy(finer.nodes))
