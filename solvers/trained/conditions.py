"""What must hold where: the equation inside, conditions on sides, data at the start.

A condition is either soft, one more residual to make small, or built in: with the boundary data
carried into the box by a function G and a function phi that vanishes exactly where u is known,

    u = G + phi N

meets them whatever N is. G is the Boolean sum of one interpolation per axis (Gordon's transfinite
interpolation, which wants data that agree where sides meet: :func:`disagreement`), or is given, say
with the singularities that the solution has where data jump; phi is the product of the
distances s to the sides, 4 s (1 - s) where both are known. In time phi has a factor t, or t^2 where
u_t is known too. Sides with Neumann, Robin or periodic conditions stay soft; periodic axes are
better built into the network's inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.condition import Condition, flux_data
from sciml.core.problem.problem import Unknown
from sciml.core.problem.reader import free_names
from sciml.discretization.points.jet import Jet, Pairs, jet_of
from sciml.discretization.points.pointwise import Pointwise
from sciml.discretization.points.strong import StrongForm

_AGREEMENT = 1e-6
PointResidual = Callable[[Tensor, Jet], Tensor]


@dataclass(frozen=True)
class Piece:
    """A residual that holds on a part of the box: between ``lower`` and ``upper``, D each.

    On a side both are equal along its axis. ``residual(points, jet)`` gives (N, E). ``twins``: a
    shift (D,) from each point to one that it is compared with; the jet then holds all the points,
    then all the twins. ``flux``: it is a condition on n . K grad u rather than on u.
    ``fixed``: the points (N, D) themselves, where there is no choice (observations).
    """

    name: str
    lower: Tensor
    upper: Tensor
    residual: PointResidual
    twins: Tensor | None = None
    flux: bool = False
    fixed: Tensor | None = None

    @property
    def free(self) -> int:
        """The dimension of the part."""
        return int((self.upper > self.lower).sum())

    def place(self, cube: Tensor) -> Tensor:
        """Points (N, D) of the part for points (N, free) of the unit cube."""
        if self.fixed is not None:
            return self.fixed
        points = self.lower.expand(len(cube), -1).clone()
        axes = self.upper > self.lower
        points[:, axes] = (self.lower + 0.0)[axes] + cube * (self.upper - self.lower)[axes]
        return points


@dataclass(frozen=True)
class Stated:
    """Data as they are stated, one of each field: of points (N, D) their values (N, F).

    None is for fields that are free: zero. ``keys``: where each stands. ``normal``: of the side.
    """

    data: Pointwise
    values: tuple[Any, ...]
    keys: tuple[str, ...]
    normal: tuple[float, ...] | None = None

    def __call__(self, points: Tensor) -> Tensor:
        """(N, F); ``len`` would fix N in an exported program."""
        columns = [
            points.new_zeros(points.shape[0])
            if value is None
            else self.data(value, key, points, normal=self.normal).expand(points.shape[0])
            for value, key in zip(self.values, self.keys, strict=True)
        ]
        return torch.stack(columns, -1)


@dataclass(frozen=True)
class BuiltIn:
    """u = G + phi N of D coordinates and F fields; ``given``: G where it is no interpolation.

    ``moving``: G depends on parameters that are to be found.
    """

    dimension: int
    fields: int
    constraints: tuple[Constraint, ...]
    given: Stated | None = None
    moving: bool = False

    def carried(self, points: Tensor, pairs: Pairs) -> Jet:
        """The jet of G as the unknowns are now, with a graph by them where one is wanted."""
        return jet_of(self.extension, points, pairs, torch.is_grad_enabled())

    def jets(self, points: Tensor, pairs: Pairs) -> tuple[Jet, Jet]:
        """Those of G and phi, without a graph."""
        return jet_of(self.extension, points, pairs), jet_of(self.distance, points, pairs)

    def distance(self, x: Tensor) -> Tensor:
        """phi, (N, F)."""
        total = x.new_ones(x.shape[0], self.fields)
        for c in self.constraints:
            s = ((x[:, c.axis] - c.low) / (c.high - c.low))[:, None]
            factor = {"low": s**c.order, "high": 1 - s, "both": 4 * s * (1 - s)}[c.ends]
            total = total * torch.where(c.known.to(x.device), factor, 1.0)
        return total

    def extension(self, x: Tensor) -> Tensor:
        """G, (N, F)."""
        if self.given is not None:
            return self.given(x)
        return self._interpolated(x, len(self.constraints))

    def _interpolated(self, x: Tensor, count: int) -> Tensor:
        """The Boolean sum of the first ``count`` constraints, (N, F)."""
        if count == 0:
            return x.new_zeros(x.shape[0], self.fields)
        c, total = self.constraints[count - 1], self._interpolated(x, count - 1)
        s = ((x[:, c.axis] - c.low) / (c.high - c.low))[:, None]
        shares = {"low": (torch.ones_like(s),), "high": (torch.ones_like(s),), "both": (1 - s, s)}
        places = {"low": (c.low,), "high": (c.high,), "both": (c.low, c.high)}[c.ends]
        for share, place, data in zip(shares[c.ends], places, c.data, strict=True):
            at = _moved(x, c.axis, place)
            gap = data(at) - self._interpolated(at, count - 1)
            total = total + share * torch.where(c.known.to(x.device), gap, 0.0)
        if c.slope is not None:
            at = _moved(x, c.axis, c.low)
            before = self._slope(at, c.axis, count)
            gap = c.slope(at) - before
            rise = (x[:, c.axis] - c.low)[:, None]
            total = total + rise * torch.where(c.known.to(x.device), gap, 0.0)
        return total

    def _slope(self, at: Tensor, axis: int, count: int) -> Tensor:
        """d/dx_axis of what is built in so far, the value of this constraint included."""
        if torch.compiler.is_exporting():
            raise InputError(
                "where u_t is built in, G needs a derivative that torch.export does not trace; "
                "train with hard: false to export it"
            )
        tracked = torch.is_grad_enabled()
        with torch.enable_grad():
            at = at if at.requires_grad else at.detach().requires_grad_()
            value = self._interpolated(at, count - 1)
            if not value.requires_grad:
                return torch.zeros_like(value)
            columns = [
                torch.autograd.grad(
                    value[:, k].sum(), at, create_graph=True, allow_unused=True,
                    materialize_grads=True,
                )[0][:, axis]
                for k in range(self.fields)
            ]  # fmt: skip
        found = torch.stack(columns, -1)
        return found if tracked else found.detach()


@dataclass(frozen=True)
class Constraint:
    """Known values at one or both ends of an axis; ``known``: bool (F,), for which fields.

    ``data``: one function per end, (N, D) to (N, F). ``order`` 2 and ``slope`` where du/dx_axis is
    known too.
    """

    axis: int
    low: float
    high: float
    ends: str
    known: Tensor
    data: tuple[Stated, ...]
    order: int = 1
    slope: Stated | None = None


def built_in(form: StrongForm) -> BuiltIn | None:
    """What can be built in: Dirichlet sides and the start; None where there is nothing."""
    problem, (lower, upper) = form.problem, extent(form)
    found = []
    for axis, (low, high) in enumerate(_pairs(problem.box.sides)):
        ends = [side for side in (low, high) if problem.boundary[side].kind == "dirichlet"]
        if not ends:
            continue
        data = tuple(_dirichlet(form, side) for side in ends)
        known = _constrained(form, ends)
        which = "both" if len(ends) == 2 else ("low" if ends[0] == low else "high")
        found.append(Constraint(axis, float(lower[axis]), float(upper[axis]), which, known, data))
    if problem.time is not None:
        axis, second = problem.box.dimension, second_order(form)
        found.append(
            Constraint(
                axis, float(lower[axis]), float(upper[axis]), "low", _started(form),
                (_initial(form, ""),), 2 if second else 1, _initial(form, "t") if second else None,
            )
        )  # fmt: skip
    if not found:
        return None
    return BuiltIn(len(lower), len(form.fields), tuple(found), moving=_moves(form))


def _moves(form: StrongForm) -> bool:
    """Whether data that are built in name a parameter that is to be found."""
    sides = form.problem.boundary.values()
    data = [c.dirichlet for c in sides] + list(form.problem.first.values())
    used = frozenset().union(*(free_names(value) for value in data))
    return any(isinstance(form.problem.parameters.get(name), Unknown) for name in used)


@torch.no_grad()
def disagreement(form: StrongForm, base: BuiltIn, count: int = 64) -> str | None:
    """The condition that G does not meet, if there is one: where a lid slides along a wall."""
    generator = torch.Generator().manual_seed(0)
    for piece in pieces(form, hard=False, periodic_built_in=True)[1:]:
        if piece.flux:
            continue
        cube = torch.rand(count, piece.free, generator=generator, dtype=torch.float64)
        x = piece.place(cube)
        known, _ = base.jets(x, ())
        gap = piece.residual(x, known).abs().max()
        if gap > _AGREEMENT * (1 + known.value.abs().max()):
            return piece.name
    return None


def pieces(form: StrongForm, hard: bool, periodic_built_in: bool) -> tuple[Piece, ...]:
    """The equation, and every condition that is not built in."""
    problem, (lower, upper) = form.problem, extent(form)
    found = [Piece("equation", lower, upper, form.residual)]
    for axis, (low, high) in enumerate(_pairs(problem.box.sides)):
        if problem.boundary[low].kind == "periodic":
            if not periodic_built_in:
                found.append(_periodic(form, axis, low))
            continue
        for side, at in ((low, lower), (high, upper)):
            condition = problem.boundary[side]
            if condition.kind == "dirichlet" and hard:
                continue
            a, b = _pinned(lower, upper, axis, float(at[axis]))
            residual = _condition(form, condition, side, axis)
            flux = condition.kind != "dirichlet"
            found.append(Piece(side, a, b, residual, flux=flux))
    if problem.time is not None and not hard:
        axis = problem.box.dimension
        a, b = _pinned(lower, upper, axis, float(lower[axis]))
        found.append(Piece("start", a, b, _start(form)))
    return tuple(found)


def extent(form: StrongForm) -> tuple[Tensor, Tensor]:
    """The corners of the box, time last, float64 (D,)."""
    box, time = form.problem.box, form.problem.time
    low = (*box.lower, *(() if time is None else (time.start,)))
    high = (*box.upper, *(() if time is None else (time.end,)))
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def second_order(form: StrongForm) -> bool:
    """Whether the equation has u_tt."""
    return form.problem.time is not None and any(
        i == form.problem.box.dimension for i, _ in form.pairs
    )


def _pairs(sides: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(sides[::2], sides[1::2], strict=True))


def _pinned(lower: Tensor, upper: Tensor, axis: int, value: float) -> tuple[Tensor, Tensor]:
    a, b = lower.clone(), upper.clone()
    a[axis] = b[axis] = value
    return a, b


def _moved(x: Tensor, axis: int, value: float) -> Tensor:
    """x with one coordinate replaced, differentiable in the others."""
    mask = x.new_zeros(x.shape[1])
    mask[axis] = 1.0
    return x * (1 - mask) + value * mask


def _values(form: StrongForm, given: Any, key: str) -> list[Any]:
    """A side's value per field: a list for a velocity, else the same for all; None where free."""
    if form.flow is not None:
        d = form.problem.box.dimension
        listed = list(given) if isinstance(given, (list, tuple)) else [given] * d
        if len(listed) != d:
            raise InputError(f"a velocity has {d} components; got {len(listed)}", key)
        return [*listed, None]
    if isinstance(given, (list, tuple)):
        raise InputError("this equation's values are no lists", key)
    return [given] * len(form.fields)


def outward(form: StrongForm, side: str) -> tuple[float, ...]:
    """The unit normal of a side, out of the box."""
    axis, end = divmod(form.problem.box.sides.index(side), 2)
    sign = 1.0 if end else -1.0
    return tuple(sign if k == axis else 0.0 for k in range(form.problem.box.dimension))


def _dirichlet(form: StrongForm, side: str) -> Stated:
    key = f"problem.boundary.{side}.dirichlet"
    values = _values(form, form.problem.boundary[side].dirichlet, key)
    return Stated(form.data, tuple(values), (key,) * len(values), outward(form, side))


def _constrained(form: StrongForm, sides: Sequence[str]) -> Tensor:
    """Which fields the Dirichlet conditions of these sides give."""
    side = sides[0]
    given = form.problem.boundary[side].dirichlet
    values = _values(form, given, f"problem.boundary.{side}.dirichlet")
    return torch.tensor([value is not None for value in values])


def _started(form: StrongForm) -> Tensor:
    return torch.tensor([name in form.problem.first for name in form.fields])


def _initial(form: StrongForm, suffix: str) -> Stated:
    """The initial values, or with the suffix "t" the initial rates (zero where not given)."""
    first = form.problem.first
    if not suffix and not _started(form).any():
        raise InputError(f"no initial data for {', '.join(form.fields)}", "problem.initial")
    values = tuple(first.get(name + suffix) for name in form.fields)
    return Stated(form.data, values, ("problem.initial",) * len(values))


def _start(form: StrongForm) -> PointResidual:
    value, known = _initial(form, ""), _started(form)
    rate = _initial(form, "t") if second_order(form) else None
    axis = form.problem.box.dimension

    def residual(points: Tensor, jet: Jet) -> Tensor:
        gap = (jet.value - value(points))[:, known]
        if rate is None:
            return gap
        return torch.cat([gap, (jet.gradient[axis] - rate(points))[:, known]], -1)

    return residual


def _condition(form: StrongForm, condition: Condition, side: str, axis: int) -> PointResidual:
    key = f"problem.boundary.{side}"
    if condition.kind == "absorbing":
        raise InputError("absorbing sides are for grids and meshes", key)
    if condition.kind == "dirichlet":
        value, known = _dirichlet(form, side), _constrained(form, [side])
        return lambda points, jet: (jet.value - value(points))[:, known]
    if form.flow is not None:
        raise InputError("a flow's sides take dirichlet alone here", f"{key}.{condition.kind}")
    normal = outward(form, side)

    def residual(points: Tensor, jet: Jet) -> Tensor:
        def read(given: Any, where: str) -> Tensor:
            columns = [
                form.data(value, where, points, jet.value, normal=normal).expand(len(points))
                for value in _values(form, given, where)
            ]
            return torch.stack(columns, -1)

        alpha, g = flux_data(condition, f"{key}.{condition.kind}", read)
        return normal[axis] * form.flux(points, jet)[axis] - g + alpha * jet.value

    return residual


def _periodic(form: StrongForm, axis: int, low: str) -> Piece:
    lower, upper = extent(form)
    a, b = _pinned(lower, upper, axis, float(lower[axis]))
    shift = torch.zeros_like(lower)
    shift[axis] = upper[axis] - lower[axis]

    def residual(points: Tensor, jet: Jet) -> Tensor:
        half = len(points) // 2
        gap = jet.data[[0, 1 + axis]]
        return torch.cat(list(gap[:, :half] - gap[:, half:]), -1)

    return Piece(low, a, b, residual, shift)
