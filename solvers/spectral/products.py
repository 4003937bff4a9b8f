"""The part N of an evolution that is evaluated on the grid, at every stage of every step.

A diffusivity that varies is split, K = K_0 + (K - K_0), with K_0 midway between its extremes at the
start: the linear symbol takes the stiff part, and N what is left. Fields and slopes are limited to
the modes of the 2/3 rule before they are multiplied, and so are the products; a source that depends
on x and t alone keeps all its modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from sciml.core.equation import Equation
from sciml.core.errors import InputError
from sciml.solvers.spectral.terms import Reader, Term, Values


@dataclass
class Part:
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
    parts: tuple[Part, ...]
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

    def _row(self, index: int, part: Part, values: Values) -> torch.Tensor:
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

    def _density(self, index: int, part: Part, values: Values) -> list[torch.Tensor]:
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
) -> Part:
    """A field's equation as its part of L and its part of N.

    ``first``: the initial values (*batch, fields, *shape), at which K_0 is taken. Raises InputError
    for an energy, and for terms without a meaning in this dimension.
    """
    if equation.energy is not None:
        raise InputError(
            "etdrk4 takes coefficients, not an energy; write the equation out", f"{key}.energy"
        )
    space = source.fourier
    part = Part(torch.zeros(space.modes, dtype=torch.complex128, device=space.device), lead)
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
    part: Part,
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


def _lower_order(part: Part, source: Reader, equation: Equation, key: str) -> None:
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


def _higher_order(part: Part, source: Reader, equation: Equation, key: str) -> None:
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
