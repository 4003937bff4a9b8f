"""Incompressible flow on a mesh, by Taylor and Hood's elements (1973): P2 velocity, P1 pressure.

    int u_t . v + (u . grad) u . v + (nu grad u - p 1) : grad v = int force . v + int_sides g . v,
    int q div u = 0,

the convective term left out for Stokes' equations. Where nu varies, grad u is grad u + grad u^T.
The natural condition is nu du/dn - p n = g: with ``neumann: 0`` an outlet that Poiseuille's flow
leaves as it came; a pressure P there is ``neumann: {normal: -P}``. Along a wall of
``dirichlet: {normal: 0}`` the fluid slips; where such a wall is bent du/dn would not be its
friction, so that grad u is then grad u + grad u^T everywhere. Where every side gives what passes
through it p is that of zero mean. The pair is stable, of third order in u and second in p (Boffi,
Brezzi and Fortin 2013, chapter 8).

On an axisymmetric mesh u is the velocity along the radius r = x, v that along the axis, both the
same all round: int (nu u / r - p) v_r / r and int q u / r are added. On the axis give u = 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sciml.core.errors import InputError
from sciml.core.problem.dispatch import estimates_memory
from sciml.core.problem.equation import COMPONENTS, NavierStokes, Stokes
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Coefficient, Problem
from sciml.core.problem.quadrature import on_facets
from sciml.core.problem.reader import Normal, free_names, state_names
from sciml.discretization.elements.boundary import facets_of
from sciml.discretization.elements.data import mesh_data
from sciml.discretization.elements.laws import (
    Balance,
    Law,
    Point,
    Stated,
    balances,
    is_zero,
    of_vector,
)
from sciml.discretization.elements.scalar import memory_on_mesh


@dataclass(frozen=True)
class MomentumLaw(Law):
    """F = nu grad u_i - p e_i, s = force_i - (u . grad) u_i of component i."""

    component: int
    axes: tuple[str, ...]
    viscosity: Coefficient
    force: Coefficient
    carried: bool
    known: frozenset[str]
    key: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    around: bool = False
    bent: bool = False

    @property
    def _turns(self) -> bool:
        return self.around and self.component == 0

    @property
    def _velocity(self) -> tuple[str, ...]:
        return COMPONENTS[: len(self.axes)]

    @property
    def _symmetric(self) -> bool:
        varies = bool(free_names(self.viscosity, self.parameters) - self.parameters.keys())
        return varies or self.bent

    @property
    def coefficients(self) -> Sequence[tuple[Coefficient, str]]:
        """All that is read, with keys."""
        force = (self.force, f"{self.key}.force.{self.component}")
        return [(self.viscosity, f"{self.key}.viscosity"), force]

    @property
    def flux_names(self) -> frozenset[str]:
        """Which fields and slopes F changes with."""
        own, axis = self._velocity[self.component], self.axes[self.component]
        found = {"p", *(f"{own}{a}" for a in self.axes)}
        if self._symmetric:
            found |= {f"{u}{axis}" for u in self._velocity}
        return frozenset(found) | (free_names(self.viscosity, self.parameters) & self.known)

    @property
    def source_names(self) -> frozenset[str]:
        """Which fields and slopes s changes with."""
        own, found = self._velocity[self.component], free_names(self.force, self.parameters)
        carried = {*self._velocity, *(f"{own}{a}" for a in self.axes)} if self.carried else set()
        turned = {own, "p"} | (free_names(self.viscosity, self.parameters) & self.known)
        return (found & self.known) | carried | (turned if self._turns else set())

    @property
    def affine(self) -> bool:
        """Of Stokes' equations with coefficients that name no field."""
        named = free_names((self.viscosity, self.force), self.parameters) & self.known
        return not (self.carried or named)

    def at(self, point: Point) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """F and s at the points."""
        own, state = self._velocity[self.component], point.state
        nu = point.read(self.viscosity, f"{self.key}.viscosity")
        if not bool((nu > 0).all()):
            raise InputError("viscosity must be positive everywhere", f"{self.key}.viscosity")
        flux = [nu * state[f"{own}{axis}"] for axis in self.axes]
        if self._symmetric:
            axis = self.axes[self.component]
            flux = [f + nu * state[f"{u}{axis}"] for f, u in zip(flux, self._velocity, strict=True)]
        flux[self.component] = flux[self.component] - state["p"]
        source = point.read(self.force, f"{self.key}.force.{self.component}")
        if self.carried:
            for u, axis in zip(self._velocity, self.axes, strict=True):
                source = source - state[u] * state[f"{own}{axis}"]
        if self._turns:
            r = point.part.points[0]
            hoop = (2 if self._symmetric else 1) * nu * state[own] / r
            source = source + (state["p"] - hoop) / r
        return tuple(flux), source


@dataclass(frozen=True)
class ContinuityLaw(Law):
    """F = 0, s = div u: minus its weak form makes the whole symmetric."""

    axes: tuple[str, ...]
    around: bool = False
    coefficients: Sequence[tuple[Coefficient, str]] = ()
    flux_names: frozenset[str] = frozenset()
    affine: bool = True

    @property
    def source_names(self) -> frozenset[str]:
        """The slopes along their own axes, and what goes round."""
        slopes = frozenset(f"{u}{a}" for u, a in zip(COMPONENTS, self.axes, strict=False))
        return slopes | {COMPONENTS[0]} if self.around else slopes

    def at(self, point: Point) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """F and s at the points."""
        zero = torch.zeros(1, 1, dtype=torch.float64)
        slopes = [point.state[f"{u}{a}"] for u, a in zip(COMPONENTS, self.axes, strict=False)]
        if self.around:
            slopes.append(point.state[COMPONENTS[0]] / point.part.points[0])
        return (zero,) * len(self.axes), sum(slopes[1:], slopes[0])


@balances(NavierStokes, Mesh)
def _navier_stokes(
    problem: Problem, mesh: Mesh, flow: NavierStokes, name: str, fields: Sequence[str], key: str
) -> tuple[Balance, ...]:
    if "vorticity" in problem.first:
        raise InputError("on a mesh a flow starts from {u: ..., v: ...}", "problem.initial")
    if not is_zero(flow.vorticity_source):
        raise InputError("on a mesh give force, not its curl", f"{key}.vorticity_source")
    return _balances(problem, mesh, flow, True, name, fields, key)


@balances(Stokes, Mesh)
def _stokes(
    problem: Problem, mesh: Mesh, flow: Stokes, name: str, fields: Sequence[str], key: str
) -> tuple[Balance, ...]:
    return _balances(problem, mesh, flow, False, name, fields, key)


def _balances(
    problem: Problem,
    mesh: Mesh,
    flow: NavierStokes | Stokes,
    carried: bool,
    name: str,
    fields: Sequence[str],
    key: str,
) -> tuple[Balance, ...]:
    d = mesh.dimension
    if d == 1:
        raise InputError("a flow needs a mesh in 2 or 3 dimensions", "mesh")
    if mesh.degree == 1:
        raise InputError(
            "Taylor and Hood's pair has velocities of degree 2: write element: P2", "mesh.element"
        )
    force = (0.0,) * d if flow.force is None else tuple(flow.force)
    if len(force) != d:
        raise InputError(f"needs a list of {d} components, one per axis", f"{key}.force")
    axes = AXES[:d]
    known = frozenset(state_names(fields, axes))
    rate, bent = 0.0 if problem.time is None else 1.0, _bent(problem, mesh, name)
    rows = []
    for i in range(d):
        law = MomentumLaw(
            i,
            axes,
            flow.viscosity,
            force[i],
            carried,
            known,
            key,
            problem.parameters,
            mesh.axisymmetric,
            bent,
        )
        sides = of_vector(i, d, name, "a flow")
        rows.append(Balance(COMPONENTS[i], law, sides, rate, key=key, pushes=1.0))
    continuity = ContinuityLaw(axes, mesh.axisymmetric)
    pressure = Balance(
        "p",
        continuity,
        lambda side: Stated(key=side.key),
        degree=1,
        key=key,
        level_of=COMPONENTS[:d],
    )
    return (*rows, pressure)


def _bent(problem: Problem, mesh: Mesh, name: str) -> bool:
    """Whether a wall along which the fluid slips is no plane."""
    for side, condition in problem.boundary_of(name).items():
        if isinstance(condition.dirichlet, Normal):
            data = mesh_data(problem, mesh)
            numbers = facets_of(problem, data, side, f"problem.boundary.{side}")
            normal = torch.stack(list(on_facets(mesh, numbers, 2).normal.values()), -1).flatten(
                0, 1
            )
            if bool((normal @ normal[0] < 1 - 1e-12).any()):
                return True
    return False


@estimates_memory(NavierStokes, Mesh)
@estimates_memory(Stokes, Mesh)
def _memory(problem: Problem, mesh: Mesh, itemsize: int) -> int:
    return memory_on_mesh(mesh, mesh.dimension + 1)
