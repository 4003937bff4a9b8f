"""The answer, with the evidence for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sciml.core.algebra.maps import free_mean
from sciml.core.algebra.nonlinear import Moment
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import derives, measures, samples
from sciml.core.problem.grid import AXES, Grid, Points
from sciml.core.problem.interpolation import interpolate
from sciml.core.problem.mesh import Mesh, sample
from sciml.core.problem.quadrature import relative_error
from sciml.core.problem.reader import (
    NORMAL,
    Unknown,
    free_names,
    read_parameters,
    state_names,
)
from sciml.core.run.derived import Derivation, Derive, Derived
from sciml.core.run.labels import Label, called, unit_of
from sciml.core.run.quantities import Measure, Measurement, Quantity
from sciml.core.run.series import over_time
from sciml.core.run.status import Status

if TYPE_CHECKING:
    from sciml.core.problem.problem import Problem
    from sciml.core.run.certificate import Certificate, PdeCertificate


class Function(Protocol):
    """A trained function, from points (n, D), time last, to values (n, fields)."""

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """The values, with a graph where the points have one."""

    def save(self, folder: str | Path) -> Path:
        """Keep it in a folder; raises InputError where it cannot be."""


@dataclass(frozen=True)
class Statistics:
    """What the solve cost.

    ``iterations``: int tensor of shape batch. ``residuals``: (steps, *batch) relative residual
    norms as the method saw them, first entry before the first iteration. Seconds are wall time.
    ``work_units``: applications of A, or their equivalent, where the method counts them; those of a
    preconditioner, and of the first guess that it may give, are among them.
    """

    iterations: torch.Tensor
    residuals: torch.Tensor
    setup_seconds: float
    solve_seconds: float
    work_units: float | None = None


@dataclass(frozen=True)
class Solution:
    """Value on its grid, why the solver stopped, and the true residual recomputed in float64.

    ``value``: (*batch, [frames], [fields], *grid), frames for a problem in time, fields where there
    are several; NaN inside obstacles whose rim is not Dirichlet. ``residual``: ||b - A x|| / ||b||
    per sample, shape batch; of a nonlinear problem ||F(u)|| / ||b||, b the right-hand side of the
    linear problem frozen at u; in time the largest of the implicit stages' residuals and of the
    relative error that the integrator estimates for its steps. ``statuses``: one Status per sample,
    flattened in row-major order.
    ``on`` is None for a bare matrix. ``times``: those of the frames, (frames,). ``fields``: names.
    ``certificate``: two-sided bounds of the value's error where the solver gives them.
    ``function``: the answer itself where it is a trained function, an ``nn.Module`` from points
    (n, D), time last, to (n, fields). ``parameters``: those of the problem that were unknown, as
    found; ``standard_errors``: of these, by name, where they are known. ``outside``: the ranges of
    tables that were looked up outside these on the way. ``trained``: the objective
    that the function was trained by, which holds its residual and its points.
    ``functions``: those that were unknown, by their place such as ``equation.K``, as found;
    ``deviations``: of these the standard deviations, functions too, of what is positive that of the
    logarithm.
    ``problem``: what it solves, where the verb was given one.
    ``measure``: where the problem leaves a constant free, the volume that belongs to each entry of
    a frame, ([fields], *grid), over which the value's integral is zero; zero for other fields.
    ``kept``: derived fields that are written and drawn with it. ``labels``: names and units.
    ``samples``: what tells those of a batch apart, such as ``k = 3``; () where only numbers do.
    ``history``: of a body that remembers its loads its internal variables at the quadrature points,
    (*batch, frames, elements, points, c), by which what is derived from the value is told.
    """

    value: torch.Tensor
    residual: torch.Tensor
    statuses: tuple[Status, ...]
    stats: Statistics
    on: Grid | Mesh | Points | None = None
    solver: Any = None
    notes: tuple[str, ...] = field(default=())
    times: torch.Tensor | None = None
    fields: tuple[str, ...] = ("u",)
    certificate: Certificate | PdeCertificate | None = None
    function: Function | None = field(default=None, repr=False)
    parameters: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    functions: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    deviations: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    trained: Any = field(default=None, repr=False, compare=False)
    problem: Problem | None = field(default=None, repr=False, compare=False)
    measure: torch.Tensor | None = field(default=None, repr=False)
    outside: tuple[str, ...] = ()
    kept: Mapping[str, Derived] = field(default_factory=dict, repr=False)
    labels: Mapping[str, Label] = field(default_factory=dict, repr=False)
    samples: tuple[str, ...] = field(default=(), repr=False)
    history: torch.Tensor | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        counts, residual = self.stats.iterations.flatten().tolist(), float(self.residual.max())
        good, count = sum(s.success for s in self.statuses), len(self.statuses)
        ended = f"{good} of {count} converged" if count > 1 else self.status.name.lower()
        steps = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
        return (
            f"Solution({ended.replace('_', ' ')}, iterations {steps}, residual {residual:.1e}, "
            f"{', '.join(self.fields)} of shape {tuple(self.value.shape)})"
        )

    @property
    def status(self) -> Status:
        """The first status that is not a success, or else the first: what to tell the user."""
        return next((s for s in self.statuses if not s.success), self.statuses[0])

    @property
    def converged(self) -> bool | torch.Tensor:
        """A boolean, or for a batch a bool tensor of shape batch."""
        if self.residual.ndim == 0:
            return self.statuses[0].success
        return torch.tensor([s.success for s in self.statuses]).reshape(self.residual.shape)

    @property
    def last(self) -> torch.Tensor:
        """The value at the end of time, (*batch, [fields], *grid); the value itself if steady."""
        return self.value if self.times is None else self.value.select(self.residual.ndim, -1)

    def error(self, exact: Callable[..., torch.Tensor] | torch.Tensor) -> torch.Tensor:
        """Relative L2 error per sample against a function of x, y, z or values on the grid.

        In time the last frame is compared, and nothing else: that is *the error* wherever one is
        told. Relative to the truth, or where that is zero everywhere absolute: the rms. Points
        with a NaN value (inside obstacles) are left out.
        On a mesh by quadrature, between the nodes too: see :mod:`sciml.core.problem.quadrature`.
        Where the problem leaves a constant free, ``exact`` may have any.
        """
        if isinstance(exact, str):
            raise InputError(
                "error takes a function of the coordinates or values on the grid, not a text: "
                "give lambda x, y: ..., or exact: to the problem"
            )
        if isinstance(self.on, Mesh):
            free = self.measure is not None
            own, lead, value = None, self.residual.ndim, self.value
            if self.function is not None and callable(exact):
                # A trained function itself, not what elements make of its values.
                t = None if self.times is None else float(self.times[-1])
                own, value = partial(_of_function, self.function, value=value, t=t), self.last
            return relative_error(self.on, value, exact, lead, free=free, function=own)
        if callable(exact):
            if self.on is None:
                raise ValueError("a function needs a grid; pass the exact values instead")
            exact = exact(*self.on.coordinates())
        value = self.last
        dims = tuple(range(self.residual.ndim, value.ndim))
        known = torch.isfinite(value)
        truth = torch.as_tensor(exact, dtype=value.dtype)
        if self.measure is not None and self.on is not None:
            truth = truth + free_mean(value - truth, self.measure, len(self.on.shape))
        truth = torch.where(known, truth, 0.0)
        gap = torch.where(known, value, 0.0) - truth
        size, count = truth.abs().square().sum(dims).sqrt(), known.sum(dims)
        return gap.abs().square().sum(dims).sqrt() / torch.where(size > 0, size, count.sqrt())

    def sample(self, points: torch.Tensor, of: Any = None, key: str = "of") -> torch.Tensor:
        """The value at ``points`` (n, d): (*batch, [frames], [fields], n).

        ``of``: an expression of coordinates, fields, slopes and what is derived from them, in place
        of all fields: (*batch, [frames], n); errors carry ``key``. What jumps between elements is
        recovered.

        Interpolated linearly on a grid, beside an obstacle from the values outside it alone, beside
        a side to what is given there; the finite element function itself on a mesh, a trained
        function itself too.
        """
        if self.on is None:
            raise ValueError("a bare vector has no grid to sample on")
        if of is not None:
            if self.problem is None:
                raise InputError("an expression needs the problem: solve(problem, on=grid)", key)
            look = samples.look_up(self.problem.equation, type(self.on))
            return self._of_frames(look(self.problem, self.on, points, of, key))
        if isinstance(self.on, Mesh) and self.function is None:
            return sample(self.on, self.value, points)
        if self.function is not None:
            return self._of_frames(partial(_of_function, self.function, points))
        if not isinstance(self.on, Grid):
            raise ValueError("scattered values are not interpolated; call solution.function")
        problem = self.problem
        if problem is not None and samples.knows(problem.equation, Grid):
            return self._of_frames(
                samples.look_up(problem.equation, Grid)(problem, self.on, points, None, "")
            )
        return interpolate(self.value, tuple(points.T), self.on.axes())

    def quantity(self, quantity: Quantity | None = None, **stated: Any) -> Measurement:
        """A number that the answer is asked for, in time of every frame: ``quantity(max="u")``.

        ``stated``: what :class:`Quantity` takes. Differentiable where the value is. Raises
        InputError for a quantity that means nothing here, or where the problem is not known.
        """
        if self.problem is None or self.on is None:
            raise InputError("a quantity needs the problem: solve it by solve(problem, on=grid)")
        return measure(self, Quantity(**stated) if quantity is None else quantity)

    def derived(self, name: str) -> Derived:
        """A field derived from the answer: ``gradient``, ``flux``, ``vorticity``, ``stress``, ...

        In time of every frame. On the CPU, differentiable where the value is. Raises InputError
        for a field that there is not, or that was not kept where the problem is not known.
        """
        if name in self.kept:
            return self.kept[name]
        found: Mapping[str, Derivation] = {}
        if self.problem is not None and self.on is not None:
            found = derives.look_up(self.problem.equation, type(self.on))(self.problem, self.on)
        elif not self.kept:
            raise InputError("derived fields need the problem: solve it by solve(problem, on=grid)")
        if name not in found:
            known = {*found, *self.kept}
            raise InputError(f"there is no derived field '{name}'{did_you_mean(name, known)}")
        how = found[name]
        inner, peaks = (
            None if of is None else self._of_frames(of) for of in (how.inner, how.peaks)
        )
        return Derived(self._of_frames(how.value), how.components, inner, how.vector, peaks)

    def _of_frames(self, derive: Derive) -> torch.Tensor:
        whole, axis = self.value.cpu(), self.residual.ndim
        if self.times is None:
            return derive(whole, None)
        pairs = zip(whole.unbind(axis), self.moments, strict=True)
        return torch.stack([derive(value, t) for value, t in pairs], axis)

    @property
    def moments(self) -> tuple[float, ...]:
        """The times of the frames, with what a body remembers at each."""
        assert self.times is not None
        times = self.times.tolist()
        if self.history is None:
            return tuple(times)
        parts = self.history.cpu().unbind(self.residual.ndim)
        return tuple(Moment(t, h) for t, h in zip(times, parts, strict=True))

    def with_derived(self, *names: str) -> Solution:
        """The same, keeping these derived fields, and those that its equation is never without."""
        problem, on = self.problem, self.on
        usual: list[str] = []
        if problem is not None and on is not None and derives.knows(problem.equation, type(on)):
            found = derives.look_up(problem.equation, type(on))(problem, on)
            usual = [name for name, how in found.items() if how.usual]
        wanted = dict.fromkeys((*self.kept, *usual, *names))
        return replace(self, kept={name: self.derived(name) for name in wanted})

    def save(self, directory: str) -> None:
        """Write ``solution.h5`` and a file that ParaView opens into ``directory``.

        A trained function goes along, for ``sciml.load_function``, and so do derived fields that
        are kept; see :meth:`with_derived`.
        """
        from sciml.core.run.files import save_solution

        whole = self.with_derived()
        if self.problem is not None and not self.samples:
            names = sample_names(self.problem, tuple(self.residual.shape), self.labels)
            whole = replace(whole, samples=names)
        save_solution(whole, directory)


def _of_function(
    function: Callable[[torch.Tensor], torch.Tensor],
    points: torch.Tensor,
    value: torch.Tensor,
    t: float | None,
) -> torch.Tensor:
    """A trained function at points (n, d): ([fields], n)."""
    x = points if t is None else torch.cat([points, torch.full_like(points[:, :1], t)], -1)
    found = function(x).detach()
    return found.T if found.shape[1] > 1 else found[:, 0]


def measure(solution: Solution, quantity: Quantity, key: str = "quantity") -> Measurement:
    """What a quantity of an answer comes to; errors carry ``key``."""
    problem, on = solution.problem, solution.on
    assert problem is not None and on is not None
    check_time(problem, quantity, key)
    if by_function(solution, quantity):
        prepare = measures.look_up(problem.equation, Points)(problem, on, solution.function)
    else:
        prepare = measures.look_up(problem.equation, type(on))(problem, on)
    return measured_by(prepare(quantity, key), solution, quantity)


def by_function(solution: Solution, quantity: Quantity) -> bool:
    """Whether a quantity is one of the trained function, not of its values on a grid."""
    if solution.function is None or quantity.force is not None:
        return False
    if isinstance(solution.on, Mesh):
        # What is derived, and what is of a subdomain, elements tell.
        names = () if solution.problem is None else solution.problem.unknowns
        known = {*state_names(names), *AXES, "t", *NORMAL}
        known |= {*(() if solution.problem is None else solution.problem.parameters)}
        what = quantity.what if isinstance(quantity.what, str) else ""
        return quantity.region is None and free_names(what) <= known
    if quantity.flux is not None:
        return isinstance(solution.on, Points)
    return quantity.at is not None or isinstance(solution.on, Points)


def measured_by(look: Measure, solution: Solution, quantity: Quantity) -> Measurement:
    """What a quantity comes to, in time of every frame or over them all."""
    whole = solution.value.cpu()
    if solution.times is None:
        return look(whole, None)
    frames, times = whole.unbind(solution.residual.ndim), solution.times
    moments = solution.moments
    if quantity.over_time is not None:
        kept = times >= (times[0] if quantity.after is None else quantity.after)
        frames = tuple(value for value, there in zip(frames, kept.tolist(), strict=True) if there)
        moments = tuple(t for t, there in zip(moments, kept.tolist(), strict=True) if there)
        times = times[kept]
    each = [look(value, t) for value, t in zip(frames, moments, strict=True)]
    values, places = [m.value for m in each], [m.place for m in each if m.place is not None]
    row = torch.stack(list(torch.broadcast_tensors(*values)), -1)
    if quantity.over_time is not None:
        return over_time(quantity.over_time, times, row)
    return Measurement(row, torch.stack(places, -2) if places else None)


def check_time(problem: Problem, quantity: Quantity, key: str) -> None:
    """Raise InputError for a time that the problem does not have, or a formula of nothing."""
    if quantity.formula is not None:
        raise InputError("a formula is of other quantities, under output: of a spec", key)
    if quantity.over_time is None:
        return
    if problem.time is None:
        raise InputError("this problem has no time", f"{key}.over_time")
    if quantity.after is not None and not problem.time.start <= quantity.after < problem.time.end:
        span = f"{problem.time.start:g} to {problem.time.end:g}"
        raise InputError(f"time runs from {span}; got {quantity.after:g}", f"{key}.after")


def sample_names(
    problem: Problem, batch: tuple[int, ...], labels: Mapping[str, Label]
) -> tuple[str, ...]:
    """What tells the samples of a batch apart: ``k = 3``, of all parameters that differ.

    () where none does.
    """
    given = {n: p for n, p in problem.parameters.items() if not isinstance(p, Unknown)}
    numbers, _ = read_parameters(given, ())
    varied = {name: p.detach().cpu() for name, p in numbers.items() if p.ndim}
    if not batch or not varied:
        return ()
    columns = [
        [
            f"{called(labels, name)} = {value:.4g} {unit_of(labels, name)}".rstrip()
            for value in p.expand(batch).flatten().tolist()
        ]
        for name, p in varied.items()
    ]
    return tuple(", ".join(row) for row in zip(*columns, strict=True))


def load_solution(path: str | Path) -> Solution:
    """The Solution in ``path``, a run's directory or its ``solution.h5``.

    Equal to the one saved in value, grid, residual, statuses, statistics and notes; ``solver`` is
    its description as text. Raises InputError for a missing or foreign file.
    """
    from sciml.core.run.files import read_solution

    found = read_solution(path)
    return Solution(**{**found, "stats": Statistics(**found["stats"])})
