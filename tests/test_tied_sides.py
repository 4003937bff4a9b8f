"""Periodic sides and walls along which a vector slides, of what is nonlinear, coupled, in time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_elements import blocks
from test_general_form import error, everywhere, orders, square

import sciml
from sciml import InputError
from sciml.core.problem.condition import Condition
from sciml.core.problem.dispatch import measures
from sciml.core.problem.equation import (
    Equation,
    Hyperelasticity,
    NavierStokes,
    Stokes,
    System,
)
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem, Time
from sciml.core.problem.quadrature import whole
from sciml.core.problem.reader import Normal
from sciml.core.run.quantities import Quantity
from sciml.discretization import semidiscretize
from sciml.solvers import SDIRK, Newton
from sciml.solvers.time.march import consistent

pi = math.pi
PERIODIC, SLIPS = Condition(periodic=True), Condition(dirichlet=Normal(0.0))


def quantity(problem: Problem, mesh: Mesh, value: torch.Tensor, asked: Quantity) -> float:
    prepared = measures.look_up(problem.equation, Mesh)(problem, mesh)
    return float(prepared(asked, "q")(value, None).value)


def total(mesh: Mesh, value: torch.Tensor) -> torch.Tensor:
    part = whole(mesh, 2 * mesh.degree)
    return (part.at_points(value) * part.measure).sum((-2, -1))


def turned(mesh: Mesh, angle: float) -> tuple[Mesh, np.ndarray]:
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    return replace(mesh, points=mesh.points @ turn.T), turn


def test_what_reacts_on_a_torus_keeps_its_mass_and_has_the_order() -> None:
    u = "(2 + sin(2*pi*x)*sin(2*pi*y)*exp(-t))"
    bump = "(sin(2*pi*x)*sin(2*pi*y)*exp(-t))"
    rise = "4*pi**2*exp(-2*t)*((cos(2*pi*x)*sin(2*pi*y))**2 + (sin(2*pi*x)*cos(2*pi*y))**2)"
    equation = Equation(d=1.0, K="u", f=f"-{bump} + 8*pi**2*{u}*{bump} - {rise}")
    start = "2 + sin(2*pi*x)*sin(2*pi*y)"
    problem = Problem(None, equation, everywhere(PERIODIC), time=Time(0.05), initial=start)
    errors = []
    for n in (6, 12):
        mesh = square(n, "P2")
        found = sciml.solve(problem, SDIRK(rtol=1e-7), on=mesh).value[-1]
        exact = lambda x, y: 2 + math.exp(-0.05) * torch.sin(2 * pi * x) * torch.sin(2 * pi * y)  # noqa: E731
        errors.append(error(mesh, found, exact))
        assert torch.equal(found[mesh.nodes[:, 0] == 0], found[mesh.nodes[:, 0] == 1])
    assert orders(errors)[0] == pytest.approx(3, abs=0.1)
    still = replace(problem, equation=Equation(d=1.0, K="u**2"))
    value = sciml.solve(still, SDIRK(rtol=1e-5), on=square(5)).value
    mass = total(square(5), value)
    assert float((mass - mass[0]).abs().max()) < 1e-9


def test_vortices_on_a_torus_decay() -> None:
    """u = sin cos exp(-2 nu k^2 t): third order in u, the pressure of zero mean."""
    start = {"u": "sin(2*pi*x)*cos(2*pi*y)", "v": "-cos(2*pi*x)*sin(2*pi*y)"}
    problem = Problem(None, NavierStokes(0.1), everywhere(PERIODIC), time=Time(0.02), initial=start)
    decay, errors = math.exp(-0.016 * pi**2), []
    for n in (8, 16):
        mesh = square(n, "P2")
        value = sciml.solve(problem, SDIRK(rtol=1e-5), on=mesh).value[-1]
        exact = lambda x, y: decay * torch.sin(2 * pi * x) * torch.cos(2 * pi * y)  # noqa: E731
        errors.append(error(mesh, value[0], exact))
        assert abs(float(total(mesh, value[2]))) < 1e-12
    assert orders(errors)[0] == pytest.approx(3, abs=0.2)


def test_half_a_channel_is_half_of_the_whole() -> None:
    inlet = Condition(dirichlet=("y*(2 - y)", 0.0))
    sides = {"left": inlet, "right": Condition(neumann=0.0), "bottom": Condition(dirichlet=0.0)}
    mesh = square(3, "P2")
    problem = Problem(None, NavierStokes(0.5), {**sides, "top": SLIPS})
    value = sciml.solve(problem, Newton(rtol=1e-12), on=mesh).value
    y = torch.from_numpy(mesh.nodes[:, 1])
    torch.testing.assert_close(value[0], y * (2 - y), rtol=0, atol=1e-10)
    whole_one = replace(mesh, points=mesh.points * [1, 2])
    problem = Problem(None, NavierStokes(0.5), {**sides, "top": Condition(dirichlet=0.0)})
    full = sciml.solve(problem, Newton(rtol=1e-12), on=whole_one).value
    corner = (mesh.nodes == [1, 0]).all(1)
    assert float(full[2][corner] - value[2][corner]) == pytest.approx(0, abs=1e-9)


def regular(n: int) -> Mesh:
    tick = np.linspace(0, 1, n + 1)
    points = np.stack([x.ravel() for x in np.meshgrid(tick, tick, indexing="ij")], 1)
    return replace(blocks(n, 2, "Q2"), points=points)


def oblique(angle: float) -> torch.Tensor:
    """A stream that is stirred between two walls along which it slides, in its own axes."""
    mesh, turn = turned(square(4, "P2"), angle)
    along, across = (f"({a!r}*x + {b!r}*y)" for a, b in turn.T.tolist())
    turn = [[float(v) for v in row] for row in turn]  # type: ignore[assignment]
    local = (f"1 + sin(3*{across})", f"{across}*(1 - {across})")
    push = (f"20*{along}*{across}", f"10*cos(2*{along})")
    rotated = [
        tuple(f"{turn[i][0]!r}*({a}) + {turn[i][1]!r}*({b})" for i in (0, 1))
        for a, b in (local, push)
    ]
    sides = {"left": Condition(dirichlet=rotated[0]), "right": Condition(neumann=0.0)}
    sides |= {"bottom": SLIPS, "top": SLIPS}
    problem = Problem(None, NavierStokes(0.3, force=rotated[1]), sides)
    value = sciml.solve(problem, Newton(rtol=1e-12), on=mesh).value
    force = [
        quantity(problem, mesh, value, Quantity(force=(turn[0][a], turn[1][a]), on="top"))
        for a in (0, 1)
    ]
    velocity = torch.tensor(turn, dtype=torch.float64).T @ value[:2]
    return torch.cat(
        [velocity, value[2:], torch.tensor(force, dtype=torch.float64).expand(value.shape[1], 2).T]
    )


def test_walls_oblique_to_the_axes_give_the_rotated_answer() -> None:
    straight = oblique(0.0)
    torch.testing.assert_close(oblique(0.4), straight, rtol=0, atol=1e-8)


def test_a_quarter_of_a_block_is_a_quarter_of_the_whole() -> None:
    """Neo-Hookean, squeezed from all sides, the planes of symmetry oblique."""
    pressed = Condition(neumann=Normal("-1 - x**2 - y**2"))
    half, turn = turned(regular(3), 0.3)
    rubber = Hyperelasticity(10.0, 0.3, force=("-0.1*u", "-0.1*v"))
    quarter = {"left": SLIPS, "bottom": SLIPS, "right": pressed, "top": pressed}
    part = sciml.solve(Problem(None, rubber, quarter), Newton(rtol=1e-12), on=half).value
    mesh = replace(regular(6), points=(regular(6).points * 2 - 1) @ turn.T)
    held = dict.fromkeys(quarter, pressed)
    full = sciml.solve(Problem(None, rubber, held), Newton(rtol=1e-12), on=mesh).value
    at = {tuple(np.round(p, 9) + 0.0): k for k, p in enumerate(mesh.nodes)}
    same = [at[tuple(np.round(p, 9) + 0.0)] for p in half.nodes]
    torch.testing.assert_close(part, full[:, same], rtol=0, atol=1e-7)


def sector(n: int, graded: float = 1.0) -> Mesh:
    """A quarter of a ring: left is r = 1, right r = 2."""

    def bent(p: np.ndarray) -> np.ndarray:
        angle = pi / 2 * p[:, 1] ** graded
        return (1 + p[:, :1]) * np.stack([np.cos(angle), np.sin(angle)], 1)

    flat = square(n, "P2")
    middles = bent(flat.nodes[len(flat.points) :])
    return replace(flat, points=bent(flat.points), middles=middles)


def test_a_ring_of_fluid_turns_as_a_body() -> None:
    """Its symmetric stress is zero on a round wall; du/dn is not."""
    mesh, turns = sector(3), Condition(dirichlet=("-y", "x"))
    problem = Problem(None, Stokes(), {**everywhere(turns), "right": SLIPS})
    value = sciml.solve(problem, on=mesh).value
    x, y = torch.from_numpy(mesh.nodes).T
    torch.testing.assert_close(value[:2], torch.stack([-y, x]), rtol=0, atol=1e-9)


def test_nothing_passes_through_a_round_wall_of_uneven_elements() -> None:
    mesh = sector(4, 1.7)
    push = ("sin(3*y) - 2*y", "x**2 + x")
    problem = Problem(None, Stokes(force=push), everywhere(SLIPS))
    value = sciml.solve(problem, on=mesh).value
    assert float(value[:2].abs().max()) > 1e-3
    for side in ("left", "right", "top"):
        passed = quantity(problem, mesh, value, Quantity(integral="u*nx + v*ny", on=side))
        assert passed == pytest.approx(0, abs=1e-13)
    rim = torch.from_numpy(np.abs(np.linalg.norm(mesh.nodes, axis=1) - 2) < 1e-9)
    assert float(value[:2, rim].abs().max()) > 1e-3


def test_facets_of_one_wall_that_meet_in_a_corner_are_two() -> None:
    """u = sin(pi x) cos(pi y) in a box of one named side, which slips."""
    base = square(6, "P2")
    rim = np.concatenate(list(base.boundaries.values()))
    mesh = replace(base, boundaries={"rim": rim})
    push = ("2*pi**2*sin(pi*x)*cos(pi*y)", "-2*pi**2*cos(pi*x)*sin(pi*y)")
    value = sciml.solve(Problem(None, Stokes(force=push), {"rim": SLIPS}), on=mesh).value
    assert error(mesh, value[0], lambda x, y: torch.sin(pi * x) * torch.cos(pi * y)) < 5e-3
    corner = (np.abs(mesh.nodes - 0.5) == 0.5).all(1)
    assert torch.equal(value[:2, corner], torch.zeros(2, 4, dtype=torch.float64))
    along = {"left": (0.0, None), "right": (0.0, None), "bottom": (None, 0.0), "top": (None, 0.0)}
    sides = {side: Condition(dirichlet=given) for side, given in along.items()}
    lists, walls = (
        sciml.solve(Problem(None, Stokes(force=push), given), on=base).value
        for given in (sides, everywhere(SLIPS))
    )
    torch.testing.assert_close(walls, lists, rtol=0, atol=1e-9)


@pytest.mark.parametrize("given", ["-t - t**2", lambda x, y, t: -t - t * t])
def test_a_piston_drives_what_is_before_it(given: object) -> None:
    """u = t + t^2 everywhere, p = (1 + 2 t)(1 - x)."""
    sides = {**everywhere(SLIPS), "right": Condition(neumann=0.0)}
    sides["left"] = Condition(dirichlet=Normal(given))
    still = {"u": 0.0, "v": 0.0}
    problem = Problem(None, NavierStokes(0.1), sides, time=Time(0.5), initial=still)
    mesh = square(2, "P2")
    u, v, p = sciml.solve(problem, SDIRK(rtol=1e-8), on=mesh).value[-1]
    torch.testing.assert_close(u, torch.full_like(u, 0.75), rtol=0, atol=1e-6)
    assert float(v.abs().max()) < 1e-9
    torch.testing.assert_close(p, 2 * (1 - torch.from_numpy(mesh.nodes[:, 0])), rtol=0, atol=1e-4)


def test_coupled_fields_on_a_torus_have_slopes_across_its_seam() -> None:
    """Steady, nonlinear, two fields, and gradients by the adjoint."""
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    bump = "sin(2*pi*x)*cos(2*pi*y)"
    first = Equation(K="1 + w**2", c=1.0, f=f"a*{bump} + w")
    system = System({"u": first, "w": Equation(c="1 + u**2", f=f"{bump} + 0.5")})
    problem = Problem(None, system, everywhere(PERIODIC), parameters={"a": k})
    mesh = square(6, "P2")
    value = sciml.solve(problem, Newton(rtol=1e-12), on=mesh).value
    seam = mesh.nodes[:, 0] == 0, mesh.nodes[:, 0] == 1
    torch.testing.assert_close(value[:, seam[0]], value[:, seam[1]], rtol=0, atol=0)
    (slope,) = torch.autograd.grad(value[0].square().sum(), k)
    sums = []
    for step in (-1e-4, 1e-4):
        near = replace(problem, parameters={"a": 1 + step})
        found = sciml.solve(near, Newton(rtol=1e-12), on=mesh).value
        sums.append(float(found[0].square().sum()))
    assert float(slope) == pytest.approx((sums[1] - sums[0]) / 2e-4, rel=1e-5)


def test_what_is_not_solved_beside_ties_is_said() -> None:
    mesh = square(2)
    bounded = Problem(None, Equation(f=-1.0, lower=-0.01), everywhere(PERIODIC))
    with pytest.raises(InputError, match="obstacles and contact are not solved beside periodic"):
        sciml.solve(bounded, on=mesh)
    alone = {**everywhere(Condition(neumann=0.0)), "left": PERIODIC}
    with pytest.raises(InputError, match="no other periodic side"):
        sciml.solve(Problem(None, Equation(K="1 + u**2", c=1.0), alone), on=mesh)


def test_a_flow_begins_without_divergence() -> None:
    """What is interpolated has some on the mesh, at which steps would shrink for ever."""
    jet = "exp(sin(2*pi*(x + 2*y)))"
    start = {"u": f"2*{jet}", "v": f"-{jet}"}
    problem = Problem(None, NavierStokes(0.1), everywhere(PERIODIC), time=Time(0.01), initial=start)
    mesh = square(4, "P2")
    system = semidiscretize(problem, mesh)
    begun = consistent(system, 0.0)
    assert system.groups is not None
    held = system.groups < 0
    before, after = (s.residual(s.first[0], 0.0)[held].abs().max() for s in (system, begun))
    assert float(after) < 1e-12 < 1e-4 < float(before)
    moved = (begun.first[0] - system.first[0])[~held].abs().max()
    assert float(moved) < 0.1 * float(system.first[0].abs().max())
    solution = sciml.solve(problem, SDIRK(rtol=1e-6), on=mesh)
    assert int(solution.stats.iterations) < 30


def test_what_has_no_answer_is_said() -> None:
    mesh = square(2, "P2")
    for given in (Normal(-1.0), (1.0, 0.0)):
        sides = {**everywhere(SLIPS), "left": Condition(dirichlet=given)}
        for flow in (Stokes(), NavierStokes(1.0)):
            with pytest.raises(InputError, match="1 more comes in than goes out"):
                sciml.solve(Problem(None, flow, sides), on=mesh)
    for body in (Stokes(), NavierStokes(1.0), Hyperelasticity(1.0, 0.3)):
        with pytest.raises(InputError, match="nothing holds u between periodic sides"):
            sciml.solve(Problem(None, body, everywhere(PERIODIC)), on=mesh)
    drag = Stokes(force=("sin(2*pi*y) - u", "-v"))
    assert sciml.solve(Problem(None, drag, everywhere(PERIODIC)), on=mesh).status.success
