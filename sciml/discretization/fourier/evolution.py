"""From a periodic problem in time to ``U' = L U + N(U, t)`` on its Fourier coefficients.

Of the coefficient form, divided by d, the parts with constant coefficients make the symbol

    L(k) = (-k . K k - i b . k - c + i beta k^3 - gamma |k|^4) / d,

all else is evaluated on the grid and makes N. With inertia, m u_tt + d u_t = ..., the pair (u, u_t)
evolves, and L is a 2 x 2 matrix per mode.

A diffusivity that varies is split, K = K_0 + (K - K_0), with K_0 midway between its extremes at the
start: the linear symbol takes the stiff part, and N what is left. Fields and slopes are limited to
the modes of the 2/3 rule before they are multiplied, and so are the products; a source that depends
on x and t alone keeps all its modes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import Dispatch
from sciml.core.problem.equation import Equation, System
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.discretization.fourier.exponential import Diagonal, Linear, Nonlinear, Pair
from sciml.discretization.fourier.modes import Fourier, fourier
from sciml.discretization.fourier.terms import Reader, Term, Values, reader


@dataclass
class SplitEquation:
    """One field's equation, divided by ``lead``, d or m; ``symbol`` is its part of L.

    ``fluxes``: (i, j, K_ij, the constant part of it) where K varies; ``advection``: (axis, b);
    ``reaction``: c; ``products`` and ``sources``: f where it depends on the solution, or only on t
    and x; ``fixed``: coefficients of an f that is fixed in time. Signs are those of the left-hand
    side for ``advection`` and ``reaction``.
    """

    symbol: torch.Tensor
    lead: torch.Tensor
    fluxes: list[tuple[int, int, Term, torch.Tensor]] = field(default_factory=list)
    advection: list[tuple[int, Term]] = field(default_factory=list)
    reaction: list[Term] = field(default_factory=list)
    products: list[Term] = field(default_factory=list)
    sources: list[Term] = field(default_factory=list)
    fixed: torch.Tensor | None = None

    @property
    def limited(self) -> bool:
        """Whether anything is multiplied by the solution."""
        return bool(self.fluxes or self.advection or self.reaction or self.products)


@dataclass(frozen=True)
class Products:
    """``N(U, t)`` for U (*batch, fields, *modes); with ``inertia`` it acts on u_t alone."""

    source: Reader
    parts: tuple[SplitEquation, ...]
    inertia: bool = False

    @property
    def limited(self) -> bool:
        """Whether there are products, and so the 2/3 rule."""
        return any(part.limited for part in self.parts)

    @property
    def active(self) -> bool:
        """Whether N is anything but zero."""
        return self.limited or any(p.sources or p.fixed is not None for p in self.parts)

    def __call__(self, U: torch.Tensor, t: float) -> torch.Tensor:
        """N at the time t, of the shape of U and the batch of the coefficients."""
        space, d = self.source.fourier, self.source.fourier.dimension
        values = self._values(U, t)
        rows = [self._row(index, part, values) for index, part in enumerate(self.parts)]
        if self.inertia:
            rows.insert(0, torch.zeros(space.modes, dtype=U.dtype, device=U.device))
        return torch.stack(torch.broadcast_tensors(*rows), dim=-d - 1)

    def _row(self, index: int, part: SplitEquation, values: Values) -> torch.Tensor:
        """N of one field."""
        kept = self.source.fourier.kept
        found = [self._transform(term.at(values)) / part.lead for term in part.sources]
        density = self._density(index, part, values)
        if density:
            found.append(self._transform(sum(density[1:], start=density[0])) * (kept / part.lead))
        for i, j, K, constant in part.fluxes:
            flux = (K.at(values) - constant) * values[self._name(index, j)]
            outward = 1j * self.source.fourier.k[i] * kept / part.lead
            found.append(outward * self._transform(flux))
        if part.fixed is not None:
            found.append(part.fixed)
        if not found:
            space = self.source.fourier
            return torch.zeros(space.modes, dtype=torch.complex128, device=space.device)
        return sum(found[1:], start=found[0])

    def _density(self, index: int, part: SplitEquation, values: Values) -> list[torch.Tensor]:
        """What is multiplied on the grid, but for fluxes."""
        found = [term.at(values) for term in part.products]
        found += [-b.at(values) * values[self._name(index, axis)] for axis, b in part.advection]
        return found + [-c.at(values) * values[self._name(index, None)] for c in part.reaction]

    def _transform(self, value: torch.Tensor) -> torch.Tensor:
        space = self.source.fourier
        batch = value.shape[: value.ndim - space.dimension]
        return space.forward(value.expand(*batch, *space.shape))

    def _values(self, U: torch.Tensor, t: float) -> Values:
        """All names that the terms read, the fields and slopes limited by the 2/3 rule."""
        space, d = self.source.fourier, self.source.fourier.dimension
        values = {**self.source.parameters, "t": self.source.instant(t)}
        if self._wanted:
            fields = U.unbind(-d - 1)
            rows = [fields[index] * factor for index, factor in self._wanted.values()]
            values |= zip(self._wanted, space.backward(torch.stack(rows)), strict=True)
        return values

    @cached_property
    def _wanted(self) -> dict[str, tuple[int, torch.Tensor]]:
        """Per name that a term reads, its field and what the coefficients are multiplied by."""
        names: set[str] = set()
        for index, part in enumerate(self.parts):
            terms = [*part.products, *part.reaction]
            terms += [b for _, b in part.advection] + [K for _, _, K, _ in part.fluxes]
            names |= {name for term in terms for name in term.names if name != "t"}
            names |= {self._name(index, axis) for axis, _ in part.advection}
            names |= {self._name(index, j) for _, j, _, _ in part.fluxes}
            names |= {self._name(index, None) for _ in part.reaction}
        space, found = self.source.fourier, {}
        for name in sorted(names):
            index, axis = self.source.slopes[name]
            factor = space.kept if axis is None else 1j * space.k[axis] * space.kept
            found[name] = (index, factor)
        return found

    def _name(self, index: int, axis: int | None) -> str:
        """The name of a field's slope along an axis, or of the field."""
        place = (index, axis)
        return next(name for name, found in self.source.slopes.items() if found == place)


def split(
    source: Reader,
    equation: Equation,
    index: int,
    lead: torch.Tensor,
    first: torch.Tensor,
    key: str,
) -> SplitEquation:
    """A field's equation as its part of L and its part of N.

    ``first``: the initial values (*batch, fields, *shape), at which K_0 is taken. Raises InputError
    for an energy, and for terms without a meaning in this dimension.
    """
    if equation.energy is not None:
        raise InputError(
            "etdrk4 takes coefficients, not an energy; write the equation out", f"{key}.energy"
        )
    space = source.fourier
    part = SplitEquation(
        torch.zeros(space.modes, dtype=torch.complex128, device=space.device), lead
    )
    _diffusion(part, source, _matrix(source, equation, key), index, first)
    _lower_order(part, source, equation, key)
    _higher_order(part, source, equation, key)
    part.symbol = part.symbol / lead
    f = source.read(equation.f, f"{key}.f")
    if f.of_solution:
        part.products.append(f)
    elif not f.fixed:
        part.sources.append(f)
    elif not f.zero:
        value = f.value
        batch = value.shape[: value.ndim - space.dimension]
        part.fixed = space.forward(value.expand(*batch, *space.shape)) / lead
    return part


def _matrix(source: Reader, equation: Equation, key: str) -> dict[tuple[int, int], Term]:
    """The entries of K that are not zero."""
    d, K = source.fourier.dimension, equation.K
    if not isinstance(K, (tuple, list)):
        entry = source.read(K, f"{key}.K")
        return {} if entry.zero else {(i, i): entry for i in range(d)}
    rows = list(K)
    if len(rows) != d or any(isinstance(r, (tuple, list)) and len(r) != d for r in rows):
        raise InputError(
            f"K is one coefficient, a list of {d} or {d} lists of {d} in {d}-D", f"{key}.K"
        )
    found = {}
    for i, row in enumerate(rows):
        entries = (
            row if isinstance(row, (tuple, list)) else [row if i == j else 0 for j in range(d)]
        )
        for j, entry in enumerate(entries):
            where = f"{key}.K.{i}.{j}" if isinstance(row, (tuple, list)) else f"{key}.K.{i}"
            term = source.read(entry, where)
            if not term.zero:
                found[i, j] = term
    return found


def _diffusion(
    part: SplitEquation,
    source: Reader,
    entries: dict[tuple[int, int], Term],
    index: int,
    first: torch.Tensor,
) -> None:
    space = source.fourier
    for (i, j), K in entries.items():
        if K.constant:
            constant = K.value
        else:
            constant = _midway(source, K, first)
            part.fluxes.append((i, j, K, constant))
        squared = space.squares[i] if i == j else space.k[i] * space.k[j]
        part.symbol = part.symbol - constant * squared


def _midway(source: Reader, K: Term, first: torch.Tensor) -> torch.Tensor:
    """Halfway between the extremes of K at the start, (*batch, 1, ..., 1)."""
    space, d = source.fourier, source.fourier.dimension
    U = space.forward(first)
    values = dict(source.parameters)
    values["t"] = source.instant(source.start)
    for name in K.names - {"t"}:
        index, axis = source.slopes[name]
        row = U.select(-d - 1, index)
        values[name] = space.backward(row if axis is None else 1j * space.k[axis] * row)
    there = K.at(values)
    axes = tuple(range(-d, 0))
    there = there.expand(*there.shape[: there.ndim - d], *space.shape)
    return 0.5 * (there.amin(axes, keepdim=True) + there.amax(axes, keepdim=True))


def _lower_order(part: SplitEquation, source: Reader, equation: Equation, key: str) -> None:
    """b . grad u and c u."""
    space = source.fourier
    entries: Sequence[object] = equation.b or ()
    if entries and len(entries) != space.dimension:
        raise InputError(
            f"b has {space.dimension} entries in {space.dimension}-D; got {len(entries)}",
            f"{key}.b",
        )
    for axis, entry in enumerate(entries):
        b = source.read(entry, f"{key}.b.{axis}")
        if b.constant:
            part.symbol = part.symbol - 1j * space.k[axis] * b.value
        else:
            part.advection.append((axis, b))
    c = source.read(equation.c, f"{key}.c")
    if c.constant:
        part.symbol = part.symbol - c.value
    else:
        part.reaction.append(c)


def _higher_order(part: SplitEquation, source: Reader, equation: Equation, key: str) -> None:
    """beta u_xxx, in one dimension, and gamma Lap^2 u."""
    space = source.fourier
    dispersion = source.constant(equation.dispersion, f"{key}.dispersion")
    if bool(dispersion.any()):
        if space.dimension > 1:
            raise InputError(
                f"dispersion, u_xxx, is for one dimension; the domain has {space.dimension}",
                f"{key}.dispersion",
            )
        part.symbol = part.symbol + 1j * dispersion * space.k[0] ** 3
    biharmonic = source.constant(equation.biharmonic, f"{key}.biharmonic")
    part.symbol = part.symbol - biharmonic * space.laplacian.square()


@dataclass(frozen=True)
class Evolution:
    """``U' = linear U + nonlinear(U, t)``.

    ``first``: the state at the start, values (*batch, fields, *shape), float64; of its fields the
    leading ones, called ``names``, are the answer. ``limited``: whether the 2/3 rule is in force;
    ``batch``: that of the coefficients, () where all samples have the same. ``left``: ranges of
    tables that a stage has been outside.
    """

    linear: Linear
    nonlinear: Nonlinear | None
    fourier: Fourier
    first: torch.Tensor
    names: tuple[str, ...]
    limited: bool
    batch: tuple[int, ...]
    notes: tuple[str, ...] = ()
    left: set[str] = field(default_factory=set)


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
    key, equations = "problem.equation.equations", problem.equation_as(System).forms
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
    return Evolution(linear, nonlinear, space, first, names, limited, batch, notes, source.left)


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
