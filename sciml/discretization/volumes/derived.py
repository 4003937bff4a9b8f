"""Fields derived from an answer on a grid: gradients, fluxes, vorticity, the stream function.

Slopes at points are the means of the differences on both sides, carried on from one side where
there is but one, so that quadratics are exact up to sides and rims. A flux -K grad u is found in
the same way from those on the faces, with the harmonic means of K of the discrete equation: where
K jumps, the flux across does not. A K that depends on the solution, or is a full tensor, is taken
at the points.

The stream function, u = psi_y and v = -psi_x, is the least-squares potential of the flow,

    min sum ((psi_{i+1} - psi_i) / h + mean v)^2 + sum ((psi_{j+1} - psi_j) / h - mean u)^2,

over the links of the grid, which cosine transforms solve; what lies inside an obstacle is at rest,
so that psi is constant there. It is zero at the first point, lower left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from sciml.core.problem.dispatch import derives, semidiscretises
from sciml.core.problem.equation import Equation, Helmholtz, NavierStokes, System
from sciml.core.problem.grid import AXES, Grid
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import state_names
from sciml.core.run.derived import Derivation
from sciml.discretization.volumes.coefficients import evaluate
from sciml.discretization.volumes.fluxes import diagonal_entries, links
from sciml.discretization.volumes.functionals import (
    Place,
    from_faces,
    jumps,
    known_at,
    place_of,
    read_on,
)
from sciml.discretization.volumes.layout import at_end, layout

_KEY = "problem.equation"
# A value (*batch, [fields], *grid) and its time to one component at the layout's points.
Component = Callable[[Place, torch.Tensor, float | None], torch.Tensor]


@derives(Equation, Grid)
def derive_on_grid(problem: Problem, on: Grid) -> Mapping[str, Derivation]:
    """The gradient of u; of what is no energy the flux -K grad u; with what obstacles push."""
    K = {} if problem.form.energy is not None else {"u": (problem.form.K, f"{_KEY}.K")}
    found = _slopes_and_fluxes(problem, on, ("u",), K)
    if not problem.bounded:
        return found
    pushing = replace(
        _derivation(problem, on, {"contact": _pushed}),
        usual=True,
    )
    return {**found, "contact": pushing}


@derives(Helmholtz, Grid)
def derive_waves(problem: Problem, on: Grid) -> Mapping[str, Derivation]:
    """The same of a complex field."""
    K = problem.equation_as(Helmholtz).K
    return _slopes_and_fluxes(problem, on, ("u",), {"u": (K, f"{_KEY}.K")})


@derives(System, Grid)
def derive_fields(problem: Problem, on: Grid) -> Mapping[str, Derivation]:
    """The same of every field."""
    equations = problem.equation_as(System).forms
    K = {name: (e.K, f"{_KEY}.equations.{name}.K") for name, e in equations.items()}
    return _slopes_and_fluxes(problem, on, tuple(equations), K)


@derives(NavierStokes, Grid)
def derive_flow(problem: Problem, on: Grid) -> Mapping[str, Derivation]:
    """The gradients, the vorticity v_x - u_y, and the stream function."""
    fields = problem.equation.fields(len(on.shape), tuple(problem.first))
    found = dict(_slopes_and_fluxes(problem, on, fields, {}))
    if "vorticity" in fields:
        found["stream_function"] = _derivation(problem, on, {"stream_function": _from_vorticity})
        return found

    def vorticity(place: Place, value: torch.Tensor, t: float | None) -> torch.Tensor:
        state = place.state(value)
        return place.slope(state["v"], 0) - place.slope(state["u"], 1)

    found["vorticity"] = _derivation(problem, on, {"vorticity": vorticity})

    def streams(value: torch.Tensor, t: float | None) -> torch.Tensor:
        cut, grid = place_of(problem, on).cut, on.bind(problem.box)
        if cut is None:
            return _streams(value, grid)
        still = torch.where(cut.unused, 0.0, value)
        return torch.where(cut.unused, torch.nan, _streams(still, grid))

    found["stream_function"] = Derivation(("stream_function",), streams)
    return found


def _slopes_and_fluxes(
    problem: Problem, on: Grid, fields: tuple[str, ...], K: Mapping[str, tuple[Any, str]]
) -> Mapping[str, Derivation]:
    """``K``: by field its conductivity and the key of that."""
    d = len(on.shape)
    vector = len(fields) == 1 and d > 1
    slopes: dict[str, Component] = {
        f"{name}{AXES[a]}": _slope_of(name, a) for name in fields for a in range(d)
    }
    found = {"gradient": _derivation(problem, on, slopes, vector)}
    if K:
        tails = dict.fromkeys(fields, "") if len(fields) == 1 else {n: f"_{n}" for n in fields}
        fluxes: dict[str, Component] = {
            f"q{AXES[a]}{tails[name]}": _flux_of(name, a, entry, key)
            for name, (entry, key) in K.items()
            for a in range(d)
        }
        found["flux"] = _derivation(problem, on, fluxes, vector)
    return found


def _derivation(
    problem: Problem, on: Grid, components: Mapping[str, Component], vector: bool = False
) -> Derivation:
    """From functions of the place, which is laid out once, when it is wanted."""
    place = cache(lambda: place_of(problem, on))

    def value(value: torch.Tensor, t: float | None) -> torch.Tensor:
        parts = [_on_grid(find(place(), value, t), place()) for find in components.values()]
        if len(parts) == 1:
            return parts[0]
        return torch.stack(list(torch.broadcast_tensors(*parts)), -1 - len(on.shape))

    return Derivation(tuple(components), value, vector=vector)


def _on_grid(found: torch.Tensor, place: Place) -> torch.Tensor:
    """Values at the layout's points on the whole grid, NaN inside an obstacle."""
    lay, d = place.layout, place.dimension
    found = found.expand(torch.broadcast_shapes(found.shape, lay.shape))
    for k, wraps in enumerate(lay.periodic):
        if wraps and not lay.cells:
            found = torch.cat([found, at_end(found, k, d, 0)], k - d)
    return found if place.cut is None else torch.where(place.cut.unused, torch.nan, found)


def _pushed(place: Place, value: torch.Tensor, t: float | None) -> torch.Tensor:
    """What obstacles push with per volume, at the layout's points; zero where u is given."""
    problem, grid = place.problem, place.layout.grid
    lower = semidiscretises.look_up(problem.equation, Grid)
    system = lower(problem, grid, dtype=torch.float64, device=torch.device("cpu"))
    assert system.inequality is not None
    free = system.inequality.free
    F, own = free.residual(free.restrict(value), 0.0), layout(problem, grid, torch.float64, "cpu")
    whole = F.new_zeros(*F.shape[: F.ndim - own.dimension], *grid.shape)
    own.to_unknowns(whole).copy_(F / own.measure())
    return place.layout.to_unknowns(whole)


def _slope_of(field: str, axis: int) -> Component:
    return lambda place, value, t: place.slope(place.state(value)[field], axis)


def _flux_of(field: str, axis: int, K: Any, key: str) -> Component:
    """-K grad u along an axis."""

    def flux(place: Place, value: torch.Tensor, t: float | None) -> torch.Tensor:
        d, u = place.dimension, place.state(value)[field]
        if isinstance(K, (list, tuple)) and any(isinstance(row, (list, tuple)) for row in K):
            rows = [(entry, f"{key}[{axis}][{b}]") for b, entry in enumerate(K[axis])]
            parts = [_at_points(k, place, value, t, of) for k, of in rows]
            return -sum((k * place.slope(u, b) for b, k in enumerate(parts)), torch.zeros(()))
        entry, tail = diagonal_entries(K, d)[axis]
        if _of_state(entry, place, f"{key}{tail}"):
            return -_at_points(entry, place, value, t, f"{key}{tail}") * place.slope(u, axis)
        return _through_faces(entry, place, u, axis, t, f"{key}{tail}")

    return flux


def _of_state(K: Any, place: Place, key: str) -> bool:
    """Whether a coefficient names fields or slopes."""
    return not read_on(K, place, key, slopes=AXES).names.isdisjoint(state_names(place.fields))


def _at_points(
    K: Any, place: Place, value: torch.Tensor, t: float | None, key: str
) -> torch.Tensor:
    """A coefficient at the layout's points."""
    if _of_state(K, place, key):
        read = read_on(K, place, key, slopes=AXES)
        absent = dict.fromkeys(read.names & set(state_names(place.fields)), torch.zeros(()))
        known = {**absent, **known_at(read, place, value, t)}
        return read.at(place.layout.points(), known)
    info = place.at_time(t)
    unused = None if place.cut is None else place.cut.unused
    return place.layout.to_unknowns(evaluate(K, info.own, info, key, unused))


def _through_faces(
    K: Any, place: Place, u: torch.Tensor, axis: int, t: float | None, key: str
) -> torch.Tensor:
    """From the fluxes between neighbours."""
    lay, info, cut = place.layout, place.at_time(t), place.cut
    dim, n = axis - lay.dimension, lay.shape[axis]
    at_points = evaluate(K, info.own, info, key, None if cut is None else cut.unused, fill=1.0)
    if not bool((at_points != 0).any()):
        return torch.zeros_like(u)
    across = links(K, at_points, axis, info, key, cut) / torch.as_tensor(lay.measure(without=axis))
    if across.shape[dim] > 1:
        across = across.narrow(dim, 1, n if lay.periodic[axis] else n - 1)
    wraps = lay.periodic[axis]
    return from_faces(across * jumps(u, axis, lay), axis, lay.dimension, wraps, place.hole)


# --- The stream function --------------------------------------------------------------------------


def _streams(value: torch.Tensor, grid: Grid) -> torch.Tensor:
    """psi (*batch, nx, ny) of u, v, p (*batch, 3, nx, ny)."""
    u, v = (torch.nan_to_num(value.select(-3, k)) for k in (0, 1))
    (nx, ny), (hx, hy) = grid.shape, grid.spacing
    along_x = -(v[..., 1:, :] + v[..., :-1, :]) / (2 * hx)
    along_y = (u[..., 1:] + u[..., :-1]) / (2 * hy)
    pad = torch.nn.functional.pad
    right = pad(along_x, (0, 0, 1, 0)) - pad(along_x, (0, 0, 0, 1))
    right = right + pad(along_y, (1, 0)) - pad(along_y, (0, 1))
    first, second = _cosines(nx), _cosines(ny)
    rates = [(2 - 2 * torch.cos(torch.arange(n, dtype=torch.float64) * (math.pi / n))) / h**2
             for n, h in ((nx, hx), (ny, hy))]  # fmt: skip
    divisor = rates[0][:, None] + rates[1]
    divisor[0, 0] = 1.0
    psi = first.T @ ((first @ right @ second.T) / divisor) @ second
    return psi - psi[..., :1, :1]


def _cosines(n: int) -> torch.Tensor:
    """The orthonormal cosine transform of type II, (n, n)."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    found = math.sqrt(2 / n) * torch.cos(math.pi / n * k * (i + 0.5))
    found[0] = 1 / math.sqrt(n)
    return found


def _from_vorticity(place: Place, value: torch.Tensor, t: float | None) -> torch.Tensor:
    """psi of a periodic flow, -Lap psi = vorticity, by Fourier's series."""
    lay = place.layout
    w = lay.to_unknowns(value)
    modes = torch.fft.fft2(w)
    squares = [
        (2 * math.pi * torch.fft.fftfreq(n, axis.spacing, dtype=torch.float64)).square()
        for n, axis in zip(lay.shape, lay.axes, strict=True)
    ]
    divisor = squares[0][:, None] + squares[1]
    divisor[0, 0] = torch.inf
    psi: torch.Tensor = torch.fft.ifft2(modes / divisor).real
    return psi - psi[..., :1, :1]
