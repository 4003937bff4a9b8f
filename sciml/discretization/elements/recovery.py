"""Values at the nodes of what is known inside the elements only: slopes and stresses.

Around every vertex a polynomial of the elements' degree is fitted, by least squares, to the values
at the points where they converge fastest, of the elements that meet there; where these are too few,
at boundaries, of their neighbours too. A node takes the mean over the vertices that it lies between
(Zienkiewicz and Zhu 1992, "The superconvergent patch recovery"). Where coefficients are given by
regions, slopes and stresses jump between them: no patch reaches from one into another, and a node
on both has the mean.
"""

from __future__ import annotations

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


def _recovered(
    mesh: Mesh, values: torch.Tensor, own: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values at the nodes of the elements ``own`` (m,), from these alone; and which they are."""
    cells = superconvergent(mesh)
    where = torch.stack([p.flatten() for p in cells.points], -1).numpy()
    count = cells.points[0].shape[1]
    patches = _patches(mesh, count, own)
    basis = _monomials(mesh)
    rows = np.repeat(np.arange(len(mesh.points)), np.diff(patches.indptr))
    offset = where[patches.indices] - mesh.points[rows]
    size = np.zeros(len(mesh.points))
    np.maximum.at(size, rows, np.abs(offset).max(axis=1))
    touched = torch.from_numpy(size > 0)
    size[size == 0] = 1.0
    local = offset / size[rows, None]
    terms = torch.from_numpy(np.stack([np.prod(local**power, axis=1) for power in basis], -1))
    index = torch.from_numpy(rows)
    flat = values.double().flatten(-2)
    given = flat[..., torch.from_numpy(patches.indices.astype(np.int64))]
    k, n = len(basis), len(mesh.points)
    normal = torch.zeros(n, k, k, dtype=torch.float64)
    normal.index_add_(0, index, terms[:, :, None] * terms[:, None, :])
    right = torch.zeros(*flat.shape[:-1], n, k, dtype=torch.float64)
    right = right.index_add(-2, index, given[..., None] * terms)
    # Of a mesh of a few elements no patch has enough points: the least correction is taken.
    scale = torch.where(touched, normal.diagonal(dim1=-2, dim2=-1).amax(-1), 1 / _RIDGE)
    normal = normal + _RIDGE * scale[:, None, None] * torch.eye(k, dtype=torch.float64)
    fitted = torch.linalg.solve(normal, right[..., None])[..., 0]
    vertices: torch.Tensor = fitted[..., 0]
    if mesh.degree == 1:
        return vertices, touched
    nodal, start = [vertices], n
    for parents in mesh.parents:
        places = mesh.nodes[start : start + len(parents)]
        middles = torch.zeros(*vertices.shape[:-1], len(parents), dtype=torch.float64)
        for end in parents.T:
            step = (places - mesh.points[end]) / size[end, None]
            there = torch.from_numpy(np.stack([np.prod(step**power, axis=1) for power in basis], 1))
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


def _patches(mesh: Mesh, count: int, own: np.ndarray) -> scipy.sparse.csr_matrix:
    """For every vertex the numbers of the points in its patch, of the elements ``own``."""
    m, corners = mesh.cells.shape
    touch = scipy.sparse.csr_matrix(
        (
            np.repeat(own, corners).astype(np.int32),
            (mesh.cells.ravel(), np.repeat(np.arange(m), corners)),
        )
    )
    touch.eliminate_zeros()
    first, second = mesh.topology.f2t
    ends = own[first] != (own[second] & (second >= 0))
    inner = np.ones(len(mesh.points), dtype=bool)
    inner[np.unique(mesh.topology.facets[:, ends])] = False
    wide = (touch @ touch.T @ touch).tocsr()
    both = (touch.multiply(inner[:, None]) + wide.multiply(~inner[:, None])).tocsr()
    points = scipy.sparse.kron(both, np.ones((1, count), dtype=np.int32)).tocsr()
    points.eliminate_zeros()
    points.sort_indices()
    return points
