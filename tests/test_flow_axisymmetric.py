"""Axisymmetric flow: what Taylor and Hood's elements hold is found to rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import skfem
import torch

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.dispatch import measures
from sciml.core.problem.equation import NavierStokes, Stokes
from sciml.core.problem.mesh import Mesh
from sciml.core.run.quantities import Quantity

NU = 0.3


def tube() -> sciml.Mesh:
    made = skfem.MeshTri.init_tensor(np.linspace(0, 1, 4), np.linspace(0, 2, 5))
    outer = made.boundary_facets()
    r, z = made.p[:, made.facets[:, outer]].mean(1)
    on = {"axis": r < 1e-9, "wall": r > 1 - 1e-9, "inlet": z < 1e-9, "outlet": z > 2 - 1e-9}
    sides = {name: made.facets[:, outer[there]].T for name, there in on.items()}
    flat = sciml.Mesh(made.p.T.copy(), made.t.T.copy(), boundaries=sides, element="P2")
    return replace(flat, axisymmetric=True)


AXIS = {"axis": sciml.Condition(dirichlet=[0, None])}


@pytest.mark.parametrize("equation", [Stokes(NU), NavierStokes(NU)])
def test_hagen_and_poiseuille(equation: Stokes | NavierStokes) -> None:
    sides = AXIS | {
        "inlet": sciml.Condition(dirichlet=[0, "1 - x**2"]),
        "wall": sciml.Condition(dirichlet=0),
        "outlet": sciml.Condition(neumann=0),
    }
    mesh = tube()
    solution = sciml.solve(sciml.Problem(None, equation, sides), on=mesh)
    r, z = torch.from_numpy(mesh.nodes).T
    exact = torch.stack([0 * r, 1 - r**2, 4 * NU * (2 - z)])
    assert solution.status.success
    torch.testing.assert_close(solution.value, exact, atol=1e-7, rtol=0)


@pytest.mark.parametrize("carried", [False, True])
def test_a_flow_towards_a_wall_with_a_radial_velocity(carried: bool) -> None:
    # u = -r z, v = z^2, p = r + z: div u = 0, Lap u - u / r^2 = 0, Lap v = 2.
    force = (1.0, f"1 - 2*{NU} + 2*y**3" if carried else f"1 - 2*{NU}")
    equation = NavierStokes(NU, force) if carried else Stokes(NU, force)
    given = sciml.Condition(dirichlet=["-x*y", "y**2"])
    sides = AXIS | {name: given for name in ("inlet", "wall")}
    # nu du/dn - p n
    sides["outlet"] = sciml.Condition(neumann=[f"-{NU}*x", f"2*{NU}*y - (x + y)"])
    mesh = tube()
    solution = sciml.solve(sciml.Problem(None, equation, sides), on=mesh)
    r, z = torch.from_numpy(mesh.nodes).T
    assert solution.status.success
    torch.testing.assert_close(
        solution.value, torch.stack([-r * z, z**2, r + z]), atol=1e-6, rtol=0
    )


def test_a_radial_force_is_refused() -> None:
    sides = AXIS | {name: sciml.Condition(dirichlet=0) for name in ("inlet", "outlet", "wall")}
    look = measures.look_up(Stokes(NU), Mesh)(sciml.Problem(None, Stokes(NU), sides), tube())
    with pytest.raises(InputError, match="along the axis"):
        look(Quantity(force=(1.0, 0.0), on="wall"), "q")
