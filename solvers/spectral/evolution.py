"""From a periodic problem in time to ``U' = L U + N(U, t)`` on its Fourier coefficients.

Of the coefficient form, divided by d, the parts with constant coefficients make the symbol

    L(k) = (-k . K k - i b . k - c + i beta k^3 - gamma |k|^4) / d,

all else is evaluated on the grid and makes N (:mod:`sciml.solvers.spectral.products`). With
inertia, m u_tt + d u_t = ..., the pair (u, u_t) evolves, and L is a 2 x 2 matrix per mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sciml.core.dispatch import Dispatch
from sciml.core.equation import Equation, System
from sciml.core.errors import InputError, did_you_mean
from sciml.core.grid import Grid
from sciml.core.problem import Problem
from sciml.solvers.spectral.exponential import Diagonal, Linear, Nonlinear, Pair
from sciml.solvers.spectral.fourier import Fourier, fourier
from sciml.solvers.spectral.products import Products, split
from sciml.solvers.spectral.terms import Reader, reader


@dataclass(frozen=True)
class Evolution:
    """``U' = linear U + nonlinear(U, t)``.

    ``first``: the state at the start, values (*batch, fields, *shape), float64; of its fields the
    leading ones, called ``names``, are the answer. ``limited``: whether the 2/3 rule is in force;
    ``batch``: that of the coefficients, () where all samples have the same.
    """

    linear: Linear
    nonlinear: Nonlinear | None
    fourier: Fourier
    first: torch.Tensor
    names: tuple[str, ...]
    limited: bool
    batch: tuple[int, ...]
    notes: tuple[str, ...] = ()


# (problem, Fourier): its evolution.
evolves: Dispatch[Evolution] = Dispatch("solved by Fourier modes")


def evolution(problem: Problem, grid: Grid, device: torch.device) -> Evolution:
    """The evolution of a problem on a grid; raises InputError for what has no Fourier symbol."""
    space = fourier(problem, grid.bind(problem.box), device)
    return evolves.look_up(problem.equation, Grid)(problem, space)


@evolves(Equation, Grid)
def _of_form(problem: Problem, space: Fourier) -> Evolution:
    key = "problem.equation"
    inertia = reader(problem, space, ("u",)).constant(problem.form.m, f"{key}.m")
    if bool(inertia.any()):
        return _second_order(problem, space, inertia)
    return _first_order(problem, space, {"u": (problem.form, key)})


@evolves(System, Grid)
def _of_system(problem: Problem, space: Fourier) -> Evolution:
    key, equations = "problem.equation.equations", problem.equation_as(System).equations
    source = reader(problem, space, tuple(equations))
    for name, equation in equations.items():
        if bool(source.constant(equation.m, f"{key}.{name}.m").any()):
            raise InputError(
                "etdrk4 takes inertia m in one equation, not in a system", f"{key}.{name}"
            )
    return _first_order(problem, space, {n: (e, f"{key}.{n}") for n, e in equations.items()})


def _first_order(
    problem: Problem, space: Fourier, equations: Mapping[str, tuple[Equation, str]]
) -> Evolution:
    """Of each field its equation, and where that stands in the spec."""
    names = tuple(equations)
    source = reader(problem, space, names)
    first = initial_values(source, names)
    parts = []
    for index, (equation, key) in enumerate(equations.values()):
        lead = _positive(source.constant(equation.d, f"{key}.d"), f"{key}.d")
        parts.append(split(source, equation, index, lead, first, key))
    symbols = torch.broadcast_tensors(*(part.symbol for part in parts))
    linear = Diagonal(torch.stack(symbols, dim=-space.dimension - 1))
    products = Products(source, tuple(parts))
    nonlinear = products if products.active else None
    return assembled(source, linear, nonlinear, first, names, products.limited)


def _second_order(problem: Problem, space: Fourier, inertia: torch.Tensor) -> Evolution:
    key, source = "problem.equation", reader(problem, space, ("u",))
    first = initial_values(source, ("u", "ut"), optional=("ut",))
    lead = _positive(inertia, f"{key}.m")
    damping = source.constant(problem.form.d, f"{key}.d") / lead
    part = split(source, problem.form, 0, lead, first, key)
    linear = Pair(part.symbol, damping.to(torch.complex128), space.dimension)
    products = Products(source, (part,), inertia=True)
    nonlinear = products if products.active else None
    return assembled(source, linear, nonlinear, first, ("u",), products.limited)


def assembled(
    source: Reader,
    linear: Linear,
    nonlinear: Nonlinear | None,
    first: torch.Tensor,
    names: tuple[str, ...],
    limited: bool,
    notes: tuple[str, ...] = (),
) -> Evolution:
    """The evolution, its first state expanded to the batch of all that it is made of."""
    space = source.fourier
    check_growth(linear, space)
    d = space.dimension
    shapes = [linear.batch(d)]
    if nonlinear is not None:
        sample = first[(0,) * (first.ndim - d - 1)]
        shapes.append(nonlinear(space.forward(sample), source.start).shape[: -d - 1])
    batch = common_batch(shapes)
    first = first.expand(*common_batch([first.shape[: -d - 1], batch]), *first.shape[-d - 1 :])
    return Evolution(linear, nonlinear, space, first, names, limited, batch, notes)


def initial_values(
    source: Reader, names: tuple[str, ...], optional: Sequence[str] = ()
) -> torch.Tensor:
    """The initial data of the fields ``names``, (*batch, fields, *shape); zero for optional ones.

    Raises InputError for a missing or unknown field.
    """
    given = source.problem.first
    if not isinstance(source.problem.initial, Mapping) and len(names) - len(optional) > 1:
        raise InputError(
            f"initial must name the fields: {{{', '.join(f'{n}: ...' for n in names)}}}",
            "problem.initial",
        )
    for name in given:
        if name not in names:
            raise InputError(
                f"unknown field '{name}'{did_you_mean(name, names)}", f"problem.initial.{name}"
            )
    missing = [name for name in names if name not in given and name not in optional]
    if missing:
        raise InputError(f"initial data for {', '.join(missing)} are missing", "problem.initial")
    named = isinstance(source.problem.initial, Mapping)
    values = [
        source.values(
            given.get(name, 0.0), f"problem.initial.{name}" if named else "problem.initial"
        )
        for name in names
    ]
    return torch.stack(torch.broadcast_tensors(*values), dim=-source.fourier.dimension - 1)


def check_growth(linear: Linear, space: Fourier) -> None:
    """Raise InputError where waves grow the faster the shorter they are: no grid could follow."""
    growth = linear.growth.expand(*linear.growth.shape[: -space.dimension], *space.modes)
    squared = space.laplacian.neg().expand(space.modes)
    largest, below = growth.amax(), growth[..., squared <= squared.max() / 4].amax()
    if float(largest) > 1.5 * max(float(below), 0.0) + 1e-12:
        raise InputError(
            "the equation is ill-posed on this grid: its shortest waves grow fastest, at the rate "
            f"{float(largest):.3g}; check the signs of K, dispersion and biharmonic",
            "problem.equation",
        )


def _positive(lead: torch.Tensor, key: str) -> torch.Tensor:
    if not bool((lead > 0).all()):
        name = key.rpartition(".")[2]
        raise InputError(
            f"etdrk4 integrates in time and needs {name} > 0; got {float(lead.min()):g}", key
        )
    return lead


def common_batch(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The batch of what belongs together; raises InputError where the batches differ."""
    try:
        return tuple(torch.broadcast_shapes(*(tuple(shape) for shape in shapes)))
    except RuntimeError:
        listed = ", ".join(str(list(shape)) for shape in shapes)
        raise InputError(
            f"initial data, coefficients and parameters have different batches: {listed}",
            "problem",
        ) from None
