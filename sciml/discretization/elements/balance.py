"""Fluxes on a mesh of simplices that are in balance with the source in every element.

The mixed method (Raviart and Thomas 1977) with multipliers (Arnold and Brezzi 1985): in every
element T s in P_1^d + x P_1 and p in P_1, on every facet lambda in P_1,

    (K^-1 s, t)_T + (p, div t)_T = <lambda, n . t>_T      for all t,
    (div s - c p + f, q)_T = 0                            for all q,
    sum over both sides of <n . s, mu>_F = 0              for all mu,

on Neumann sides <h, mu> on the right, on Dirichlet sides lambda the mean of what is given there.
s and p are eliminated in every element; what is left is symmetric and positive definite in lambda.
Whatever lambda is, div s balances the source, up to its polynomials of degree 1. What an iteration
leaves of the last line, r, is a jump of normal components; tested with any e it is at most
(r . A^-1 r)^(1/2) |e|_E, A the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch

from sciml.core.algebra.maps import SparseMatrix
from sciml.core.errors import IncompatibleData, InputError
from sciml.core.problem.condition import flux_data
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import Quadrature, on_facets, whole
from sciml.discretization.elements.boundary import Side, sides
from sciml.discretization.elements.data import MeshData, evaluate, mesh_data
from sciml.discretization.elements.scalar import conductivity

_KEY = "problem.equation"
# Of the polynomials that integrals are exact for, by the dimension; and of better rules. Rules with
# points on facets (degrees 5, 6 and 8 in space) would see data that jump there from the wrong side.
_DEGREE = {1: 6, 2: 6, 3: 7}
_FINER = {1: 8, 2: 8, 3: 9}
_UNBALANCED = 1e-9  # of the sources' size, where only constants are free


@dataclass(frozen=True)
class Facets:
    """A named side: its condition, its facets as ``part``, and their ``numbers`` in the mesh."""

    side: Side
    part: Quadrature
    data: MeshData

    @property
    def numbers(self) -> np.ndarray:
        """Of its facets."""
        return self.side.numbers

    @property
    def owner(self) -> torch.Tensor:
        """The elements that they bound, (k,)."""
        owners = self.data.mesh.topology.f2t[0, self.numbers]
        return torch.from_numpy(owners.astype(np.int64))

    @property
    def area(self) -> torch.Tensor:
        """(k,)."""
        found: torch.Tensor = (self.part.scale * self.part.tables.weights).sum(-1)
        return found

    def flux(self) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha and h at the points of the facets, (k, Q) each."""
        alpha, h = flux_data(
            self.side.condition,
            self.side.key,
            lambda datum, key: evaluate(datum, self.part, self.data, key),
        )
        shape = self.part.points[0].shape
        return alpha.expand(shape), h.expand(shape)

    def held(self) -> torch.Tensor:
        """Dirichlet values at the points of the facets, (k, Q)."""
        value = evaluate(self.side.condition.dirichlet, self.part, self.data, self.side.key)
        return value.expand(self.part.points[0].shape)


@dataclass(frozen=True)
class Elements:
    """A steady diffusion problem on a mesh of straight simplices, at quadrature points.

    ``K`` (m, Q, d, d); ``c``, ``f`` (m, Q).
    """

    problem: Problem
    mesh: Mesh
    part: Quadrature
    K: torch.Tensor
    c: torch.Tensor
    f: torch.Tensor
    facets: tuple[Facets, ...]

    @property
    def data(self) -> MeshData:
        """The evaluation context."""
        return self.facets[0].data if self.facets else mesh_data(self.problem, self.mesh)

    @property
    def dimension(self) -> int:
        """Of space."""
        return self.mesh.dimension

    @cached_property
    def volume(self) -> torch.Tensor:
        """Of the elements, (m,)."""
        return self.integral(torch.ones_like(self.f))

    def integral(self, inner: torch.Tensor) -> torch.Tensor:
        """Over every element, (*lead, m), of values (*lead, m, Q)."""
        found: torch.Tensor = (inner * self.part.scale * self.part.tables.weights).sum(-1)
        return found

    def mean(self, inner: torch.Tensor) -> torch.Tensor:
        """The means over the elements, (*lead, m), of values (*lead, m, Q)."""
        found: torch.Tensor = self.integral(inner) / self.volume
        return found

    @cached_property
    def middles(self) -> torch.Tensor:
        """Of the elements, (m, d)."""
        return self.corners.mean(1)

    @cached_property
    def diameters(self) -> torch.Tensor:
        """The longest edges of the elements, (m,)."""
        gaps = (self.corners[:, :, None] - self.corners[:, None]).norm(dim=-1)
        found: torch.Tensor = gaps.flatten(1).amax(1)
        return found

    @cached_property
    def opposite(self) -> np.ndarray:
        """Of the facets of an element, as the mesh numbers them, the corner that each lacks."""
        facets = self.mesh.topology.elem.refdom.facets
        corners = range(self.dimension + 1)
        return np.array([next(c for c in corners if c not in facet) for facet in facets])

    @cached_property
    def corners(self) -> torch.Tensor:
        """(m, d + 1, d)."""
        return torch.from_numpy(self.mesh.points[self.mesh.cells])

    @cached_property
    def heights(self) -> torch.Tensor:
        """|grad lambda|^-1 of the corner opposite to every facet, (m, d + 1)."""
        found: torch.Tensor = 1 / self.slopes.norm(dim=-1)
        return found

    @cached_property
    def slopes(self) -> torch.Tensor:
        """The gradients of the barycentric coordinates opposite to the facets, (m, d + 1, d)."""
        assert self.part.inverse is not None
        d = self.dimension
        ones = torch.cat([-torch.ones(1, d), torch.eye(d)]).double()[self.opposite]
        return ones @ self.part.inverse[:, 0]


def elements_of(problem: Problem, mesh: Mesh, better: bool = False) -> Elements:
    """The data of a problem, by a ``better`` rule; raises InputError for what it cannot be."""
    data, degree = mesh_data(problem, mesh), (_FINER if better else _DEGREE)[mesh.dimension]
    part = whole(mesh, degree)
    form, shape = problem.form, part.points[0].shape
    K = conductivity(form.K, part, data)
    d = mesh.dimension
    K = K * torch.eye(d, dtype=torch.float64) if K.shape[-1] == 1 else K
    c, f = (evaluate(getattr(form, name), part, data, f"{_KEY}.{name}") for name in "cf")
    if any(v.ndim > 2 for v in (c, f)) or K.ndim > 4:
        raise InputError(
            "the certificate of the differential equation on a mesh takes one problem at a time, "
            "no batch of parameters",
            "problem.parameters",
        )
    named = sides(problem, data)
    facets = tuple(
        Facets(side, on_facets(mesh, side.numbers, degree), data)
        for side in named
        if len(side.numbers)
    )
    full = (*shape, d, d)
    return Elements(problem, mesh, part, K.expand(full), c.expand(shape), f.expand(shape), facets)


@dataclass(frozen=True)
class _Shapes:
    """What s and p are made of at points of the elements: (m, Q, n, d), (m, Q, n) and (m, Q, k).

    ``slopes`` are the divergences of ``vectors``. Coordinates are relative to the middle and the
    diameter of each element.
    """

    vectors: torch.Tensor
    slopes: torch.Tensor
    scalars: torch.Tensor

    @classmethod
    def at(cls, x: torch.Tensor, here: Elements, of: torch.Tensor | None = None) -> _Shapes:
        """At points x (m, Q, d) of the elements ``of`` these numbers, of all where None."""
        middles, sizes = here.middles, here.diameters
        if of is not None:
            middles, sizes = middles[of], sizes[of]
        y = (x - middles[:, None]) / sizes[:, None, None]
        d, h = here.dimension, sizes[:, None, None]
        one = torch.ones_like(y[..., :1])
        unit = torch.eye(d, dtype=torch.float64).expand(*y.shape[:-1], d, d)
        linear = (y[..., :, None, None] * unit[..., None, :, :]).flatten(-3, -2)
        vectors = torch.cat([unit, linear, y[..., :, None] * y[..., None, :]], -2)
        slopes = torch.cat([0 * y, unit.flatten(-2), (d + 1) * y], -1) / h
        return cls(vectors, slopes, torch.cat([one, y], -1))


@dataclass(frozen=True)
class Balance:
    """s in every element, ``coefficients`` (m, n), and ``lost``, what its jumps come to."""

    elements: Elements
    coefficients: torch.Tensor
    lost: float

    @cached_property
    def _shapes(self) -> _Shapes:
        return _Shapes.at(torch.stack(self.elements.part.points, -1), self.elements)

    @cached_property
    def inside(self) -> torch.Tensor:
        """s at the quadrature points of the elements, (m, Q, d)."""
        return torch.einsum("mqnd,mn->mqd", self._shapes.vectors, self.coefficients)

    @cached_property
    def divergence(self) -> torch.Tensor:
        """div s there, (m, Q)."""
        return torch.einsum("mqn,mn->mq", self._shapes.slopes, self.coefficients)

    def through(self, facets: Facets) -> torch.Tensor:
        """n . s at the points of a side, (k, Q)."""
        owner = facets.owner
        x = torch.stack(facets.part.points, -1)
        vectors = _Shapes.at(x, self.elements, owner).vectors
        normal = torch.stack(list(facets.part.normal.values()), -1)
        s = torch.einsum("kqnd,kn->kqd", vectors, self.coefficients[owner])
        return (s * normal).sum(-1)


@dataclass(frozen=True)
class Multipliers:
    """The equations of the multipliers: ``A`` l = ``b`` for those that are free.

    ``values``: those that are held. ``answer`` (m, n, f) and ``forced`` (m, n): s of the
    multipliers of an element, and of its source. ``rows`` (m, f): their numbers.
    """

    elements: Elements
    A: SparseMatrix
    b: torch.Tensor
    free: torch.Tensor
    values: torch.Tensor
    answer: torch.Tensor
    forced: torch.Tensor
    rows: torch.Tensor

    def balance(self, free: torch.Tensor, lost: float) -> Balance:
        """The flux of a solution (n,), of which ``lost`` is left."""
        own = self.values.index_copy(0, self.free, free)[self.rows]
        found = self.forced + (self.answer @ own[..., None])[..., 0]
        return Balance(self.elements, found, lost)


def multipliers(here: Elements) -> Multipliers:
    """The mixed method's equations of a problem.

    Raises IncompatibleData where nothing holds a constant and the sources do not sum to zero.
    """
    d, mesh = here.dimension, here.mesh
    shapes = _Shapes.at(torch.stack(here.part.points, -1), here)
    weights = here.part.scale * here.part.tables.weights
    size, inner = shapes.vectors.shape[2], shapes.scalars.shape[2]
    stiff = torch.linalg.solve(here.K, shapes.vectors.mT).mT
    M = torch.zeros(len(mesh.cells), size + inner, size + inner, dtype=torch.float64)
    M[:, :size, :size] = torch.einsum("mq,mqid,mqjd->mij", weights, shapes.vectors, stiff)
    M[:, size:, :size] = torch.einsum("mq,mqi,mqj->mij", weights, shapes.scalars, shapes.slopes)
    M[:, :size, size:] = M[:, size:, :size].mT
    M[:, size:, size:] = -torch.einsum(
        "mq,mqi,mqj->mij", weights * here.c, shapes.scalars, shapes.scalars
    )
    outer, rows = _across(here)
    right = torch.zeros(len(mesh.cells), size + inner, outer.shape[2] + 1, dtype=torch.float64)
    right[:, :size, :-1] = outer
    right[:, size:, -1] = -torch.einsum("mq,mqi->mi", weights * here.f, shapes.scalars)
    found = torch.linalg.solve(M, right)[:, :size]
    answer, forced = found[..., :-1], found[..., -1]
    local = outer.mT @ answer
    local = (local + local.mT) / 2
    count = mesh.topology.facets.shape[1] * d
    b = torch.zeros(count, dtype=torch.float64)
    b.index_add_(0, rows.flatten(), -(outer.mT @ forced[..., None]).flatten())
    i = rows[:, :, None].expand_as(local).flatten()
    j = rows[:, None, :].expand_as(local).flatten()
    entries, places = [local.flatten()], [(i, j)]
    held, values = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.float64)
    robin = False
    for facets in here.facets:
        basis, numbers = _on_facets(facets, here)
        weight = facets.part.scale * facets.part.tables.weights
        mass = torch.einsum("kq,kqi,kqj->kij", weight, basis, basis)
        if facets.side.condition.kind == "dirichlet":
            given = torch.einsum("kq,kqi->ki", weight * facets.held(), basis)
            held[numbers.flatten()] = True
            values[numbers.flatten()] = torch.linalg.solve(mass, given[..., None]).flatten()
            continue
        alpha, h = facets.flux()
        b.index_add_(0, numbers.flatten(), torch.einsum("kq,kqi->ki", weight * h, basis).flatten())
        if bool((alpha > 0).any()):
            robin = True
            extra = torch.einsum("kq,kqi,kqj->kij", weight * alpha, basis, basis)
            entries.append(extra.flatten())
            places.append((numbers[:, :, None].expand_as(extra).flatten(),
                           numbers[:, None, :].expand_as(extra).flatten()))  # fmt: skip
    at = tuple(torch.cat(part).numpy() for part in zip(*places, strict=True))
    A = sp.coo_matrix((torch.cat(entries).numpy(), at), shape=(count, count)).tocsr()
    free = torch.nonzero(~held)[:, 0]
    kept = A[free.numpy()][:, free.numpy()]
    b = (b - torch.from_numpy(A @ values.numpy()))[free]
    singular = not bool(held.any()) and not robin and not bool((here.c > 0).any())
    if singular and abs(float(b.sum())) > _UNBALANCED * float(b.abs().sum()):
        raise IncompatibleData(
            "nothing holds a constant, and what the sources bring does not leave by the sides"
        )
    b = b - b.mean() if singular else b
    matrix = SparseMatrix(kept, symmetric=True, definite=not singular, nullspace=singular)
    return Multipliers(here, matrix, b, free, values, answer, forced, rows)


def _across(here: Elements) -> tuple[torch.Tensor, torch.Tensor]:
    """<n . t, mu> of every element, (m, n, f), and the numbers of its mu, (m, f).

    mu are the barycentric coordinates of a facet.
    """
    mesh, found, numbers = here.mesh, [], []
    rows = torch.from_numpy(mesh.topology.t2f.T.astype(np.int64))
    every = on_facets(mesh, np.arange(mesh.topology.facets.shape[1]), _DEGREE[mesh.dimension])
    x = torch.stack(every.points, -1)
    weights = every.scale * every.tables.weights
    basis, numbered = _of_facets(every, mesh)
    for k in range(rows.shape[1]):
        own = rows[:, k]
        normal = -here.slopes[:, k] * here.heights[:, k, None]
        vectors = _Shapes.at(x[own], here).vectors
        across = torch.einsum("mqnd,md->mqn", vectors, normal)
        found.append(torch.einsum("mq,mqn,qf->mnf", weights[own], across, basis))
        numbers.append(numbered[own])
    return torch.cat(found, -1), torch.cat(numbers, -1)


def _of_facets(part: Quadrature, mesh: Mesh) -> tuple[torch.Tensor, torch.Tensor]:
    """mu at a facet's points (Q, f), and their numbers (facets, f) for all facets of the mesh."""
    count, points = mesh.topology.facets.shape[1], part.tables.points
    basis = torch.cat([1 - points.sum(1, keepdim=True), points], 1)
    size = basis.shape[1]
    return basis, torch.arange(count * size).reshape(count, size)


def _on_facets(facets: Facets, here: Elements) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of a side: (k, Q, f) and (k, f)."""
    basis, numbers = _of_facets(facets.part, here.mesh)
    own = numbers[torch.from_numpy(facets.numbers.astype(np.int64))]
    return basis.expand(len(own), *basis.shape), own
