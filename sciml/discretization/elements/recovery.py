"""Values at the nodes of what is known inside the elements only: slopes and stresses.

Around every vertex a polynomial of the elements' degree is fitted, by least squares, to the values
at the points where they converge fastest, of the elements that meet there; where these are too few,
at boundaries, of their neighbours too. A node takes the mean over the vertices that it lies between
(Zienkiewicz and Zhu 1992, "The superconvergent patch recovery"). Where coefficients are given by
regions, slopes and stresses jump between them: no patch reaches from one into another, and a node
on both has the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import scipy.sparse
import torch

from sciml.core.problem.equation import PDE
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.quadrature import Quadrature, slopes, whole
from sciml.core.problem.reader import Regions

_RIDGE = 1e-12


def superconvergent(mesh: Mesh) -> Quadrature:
    """The elements with the points that :func:`at_nodes` fits to."""
    return whole(mesh, 1 if mesh.degree == 1 else 2)


def materials(mesh: Mesh, equation: PDE) -> np.ndarray:
    """A number for every element (m,), equal where coefficients given by regions are the same."""
    given = [v if isinstance(v, tuple) else (v,) for v in vars(equation).values()]
    entries = [entry for values in given for entry in values]
    names = {name for e in entries if isinstance(e, Regions) for name in e.regions}
    inside = np.zeros((len(mesh.cells), len(names)), dtype=bool)
    for k, name in enumerate(sorted(names & set(mesh.subdomains))):
        inside[mesh.subdomains[name], k] = True
    numbers: np.ndarray = np.unique(inside, axis=0, return_inverse=True)[1].ravel()
    return numbers


def nodal_slopes(mesh: Mesh, nodal: torch.Tensor, material: np.ndarray) -> torch.Tensor:
    """The gradient at the nodes: (*lead, d, nodes), of values (*lead, nodes)."""
    return at_nodes(mesh, slopes(superconvergent(mesh), nodal), material)


def at_nodes(mesh: Mesh, values: torch.Tensor, material: np.ndarray) -> torch.Tensor:
    """``values`` (*lead, m, Q) at :func:`superconvergent` points to (*lead, nodes).

    ``material``: a number for every element, between which values jump.
    """
    if values.is_complex():
        return torch.complex(*(at_nodes(mesh, v, material) for v in (values.real, values.imag)))
    if material.max(initial=0) == 0:
        return _recovered(mesh, values, np.ones(len(mesh.cells), dtype=bool))[0]
    total, count = torch.zeros(()), torch.zeros(())
    for number in range(material.max() + 1):
        found, known = _recovered(mesh, values, material == number)
        total, count = total + torch.where(known, found, 0.0), count + known
    return total / count


@dataclass(frozen=True)
class Around:
    """How what is recovered at n places follows from the elements around them.

    ``part``: these elements with their :func:`superconvergent` points. ``row``, ``entry``,
    ``weight``: of the sum over these points, flattened, for each place.
    """

    part: Quadrature
    count: int
    row: torch.Tensor
    entry: torch.Tensor
    weight: torch.Tensor

    def of(self, inner: torch.Tensor) -> torch.Tensor:
        """``inner`` (*lead, k, Q) in the part to (*lead, n)."""
        parts = inner.double().flatten(-2)[..., self.entry] * self.weight
        zero = parts.new_zeros(*parts.shape[:-1], self.count)
        return zero.index_add(-1, self.row, parts)


def around(mesh: Mesh, owners: np.ndarray, shares: np.ndarray, material: np.ndarray) -> Around:
    """Of places in the elements ``owners`` (n,) with their basis functions there (n, N)."""
    nodes = mesh.cell_nodes[owners]
    vertices = np.unique(mesh.cells[owners])
    every, which = np.unique(nodes, return_inverse=True)
    which = which.reshape(nodes.shape)
    m, count = len(mesh.cells), mesh.cell_nodes.shape[1]
    of_node = scipy.sparse.csr_matrix(
        (np.ones(m * count), (mesh.cell_nodes.ravel(), np.repeat(np.arange(m), count))),
        shape=(mesh.shape[0], m),
    )
    numbers = [np.unique(material[of_node[node].indices]) for node in every]
    basis, found = _monomials(mesh), []
    for number in np.unique(np.concatenate(numbers)):
        fit = _fit(mesh, material == number, vertices)
        functional = np.zeros((len(owners), len(vertices), len(basis)))
        for k, node in enumerate(every):
            if number not in numbers[k]:
                continue
            of, place = np.nonzero(which == k)
            ends = _parents(mesh, int(node))
            share = shares[of, place] / len(numbers[k]) / len(ends)
            for v in np.searchsorted(vertices, ends):
                step = (mesh.nodes[node] - mesh.points[vertices[v]]) / fit.size[v]
                functional[of, v] += share[:, None] * _powers(step, basis)
        solved = np.linalg.solve(fit.normal, functional.transpose(1, 2, 0))
        for n, v in zip(*np.nonzero(functional.any(-1)), strict=True):
            span = slice(fit.patches.indptr[v], fit.patches.indptr[v + 1])
            weight = fit.terms[span] @ solved[v, :, n]
            found.append((np.full(len(weight), n), fit.patches.indices[span], weight))
    row, entry, weight = (np.concatenate(column) for column in zip(*found, strict=True))
    cells, size = superconvergent(mesh), len(superconvergent(mesh).tables.points)
    members, local = np.unique(entry // size, return_inverse=True)
    return Around(
        cells.of(torch.from_numpy(members.astype(np.int64))),
        len(owners),
        torch.from_numpy(row),
        torch.from_numpy(local * size + entry % size),
        torch.from_numpy(weight),
    )


def _parents(mesh: Mesh, node: int) -> np.ndarray:
    """The vertices between which a node lies, a vertex itself."""
    start = len(mesh.points)
    if node < start:
        return np.array([node])
    for parents in mesh.parents:
        if node < start + len(parents):
            return np.asarray(parents[node - start])
        start += len(parents)
    raise AssertionError


@dataclass(frozen=True)
class _Fit:
    """Polynomials about vertices (n,), by least squares.

    ``patches``: for each the points, flattened, to whose values they are fitted, in their order
    ``rows`` (e,) of the vertices; ``terms`` (e, k) the monomials there, of offsets in units of
    ``size`` (n,); ``normal`` (n, k, k); ``touched``: the vertices that have points.
    """

    patches: scipy.sparse.csr_matrix
    rows: np.ndarray
    terms: np.ndarray
    size: np.ndarray
    normal: np.ndarray
    touched: np.ndarray


def _fit(mesh: Mesh, own: np.ndarray, vertices: np.ndarray | None = None) -> _Fit:
    """About all vertices, or those of these numbers, from the elements ``own`` (m,) alone."""
    cells, basis = superconvergent(mesh), _monomials(mesh)
    where = torch.stack([p.flatten() for p in cells.points], -1).numpy()
    patches = _patches(mesh, cells.points[0].shape[1], own, vertices)
    middles = mesh.points if vertices is None else mesh.points[vertices]
    rows = np.repeat(np.arange(len(middles)), np.diff(patches.indptr))
    offset = where[patches.indices] - middles[rows]
    size = np.zeros(len(middles))
    np.maximum.at(size, rows, np.abs(offset).max(axis=1))
    touched = size > 0
    size[~touched] = 1.0
    terms = _powers(offset / size[rows, None], basis)
    k = len(basis)
    normal = torch.zeros(len(middles), k, k, dtype=torch.float64)
    both = torch.from_numpy(terms[:, :, None] * terms[:, None, :])
    normal.index_add_(0, torch.from_numpy(rows), both)
    # Of a mesh of a few elements no patch has enough points: the least correction is taken.
    most = normal.diagonal(dim1=-2, dim2=-1).amax(-1)
    scale = torch.where(torch.from_numpy(touched), most, 1 / _RIDGE)
    normal = normal + _RIDGE * scale[:, None, None] * torch.eye(k, dtype=torch.float64)
    return _Fit(patches, rows, terms, size, normal.numpy(), touched)


def _powers(offset: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The monomials at offsets (..., d), (..., k)."""
    return np.stack([np.prod(offset**power, axis=-1) for power in basis], -1)


def _recovered(
    mesh: Mesh, values: torch.Tensor, own: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values at the nodes of the elements ``own`` (m,), from these alone; and which they are."""
    fit, basis = _fit(mesh, own), _monomials(mesh)
    terms, index = torch.from_numpy(fit.terms), torch.from_numpy(fit.rows)
    flat = values.double().flatten(-2)
    given = flat[..., torch.from_numpy(fit.patches.indices.astype(np.int64))]
    k, n = len(basis), len(mesh.points)
    right = torch.zeros(*flat.shape[:-1], n, k, dtype=torch.float64)
    right = right.index_add(-2, index, given[..., None] * terms)
    fitted = torch.linalg.solve(torch.from_numpy(fit.normal), right[..., None])[..., 0]
    vertices: torch.Tensor = fitted[..., 0]
    if mesh.degree == 1:
        return vertices, torch.from_numpy(fit.touched)
    nodal, start = [vertices], n
    for parents in mesh.parents:
        places = mesh.nodes[start : start + len(parents)]
        middles = torch.zeros(*vertices.shape[:-1], len(parents), dtype=torch.float64)
        for end in parents.T:
            step = (places - mesh.points[end]) / fit.size[end, None]
            there = torch.from_numpy(_powers(step, basis))
            of_end = fitted[..., torch.from_numpy(end.astype(np.int64)), :]
            middles = middles + (of_end * there).sum(-1)
        nodal.append(middles / parents.shape[1])
        start += len(parents)
    here = torch.zeros(mesh.shape, dtype=torch.bool)
    here[torch.from_numpy(np.unique(mesh.cell_nodes[own]).astype(np.int64))] = True
    return torch.cat(nodal, -1), here


def _monomials(mesh: Mesh) -> np.ndarray:
    """The powers of the monomials of the elements' degree, (k, d), the constant first."""
    d, degree = mesh.dimension, mesh.degree
    if not mesh.kind.simplex:
        return np.array(list(np.ndindex(*(degree + 1,) * d)))
    powers = [np.zeros(d, dtype=np.int64)]
    for total in range(1, degree + 1):
        for axes in combinations_with_replacement(range(d), total):
            powers.append(np.bincount(axes, minlength=d))
    return np.array(powers)


def _patches(
    mesh: Mesh, count: int, own: np.ndarray, vertices: np.ndarray | None = None
) -> scipy.sparse.csr_matrix:
    """For these vertices, or all, the numbers of the points in their patches, of ``own``."""
    m, corners = mesh.cells.shape
    touch = scipy.sparse.csr_matrix(
        (
            np.repeat(own, corners).astype(np.int32),
            (mesh.cells.ravel(), np.repeat(np.arange(m), corners)),
        ),
        shape=(len(mesh.points), m),
    )
    touch.eliminate_zeros()
    first, second = mesh.topology.f2t
    ends = own[first] != (own[second] & (second >= 0))
    inner = np.ones(len(mesh.points), dtype=bool)
    inner[np.unique(mesh.topology.facets[:, ends])] = False
    whole = touch
    if vertices is not None:
        touch, inner = touch[vertices], inner[vertices]
    wide = (touch @ whole.T @ whole).tocsr()
    both = (touch.multiply(inner[:, None]) + wide.multiply(~inner[:, None])).tocsr()
    points = scipy.sparse.kron(both, np.ones((1, count), dtype=np.int32)).tocsr()
    points.eliminate_zeros()
    points.sort_indices()
    return points
