"""Solids beyond one steady linear system: in time, heated by a field, and deformed far.

    density u_tt - div sigma = force                                       (Elasticity)
    sigma = lambda tr(e) 1 + 2 mu e,    e = (grad u + grad u^T) / 2 - thermal_strain 1,

    density u_tt - div P = force,    F = 1 + grad u,    J = det F            (Hyperelasticity)
    P = mu (F - F^-T) + lambda ln(J) F^-T,

the compressible neo-Hookean solid of the energy mu/2 (tr F^T F - 3) - mu ln J + lambda/2 (ln J)^2
(Bonet and Wood 2008, 6.4.3), in the coordinates of the body at rest; P is the first Piola-Kirchhoff
stress, and tractions are forces per area at rest. Both are presets of the general form. A steady
linear solid by itself is one linear system: :mod:`sciml.discretization.elements.elasticity`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sciml.core.errors import InputError
from sciml.core.problem.dispatch import estimates_memory, semidiscretises
from sciml.core.problem.equation import COMPONENTS, Elasticity, Hyperelasticity
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Coefficient, Problem
from sciml.core.problem.reader import free_names, state_names
from sciml.discretization.elements import orthotropic
from sciml.discretization.elements.elasticity import check_plane
from sciml.discretization.elements.galerkin import semidiscretize_on_mesh
from sciml.discretization.elements.laws import (
    Balance,
    Law,
    Point,
    balances,
    of_vector,
)
from sciml.discretization.elements.scalar import memory_on_mesh


@dataclass(frozen=True)
class SolidLaw(Law):
    """F the row ``component`` of a stress, s the same of the force; a leaf gives the stress."""

    component: int
    axes: tuple[str, ...]
    equation: Any
    known: frozenset[str]
    key: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def _force(self) -> tuple[Coefficient, str]:
        force = self.equation.force
        given = 0.0 if force is None else force[self.component]
        return given, f"{self.key}.force.{self.component}"

    @property
    def _moduli(self) -> list[tuple[Coefficient, str]]:
        names = ("young", "poisson_ratio")
        return [(getattr(self.equation, name), f"{self.key}.{name}") for name in names]

    @property
    def coefficients(self) -> Sequence[tuple[Coefficient, str]]:
        """All that is read, with keys."""
        return [*self._moduli, self._force]

    @property
    def flux_names(self) -> frozenset[str]:
        """Which fields and slopes F changes with."""
        slopes = {f"{u}{a}" for u in COMPONENTS[: len(self.axes)] for a in self.axes}
        return frozenset(slopes) | self._named(*(c for c, _ in self.coefficients[:-1]))

    @property
    def source_names(self) -> frozenset[str]:
        """Which fields and slopes s changes with."""
        return self._named(self._force[0])

    def _named(self, *coefficients: Coefficient) -> frozenset[str]:
        return free_names(coefficients, self.parameters) & self.known

    def _lame(self, point: Point) -> tuple[torch.Tensor, torch.Tensor]:
        E, nu = (point.read(value, key) for value, key in self._moduli)
        if not bool((E > 0).all()) or not bool(((nu > -1) & (nu < 0.5)).all()):
            raise InputError(
                "young must be positive, and poisson_ratio between -1 and 0.5, both excluded",
                f"{self.key}.young",
            )
        return E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))

    def _gradient(self, point: Point) -> list[list[torch.Tensor]]:
        return [[point.state[f"{u}{a}"] for a in self.axes] for u in COMPONENTS[: len(self.axes)]]

    def at(self, point: Point) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """F and s at the points."""
        return self._row(point), point.read(*self._force)

    @abstractmethod
    def _row(self, point: Point) -> tuple[torch.Tensor, ...]:
        """The row of the stress."""

    @abstractmethod
    def stress(self, point: Point) -> torch.Tensor:
        """Cauchy's stress at the points, (*batch, k, Q, 3, 3)."""

    @abstractmethod
    def strain(self, point: Point) -> torch.Tensor:
        """The strain, (*batch, k, Q, 3, 3)."""


@dataclass(frozen=True)
class HookeLaw(SolidLaw):
    """sigma = lambda tr(e) 1 + 2 mu e."""

    @property
    def coefficients(self) -> Sequence[tuple[Coefficient, str]]:
        """All that is read, with keys."""
        heat = (self.equation.thermal_strain, f"{self.key}.thermal_strain")
        more = [(getattr(self.equation, n), f"{self.key}.{n}") for n in ("shear", "angle", "frame")]
        return [*self._moduli, heat, *more, self._force]

    @property
    def affine(self) -> bool:
        """Whether no coefficient names a field."""
        return not self._named(*(c for c, _ in self.coefficients))

    def _orthotropic(self, point: Point) -> tuple[torch.Tensor, ...]:
        d, i, slope = len(self.axes), self.component, self._gradient(point)
        C = orthotropic.stiffness(self.equation, point.read, self.key, d)
        free = orthotropic.free_strain(self.equation, point.read, self.key, d)
        thin = self.equation.plane == "stress" and d == 2
        own = orthotropic.in_plane(C, True) if thin else C
        row = []
        for a in range(d):
            terms = [
                own[..., i, a, b, c] * ((slope[b][c] + slope[c][b]) / 2 - free[..., b, c])
                for b in range(d)
                for c in range(d)
            ]
            if d == 2 and not thin:
                terms.append(-own[..., i, a, 2, 2] * free[..., 2, 2])
            row.append(sum(terms[1:], terms[0]))
        return tuple(row)

    def _row(self, point: Point) -> tuple[torch.Tensor, ...]:
        if self.equation.orthotropic:
            return self._orthotropic(point)
        first, second = self._lame(point)
        heat = point.read(*self.coefficients[2])
        thin = self.equation.plane == "stress" and len(self.axes) == 2
        bulk = 2 * second + (2 if thin else 3) * first
        if thin:
            first = 2 * first * second / (first + 2 * second)
            bulk = 2 * second + 2 * first
        slope, i = self._gradient(point), self.component
        trace = sum((slope[k][k] for k in range(1, len(self.axes))), slope[0][0])
        row = [second * (slope[i][a] + slope[a][i]) for a in range(len(self.axes))]
        row[i] = row[i] + first * trace - bulk * heat
        return tuple(row)

    def stress(self, point: Point) -> torch.Tensor:
        """In plane strain sigma_zz is that which holds eps_zz at zero; in plane stress it is 0."""
        d, (first, second) = len(self.axes), self._lame(point)
        rows = [replace(self, component=i)._row(point) for i in range(d)]
        if d == 2 and self.equation.plane == "stress":
            return _in_space(rows, torch.zeros((), dtype=torch.float64))
        slope, heat = self._gradient(point), point.read(*self.coefficients[2])
        trace = sum((slope[k][k] for k in range(1, d)), slope[0][0])
        return _in_space(rows, first * trace - (2 * second + 3 * first) * heat)

    def strain(self, point: Point) -> torch.Tensor:
        """(grad u + grad u^T) / 2; in plane stress eps_zz is what sigma_zz = 0 makes it."""
        slope, d = self._gradient(point), len(self.axes)
        rows = [[(slope[i][a] + slope[a][i]) / 2 for a in range(d)] for i in range(d)]
        across = torch.zeros((), dtype=torch.float64)
        if d == 2 and self.equation.plane == "stress":
            first, second = self._lame(point)
            heat = point.read(*self.coefficients[2])
            trace = rows[0][0] + rows[1][1]
            across = ((2 * second + 3 * first) * heat - first * trace) / (first + 2 * second)
        return _in_space(rows, across)


@dataclass(frozen=True)
class NeoHookeLaw(SolidLaw):
    """P = mu (F - F^-T) + lambda ln(J) F^-T."""

    @property
    def affine(self) -> bool:
        """No."""
        return False

    def _row(self, point: Point) -> tuple[torch.Tensor, ...]:
        first, second = self._lame(point)
        F, i = self._deformed(point), self.component
        cofactor, J = _cofactors(F)
        # Beyond J = 0 there is no answer: the line search is told by a number that is none.
        volume = torch.log(J)
        return tuple(
            second * (F[i][a] - cofactor[i][a] / J) + first * volume * cofactor[i][a] / J
            for a in range(len(self.axes))
        )

    def _deformed(self, point: Point) -> list[list[torch.Tensor]]:
        F = self._gradient(point)
        for k in range(len(self.axes)):
            F[k][k] = 1 + F[k][k]
        return F

    def stress(self, point: Point) -> torch.Tensor:
        """P F^T / J; in the plane sigma_zz is lambda ln(J) / J."""
        first, _ = self._lame(point)
        F, d = self._deformed(point), len(self.axes)
        P = [replace(self, component=i)._row(point) for i in range(d)]
        J = _cofactors(F)[1]
        rows = [
            [sum((P[i][b] * F[a][b] for b in range(1, d)), P[i][0] * F[a][0]) / J for a in range(d)]
            for i in range(d)
        ]
        return _in_space(rows, first * torch.log(J) / J)

    def strain(self, point: Point) -> torch.Tensor:
        """Green and Lagrange's, (F^T F - 1) / 2."""
        F, d = self._deformed(point), len(self.axes)
        rows = [
            [
                (sum((F[k][i] * F[k][a] for k in range(1, d)), F[0][i] * F[0][a]) - (i == a)) / 2
                for a in range(d)
            ]
            for i in range(d)
        ]
        return _in_space(rows, torch.zeros((), dtype=torch.float64))


def _in_space(rows: Sequence[Sequence[torch.Tensor]], across: torch.Tensor) -> torch.Tensor:
    """The tensor (..., 3, 3) of d rows; of a plane one ``across`` is its zz."""
    whole = [list(row) for row in rows]
    if len(whole) == 2:
        zero = torch.zeros((), dtype=torch.float64)
        whole = [[*row, zero] for row in whole] + [[zero, zero, across]]
    entries = torch.broadcast_tensors(*(entry for row in whole for entry in row))
    found: torch.Tensor = torch.stack(list(entries), -1).unflatten(-1, (3, 3))
    return found


def _cofactors(F: list[list[torch.Tensor]]) -> tuple[list[list[torch.Tensor]], torch.Tensor]:
    """det F F^-T and det F of 2 x 2 or 3 x 3 matrices by entries."""
    if len(F) == 2:
        (a, b), (c, d) = F
        return [[d, -c], [-b, a]], a * d - b * c
    rows = []
    for i in range(3):
        p, q = F[(i + 1) % 3], F[(i + 2) % 3]
        rows.append([p[(j + 1) % 3] * q[(j + 2) % 3] - p[(j + 2) % 3] * q[(j + 1) % 3]
                     for j in range(3)])  # fmt: skip
    return rows, sum((F[0][j] * rows[0][j] for j in (1, 2)), F[0][0] * rows[0][0])


@balances(Elasticity, Mesh)
def _hooke(
    problem: Problem, mesh: Mesh, solid: Elasticity, name: str, fields: Sequence[str], key: str
) -> tuple[Balance, ...]:
    check_plane(solid, mesh, key)
    return _balances(problem, mesh, solid, HookeLaw, name, fields, key)


@balances(Hyperelasticity, Mesh)
def _neo_hooke(
    problem: Problem, mesh: Mesh, solid: Hyperelasticity, name: str, fields: Sequence[str], key: str
) -> tuple[Balance, ...]:
    return _balances(problem, mesh, solid, NeoHookeLaw, name, fields, key)


def _balances(
    problem: Problem,
    mesh: Mesh,
    solid: Elasticity | Hyperelasticity,
    law: type[SolidLaw],
    name: str,
    fields: Sequence[str],
    key: str,
) -> tuple[Balance, ...]:
    d = mesh.dimension
    if d == 1:
        raise InputError("a solid needs a mesh in 2 or 3 dimensions", "mesh")
    if mesh.axisymmetric:
        raise InputError(
            "on an axisymmetric mesh only steady linear solids are solved", "mesh.axisymmetric"
        )
    if solid.force is not None and len(solid.force) != d:
        raise InputError(f"needs a list of {d} components, one per axis", f"{key}.force")
    axes = AXES[:d]
    known = frozenset(state_names(fields, axes))
    density = 0.0 if problem.time is None else solid.density
    return tuple(
        Balance(
            COMPONENTS[i],
            law(i, axes, solid, known, key, problem.parameters),
            of_vector(i, d, name, "a solid"),
            m=density,
            key=key,
            pushes=-1.0,
        )
        for i in range(d)
    )


semidiscretises(Elasticity, Mesh)(semidiscretize_on_mesh)
semidiscretises(Hyperelasticity, Mesh)(semidiscretize_on_mesh)


@estimates_memory(Hyperelasticity, Mesh)
def _memory(problem: Problem, mesh: Mesh, itemsize: int) -> int:
    return memory_on_mesh(mesh, mesh.dimension)
