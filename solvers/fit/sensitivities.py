"""A problem at given unknowns: what its answer reads, and how that changes with them.

Of a steady problem, with r(x, s) = b(s) - A(s) x, or -F(x, s), the answer x(s) has r = 0 and reads
m(x(s), s), so that

    dm/ds = m_s + m_x A^-1 r_s,        A = -r_x.

Read from the right this is one linear solve for each unknown (forward sensitivities), from the left
one solve with A^T for each reading (adjoints): the fewer are taken, all at once as a batch of
right-hand sides of one set-up. r_s is differentiated twice backwards: g(v) = r_s^T v is linear in
v, and its derivative by v is r_s; no step is taken that would have to be chosen.

A problem in time is marched with each unknown a little up and a little down, all as one batch: a
batch goes in lockstep, so that the differences are those of the same steps, and smooth. Frames fall
on the instants of the readings where equal distances can; else four of them are interpolated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sciml.core.algebra.maps import free_mean
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem, Time
from sciml.core.run.differentiate import Map
from sciml.core.run.solution import Solution
from sciml.discretization import discretize, semidiscretize
from sciml.solvers.auto import AutoState, choose_for
from sciml.solvers.linear.iteration import adjoint
from sciml.solvers.nonlinear.descent import at, tangents
from sciml.solvers.trained.observations import Observations

_AT_ONCE = 2**22  # numbers in a batch of right-hand sides
_STEADY = ("Newton", "Picard")
_FRAMES = 81  # of a problem in time, between which readings are interpolated
_ON_TIME = 1e-9  # of the whole time, that a reading may be off a frame


@dataclass(frozen=True)
class Experiment:
    """What is observed of a problem whose unknowns, (P,), are put in by ``problem_at``.

    Those of a problem in time may be (S, P), a batch of guesses.

    ``on``: where it is solved, by the solver ``inner``. ``sample`` (N,): of which sample of a batch
    each reading is, None where there is no batch; ``count``: how many samples there are.
    ``steps`` (P,): by how much unknowns of a problem in time are moved for differences.
    """

    problem_at: Callable[[Tensor], Problem]
    on: Grid | Mesh
    inner: Any
    observed: Observations
    sample: Tensor | None
    count: int
    steps: Tensor

    def read(self, solution: Solution, problem: Problem, value: Tensor) -> Tensor:
        """What a value on the place reads where it was observed, (N f,)."""
        points = self.observed.points[:, : len(self.on.coordinates())]
        seen = replace(solution, value=value, problem=problem).sample(points)
        seen = (
            seen[..., list(self.observed.which), :]
            if len(solution.fields) > 1
            else seen[..., None, :]
        )
        if self.sample is None:
            return seen.T.flatten()
        return seen.flatten(0, -3)[self.sample, :, torch.arange(len(points))].flatten()


@dataclass(frozen=True)
class Answer:
    """The answer at unknowns ``s`` (P,): its ``solution``, and what it reads, (N f,).

    ``tangent``: of a steady problem, what is linear there.
    """

    s: Tensor
    problem: Problem
    solution: Solution
    readings: Tensor
    tangent: Tangent | None = None


@dataclass(frozen=True)
class Tangent:
    """``x``: the unknowns of an answer, without a graph.

    ``residual(x)``: r, with the graph of s; ``value(x)``: the value on the place. ``forward``,
    ``backward``: A^-1 and A^-T of batches.
    """

    x: Tensor
    residual: Map
    value: Map
    forward: Map
    backward: Map


def solved(experiment: Experiment, s: Tensor, initial: Tensor | None = None) -> Answer:
    """The answer at ``s`` (P,), whatever its status; ``initial``: a first guess of its value."""
    with torch.enable_grad():
        s = s.detach().clone().requires_grad_()
        problem = experiment.problem_at(s)
        if problem.time is not None:
            return _marched(experiment, s.detach())
        if problem.linear:
            return _linear(experiment, s, problem, initial)
        return _nonlinear(experiment, s, problem, initial)


def _linear(experiment: Experiment, s: Tensor, problem: Problem, initial: Tensor | None) -> Answer:
    system = discretize(problem, experiment.on)
    if system.b.is_complex():
        raise InputError("unknowns of complex fields are not found yet", "problem.equation.kind")
    inner = experiment.inner
    with torch.no_grad():
        state = inner.init(system)
        solution = inner.run(state, initial=initial)
    if isinstance(state, AutoState):
        inner, state = state.solver, state.inner

    def forward(right: Tensor) -> Tensor:
        with torch.no_grad():
            found = inner.run(state, b=right)
        if not found.status.success:
            raise SolveError(f"the solve of a sensitivity: {found.status}")
        return system.restrict(found.value)

    x = system.restrict(solution.value.detach())
    return Answer(
        s,
        problem,
        solution,
        experiment.read(solution, problem, system.value(x)).detach(),
        Tangent(
            x,
            lambda fixed: system.b - system.A.apply(fixed),
            system.value,
            forward,
            lambda right: adjoint(inner, state, right),
        ),
    )


def _nonlinear(
    experiment: Experiment, s: Tensor, problem: Problem, initial: Tensor | None
) -> Answer:
    on, inner = experiment.on, experiment.inner
    with torch.no_grad():
        known = experiment.problem_at(s.detach())
        if inner.kind == "auto":
            name, _ = choose_for(known, on)
            if name not in _STEADY:
                raise InputError(
                    "unknowns are found in problems that are linear, or solved by newton",
                    "problem.equation.kind",
                )
        solution = inner.run(inner.init(known, on), initial=initial)
    system = semidiscretize(problem, on)

    def value(x: Tensor) -> Tensor:
        whole = system.lift(x, 0.0)
        if system.measure is not None:
            whole = whole - free_mean(whole, system.measure, len(system.shape))
        return whole

    x = system.restrict(solution.value.detach())
    with torch.no_grad():
        forward, backward = tangents(system, at(system, x))
    return Answer(
        s,
        problem,
        solution,
        experiment.read(solution, problem, value(x)).detach(),
        Tangent(x, lambda fixed: -system.residual(fixed, 0.0), value, forward, backward),
    )


def jacobian(experiment: Experiment, answer: Answer, by: str | None = None) -> Tensor:
    """How the readings change with the unknowns, (N f, P); ``by``: ``unknown`` or ``reading``.

    By whichever are fewer where that is None.
    """
    s, count, tangent = answer.s, answer.readings.numel(), answer.tangent
    if tangent is None:
        return _by_differences(experiment, s)
    x = tangent.x.detach().clone().requires_grad_()
    with torch.enable_grad():
        r = tangent.residual(x.detach())
        m = experiment.read(answer.solution, answer.problem, tangent.value(x))
    by = by or ("unknown" if s.numel() <= count else "reading")
    return _by_unknown(s, tangent, x, r, m) if by == "unknown" else _by_reading(s, tangent, x, r, m)


def _by_unknown(s: Tensor, tangent: Tangent, x: Tensor, r: Tensor, m: Tensor) -> Tensor:
    v, w = torch.zeros_like(r, requires_grad=True), torch.zeros_like(m, requires_grad=True)
    with torch.enable_grad():
        pulled = _gradients(r, (s,), v, keep=True)[0]
        by_x, by_s = _gradients(m, (x, s), w, keep=True)
    columns = torch.stack([_gradients(g, (v,))[0] for g in pulled])
    moved = _in_parts(tangent.forward, columns)
    found = []
    for k, d in enumerate(moved):
        with torch.enable_grad():
            along = (by_x * d).sum() + by_s[k]
        found.append(_gradients(along, (w,))[0])
    return torch.stack(found, -1)


def _by_reading(s: Tensor, tangent: Tangent, x: Tensor, r: Tensor, m: Tensor) -> Tensor:
    pairs = [_gradients(each, (x, s)) for each in m]
    backward = _in_parts(tangent.backward, torch.stack([by_x for by_x, _ in pairs]))
    rows = [
        direct + _gradients(r, (s,), weight)[0]
        for (_, direct), weight in zip(pairs, backward, strict=True)
    ]
    return torch.stack(rows)


def _gradients(
    of: Tensor, by: tuple[Tensor, ...], weight: Tensor | None = None, *, keep: bool = False
) -> tuple[Tensor, ...]:
    """The gradients, zero where nothing depends on it; with a graph of their own to ``keep``."""
    if not of.requires_grad:
        return tuple(torch.zeros_like(each) for each in by)
    found = torch.autograd.grad(
        of, by, weight, retain_graph=True, create_graph=keep, allow_unused=True
    )
    return tuple(
        torch.zeros_like(each) if g is None else g for g, each in zip(found, by, strict=True)
    )


def _in_parts(solve: Map, right: Tensor) -> Tensor:
    """``solve`` of a batch (k, *x), as many at once as there is room for."""
    size = max(1, _AT_ONCE // max(1, right[0].numel()))
    return torch.cat([solve(part) for part in right.split(size)])


def _marched(experiment: Experiment, s: Tensor) -> Answer:
    """The answer of a problem in time, at frames where it is read."""
    problem = experiment.problem_at(s)
    solution = _march(experiment, problem)
    readings = _over_time(experiment, solution, problem, 1)[0]
    return Answer(s, problem, solution, readings)


def _by_differences(experiment: Experiment, s: Tensor) -> Tensor:
    """(N f, P): of runs with one unknown moved, all in one batch."""
    up = s + torch.diag(experiment.steps)
    down = s - torch.diag(experiment.steps)
    moved = torch.cat([up, down])
    problem = experiment.problem_at(moved.repeat_interleave(experiment.count, 0))
    listed = {
        name: torch.as_tensor(p, dtype=torch.float64).repeat(len(moved))
        for name, p in problem.parameters.items()
        if isinstance(p, (list, tuple))
    }
    problem = replace(problem, parameters={**problem.parameters, **listed})
    solution = _march(experiment, problem)
    if not solution.status.success:
        raise SolveError(f"the runs beside a guess: {solution.status}")
    high, low = _over_time(experiment, solution, problem, len(moved)).chunk(2)
    return ((high - low) / (2 * experiment.steps[:, None])).T


def _march(experiment: Experiment, problem: Problem) -> Solution:
    assert problem.time is not None
    frames = frames_for(problem.time, experiment.observed.points[:, -1])
    problem = replace(problem, time=replace(problem.time, frames=frames))
    inner = experiment.inner
    with torch.no_grad():
        found: Solution = inner.run(inner.init(problem, experiment.on))
    return found


def frames_for(time: Time, instants: Tensor) -> int:
    """The fewest frames at equal distances that are at these instants; 81 where few do not do."""
    share = (instants - time.start) / (time.end - time.start)
    for count in range(max(time.frames, 5), _FRAMES):
        place = share * (count - 1)
        if bool(((place - place.round()).abs() <= _ON_TIME * count).all()):
            return count
    return _FRAMES


def _over_time(experiment: Experiment, solution: Solution, problem: Problem, runs: int) -> Tensor:
    """What several runs read, (runs, N f)."""
    observed, d = experiment.observed, len(experiment.on.coordinates())
    assert solution.times is not None
    seen = replace(solution, problem=problem).sample(observed.points[:, :d])
    several = len(solution.fields) > 1
    seen = seen[..., list(observed.which), :] if several else seen[..., None, :]
    seen = seen.reshape(runs, experiment.count, *seen.shape[-3:])  # frames, fields, readings
    place = (observed.points[:, -1] - solution.times[0]) / (solution.times[1] - solution.times[0])
    first = (place.floor().long() - 1).clamp(0, len(solution.times) - 4)
    index = torch.arange(len(place))
    which = torch.zeros_like(index) if experiment.sample is None else experiment.sample
    total = torch.zeros(())
    for k, weight in enumerate(_lagrange(place - first)):
        total = total + weight[:, None] * seen[:, which, first + k, :, index].movedim(0, 1)
    return total.flatten(1)


def _lagrange(x: Tensor) -> list[Tensor]:
    """The weights of values at 0, 1, 2, 3 for that at x."""
    return [torch.stack([(x - j) / (k - j) for j in range(4) if j != k]).prod(0) for k in range(4)]
