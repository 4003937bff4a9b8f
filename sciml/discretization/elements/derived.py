"""Fields derived from an answer on a mesh: gradients, fluxes, strains and stresses.

Each is there at the nodes, recovered (:mod:`sciml.discretization.elements.recovery`), and as the
means over the elements. Principal values are those of the recovered tensor, the largest first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from sciml.core.problem.dispatch import derives
from sciml.core.problem.equation import (
    Elasticity,
    Equation,
    Hyperelasticity,
    NavierStokes,
    Stokes,
    System,
)
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import slopes, whole
from sciml.core.run.derived import Derivation
from sciml.discretization.elements import recovery
from sciml.discretization.elements.elasticity import (
    PAIRS,
    TensorAt,
    equivalent,
    mean_tensor,
    nodal_tensor,
    strain_at,
    stress_at,
)
from sciml.discretization.elements.general import Galerkin

# Tensors (..., 3, 3) to components (components, ...), or to a scalar (...).
Reduce = Callable[[torch.Tensor], torch.Tensor]


@derives(Equation, Mesh)
@derives(System, Mesh)
@derives(Hyperelasticity, Mesh)
def derive_on_mesh(problem: Problem, mesh: Mesh) -> Mapping[str, Derivation]:
    """The gradients of all fields and their fluxes -F, which are -K grad u."""
    made, axes = Galerkin(problem, mesh), AXES[: mesh.dimension]
    material = recovery.materials(mesh, problem.equation)
    several = len(made.names) > 1

    def flux(name: str) -> Derivation:
        def nodal(value: torch.Tensor, t: float | None) -> torch.Tensor:
            inner = made.fluxes(recovery.superconvergent(mesh), value, made.instant(t))[name]
            found = recovery.at_nodes(mesh, inner, material)
            return found if len(axes) > 1 else found[..., 0, :]

        def mean(value: torch.Tensor, t: float | None) -> torch.Tensor:
            cells = whole(mesh, 2 * mesh.degree)
            found = cells.mean(made.fluxes(cells, value, made.instant(t))[name])
            return found if len(axes) > 1 else found[..., 0, :]

        components = tuple(f"{name if several else ''}q{a}" for a in axes)
        return Derivation(components, nodal, mean, vector=len(axes) > 1)

    fluxes = {f"{name}_flux" if several else "flux": flux(name) for name in made.names}
    return {"gradient": _gradient(problem, mesh), **fluxes, **_contact(problem, mesh)}


@derives(NavierStokes, Mesh)
@derives(Stokes, Mesh)
def derive_flow(problem: Problem, mesh: Mesh) -> Mapping[str, Derivation]:
    """The gradients and, in the plane, the vorticity v_x - u_y."""
    found = {"gradient": _gradient(problem, mesh)}
    if mesh.dimension == 3:
        return found

    def curl(inner: torch.Tensor) -> torch.Tensor:
        return inner[..., 1, 0, :] - inner[..., 0, 1, :]

    def nodal(value: torch.Tensor, t: float | None) -> torch.Tensor:
        return curl(recovery.nodal_slopes(mesh, value, recovery.materials(mesh, problem.equation)))

    def mean(value: torch.Tensor, t: float | None) -> torch.Tensor:
        cells = whole(mesh, 2 * mesh.degree)
        return curl(cells.mean(slopes(cells, value)))

    return {**found, "vorticity": Derivation(("vorticity",), nodal, mean)}


@derives(Elasticity, Mesh)
def derive_solid(problem: Problem, mesh: Mesh) -> Mapping[str, Derivation]:
    """The displacement's gradient, strain, stress, their principal values, von Mises' stress."""
    out = () if mesh.dimension == 3 else ("yz", "xz")
    pairs = {name: pair for name, pair in PAIRS.items() if name not in out}

    def tensor(tensor_at: TensorAt, letter: str) -> Derivation:
        names = tuple(f"{letter}{pair}" for pair in pairs)

        def listed(full: torch.Tensor) -> torch.Tensor:
            return torch.stack([full[..., a, b] for a, b in pairs.values()], -2)

        return _of_tensor(problem, mesh, tensor_at, names, listed)

    def principal(tensor_at: TensorAt, letter: str) -> Derivation:
        names = tuple(f"{letter}{k}" for k in (1, 2, 3))
        return _of_tensor(
            problem, mesh, tensor_at, names, lambda full: _principal(full).movedim(-1, -2)
        )

    return {
        "gradient": _gradient(problem, mesh),
        "strain": tensor(strain_at, "e"),
        "principal_strain": principal(strain_at, "e"),
        "stress": tensor(stress_at, "s"),
        "principal_stress": principal(stress_at, "s"),
        "mises": _of_tensor(problem, mesh, stress_at, ("mises",), equivalent, usual=True),
        **_contact(problem, mesh),
    }


def _principal(full: torch.Tensor) -> torch.Tensor:
    """The eigenvalues of symmetric tensors (..., 3, 3), the largest first."""
    found: torch.Tensor = torch.linalg.eigvalsh(full)
    return found.flip(-1)


def _of_tensor(
    problem: Problem,
    mesh: Mesh,
    tensor_at: TensorAt,
    components: tuple[str, ...],
    reduce: Reduce,
    usual: bool = False,
) -> Derivation:
    return Derivation(
        components,
        lambda value, t: reduce(nodal_tensor(tensor_at, problem, mesh, value)),
        lambda value, t: reduce(mean_tensor(tensor_at, problem, mesh, value)),
        usual=usual,
    )


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


def _gradient(problem: Problem, mesh: Mesh) -> Derivation:
    """The slopes of every field, recovered."""
    d = mesh.dimension
    fields = problem.equation.fields(d)
    components = tuple(f"{name}{axis}" for name in fields for axis in AXES[:d])

    def flat(found: torch.Tensor) -> torch.Tensor:
        """(*batch, [fields], d, n) with one axis of components, or none."""
        found = found.flatten(-3, -2) if len(fields) > 1 else found
        return found if len(components) > 1 else found[..., 0, :]

    def nodal(value: torch.Tensor, t: float | None) -> torch.Tensor:
        material = recovery.materials(mesh, problem.equation)
        return flat(recovery.nodal_slopes(mesh, value, material))

    def mean(value: torch.Tensor, t: float | None) -> torch.Tensor:
        cells = whole(mesh, 2 * mesh.degree)
        return flat(cells.mean(slopes(cells, value)))

    return Derivation(components, nodal, mean, vector=len(fields) == 1 and d > 1)
