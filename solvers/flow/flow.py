"""The state of a flow and one step of it in time, with the pressure's Poisson problem.

Adams-Bashforth for advection, Crank-Nicolson for diffusion, factorised by directions, and van
Kan's incremental pressure correction (1986), with step k and r = k / k_before:

    (1 - a D_xx) (1 - a D_yy) (u* - u^n) = k (-(1 + r/2) H^n + r/2 H^(n-1) + nu Lap u^n
                                              - G p^(n-1/2) + f^(n+1/2)),      a = nu k / 2,
    D G phi = D u* / k,      u^(n+1) = u* - k G phi,
    p^(n+1/2) = p^(n-1/2) + phi - (nu / 2) D u*

(Kim and Moin 1985; the last line is Brown, Cortez and Minion's, 2001, and makes p of second order
too). u* has the walls' velocities at t^(n+1). In a steady state phi = 0: the answer does not depend
on the step.

For phi, n . grad phi = 0 on walls and rims, phi = 0 on outlets. On a whole box fast transforms
invert -Lap; around obstacles, where the open shares of the faces weigh the links, multigrid-CG
does, from the last increment as its guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation, NavierStokes
from sciml.core.problem.grid import SIDES, Grid
from sciml.core.problem.problem import Condition, Obstacle, Problem
from sciml.discretization import discretize
from sciml.discretization.volumes.coefficients import Data, data, depends_on, evaluate
from sciml.discretization.volumes.layout import layout
from sciml.discretization.volumes.obstacle import Cut, cut
from sciml.solvers.flow.loops import survey, tendency_u, tendency_v
from sciml.solvers.flow.staggered import (
    Component,
    End,
    Sides,
    Walls,
    component_of,
    ends,
    fill_pressure,
    places,
    sampled,
)
from sciml.solvers.linear.fast_poisson import FastPoisson, SpectralInverse
from sciml.solvers.linear.krylov import CG, KrylovState
from sciml.solvers.linear.multigrid import Multigrid

# Small beside 1, yet seen in single precision: what regularises the operator for multigrid.
_SLIGHT = 1e-5
_INSIDE = "problem.obstacle.inside"
_OF_END = {
    "wall": Condition(neumann=0.0),
    "outlet": Condition(dirichlet=0.0),
    "periodic": Condition(periodic=True),
}


def pressure_problem(problem: Problem, ends: tuple[tuple[End, End], ...]) -> Problem:
    """What the pressure increment solves, its source left out."""
    boundary = {
        name: _OF_END[kind]
        for names, kinds in zip(SIDES, ends, strict=False)
        for name, kind in zip(names, kinds, strict=True)
    }
    hole = None
    if problem.obstacle is not None:
        hole = Obstacle(problem.obstacle.inside, Condition(neumann=0.0))
    return Problem(
        problem.box, Equation(kind="poisson"), boundary, hole, parameters=problem.parameters
    )


def lay_out(
    problem: Problem, grid: Grid
) -> tuple[Problem, Data, Cut | None, tuple[Component, Component]]:
    """The pressure's problem, the context, the obstacle as it cuts the cells, and the faces."""
    kinds = ends(problem)
    inner = pressure_problem(problem, kinds)
    lay = layout(inner, grid, torch.float64, "cpu")
    info = data(problem, lay, torch.float64, torch.device("cpu"))
    if problem.obstacle is not None and "t" in depends_on(problem.obstacle.inside, info, _INSIDE):
        raise InputError("an obstacle in a flow does not move: leave t out", _INSIDE)
    hole = cut(inner, lay, info)
    faces = component_of(0, grid, kinds, hole), component_of(1, grid, kinds, hole)
    return inner, info, hole, faces


@dataclass(frozen=True)
class Pressure:
    """The solver of the pressure's system, set up once.

    ``dry``: cells without an open face. ``singular``: p is known but for a constant.
    """

    A: Stencil
    singular: bool
    inverse: SpectralInverse | None
    solver: CG
    prepared: KrylovState | None
    dry: np.ndarray

    def solve(self, b: np.ndarray, guess: np.ndarray | None, tolerance: np.ndarray) -> np.ndarray:
        """``A phi = b`` to a residual ``tolerance``, one per sample; b (samples, *cells)."""
        right = torch.from_numpy(b)
        if self.inverse is not None:
            return self.inverse.apply(right).numpy()
        assert self.prepared is not None
        size = np.linalg.norm(b.reshape(len(b), -1), axis=1)
        rtol = float((tolerance / np.where(size > 0, size, 1.0)).min())
        solver = replace(self.solver, rtol=min(max(rtol, 1e-14), 0.5))
        first = None if guess is None else torch.from_numpy(guess)
        phi = solver.iterate(self.A, self.prepared, right, first, None).x.numpy()
        wet: np.ndarray = phi * ~self.dry
        return wet

    @property
    def name(self) -> str:
        """The kind of solver, for the log."""
        return "fast_poisson" if self.inverse is not None else "cg with multigrid"


def pressure_solver(
    problem: Problem, grid: Grid, hole: Cut | None, openings: tuple[np.ndarray, np.ndarray]
) -> Pressure:
    """Discretise ``pressure_problem`` on the cells; ``openings`` weigh the faces of x and of y."""
    A = discretize(replace(problem, obstacle=None), grid).A
    assert isinstance(A, Stencil)
    dry = np.zeros(grid.shape, dtype=bool)
    if hole is None:
        return Pressure(A, A.nullspace, FastPoisson().setup(A), CG(), None, dry)
    shares = [torch.from_numpy(share) for share in openings]
    touched = [
        s.narrow(k, 0, n) + s.narrow(k, 1, n) for k, (s, n) in enumerate(zip(shares, A.shape))
    ]
    wet = touched[0] + touched[1] != 0
    exact = _weighed(A, shares)
    solver = CG(preconditioner=Multigrid(), max_iterations=200)
    prepared = solver.setup(_regular(A, shares, wet))
    return Pressure(exact, A.nullspace, None, solver, prepared, ~wet.numpy())


def _weighed(A: Stencil, shares: Sequence[torch.Tensor]) -> Stencil:
    """The stencil with its links weighed.

    Cells that have none left have an empty row: their part of the right-hand side is zero, and no
    residual ever has another there. Constants need no care either, since residuals have no mean.
    """
    planes = A.coefficients.clone(memory_format=torch.contiguous_format)
    for axis, (share, n) in enumerate(zip(shares, A.shape, strict=True)):
        planes[1 + 2 * axis] *= share.narrow(axis, 0, n)
        planes[2 + 2 * axis] *= share.narrow(axis, 1, n)
    planes[0] = -planes[1:].sum(0)
    return Stencil(planes, cross_offsets(2), periodic=A.periodic, symmetric=True, definite=True)


def _regular(A: Stencil, shares: Sequence[torch.Tensor], wet: torch.Tensor) -> Stencil:
    """A nearby operator that multigrid can coarsen and invert.

    Interpolation divides by what couples a point across, of which a cell open along one axis has
    none: it gets a small share along the other. Empty rows get a diagonal entry. Where p is known
    but for a constant, the diagonal is raised a little.
    """
    near = [
        torch.where(_both(wet, axis), share.clamp(min=_SLIGHT), share)
        for axis, share in enumerate(shares)
    ]
    planes = _weighed(A, near).coefficients
    planes[0] = torch.where(planes[0] == 0, A.diagonal(), planes[0])
    if A.nullspace:
        planes[0] *= 1 + _SLIGHT
    return Stencil(planes, cross_offsets(2), periodic=A.periodic, symmetric=True, definite=True)


def _both(mask: torch.Tensor, axis: int) -> torch.Tensor:
    """Of the faces of an axis, those between two cells of the mask; the axis counts as a ring."""
    first, last = mask.narrow(axis, 0, 1), mask.narrow(axis, mask.shape[axis] - 1, 1)
    return torch.cat([last, mask], axis) & torch.cat([mask, first], axis)


@dataclass
class Flow:
    """Velocities and pressures with ghost points, and what the next step needs of the last one.

    ``p`` is half a step behind the velocities, ``p_before`` behind that by ``lag``; ``H`` are the
    advection terms of the last step, ``phi`` its pressure increment, ``step`` its length (0 before
    the first); ``peaks`` are those of the velocities. All (samples, ...), float64.
    """

    u: np.ndarray
    v: np.ndarray
    p: np.ndarray
    p_before: np.ndarray
    H: tuple[np.ndarray, np.ndarray]
    phi: np.ndarray
    peaks: np.ndarray
    step: float = 0.0
    lag: float = 0.0


@dataclass(frozen=True)
class StaggeredFlow:
    """A flow problem on its staggered grid, set up: everything that does not change in time."""

    problem: Problem
    grid: Grid
    info: Data
    batch: tuple[int, ...]
    viscosity: np.ndarray
    faces: tuple[Component, Component]
    sides: Sides
    pressure: Pressure
    rtol: float

    @property
    def samples(self) -> int:
        """How many flows are computed together."""
        return int(np.prod(self.batch, dtype=int))

    def batched(self, lead: tuple[int, ...]) -> StaggeredFlow:
        """The same for more flows at once: the parameters' batch broadcast with ``lead``."""
        try:
            batch = tuple(torch.broadcast_shapes(self.batch, lead))
        except RuntimeError:
            raise InputError(
                f"the initial flow has a batch of {list(lead)}, the problem's parameters one of "
                f"{list(self.batch)}; they must broadcast"
            ) from None
        if batch == self.batch:
            return self
        whole = np.broadcast_to(self.viscosity.reshape(self.batch), batch)
        openings = self.faces[0].open, self.faces[1].open
        sides = Sides(self.problem, self.grid, self.info, batch, openings)
        return replace(self, batch=batch, viscosity=whole.reshape(-1).copy(), sides=sides)

    def force(self, t: float) -> list[np.ndarray]:
        """The force on the faces of u and v at time t, (1 or samples, *faces)."""
        given = self.problem.equation_as(NavierStokes).force
        result = []
        for k, component in enumerate(self.faces):
            shape = component.free.shape
            if given is None:
                result.append(np.zeros((1, *shape)))
                continue
            key = f"problem.equation.force[{k}]"
            value = evaluate(given[k], places(self.grid, k), self.info.at_time(t), key)
            result.append(np.ascontiguousarray(sampled(value, self.batch, shape)))
        return result

    @property
    def steady_force(self) -> bool:
        """Whether the force does not change in time."""
        given = self.problem.equation_as(NavierStokes).force
        return given is None or "t" not in depends_on(given, self.info, "problem.equation.force")

    def survey(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """D (u, v) on the cells, and per sample the peaks that the loop of this name gives."""
        divergence, peaks = np.empty((self.samples, *self.grid.shape)), np.empty((self.samples, 3))
        hx, hy = self.grid.spacing
        survey(u, v, self.faces[0].open, self.faces[1].open, hx, hy, divergence, peaks)
        return divergence, peaks

    def leak(self, peaks: np.ndarray) -> np.ndarray:
        """The largest net outflow of a cell relative to the fastest flow, per sample.

        That is max |D u| h / max |u|, h the smaller spacing: the residual that is reported.
        """
        return peaks[:, 0] * min(self.grid.spacing) / np.where(peaks[:, 2] > 0, peaks[:, 2], 1.0)

    def project(
        self, u: np.ndarray, v: np.ndarray, walls: Walls, k: float, guess: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make (u, v) free of divergence in place; returns phi with ghost points and D u*."""
        divergence, peaks = self.survey(u, v)
        area = self.grid.spacing[0] * self.grid.spacing[1]
        tolerance = 0.5 * self.rtol * peaks[:, 2] / min(self.grid.spacing) * area / k
        phi = self.pressure.solve(-divergence * (area / k), guess, tolerance)
        phi = np.pad(phi, ((0, 0), (1, 1), (1, 1)))
        fill_pressure(phi, self.sides.ends)
        for component, w in zip(self.faces, (u, v), strict=True):
            w[:, 1:-1, 1:-1] -= k * component.gradient(phi)
            component.fill(w, walls)
        return phi, divergence

    def advance(
        self, flow: Flow, t: float, k: float, walls: Walls, force: list[np.ndarray]
    ) -> Walls:
        """One step from t to t + k, in place; ``force`` at its middle. Returns the walls' data."""
        after = self.sides.at(t + k)
        r = k / flow.step if flow.step else 0.0
        changes = self._tendencies(flow, k, 1 + r / 2, r / 2, force)
        a = self.viscosity * (k / 2)
        for component, w, d in zip(self.faces, (flow.u, flow.v), changes, strict=True):
            component.diffuse(d, a, walls, after)
            w[:, 1:-1, 1:-1] += d
            component.fill(w, after)
        guess = flow.phi[:, 1:-1, 1:-1] * r if flow.step else None
        phi, divergence = self.project(flow.u, flow.v, after, k, guess)
        flow.p_before, flow.p = flow.p, flow.p + phi
        flow.p[:, 1:-1, 1:-1] -= 0.5 * self.viscosity[:, None, None] * divergence
        fill_pressure(flow.p, self.sides.ends)
        flow.lag = (k + flow.step) / 2
        flow.phi, flow.step = phi, k
        flow.peaks = self.survey(flow.u, flow.v)[1]
        return after

    def _tendencies(
        self, flow: Flow, k: float, now: float, before: float, force: list[np.ndarray]
    ) -> list[np.ndarray]:
        hx, hy = self.grid.spacing
        result = []
        for c, loop in enumerate((tendency_u, tendency_v)):
            component, out = self.faces[c], np.empty_like(flow.H[c])
            w = (flow.u, flow.v)[c]
            loop(
                flow.u, flow.v, flow.p, flow.H[c], force[c], component.links, component.free,
                self.viscosity, k, now, before, hx, hy, out,
            )  # fmt: skip
            component.carry_out(flow.H[c], out, w, k * now)
            result.append(out)
        return result

    def start(self, u: np.ndarray, v: np.ndarray, t: float, k: float) -> Flow:
        """The flow at the start: velocities projected, p such that D u_t = 0."""
        walls = self.sides.at(t)
        for component, w in zip(self.faces, (u, v), strict=True):
            w[:, 1:-1, 1:-1] *= component.free
            component.fill(w, walls)
        self.project(u, v, walls, 1.0, None)
        zero = np.zeros((self.samples, *(n + 2 for n in self.grid.shape)))
        H = tuple(np.zeros((self.samples, *c.free.shape)) for c in self.faces)
        flow = Flow(u, v, zero, zero, (H[0], H[1]), zero, self.survey(u, v)[1])
        rates = self._tendencies(flow, 1.0, 1.0, 0.0, self.force(t))
        moved, soon = [np.zeros_like(u), np.zeros_like(v)], self.sides.at(t + k)
        slopes: Walls = {
            place: ((soon[place][0] - wall[0]) / k, (soon[place][1] - wall[1]) / k)
            for place, wall in walls.items()
        }
        for component, w, rate in zip(self.faces, moved, rates, strict=True):
            w[:, 1:-1, 1:-1] = rate
            component.fill(w, slopes)
        flow.p, _ = self.project(moved[0], moved[1], slopes, 1.0, None)
        flow.p_before = flow.p
        return flow

    def value(self, flow: Flow) -> torch.Tensor:
        """u, v and p at the cells' centres, (*batch, 3, *cells); p is NaN where no fluid is."""
        whole = np.empty((self.samples, 3, *self.grid.shape))
        for k, w in enumerate((flow.u, flow.v)):
            self.faces[k].centred(w, whole[:, k])
        latest, p, dry = flow.p[:, 1:-1, 1:-1], whole[:, 2], self.pressure.dry
        p[...] = latest
        if flow.lag:
            # From the middle of the last step to its end.
            p -= flow.p_before[:, 1:-1, 1:-1]
            p *= flow.step / (2 * flow.lag)
            p += latest
        if self.pressure.singular:
            p -= (p * ~dry).sum((1, 2), keepdims=True) / (~dry).sum()
        np.copyto(p, np.nan, where=dry)
        return torch.from_numpy(whole).reshape(*self.batch, 3, *self.grid.shape)

    @property
    def measure(self) -> torch.Tensor | None:
        """The cells' areas for p where a constant of it is free, zero for u and v, (3, *cells)."""
        if not self.pressure.singular:
            return None
        area = float(np.prod(self.grid.spacing))
        wet = torch.from_numpy(np.where(self.pressure.dry, 0.0, area))
        return torch.stack([torch.zeros_like(wet), torch.zeros_like(wet), wet])

    def first_velocities(self, initial: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """The initial velocities on the faces, with ghost points, before projection."""
        if initial is not None:
            value = initial.detach().to("cpu", torch.float64)
            if value.ndim < 3 or value.shape[-3] < 2 or tuple(value.shape[-2:]) != self.grid.shape:
                raise InputError(
                    f"the initial flow has shape {list(value.shape)}; it must end in "
                    f"(fields, {self.grid.shape[0]}, {self.grid.shape[1]}), u and v first"
                )
            value = value.expand(*self.batch, *value.shape[-3:])
            flat = value.reshape(self.samples, *value.shape[-3:]).numpy()
            return self.faces[0].spread(flat[:, 0]), self.faces[1].spread(flat[:, 1])
        result = []
        for k, name in enumerate(("u", "v")):
            shape = self.faces[k].free.shape
            key = f"problem.initial.{name}"
            given = self.problem.first.get(name, 0.0)
            found = sampled(
                evaluate(given, places(self.grid, k), self.info, key), self.batch, shape
            )
            whole = np.broadcast_to(found, (self.samples, *shape))
            result.append(np.pad(whole, ((0, 0), (1, 1), (1, 1))))
        return result[0], result[1]
