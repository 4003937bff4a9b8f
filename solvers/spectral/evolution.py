"""From a periodic problem in time to ``U' = L U + N(U, t)`` on its Fourier coefficients.

Of the coefficient form, divided by d, the parts with constant coefficients make the symbol

    L(k) = (-k . K k - i b . k - c + i beta k^3 - gamma |k|^4) / d;

all else is evaluated on the grid and makes N. A diffusivity that varies is split, K = K_0 +
(K - K_0), K_0 midway between its extremes at the start: L takes the stiff part, and where K_0 is at
least half of K everywhere, what is left to N cannot outgrow it. Fields in N are limited to the
modes of the 2/3 rule before they are multiplied, and so are the products. With inertia, m u_tt +
d u_t = ..., the pair (u, u_t) evolves, L a 2 x 2 matrix per mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from sciml.core.equation import Equation, NavierStokes, System
from sciml.core.errors import InputError, did_you_mean
from sciml.core.grid import Grid
from sciml.core.problem import Coefficient, Problem
from sciml.solvers.spectral.exponential import Diagonal, Linear, Nonlinear, Pair
from sciml.solvers.spectral.fourier import Fourier, fourier
from sciml.solvers.spectral.terms import Reader, Term, Values, reader


@dataclass(frozen=True)
class Evolution:
    """``U' = linear U + nonlinear(U, t)``.

    ``first``: the state at the start, values (*batch, fields, *shape), float64; of the fields the
    leading ones, called ``names``, are the answer. ``limited``: whether the 2/3 rule is in force.
    """

    linear: Linear
    nonlinear: Nonlinear | None
    fourier: Fourier
    first: torch.Tensor
    names: tuple[str, ...]
    limited: bool
    notes: tuple[str, ...] = ()


@dataclass
class _Field:
    """One field's equation, divided by its leading coefficient.

    ``symbol`` is its part of L. ``fluxes``: (i, j, K_ij, constant part of it) where K varies;
    ``advection``: (axis, b); ``products``: what else depends on the field itself;
    ``sources``: functions of t and x; ``fixed``: coefficients of a source fixed in time.
    """

    symbol: torch.Tensor
    scale: torch.Tensor
    fluxes: list[tuple[int, int, Term, torch.Tensor]] = field(default_factory=list)
    advection: list[tuple[int, Term]] = field(default_factory=list)
    reaction: list[Term] = field(default_factory=list)
    products: list[Term] = field(default_factory=list)
    sources: list[Term] = field(default_factory=list)
    fixed: torch.Tensor | None = None


def evolution(problem: Problem, grid: Grid, device: torch.device) -> Evolution:
    """The evolution of a problem on a grid; raises InputError for what has no Fourier symbol."""
    from sciml.solvers.spectral.vorticity import vorticity

    space = fourier(problem, grid.bind(problem.box), device)
    if isinstance(problem.equation, NavierStokes):
        return vorticity(problem, space)
    if isinstance(problem.equation, System):
        return _first_order(problem, space, problem.equation.equations, "equations.")
    inertia = reader(problem, space, ("u",)).constant(problem.form.m, "problem.equation.m")
    if bool(inertia.any()):
        return _second_order(problem, space, inertia)
    return _first_order(problem, space, {"u": problem.form}, "")


def _first_order(
    problem: Problem, space: Fourier, equations: Mapping[str, Equation], prefix: str
) -> Evolution:
    names = tuple(equations)
    source = reader(problem, space, names)
    first = initial_values(problem, source, names)
    parts = []
    for index, (name, equation) in enumerate(equations.items()):
        key = f"problem.equation.{prefix}{name}" if prefix else "problem.equation"
        if prefix and bool(source.constant(equation.m, f"{key}.m").any()):
            raise InputError("etdrk4 takes inertia in a single equation, not in a system", key)
        lead = _positive(source.constant(equation.d, f"{key}.d"), "d", key)
        parts.append(_split(source, equation, index, 1 / lead, first, key))
    symbols = torch.broadcast_tensors(*(part.symbol for part in parts))
    linear = Diagonal(torch.stack(symbols, dim=-space.dimension - 1))
    return _assembled(source, parts, linear, first, names, inertia=False)


def _second_order(problem: Problem, space: Fourier, inertia: torch.Tensor) -> Evolution:
    key, source = "problem.equation", reader(problem, space, ("u",))
    first = initial_values(problem, source, ("u", "ut"), optional=("ut",))
    lead = _positive(inertia, "m", key)
    damping = source.constant(problem.form.d, f"{key}.d") / lead
    part = _split(source, problem.form, 0, 1 / lead, first, key)
    linear = Pair(part.symbol, damping.to(torch.complex128), space.dimension)
    return _assembled(source, [part], linear, first, ("u",), inertia=True)


def _assembled(
    source: Reader,
    parts: list[_Field],
    linear: Linear,
    first: torch.Tensor,
    names: tuple[str, ...],
    inertia: bool,
) -> Evolution:
    space = source.fourier
    check_growth(linear, space)
    nonlinear = Products(source, tuple(parts), inertia)
    d = space.dimension
    fixed = (p.fixed.shape[:-d] for p in parts if p.fixed is not None)
    lead = (s.shape[: -d - 1] for s in (_symbol_shape(linear, d), first))
    batch = torch.broadcast_shapes(*fixed, *lead, *(v.shape[:-d] for v in source.parameters.values()))
    return Evolution(
        linear,
        nonlinear if nonlinear.active else None,
        space,
        first.expand(*batch, *first.shape[-d - 1 :]),
        names,
        nonlinear.limited,
    )
