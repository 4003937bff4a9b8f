"""The Helmholtz equation, complex, on top of the real finite volumes.

    -div(K grad u) - k^2 (1 + i s) u = f,      waves as exp(-i omega t),

is integrated over the control volumes like any other equation with the reaction coefficient -k^2;
what is complex in it only adds to the diagonal. The sponge adds -i s k^2 |C|. An absorbing side is
the condition that a wave exp(i k n.x / sqrt(K)) meets as it leaves at a right angle,

    n . K grad u = i k sqrt(K) u

(Engquist and Majda 1977, the first order), a Robin condition with alpha = -i k sqrt(K); so is a
Robin side with a complex alpha, by which waves are sent in. Data may be complex, texts by the name
i: by linearity they are two real right-hand sides.

The scheme's waves are too short: along an axis sin(k_h h / 2) = k h / 2, so that the phase is off
by k^3 h^2 / 24 per unit of length, however many points a wavelength has (the pollution effect,
Babuska and Sauter 1997).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from inspect import Parameter, Signature
from typing import Any

import numpy as np
import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.condition import Condition, Robin, flux_data
from sciml.core.problem.dispatch import discretises, estimates_memory
from sciml.core.problem.equation import Equation, FieldFile, Helmholtz, Sponge
from sciml.core.problem.expression import parse
from sciml.core.problem.grid import SIDES, Grid
from sciml.core.problem.problem import Obstacle, Problem
from sciml.core.problem.reader import IMAGINARY, free_names
from sciml.core.run.status import Doubt
from sciml.discretization.volumes import assemble, obstacle
from sciml.discretization.volumes.boundary import outward
from sciml.discretization.volumes.coefficients import Data, data, evaluate, require
from sciml.discretization.volumes.layout import Layout, at_end, layout
from sciml.discretization.volumes.memory import check_memory, samples
from sciml.discretization.volumes.obstacle import Cut

_KEY = "problem.equation"
_FEWEST_POINTS = 10.0
COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


@discretises(Helmholtz, Grid)
def discretize(
    problem: Problem, on: Grid, *, dtype: torch.dtype, device: torch.device
) -> LinearSystem:
    """Lower a Helmholtz problem to ``A x = b`` on a grid.

    ``A`` is a complex :class:`Stencil` (complex128 for ``dtype`` float64), equal to its transpose
    but not to its adjoint, hence tagged neither symmetric nor definite; ``b`` (*batch, *unknowns).
    The notes say how many points the shortest wavelength has. Raises InputError for a wavenumber
    that is not positive, and for a sponge without an absorbing side or wider than the domain.
    """
    grid = on.bind(problem.box)
    equation = _checked(problem)
    check_memory(problem, grid, dtype, device)
    lay = layout(problem, grid, dtype, device)
    info = data(problem, lay, dtype, device)
    hole = obstacle.cut(problem, lay, info)
    k = _wavenumber(equation, lay, info, hole)
    real, imaginary = _real_systems(problem, grid, k, dtype, device)
    terms = _open_sides(problem, lay, info, hole)
    if equation.sponge is not None:
        terms.append(_sponge(problem, equation.sponge, k, lay, hole))
    A = _with_diagonal(real.A, terms, COMPLEX[dtype])
    b = _right(real.b, None if imaginary is None else imaginary.b, terms, lay.dimension)

    def lift(u: torch.Tensor) -> torch.Tensor:
        value = real.lift(u)
        if imaginary is not None:
            value = value + 1j * imaginary.lift(torch.zeros_like(u.real))
        return value

    notes = (*real.notes, *_resolution(problem, k, lay, info, hole))
    return LinearSystem(A, b, grid, lift, real.restrict, notes)


@estimates_memory(Helmholtz, Grid)
def memory(problem: Problem, on: Grid, itemsize: int) -> int:
    """Bytes at the peak of ``discretize``: real planes, then complex ones of twice the size."""
    equation, d = problem.equation_as(Helmholtz), len(on.shape)
    batch = samples(problem, (equation.wavenumber, equation.K, equation.f), d)
    return math.prod(on.shape) * batch * 3 * (2 * d + 7) * itemsize


def _checked(problem: Problem) -> Helmholtz:
    equation = problem.equation_as(Helmholtz)
    if problem.time is not None:
        raise InputError(
            "the Helmholtz equation is one of frequency and has no time: leave time and initial "
            "out, or use kind: wave",
            "problem.time",
        )
    if IMAGINARY in problem.parameters:
        raise InputError(
            f"a parameter cannot be called '{IMAGINARY}': the name is taken",
            f"problem.parameters.{IMAGINARY}",
        )
    for name in ("wavenumber", "K"):
        value = getattr(equation, name)
        if isinstance(value, (list, tuple)) or (_may_be_complex(value) and not callable(value)):
            raise InputError(
                f"{name} must be one real coefficient; damp waves by a sponge", f"{_KEY}.{name}"
            )
    absorbing = [side for side, c in problem.boundary.items() if c.kind == "absorbing"]
    if equation.sponge is not None:
        _check_sponge(problem, equation.sponge, absorbing)
    if problem.obstacle is not None and problem.obstacle.boundary.kind == "absorbing":
        raise InputError(
            "an obstacle's rim is dirichlet (sound-soft), neumann (sound-hard) or robin",
            "problem.obstacle.boundary",
        )
    return equation


def _check_sponge(problem: Problem, sponge: Sponge, absorbing: list[str]) -> None:
    key = f"{_KEY}.sponge"
    if not absorbing:
        raise InputError("a sponge lies before absorbing sides: write absorbing: true for one", key)
    box = problem.box
    for axis, (low, high) in enumerate(SIDES[: box.dimension]):
        count = (low in absorbing) + (high in absorbing)
        room = (box.upper[axis] - box.lower[axis]) / max(count, 1)
        if count and not 0 < sponge.width < room:
            raise InputError(
                f"the sponge's width must lie between 0 and {room:g}, the room before "
                f"{' and '.join(s for s in (low, high) if s in absorbing)}; got {sponge.width:g}",
                f"{key}.width",
            )
    if not sponge.strength >= 0:
        raise InputError(
            f"the sponge's strength must be zero or positive; got {sponge.strength:g}",
            f"{key}.strength",
        )


def _wavenumber(equation: Helmholtz, lay: Layout, info: Data, hole: Cut | None) -> torch.Tensor:
    """k at the grid's points; 1 inside obstacles."""
    unused = hole.unused if hole is not None else None
    key = f"{_KEY}.wavenumber"
    k = evaluate(equation.wavenumber, info.own, info, key, unused, fill=1.0)
    require(k, info.own, key, positive=True)
    return k


def _real_systems(
    problem: Problem, grid: Grid, k: torch.Tensor, dtype: torch.dtype, device: torch.device
) -> tuple[LinearSystem, LinearSystem | None]:
    """-div(K grad u) - k^2 u with the data's real parts, and with their imaginary parts."""
    c = -k.square().expand(*k.shape[: -len(grid.shape)], *grid.shape)
    real = assemble.discretize(_part(problem, c, _real), grid, dtype=dtype, device=device)
    if not any(_may_be_complex(value) for value in _given(problem)):
        return real, None
    part = _part(problem, c, _imaginary)
    return real, assemble.discretize(part, grid, dtype=dtype, device=device)


def _given(problem: Problem) -> list[Any]:
    """All data of the right-hand side."""
    conditions = [*problem.boundary.values()]
    if problem.obstacle is not None:
        conditions.append(problem.obstacle.boundary)
    values = [value for c in conditions for value in (c.dirichlet, c.neumann)]
    values += [c.robin.g for c in conditions if c.robin is not None]
    return [problem.equation_as(Helmholtz).f, *values]


def _may_be_complex(value: Any) -> bool:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return torch.as_tensor(value).is_complex()
    if isinstance(value, str):
        return IMAGINARY in free_names(value)
    return isinstance(value, complex) or callable(value)


def _real(value: Any) -> Any:
    return _taken(value, lambda z: z.real)


def _imaginary(value: Any) -> Any:
    return _taken(value, lambda z: z.imag) if _may_be_complex(value) else 0.0


def _taken(value: Any, take: Callable[[Any], Any]) -> Any:
    """One part of a coefficient's value, or of what its function returns."""
    if not _may_be_complex(value):
        return value
    if isinstance(value, str):
        value = _function_of(value)
    if callable(value) and not isinstance(value, (torch.Tensor, np.ndarray, FieldFile)):
        # Called as the function itself is: it tells its arguments by their names.
        @wraps(value)
        def part(*placed: Any, **named: Any) -> Any:
            return take(torch.as_tensor(value(*placed, **named)).to(torch.complex128))

        return part
    return take(value)


def _function_of(text: str) -> Callable[..., Any]:
    """A text that names the imaginary unit, as a function of the other names."""
    names = sorted(free_names(text) - {IMAGINARY})
    expression = parse(text, (*names, IMAGINARY))

    def found(**known: Any) -> Any:
        return expression(**known, **{IMAGINARY: torch.tensor(1j, dtype=torch.complex128)})

    arguments = [Parameter(name, Parameter.KEYWORD_ONLY) for name in names]
    vars(found)["__signature__"] = Signature(arguments)
    return found


def _part(problem: Problem, c: torch.Tensor, take: Callable[[Any], Any]) -> Problem:
    """The real problem whose data are one part of the complex ones."""
    equation = problem.equation_as(Helmholtz)
    hole = problem.obstacle
    if hole is not None:
        hole = Obstacle(hole.inside, _condition(hole.boundary, take))
    return replace(
        problem,
        equation=Equation(K=equation.K, c=c, f=take(equation.f)),
        boundary={side: _condition(given, take) for side, given in problem.boundary.items()},
        obstacle=hole,
    )


def _condition(given: Condition, take: Callable[[Any], Any]) -> Condition:
    if _is_open(given):
        return Condition(neumann=0.0)
    if given.dirichlet is not None:
        return Condition(dirichlet=take(given.dirichlet))
    if given.neumann is not None:
        return Condition(neumann=take(given.neumann))
    if given.robin is not None:
        return Condition(robin=Robin(given.robin.alpha, take(given.robin.g)))
    return given


def _is_open(condition: Condition) -> bool:
    """Whether the condition has a complex alpha: absorbing, or Robin from Python."""
    if condition.robin is not None:
        return _may_be_complex(condition.robin.alpha)
    return condition.kind == "absorbing"


@dataclass(frozen=True)
class _Term:
    """What is added to the diagonal and to the right-hand side, at one end of an axis or all over.

    ``place``: (axis, end), or None for the whole array.
    """

    diagonal: torch.Tensor
    right: torch.Tensor | None = None
    place: tuple[int, int] | None = None

    def slab(self, u: torch.Tensor, dimension: int) -> torch.Tensor:
        """The part of an array on the unknowns that the term belongs to."""
        return u if self.place is None else at_end(u, self.place[0], dimension, self.place[1])


def _open_sides(problem: Problem, lay: Layout, info: Data, hole: Cut | None) -> list[_Term]:
    """The terms of absorbing sides and of Robin sides with a complex alpha."""
    terms = []
    for axis, line in enumerate(lay.axes):
        for end, name in enumerate(SIDES[axis]):
            if not _is_open(problem.boundary[name]):
                continue
            points = lay.points({axis: line.edges[[0, -1]][end : end + 1]})
            alpha, g = _robin(problem, name, points, outward(info, axis, end))
            area: float | torch.Tensor = lay.measure(without=axis)
            if hole is not None and hole.openings is not None:
                area = area * at_end(hole.openings[axis], axis, lay.dimension, end)
            share = torch.as_tensor(area, dtype=info.dtype, device=info.device)
            if lay.cells:
                inside = lay.points({axis: line.positions[[0, -1]][end : end + 1]})
                link = 2.0 * _conductivity(problem, inside, info) / line.spacing
                share = share * link / (alpha + link)
            shape = [1 if k == axis else n for k, n in enumerate(lay.shape)]
            diagonal = share * alpha * torch.ones(shape, dtype=info.dtype, device=info.device)
            terms.append(_Term(diagonal, None if g is None else share * g, (axis, end)))
    return terms


def _robin(
    problem: Problem, name: str, points: tuple[torch.Tensor, ...], info: Data
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """alpha, and g unless it is zero, of an open side at its points."""
    condition = problem.boundary[name]
    if condition.robin is not None:
        key = f"problem.boundary.{name}.robin"
        return flux_data(condition, key, lambda v, where: _complex(v, points, info, where))
    equation = problem.equation_as(Helmholtz)
    k = evaluate(equation.wavenumber, points, info, f"{_KEY}.wavenumber")
    share = 1.0 if condition.absorbing is True else condition.absorbing
    beta = _complex(share, points, info, f"problem.boundary.{name}.absorbing")
    return -1j * k * _conductivity(problem, points, info).sqrt() * beta, None


def _conductivity(problem: Problem, points: tuple[torch.Tensor, ...], info: Data) -> torch.Tensor:
    K = evaluate(problem.equation_as(Helmholtz).K, points, info, f"{_KEY}.K")
    require(K, points, f"{_KEY}.K", positive=True)
    return K


def _complex(value: Any, points: tuple[torch.Tensor, ...], info: Data, key: str) -> torch.Tensor:
    real = evaluate(_real(value), points, info, key)
    return torch.complex(*torch.broadcast_tensors(
        real, evaluate(_imaginary(value), points, info, key)
    ))  # fmt: skip


def _sponge(
    problem: Problem, sponge: Sponge, k: torch.Tensor, lay: Layout, hole: Cut | None
) -> _Term:
    """-i strength s^2 k^2 |C|, where s is the largest of the absorbing sides' own."""
    depth = torch.zeros((1,) * lay.dimension, dtype=torch.float64, device=k.device)
    box = problem.box
    for axis, line in enumerate(lay.points()):
        for end, name in enumerate(SIDES[axis]):
            if problem.boundary[name].absorbing:
                gap = (box.upper[axis] - line) if end else (line - box.lower[axis])
                depth = torch.maximum(depth, (1 - gap / sponge.width).clamp(min=0.0))
    volume: float | torch.Tensor = lay.measure()
    if hole is not None:
        volume = volume * (~hole.solid if hole.volumes is None else hole.volumes)
    rate = (sponge.strength * depth.square() * volume).to(k.dtype)
    damped = rate * lay.to_unknowns(k).square()
    return _Term(-1j * damped.expand(*damped.shape[: -lay.dimension], *lay.shape))


def _with_diagonal(A: LinearMap, terms: list[_Term], dtype: torch.dtype) -> Stencil:
    """``A`` as a complex stencil with the terms on its diagonal."""
    assert isinstance(A, Stencil)
    d = A.dimension
    planes = A.to(dtype).coefficients
    if terms:
        leads = [t.diagonal.shape[:-d] for t in terms]
        batch = torch.broadcast_shapes(A.batch, *leads)
        planes = planes.expand(*batch, *planes.shape[-d - 1 :])
        planes = planes.clone(memory_format=torch.contiguous_format)
        centre = planes.select(-d - 1, A.offsets.index((0,) * d))
        for term in terms:
            term.slab(centre, d).add_(term.diagonal)
    return Stencil(planes, A.offsets, periodic=A.periodic)


def _right(
    real: torch.Tensor, imaginary: torch.Tensor | None, terms: list[_Term], d: int
) -> torch.Tensor:
    """The right-hand side from its two parts and the open sides'."""
    b = torch.complex(*torch.broadcast_tensors(
        real, torch.zeros_like(real) if imaginary is None else imaginary
    ))  # fmt: skip
    for term in terms:
        if term.right is not None:
            b = b.expand(
                *torch.broadcast_shapes(b.shape[:-d], term.right.shape[:-d]), *b.shape[-d:]
            )
            b = b.clone()
            term.slab(b, d).add_(term.right)
    return b


def _resolution(
    problem: Problem, k: torch.Tensor, lay: Layout, info: Data, hole: Cut | None
) -> list[str]:
    """How many points the shortest wavelength has, and how far the phase drifts."""
    unused = hole.unused if hole is not None else None
    K = evaluate(problem.equation_as(Helmholtz).K, info.own, info, f"{_KEY}.K", unused, fill=1.0)
    local = (k / K.sqrt()).detach()
    if unused is not None:
        local = torch.where(unused, 0.0, local)
    h = max(axis.spacing for axis in lay.axes)
    points = 2 * math.pi / (float(local.max()) * h)
    box = problem.box
    length = max(b - a for a, b in zip(box.lower, box.upper, strict=True))
    drift = float(local.pow(3).mean()) * h**2 * length / 24
    note = (
        f"{points:.3g} points per wavelength at the least; waves along an axis drift by about "
        f"{drift:.2g} rad across the domain"
    )
    if points < _FEWEST_POINTS:
        more = _FEWEST_POINTS / points
        sizes = " x ".join(str(math.ceil((n - 1) * more) + 1) for n in lay.grid.shape)
        note = Doubt(f"{note}; fewer than {_FEWEST_POINTS:g} points are too few, use {sizes}")
    return [note]
