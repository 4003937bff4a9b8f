"""The equation at a point: what is left of it when a differentiable function is put in.

    m u_tt + d u_t - div(q) + b . grad u + c u + beta u_xxx + gamma Lap^2 u - f,    q = K grad u,

with the divergence by the chain rule, the coefficients depending on x, t, u and p = grad u:

    d_i q_i = dq_i/dx_i + sum_k dq_i/du_k d_i u_k + sum_jk dq_i/dp_jk d_ij u_k.

An energy density e(x, u, p) has q = de/dp and de/du in the place of the other terms. Systems have
one such line per field. Incompressible flow has

    u_t + (u . grad) u + grad p - viscosity Lap u - force,      div u.

What none of these covers is written out: sums of terms in the derivatives of any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import states_at_points
from sciml.core.problem.equation import (
    RUNNING,
    Equation,
    Integral,
    NavierStokes,
    System,
    WrittenOut,
    derivative,
)
from sciml.core.problem.grid import Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import NORMAL, Unknown, free_names, state_names
from sciml.discretization.points.jet import Jet, Pairs, closed
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters
from sciml.discretization.points.region import Boxed, Hole, Region, region_of

_KEY = "problem.equation"
_HIGHEST = 8  # whose jets are as many as the partitions of eight axes


@dataclass(frozen=True)
class StrongForm:
    """A problem's equations at points (N, D), time last; see :func:`strong_form`.

    ``pairs``: the derivatives from the second on that a jet must hold. ``fields``: the unknown
    functions. ``equations``: the coefficient forms, one per field; none of a ``flow``, and of what
    is ``written`` out. ``region``: where they hold.
    """

    data: Pointwise
    pairs: Pairs
    equations: tuple[Equation, ...]
    region: Region
    flow: NavierStokes | None = None
    written: WrittenOut | None = None
    integrals: tuple[LineIntegral, ...] = ()

    @property
    def problem(self) -> Problem:
        """The problem that was stated."""
        return self.data.problem

    @property
    def hole(self) -> Hole | None:
        """What an obstacle takes of a box."""
        return self.region.hole if isinstance(self.region, Boxed) else None

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the unknown functions."""
        return self.data.fields

    @property
    def blocks(self) -> int:
        """How many points, itself the first, the equation at one point needs the jet at."""
        return 1 + sum(len(integral.nodes) for integral in self.integrals)

    def beside(self, points: Tensor) -> Tensor:
        """The others of these, ((blocks - 1) N, D), block by block."""
        return torch.cat([integral.places(points) for integral in self.integrals])

    def residual(self, points: Tensor, jet: Jet) -> Tensor:
        """What is left of the equations, (N, E); a graph of the jet's where it has one.

        Where there are integrals, points and jet hold those ``beside`` them too.
        """
        return sum_of(self.terms(points, jet))

    def terms(self, points: Tensor, jet: Jet) -> list[Tensor]:
        """What adds up to the residual, (N, E) each: its size without cancellation."""
        if self.integrals:
            return self._with_integrals(points, jet)
        if self.flow is not None:
            return self._flow(self.flow, points, jet)
        if self.written is not None:
            return self.written_out(self.written.residuals, f"{_KEY}.residuals", points, jet)
        columns = [self._scalar(e, k, points, jet) for k, e in enumerate(self.equations)]
        return _beside(columns, jet)

    def _with_integrals(self, points: Tensor, jet: Jet) -> list[Tensor]:
        assert self.written is not None
        count = len(points) // self.blocks
        own, start = points[:count], count
        # Unknowns that Gauss-Newton's rows are asked of have a copy at every point.
        copies = {
            name: p
            for name, p in self.data.parameters.items()
            if isinstance(p, Tensor) and p.shape == points.shape[:1]
        }
        known = {name: p[:count] for name, p in copies.items()}
        for integral in self.integrals:
            rows = slice(start, start + count * len(integral.nodes))
            there = {name: p[rows] for name, p in copies.items()}
            known[integral.name] = integral.value(
                self.data, own, points[rows], jet.select(rows), there
            )
            start = rows.stop
        key, here = f"{_KEY}.residuals", jet.select(slice(count))
        return self.written_out(self.written.residuals, key, own, here, more=known)

    def written_out(
        self,
        residuals: Sequence[Any],
        key: str,
        points: Tensor,
        jet: Jet,
        normal: Sequence[float | Tensor] | None = None,
        more: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """The terms of residuals as they are written, (N, E) each; ``normal`` on a side."""
        columns = [
            list(self.data.terms(residual, f"{key}[{k}]", points, jet, normal, more))
            for k, residual in enumerate(residuals)
        ]
        return _beside(columns, jet)

    def flux(self, points: Tensor, jet: Jet) -> Tensor:
        """q = K grad u of every field, (d, N, F)."""
        if self.flow is not None:
            raise InputError("a flow's sides take dirichlet alone here", "problem.boundary")
        if self.written is not None:
            raise InputError("what is written out says nothing of a flux", "problem.boundary")
        d = self.data.box.dimension
        parts = [
            _flux(self.data, e, k, _path(self.equations, self.fields[k]), points, jet.value,
                  jet.gradient[:d])
            for k, e in enumerate(self.equations)
        ]  # fmt: skip
        return torch.stack(parts, -1)

    def _scalar(self, equation: Equation, k: int, points: Tensor, jet: Jet) -> list[Tensor]:
        key, d = _path(self.equations, self.fields[k]), self.data.box.dimension
        u, slopes = jet.value, jet.gradient[:d]
        terms = []

        def at(name: str) -> Tensor:
            return self.data(getattr(equation, name), f"{key}.{name}", points, u, slopes)

        if not _zero(equation.m):
            terms.append(at("m") * jet.second(d, d)[:, k])
        if not _zero(equation.d):
            terms.append(at("d") * jet.gradient[d, :, k])
        if equation.energy is not None:
            own = _energy(self.data, equation, key, points, u, slopes, "value")[:, k]
            return [*terms, *self._divergence(equation, k, key, points, jet), own]
        if not _zero(equation.K):
            terms += self._divergence(equation, k, key, points, jet)
        for i, coefficient in enumerate(equation.b or ()):
            b = self.data(coefficient, f"{key}.b[{i}]", points, u, slopes)
            terms.append(b * slopes[i, :, k])
        if not _zero(equation.dispersion):
            terms.append(at("dispersion") * jet.derivative(0, 0, 0)[:, k])
        if not _zero(equation.biharmonic):
            squared = [jet.derivative(i, i, j, j)[:, k] for i in range(d) for j in range(d)]
            terms += [at("biharmonic") * part for part in squared]
        if not _zero(equation.c):
            terms.append(at("c") * u[:, k])
        if not _zero(equation.f):
            terms.append(-at("f"))
        return terms

    def _divergence(
        self, equation: Equation, k: int, key: str, points: Tensor, jet: Jet
    ) -> list[Tensor]:
        """``-d_i q_i`` per axis, (N,) each."""
        d = self.data.box.dimension
        if isinstance(equation.K, Real) and equation.energy is None:
            return [-float(equation.K) * jet.second(i, i)[:, k] for i in range(d)]
        tracked = torch.is_grad_enabled() and jet.data.requires_grad
        with torch.enable_grad():
            x = points.detach().requires_grad_()
            u, slopes = jet.value, jet.gradient[:d]
            if not tracked:
                u, slopes = (part.detach().requires_grad_() for part in (u, slopes))
            q = _flux(self.data, equation, k, key, x, u, slopes)
            found = [-self._derivative(q[i], i, (x, u, slopes), jet) for i in range(d)]
        return found if tracked else [part.detach() for part in found]

    def _derivative(
        self, q: Tensor, i: int, state: tuple[Tensor, Tensor, Tensor], jet: Jet
    ) -> Tensor:
        """The total derivative of ``q`` along axis i, by the chain rule."""
        x, u, p = torch.autograd.grad(
            q.sum(), state, create_graph=True, allow_unused=True, materialize_grads=True
        )
        total = x[:, i] + (u * jet.gradient[i]).sum(-1)
        for j in range(len(p)):
            if (min(i, j), max(i, j)) in self.pairs:
                total = total + (p[j] * jet.second(i, j)).sum(-1)
        return total

    def _flow(self, equation: NavierStokes, points: Tensor, jet: Jet) -> list[Tensor]:
        d = self.data.box.dimension
        viscosity = self.data(equation.viscosity, f"{_KEY}.viscosity", points)
        velocity, pressure = jet.value[:, :d], jet.gradient[:d, :, d].T
        slopes = jet.gradient[:d, :, :d]
        inertia = torch.einsum("nj,jnk->nk", velocity, slopes)
        terms = [inertia, pressure]
        terms += [-viscosity * jet.second(i, i)[:, :d] for i in range(d)]
        if self.problem.time is not None:
            terms.append(jet.gradient[d, :, :d])
        if equation.force is not None:
            force = [
                self.data(f, f"{_KEY}.force[{i}]", points, jet.value, jet.gradient[:d])
                for i, f in enumerate(equation.force)
            ]
            terms.append(-torch.stack([f.expand(len(points)) for f in force], -1))
        zero = torch.zeros_like(pressure[:, :1])
        rows = [torch.cat([term, zero], -1) for term in terms]
        for i in range(d):
            rows.append(torch.cat([zero.expand(-1, d), slopes[i, :, i : i + 1]], -1))
        return rows


@dataclass(frozen=True)
class LineIntegral:
    """An integral along the axis ``axis`` through every point, called ``name``.

    ``nodes``, ``weights`` (Q,): of the unit interval.
    """

    data: Pointwise
    name: str
    stated: Integral
    axis: int
    nodes: Tensor
    weights: Tensor

    def ends(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where it begins and ends, (N,) each."""
        key = f"{_KEY}.integrals.{self.name}"
        low, high = (
            self.data(value, f"{key}.{end}", points).expand(len(points))
            for end, value in (("lower", self.stated.lower), ("upper", self.stated.upper))
        )
        return low, high

    def places(self, points: Tensor) -> Tensor:
        """The points that it looks at, (Q N, D), node by node."""
        low, high = self.ends(points)
        mask = torch.zeros(points.shape[1], dtype=points.dtype)
        mask[self.axis] = 1.0
        s = low + self.nodes[:, None] * (high - low)
        box = region_of(self.data).box
        if self.axis < len(box.axes):
            least, most = box.lower[self.axis], box.upper[self.axis]
            slack = 1e-9 * (most - least)
            if bool(((s < least - slack) | (s > most + slack)).any()):
                raise InputError(
                    f"the integral leaves the domain, {self.stated.along} = {least:g} to {most:g}, "
                    "outside of which no equation holds",
                    f"{_KEY}.integrals.{self.name}",
                )
        return (points * (1 - mask) + s[..., None] * mask).flatten(0, 1)

    def value(
        self,
        data: Pointwise,
        points: Tensor,
        places: Tensor,
        jet: Jet,
        copies: Mapping[str, Tensor],
    ) -> Tensor:
        """The integral, (N,), from the jet at its places; ``copies`` of unknowns there."""
        low, high = self.ends(points)
        around = points.repeat(len(self.nodes), 1)
        more = {RUNNING: places[:, self.axis], **copies}
        key = f"{_KEY}.integrals.{self.name}.of"
        found = data.terms(self.stated.of, key, around, jet, more=more).sum(0)
        mean: Tensor = (self.weights[:, None] * found.unflatten(0, (len(self.nodes), -1))).sum(0)
        return (high - low) * mean


def strong_form(
    problem: Problem, parameters: Mapping[str, Any] | None = None, mesh: Mesh | None = None
) -> StrongForm:
    """The equations of a problem at points of its domain, or of a mesh.

    ``parameters`` take the place of the problem's own (tensors where they are to be found). Raises
    InputError for derivatives above the second but between periodic sides, coefficients without
    derivatives where these are needed, batches, and equations of another form.
    """
    problem.check_conditions()
    problem.check_unbounded()
    for side, condition in problem.boundary.items():
        if condition.by_field is not None:
            raise InputError(
                "conditions by field are for systems on grids; at points one serves all fields",
                f"problem.boundary.{side}",
            )
    numbers = numeric_parameters(problem) if parameters is None else parameters
    region = region_of(Pointwise(problem, (), numbers), mesh)
    axes = region.box.axes
    for name in {*axes, "t", *state_names(problem.unknowns, axes), *NORMAL} & {*problem.parameters}:
        raise InputError(
            f"a parameter cannot be called '{name}': the name is taken",
            f"problem.parameters.{name}",
        )
    state = states_at_points.look_up(problem.equation, Points)
    form: StrongForm = state(problem, numbers, region)
    return form


@states_at_points(Equation, Points)
def _single(problem: Problem, parameters: Mapping[str, Any], region: Region) -> StrongForm:
    return _forms(problem, {"u": problem.form}, parameters, region)


@states_at_points(System, Points)
def _several(problem: Problem, parameters: Mapping[str, Any], region: Region) -> StrongForm:
    return _forms(problem, problem.equation_as(System).forms, parameters, region)


def _forms(
    problem: Problem,
    equations: Mapping[str, Equation],
    parameters: Mapping[str, Any],
    region: Region,
) -> StrongForm:
    names, forms = tuple(equations), tuple(equations.values())
    data = _data(problem, names, parameters, region)
    wanted: set[tuple[int, ...]] = set()
    for name, form in equations.items():
        wanted |= _second_derivatives(data, form, _path(forms, name), data.box.dimension)
    check_time(problem, equations)
    return StrongForm(data, closed(wanted), forms, region)


def _data(
    problem: Problem, fields: tuple[str, ...], parameters: Mapping[str, Any], region: Region
) -> Pointwise:
    around = None if isinstance(region, Boxed) else region.box
    return Pointwise(problem, fields, parameters, around=around)


def check_time(problem: Problem, equations: Mapping[str, Equation]) -> None:
    """Raise InputError unless there are derivatives in time just where there is time."""
    forms = tuple(equations.values())
    moving = [
        (k, part)
        for k in equations
        for part in ("m", "d")
        if not _zero(getattr(equations[k], part))
    ]
    if problem.time is not None and not moving:
        raise InputError(
            "the equation has no time derivative: give d (before u_t) or m (before u_tt)", _KEY
        )
    if problem.time is None and moving:
        name, part = moving[0]
        raise InputError(
            f"the equation depends on time: give time: and initial:, or leave {part} out",
            f"{_path(forms, name)}.{part}",
        )


@states_at_points(NavierStokes, Points)
def _flow(problem: Problem, parameters: Mapping[str, Any], region: Region) -> StrongForm:
    equation, d = problem.equation_as(NavierStokes), region.box.dimension
    if not _zero(equation.vorticity_source):
        raise InputError("give the force, not its curl", f"{_KEY}.vorticity_source")
    pairs = tuple((i, i) for i in range(d))
    data = _data(problem, equation.fields(d), parameters, region)
    return StrongForm(data, pairs, (), region, equation)


@states_at_points(WrittenOut, Points)
def _written_out(problem: Problem, parameters: Mapping[str, Any], region: Region) -> StrongForm:
    equation = problem.equation_as(WrittenOut)
    data = _data(problem, equation.functions, parameters, region)
    for name in problem.parameters:
        if derivative(name, data.fields, data.axes) is not None:
            raise InputError(
                f"a parameter cannot be called '{name}': that is a derivative",
                f"problem.parameters.{name}",
            )
    of = [integral.of for integral in equation.integrals.values()]
    named = data.derivatives([*equation.residuals, *of])
    rates = max((axes.count(data.box.dimension) for _, axes in named.values()), default=0)
    if problem.time is not None and not rates:
        raise InputError(
            f"no residual has a derivative by t, such as {data.fields[0]}t", f"{_KEY}.residuals"
        )
    if rates > 2:
        raise InputError(
            "what begins with u and u_t has two derivatives by t at most; make functions of the "
            "others",
            f"{_KEY}.residuals",
        )
    pairs = derivatives_in(data, [*equation.residuals, *of])
    integrals = tuple(_integral(data, n, of) for n, of in equation.integrals.items())
    form = StrongForm(data, pairs, (), region, written=equation, integrals=integrals)
    _try(form, len(data.axes))
    return form


def _integral(data: Pointwise, name: str, stated: Integral) -> LineIntegral:
    key = f"{_KEY}.integrals.{name}"
    if stated.along not in data.axes:
        tail = did_you_mean(stated.along, data.axes)
        raise InputError(f"there is no axis '{stated.along}'{tail}", f"{key}.along")
    for end, value in (("lower", stated.lower), ("upper", stated.upper)):
        for used in free_names(value):
            if isinstance(data.problem.parameters.get(used), Unknown):
                raise InputError("an integral's end cannot be unknown", f"{key}.{end}")
    x, w = np.polynomial.legendre.leggauss(stated.points)
    nodes, weights = (torch.from_numpy(v) for v in (0.5 * (x + 1), 0.5 * w))
    return LineIntegral(data, name, stated, data.axes.index(stated.along), nodes, weights)


def derivatives_in(data: Pointwise, residuals: Sequence[Any]) -> Pairs:
    """Those from the second on that residuals name, with the lower ones that these are made of."""
    named = data.derivatives(residuals)
    highest = max((len(axes) for _, axes in named.values()), default=0)
    if highest > _HIGHEST:
        raise InputError(
            f"derivatives to order {_HIGHEST} are known; got one of order {highest}",
            f"{_KEY}.residuals",
        )
    return closed(axes for _, axes in named.values() if len(axes) > 1)


def _try(form: StrongForm, dimension: int) -> None:
    """Raise InputError for a residual that cannot be evaluated, or is one term alone."""
    data, count = form.data, 2 * form.blocks
    assert form.written is not None
    x = torch.zeros(2, dimension, dtype=torch.float64)
    x = torch.cat([x, form.beside(x)]) if form.integrals else x
    rows = 1 + dimension + len(form.pairs)
    data_ = torch.ones(rows, count, len(data.fields), dtype=torch.float64)
    jet = Jet(data_, dimension, form.pairs)
    form.terms(x, jet)
    more = {integral.name: x.new_ones(count) for integral in form.integrals}
    for k, residual in enumerate(form.written.residuals):
        key = f"{_KEY}.residuals[{k}]"
        if len(data.terms(residual, key, x, jet, more=more)) < 2:
            raise InputError(
                "a residual is a sum of terms, whose sizes say what of it is small; this is one "
                "term",
                key,
            )


def _beside(columns: Sequence[Sequence[Tensor]], jet: Jet) -> list[Tensor]:
    """Terms by equation, of whatever number, as rows of all equations, (N, E) each."""
    zero = torch.zeros_like(jet.value[:, 0])
    length = max(map(len, columns))
    filled = [[*terms, *[zero] * (length - len(terms))] for terms in columns]
    return [torch.stack([t.expand_as(zero) for t in row], -1) for row in zip(*filled, strict=True)]


def higher_derivatives(equation: Equation, dimension: int) -> set[tuple[int, ...]]:
    """Those above the second that an equation holds, by their axes."""
    wanted: set[tuple[int, ...]] = set() if _zero(equation.dispersion) else {(0, 0, 0)}
    if _zero(equation.biharmonic):
        return wanted
    return wanted | {(i, i, j, j) for i in range(dimension) for j in range(i, dimension)}


def _second_derivatives(
    data: Pointwise, equation: Equation, key: str, dimension: int
) -> set[tuple[int, ...]]:
    wanted: set[tuple[int, ...]] = set() if _zero(equation.m) else {(dimension, dimension)}
    for name in ("dispersion", "biharmonic"):
        if not _zero(getattr(equation, name)) and not all(data.periodic):
            raise InputError(
                "derivatives above the second need more than one condition a side: at points "
                "all sides are periodic then",
                f"{key}.{name}",
            )
    if not _zero(equation.dispersion) and dimension > 1:
        raise InputError("u_xxx is for one dimension", f"{key}.dispersion")
    wanted |= higher_derivatives(equation, dimension)
    if equation.energy is not None:
        data.smooth(equation.energy, f"{key}.energy")
        return wanted | set(combinations_with_replacement(range(dimension), 2))
    if _zero(equation.K):
        return wanted
    data.smooth(equation.K, f"{key}.K")
    full = isinstance(equation.K, (list, tuple)) and isinstance(equation.K[0], (list, tuple))
    if full or data.names(equation.K, f"{key}.K") & set(data.slopes):
        return wanted | set(combinations_with_replacement(range(dimension), 2))
    return wanted | {(i, i) for i in range(dimension)}


def _flux(
    data: Pointwise, equation: Equation, k: int, key: str, x: Tensor, u: Tensor, slopes: Tensor
) -> Tensor:
    """q of field k, (d, N)."""
    if equation.energy is not None:
        return _energy(data, equation, key, x, u, slopes, "slopes")[:, :, k]
    K, d = equation.K, len(slopes)

    def at(coefficient: Any, place: str) -> Tensor:
        return data(coefficient, f"{key}.K{place}", x, u, slopes)

    own = slopes[:, :, k]
    if not isinstance(K, (list, tuple)):
        return at(K, "") * own
    if not isinstance(K[0], (list, tuple)):
        return torch.stack([at(K[i], f"[{i}]") * own[i] for i in range(d)])
    rows = [[at(K[i][j], f"[{i}][{j}]") * own[j] for j in range(d)] for i in range(d)]
    return torch.stack([sum_of(row) for row in rows])


def _energy(
    data: Pointwise, equation: Equation, key: str, x: Tensor, u: Tensor, slopes: Tensor, by: str
) -> Tensor:
    """de/du (N, F) or de/dp (d, N, F) of the energy density."""
    tracked = torch.is_grad_enabled()
    with torch.enable_grad():
        if not u.requires_grad:
            u = u.detach().requires_grad_()
        if not slopes.requires_grad:
            slopes = slopes.detach().requires_grad_()
        density = data(equation.energy, f"{key}.energy", x, u, slopes)
        (found,) = torch.autograd.grad(
            density.sum(), u if by == "value" else slopes, create_graph=True, allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
    return found if tracked else found.detach()


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Their sum."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _zero(coefficient: Any) -> bool:
    return isinstance(coefficient, Real) and float(coefficient) == 0.0


def _path(equations: Any, name: str) -> str:
    """Where a field's equation stands in the spec."""
    return _KEY if len(equations) == 1 else f"{_KEY}.equations.{name}"
