"""Linear elasticity on a mesh, by finite elements (P1 or P2 for every component).

    sigma(u) = lambda (div u) 1 + 2 mu eps(u) - (3 lambda + 2 mu) e 1,
    eps(u) = (grad u + grad u^T) / 2,    e the thermal strain,
    int sigma(u) : eps(v) + int_robin (alpha u) . v
        = int force . v + int_neumann traction . v + int_robin g . v,

with lambda = E nu / ((1 + nu)(1 - 2 nu)), mu = E / (2 (1 + nu)), and for plane stress lambda =
E nu / (1 - nu^2) (Braess 2007, chapter VI). On an axisymmetric mesh x = r, y = z, the third axis is
the angle, eps_zz of the 3 x 3 tensors is u_r / r there, div u has that term too, and u_r = 0 on the
axis (Zienkiewicz and Taylor 2000, volume 1, chapter 5). Unknown (node i, component a) has the
number i d + a. P1 is too stiff in bending and locks as nu tends to 1/2: P2 is the default, and P1
is noted. Algebraic multigrid is given the rigid motions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError
from sciml.core.problem.dispatch import discretises, estimates_memory, stores
from sciml.core.problem.equation import Elasticity
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import (
    Quadrature,
    gradients,
    hoops,
    load,
    slope_of,
    slopes,
    tensor_mass,
    whole,
)
from sciml.core.problem.reader import Normal
from sciml.core.run.status import Doubt
from sciml.discretization.elements import orthotropic, recovery
from sciml.discretization.elements.boundary import (
    Embedding,
    Fixed,
    Pattern,
    Side,
    Whole,
    along_normal,
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
from sciml.discretization.elements.scalar import check_steady, memory_on_mesh, placed

_KEY = "problem.equation"
# Components of symmetric tensors, in VTK's order.
PAIRS = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "xy": (0, 1), "yz": (1, 2), "xz": (0, 2)}
STRESSES = (*(f"s{pair}" for pair in PAIRS), "mises")
_LOCKING = 9.0  # lambda / mu at a Poisson's ratio of 0.45
TensorAt = Callable[[Problem, Quadrature, MeshData, torch.Tensor], torch.Tensor]


@discretises(Elasticity, Mesh)
def elasticity_system(
    problem: Problem, mesh: Mesh, *, dtype: torch.dtype, device: torch.device
) -> LinearSystem:
    """``A x = b`` for the displacement, ``lift`` (*batch, d, nodes); see ``discretize_on_mesh``."""
    parts = assembled(problem, mesh)
    # Of a body of revolution only the shift along its axis strains nothing.
    free = parts.motions[:, 1:2] if mesh.axisymmetric else parts.motions
    check_held(mesh, parts.fixed, parts.springs, free)
    b = _loads(problem, parts.boundary, parts.cells, parts.data)
    A, right = parts.eliminated(b)
    embedding = Embedding(parts.fixed, (mesh.dimension, mesh.shape[0]))
    fields = problem.equation.fields(mesh.dimension)
    return placed(system_of(A, right, embedding, parts.data, fields), dtype, device)


@dataclass(frozen=True)
class Assembly:
    """The stiffness of a body before elimination.

    ``ids``: its pattern, the data its entries' numbers; ``values`` (*batch, entries); ``motions``:
    (nodes d, 3 or 6) rigid ones. ``springs``: facets with alpha there, (*batch, k, Q, d, d);
    ``definite``: whether none of them pushes.
    """

    data: MeshData
    boundary: list[Side]
    cells: Quadrature
    ids: scipy.sparse.csr_matrix
    values: torch.Tensor
    fixed: Fixed
    motions: np.ndarray
    springs: list[tuple[Quadrature, torch.Tensor]]
    definite: bool

    def eliminated(self, b: torch.Tensor) -> tuple[PatternMatrix, torch.Tensor]:
        """The matrix on the free unknowns, and what is left of b (*batch, nodes d) there."""
        block = self.data.mesh.dimension if _in_blocks(self.fixed.mask, self.data) else 1
        motions = self.motions
        if self.fixed.ties is not None:
            motions = self.fixed.ties.drop(torch.from_numpy(motions.T.copy())).numpy().T
        return eliminate(
            Whole(self.ids, self.values, b),
            self.fixed,
            lambda indptr, columns, entries: PatternMatrix(
                indptr,
                columns,
                entries,
                symmetric=True,
                definite=self.definite,
                near_nullspace=motions[~self.fixed.mask],
                block=block,
            ),
        )


def check_plane(equation: Elasticity, mesh: Mesh, key: str) -> None:
    """Raise InputError for a thin plate on a mesh of a whole body."""
    if equation.plane == "stress" and (mesh.axisymmetric or mesh.dimension == 3):
        body = "an axisymmetric body" if mesh.axisymmetric else "a body in 3 dimensions"
        raise InputError(
            f"plane: stress is of thin plates; {body} is whole: leave plane out", f"{key}.plane"
        )


def assembled(problem: Problem, mesh: Mesh) -> Assembly:
    """The stiffness; raises InputError for a mesh or conditions that no elastic body has."""
    check_steady(problem)
    equation, d = problem.equation_as(Elasticity), mesh.dimension
    if d == 1:
        raise InputError("elasticity needs a mesh in 2 or 3 dimensions", "mesh")
    check_plane(equation, mesh, _KEY)
    if mesh.axisymmetric and equation.orthotropic:
        raise InputError(
            "an axisymmetric body is alike in all directions here: give one young", f"{_KEY}.young"
        )
    data = mesh_data(problem, mesh)
    boundary = sides(problem, data)
    for side in boundary:
        if side.condition.kind not in ("dirichlet", "neumann", "robin", "periodic"):
            raise InputError(
                "an elastic body's boundary takes dirichlet, neumann, robin or periodic",
                f"problem.boundary.{side.name}",
            )
    data.notes.extend(straightened(mesh))
    cells = whole(mesh, 2 * mesh.degree)
    if equation.orthotropic:
        C = orthotropic.reduced(equation, stiffness_at(equation, cells, data), d)
        local = orthotropic.local_stiffness(cells, C)
        data.notes.extend([_stiff(mesh)] if mesh.degree == 1 else [])
    else:
        first, second = lame(equation, cells, data)
        local = _local(cells, first, second)
        data.notes.extend([_stiff(mesh, first / second)] if mesh.degree == 1 else [])
    places = pattern(mesh)
    ids = _block_pattern(places, d)
    values = scatter(local, _block_entries(places, cells, d), places.ids.nnz * d * d)
    fixed, definite = _fixed(boundary, data), True
    springs = [(s.facets, _springs(s, data)) for s in boundary if s.condition.robin is not None]
    for part, alpha in springs:
        local = tensor_mass(part, alpha)
        values = values + scatter(local, _block_entries(places, part, d), values.shape[-1])
        definite &= bool((alpha.diagonal(dim1=-2, dim2=-1) >= 0).all())
    motions = rigid_motions(mesh)
    return Assembly(data, boundary, cells, ids, values, fixed, motions, springs, definite)


def _stiff(mesh: Mesh, bulky: torch.Tensor | None = None) -> str:
    """What to say of P1 for these lambda / mu; of a spec it is measured."""
    one, two = mesh.kind.elements
    said = f"{one} is too stiff in bending, by a third of the deflection with two elements across"
    instead = f"element: {two}, the default for elasticity, is not"
    if bulky is not None and float(bulky.max()) > _LOCKING:
        return Doubt(f"{said}, and it locks as Poisson's ratio nears 0.5; {instead}")
    return f"{said}; {instead}"


@estimates_memory(Elasticity, Mesh)
def _memory(problem: Problem, mesh: Mesh, itemsize: int) -> int:
    return memory_on_mesh(mesh, mesh.dimension)


def lame(
    equation: Elasticity, part: Quadrature, data: MeshData
) -> tuple[torch.Tensor, torch.Tensor]:
    """lambda and mu at the quadrature points, (*batch, k, Q); InputError for unphysical moduli."""
    E = evaluate(equation.young, part, data, f"{_KEY}.young", positive=True)
    nu = evaluate(equation.poisson_ratio, part, data, f"{_KEY}.poisson_ratio")
    if not bool(((nu > -1) & (nu < 0.5)).all()):
        raise InputError(
            "poisson_ratio must lie between -1 and 0.5, both excluded", f"{_KEY}.poisson_ratio"
        )
    thin = equation.plane == "stress" and len(part.points) == 2
    return E * nu / ((1 - nu**2) if thin else (1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))


def stiffness_at(equation: Elasticity, part: Quadrature, data: MeshData) -> torch.Tensor:
    """C of an orthotropic solid at the quadrature points, (*batch, k, Q, 3, 3, 3, 3)."""
    return orthotropic.stiffness(equation, _reads(part, data), _KEY, data.mesh.dimension)


def _reads(part: Quadrature, data: MeshData) -> orthotropic.Read:
    return lambda coefficient, key: evaluate(coefficient, part, data, key)


def shear_modulus(equation: Elasticity, part: Quadrature, data: MeshData) -> torch.Tensor:
    """mu, of an orthotropic solid the least of its shear moduli, (*batch, k, Q)."""
    if equation.shear is None:
        return lame(equation, part, data)[1]
    read = _reads(part, data)
    moduli = [read(G, f"{_KEY}.shear.{n}") for n, G in enumerate(equation.shear)]
    return torch.stack(list(torch.broadcast_tensors(*moduli))).amin(0)


def _orthotropic_stress(
    equation: Elasticity, part: Quadrature, data: MeshData, value: torch.Tensor
) -> torch.Tensor:
    """C : (eps - thermal strain), (*batch, k, Q, 3, 3)."""
    d, C = data.mesh.dimension, stiffness_at(equation, part, data)
    free = orthotropic.free_strain(equation, _reads(part, data), _KEY, d)
    elastic = _plane_strain(part, value) - free[..., :d, :d]
    if d == 2 and equation.plane == "stress":
        inner = orthotropic.contracted(orthotropic.in_plane(C, True), elastic)
        return torch.nn.functional.pad(inner, (0, 1, 0, 1))
    elastic = torch.nn.functional.pad(elastic, (0, 3 - d, 0, 3 - d))
    if d == 2:
        elastic[..., 2, 2] = elastic[..., 2, 2] - free[..., 2, 2]
    return orthotropic.contracted(C, elastic)


def stress_at(
    problem: Problem, part: Quadrature, data: MeshData, value: torch.Tensor
) -> torch.Tensor:
    """The stress at the quadrature points of elements, (*batch, k, Q, 3, 3), the unit of ``young``.

    ``value``: displacements (*batch, d, nodes). In plane strain sigma_zz is nu (sigma_xx +
    sigma_yy); in plane stress it is 0.
    """
    equation, d = problem.equation_as(Elasticity), data.mesh.dimension
    if equation.orthotropic:
        return _orthotropic_stress(equation, part, data, value)
    first, second = lame(equation, part, data)
    strain = _plane_strain(part, value)
    trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
    if part.around is not None:
        hoop = _hoop_strain(part, value)
        trace = trace + hoop
    unit = torch.eye(d, dtype=torch.float64)
    sigma = (first * trace)[..., None, None] * unit + 2 * second[..., None, None] * strain
    if d == 2:
        sigma = torch.nn.functional.pad(sigma, (0, 1, 0, 1))
        if equation.plane == "strain":
            sigma[..., 2, 2] = first * trace
        if part.around is not None:
            sigma[..., 2, 2] = first * trace + 2 * second * hoop
    heated = _thermal_stress(equation, part, data)
    if heated is not None:
        thin = d == 2 and equation.plane == "stress"
        axes = torch.tensor([1.0, 1.0, 0.0 if thin else 1.0], dtype=torch.float64)
        sigma = sigma - heated[..., None, None] * torch.diag(axes)
    return sigma


@stores(Elasticity, Mesh)
def strain_energy(problem: Problem, mesh: Mesh, value: torch.Tensor) -> torch.Tensor:
    """int sigma : (eps - thermal strain) / 2 of displacements (*batch, d, nodes)."""
    part, data = whole(mesh, 2 * mesh.degree), mesh_data(problem, mesh)
    sigma, strain = (at(problem, part, data, value) for at in (stress_at, strain_at))
    equation = problem.equation_as(Elasticity)
    strain = strain - orthotropic.free_strain(equation, _reads(part, data), _KEY, mesh.dimension)
    return (part.measure * (sigma * strain).sum((-2, -1)) / 2).sum((-2, -1))


def strain_at(
    problem: Problem, part: Quadrature, data: MeshData, value: torch.Tensor
) -> torch.Tensor:
    """(grad u + grad u^T) / 2 at the same points, (*batch, k, Q, 3, 3).

    In plane stress eps_zz is -nu / (1 - nu) (eps_xx + eps_yy), in plane strain 0, and about an axis
    the hoop strain.
    """
    equation, strain = problem.equation_as(Elasticity), _plane_strain(part, value)
    if data.mesh.dimension == 3:
        return strain
    whole_strain = torch.nn.functional.pad(strain, (0, 1, 0, 1))
    if part.around is not None:
        whole_strain[..., 2, 2] = _hoop_strain(part, value)
    if equation.plane == "stress" and equation.orthotropic:
        C = stiffness_at(equation, part, data)
        free = orthotropic.free_strain(equation, _reads(part, data), _KEY, 2)
        across = (C[..., 2, 2, :2, :2] * (strain - free[..., :2, :2])).sum((-2, -1))
        whole_strain[..., 2, 2] = free[..., 2, 2] - across / C[..., 2, 2, 2, 2]
    elif equation.plane == "stress":
        first, second = lame(equation, part, data)
        trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
        free = evaluate(equation.thermal_strain, part, data, f"{_KEY}.thermal_strain")
        whole_strain[..., 2, 2] = -first / (2 * second) * trace + (1 + first / second) * free
    return whole_strain


def _plane_strain(part: Quadrature, value: torch.Tensor) -> torch.Tensor:
    """The strain of the axes that the mesh has, (*batch, k, Q, d, d)."""
    # (*batch, component, axis, k, Q) to (*batch, k, Q, component, axis)
    slope = slopes(part, value).movedim((-4, -3), (-2, -1))
    return (slope + slope.mT) / 2


def _hoop_strain(part: Quadrature, value: torch.Tensor) -> torch.Tensor:
    """u_r / r at the points of elements, (*batch, k, Q)."""
    return part.at_points(value[..., 0, :]) / part.points[0]


def equivalent(sigma: torch.Tensor) -> torch.Tensor:
    """Von Mises' sqrt(3/2 s : s) of stresses (..., 3, 3), s the deviator."""
    mean = sigma.diagonal(dim1=-2, dim2=-1).mean(-1)
    deviator = sigma - mean[..., None, None] * torch.eye(3, dtype=torch.float64)
    return (1.5 * deviator.square().sum((-2, -1))).sqrt()


def stresses(sigma: torch.Tensor) -> dict[str, torch.Tensor]:
    """By their names the components of stresses (..., 3, 3), and von Mises' equivalent."""
    found = {f"s{pair}": sigma[..., a, b] for pair, (a, b) in PAIRS.items()}
    return {**found, "mises": equivalent(sigma)}


def mean_tensor(
    tensor: TensorAt, problem: Problem, mesh: Mesh, value: torch.Tensor
) -> torch.Tensor:
    """:func:`stress_at` or :func:`strain_at`, the elements' mean: (*batch, m, 3, 3)."""
    cells = whole(mesh, 2 * mesh.degree)
    inner = tensor(problem, cells, mesh_data(problem, mesh), value)
    return cells.mean(inner.movedim((-2, -1), (-4, -3))).movedim((-3, -2), (-2, -1))


def stress(problem: Problem, mesh: Mesh, value: torch.Tensor) -> torch.Tensor:
    """The elements' mean stress, (*batch, m, d, d) in the unit of ``young``.

    ``value``: displacements (*batch, d, nodes).
    """
    d = mesh.dimension
    return mean_tensor(stress_at, problem, mesh, value)[..., :d, :d]


def von_mises(problem: Problem, mesh: Mesh, value: torch.Tensor) -> torch.Tensor:
    """The equivalent of the elements' mean stress, (*batch, m); peaks are those of nodal_stress."""
    return equivalent(mean_tensor(stress_at, problem, mesh, value))


def nodal_stress(problem: Problem, mesh: Mesh, value: torch.Tensor) -> torch.Tensor:
    """The stress at the nodes, recovered: (*batch, nodes, 3, 3)."""
    return nodal_tensor(stress_at, problem, mesh, value)


def nodal_tensor(
    tensor: TensorAt, problem: Problem, mesh: Mesh, value: torch.Tensor
) -> torch.Tensor:
    """:func:`stress_at` or :func:`strain_at` at the nodes, recovered: (*batch, nodes, 3, 3)."""
    part = recovery.superconvergent(mesh)
    inner = tensor(problem, part, mesh_data(problem, mesh), value).movedim((-2, -1), (-4, -3))
    found = recovery.at_nodes(mesh, inner, recovery.materials(mesh, problem.equation))
    return found.movedim((-3, -2), (-2, -1))


def rigid_motions(mesh: Mesh) -> np.ndarray:
    """Translations and infinitesimal rotations, (nodes d, 3 or 6), about the mesh's middle."""
    x = mesh.nodes - mesh.nodes.mean(axis=0)
    x = x / max(float(np.abs(x).max()), 1e-300)
    count, d = x.shape
    modes = [np.tile(row, (count, 1)) for row in np.eye(d)]
    for a in range(d):
        for b in range(a + 1, d):
            turn = np.zeros_like(x)
            turn[:, a], turn[:, b] = -x[:, b], x[:, a]
            modes.append(turn)
    return np.stack([mode.ravel() for mode in modes], axis=1)


def _local(cells: Quadrature, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Local matrices (*batch, k, N, d, N, d): lambda d_a d_b + mu (d_b d_a + delta_ab grad . grad).

    With d_a d_b the integral of (d phi_i / d x_a)(d phi_j / d x_b) at [i, a, j, b].
    """
    if first.shape[-1] == second.shape[-1] == 1:
        plain = gradients(cells, torch.ones(1, 1, dtype=torch.float64))
        bulk, shear = (m[..., None, None, None] * plain for m in (first, second))
    else:
        bulk, shear = gradients(cells, first), gradients(cells, second)
    blocks = bulk + shear.transpose(-3, -1)
    laplace = shear.diagonal(dim1=-3, dim2=-1).sum(-1)
    blocks.diagonal(dim1=-3, dim2=-1).add_(laplace[..., None])
    if cells.around is not None:
        # With psi_i = phi_i / r, the hoop strain of a radial phi_i.
        cross, both = hoops(cells, first)
        blocks[..., :, 0, :, :] += cross
        blocks[..., :, :, :, 0] += cross.movedim(-1, -2).transpose(-3, -1)
        blocks[..., :, 0, :, 0] += both + 2 * hoops(cells, second)[1]
    return blocks


def _block_pattern(places: Pattern, d: int) -> scipy.sparse.csr_matrix:
    """The pattern over (node, component), its data the numbers of (entry, a, b)."""
    ids = places.ids
    numbers = np.arange(ids.nnz * d * d, dtype=np.int64).reshape(-1, d, d)
    return scipy.sparse.bsr_matrix((numbers, ids.indices, ids.indptr)).tocsr()


def _block_entries(places: Pattern, cells: Quadrature, d: int) -> torch.Tensor:
    """Where the entries of local matrices go, (k, N, d, N, d) int64."""
    inside = torch.arange(d * d).reshape(d, 1, d)
    return places.entries(cells.nodes)[..., None, :, None] * (d * d) + inside


def _loads(
    problem: Problem, boundary: list[Side], cells: Quadrature, data: MeshData
) -> torch.Tensor:
    """The body force, what heating does, and the tractions, (*batch, nodes d)."""
    equation, d, count = problem.equation_as(Elasticity), data.mesh.dimension, data.mesh.shape[0]
    force = equation.force if equation.force is not None else (0.0,) * d
    parts = [(cells, at_points(force, cells, data, f"{_KEY}.force"))]
    for side in boundary:
        if side.condition.kind in ("neumann", "robin"):
            parts.append((side.facets, traction(side, data)))
    total = torch.zeros(d, count, dtype=torch.float64)
    for part, given in parts:
        rows = [scatter(load(part, given[..., a]), part.nodes, count) for a in range(d)]
        total = total + torch.stack(rows, dim=-2)
    if equation.orthotropic:
        return (total + _orthotropic_heat(equation, cells, data)).mT.flatten(-2)
    heated = _thermal_stress(equation, cells, data)
    if heated is not None:
        weighted = heated * cells.measure
        local = torch.einsum("...kq,kqia->...aki", weighted, slope_of(cells))
        if cells.around is not None:
            ring = (weighted / cells.points[0]) @ cells.tables.values
            local = local + torch.stack([ring, torch.zeros_like(ring)], dim=-3)
        total = total + scatter(local, cells.nodes, count)
    return total.mT.flatten(-2)


def _orthotropic_heat(equation: Elasticity, cells: Quadrature, data: MeshData) -> torch.Tensor:
    """int (C : thermal strain) : grad v, (*batch, d, nodes)."""
    mesh, d = data.mesh, data.mesh.dimension
    if isinstance(equation.thermal_strain, (int, float)) and equation.thermal_strain == 0:
        return torch.zeros(d, mesh.shape[0], dtype=torch.float64)
    free = orthotropic.free_strain(equation, _reads(cells, data), _KEY, d)
    C = stiffness_at(equation, cells, data)
    if d == 2 and equation.plane == "stress":
        stress = orthotropic.contracted(orthotropic.in_plane(C, True), free[..., :2, :2])
    else:
        stress = orthotropic.contracted(C, free)[..., :d, :d]
    weighted = stress * cells.measure[..., None, None]
    local = torch.einsum("...kqab,kqib->...aki", weighted, slope_of(cells))
    return scatter(local, cells.nodes, mesh.shape[0])


def at_points(given: Any, part: Quadrature, data: MeshData, key: str) -> torch.Tensor:
    """A vector at a part's points, (*batch, k, Q, d): 0, a list, or its normal component alone."""
    d = data.mesh.dimension
    if isinstance(given, Normal):
        if not part.normal:
            raise InputError("the outward normal is known on the outer boundary only", key)
        size = evaluate(given.normal, part, data, f"{key}.normal")
        rows = [size * n for n in part.normal.values()]
    else:
        zero = isinstance(given, (int, float)) and given == 0
        entries = _components((0.0,) * d if zero else given, d, key)
        rows = [evaluate(v, part, data, f"{key}.{a}") for a, v in enumerate(entries)]
    shape = torch.broadcast_shapes(*(row.shape for row in rows), part.points[0].shape)
    return torch.stack([row.expand(shape) for row in rows], -1)


def traction(side: Side, data: MeshData, value: torch.Tensor | None = None) -> torch.Tensor:
    """What acts on a side, (*batch, k, Q, d): g - alpha u of displacements (*batch, d, nodes).

    Without them, g alone.
    """
    robin, part = side.condition.robin, side.facets
    if robin is None:
        return at_points(side.condition.neumann, part, data, side.key)
    given = at_points(robin.g, part, data, f"{side.key}.g")
    if value is None:
        return given
    moved = torch.stack([part.at_points(u) for u in value.unbind(-2)], -1)
    return given - (_springs(side, data) @ moved[..., None])[..., 0]


def _springs(side: Side, data: MeshData) -> torch.Tensor:
    """alpha of a bed of springs as a tensor, (*batch, k, Q, d, d)."""
    assert side.condition.robin is not None
    alpha, key, part = side.condition.robin.alpha, f"{side.key}.alpha", side.facets
    if isinstance(alpha, Normal):
        size = evaluate(alpha.normal, part, data, f"{key}.normal")
        normal = torch.stack(list(part.normal.values()), -1)
        return size[..., None, None] * normal[..., :, None] * normal[..., None, :]
    d = data.mesh.dimension
    entries = alpha if isinstance(alpha, (list, tuple)) else (alpha,) * d
    return torch.diag_embed(at_points(entries, part, data, key))


def _thermal_stress(equation: Elasticity, part: Quadrature, data: MeshData) -> torch.Tensor | None:
    """The stress that heating gives where nothing may move, (*batch, k, Q); None where none is."""
    given = equation.thermal_strain
    if isinstance(given, (int, float)) and given == 0:
        return None
    first, second = lame(equation, part, data)
    axes = 2 if equation.plane == "stress" and len(part.points) == 2 else 3
    free = evaluate(given, part, data, f"{_KEY}.thermal_strain")
    return (axes * first + 2 * second) * free


def _components(given: Any, d: int, key: str) -> tuple[Any, ...]:
    if not isinstance(given, (list, tuple)) or len(given) != d:
        raise InputError(f"needs a list of {d} components, one per axis", key)
    return tuple(given)


def _fixed(boundary: list[Side], data: MeshData) -> Fixed:
    """The given displacements, None in a list leaving its component free."""
    d, count = data.mesh.dimension, data.mesh.shape[0]
    mask = np.zeros(count * d, dtype=bool)
    values = torch.zeros(count * d, dtype=torch.float64)
    for side in boundary:
        given = side.condition.dirichlet
        if given is None or isinstance(given, Normal):
            continue
        entries = (0.0,) * d if isinstance(given, (int, float)) and given == 0 else given
        for a, entry in enumerate(_components(entries, d, side.key)):
            if entry is None:
                continue
            g = evaluate(entry, side.nodes, data, f"{side.key}.{a}")[..., 0]
            index = side.nodes.nodes[:, 0] * d + a
            new = torch.from_numpy(~mask[index.numpy()])
            batch = torch.broadcast_shapes(values.shape[:-1], g.shape[:-1])
            rows = g.expand(*batch, len(index))[..., new]
            values = values.expand(*batch, -1).index_copy(-1, index[new], rows)
            mask[index.numpy()] = True
    if data.mesh.axisymmetric:
        # What lies on the axis has nowhere to go but along it.
        mask[d * np.flatnonzero(_on_axis(data.mesh))] = True
    walls = [
        (side, given.normal)
        for side in boundary
        if isinstance(given := side.condition.dirichlet, Normal)
    ]
    links = tied(boundary, data.mesh, mask, d, [(side, 0) for side, _ in walls])
    if links is None:
        return Fixed(mask, values)
    return links.fixed(
        values, [along_normal(side, given, f"{side.key}.normal", data) for side, given in walls]
    )


def _on_axis(mesh: Mesh) -> np.ndarray:
    found: np.ndarray = mesh.nodes[:, 0] <= 1e-12 * np.ptp(mesh.nodes, axis=0).max()
    return found


def _in_blocks(mask: np.ndarray, data: MeshData) -> bool:
    """Whether nodes are fixed in all components or in none."""
    held = mask.reshape(-1, data.mesh.dimension)
    return bool((held.all(axis=1) == held.any(axis=1)).all())


def check_held(
    mesh: Mesh,
    fixed: Fixed,
    springs: list[tuple[Quadrature, torch.Tensor]],
    motions: np.ndarray,
) -> None:
    """Raise InputError where a part of the mesh can move as a rigid body."""
    d, ties, owner = mesh.dimension, fixed.ties, None
    own = motions
    if ties is not None:
        own = ties.drop(torch.from_numpy(motions.T.copy())).numpy().T
        # Only motions that the ties admit are motions: a periodic body does not turn.
        broken = motions - ties.lift(torch.from_numpy(own.T.copy())).numpy().T
        admitted = scipy.linalg.null_space(broken, rcond=1e-9)
        motions, own = motions @ admitted, own @ admitted
        owner = ties.matrix.indices[ties.matrix.indptr[:-1:d]] // d
    part = parts_of(mesh, owner)
    rows, owners_ = [own[fixed.held]], [np.repeat(part, d)[fixed.held]]
    by_node = torch.from_numpy(motions.reshape(len(part), d, -1))
    for facets, alpha in springs:
        size = alpha.detach().abs().flatten(0, -5).amax(0) if alpha.ndim > 4 else alpha.detach()
        moved = torch.einsum("qi,kiam->kqam", facets.tables.values, by_node[facets.nodes])
        pull = (size / size.abs().max().clamp(min=torch.finfo(torch.float64).tiny)) @ moved
        rows.append(pull.flatten(0, 2).numpy())
        owners_.append(np.repeat(part[facets.nodes[:, 0].numpy()], pull[0].shape[:2].numel()))
    stopped, of_part = np.concatenate(rows), np.concatenate(owners_)
    for number in range(part.max() + 1):
        those = stopped[of_part == number]
        rank = np.linalg.matrix_rank(those, tol=1e-9) if those.size else 0
        if rank < motions.shape[1]:
            raise InputError(
                f"the body is free to move: dirichlet conditions and springs stop {rank} of its "
                f"{motions.shape[1]} rigid motions"
                + (f" (separate part {number + 1} of the mesh)" if part.max() else ""),
                "problem.boundary",
            )
