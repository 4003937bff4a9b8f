"""Where collocation draws its points, whatever the domain is: a :class:`Region`.

A region says which points lie in it, draws uniform ones inside and on every named side, with the
outward normal there, and knows its volume and the measures of its sides:

    a box, or what an obstacle leaves of it;
    shapes, their unions and differences (:class:`~sciml.core.problem.body.Body`): a domain of the
    kind ``shapes``, or those that a mesh was made of, whose round sides are then round;
    a mesh: points uniform in its elements and on its facets, in curved ones by the Jacobian.

A hole is the level set phi of a condition, negative inside. Points inside the domain are those of
the box with phi > 0, others drawn in the place of those in the hole. Points of the rim are the
nearest of many by |phi| / |grad phi|, a thin shell about it and so even along it, moved onto it by
Newton's method, x <- x - phi grad phi / |grad phi|^2. The normal is that out of the domain, into
the hole: -grad phi / |grad phi|.

What must vanish on the rim and be smooth beside it, the factor of a function with its data built
in, is phi with Rvachev's functions in the place of max and min (Rvachev 1963; Sukumar and
Srivastava 2022), over its largest value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.body import Body
from sciml.core.problem.expression import Expression, level_set
from sciml.core.problem.grid import Box
from sciml.core.problem.mesh import Mesh, basis_at, shape_of
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import Quadrature, on_facets, whole
from sciml.core.problem.reader import Unknown, expression, free_names
from sciml.core.problem.solids import Face, Solids, chosen, filled
from sciml.discretization.elements.boundary import check_sides, facets_of
from sciml.discretization.elements.data import mesh_data
from sciml.discretization.points.pointwise import Pointwise

KEY = "problem.obstacle.inside"
_POOL = 20  # points for each that is wanted on the rim
_NEWTON = 40
_ROUNDS = 100  # of new points for those in the hole
_TRIED = 4096
_ROUNDING = 1e-12  # of phi's size: on the rim
_ON = 1e-9  # a point this near to a side, in lengths of the box, lies on it
_COUNTED = 2**14  # points of a rule where there is none of Gauss'
_CHUNK = 2**11  # points about which a boundary's winding is counted at once
_REST = "all"  # the sides that have no condition of their own
_BENT = 2e-2  # of a piece of a bent edge, by which the edge may leave it
_PIECES = 8  # of a bent edge where only what lies within matters
_CANDIDATES = 12  # places of facets next to a point among which its own is
# By whether a facet is one triangle.
_TRIANGLES = {
    True: [[[0, 0], [1, 0], [0, 1]]],
    False: [[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]],
}


@dataclass(frozen=True)
class Side:
    """A part of a region's boundary.

    ``place``: uniform points (N, d) for points (N, ``free``) of the unit cube. ``normal``: out of
    the region, (N, d), at points of the part. ``rule``: points (N, d), normals (N, d) and weights
    (N,) for integrals over it, whose sum is the ``measure``.
    """

    free: int
    place: Callable[[Tensor], Tensor]
    normal: Callable[[Tensor], Tensor]
    rule: Callable[[], tuple[Tensor, Tensor, Tensor]]

    @cached_property
    def measure(self) -> float:
        """Its length, area, ..."""
        return float(self.rule()[2].sum())


class Region(ABC):
    """A domain by its points; float64."""

    @property
    @abstractmethod
    def box(self) -> Box:
        """One around it."""

    @property
    @abstractmethod
    def sides(self) -> Mapping[str, Side]:
        """Its parts of the boundary by name."""

    @property
    @abstractmethod
    def volume(self) -> float:
        """Its measure."""

    @abstractmethod
    def inside(self, cube: Tensor) -> Tensor:
        """Uniform points (N, d) for points (N, d) of the unit cube."""

    @abstractmethod
    def contains(self, points: Tensor) -> Tensor:
        """Whether points (N, d) lie in it, bool (N,); those on its sides do, up to rounding."""


@dataclass(frozen=True)
class Boxed(Region):
    """The box of a problem, or what an obstacle leaves of it."""

    data: Pointwise

    @property
    def box(self) -> Box:
        """Itself, without a hole."""
        return self.data.problem.box

    @cached_property
    def hole(self) -> Hole | None:
        """What an obstacle takes of it."""
        return hole_of(self.data)

    @cached_property
    def sides(self) -> Mapping[str, Side]:
        """By the names of the box."""
        found = {}
        for k, name in enumerate(self.box.sides):
            axis, end = divmod(k, 2)
            found[name] = self._side(axis, end)
        return found

    def _side(self, axis: int, end: int) -> Side:
        low, high = _corners(self.box)
        others = [k for k in range(len(low)) if k != axis]

        def plain(cube: Tensor) -> Tensor:
            x = (low, high)[end].expand(len(cube), -1).clone()
            x[:, others] = low[others] + cube * (high - low)[others]
            return x

        def place(cube: Tensor) -> Tensor:
            return plain(cube) if self.hole is None else self.hole.cleared(plain(cube), draw)

        def draw(count: int, generator: torch.Generator) -> Tensor:
            return plain(_random(count, len(others), generator))

        def normal(x: Tensor) -> Tensor:
            n = torch.zeros_like(x)
            n[:, axis] = 2.0 * end - 1.0
            return n

        def rule() -> tuple[Tensor, Tensor, Tensor]:
            x = plain(_even(_COUNTED, len(others)))
            w = (high - low)[others].prod().expand(len(x)) / len(x)
            if self.hole is not None:
                kept = self.hole.outside(x)
                x, w = x[kept], w[kept]
            return x, normal(x), w

        return Side(len(others), place, normal, rule)

    @cached_property
    def volume(self) -> float:
        """That of the box, less the share of Sobol's points in the hole."""
        low, high = _corners(self.box)
        whole_ = float((high - low).prod())
        if self.hole is None:
            return whole_
        x = low + _even(8 * _COUNTED, len(low)) * (high - low)
        return whole_ * float(self.hole.outside(x).double().mean())

    def inside(self, cube: Tensor) -> Tensor:
        """Those of the box, others in the place of those in the hole."""
        low, high = _corners(self.box)
        x = low + cube * (high - low)

        def draw(count: int, generator: torch.Generator) -> Tensor:
            return low + _random(count, len(low), generator) * (high - low)

        return x if self.hole is None else self.hole.cleared(x, draw)

    def contains(self, points: Tensor) -> Tensor:
        """In the box and in no hole."""
        low, high = _corners(self.box)
        slack = _ON * (high - low)
        found = ((points >= low - slack) & (points <= high + slack)).all(1)
        return found if self.hole is None else found & self.hole.outside(points)


@dataclass(frozen=True)
class Shaped(Region):
    """A body made of shapes; ``data``: those of a problem, whose conditions name its sides."""

    body: Body
    data: Pointwise

    @property
    def _solids(self) -> Solids:
        return self.body.points

    @property
    def box(self) -> Box:
        """One around it."""
        return self.body.box

    @property
    def volume(self) -> float:
        """See :mod:`sciml.core.problem.solids`."""
        return self._solids.volume

    def inside(self, cube: Tensor) -> Tensor:
        """Of the body."""
        return self._solids.inside(cube)

    def contains(self, points: Tensor) -> Tensor:
        """In the body."""
        return self._solids.contains(points)

    @cached_property
    def sides(self) -> Mapping[str, Side]:
        """Those that the conditions of the problem name; InputError where one has none."""
        given, body = self.data.problem.boundary, self._solids
        masks = {
            name: self._mask(condition.where, f"problem.boundary.{name}.where")
            for name, condition in given.items()
            if condition.where is not None
        }
        found, bare = {}, list(body.faces)
        for name in given:
            faces = self.faces_of(name)
            if name == _REST and not faces:
                continue
            if not faces and name in masks:
                faces = body.faces
            if not faces:
                known = tuple(dict.fromkeys(name for f in body.faces for name in f.names))
                raise InputError(
                    f"the domain has no side '{name}'; it has {', '.join(known)}"
                    f"{did_you_mean(name, known)}",
                    f"problem.boundary.{name}",
                )
            others = [mask for other, mask in masks.items() if other != name]
            found[name] = self._side(faces, masks.get(name), others)
            bare = [f for f in bare if f not in faces] if name not in masks else bare
        if bare and not masks:
            raise InputError(
                f"no boundary condition on {', '.join(dict.fromkeys(f.names[-1] for f in bare))}; "
                "give each side one of dirichlet, neumann, robin",
                "problem.boundary",
            )
        return found

    def faces_of(self, name: str) -> tuple[Face, ...]:
        """The faces of that name; of ``all`` those that no other condition names."""
        faces = self._solids.faces
        found = tuple(face for face in faces if name in face.names)
        if name == _REST and not found:
            found = tuple(f for f in faces if not {*f.names} & {*self.data.problem.boundary})
        return found

    def _mask(self, text: str, key: str) -> Callable[[Tensor], Tensor]:
        try:
            read = expression(text, self.data.context(solved=False))
            if not read.is_mask:
                raise InputError("where: is a condition such as x < 0.5")
        except InputError as error:
            raise InputError(error.message, key) from None
        level = level_set(read)

        def mask(points: Tensor) -> Tensor:
            return value_of(level, self.data, points) <= 0

        return mask

    def _side(
        self,
        faces: tuple[Face, ...],
        mask: Callable[[Tensor], Tensor] | None,
        others: list[Callable[[Tensor], Tensor]],
    ) -> Side:
        body, free = self._solids, self.body.dimension - 1
        sizes = torch.tensor([face.measure for face in faces], dtype=torch.float64)

        def plain(cube: Tensor) -> Tensor:
            if len(faces) == 1:
                return body.on(faces[0], cube)
            which, own = chosen(cube, sizes)
            x = cube.new_empty(len(cube), body.dimension)
            for k, face in enumerate(faces):
                x[which == k] = body.on(face, own[which == k])
            return x

        def kept(x: Tensor) -> Tensor:
            there = torch.ones(len(x), dtype=torch.bool) if mask is None else mask(x)
            for other in others:
                there = there & ~other(x)
            return there

        def place(cube: Tensor) -> Tensor:
            x = plain(cube)
            if mask is None and not others:
                return x

            def draw(count: int, generator: torch.Generator) -> Tensor:
                fresh = plain(_random(count, free, generator))
                return fresh[kept(fresh)]

            return filled(x, kept(x), draw, "where: leaves next to nothing of a side")

        def normal(x: Tensor) -> Tensor:
            if len(faces) == 1:
                return body.normal(faces[0], x)
            nearest = torch.stack([face.gap(x).abs() for face in faces]).argmin(0)
            n = torch.empty_like(x)
            for k, face in enumerate(faces):
                n[nearest == k] = body.normal(face, x[nearest == k])
            return n

        def rule() -> tuple[Tensor, Tensor, Tensor]:
            rows = [body.quadrature(face) for face in faces]
            x, n, w = (torch.cat(parts) for parts in zip(*rows, strict=True))
            there = kept(x)
            return x[there], n[there], w[there]

        return Side(free, place, normal, rule)


@dataclass(frozen=True)
class Meshed(Region):
    """The elements of a mesh, straight or curved; ``facets``: of every side that is named."""

    mesh: Mesh
    facets: Mapping[str, np.ndarray]

    @cached_property
    def box(self) -> Box:
        """One around its nodes."""
        nodes = self.mesh.nodes
        return Box(tuple(map(float, nodes.min(0))), tuple(map(float, nodes.max(0))))

    @cached_property
    def volume(self) -> float:
        """By quadrature."""
        return float(whole(self.mesh, 2 * self.mesh.degree).measure.expand(
            len(self.mesh.cells), -1).sum())  # fmt: skip

    @cached_property
    def _cells(self) -> _Elements:
        shape = shape_of(self.mesh)
        return _Elements(
            shape.element, torch.from_numpy(shape.places[shape.nodes]), self.mesh.kind.simplex,
            self.mesh.affine,
        )  # fmt: skip

    def inside(self, cube: Tensor) -> Tensor:
        """Those of the box around it, in the place of those outside others of its elements."""
        low, high = _corners(self.box)
        points = low + cube * (high - low)

        def draw(count: int, generator: torch.Generator) -> Tensor:
            return self._cells.draw(_random(count, len(low), generator), generator)[0]

        return filled(points, self.contains(points), draw, "the mesh is next to nothing of its box")

    def contains(self, points: Tensor) -> Tensor:
        """By how often the boundary goes round a point."""
        found = torch.cat([_winding(self._rim, part) > 0.5 for part in points.split(_CHUNK)])
        rows = (~found).nonzero()[:, 0]
        near = [_touches(self._rim, part, self._slack) for part in points[rows].split(_CHUNK)]
        return found.index_put((rows,), torch.cat(near)) if near else found

    @cached_property
    def _slack(self) -> float:
        """How far from its straight pieces the boundary may lie."""
        size = max(b - a for a, b in zip(self.box.lower, self.box.upper, strict=True))
        edges = (self._rim[:, 1] - self._rim[:, 0]).norm(dim=1)
        return _ON * size if self._straight else _BENT * float(edges.max())

    @property
    def _straight(self) -> bool:
        return self.mesh.affine or (self.mesh.middles is None and self.mesh.dimension == 2)

    @cached_property
    def _rim(self) -> Tensor:
        """The boundary as intervals or triangles turning outwards, (k, d, d); bent ones cut."""
        outer = self.mesh.topology.boundary_facets()
        elements = self._facets(outer)
        d, places = self.mesh.dimension, elements.places
        count = 1 if elements.affine else _PIECES
        if d == 2:
            s = torch.linspace(0, 1, count + 1, dtype=torch.float64)[:, None]
            x = elements.lattice(s)
            pieces = torch.stack([x[:, :-1], x[:, 1:]], 2).flatten(0, 1)
        else:
            corners = torch.tensor(_TRIANGLES[elements.simplex], dtype=torch.float64)
            parts = corners if count == 1 else _halved(corners)
            x = elements.lattice(parts.reshape(-1, 2))
            pieces = x.reshape(len(places) * len(parts), 3, 3)
        inner = torch.from_numpy(
            self.mesh.points[self.mesh.topology.t[:, self.mesh.topology.f2t[0, outer]]].mean(0)
        ).repeat_interleave(len(pieces) // len(places), 0)
        out = ((pieces.mean(1) - inner) * _crossed(pieces)).sum(1) > 0
        return torch.where(out[:, None, None], pieces, pieces.flip(1))

    @cached_property
    def sides(self) -> Mapping[str, Side]:
        """By the names of the conditions."""
        return {name: self._side(numbers) for name, numbers in self.facets.items()}

    def _facets(self, numbers: np.ndarray) -> _Elements:
        mesh, curved = self.mesh, self.mesh.middles is not None and self.mesh.degree == 2
        rows = mesh.facet_nodes(numbers) if curved else mesh.topology.facets[:, numbers].T
        element = _facet(mesh, 1 + curved)
        simplex = mesh.topology.facets.shape[0] <= 3
        places = torch.from_numpy((mesh.nodes if curved else mesh.points)[rows])
        return _Elements(element, places, simplex, simplex and not curved)

    def _side(self, numbers: np.ndarray) -> Side:
        mesh, elements, d = self.mesh, self._facets(numbers), self.mesh.dimension
        inner = mesh.points[mesh.topology.t[:, mesh.topology.f2t[0, numbers]]].mean(0)
        outward = elements.places.mean(1) - torch.from_numpy(inner)

        def place(cube: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            points, kept = elements.drawn(cube, generator)

            def draw(count: int, generator: torch.Generator) -> Tensor:
                return elements.draw(_random(count, d - 1, generator), generator)[0]

            return filled(points, kept, draw, "a side's facets are flat")

        def normal(x: Tensor) -> Tensor:
            which, X = elements.located(x)
            across = _across(elements.slopes(which, X))
            sign = (across * outward[which]).sum(1, keepdim=True).sign()
            found: Tensor = sign * across / across.norm(dim=1, keepdim=True)
            return found

        def rule() -> tuple[Tensor, Tensor, Tensor]:
            q: Quadrature = on_facets(mesh, numbers, 2 * mesh.degree + 2)
            x = torch.stack([axis.flatten() for axis in q.points], 1)
            shape = q.points[0].shape
            n = torch.stack([c.expand(shape).flatten() for c in q.normal.values()], 1)
            return x, n, q.measure.expand(shape).flatten()

        return Side(d - 1, place, normal, rule)


@dataclass(frozen=True)
class _Elements:
    """Images x = sum_i places_i phi_i(X) of one reference element, ``places`` (k, N, d)."""

    element: Any
    places: Tensor
    simplex: bool
    affine: bool

    @property
    def rank(self) -> int:
        """The dimension of the reference element."""
        return int(self.element.doflocs.shape[1])

    def lattice(self, X: Tensor) -> Tensor:
        """All elements at the same X (Q, r): (k, Q, d)."""
        values = torch.from_numpy(basis_at(self.element, X.numpy().T)[0].copy())
        return torch.einsum("qi,kid->kqd", values, self.places)

    def at(self, which: Tensor, X: Tensor) -> Tensor:
        """x (n, d) of elements ``which`` (n,) at X (n, r)."""
        values = torch.from_numpy(basis_at(self.element, X.numpy().T)[0].copy())
        return torch.einsum("ni,nid->nd", values, self.places[which])

    def slopes(self, which: Tensor, X: Tensor) -> Tensor:
        """dx/dX, (n, d, r)."""
        slopes = torch.from_numpy(basis_at(self.element, X.numpy().T)[1].copy())
        return torch.einsum("nir,nid->ndr", slopes, self.places[which])

    def _stretch(self, which: Tensor, X: Tensor) -> Tensor:
        J = self.slopes(which, X)
        found: Tensor = torch.linalg.det(J.mT @ J).clamp_min(0).sqrt()
        return found

    @cached_property
    def most(self) -> Tensor:
        """The largest Jacobian of each, (k,), but for a little."""
        count = len(self.places)
        axes = [torch.linspace(0, 1, 1 if self.affine else 5, dtype=torch.float64)] * self.rank
        X = torch.cartesian_prod(*axes).reshape(-1, self.rank)
        if self.simplex:
            X = X[X.sum(1) <= 1 + 1e-12]
        every = [self._stretch(torch.arange(count), x.expand(count, -1)) for x in X]
        return torch.stack(every).amax(0) * (1.0 if self.affine else 1.05)

    def drawn(self, cube: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points (n, d) for points (n, r) of the cube, and which of them make a uniform set."""
        which, own = chosen(cube, self.most)
        X = own
        if self.simplex:
            ordered = own.sort(1).values
            X = torch.diff(ordered, dim=1, prepend=ordered.new_zeros(len(own), 1))
        x = self.at(which, X)
        if self.affine:
            return x, torch.ones(len(x), dtype=torch.bool)
        odds = torch.rand(len(x), dtype=torch.float64, generator=generator)
        return x, odds * self.most[which] <= self._stretch(which, X)

    def draw(self, cube: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
        """The uniform ones alone."""
        x, kept = self.drawn(cube, generator)
        return x[kept], len(x)

    def located(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The elements (n,) on which points (n, d) lie and X (n, r) there, by Gauss-Newton."""
        tree, owners, starts = self._near
        count = min(_CANDIDATES, len(owners))
        found = tree.query(x.detach().numpy(), k=count)[1].reshape(len(x), count)
        best = x.new_full((len(x),), torch.inf)
        which, where = torch.zeros(len(x), dtype=torch.long), x.new_zeros(len(x), self.rank)
        for column in found.T:
            owner, X = owners[column], starts[column]
            for _ in range(1 if self.affine else 8):
                J = self.slopes(owner, X)
                gap = x - self.at(owner, X)
                X = X + torch.linalg.solve(J.mT @ J, (J.mT @ gap[..., None]))[..., 0]
                X = X.clamp(-0.2, 1.2)
            gap = (x - self.at(owner, X)).norm(dim=1)
            beyond = (-X).clamp_min(0).amax(1) + (
                (X.sum(1) if self.simplex else X.amax(1)) - 1
            ).clamp_min(0)
            score = gap + beyond * self.most[owner] ** (1 / max(self.rank, 1))
            better = score < best
            best, which = torch.where(better, score, best), torch.where(better, owner, which)
            where = torch.where(better[:, None], X, where)
        return which, where

    @cached_property
    def _near(self) -> tuple[Any, Tensor, Tensor]:
        from scipy.spatial import cKDTree

        axes = [torch.linspace(0.1, 0.9, 5, dtype=torch.float64)] * self.rank
        X = torch.cartesian_prod(*axes).reshape(-1, self.rank)
        if self.simplex:
            X = X[X.sum(1) <= 1]
        x = self.lattice(X)
        owners = torch.arange(len(self.places)).repeat_interleave(len(X))
        return cKDTree(x.flatten(0, 1).numpy()), owners, X.repeat(len(self.places), 1)


def _facet(mesh: Mesh, degree: int) -> Any:
    """scikit-fem's element of the mesh's facets."""
    import skfem

    kinds = {
        2: (skfem.ElementLineP1, skfem.ElementLineP2),
        3: (skfem.ElementTriP1, skfem.ElementTriP2),
        4: (skfem.ElementQuad1, skfem.ElementQuad2),
    }
    return kinds[mesh.topology.facets.shape[0]][degree - 1]()


def _across(J: Tensor) -> Tensor:
    """A vector at right angles to the columns of J (n, d, d - 1)."""
    if J.shape[2] == 1:
        return torch.stack([J[:, 1, 0], -J[:, 0, 0]], 1)
    found: Tensor = torch.linalg.cross(J[..., 0], J[..., 1])
    return found


def _crossed(pieces: Tensor) -> Tensor:
    """The vector out of intervals or triangles (k, d, d) that turn as they stand."""
    return _across((pieces[:, 1:] - pieces[:, :1]).mT)


def _halved(triangles: Tensor) -> Tensor:
    """Every triangle (k, 3, 2) in sixteen."""
    for _ in range(2):
        a, b, c = triangles.unbind(1)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        triangles = torch.cat([torch.stack(part, 1) for part in parts])
    return triangles


def _winding(rim: Tensor, points: Tensor) -> Tensor:
    """How often a boundary (k, d, d) goes round points (n, d), (n,): 1 inside, 0 outside."""
    to = rim[None] - points[:, None, None]
    if rim.shape[1] == 2:
        a, b = to.unbind(2)
        angle = torch.atan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1))
        return angle.sum(1) / (2 * torch.pi)
    a, b, c = to.unbind(2)
    la, lb, lc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    triple = (a * torch.linalg.cross(b, c)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return 2 * torch.atan2(triple, below).sum(1) / (4 * torch.pi)


def _touches(rim: Tensor, points: Tensor, slack: float) -> Tensor:
    """Which points (n, d) lie on the pieces (k, d, d) of a boundary, but for the ``slack``."""
    out = _crossed(rim)
    out = out / out.norm(dim=1, keepdim=True)
    gap = ((points[:, None] - rim[None, :, 0]) * out).sum(-1).abs()
    edges = (rim[:, 1:] - rim[:, :1]).mT
    inverse = torch.linalg.pinv(edges)
    share = torch.einsum("krd,nkd->nkr", inverse, points[:, None] - rim[None, :, 0])
    beside = torch.maximum((-share).amax(-1), share.sum(-1) - 1)
    found: Tensor = ((gap <= slack) & (beside <= 1e-6)).any(1)
    return found


def region_of(data: Pointwise, mesh: Mesh | None = None) -> Region:
    """That of a problem: its box, its shapes, or the mesh, whose own shapes it is where it has any.

    Raises InputError for conditions that are not those of the mesh, and for what a mesh may be that
    points do not know: one-dimensional, of a body of revolution, periodic.
    """
    problem = data.problem
    if mesh is None:
        domain = problem.domain
        if isinstance(domain, Body):
            if problem.obstacle is not None:
                raise InputError("take the obstacle's shape off the domain", "problem.obstacle")
            return Shaped(domain, data)
        return Boxed(data)
    check_sides(problem, mesh)
    if mesh.dimension == 1:
        raise InputError("an interval is a box here: give domain: and grid: or points:", "mesh")
    if mesh.axisymmetric:
        raise InputError("at points nobody knows of the axis: solve on the mesh", "mesh")
    for name, condition in problem.boundary.items():
        if name in mesh.supports:
            raise InputError(
                "points and lines are no sides: solve on the mesh", f"problem.boundary.{name}"
            )
        if condition.kind == "periodic":
            raise InputError(
                "a mesh's sides are not periodic here", f"problem.boundary.{name}.periodic"
            )
    if mesh.geometry is not None:
        body = Body.of(mesh.geometry)
        at = torch.from_numpy(mesh.points)
        if bool(body.points.contains(at).all()):  # moved since, it is another
            return Shaped(body, replace(data, around=body.box))
    read = mesh_data(problem, mesh)
    facets = {n: facets_of(problem, read, n, f"problem.boundary.{n}") for n in problem.boundary}
    return Meshed(mesh, facets)


def value_of(level: Expression, data: Pointwise, points: Tensor) -> Tensor:
    """An expression of the place and the parameters at points (N, D), (N,)."""
    known: dict[str, Tensor] = dict(zip(data.box.axes, points.T, strict=False))
    numbers: Mapping[str, object] = data.parameters
    known |= {
        name: torch.as_tensor(p, dtype=points.dtype, device=points.device)
        for name, p in numbers.items()
        if name in level.names
    }
    found: Tensor = level(**{name: v for name, v in known.items() if name in level.names})
    return found.expand(points.shape[0])


def _corners(box: Box) -> tuple[Tensor, Tensor]:
    low, high = (torch.tensor(c, dtype=torch.float64) for c in (box.lower, box.upper))
    return low, high


def _even(count: int, dimension: int) -> Tensor:
    if not dimension:
        return torch.zeros(1, 0, dtype=torch.float64)
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=0)
    return engine.draw(count, dtype=torch.float64)


def _random(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """As even as those in whose place they come."""
    if not dimension:
        return torch.zeros(count, 0, dtype=torch.float64)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=seed)
    return engine.draw(count, dtype=torch.float64)


@dataclass(frozen=True)
class Hole:
    """The hole ``inside`` of a box; points (N, D) have its d coordinates first."""

    data: Pointwise
    inside: str

    @cached_property
    def _levels(self) -> tuple[Expression, Expression]:
        """phi, and its smooth form."""
        try:
            read = expression(self.inside, self.data.context(solved=False))
            if "t" in read.names:
                raise InputError("an obstacle does not move; leave t out")
            return level_set(read), level_set(read, smooth=True)
        except InputError as error:
            raise InputError(error.message, KEY) from None

    @cached_property
    def size(self) -> float:
        """The largest value of the smooth phi in the box, which is its unit."""
        box = self.data.problem.box
        generator = torch.Generator().manual_seed(0)
        cube = torch.rand(_TRIED, box.dimension, dtype=torch.float64, generator=generator)
        low, high = (torch.tensor(corner, dtype=torch.float64) for corner in (box.lower, box.upper))
        largest = float(self._value(self._levels[1], low + cube * (high - low)).max())
        if not largest > 0:
            raise InputError("the obstacle leaves nothing of the domain", KEY)
        return largest

    def level(self, points: Tensor) -> Tensor:
        """phi, (N,)."""
        return self._value(self._levels[0], points)

    def distance(self, points: Tensor) -> Tensor:
        """The smooth phi over its size, (N,): zero on the rim, at most about one."""
        return self._value(self._levels[1], points) / self.size

    def outside(self, points: Tensor) -> Tensor:
        """Whether points lie in the domain, bool (N,); those on the rim do, up to rounding."""
        return self.level(points) >= -_ROUNDING * self.size

    def normal(self, points: Tensor) -> list[Tensor]:
        """Out of the domain, one tensor (N,) per axis; at points of the rim."""
        _, slope = self._sloped(points)
        return list((-slope / slope.norm(dim=1, keepdim=True)).unbind(1))

    def cleared(self, points: Tensor, draw: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """The points (N, D), those in the hole replaced by such as ``draw`` gives.

        Raises InputError where there is next to no room beside the hole.
        """
        found = points
        for round_ in range(_ROUNDS):
            rows = (~self.outside(found)).nonzero()[:, 0]
            if not len(rows):
                return found
            found = found.clone() if found is points else found
            found[rows] = draw(len(rows), torch.Generator().manual_seed(_seed(points) + round_))
        raise InputError("the obstacle covers a side, or all of the domain, but for a sliver", KEY)

    def rim(self, points: Tensor, draw: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """As many points (N, D) of the rim as are given; InputError where none is in the box."""
        pool = draw(_POOL * max(len(points), 50), torch.Generator().manual_seed(_seed(points)))
        phi, slope = self._sloped(pool)
        near = (phi.abs() / slope.norm(dim=1).clamp_min(1e-300)).nan_to_num(torch.inf).argsort()
        pool = pool[near[: 2 * max(len(points), 50)]]
        d = slope.shape[1]
        for _ in range(_NEWTON):
            phi, slope = self._sloped(pool)
            step = phi[:, None] * slope / slope.square().sum(1, keepdim=True).clamp_min(1e-300)
            pool = torch.cat([pool[:, :d] - step, pool[:, d:]], 1)
        box = self.data.problem.box
        low, high = (pool.new_tensor(corner) for corner in (box.lower, box.upper))
        kept = (self.level(pool).abs() <= 1e-9 * self.size) & (
            (pool[:, :d] >= low) & (pool[:, :d] <= high)
        ).all(1)
        pool = pool[kept]
        if not len(pool):
            raise InputError("no rim of this obstacle is found in the domain", KEY)
        return pool[torch.arange(len(points)) * len(pool) // max(len(points), 1) % len(pool)]

    def _value(self, level: Expression, points: Tensor) -> Tensor:
        return value_of(level, self.data, points)

    def _sloped(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """phi (N,) and its slopes (N, d)."""
        d = self.data.problem.box.dimension
        with torch.enable_grad():
            x = points.detach().requires_grad_()
            phi = self.level(x)
            (slope,) = torch.autograd.grad(phi.sum(), x)
        return phi.detach(), slope[:, :d]


def hole_of(data: Pointwise) -> Hole | None:
    """That of a problem; raises InputError for one whose shape is to be found."""
    problem: Problem = data.problem
    if problem.obstacle is None:
        return None
    inside = problem.obstacle.inside
    for name in sorted(free_names(inside)):
        if isinstance(problem.parameters.get(name), Unknown):
            raise InputError(f"the shape of an obstacle is not found: '{name}' is unknown", KEY)
    hole = Hole(data, inside)
    if not hole.size > 0:
        raise InputError("the obstacle leaves nothing of the domain", KEY)
    return hole


def _seed(points: Tensor) -> int:
    """One that belongs to these points, so that what is drawn beside them is drawn again."""
    return int(points.detach().abs().sum().mul(1e6).remainder(2**31)) if points.numel() else 0
