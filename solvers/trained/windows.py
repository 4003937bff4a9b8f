"""A problem in time trained window by window, each from the end of the one before.

    u = u_k on [t_k, t_k+1],        u_k(t_k) = u_k-1(t_k),

and u_t(t_k) too where the equation has u_tt. On boxes what a window begins with is a series
(``series``) of the values at the end of the one before. Where the start is built in, u is
continuous by construction; where it is soft, the jumps are residuals of the answer like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.core.problem.problem import Problem, Time
from sciml.core.run.status import Status
from sciml.discretization.points.jet import Jet, Pairs
from sciml.discretization.points.region import Boxed
from sciml.solvers.trained.conditions import Piece, extent, second_order
from sciml.solvers.trained.minimisation import OptimiserResult
from sciml.solvers.trained.networks import Tape
from sciml.solvers.trained.objective import Ansatz, Objective
from sciml.solvers.trained.series import Series, series_of

_TRIED = 500  # points of a window at which the size of its fields is read
# Of an objective, the windows that are left with it, and the iterations before it.
Train = Callable[[Objective, int, int], OptimiserResult]


@dataclass(frozen=True)
class Glued:
    """A function of several windows; ``joints``: the times between them. Nothing to train."""

    parts: tuple[Ansatz, ...]
    joints: tuple[float, ...]

    def __call__(self, points: Tensor, pairs: Pairs, tape: Tape | None = None) -> Jet:
        """The jet at points (N, D), that of the later window at a joint."""
        if torch.compiler.is_exporting():
            return self._exported(points, pairs)
        joints = points.new_tensor(self.joints)
        window = torch.bucketize(points[:, -1].contiguous(), joints, right=True)
        found: Tensor | None = None
        for k, part in enumerate(self.parts):
            rows = (window == k).nonzero()[:, 0]
            if len(rows):
                jet = part.jet(points[rows], pairs, part.known(points[rows], pairs))
                if found is None:
                    found = jet.data.new_zeros(jet.data.shape[0], len(points), jet.data.shape[2])
                found = found.index_copy(1, rows, jet.data)
        if found is None:
            raise ValueError("a jet of no points")
        return Jet(found, points.shape[1], pairs)

    def _exported(self, points: Tensor, pairs: Pairs) -> Jet:
        """The value by every window at all points, and no slopes: a program has no other way."""
        value = self.parts[0](points)
        for joint, part in zip(self.joints, self.parts[1:], strict=True):
            value = torch.where(points[:, -1:] >= joint, part(points), value)
        none = value.new_full((points.shape[1] + len(pairs), *value.shape), torch.nan)
        return Jet(torch.cat([value[None], none]), points.shape[1], pairs)

    def blocks(self) -> Sequence[object]:
        """None: the windows are trained."""
        return ()


@dataclass(frozen=True, eq=False)
class FieldOf:
    """One field of a function of points (N, D), as a coefficient: of the coordinates, (N,) each.

    ``t``: the instant, of a function in time. ``rate``: its derivative by t there. Differentiable.
    ``series``: what stands for the function there.
    """

    function: Callable[[Tensor], Tensor]
    field: int
    t: float | None = None
    rate: bool = False
    series: Series | None = None

    def at(self, points: Tensor) -> Tensor:
        """The values at points (N, d)."""
        return self(*points.unbind(-1))

    def __call__(self, *axes: Tensor) -> Tensor:
        """The values."""
        shape = torch.broadcast_shapes(*(axis.shape for axis in axes))
        columns = [axis.expand(shape).flatten() for axis in axes]
        tracked = torch.is_grad_enabled() and any(axis.requires_grad for axis in axes)
        if self.series is not None:
            points = torch.stack(columns, -1)
            if tracked:
                return self.series(points).reshape(shape)
            return self.series.values(points, self.series.coefficients).reshape(shape)
        with torch.set_grad_enabled(tracked or self.rate):
            if self.t is not None:
                columns.append(torch.full_like(columns[0], self.t))
            if self.rate:
                columns[-1].requires_grad_()
            value = self.function(torch.stack(columns, -1))[:, self.field]
            if self.rate:
                (value,) = torch.autograd.grad(value.sum(), columns[-1], create_graph=True)
        return (value if tracked else value.detach()).reshape(shape)


def in_windows(
    whole: Objective,
    count: int,
    pose: Callable[[Problem, int], Objective],
    train: Train,
    hard: bool,
) -> tuple[Objective, OptimiserResult]:
    """The objective of the glued function, and the courses as one.

    ``pose`` makes an objective of the problem of a window and its number. Ends early where a loss
    is not finite.
    """
    problem = whole.form.problem
    span = problem.time
    assert span is not None
    step = (span.end - span.start) / count
    ends = [span.start + k * step for k in range(count)] + [span.end]
    windows: list[Objective] = []
    courses: list[OptimiserResult] = []
    for k in range(count):
        stated = replace(problem, time=Time(ends[k + 1], ends[k]))
        if windows:
            stated = replace(stated, initial=_last_values(windows[-1]))
        objective = pose(stated, k)
        same = windows and len(objective.theta) == len(windows[-1].theta)
        if same and not objective.begun:
            objective.assign(windows[-1].theta)
        windows.append(objective)
        courses.append(train(objective, count - k, sum(len(c.losses) for c in courses)))
        if courses[-1].status is Status.NOT_FINITE:
            break
    parts = tuple(objective.ansatz for objective in windows)
    joints = tuple(ends[1 : len(parts)])
    jumps = () if hard else tuple(_jump(whole, parts[k], joint) for k, joint in enumerate(joints))
    glued = Ansatz(Glued(parts, joints))
    return Objective(whole.form, glued, (*whole.pieces, *jumps)), _joined(courses)


def _jump(whole: Objective, before: Ansatz, joint: float) -> Piece:
    lower, upper = extent(whole.form)
    lower[-1] = upper[-1] = joint

    def residual(points: Tensor, jet: Jet) -> Tensor:
        return jet.value - before.value(points)

    return Piece(
        f"joint at {joint:.4g}",
        lower,
        upper,
        residual,
        hole=whole.form.hole,
        part=whole.pieces[0].part,
    )


def _last_values(objective: Objective) -> Mapping[str, FieldOf | float]:
    """The initial data of the next window, differentiable functions of the place."""
    form, ansatz = objective.form, objective.ansatz
    span = form.problem.time
    assert span is not None
    end = span.end

    fields = [name for name in form.fields if name in form.problem.first]
    if form.problem.of_time_alone:
        return _last_numbers(objective, fields, end)
    found = {name: FieldOf(ansatz, form.fields.index(name), end) for name in fields}
    if second_order(form):
        found |= {
            f"{name}t": FieldOf(ansatz, form.fields.index(name), end, rate=True) for name in fields
        }
    if not isinstance(form.region, Boxed) or form.hole is not None:
        return found
    piece, box = objective.pieces[0], form.data.box
    cube = torch.rand(_TRIED, piece.free, generator=torch.Generator().manual_seed(0)).double()
    sizes = ansatz.value(piece.place(cube)).abs().max(0).values
    for name, field in found.items():
        scale = float(sizes[field.field]) / (end - span.start if field.rate else 1.0)
        series = series_of(field.at, box.lower, box.upper, form.data.periodic, scale)
        # Without one every window evaluates all those before it, and keeps their graphs.
        found[name] = replace(field, series=series)
    return found


def _last_numbers(objective: Objective, fields: Sequence[str], end: float) -> dict[str, float]:
    """Those of functions of t alone."""
    form, ansatz = objective.form, objective.ansatz
    at = torch.full((1, 1), end, dtype=torch.float64)
    with torch.no_grad():
        jet = ansatz.jet(at, (), ansatz.known(at, ()))
    which = [(name, form.fields.index(name)) for name in fields]
    found = {name: float(jet.value[0, k]) for name, k in which}
    if second_order(form):
        found |= {f"{name}t": float(jet.gradient[0, 0, k]) for name, k in which}
    return found


def _joined(courses: Sequence[OptimiserResult]) -> OptimiserResult:
    """One after the other; the first that did not converge says why."""
    status = next((c.status for c in courses if not c.status.success), Status.CONVERGED)
    notes = [f"window {k + 1}: {note}" for k, course in enumerate(courses) for note in course.notes]
    losses = [loss for course in courses for loss in course.losses]
    return OptimiserResult(tuple(losses), status, sum(c.seconds for c in courses), tuple(notes))
