"""Orthotropic solids: exact patches in turned axes, known compliances, and what is no solid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_mesh import unit_mesh

import sciml
from sciml.app.read import read_spec
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.equation import Elasticity
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Problem, Time
from sciml.core.problem.quadrature import whole
from sciml.core.problem.reader import Regions
from sciml.discretization.elements.data import mesh_data
from sciml.discretization.elements.elasticity import nodal_stress, strain_at, strain_energy

E, NU, G = (150.0, 9.0, 11.0), (0.3, 0.25, 0.4), (5.0, 6.0, 3.0)


def compliance() -> np.ndarray:
    """6 x 6 in the order 11, 22, 33, 23, 13, 12 with engineering shear strains."""
    S = np.diag([1 / E[0], 1 / E[1], 1 / E[2], 1 / G[2], 1 / G[1], 1 / G[0]])
    for n, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        S[a, b] = S[b, a] = -NU[n] / E[a]
    return S


def turned(S: np.ndarray, R: np.ndarray) -> np.ndarray:
    """C_abcd of a material whose axes are R's columns."""
    pairs = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    C = np.zeros((3, 3, 3, 3))
    for p, (a, b) in enumerate(pairs):
        for q, (c, d) in enumerate(pairs):
            for i, j in {(a, b), (b, a)}:
                for k, m in {(c, d), (d, c)}:
                    C[i, j, k, m] = np.linalg.inv(S)[p, q]
    return np.einsum("am,bn,co,dp,mnop->abcd", R, R, R, R, C)


def about_z(degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


FRAME = np.linalg.qr(np.array([[1.0, 0.2, -0.4], [0.5, 1.0, 0.3], [0.1, -0.2, 1.0]]))[0]
FRAME *= np.sign(np.linalg.det(FRAME))


@pytest.mark.parametrize("case", ["strain", "stress", "space", "frame"])
def test_a_linear_displacement_is_exact_with_its_stress(case: str) -> None:
    d = 2 if case in ("strain", "stress") else 3
    mesh = unit_mesh(2, d, "P2", jitter=0.1)
    more: dict[str, Any] = {"angle": 30.0}
    R = about_z(30)
    if case == "frame":
        more, R = {"frame": tuple(tuple(2 * FRAME[:, n]) for n in range(2))}, FRAME
    if case == "stress":
        more["plane"] = "stress"
    slope = np.array([[1e-3, 2e-3, -1e-3], [5e-4, -2e-3, 3e-3], [1e-3, -4e-3, 2e-3]])[:d, :d]
    names = "xyz"
    u = tuple("+".join(f"({slope[a, b]})*{names[b]}" for b in range(d)) for a in range(d))
    boundary = {name: Condition(dirichlet=u) for name in mesh.boundaries}
    solid = Elasticity(E, NU, shear=G, **more)
    problem = Problem(None, solid, boundary)
    found = sciml.solve(problem, on=mesh)
    np.testing.assert_allclose(found.value.numpy(), slope @ mesh.nodes.T, atol=1e-12)
    C, e = turned(compliance(), R), np.zeros((3, 3))
    e[:d, :d] = (slope + slope.T) / 2
    if case == "stress":
        e[2, 2] = -np.einsum("cd,cd->", C[2, 2], e) / C[2, 2, 2, 2]
    sigma = np.einsum("abcd,cd->ab", C, e)
    stress = nodal_stress(problem, mesh, found.value).numpy()
    np.testing.assert_allclose(stress, np.broadcast_to(sigma, stress.shape), atol=1e-9)
    part = whole(mesh, 4)
    strain = strain_at(problem, part, mesh_data(problem, mesh), found.value).numpy()
    np.testing.assert_allclose(strain, np.broadcast_to(e, strain.shape), atol=1e-12)
    energy = float(strain_energy(problem, mesh, found.value))
    assert energy == pytest.approx(np.einsum("ab,ab->", sigma, e) / 2)


def pulled(mesh: Mesh, solid: Elasticity, **more: Any) -> Any:
    """Pulled along x by 1, held against rigid motions at points alone."""
    free = Condition(neumann=(0.0, 0.0))
    sides = {name: free for name in mesh.boundaries}
    sides |= {"right": Condition(neumann=(1.0, 0.0)), "left": Condition(neumann=(-1.0, 0.0))}
    near = [int(np.abs(mesh.points - p).sum(1).argmin()) for p in ((0, 0), (1, 0))]
    supports = {"pin": np.array([[near[0]]]), "roll": np.array([[near[1]]])}
    held = Mesh(mesh.points, mesh.cells, {}, mesh.boundaries, mesh.element, supports=supports)
    sides |= {"pin": Condition(dirichlet=(0.0, 0.0)), "roll": Condition(dirichlet=(None, 0.0))}
    return sciml.solve(Problem(None, solid, sides, **more), on=held)


def test_a_ply_off_its_axis_has_the_modulus_of_the_textbook() -> None:
    """1/E_x = c^4/E1 + (1/G12 - 2 nu12/E1) s^2 c^2 + s^4/E2 (Jones 1999, 2.97), and shears."""
    mesh = unit_mesh(2, 2, "P1")
    solid = Elasticity(E[:2], NU[:1], plane="stress", shear=G[:1], angle=30.0)
    found = pulled(mesh, solid)
    c, s = math.cos(math.pi / 6) ** 2, math.sin(math.pi / 6) ** 2
    stretch = c**2 / E[0] + (1 / G[0] - 2 * NU[0] / E[0]) * s * c + s**2 / E[1]
    corner = int(np.abs(mesh.points - [1, 0]).sum(1).argmin())
    assert float(found.value[0, corner]) == pytest.approx(stretch, rel=1e-9)
    top = int(np.abs(mesh.points - [0, 1]).sum(1).argmin())
    assert abs(float(found.value[0, top])) > 0.1 * stretch


@pytest.mark.parametrize("plane", ["stress", "strain"])
def test_a_free_ply_that_is_heated_takes_its_own_strain(plane: Any) -> None:
    """Without stress in the plane: alpha along each axis, turned; no stress in plane stress."""
    mesh = unit_mesh(2, 2, "P2", jitter=0.1)
    heat = (1e-3, 5e-3, 2e-3)
    solid = Elasticity(E, NU, None, plane, heat, shear=G, angle=20.0)
    mesh_sides = {name: Condition(neumann=(0.0, 0.0)) for name in mesh.boundaries}
    mesh_sides["left"] = Condition(dirichlet=(0.0, None))
    C, R = turned(compliance(), about_z(20)), about_z(20)
    own = R @ np.diag(heat) @ R.T
    if plane == "strain":
        # e_zz = 0 squeezes: the strain in the plane that leaves no stress there.
        rows = [(0, 0), (1, 1), (0, 1)]
        A = np.array([[C[a, b, c, d] * (1 if c == d else 2) for c, d in rows] for a, b in rows])
        extra = np.linalg.solve(A, np.array([C[a, b, 2, 2] * own[2, 2] for a, b in rows]))
        own = own + np.array([[extra[0], extra[2], 0], [extra[2], extra[1], 0], [0, 0, 0]])
    u = tuple(f"({own[a, 0]})*x + ({own[a, 1]})*y" for a in range(2))
    boundary = {**mesh_sides, "left": Condition(dirichlet=u)}
    found = sciml.solve(Problem(None, solid, boundary), on=mesh)
    np.testing.assert_allclose(found.value.numpy(), own[:2, :2] @ mesh.nodes.T, atol=1e-12)


def test_equal_moduli_are_an_isotropic_solid_in_time_and_in_its_modes_too() -> None:
    mesh = unit_mesh(3, 2, "P2")
    sides = {name: Condition(neumann=(0.0, 0.0)) for name in mesh.boundaries}
    sides["left"] = Condition(dirichlet=(0.0, 0.0))
    nu, young = 0.3, 7.0
    mu = young / (2 * (1 + nu))
    plain: dict[str, Any] = {"young": young, "poisson_ratio": nu}
    listed = {"young": (young,) * 3, "poisson_ratio": (nu,) * 3, "shear": (mu,) * 3, "angle": 25.0}
    for plane in ("stress", "strain"):
        one, other = (Elasticity(**p, plane=plane, force=(0.0, -1.0)) for p in (plain, listed))
        values = [sciml.solve(Problem(None, s, sides), on=mesh).value for s in (one, other)]
        torch.testing.assert_close(*values, rtol=1e-8, atol=1e-10)
    modes = [
        sciml.eigenmodes(Problem(None, Elasticity(**p), sides), on=mesh, count=3).values
        for p in (plain, listed)
    ]
    torch.testing.assert_close(*modes, rtol=1e-6, atol=0.0)
    moved = [
        sciml.solve(
            Problem(None, Elasticity(**p, force=(0.0, -1.0)), sides, time=Time(0.2), initial=0.0),
            sciml.solvers.SDIRK(step=0.05),
            on=mesh,
            throw=False,
        ).value
        for p in (plain, listed)
    ]
    torch.testing.assert_close(*moved, rtol=1e-7, atol=1e-9)


def test_axes_by_region_and_along_circles() -> None:
    """A frame that follows circles: a ring is as stiff along them as its fibres, whatever x is."""
    mesh = unit_mesh(3, 2, "P2")
    away = np.array([1.0, -0.5])
    shifted = Mesh(mesh.points + away, mesh.cells, {"all": np.arange(len(mesh.cells))},
                   mesh.boundaries, "P2")  # fmt: skip
    around = {"frame": (("-y", "x"),)}
    turned_ = {"angle": "180/pi*atan2(x, -y)"}
    by_region = {"angle": Regions({"all": "180/pi*atan2(x, -y)"})}
    sides = {name: Condition(dirichlet=("0.01*x*y", "0.02*x")) for name in mesh.boundaries}
    found = [
        sciml.solve(Problem(None, Elasticity(E, NU, shear=G, **more), sides), on=shifted).value
        for more in (around, turned_, by_region)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], found[2], rtol=1e-9, atol=1e-12)


SPEC = """\
problem:
  equation: {{kind: elasticity, {}}}
  boundary: {{left: {{dirichlet: 0}}}}
mesh: {{file: configs/meshes/plate.msh}}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("young: [1, 2, 3]", "poisson_ratio is .nu12, nu13, nu23."),
        ("young: [1, 2, 3], poisson_ratio: [0, 0, 0]", "shear is .G12, G13, G23."),
        ("young: 1, shear: [1, 1, 1]", "shear is a list where young is one too"),
        ("young: 1, angle: 30", "has no angle"),
        ("young: [1], poisson_ratio: [0], shear: [1]", "young is one number, .E1"),
    ],
)
def test_what_is_no_orthotropic_solid_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_spec(parse_yaml(SPEC.format(text), "spec.yaml"))
    assert "\n" not in str(caught.value) and "spec.yaml:" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poisson_ratio": (5.0, 0.2, 0.2)}, r"nu12 must be below sqrt\(E1/E2\) = 4.082"),
        ({"poisson_ratio": (0.3, 0.2, 1.0)}, r"nu23 must be below sqrt\(E2/E3\)"),
        ({"poisson_ratio": (3.5, 3.0, 0.9)}, "too large together"),
        ({"shear": (1.0, -1.0, 1.0)}, "shear must be positive"),
        ({"young": (1.0, 0.0, 1.0)}, "young must be positive"),
        ({"young": E[:2], "poisson_ratio": NU[:1], "shear": G[:1]}, "needs three numbers here"),
        ({"frame": ((0.0, 0.0),)}, "vanish or are parallel"),
    ],
)
def test_a_solid_that_gives_energy_away_is_refused(changes: dict[str, Any], message: str) -> None:
    mesh = unit_mesh(2, 2)
    sides = {name: Condition(dirichlet=(0.0, 0.0)) for name in mesh.boundaries}
    given = {"young": E, "poisson_ratio": NU, "shear": G, **changes}
    with pytest.raises(InputError, match=message) as caught:
        sciml.discretize(Problem(None, Elasticity(**given), sides), mesh)
    assert "\n" not in str(caught.value)
