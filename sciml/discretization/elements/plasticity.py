"""J2 plasticity on a mesh: small strains, von Mises' yield surface, by radial return.

    -div sigma = force,     sigma = C : (e - e_p),     e = (grad u + grad u^T) / 2,
    q(s - beta) <= y + H p,     beta = 2/3 H' e_p,     q(s) = sqrt(3/2 s : s),  s = dev sigma,

e_p and the accumulated plastic strain p growing as dp/dt 3/2 (s - beta) / q, dp/dt >= 0, where the
body flows. A step of backward Euler from e_p and p to the strain e has a closed form (Wilkins 1964;
Simo and Hughes 1998, box 3.2): with the trial xi = 2 mu (dev e - e_p) - 2/3 H' e_p,

    dp = max(0, q(xi) - y - H p) / (3 mu + H + H'),     e_p <- e_p + dp 3/2 xi / q(xi),

at every quadrature point by itself. Its derivative by e is the consistent tangent (Simo and Taylor
1985), taken by differentiating these lines, so that Newton's method is quadratic. Internal
variables at a point are e_p, of the pairs xx, yy, zz, xy and in space yz, xz, and p.

Elsewhere than at these points a stress is Hooke's in elements that never flowed, in others the
polynomial of one degree less than the displacement that is nearest to those at the points. On a
mesh that is revolved about x = 0 the strain across it is u / r, and -sigma_zz / r, that of the
hoop, is among the forces along r.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.errors import InputError
from sciml.core.problem.dispatch import estimates_memory, semidiscretises
from sciml.core.problem.equation import COMPONENTS, Plasticity
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh, basis_at, reference
from sciml.core.problem.problem import Coefficient, Problem
from sciml.core.problem.quadrature import Quadrature
from sciml.core.problem.reader import free_names, state_names
from sciml.core.run.status import Doubt
from sciml.discretization.elements.boundary import Fixed
from sciml.discretization.elements.data import evaluate
from sciml.discretization.elements.elasticity import PAIRS, check_held, rigid_motions
from sciml.discretization.elements.galerkin import Galerkin
from sciml.discretization.elements.laws import (
    Balance,
    Law,
    Point,
    Recall,
    balances,
    is_zero,
    of_vector,
)
from sciml.discretization.elements.scalar import memory_on_mesh

_MODULI = "moduli of a metal"  # among what a point has read
_IN_PLANE = 4  # of PAIRS: those that a plane body has
_LOCKS = Doubt(
    "elements of degree 1 are too stiff where a body flows without a change of volume: take "
    "element: P2, or Q2"
)


@dataclass(frozen=True)
class Returned:
    """What a step leads to: entries (..., n) by pairs, and p (...)."""

    stress: torch.Tensor
    plastic: torch.Tensor
    accumulated: torch.Tensor


@dataclass(frozen=True)
class MisesLaw(Law):
    """F the row ``component`` of the stress, s the same of the force.

    ``revolved``: whether the mesh is.
    """

    component: int
    axes: tuple[str, ...]
    solid: Plasticity
    known: frozenset[str]
    key: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    revolved: bool = False

    @property
    def _force(self) -> tuple[Coefficient, str]:
        force = self.solid.force
        given = 0.0 if force is None else force[self.component]
        return given, f"{self.key}.force.{self.component}"

    @property
    def coefficients(self) -> Sequence[tuple[Coefficient, str]]:
        """All that is read, with keys."""
        names = ("young", "poisson_ratio", "yield_stress", "hardening", "kinematic_hardening")
        return [*((getattr(self.solid, n), f"{self.key}.{n}") for n in names), self._force]

    def _named(self, *coefficients: Coefficient) -> frozenset[str]:
        return free_names(coefficients, self.parameters) & self.known

    @property
    def flux_names(self) -> frozenset[str]:
        """Which fields and slopes F changes with."""
        slopes = {f"{u}{a}" for u in COMPONENTS[: len(self.axes)] for a in self.axes}
        hoop = {COMPONENTS[0]} if self.revolved else set()
        return frozenset(slopes | hoop) | self._named(*(c for c, _ in self.coefficients[:-1]))

    @property
    def source_names(self) -> frozenset[str]:
        """Which fields and slopes s changes with."""
        own = self._named(self._force[0])
        return own | self.flux_names if self.revolved and self.component == 0 else own

    @property
    def affine(self) -> bool:
        """No."""
        return False

    def at(self, point: Point) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """F and s at the points."""
        if "returned" not in point.shared:
            point.shared["returned"] = self.returned(point)
        stress, i = point.shared["returned"].stress, self.component
        row = [stress[..., _place(i, a)] for a in range(len(self.axes))]
        source = point.read(*self._force)
        if self.revolved and i == 0:
            source = source - stress[..., _place(2, 2)] / point.part.points[0]
        return tuple(row), source

    def strain(self, point: Point) -> torch.Tensor:
        """The strain, entries (*batch, k, Q, n)."""
        d, state = len(self.axes), point.state
        slope = [[state[f"{u}{a}"] for a in self.axes] for u in COMPONENTS[:d]]
        across = state["u"] / point.part.points[0] if self.revolved else torch.zeros(())
        entries = [
            across if d == 2 and i == 2 else (slope[i][j] + slope[j][i]) / 2
            for i, j in list(PAIRS.values())[: _IN_PLANE if d == 2 else None]
        ]
        return torch.stack(list(torch.broadcast_tensors(*entries)), -1)

    def returned(self, point: Point) -> Returned:
        """The return to the yield surface; without a history Hooke's law."""
        first, second, limit, hardening, kinematic = self._moduli(point)
        e = self.strain(point)
        volume = e[..., :3].sum(-1, keepdim=True)
        one = torch.zeros(e.shape[-1], dtype=torch.float64)
        one[:3] = 1.0
        deviator = e - volume / 3 * one
        pressed = (first + 2 / 3 * second) * volume * one
        if point.history is None:
            zero = torch.zeros_like(deviator)
            return Returned(pressed + 2 * second * deviator, zero, zero[..., 0])
        plastic, p = point.history[..., :-1], point.history[..., -1]
        xi = 2 * second * (deviator - plastic) - 2 / 3 * kinematic * plastic
        twice = torch.ones(e.shape[-1], dtype=torch.float64)
        twice[3:] = 2.0
        square = 1.5 * (twice * xi.square()).sum(-1)
        limit = (limit + hardening * p[..., None])[..., 0]
        flows = square > limit.square()
        # Where nothing flows the root, whose slope at zero is infinite, is of another number.
        q = torch.where(flows, square, 1.0).sqrt()
        resisting = (3 * second + hardening + kinematic)[..., 0]
        step = torch.where(flows, (q - limit) / resisting, 0.0)
        flow = (1.5 * step / q)[..., None] * xi
        stress = pressed + 2 * second * (deviator - plastic - flow)
        return Returned(stress, plastic + flow, p + step)

    def recalled(self, point: Point) -> torch.Tensor:
        """The internal variables after a step, (*batch, k, Q, n + 1)."""
        found = self.returned(point)
        return torch.cat([found.plastic, found.accumulated[..., None]], -1)

    def _moduli(self, point: Point) -> tuple[torch.Tensor, ...]:
        """Lambda, mu, y, H and H', (..., 1) each; read once where they name no state."""
        if self._named(*(c for c, _ in self.coefficients[:-1])):
            return self._read(point).unbind()
        if _MODULI not in point.known:
            point.known[_MODULI] = self._read(point)
        return point.known[_MODULI].unbind()

    def _read(self, point: Point) -> torch.Tensor:
        """The five, one upon another; raises InputError for bad ones."""
        found = [point.read(c, key) for c, key in self.coefficients[:-1]]
        E, nu, limit, hardening, kinematic = found
        if not bool((E > 0).all()) or not bool(((nu > -1) & (nu < 0.5)).all()):
            raise InputError(
                "young must be positive, and poisson_ratio between -1 and 0.5, both excluded",
                f"{self.key}.young",
            )
        if not bool((limit > 0).all()):
            raise InputError(
                f"yield_stress must be positive; it is {float(limit.min()):.3g} somewhere",
                f"{self.key}.yield_stress",
            )
        for name, value in (("hardening", hardening), ("kinematic_hardening", kinematic)):
            if not bool((value >= 0).all()):
                raise InputError(
                    f"{name} is {float(value.min()):.3g} somewhere: a body that softens gives way "
                    "in a band as thin as the elements are, and has no answer that finer ones "
                    "tend to; give 0 or more",
                    f"{self.key}.{name}",
                )
        first, second = E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))
        moduli = torch.broadcast_tensors(first, second, limit, hardening, kinematic)
        return torch.stack(list(moduli))[..., None]


def _place(i: int, j: int) -> int:
    """Which of PAIRS the entry i, j of a symmetric tensor is."""
    return list(PAIRS.values()).index((min(i, j), max(i, j)))


def tensor(entries: torch.Tensor) -> torch.Tensor:
    """Entries by pairs (..., n) as (..., 9), row by row."""
    zero = torch.zeros_like(entries[..., 0])
    known = [entries[..., k] for k in range(entries.shape[-1])]
    known += [zero] * (len(PAIRS) - len(known))
    return torch.stack([known[_place(i, j)] for i in range(3) for j in range(3)], -1)


def spread(made: Galerkin, values: torch.Tensor, part: Quadrature) -> torch.Tensor:
    """Values (*lead, k, Q) at a form's own points at those of a part, (*lead, l, R)."""
    own = made.cells
    mine = values if part.members is None else values[..., part.members, :]
    if torch.equal(own.tables.points, part.tables.points):
        return mine
    weight = own.tables.weights.sqrt()[:, None]
    here, there = (_low(made.mesh, p.tables.points.numpy()) for p in (own, part))
    carried = there @ torch.linalg.pinv(weight * here) * weight[:, 0]
    found: torch.Tensor = mine @ carried.T
    return found


def _low(mesh: Mesh, points: np.ndarray) -> torch.Tensor:
    """A basis of one degree less at points (Q, d) of the reference element, (Q, N)."""
    if mesh.degree == 1 and mesh.kind.simplex:
        return torch.ones(len(points), 1, dtype=torch.float64)
    return torch.from_numpy(basis_at(reference(mesh, 1), points.T)[0].copy())


def at_points(
    made: Galerkin,
    what: Callable[[Returned], torch.Tensor],
    part: Quadrature,
    value: torch.Tensor,
    t: float,
) -> torch.Tensor:
    """What a return leads to, (k, Q, c) of it, at the points of a part, (*batch, c, l, R)."""
    law = made.balances[0].law
    assert isinstance(law, MisesLaw)
    own = law.returned(made.point(made.cells, value, t))
    elastic = what(law.returned(made.point(part, value, float(t))))
    found = spread(made, what(own).movedim(-1, -3), part)
    yielded = own.accumulated.amax(-1) > 0
    yielded = yielded if part.members is None else yielded[..., part.members]
    return torch.where(yielded[..., None, :, None], found, elastic.movedim(-1, -3))


def strain_at(made: Galerkin, part: Quadrature, value: torch.Tensor, t: float) -> torch.Tensor:
    """The strain at the points of a part, (*batch, 9, l, R)."""
    law = made.balances[0].law
    assert isinstance(law, MisesLaw)
    return tensor(law.strain(made.point(part, value, float(t)))).movedim(-1, -3)


@balances(Plasticity, Mesh)
def _of_metal(
    problem: Problem, mesh: Mesh, solid: Plasticity, name: str, fields: Sequence[str], key: str
) -> tuple[Balance, ...]:
    d = mesh.dimension
    if d == 1:
        raise InputError("a solid needs a mesh in 2 or 3 dimensions", "mesh")
    if solid.force is not None and len(solid.force) != d:
        raise InputError(f"needs a list of {d} components, one per axis", f"{key}.force")
    axes = AXES[:d]
    known = frozenset(state_names(fields, axes))
    laws = [
        MisesLaw(i, axes, solid, known, key, problem.parameters, mesh.axisymmetric)
        for i in range(d)
    ]
    count = (_IN_PLANE if d == 2 else len(PAIRS)) + 1
    return tuple(
        Balance(
            COMPONENTS[i],
            law,
            of_vector(i, d, name, "a solid"),
            key=key,
            pushes=-1.0,
            recall=Recall(count, law.recalled, law.strain),
        )
        for i, law in enumerate(laws)
    )


@semidiscretises(Plasticity, Mesh)
def semidiscretize_metal(
    problem: Problem, mesh: Mesh, *, dtype: torch.dtype, device: torch.device
) -> NonlinearSystem:
    """F(u, t; h) = 0, its states with what the body remembers; float64 on the CPU.

    Raises InputError for a body that is free to move, and for data that no metal has.
    """
    made = Galerkin(problem, mesh)
    system = made.system()
    # Of a body of revolution only the shift along its axis strains nothing.
    motions = rigid_motions(mesh)
    free = motions[:, 1:2] if mesh.axisymmetric else motions
    nowhere = torch.zeros(len(made.fixed_mask), dtype=torch.float64)
    check_held(mesh, Fixed(made.fixed_mask, nowhere), _springs(made), free)
    locks = (_LOCKS,) if mesh.degree == 1 else ()
    return replace(system, notes=(*system.notes, *locks))


def _springs(made: Galerkin) -> list[tuple[Quadrature, torch.Tensor]]:
    """The sides with springs, and these as matrices (*batch, k, Q, d, d)."""
    found, data = [], made.data.at_time(made.start)
    for side in made.sides:
        stated = [made.stated[name, side.name] for name in made.names]
        if all(is_zero(s.alpha) for s in stated):
            continue
        alphas = [evaluate(s.alpha, side.facets, data, s.alpha_key) for s in stated]
        shape = side.facets.points[0].shape
        alphas = [a.expand(torch.broadcast_shapes(a.shape, shape)) for a in alphas]
        found.append((side.facets, torch.diag_embed(torch.stack(alphas, -1))))
    return found


@estimates_memory(Plasticity, Mesh)
def _memory(problem: Problem, mesh: Mesh, itemsize: int) -> int:
    return memory_on_mesh(mesh, mesh.dimension)
