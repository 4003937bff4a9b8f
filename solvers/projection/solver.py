"""Incompressible flow between walls, in time, by projection on a staggered grid.

The scheme is in :mod:`sciml.solvers.projection.flow`, the grid in
:mod:`sciml.solvers.projection.staggered`: of second order in space and time, of first order in
space next to obstacles whose rim is not along the grid. Advection is explicit, so that the step k
obeys (|u| / hx + |v| / hy) k <= 1/2.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sciml.core.discretize.coefficients import data, depends_on, evaluate
from sciml.core.discretize.layout import layout
from sciml.core.discretize.obstacle import cut
from sciml.core.equation import NavierStokes
from sciml.core.errors import InputError
from sciml.core.frames import Frames, fingerprint
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.problem import Problem
from sciml.core.solution import Solution
from sciml.core.solve import Progress
from sciml.solvers.iteration import check_options
from sciml.solvers.projection.flow import Channel
from sciml.solvers.projection.pressure import pressure_problem, set_up
from sciml.solvers.projection.run import Run
from sciml.solvers.projection.sides import Sides, ends
from sciml.solvers.projection.staggered import component

_INSIDE = "problem.obstacle.inside"


@dataclass(frozen=True)
class Projection:
    """Pressure-correction projection method (Kim and Moin 1985; van Kan 1986) for NavierStokes.

    Works on a cell grid in 2-D; a node grid stands for the cells between its nodes. Sides are
    walls (``dirichlet: [u, v]``), outlets (``neumann: 0``) or periodic, an obstacle is at rest
    (``dirichlet: [0, 0]``). ``step``: None adapts it to the flow by CFL; one that violates CFL is
    an InputError. ``rtol``: largest net outflow of any cell at any step, max |D u| h / max |u|,
    which is the residual that the solution reports. ``steady_tolerance``: the run stops once
    max |u_t| / max |u| is below it (per unit of time), the frames left are the steady state.
    The value is (*batch, frames, 3, *cells) with fields u, v, p at the cells' centres. All samples
    of a batch take the same steps.
    """

    kind: Literal["projection"] = "projection"
    step: float | None = None
    rtol: float = 1e-8
    steady_tolerance: float | None = None

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, 1)
        for name in ("step", "steady_tolerance"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(
                    f"projection: {name} must be positive; got {value:g}", f"solver.{name}"
                )

    def init(self, problem: Problem | LinearSystem, on: Grid | None = None) -> FlowState:
        """Lay out the staggered grid and set up the pressure solver."""
        start = time.perf_counter()
        channel, notes = _channel(problem, on, self.rtol)
        return FlowState(channel, notes, time.perf_counter() - start)

    def run(
        self,
        state: FlowState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: str | Path | None = None,
    ) -> Solution:
        """Run to the end of time.

        ``initial``: velocities at the cells' centres, (*batch, fields, *cells) with u and v first,
        in place of the problem's own. ``frames``: a file to keep frames in, and to go on from.
        """
        if b is not None:
            raise InputError("a flow has no right-hand side b; its force is in the equation")
        start, channel = time.perf_counter(), state.channel
        if initial is not None:
            channel = channel.batched(tuple(initial.shape[:-3]))
        run = Run(self, channel, progress)
        identity = fingerprint(channel.problem, channel.grid, self, initial)
        record = Frames(run.instants, frames, identity)
        run.go(record, initial)
        seconds = time.perf_counter() - start
        return run.solution(record, state.notes, state.setup_seconds, seconds)


@dataclass(frozen=True)
class FlowState:
    """The flow's set-up, remarks on it, and how long it took."""

    channel: Channel
    notes: tuple[str, ...]
    setup_seconds: float


def _channel(
    problem: Problem | LinearSystem, on: Grid | None, rtol: float
) -> tuple[Channel, tuple[str, ...]]:
    if not isinstance(problem, Problem) or not isinstance(problem.equation, NavierStokes):
        raise InputError(
            "projection solves incompressible flow: equation: {kind: navier_stokes, ...}",
            "solver.kind",
        )
    if on is None:
        raise InputError("a problem needs a grid to be solved on: pass on=Grid((129, 129))")
    if on.scheme is not None:
        raise InputError("projection has a scheme of its own: leave it out", "grid.scheme")
    _check(problem)
    grid, notes = _cells(on.bind(problem.box))
    kinds = ends(problem)
    inner = pressure_problem(problem, kinds)
    lay = layout(inner, grid, torch.float64, "cpu")
    info = data(problem, lay, torch.float64, torch.device("cpu"))
    if problem.obstacle is not None and "t" in depends_on(problem.obstacle.inside, info, _INSIDE):
        raise InputError("an obstacle in a flow does not move: leave t out", _INSIDE)
    hole = cut(inner, lay, info)
    faces = (
        component(0, grid, kinds, hole),
        component(1, grid, kinds, hole),
    )
    openings = faces[0].open, faces[1].open
    batch = tuple(torch.broadcast_shapes(*(p.shape for p in info.parameters.values())))
    nu = evaluate(problem.equation.viscosity, info.own, info, "problem.equation.viscosity")
    viscosity = _viscosity(nu, batch)
    pressure = set_up(inner, grid, hole, openings)
    sides = Sides(problem, grid, info, batch, openings)
    channel = Channel(problem, grid, info, batch, viscosity, faces, sides, pressure, rtol)
    return channel, (*notes, *info.notes)


def _check(problem: Problem) -> None:
    equation = problem.equation
    assert isinstance(equation, NavierStokes)
    if problem.box.dimension != 2:
        raise InputError(
            f"projection solves flows in 2-D; the domain has {problem.box.dimension} dimensions",
            "problem.domain",
        )
    if problem.time is None:
        raise InputError(
            "a flow runs in time: give time: {end: ...} and initial: {u: ..., v: ...}",
            "problem.time",
        )
    if equation.vorticity_source not in (0, 0.0):
        raise InputError(
            "between walls there is no vorticity_source; give force: [fx, fy]",
            "problem.equation.vorticity_source",
        )
    if equation.force is not None and len(equation.force) != 2:
        raise InputError("force must be a list of 2 entries", "problem.equation.force")
    unknown = sorted(set(problem.first) - {"u", "v"})
    if unknown:
        raise InputError(
            f"unknown field '{unknown[0]}': the fields of a flow are u and v", "problem.initial"
        )
    if problem.obstacle is not None:
        given = problem.obstacle.boundary.dirichlet
        if not (isinstance(given, (list, tuple)) and len(given) == 2 and not any(given)):
            raise InputError(
                "an obstacle in a flow is at rest: boundary: {dirichlet: [0, 0]}",
                "problem.obstacle.boundary",
            )


def _cells(grid: Grid) -> tuple[Grid, tuple[str, ...]]:
    if grid.centring == "cell":
        return grid, ()
    cells = Grid((grid.shape[0] - 1, grid.shape[1] - 1), "cell", grid.domain)
    nodes, between = ("{} x {}".format(*g.shape) for g in (grid, cells))
    return cells, (f"{nodes} nodes: values are at the centres of the {between} cells between",)


def _viscosity(value: torch.Tensor, batch: tuple[int, ...]) -> np.ndarray:
    key = "problem.equation.viscosity"
    if value.shape[-2:] != (1, 1) and value.ndim >= 2 and bool((value != value[..., :1, :1]).any()):
        raise InputError("viscosity must not vary in space", key)
    number = value[..., 0, 0] if value.ndim >= 2 else value
    if not bool((number > 0).all()):
        raise InputError(f"viscosity must be positive; got {float(number.min()):g}", key)
    return number.expand(batch).reshape(-1).contiguous().numpy()
