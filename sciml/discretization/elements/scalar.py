"""The scalar coefficient form on a mesh, by finite elements (Galerkin, P1 or P2).

    int (K grad u) . grad v + (b . grad u) v + c u v + int_robin alpha u v
        = int f v + int_neumann g v + int_robin g v        for all v that vanish where u is given

(Brenner and Scott 2008, chapter 5). Quadrature is exact for constant coefficients. Where advection
dominates on the scale of an element this oscillates; there the residual of the equation itself,
tested along the stream, is added in every element (SUPG, Brooks and Hughes 1982),

    sum_e int_e tau (b . grad v) (b . grad u + c u - div(K grad u) - f),
    tau = h / (2 |b|) (coth P - 1 / P),    P = |b| h / (2 K),

h the element's length along the stream over the polynomials' degree; the exact solution still
solves the equations, so that the order stays, and of P1 on a line the nodes are exact where the
coefficients are constant. Beside a layer that is thinner than an element and that the stream meets
at an angle some overshoot is left, a tenth to a fifth of the jump on triangles and more on others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import IncompatibleData, InputError
from sciml.core.problem.condition import flux_data, names_state
from sciml.core.problem.dispatch import discretises, estimates_memory
from sciml.core.problem.equation import Equation
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import (
    Quadrature,
    advection,
    along,
    corner_tables,
    divergence,
    load,
    mass,
    slope_of,
    stiffness,
    whole,
)
from sciml.core.run.status import Doubt
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
    straightened,
    system_of,
    tied,
)
from sciml.discretization.elements.data import MeshData, evaluate, mesh_data

_KEY = "problem.equation"


@discretises(Equation, Mesh)
def discretize_on_mesh(
    problem: Problem, mesh: Mesh, *, dtype: torch.dtype, device: torch.device
) -> LinearSystem:
    """Lower a steady linear problem to ``A x = b`` on a mesh.

    ``A`` is a :class:`PatternMatrix` of batch (*A.batch), ``b`` has shape (*batch, unknowns);
    assembled in float64, then in ``dtype`` on ``device``. Both are differentiable in tensor
    coefficients, sources and boundary values. ``lift`` gives (*batch, nodes). Raises InputError for
    data that make no well-posed system.
    """
    parts = assembled(problem, mesh)
    b, defect, measure = parts.b, None, None
    if parts.singular:
        b, defect = _compatible(parts.cells, b, mesh, parts.data)
        measure = _volumes(parts.cells, mesh)
    A, right = parts.eliminated(parts.values, b, parts.definite)
    embedding = Embedding(parts.fixed, mesh.shape)
    system = system_of(A, right, embedding, parts.data, ("u",), defect)
    return placed(replace(system, measure=measure), dtype, device)


@dataclass(frozen=True)
class Assembly:
    """All of a problem.

    ``values``: the matrix's entries, by ``places``; ``b``: (*batch, nodes). ``singular``: whether
    constants are in its kernel.
    """

    data: MeshData
    cells: Quadrature
    places: Pattern
    values: torch.Tensor
    b: torch.Tensor
    fixed: Fixed
    symmetric: bool
    definite: bool
    singular: bool

    def eliminated(
        self, values: torch.Tensor, b: torch.Tensor, definite: bool, singular: bool | None = None
    ) -> tuple[PatternMatrix, torch.Tensor]:
        """The matrix of these ``values`` and b on the free nodes."""

        def build(indptr: np.ndarray, columns: np.ndarray, entries: torch.Tensor) -> PatternMatrix:
            # Ruge-Stuben coarsening takes more iterations on every finer irregular or P2 mesh,
            # smoothed aggregation hardly any; the constants tell AMG to use that.
            constants = np.ones((len(indptr) - 1, 1)) if self.symmetric else None
            return PatternMatrix(
                indptr,
                columns,
                entries,
                symmetric=self.symmetric,
                definite=definite,
                nullspace=self.singular if singular is None else singular,
                near_nullspace=constants,
            )

        return eliminate(Whole(self.places.ids, values, b), self.fixed, build)


def assembled(problem: Problem, mesh: Mesh, *, parted: bool = False) -> Assembly:
    """The system before elimination; ``parted``: separate parts of the mesh need not be held."""
    check_steady(problem)
    _check_form(problem.form, mesh.dimension)
    data = mesh_data(problem, mesh)
    boundary = sides(problem, data)
    for side in boundary:
        if names_state(side.condition, problem.unknowns, problem.parameters):
            raise InputError(
                "data of a side name the solution: the problem is nonlinear, use newton or auto",
                side.key,
            )
    data.notes.extend(straightened(mesh))
    cells = whole(mesh, 2 * mesh.degree)
    places = pattern(mesh)
    local, symmetric, reaction = _local(problem.form, cells, data)
    size = places.ids.nnz
    f = evaluate(problem.form.f, cells, data, f"{_KEY}.f")
    right, stream = load(cells, f), streamline(problem.form, cells, data)
    if stream is not None:
        local = local + stream.tested.mT @ stream.strong
        right = right + stream.load(f)
    values = scatter(local, places.entries(cells.nodes), size)
    b = scatter(right, cells.nodes, mesh.shape[0])
    values, b, held = _add_sides(boundary, data, places, values, b)
    fixed = fixed_values(boundary, data)
    definite = symmetric and reaction is not None and held is not None
    anchored = bool(reaction) or bool(held)
    singular = not anchored and _is_singular(mesh, fixed, parted)
    return Assembly(data, cells, places, values, b, fixed, symmetric, definite, singular)


@estimates_memory(Equation, Mesh)
def _memory(problem: Problem, mesh: Mesh, itemsize: int) -> int:
    return memory_on_mesh(mesh, 1)


def memory_on_mesh(mesh: Mesh, components: int) -> int:
    """Bytes at the peak of ``discretize``: local matrices, their places and the pattern."""
    local = len(mesh.cells) * mesh.cell_nodes.shape[1] ** 2
    assembly = local * (16 * components**2 + 24)
    return int(assembly + len(mesh.cells) * (mesh.dimension**2 * 32 + 200))


def check_steady(problem: Problem) -> None:
    """Raise InputError for a problem in time, which is no system of linear equations."""
    if problem.time is not None:
        raise InputError(
            "a problem in time is no linear system: it is solved by sdirk or bdf", "problem.time"
        )


def _local(
    equation: Equation, cells: Quadrature, data: MeshData
) -> tuple[torch.Tensor, bool, bool | None]:
    """Local matrices, whether they are symmetric, and c: False where 0, None where negative."""
    K = conductivity(equation.K, cells, data)
    local = stiffness(cells, K)
    speed = _speed(equation, cells, data)
    symmetric = speed is None
    if speed is not None:
        local = local + advection(cells, speed)
    c = evaluate(equation.c, cells, data, f"{_KEY}.c")
    reaction: bool | None = bool((c > 0).any())
    if bool((c != 0).any()):
        local = local + mass(cells, c)
    if bool((c < 0).any()):
        reaction = None
    return local, symmetric, reaction


def conductivity(K: Any, cells: Quadrature, data: MeshData, key: str = f"{_KEY}.K") -> torch.Tensor:
    """K at the quadrature points, (*batch, k, Q, 1, 1), or (..., d, d) where it is no scalar."""
    d = data.mesh.dimension
    if not isinstance(K, (list, tuple)):
        return evaluate(K, cells, data, key, positive=True)[..., None, None]
    if not isinstance(K[0], (list, tuple)):
        entries = [evaluate(v, cells, data, f"{key}.{i}", positive=True) for i, v in enumerate(K)]
        return torch.diag_embed(_stack(entries))
    rows = [
        [evaluate(v, cells, data, f"{key}.{a}.{b}") for b, v in enumerate(row)]
        for a, row in enumerate(K)
    ]
    full = _stack([_stack(list(torch.broadcast_tensors(*row))) for row in rows], depth=1)
    if not torch.equal(full, full.mT):
        raise InputError("a tensor K must be symmetric", key)
    minors = [torch.linalg.det(full[..., :n, :n]) for n in range(1, d + 1)]
    if any(bool((minor <= 0).any()) for minor in minors):
        raise InputError("a tensor K must be positive definite everywhere", key)
    return full


def _stack(entries: list[torch.Tensor], depth: int = 0) -> torch.Tensor:
    """Stack on a new axis before the last ``depth`` ones, of broadcast shapes."""
    return torch.stack(list(torch.broadcast_tensors(*entries)), dim=-1 - depth)


def _speed(equation: Equation, cells: Quadrature, data: MeshData) -> torch.Tensor | None:
    """b at the quadrature points, (*batch, k, Q, d), k and Q 1 where constant; None without one."""
    b = equation.b
    if b is None or all(isinstance(v, Real) and v == 0 for v in b):
        return None
    return _stack([evaluate(v, cells, data, f"{_KEY}.b.{i}") for i, v in enumerate(b)])


@dataclass(frozen=True)
class Streamline:
    """What SUPG adds: ``tested`` w |det J| tau b . grad phi_i and ``strong`` the equation of phi_j.

    Both (*batch, k, Q, N).
    """

    tested: torch.Tensor
    strong: torch.Tensor

    def load(self, f: torch.Tensor) -> torch.Tensor:
        """int tau (b . grad phi_i) f, (*batch, k, N)."""
        return (self.tested * f[..., None]).sum(-2)


def streamline(equation: Equation, cells: Quadrature, data: MeshData) -> Streamline | None:
    """SUPG's terms where the mesh asks for them or advection dominates, else None.

    With a note, which is a doubt where advection dominates and the mesh says galerkin.
    """
    speed = _speed(equation, cells, data)
    if speed is None:
        return None
    K = conductivity(equation.K, cells, data)
    if not stabilised(K, speed, cells, data):
        return None
    c = evaluate(equation.c, cells, data, f"{_KEY}.c")
    tau = stream_time(data.mesh, cells, K, speed, c)
    carrying = along(cells, speed)
    strong = carrying + c[..., None] * cells.tables.values
    full = K if K.shape[-1] > 1 else K * torch.eye(data.mesh.dimension, dtype=torch.float64)
    flux = torch.einsum("...kqab,kqjb->...jkqa", full, slope_of(cells))
    strong = strong - divergence(data.mesh, cells, flux).movedim(-3, -1)
    return Streamline((cells.measure * tau)[..., None] * carrying, strong)


def stabilised(
    K: torch.Tensor, speed: torch.Tensor, cells: Quadrature, data: MeshData, field: str = ""
) -> bool:
    """Whether SUPG is in place: where the mesh asks for it, or advection dominates and it may be.

    What there is to know of it goes into the notes of ``data``.
    """
    mesh, peclet = data.mesh, mesh_peclet(cells, K, speed)
    supg = mesh.scheme == "supg" or (mesh.scheme is None and peclet > 1)
    if peclet > 1:
        data.notes.append(dominates(peclet, supg, field))
    return supg


def dominates(peclet: float, supg: bool, field: str = "", able: bool = True) -> str:
    """What is to be known where advection dominates, a doubt where nothing is done about it.

    ``able``: whether SUPG is there for this equation.
    """
    said = f"{field}: " * bool(field) + f"the mesh Peclet number h |b| / 2K reaches {peclet:.3g}"
    if not supg:
        tail = ", or scheme: supg" if able else "; SUPG is for K, b, c and f without u_tt"
        return Doubt(f"{said}: above 1 the solution may oscillate; refine the mesh{tail}")
    return (
        f"{said}: advection is stabilised by SUPG; beside a layer thinner than an element "
        "a fifth of its jump and more may be overshoot; refine there"
    )


_STILL = 1e-100  # a speed that is none


def stream_time(
    mesh: Mesh, cells: Quadrature, K: torch.Tensor, speed: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """tau at the quadrature points, (*batch, k, Q), 0 where nothing moves.

    Of K (*batch, k, Q, 1, 1) or (..., d, d), b (*batch, k, Q, d) and c (*batch, k, Q).
    """
    size = torch.linalg.vector_norm(speed, dim=-1)
    moving = size > _STILL
    across = along(replace(cells, tables=corner_tables(mesh, cells.tables)), speed)
    safe = torch.where(moving, size, 1.0)
    h = 2 * safe / (torch.where(moving, across.abs().sum(-1), 1.0) * mesh.degree)
    spread = (K @ speed[..., None])[..., 0] if K.shape[-1] > 1 else K[..., 0] * speed
    carried = (speed * spread).sum(-1) / safe**2
    P = safe * h / (2 * torch.where(carried > 0, carried, 1.0))
    bent = torch.where(P < 1e-2, P / 3, 1 / P.clamp(min=1e-2).tanh() - 1 / P.clamp(min=1e-2))
    tau = h / (2 * safe) * bent
    return torch.where(moving, tau / (1 + tau * c.abs()), 0.0)


def mesh_peclet(cells: Quadrature, K: torch.Tensor, speed: torch.Tensor) -> float:
    """The largest h |b| / 2 K, h the element's size."""
    size = cells.scale ** (1 / speed.shape[-1])
    least = K.detach().diagonal(dim1=-2, dim2=-1).amin(-1)
    return float((size * torch.linalg.vector_norm(speed.detach(), dim=-1) / (2 * least)).max())


def _add_sides(
    boundary: list[Side], data: MeshData, places: Pattern, values: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, bool | None]:
    """The integrals of neumann and robin; then alpha: False where 0, None where negative."""
    held: bool | None = False
    for side in boundary:
        if side.condition.kind not in ("neumann", "robin"):
            continue
        part = side.facets
        alpha, g = flux_data(side.condition, side.key, partial(_on_part, part, data))
        b = b + scatter(load(part, g), part.nodes, data.mesh.shape[0])
        if side.condition.robin is not None:
            entries = scatter(mass(part, alpha), places.entries(part.nodes), values.shape[-1])
            values = values + entries
            held = None if held is None or bool((alpha < 0).any()) else held or bool(alpha.any())
    return values, b, held


def _on_part(part: Quadrature, data: MeshData, coefficient: Any, key: str) -> torch.Tensor:
    if isinstance(coefficient, (list, tuple)):
        raise InputError("a scalar equation needs one value, not a list", key)
    return evaluate(coefficient, part, data, key)


def fixed_values(boundary: list[Side], data: MeshData) -> Fixed:
    """The Dirichlet nodes of a scalar problem and their values."""
    count = data.mesh.shape[0]
    mask = np.zeros(count, dtype=bool)
    values = torch.zeros(count, dtype=torch.complex128 if data.complex else torch.float64)
    for side in boundary:
        if side.condition.dirichlet is None:
            continue
        if isinstance(side.condition.dirichlet, (list, tuple)):
            raise InputError("a scalar equation needs one value, not a list", side.key)
        g = evaluate(side.condition.dirichlet, side.nodes, data, side.key)[..., 0]
        nodes = side.nodes.nodes[:, 0]
        new = ~mask[nodes.numpy()]
        values = assigned(values, nodes[new], g.expand(*g.shape[:-1], len(nodes))[..., new])
        mask[nodes.numpy()] = True
    links = tied(boundary, data.mesh, mask, 1, [])
    return Fixed(mask, values) if links is None else links.fixed(values, [])


def assigned(values: torch.Tensor, index: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """``values`` (*batch, n) with ``given`` (*batch, k) at ``index``."""
    batch = torch.broadcast_shapes(values.shape[:-1], given.shape[:-1])
    full = values.expand(*batch, values.shape[-1])
    return full.index_copy(-1, index, given.expand(*batch, len(index)).to(values.dtype))


def _is_singular(mesh: Mesh, fixed: Fixed, parted: bool) -> bool:
    """Whether constants are in the kernel; InputError where only a part of the mesh is held.

    ``parted``: every part may be free by itself.
    """
    owner = None if fixed.ties is None else fixed.ties.matrix.indices
    part = parts_of(mesh, owner)
    free = np.setdiff1d(part, part[fixed.held])
    if len(free) and part.max() > 0 and not parted:
        first = mesh.nodes[np.flatnonzero(part == free[0])[0]]
        raise InputError(
            f"the mesh has {part.max() + 1} separate parts and nothing fixes u on the one at "
            f"{', '.join(f'{v:.4g}' for v in first)}: give a dirichlet or robin condition there",
            "problem.boundary",
        )
    return len(free) > 0


def _volumes(cells: Quadrature, mesh: Mesh) -> torch.Tensor:
    """The integral of every node's basis function, (nodes,)."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return scatter(load(cells, one), cells.nodes, mesh.shape[0])


def _compatible(
    cells: Quadrature, b: torch.Tensor, mesh: Mesh, data: MeshData
) -> tuple[torch.Tensor, torch.Tensor]:
    """``b`` less its mean over the volume, and the defect |sum b| / sum |b| that this removes."""
    weights = _volumes(cells, mesh)
    total = b.sum(-1, keepdim=True)
    size = b.abs().sum(-1)
    defect = total.abs()[..., 0] / torch.where(size > 0, size, torch.ones_like(size))
    worst = float(defect.detach().max())
    if worst > 0.01 + 4 * len(mesh.cells) ** (-2 / mesh.dimension):
        raise IncompatibleData(
            "incompatible data: the source, and the fluxes where there are sides, integrate to "
            f"{float(total.detach().flatten()[defect.detach().argmax()]):.4g}, must be 0, "
            "since no side fixes the level of u",
            f"{_KEY}.f",
        )
    if worst > 1e-10:
        data.notes.append(
            f"made compatible: source and fluxes integrate to {worst:.1e} of their size, not 0"
        )
    return b - weights * (total / weights.sum()), defect


def _check_form(equation: Equation, d: int) -> None:
    for name in ("m", "d"):
        value = getattr(equation, name)
        if not (isinstance(value, Real) and value == 0):
            raise InputError(
                f"the equation depends on time: give time: and initial:, or leave {name} out",
                f"{_KEY}.{name}",
            )
    for name in ("dispersion", "biharmonic"):
        value = getattr(equation, name)
        if not (isinstance(value, Real) and value == 0):
            raise InputError(
                f"an equation with {name} is not solved on meshes; use a grid", f"{_KEY}.{name}"
            )
    for name in ("K", "b"):
        value = getattr(equation, name)
        lists = [value] if isinstance(value, (list, tuple)) else []
        lists += [row for row in value if isinstance(row, (list, tuple))] if lists else []
        if any(len(entries) != d for entries in lists):
            raise InputError(
                f"{name} has {len(value)} entries; a mesh in {d} dimensions needs {d}",
                f"{_KEY}.{name}",
            )


def placed(system: LinearSystem, dtype: torch.dtype, device: torch.device) -> LinearSystem:
    """The system in another dtype or on another device."""
    A = system.A
    assert isinstance(A, PatternMatrix)
    if dtype == A.dtype and device == A.device:
        return system
    moved = PatternMatrix(
        A.indptr,
        A.columns,
        A.values.to(device, dtype),
        symmetric=A.symmetric,
        definite=A.definite,
        nullspace=A.nullspace,
        near_nullspace=A.near_nullspace,
        block=A.block,
    )
    return replace(system, A=moved, b=system.b.to(device, dtype))
