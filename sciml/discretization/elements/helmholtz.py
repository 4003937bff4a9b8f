"""The Helmholtz equation on a mesh, complex, by finite elements (Galerkin, P1 or P2).

    int (K grad u) . grad v - k^2 u v - int_open i k sqrt(K) beta u v + int_robin alpha u v
        = int f v + int_neumann g v + int_robin g v        for all v that vanish where u is given

(Ihlenburg 1998, "Finite Element Analysis of Acoustic Scattering"), waves as exp(-i omega t): beta 1
on a side lets them out, to first order (Engquist and Majda 1977), any other is an admittance. k may
be complex, its imaginary part positive where waves are damped; a layer in which it grows slowly is
one that they enter and do not leave. Waves of degree p on elements of size h are too short: their
phase is off by

    k (p! / (2 p)!)^2 (k h)^(2 p) / (2 (2 p + 1))

per unit of length (Ihlenburg and Babuska 1997), which a note tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError
from sciml.core.problem.condition import SENDS_WAVES, flux_data
from sciml.core.problem.dispatch import discretises, estimates_memory, measures
from sciml.core.problem.equation import Helmholtz
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import Quadrature, load, mass, stiffness, whole
from sciml.core.run.quantities import Measure, Prepare, Quantity
from sciml.core.run.status import Doubt
from sciml.discretization.elements.boundary import (
    Embedding,
    Side,
    Whole,
    beside,
    eliminate,
    pattern,
    scatter,
    sides,
    straightened,
    system_of,
)
from sciml.discretization.elements.data import MeshData, evaluate, mesh_data
from sciml.discretization.elements.derived import Inside, tells
from sciml.discretization.elements.functionals import Shared, pointwise
from sciml.discretization.elements.galerkin import Galerkin
from sciml.discretization.elements.scalar import conductivity, fixed_values, memory_on_mesh, placed
from sciml.discretization.volumes.coefficients import require

_KEY = "problem.equation"
_FEWEST_NODES = 10.0
COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


@discretises(Helmholtz, Mesh)
def waves_on_mesh(
    problem: Problem, mesh: Mesh, *, dtype: torch.dtype, device: torch.device
) -> LinearSystem:
    """Lower a Helmholtz problem to ``A x = b`` on a mesh, ``lift`` (*batch, nodes) complex.

    ``A`` equals its transpose but not its adjoint, hence is tagged neither symmetric nor definite.
    Raises InputError for a wavenumber or K that is not positive, and for a sponge.
    """
    equation = _checked(problem)
    data = mesh_data(problem, mesh)
    boundary = sides(problem, data, open_too=True)
    data.notes.extend(straightened(mesh))
    cells, places = whole(mesh, 2 * mesh.degree), pattern(mesh)
    K = conductivity(equation.K, cells, data)
    k = _wavenumber(equation, cells, data)
    square, entries = k.square(), places.entries(cells.nodes)
    real = scatter(stiffness(cells, K) - mass(cells, square.real), entries, places.ids.nnz)
    values = real.to(torch.complex128)
    if square.is_complex():
        values = values - 1j * scatter(mass(cells, square.imag), entries, places.ids.nnz)
    f = evaluate(equation.f, cells, data, f"{_KEY}.f")
    b = scatter(_loaded(cells, f), cells.nodes, mesh.shape[0])
    for side in boundary:
        terms = _on_side(problem, side, data)
        if terms is None:
            continue
        alpha, g = terms
        part = side.facets
        entries = places.entries(part.nodes)
        # Coefficients multiply real tables, so that each part does by itself.
        own = torch.complex(
            *(scatter(mass(part, a), entries, places.ids.nnz) for a in (alpha.real, alpha.imag))
        )
        values, b = values + own, b + scatter(_loaded(part, g), part.nodes, mesh.shape[0])
    data.notes.append(
        _resolution(mesh, cells, k.real / K.diagonal(dim1=-2, dim2=-1).amin(-1).sqrt())
    )
    fixed = fixed_values(boundary, data)
    A, right = eliminate(
        Whole(places.ids, values, b),
        fixed,
        lambda indptr, columns, own: PatternMatrix(
            indptr, columns, own, symmetric=False, definite=False
        ),
    )
    embedding = Embedding(fixed, mesh.shape)
    return placed(system_of(A, right, embedding, data, ("u",)), COMPLEX[dtype], device)


def _wavenumber(equation: Helmholtz, cells: Quadrature, data: MeshData) -> torch.Tensor:
    """k at the points of the elements, complex where it damps."""
    key = f"{_KEY}.wavenumber"
    k = evaluate(equation.wavenumber, cells, data, key)
    require(k.real, cells.points, key, positive=True)
    if k.is_complex() and bool((k.imag < 0).any()):
        raise InputError(
            "waves would grow: as exp(-i omega t) they are damped where the wavenumber's "
            "imaginary part is positive",
            key,
        )
    return k


@estimates_memory(Helmholtz, Mesh)
def _memory(problem: Problem, mesh: Mesh, itemsize: int) -> int:
    return 2 * memory_on_mesh(mesh, 1)


def _checked(problem: Problem) -> Helmholtz:
    equation = problem.equation_as(Helmholtz)
    if problem.time is not None:
        raise InputError(
            "the Helmholtz equation is one of frequency and has no time: leave time and initial "
            "out, or use kind: wave",
            "problem.time",
        )
    if equation.sponge is not None:
        raise InputError(
            "a sponge lies along the sides of a grid's box; on a mesh let the wavenumber's "
            "imaginary part grow towards the absorbing side, such as k*(1 + i*s**2)",
            f"{_KEY}.sponge",
        )
    return equation


def _on_side(
    problem: Problem, side: Side, data: MeshData
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """alpha and g of alpha u + n . K grad u = g, complex at a side's points; None without them."""
    condition = side.condition
    if condition.kind == "absorbing":
        if not side.facets.normal:
            raise InputError("waves leave through a side, not within the mesh", side.place)
        equation = problem.equation_as(Helmholtz)
        K, k = (
            beside(getattr(equation, name), side, data, f"{_KEY}.{name}")
            for name in ("K", "wavenumber")
        )
        share = 1.0 if condition.absorbing is True else condition.absorbing
        beta = evaluate(share, side.facets, data, side.key)
        if bool((beta.real < 0).any()):
            raise InputError(SENDS_WAVES, side.key)
        alpha = -1j * k * K.sqrt() * beta
        return alpha, torch.zeros_like(alpha)
    if condition.kind not in ("neumann", "robin"):
        return None

    def read(coefficient: Any, key: str) -> torch.Tensor:
        if isinstance(coefficient, (list, tuple)):
            raise InputError("a scalar equation needs one value, not a list", key)
        return evaluate(coefficient, side.facets, data, key).to(torch.complex128)

    return flux_data(condition, side.key, read)


def _loaded(part: Quadrature, f: torch.Tensor) -> torch.Tensor:
    """int f phi_i of a complex f, (*batch, k, N)."""
    if not f.is_complex():
        return load(part, f).to(torch.complex128)
    return torch.complex(load(part, f.real), load(part, f.imag))


def _resolution(mesh: Mesh, cells: Quadrature, k: torch.Tensor) -> str:
    """How many nodes the shortest wave has, and how far the phase drifts across the mesh."""
    d, p = mesh.dimension, mesh.degree
    shape = math.factorial(d) if mesh.kind.simplex else 1
    # The edge of a regular element of this volume.
    ideal = {(2, True): 4 / math.sqrt(3), (3, True): 6 * math.sqrt(2)}
    volume = cells.scale.mean(-1, keepdim=True) / shape
    h = (volume * ideal.get((d, mesh.kind.simplex), 1.0)) ** (1 / d)
    local = (k * h).detach()
    nodes = 2 * math.pi * p / float(local.max())
    factor = (math.factorial(p) / math.factorial(2 * p)) ** 2 / (2 * (2 * p + 1))
    length = float(np.ptp(mesh.points, axis=0).max())
    drift = factor * float((k.detach() * local ** (2 * p)).mean()) * length
    note = (
        f"{nodes:.3g} nodes per wavelength at the least; waves drift by about {drift:.2g} rad "
        "across the mesh"
    )
    if nodes < _FEWEST_NODES:
        return Doubt(f"{note}; fewer than {_FEWEST_NODES:g} nodes are too few, refine the mesh")
    return note


@measures(Helmholtz, Mesh)
def measures_of_waves(problem: Problem, mesh: Mesh) -> Prepare:
    """How quantities are measured: whatever an expression of u and its slopes says."""
    shared = Shared(problem, mesh)

    def prepare(quantity: Quantity, key: str) -> Measure:
        if quantity.flux is not None or quantity.force is not None:
            told = " + ".join(f"u{a}*n{a}" for a in AXES[: mesh.dimension])
            raise InputError(
                f"of waves on a mesh write {{integral: {told}, on: {quantity.on}}}",
                f"{key}.{quantity.kind}",
            )
        return pointwise(shared, quantity, key)

    return prepare


@tells(Helmholtz, Mesh)
def _of_waves(
    problem: Problem,
    mesh: Mesh,
    equation: Helmholtz,
    name: str,
    form: Callable[[], Galerkin],
) -> Mapping[str, Inside]:
    """Nothing besides the gradient."""
    return {}
