"""Incompressible flow between walls, in time, by projection on a staggered grid.

The scheme is in :mod:`sciml.solvers.flow.flow`, the grid in
:mod:`sciml.solvers.flow.staggered`: of second order in space and time, of first order in
space next to obstacles whose rim is not along the grid. Advection is explicit, so that the step k
obeys (|u| / hx + |v| / hy) k <= 1/2 for the velocities of all cells and walls.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.errors import InputError
from sciml.core.problem.dispatch import Dispatch
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Obstacle, Problem
from sciml.core.run.frames import Frames, Lineage, fingerprint, lineage_of
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.solve import Observe, Progress
from sciml.core.run.status import Status
from sciml.discretization.instants import instants
from sciml.discretization.volumes.coefficients import Data, depends_on, evaluate
from sciml.discretization.volumes.memory import check_memory
from sciml.solvers.flow.flow import Flow, StaggeredFlow, lay_out, pressure_solver
from sciml.solvers.flow.staggered import NO_GRADIENTS, Sides, Walls
from sciml.solvers.linear.iteration import check_options

# (problem, on, rtol): the flow set up, and remarks on it.
flows: Dispatch[tuple[StaggeredFlow, tuple[str, ...]]] = Dispatch("solved by projection")

_ANYTHING = 1e15  # a tolerance that no unit of time makes sense of


@dataclass(frozen=True)
class Projection:
    """Pressure-correction projection method (Kim and Moin 1985; van Kan 1986) for NavierStokes.

    Works on a cell grid in 2-D; a node grid stands for the cells between its nodes. Sides are
    walls (``dirichlet: [u, v]``), outlets (``neumann: 0``) or periodic, an obstacle is at rest
    (``dirichlet: [0, 0]``). ``step``: None adapts it to the flow by CFL; one that violates CFL is
    an InputError. ``rtol``: largest net outflow of any cell at any step, max |D u| h / max |u|,
    which is the residual that the solution reports. ``steady_tolerance``: the run stops once
    max |u_t| / max |u| is below it (per unit of time, whichever that is) and below max |u| over the
    longest side: a flow that changes by itself while it crosses the domain is not steady. The
    frames left are the steady state.
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
        if self.steady_tolerance is not None and self.steady_tolerance >= _ANYTHING:
            raise InputError(
                "projection: steady_tolerance must be the change per unit of time relative to the "
                f"flow itself at which it counts as steady; got {self.steady_tolerance:g}",
                "solver.steady_tolerance",
            )

    def init(self, problem: Problem | LinearSystem, on: Grid | None = None) -> FlowState:
        """Lay out the staggered grid and set up the pressure solver."""
        start = time.perf_counter()
        if not isinstance(problem, Problem):
            raise InputError("projection solves a flow in time, not a linear system", "solver.kind")
        problem.check_conditions()
        lay_out = flows.look_up(problem.equation, type(on))
        if isinstance(on, Grid):
            grid = on.bind(problem.box)
            check_memory(problem, grid, torch.float64, torch.get_default_device())
        channel, notes = lay_out(problem, on, self.rtol)
        return FlowState(channel, notes, time.perf_counter() - start)

    def run(
        self,
        state: FlowState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: str | Path | None = None,
        observe: Observe | None = None,
    ) -> Solution:
        """Run to the end of time.

        ``initial``: velocities at the cells' centres, (*batch, fields, *cells) with u and v first,
        in place of the problem's own. ``frames``: a file to keep frames in, and to go on from.
        ``observe(t, value)`` is called after every step, ``value()`` being that at the centres.
        """
        if b is not None:
            raise InputError("a flow has no right-hand side b; its force is in the equation")
        start, channel = time.perf_counter(), state.channel
        if initial is not None:
            channel = channel.batched(tuple(initial.shape[:-3]))
        run = Run(self, channel, progress, observe)
        identity = fingerprint(channel.problem, channel.grid, self, initial)
        mark = lineage_of(channel.problem, channel.grid, self, initial)
        record = Frames(run.instants, frames, identity, Lineage(mark, torch.clone))
        run.go(record, initial)
        seconds = time.perf_counter() - start
        return run.solution(record, state.notes, state.setup_seconds, seconds)


@dataclass(frozen=True)
class FlowState:
    """The flow's set-up, remarks on it, and how long it took."""

    channel: StaggeredFlow
    notes: tuple[str, ...]
    setup_seconds: float


@flows(NavierStokes, Grid)
def _channel(problem: Problem, on: Grid, rtol: float) -> tuple[StaggeredFlow, tuple[str, ...]]:
    equation = problem.equation_as(NavierStokes)
    if on.scheme is not None:
        raise InputError("projection has a scheme of its own: leave it out", "grid.scheme")
    _check(problem, equation)
    given = on.bind(problem.box)
    grid = given.cells
    notes: tuple[str, ...] = ()
    if grid != given:
        nodes, between = ("{} x {}".format(*g.shape) for g in (given, grid))
        notes = (f"{nodes} nodes: values are at the centres of the {between} cells between",)
    inner, info, hole, faces = lay_out(problem, grid)
    if problem.obstacle is not None and not _at_rest(problem.obstacle, info):
        raise InputError(
            "an obstacle in a flow is at rest: boundary: {dirichlet: [0, 0]}",
            "problem.obstacle.boundary",
        )
    openings = faces[0].open, faces[1].open
    batch = tuple(torch.broadcast_shapes(*(p.shape for p in info.parameters.values())))
    key = "problem.equation.viscosity"
    if depends_on(equation.viscosity, info, key):
        raise InputError("viscosity must not vary in time", key)
    nu = evaluate(equation.viscosity, info.own, info, key)
    if nu.requires_grad:
        raise InputError(NO_GRADIENTS, key)
    viscosity = _viscosity(nu, batch)
    pressure = pressure_solver(inner, grid, hole, openings)
    sides = Sides(problem, grid, info, batch, openings)
    channel = StaggeredFlow(problem, grid, info, batch, viscosity, faces, sides, pressure, rtol)
    return channel, (*notes, *info.notes)


def _at_rest(obstacle: Obstacle, info: Data) -> bool:
    given, key = obstacle.boundary.dirichlet, "problem.obstacle.boundary.dirichlet"
    return (
        isinstance(given, (list, tuple))
        and len(given) == 2
        and not any(depends_on(v, info, key) for v in given)
        and not any(bool(evaluate(v, info.own, info, key).any()) for v in given)
    )


def _check(problem: Problem, equation: NavierStokes) -> None:
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


def _viscosity(value: torch.Tensor, batch: tuple[int, ...]) -> np.ndarray:
    key = "problem.equation.viscosity"
    if value.shape[-2:] != (1, 1) and value.ndim >= 2 and bool((value != value[..., :1, :1]).any()):
        raise InputError("viscosity must not vary in space", key)
    number = value[..., 0, 0] if value.ndim >= 2 else value
    if not bool((number > 0).all()):
        raise InputError(f"viscosity must be positive; got {float(number.min()):g}", key)
    return number.expand(batch).reshape(-1).contiguous().numpy()


# Of (|u| / hx + |v| / hy) k. Adams-Bashforth's growth at this number is below what the viscosity
# takes away up to a cell Reynolds number of 64.
_COURANT = 0.5
# Of nu k (1 / hx^2 + 1 / hy^2) for steps that are chosen: Crank-Nicolson is stable beyond, but
# hardly damps what an impulsive start leaves in the shortest waves.
_DIFFUSION = 4.0
# A frame that would take so many steps belongs to a flow whose speed grows without bound.
_MOST_STEPS = 1e7


@dataclass
class Run:
    """One run: the clock, and what is said about it in the end."""

    solver: Projection
    channel: StaggeredFlow
    progress: Progress | None
    observe: Observe | None = None
    count: int = 0
    leaks: list[np.ndarray] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    blown: np.ndarray | None = None
    rate: float = math.inf
    settled: bool = False

    @cached_property
    def landings(self) -> tuple[float, ...]:
        """Where data begin or cease to change, in order."""
        found = instants(self.channel.problem)
        return tuple(sorted((*found.breaks, *found.edges)))

    @property
    def instants(self) -> tuple[float, ...]:
        """The times of the frames."""
        assert self.channel.problem.time is not None
        return self.channel.problem.time.instants

    def go(self, record: Frames, initial: torch.Tensor | None) -> None:
        """Add frames to ``record`` until the end, a steady state, or blow-up."""
        channel = self.channel
        if record.count:
            flow = self._restored(record.states[-1])
        else:
            u, v = channel.first_velocities(initial)
            begin, end = self.instants[0], self.instants[-1]
            flow = channel.start(u, v, begin, 1e-6 * (end - begin))
            self.leaks.append(channel.leak(flow.peaks))
            self._refuse_step(flow)
            record.append(*self._state(flow))
        self._show(flow, self.instants[record.count - 1])
        for index in range(record.count, len(self.instants)):
            begin = self.instants[index - 1]
            for stop in self._stops(begin, self.instants[index]):
                if not self.settled and self.blown is None:
                    self._frame(flow, begin, stop)
                if self.settled:  # a mean over time is one to the end
                    self._show(flow, stop)
                begin = stop
            if self.blown is not None:
                self.notes.append(
                    f"stopped at the frame t = {self.instants[index]:g}: the flow became infinite"
                )
                return
            record.append(*self._state(flow))

    def _stops(self, begin: float, end: float) -> list[float]:
        """Where a step must end between two frames, and the later of these."""
        least = 1e-12 * (end - begin)
        return [*(t for t in self.landings if begin + least < t < end - least), end]

    def _frame(self, flow: Flow, begin: float, end: float) -> None:
        """Steps from one frame, or an instant at which data change, to the next."""
        channel, tolerance = self.channel, self.solver.steady_tolerance
        # What switches at the instant itself counts from the first step on.
        first = begin + 1e-12 * (end - begin) if begin in self.landings else begin
        t, walls, force = begin, channel.sides.at(first), channel.force(first)
        steady_force, wanted = channel.steady_force, self.solver.step
        if wanted is not None:
            wanted = (end - begin) / math.ceil((end - begin) / wanted * (1 - 1e-9))
        while end - t > 1e-12 * (end - begin):
            limit = self._limit(flow, walls, force)
            step = limit if wanted is None else min(limit, wanted)
            left = (end - t) / step if step > 0 else math.inf  # a viscosity may be that large
            if not left < _MOST_STEPS:
                self.blown = np.ones(channel.samples, dtype=bool)
                return
            if wanted is not None and limit < wanted * (1 - 1e-9):
                self._note_shortened(wanted, limit, t)
            k = (end - t) / math.ceil(left * (1 - 1e-9))
            before = None if tolerance is None else (flow.u.copy(), flow.v.copy())
            if not steady_force:
                force = channel.force(t + k / 2)
            walls = channel.advance(flow, t, k, walls, force)
            t += k
            self._count(flow, k, t)
            if self.blown is not None or (before and self._steady(flow, before, k, t)):
                return

    def _count(self, flow: Flow, k: float, t: float) -> None:
        self.count += 1
        self.steps.append(k)
        leak = self.channel.leak(flow.peaks)
        self.leaks.append(leak)
        if not np.isfinite(leak).all():
            self.blown = ~np.isfinite(leak)
        if self.progress is not None:
            self.progress(self.count, t)
        self._show(flow, t)

    def _show(self, flow: Flow, t: float) -> None:
        if self.observe is not None:
            self.observe(t, lambda: self.channel.value(flow))

    def _steady(
        self, flow: Flow, before: tuple[np.ndarray, np.ndarray], k: float, t: float
    ) -> bool:
        """Whether no sample changes any more; notes when."""
        assert self.solver.steady_tolerance is not None
        inner = (slice(None), slice(1, -1), slice(1, -1))
        fastest = flow.peaks[:, 2]
        change = np.maximum(
            np.abs(flow.u - before[0])[inner].max((1, 2)),
            np.abs(flow.v - before[1])[inner].max((1, 2)),
        )
        self.rate = float((change / k / np.where(fastest > 0, fastest, 1.0)).max())
        self.settled = self._settles(fastest)
        if not self.settled:
            return False
        self.notes.append(
            f"steady at t = {t:g}, where |u_t| / |u| fell to {self.rate:.1e}; "
            "later frames are this state"
        )
        return True

    def _settles(self, fastest: np.ndarray) -> bool:
        """Whether |u_t| / |u| is small, per unit of time and while the flow crosses the domain."""
        tolerance, box = self.solver.steady_tolerance, self.channel.grid.box
        if tolerance is None:
            return False
        longest = max(b - a for a, b in zip(box.lower, box.upper, strict=True))
        slowest = float(fastest[fastest > 0].min(initial=math.inf))
        return self.rate <= min(tolerance, slowest / longest)

    def _limit(self, flow: Flow, walls: Walls, force: list[np.ndarray]) -> float:
        """The largest step that CFL admits, and a choice of steps damping too."""
        channel = self.channel
        speed = max(float(flow.peaks[:, 1].max()), float(channel.sides.speed(walls).max()))
        pull = sum(float(np.abs(f).max()) / h for f, h in zip(force, channel.grid.spacing))
        limit = math.inf
        if pull > 0:
            # (speed + pull k) k = 1/2: the force speeds the flow up meanwhile.
            limit = 2 * _COURANT / (speed + math.sqrt(speed**2 + 4 * pull * _COURANT))
        elif speed > 0:
            limit = _COURANT / speed
        if self.solver.step is None:
            bend = sum(h**-2 for h in channel.grid.spacing)
            limit = min(limit, _DIFFUSION / (float(channel.viscosity.max()) * bend))
        return limit

    def _refuse_step(self, flow: Flow) -> None:
        begin, step = self.instants[0], self.solver.step
        if step is not None and self.instants[-1] - begin > _MOST_STEPS * step:
            raise InputError(
                f"projection: more than {_MOST_STEPS:.0e} steps of {step:g} would not end; take "
                "larger ones",
                "solver.step",
            )
        limit = self._limit(flow, self.channel.sides.at(begin), self.channel.force(begin))
        if step is not None and step > limit * (1 + 1e-9):
            raise InputError(
                f"projection: step {step:g} violates the CFL condition; on this grid the flow "
                f"admits at most {_rounded_down(limit)}",
                "solver.step",
            )

    def _note_shortened(self, wanted: float, limit: float, t: float) -> None:
        if not any(note.startswith("the step") for note in self.notes):
            self.notes.append(
                f"the step {wanted:.3g} was shortened from t = {t:.3g} on, where the flow had "
                f"sped up: CFL admitted {_rounded_down(limit)}"
            )

    def _state(self, flow: Flow) -> tuple[torch.Tensor, ...]:
        """A frame, and everything from which a run goes on exactly."""
        channel = self.channel
        parts = (flow.u, flow.v, flow.p, flow.p_before, *flow.H, flow.phi, self._clock(flow))
        return channel.value(flow), *(
            torch.from_numpy(part).reshape(*channel.batch, *part.shape[1:]) for part in parts
        )

    def _clock(self, flow: Flow) -> np.ndarray:
        worst = np.max(self.leaks, axis=0)
        rows = [np.full_like(worst, v) for v in (flow.step, flow.lag, self.count, self.rate)]
        return np.stack([*rows, worst], axis=-1)

    def _restored(self, state: tuple[torch.Tensor, ...]) -> Flow:
        lead, samples = len(self.channel.batch), self.channel.samples
        u, v, p, p_before, Hu, Hv, phi, clock = (
            part.reshape(samples, *part.shape[lead:]).numpy().copy() for part in state[1:]
        )
        self.count, self.rate = int(clock[0, 2]), float(clock[0, 3])
        self.leaks.append(clock[:, 4])
        peaks = self.channel.survey(u, v)[1]
        self.settled = self._settles(peaks[:, 2])
        return Flow(u, v, p, p_before, (Hu, Hv), phi, peaks, clock[0, 0].item(), clock[0, 1].item())

    def solution(
        self, record: Frames, notes: tuple[str, ...], setup_seconds: float, seconds: float
    ) -> Solution:
        """Everything said, the residual as it was measured after every step."""
        channel, batch = self.channel, self.channel.batch
        leaks = np.stack(self.leaks)
        residual = leaks.max(axis=0)
        statuses = tuple(
            Status.BLOWN_UP
            if self.blown is not None and self.blown[sample]
            else (Status.CONVERGED if worst <= self.solver.rtol else Status.RESIDUAL_MISMATCH)
            for sample, worst in enumerate(residual.tolist())
        )
        stats = Statistics(
            torch.full(batch, self.count, dtype=torch.int64),
            torch.from_numpy(leaks).reshape(len(leaks), *batch),
            setup_seconds,
            seconds,
        )
        return Solution(
            record.stack(3),
            torch.from_numpy(residual).reshape(batch),
            statuses,
            stats,
            channel.grid,
            self.solver,
            (*notes, self._chosen(), *self.notes),
            torch.tensor(self.instants[: record.count], dtype=torch.float64),
            ("u", "v", "p"),
            measure=channel.measure,
        )

    def _chosen(self) -> str:
        size = "{} x {}".format(*self.channel.grid.shape)
        if self.steps:
            steps = f"{self.count} steps of {min(self.steps):.3g} to {max(self.steps):.3g}"
        else:
            steps = "no steps"
        return (
            f"projection: Adams-Bashforth and Crank-Nicolson on {size} cells, {steps}, "
            f"pressure by {self.channel.pressure.name}"
        )


def _rounded_down(value: float) -> str:
    """Three digits, not above the value."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.floor(value / scale) * scale:.3g}"
