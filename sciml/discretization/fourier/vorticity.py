"""Incompressible flow in a periodic rectangle, for its vorticity w = v_x - u_y.

    w_t + (u . grad) w = nu Lap w + g,    -Lap psi = w,    u = psi_y + U,  v = -psi_x + V,

g = curl(force) + vorticity source, and (U, V) the mean velocity, which the vorticity does not see
and which no force of zero mean changes. As div u = 0, the curl of div(u u^T) gives

    (u . grad) w = (d_xx - d_yy)(u v) + d_xy(v^2 - u^2)

(Basdevant 1983), four transforms per stage in place of five. Products are quadratic, so that the
2/3 rule makes this the Galerkin method, which conserves energy and enstrophy without viscosity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.discretization.fourier.evolution import Evolution, assembled, evolves
from sciml.discretization.fourier.exponential import Diagonal
from sciml.discretization.fourier.modes import Fourier
from sciml.discretization.fourier.terms import Reader, Term, reader

_NAMES = ("vorticity",)


@dataclass(frozen=True)
class Advection:
    """``N(w, t) = -(u . grad) w + g`` on coefficients (*batch, 1, *modes).

    ``mean``: the mean velocity, (2, *batch, 1, 1, 1), or None at rest. ``source`` and ``force``:
    the terms of g that change in time; ``steady``: the coefficients of all the rest of it.
    """

    reader: Reader
    mean: torch.Tensor | None
    steady: torch.Tensor | None
    source: Term | None
    force: tuple[Term, ...]

    def __call__(self, W: torch.Tensor, t: float) -> torch.Tensor:
        """N at the time t."""
        space = self.reader.fourier
        u, v = (space.backward(factor * W) for factor in self._velocity)
        if self.mean is not None:
            u, v = u + self.mean[0], v + self.mean[1]
        product, difference = space.forward(u * v), space.forward((v - u) * (v + u))
        along, across = self._curl_of_flux
        total = torch.addcmul(along * product, across, difference)
        if self.steady is not None:
            total = total + self.steady
        if self.source is not None or self.force:
            total = total + self._stirring(t)
        return total

    @cached_property
    def _velocity(self) -> tuple[torch.Tensor, torch.Tensor]:
        space = self.reader.fourier
        x, y = _velocity_symbols(space)
        return space.kept * x, space.kept * y

    @cached_property
    def _curl_of_flux(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of the transforms of u v and v^2 - u^2."""
        space = self.reader.fourier
        kx, ky = space.k
        complex_kept = space.kept.to(torch.complex128)
        return complex_kept * (kx * kx - ky * ky), complex_kept * (kx * ky)

    def _stirring(self, t: float) -> torch.Tensor:
        """The coefficients of the part of g that depends on t."""
        values = {**self.reader.parameters, "t": self.reader.instant(t)}
        found = [] if self.source is None else [_coefficients(self.reader, self.source, values)]
        if self.force:
            found.append(_curl(self.reader, self.force, values))
        return sum(found[1:], start=found[0])


def _velocity_symbols(space: Fourier) -> tuple[torch.Tensor, torch.Tensor]:
    """What a vorticity's coefficients are multiplied by to give those of u and v."""
    squared = -space.laplacian
    kx, ky = (1j * k / torch.where(squared > 0, squared, torch.inf) for k in space.k)
    return ky, -kx


def velocity(space: Fourier, W: torch.Tensor) -> torch.Tensor:
    """The velocities u and v, stacked in front, on the grid of the vorticity's coefficients W."""
    return torch.stack([space.backward(factor * W) for factor in _velocity_symbols(space)])


@evolves(NavierStokes, Grid)
def vorticity(problem: Problem, space: Fourier) -> Evolution:
    """The evolution of the vorticity; raises InputError outside two dimensions."""
    equation = problem.equation_as(NavierStokes)
    if space.dimension != 2:
        raise InputError(
            f"the vorticity form is for two dimensions; the domain has {space.dimension}",
            "problem.domain",
        )
    source = reader(problem, space, ())
    viscosity = source.constant(equation.viscosity, "problem.equation.viscosity")
    first, mean = _initial(source)
    linear = Diagonal((viscosity * space.laplacian).to(torch.complex128).unsqueeze(-3))
    notes = []
    average = first.mean((-2, -1)).abs().max() / first.abs().amax().clamp_min(1e-300)
    if float(average) > 1e-10:
        notes.append("the vorticity has a mean, which no periodic flow has: it stays as it is")
    advection = _advection(equation, source, mean)
    return assembled(source, linear, advection, first, _NAMES, True, tuple(notes))


def _advection(
    equation: NavierStokes,
    source: Reader,
    mean: torch.Tensor | None,
) -> Advection:
    steady: list[torch.Tensor] = []
    stirring = source.read(equation.vorticity_source, "problem.equation.vorticity_source")
    if stirring.fixed and not stirring.zero:
        steady.append(_coefficients(source, stirring, {}))
    force: tuple[Term, ...] = ()
    if equation.force is not None:
        key = "problem.equation.force"
        if len(equation.force) != 2:
            raise InputError(f"force has 2 entries; got {len(equation.force)}", key)
        force = tuple(source.read(f, f"{key}.{i}") for i, f in enumerate(equation.force))
        _check_mean(source, force)
        if all(f.fixed for f in force):
            steady.append(_curl(source, force, {}))
            force = ()
    return Advection(
        source,
        mean,
        sum(steady[1:], start=steady[0]) if steady else None,
        None if stirring.fixed else stirring,
        force,
    )


def _initial(source: Reader) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The vorticity at the start, (*batch, 1, *shape), and the mean velocity."""
    given = source.problem.first
    for name in given:
        if name not in ("vorticity", "u", "v"):
            raise InputError(
                f"unknown field '{name}'{did_you_mean(name, ('vorticity', 'u', 'v'))}",
                f"problem.initial.{name}",
            )
    if given.keys() == {"vorticity"}:
        value = source.values(given["vorticity"], "problem.initial.vorticity")
        return value.unsqueeze(-3), None
    if given.keys() != {"u", "v"}:
        raise InputError(
            "a periodic flow starts from initial: {vorticity: ...} or {u: ..., v: ...}",
            "problem.initial",
        )
    space = source.fourier
    u, v = torch.broadcast_tensors(
        *(source.values(given[name], f"problem.initial.{name}") for name in ("u", "v"))
    )
    U, V = space.forward(u), space.forward(v)
    mean = torch.stack([u.mean((-2, -1)), v.mean((-2, -1))])
    moving = bool(mean.abs().max() > 1e-14)
    W = 1j * space.k[0] * V - 1j * space.k[1] * U
    return space.backward(W).unsqueeze(-3), mean[..., None, None, None] if moving else None


def _check_mean(source: Reader, force: tuple[Term, ...]) -> None:
    """Raise InputError for a force that accelerates the whole flow."""
    values = {**source.parameters, "t": source.instant(source.start)}
    for i, term in enumerate(force):
        there = term.at(values)
        there = there.expand(*there.shape[:-2], *source.fourier.shape)
        mean, size = there.mean((-2, -1)).abs().max(), there.abs().max()
        if float(mean) > 1e-10 * max(float(size), 1e-300):
            raise InputError(
                "the force has a mean, which the vorticity does not see; subtract it",
                f"problem.equation.force.{i}",
            )


def _coefficients(source: Reader, term: Term, values: dict[str, torch.Tensor]) -> torch.Tensor:
    value = term.at(values)
    batch = value.shape[: value.ndim - 2]
    return source.fourier.forward(value.expand(*batch, *source.fourier.shape)).unsqueeze(-3)


def _curl(source: Reader, force: tuple[Term, ...], values: dict[str, torch.Tensor]) -> torch.Tensor:
    """The coefficients of d_x F_y - d_y F_x."""
    kx, ky = source.fourier.k
    Fx, Fy = (_coefficients(source, term, values) for term in force)
    return 1j * kx * Fy - 1j * ky * Fx
