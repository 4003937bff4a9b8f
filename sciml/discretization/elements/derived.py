"""Fields derived from an answer on a mesh: gradients, fluxes, vorticity, strains and stresses.

Each is known :class:`Inside` the elements, from whose basis functions it follows, and jumps between
them. At the nodes it is recovered (:mod:`sciml.discretization.elements.recovery`); over elements
there are its means, and of stresses the extremes at the quadrature points, which are not recovered.
Principal values and von Mises' stress are those of the recovered, or the mean, tensor.

The stream function of a plane flow, u = psi_y and v = -psi_x, is the finite element function with

    int grad psi . grad phi_i = int u (phi_i)_y - v (phi_i)_x    for all i,

zero at the first node: the least-squares potential of the flow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.core.problem.dispatch import Dispatch, derives
from sciml.core.problem.equation import (
    COMPONENTS,
    Elasticity,
    Equation,
    Helmholtz,
    Hyperelasticity,
    NavierStokes,
    Plasticity,
    Stokes,
    System,
)
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import Quadrature, pulled_back, slopes, stiffness, whole
from sciml.core.run.derived import Derivation
from sciml.core.run.differentiate import attach
from sciml.discretization.elements import plasticity
from sciml.discretization.elements.boundary import scatter
from sciml.discretization.elements.data import mesh_data
from sciml.discretization.elements.elasticity import (
    PAIRS,
    TensorAt,
    equivalent,
    strain_at,
    stress_at,
)
from sciml.discretization.elements.galerkin import Galerkin
from sciml.discretization.elements.laws import Point
from sciml.discretization.elements.recovery import Recovery, materials
from sciml.discretization.elements.solid import SolidLaw

# Elements, a value (*batch, [fields], nodes) and its time to entries (*batch, c, k, Q).
Entries = Callable[[Quadrature, torch.Tensor, float | None], torch.Tensor]


@dataclass(frozen=True)
class Inside:
    """What is known inside the elements.

    ``entries``: those that are recovered, (*batch, c, k, Q). ``reduce``: from these on a last axis,
    (..., c), to the ``components``, (..., components); None where they are these. ``peaks``:
    whether the largest at quadrature points are told for every element.
    """

    components: tuple[str, ...]
    entries: Entries
    reduce: Callable[[torch.Tensor], torch.Tensor] | None = None
    vector: bool = False
    usual: bool = False
    peaks: bool = False

    def reduced(self, entries: torch.Tensor, axis: int) -> torch.Tensor:
        """The components of entries, both along ``axis``, a negative number."""
        if self.reduce is None:
            return entries
        return self.reduce(entries.movedim(axis, -1)).movedim(-1, axis)

    def among(self, names: Collection[str]) -> Inside:
        """The same with no more components than are named, as far as that saves anything."""
        picks = [k for k, name in enumerate(self.components) if name in names]
        if self.reduce is not None or len(picks) == len(self.components):
            return self
        return Inside(
            tuple(self.components[k] for k in picks),
            lambda part, value, t: self.entries(part, value, t)[..., picks, :, :],
        )


# (problem, mesh, equation, name, form): what is known of an equation, the problem's own or one that
# its system calls ``name``; ``form()`` is the weak form.
tells: Dispatch[Mapping[str, Inside]] = Dispatch("differentiated")


def insides(
    problem: Problem, mesh: Mesh, form: Callable[[], Galerkin] | None = None
) -> Mapping[str, Inside]:
    """By name what is known inside the elements of an answer; ``form()``: its weak form."""
    form = cache(lambda: Galerkin(problem, mesh)) if form is None else form
    look = tells.look_up(problem.equation, Mesh)
    fields = problem.equation.fields(mesh.dimension)
    return {
        "gradient": gradient(fields, mesh.dimension),
        **look(problem, mesh, problem.equation, "", form),
    }


@derives(Equation, Mesh)
@derives(Helmholtz, Mesh)
@derives(System, Mesh)
@derives(NavierStokes, Mesh)
@derives(Stokes, Mesh)
@derives(Elasticity, Mesh)
@derives(Hyperelasticity, Mesh)
@derives(Plasticity, Mesh)
def derive_on_mesh(problem: Problem, mesh: Mesh) -> Mapping[str, Derivation]:
    """All that is known inside the elements, at the nodes and as means, and stream functions."""
    found = {name: _derivation(problem, mesh, own) for name, own in insides(problem, mesh).items()}
    fields = problem.equation.fields(mesh.dimension)
    if "vorticity" in found and mesh.dimension == 2:
        place = fields.index("u")
        streams = cache(lambda: _Streams(mesh))

        def stream_function(value: torch.Tensor, t: float | None) -> torch.Tensor:
            return streams().of(value[..., place, :], value[..., place + 1, :])

        found["stream_function"] = Derivation(("stream_function",), stream_function)
    return found | _contact(problem, mesh)


def _contact(problem: Problem, mesh: Mesh) -> dict[str, Derivation]:
    """What obstacles push with per volume, and what pressure acts where a body touches."""
    if not problem.bounded:
        return {}
    made, cells = Galerkin(problem, mesh), whole(mesh, 2 * mesh.degree)

    def derivation(name: str) -> Derivation:
        return Derivation(
            (name,),
            lambda value, t: made.pressures(value)[name],
            lambda value, t: cells.mean(cells.at_points(made.pressures(value)[name])),
            usual=True,
        )

    return {name: derivation(name) for name in made.pushing}


def _derivation(problem: Problem, mesh: Mesh, own: Inside) -> Derivation:
    recover = cache(lambda: Recovery(mesh, materials(mesh, problem.equation)))

    def shaped(entries: torch.Tensor) -> torch.Tensor:
        found = own.reduced(entries, -2)
        return found if len(own.components) > 1 else found[..., 0, :]

    def nodal(value: torch.Tensor, t: float | None) -> torch.Tensor:
        return shaped(recover().at_nodes(own.entries(recover().part, value, t)))

    def mean(value: torch.Tensor, t: float | None) -> torch.Tensor:
        cells = whole(mesh, 2 * mesh.degree)
        return shaped(cells.mean(own.entries(cells, value, t)))

    def peak(value: torch.Tensor, t: float | None) -> torch.Tensor:
        cells = whole(mesh, 2 * mesh.degree)
        found = own.reduced(own.entries(cells, value, t), -3)
        most = found.abs().argmax(-1, keepdim=True)
        extreme = found.gather(-1, most)[..., 0]
        return extreme if len(own.components) > 1 else extreme[..., 0, :]

    peaks = peak if own.peaks else None
    return Derivation(own.components, nodal, mean, own.vector, own.usual, peaks)


def gradient(fields: Sequence[str], d: int, place: int | None = None) -> Inside:
    """The slopes of these fields; of one of several it is the ``place`` among these."""
    components = tuple(f"{name}{axis}" for name in fields for axis in AXES[:d])

    def entries(part: Quadrature, value: torch.Tensor, t: float | None) -> torch.Tensor:
        own = value if place is None else value[..., place, :]
        found = slopes(part, own)
        return found.flatten(-4, -3) if len(fields) > 1 else found

    return Inside(components, entries, vector=len(fields) == 1 and d > 1)


@tells(Equation, Mesh)
def _of_scalar(
    problem: Problem, mesh: Mesh, equation: Equation, name: str, form: Callable[[], Galerkin]
) -> Mapping[str, Inside]:
    """The flux -F, which is -K grad u."""
    field, several = name or "u", len(problem.equation.fields(mesh.dimension)) > 1

    def entries(part: Quadrature, value: torch.Tensor, t: float | None) -> torch.Tensor:
        made = form()
        return made.flux(field, part, value, made.instant(t))

    axes = AXES[: mesh.dimension]
    components = tuple(f"{field if several else ''}q{a}" for a in axes)
    return {
        f"{field}_flux" if several else "flux": Inside(components, entries, vector=len(axes) > 1)
    }


@tells(System, Mesh)
def _of_several(
    problem: Problem, mesh: Mesh, system: System, name: str, form: Callable[[], Galerkin]
) -> Mapping[str, Inside]:
    """What is known of every equation."""
    found: dict[str, Inside] = {}
    for own, part in system.equations.items():
        found |= tells.look_up(part, Mesh)(problem, mesh, part, own, form)
    return found


@tells(NavierStokes, Mesh)
@tells(Stokes, Mesh)
def _of_flow(
    problem: Problem, mesh: Mesh, flow: Any, name: str, form: Callable[[], Galerkin]
) -> Mapping[str, Inside]:
    """In the plane the vorticity v_x - u_y."""
    if mesh.dimension == 3:
        return {}
    place = problem.equation.fields(2).index("u")

    def entries(part: Quadrature, value: torch.Tensor, t: float | None) -> torch.Tensor:
        slope = slopes(part, value[..., place : place + 2, :])
        return (slope[..., 1, 0, :, :] - slope[..., 0, 1, :, :]).unsqueeze(-3)

    return {"vorticity": Inside(("vorticity",), entries)}


@tells(Elasticity, Mesh)
def _of_elastic(
    problem: Problem, mesh: Mesh, solid: Any, name: str, form: Callable[[], Galerkin]
) -> Mapping[str, Inside]:
    """Of a body by itself, which may be one of revolution, as it is assembled."""
    if name:
        return _of_solid(problem, mesh, solid, name, form)
    data = mesh_data(problem, mesh)

    def listed(tensor_at: TensorAt) -> Entries:
        def entries(part: Quadrature, value: torch.Tensor, t: float | None) -> torch.Tensor:
            now = data if t is None else data.at_time(t)
            return _entries(tensor_at(problem, part, now, value))

        return entries

    return _of_tensors(mesh, listed(stress_at), listed(strain_at))


@tells(Hyperelasticity, Mesh)
def _of_solid(
    problem: Problem, mesh: Mesh, solid: Any, name: str, form: Callable[[], Galerkin]
) -> Mapping[str, Inside]:
    """By its law; of large deformations Cauchy's stress."""
    stress = partial(_by_law, form, lambda law, point: law.stress(point))
    strain = partial(_by_law, form, lambda law, point: law.strain(point))
    return _of_tensors(mesh, stress, strain)


@tells(Plasticity, Mesh)
def _of_metal(
    problem: Problem, mesh: Mesh, solid: Any, name: str, form: Callable[[], Galerkin]
) -> Mapping[str, Inside]:
    """The stress is that of the return; ``plastic`` is the accumulated plastic strain."""

    def returned(what: Callable[[plasticity.Returned], torch.Tensor]) -> Entries:
        def entries(part: Quadrature, value: torch.Tensor, t: float | None) -> torch.Tensor:
            made = form()
            return plasticity.at_points(made, what, part, value, made.instant(t))

        return entries

    def strain(part: Quadrature, value: torch.Tensor, t: float | None) -> torch.Tensor:
        made = form()
        return plasticity.strain_at(made, part, value, made.instant(t))

    stress = returned(lambda found: plasticity.tensor(found.stress))
    accumulated = returned(lambda found: found.accumulated[..., None])
    plastic = Inside(("plastic",), accumulated, usual=True, peaks=True)
    return {**_of_tensors(mesh, stress, strain), "plastic": plastic}


def _of_tensors(mesh: Mesh, stress: Entries, strain: Entries) -> Mapping[str, Inside]:
    """Strain, stress, their principal values, von Mises' stress."""
    out = () if mesh.dimension == 3 else ("yz", "xz")
    pairs = {pair: place for pair, place in PAIRS.items() if pair not in out}
    names = {letter: tuple(f"{letter}{pair}" for pair in pairs) for letter in "es"}
    numbered = {letter: tuple(f"{letter}{k}" for k in (1, 2, 3)) for letter in "es"}
    picks = [3 * a + b for a, b in pairs.values()]

    def picked(entries: torch.Tensor) -> torch.Tensor:
        return entries[..., picks]

    return {
        "strain": Inside(names["e"], strain, picked),
        "principal_strain": Inside(numbered["e"], strain, _principal),
        "stress": Inside(names["s"], stress, picked, peaks=True),
        "principal_stress": Inside(numbered["s"], stress, _principal, peaks=True),
        "mises": Inside(
            ("mises",),
            stress,
            lambda entries: equivalent(entries.unflatten(-1, (3, 3)))[..., None],
            usual=True,
            peaks=True,
        ),
    }


def _by_law(
    form: Callable[[], Galerkin],
    tensor_at: Callable[[SolidLaw, Point], torch.Tensor],
    part: Quadrature,
    value: torch.Tensor,
    t: float | None,
) -> torch.Tensor:
    """Of a solid in its general form."""
    made = form()
    law = cast(SolidLaw, made.balances[made.names.index(COMPONENTS[0])].law)
    found = tensor_at(law, made.point(part, value, made.instant(t)))
    shape = np.broadcast_shapes(found.shape, (*part.points[0].shape, 3, 3))
    return _entries(found.expand(shape))


def _entries(tensor: torch.Tensor) -> torch.Tensor:
    """(*batch, k, Q, 3, 3) as (*batch, 9, k, Q)."""
    return tensor.flatten(-2).movedim(-1, -3)


def _principal(entries: torch.Tensor) -> torch.Tensor:
    """The eigenvalues of symmetric tensors (..., 9), the largest first, (..., 3)."""
    found: torch.Tensor = torch.linalg.eigvalsh(entries.unflatten(-1, (3, 3)))
    return found.flip(-1)


class _Streams:
    """The Laplacian of a mesh, factorised, by which stream functions are found."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self.cells = mesh, whole(mesh, 2 * mesh.degree)
        nodes = self.cells.nodes.numpy()
        local = stiffness(self.cells, torch.ones(1, 1, 1, 1, dtype=torch.float64))
        rows = np.broadcast_to(nodes[:, :, None], local.shape).ravel()
        columns = np.broadcast_to(nodes[:, None], local.shape).ravel()
        matrix = scipy.sparse.csc_matrix(
            (local.numpy().ravel(), (rows, columns)), shape=(mesh.shape[0],) * 2
        )
        self.factors = scipy.sparse.linalg.splu(matrix[1:, 1:], permc_spec="MMD_AT_PLUS_A")

    def of(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """psi (*batch, nodes) of the velocity (*batch, nodes) each."""
        here = torch.stack([-self.cells.at_points(v), self.cells.at_points(u)], -1)
        inner = pulled_back(self.cells, here)
        local = torch.einsum(
            "...kql,kq,qil->...ki", inner, self.cells.measure, self.cells.tables.slopes
        )
        right = scatter(local, self.cells.nodes, self.mesh.shape[0])[..., 1:]
        # The matrix is symmetric: its inverse is its own adjoint.
        psi = attach(self._solved(right.detach()), lambda x: right, self._solved)
        return torch.nn.functional.pad(psi, (1, 0))

    def _solved(self, right: torch.Tensor) -> torch.Tensor:
        flat = right.detach().reshape(-1, right.shape[-1]).numpy()
        return torch.from_numpy(self.factors.solve(flat.T).T.copy()).reshape(right.shape)
