"""Modes on a mesh: A u = lambda M u with the stiffness and the consistent mass of finite elements.

    int (K grad u) . grad v + c u v + int_robin alpha u v  =  lambda int w u v        for all v,
    int sigma(u) : eps(v)  =  omega^2 int density u . v,

w = m where the equation has u_tt, so that lambda is a squared angular frequency, else d, else 1.
The element space lies in that of the differential equation, so that where integrals are exact the
discrete eigenvalues are no smaller than its own (Strang and Fix 1973, chapter 6).

M is bounded by its diagonal from below as its elements' matrices are (Wathen 1987).

Of a body with the stresses sigma_0 the stiffness against small displacements more is K + G,

    u . G v = int sigma_0 : (grad u^T grad v),

G linear in sigma_0: under lambda times the load it is singular where K u = -lambda G u (Zienkiewicz
and Taylor 2000, volume 2, 11.7).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.pencil import Pencil
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError
from sciml.core.problem.condition import flux_condition
from sciml.core.problem.dispatch import poses_buckling, poses_modes
from sciml.core.problem.equation import Elasticity, Equation
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import Quadrature, mass, stiffness
from sciml.discretization.elements import elasticity, scalar
from sciml.discretization.elements.boundary import (
    Embedding,
    Fixed,
    Pattern,
    Side,
    Whole,
    eliminate,
    parts_of,
    pattern,
    scatter,
    sides,
)
from sciml.discretization.elements.data import MeshData, evaluate
from sciml.discretization.volumes.modes import weight_of, without_mass

_KEY = "problem.equation"
_CHUNK = 1 << 16
_SOFT = 1e-3  # of a body's first longitudinal eigenvalue, which its bending is far below


@poses_modes(Equation, Mesh)
def modes_on_mesh(problem: Problem, mesh: Mesh, *, device: torch.device) -> Pencil:
    """The pencil of two PatternMatrices; raises InputError where there are no modes."""
    name = weight_of(problem)
    parts = scalar.assembled(without_mass(problem), mesh, parted=True)
    zero = torch.zeros(mesh.shape[0], dtype=torch.float64)
    A, _ = parts.eliminated(parts.values, zero, parts.definite)
    cells, data = parts.cells, parts.data
    weight = getattr(problem.form, name) if name else 1.0
    w = evaluate(weight, cells, data, f"{_KEY}.{name}", positive=True)
    M, share = _mass(cells, w, parts.places, parts.fixed, 1)
    K = scalar.conductivity(problem.form.K, cells, data)
    c = evaluate(problem.form.c, cells, data, f"{_KEY}.c")
    robin = [side for side in sides(problem, data) if side.condition.robin is not None]
    pushing = [(side, _alpha(side, data)) for side in robin]
    floor = min(0.0, float((c / w).detach().min()))
    floor -= _inflow(mesh, cells, pushing, float(w.detach().min()))
    stiff = _mean(cells, K.detach().diagonal(dim1=-2, dim2=-1).mean(-1))
    part = torch.from_numpy(parts_of(mesh))
    constants = torch.stack([(part == k).double() for k in range(int(part.max()) + 1)])
    embedding = Embedding(parts.fixed, mesh.shape)
    return Pencil(
        A.like(A.values.to(device)),
        M.like(M.values.to(device)),
        candidates=_some(embedding.restrict(constants)).to(device),
        share=share,
        scale=stiff / _mean(cells, w.detach()) * _lowest(mesh),
        floor=floor,
        on=mesh,
        lift=embedding.lift,
        notes=tuple(data.notes),
        oscillates=name == "m",
    )


@poses_modes(Elasticity, Mesh)
def modes_of_body(problem: Problem, mesh: Mesh, *, device: torch.device) -> Pencil:
    """The same of vibrations, with the rigid motions of every part as what A may annihilate."""
    equation, d = problem.equation_as(Elasticity), mesh.dimension
    loads = {f"{_KEY}.{name}": getattr(equation, name) for name in ("force", "thermal_strain")}
    problem.check_unforced(loads)
    parts = elasticity.assembled(problem, mesh)
    A, _ = parts.eliminated(torch.zeros(mesh.shape[0] * d, dtype=torch.float64))
    cells, data = parts.cells, parts.data
    density = evaluate(equation.density, cells, data, f"{_KEY}.density", positive=True)
    M, share = _mass(cells, density, pattern(mesh), parts.fixed, d)
    shear = elasticity.shear_modulus(equation, cells, data)
    stiff = _mean(cells, shear.detach()) / _mean(cells, density.detach())
    springs = [side for side in parts.boundary if side.condition.robin is not None]
    pushing = zip(springs, (alpha for _, alpha in parts.springs), strict=True)
    part = np.repeat(parts_of(mesh), d)
    motions = [np.where(part[:, None] == k, parts.motions, 0.0) for k in range(part.max() + 1)]
    free = np.concatenate(motions, axis=1)[~parts.fixed.mask]
    return Pencil(
        A.like(A.values.to(device)),
        M.like(M.values.to(device)),
        candidates=_some(torch.from_numpy(np.ascontiguousarray(free.T))).to(device),
        share=share,
        scale=_SOFT * stiff * _lowest(mesh),
        floor=-_inflow(mesh, cells, pushing, float(density.detach().min())),
        on=mesh,
        lift=Embedding(parts.fixed, (d, mesh.shape[0])).lift,
        notes=tuple(data.notes),
        fields=equation.fields(d),
        oscillates=True,
    )


@poses_buckling(Elasticity, Mesh)
def buckling_of_body(
    problem: Problem, mesh: Mesh, value: torch.Tensor, *, device: torch.device
) -> Pencil:
    """G u = nu K u for the displacements ``value`` (*batch, d, nodes) under the loads.

    ``share``, ``scale`` and ``floor`` are no more than signs: who solves it has to find them.
    """
    if mesh.axisymmetric:
        raise InputError("a body of revolution is not asked for buckling", "mesh.axisymmetric")
    d, parts = mesh.dimension, elasticity.assembled(problem, mesh)
    fixed = replace(parts.fixed, values=torch.zeros(len(parts.fixed.mask), dtype=torch.float64))
    K, _ = replace(parts, fixed=fixed).eliminated(torch.zeros(len(fixed.mask)).double())
    sigma = elasticity.stress_at(problem, parts.cells, parts.data, value)[..., :d, :d]
    local = stiffness(parts.cells, sigma)
    G = _alike(local, parts.cells, pattern(mesh), fixed, d, definite=False)
    return Pencil(
        G.like(G.values.to(device)),
        K.like(K.values.to(device)),
        candidates=torch.zeros(0, len(fixed.free), dtype=torch.float64, device=device),
        share=1.0,
        scale=0.0,
        floor=0.0,
        on=mesh,
        lift=Embedding(fixed, (d, mesh.shape[0])).lift,
        notes=tuple(parts.data.notes),
        fields=problem.equation.fields(d),
    )


def _alpha(side: Side, data: MeshData) -> torch.Tensor:
    return evaluate(flux_condition(side.condition).alpha, side.facets, data, f"{side.key}.alpha")


def _mass(
    cells: Quadrature, w: torch.Tensor, places: Pattern, fixed: Fixed, components: int
) -> tuple[PatternMatrix, float]:
    """M on the free unknowns, (node, component), and how much of its diagonal it is at least."""
    local = mass(cells, w)
    return _alike(local, cells, places, fixed, components, definite=True), _share(local.detach())


def _alike(
    local: torch.Tensor,
    cells: Quadrature,
    places: Pattern,
    fixed: Fixed,
    components: int,
    definite: bool,
) -> PatternMatrix:
    """Of scalar local matrices (*batch, k, N, N) the same for each component, on the free ones."""
    values = scatter(local, places.entries(cells.nodes), places.ids.nnz)
    ids = _apart(places.ids, components)
    whole = Whole(ids, values, torch.zeros(ids.shape[0], dtype=torch.float64))

    def build(indptr: np.ndarray, columns: np.ndarray, entries: torch.Tensor) -> PatternMatrix:
        return PatternMatrix(
            indptr, columns, entries, symmetric=True, definite=definite, block=1, nullspace=False
        )

    zeros = replace(fixed, values=torch.zeros(len(fixed.mask), dtype=torch.float64))
    return eliminate(whole, zeros, build)[0]


def _apart(ids: scipy.sparse.csr_matrix, components: int) -> scipy.sparse.csr_matrix:
    """The pattern of a scalar matrix for each component by itself, entries with their numbers."""
    if components == 1:
        return ids
    entries = ids.tocoo()
    rows, columns = (
        (index[:, None].astype(np.int64) * components + np.arange(components)).ravel()
        for index in (entries.row, entries.col)
    )
    # One more than the numbers: an entry zero would not be kept.
    numbers = np.repeat(entries.data + 1, components)
    size = ids.shape[0] * components
    spread = scipy.sparse.coo_matrix((numbers, (rows, columns)), (size, size)).tocsr()
    spread.sort_indices()
    spread.data -= 1
    return spread


def _share(local: torch.Tensor) -> float:
    """The least eigenvalue of local matrices (*batch, k, N, N) beside their diagonals."""
    flat = local.reshape(-1, *local.shape[-2:])
    size = flat.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    if bool(((flat / size) - (flat[:1] / size[:1])).abs().max() < 1e-12):
        flat = flat[:1]
    least = 1.0
    for part in flat.split(_CHUNK):
        root = part.diagonal(dim1=-2, dim2=-1).rsqrt()
        scaled = root[:, :, None] * part * root[:, None, :]
        least = min(least, float(torch.linalg.eigvalsh(scaled).min()))
    return 0.999 * least


def _mean(cells: Quadrature, values: torch.Tensor) -> float:
    spread = values.expand(*values.shape[:-2], *cells.measure.shape)
    return float((cells.measure * spread).sum((-2, -1)).min() / cells.measure.sum())


def _lowest(mesh: Mesh) -> float:
    """(pi / L)^2, L the longest side of the box around the mesh."""
    return float((math.pi / np.ptp(mesh.points, axis=0).max()) ** 2)


def _some(candidates: torch.Tensor) -> torch.Tensor:
    """Those that are not zero."""
    return candidates[candidates.abs().flatten(1).amax(1) > 0]


def _inflow(
    mesh: Mesh, cells: Quadrature, pushing: Iterable[tuple[Side, torch.Tensor]], least: float
) -> float:
    """What alpha below zero may take off the eigenvalues, of sides with their alpha.

    On an element and its facet, |v|_F^2 <= (p + 1)(p + d) / d |F| / |K| |v|_K^2 for polynomials of
    degree p (Warburton and Hesthaven 2003). ``least``: of the weight.
    """
    p, d, worst = mesh.degree, mesh.dimension, 0.0
    volume = cells.measure.sum(-1)
    for side, alpha in pushing:
        push = float((-alpha.detach()).max())
        if push <= 0 or not len(side.numbers):
            continue
        owners = torch.from_numpy(mesh.topology.f2t[0, side.numbers].astype(np.int64))
        ratio = float((side.facets.measure.sum(-1) / volume[owners]).max())
        worst = max(worst, push * ratio * (p + 1) * (p + d) / d)
    return worst / least
