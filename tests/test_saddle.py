"""Saddle points by blocks: as the factorisation has it, in as many steps on every mesh."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import scipy.sparse.linalg
import skfem
import torch

import sciml
from sciml.core.algebra.maps import LinearSystem
from sciml.core.errors import InputError
from sciml.core.problem.equation import NavierStokes, Stokes
from sciml.discretization import discretize, semidiscretize
from sciml.solvers import GMRES, MINRES, Direct, Newton
from sciml.solvers.linear.saddle import SaddlePoint, blocked
from sciml.solvers.nonlinear import newton
from sciml.solvers.time import implicit
from sciml.solvers.time.implicit import StageSolver

NAMES = ("left", "right", "bottom", "top", "front", "back")


def mesh(d: int, n: int) -> sciml.Mesh:
    line = np.linspace(0, 1, n + 1)
    made = (
        skfem.MeshTri.init_tensor(line, line) if d == 2 else skfem.MeshTet.init_tensor(*[line] * 3)
    )
    outer = made.boundary_facets()
    middle = made.p[:, made.facets[:, outer]].mean(1)
    sides = {
        NAMES[2 * a + k]: made.facets[:, outer[abs(middle[a] - k) < 1e-9]].T
        for a in range(d)
        for k in (0, 1)
    }
    return sciml.Mesh(made.p.T.copy(), made.t.T.copy(), boundaries=sides, element="P2")


def flow(equation: Stokes | NavierStokes, d: int, outlet: bool) -> sciml.Problem:
    still = [0.0] * d
    sides = {name: sciml.Condition(dirichlet=still) for name in NAMES[: 2 * d]}
    rest = still[1:]
    if outlet:
        across = "4*y*(1 - y)" + ("*4*z*(1 - z)" if d == 3 else "")
        sides["left"] = sciml.Condition(dirichlet=[across, *rest])
        sides["right"] = sciml.Condition(neumann=0.0)
    else:
        sides["top"] = sciml.Condition(dirichlet=["16*x**2*(1 - x)**2", *rest])
    return sciml.Problem(None, equation, sides)


def steps(system: LinearSystem, form: Literal["diagonal", "triangular"]) -> int:
    A, b = system.A, system.b
    solver = MINRES(SaddlePoint(), rtol=1e-8) if form == "diagonal" else blocked(1e-8)
    found = solver.iterate(A, solver.setup(A), b, None, None)
    assert all(status.success for status in found.statuses)
    exact = scipy.sparse.linalg.spsolve(A.to_scipy().tocsc(), b.numpy())
    assert np.linalg.norm(found.x.numpy() - exact) < 1e-5 * np.linalg.norm(exact)
    return int(found.iterations)


@pytest.mark.parametrize("form", ["diagonal", "triangular"])
@pytest.mark.parametrize(("d", "outlet", "sizes"), [(2, True, (8, 24)), (3, False, (4, 5))])
def test_the_steps_of_stokes_do_not_grow_with_the_mesh(
    form: Literal["diagonal", "triangular"], d: int, outlet: bool, sizes: tuple[int, int]
) -> None:
    few, many = (
        steps(discretize(flow(Stokes(viscosity=0.1), d, outlet), mesh(d, n)), form) for n in sizes
    )
    assert many <= few + 5 and many < (80 if form == "diagonal" else 45)


@pytest.mark.parametrize("resistance", [1e2, 1e6])
def test_brinkman_takes_no_more_steps_than_stokes(resistance: float) -> None:
    drag = tuple(f"1 - {resistance}*{u}" for u in "uv")
    flowing = semidiscretize(flow(Stokes(viscosity=1.0, force=drag), 2, True), mesh(2, 16))
    rest = torch.zeros(flowing.shape, dtype=torch.float64)
    A, b = flowing.linearise(rest, 0.0), -flowing.residual(rest, 0.0)
    assert steps(LinearSystem(A, b), "diagonal") < 80
    assert steps(LinearSystem(A, b), "triangular") < 40


def test_a_step_in_time_is_preconditioned_whatever_its_length() -> None:
    problem = replace(flow(Stokes(), 2, False), time=sciml.Time(1.0), initial=0.0)
    system = semidiscretize(problem, mesh(2, 12))
    J = system.linearise(torch.zeros(system.shape, dtype=torch.float64), 0.0)
    for tau in (1e-6, 1e-3, 1.0):
        A = J.plus(StageSolver(system, 1e-8, 1e-8).shift(tau))
        assert steps(LinearSystem(A, torch.sin(torch.arange(A.size).double())), "triangular") < 45


@pytest.mark.parametrize("outlet", [True, False])
@pytest.mark.parametrize("turned", [False, True])
def test_newtons_systems_at_reynolds_100_and_their_transposes(outlet: bool, turned: bool) -> None:
    counts = []
    for n in (16, 32):
        system = semidiscretize(flow(NavierStokes(viscosity=0.01), 2, outlet), mesh(2, n))
        assert system.guess is not None
        u = Direct().run(Direct().init(system.guess)).value
        A = system.linearise(system.restrict(u), 0.0)
        assert A.saddle is not None and not A.symmetric
        A = A.transpose() if turned else A
        counts.append(steps(LinearSystem(A, torch.ones(A.size).double()), "triangular"))
    assert counts[1] <= counts[0] + 3 and counts[1] < 70


def test_a_stage_gives_up_blocks_that_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One factorisation then serves the run, and stages are what it makes them."""
    monkeypatch.setattr(implicit, "quickest", lambda A: False)
    push = ("sin(5*y)*cos(3*x)", "cos(4*x)")
    problem = flow(NavierStokes(viscosity=2e-4, force=push), 2, True)
    start = {"u": "4*y*(1 - y)", "v": 0.0}
    problem = replace(problem, time=sciml.Time(1.0), initial=start)
    system = semidiscretize(problem, mesh(2, 12))
    first = system.first[0]
    alive = torch.ones((), dtype=torch.bool)
    stages = StageSolver(system, 1e-10, 1e-8)
    found = stages.solve(0.3, first[None], 0.0, first, alive, system.residual)
    assert bool(found.solved) and stages.note == "stages solved by direct"
    left = system.residual(found.value, 0.0) + system.mass.apply(found.value - first) / 0.3
    assert float(left.norm()) < 1e-8 * float(system.mass.apply(first).norm())
    before = stages.setups
    again = stages.solve(0.3, first[None], 0.0, found.value, alive, system.residual)
    assert bool(again.solved) and stages.setups == before


def test_blocks_are_chosen_where_a_factorisation_is_slower() -> None:
    solution = sciml.solve(flow(Stokes(), 3, True), on=mesh(3, 6))
    assert solution.status.success
    assert any("saddle_point" in note for note in solution.notes)


def test_what_is_no_saddle_point_is_refused() -> None:
    A = sciml.SparseMatrix(scipy.sparse.eye(9))
    with pytest.raises(InputError, match="whose blocks are known"):
        GMRES(SaddlePoint()).setup(A)
    system = discretize(flow(Stokes(), 2, True), mesh(2, 2))
    with pytest.raises(InputError, match="not symmetric"):
        MINRES(SaddlePoint("triangular")).setup(system.A)


def test_newton_gives_up_blocks_that_are_slow_where_a_factorisation_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Buoyancy couples what the blocks treat one after the other: at Ra = 1e5 they took hundreds of
    # steps in every linear system, and Newton's method ran out of iterations.
    air = sciml.System(
        {
            "flow": NavierStokes("0.71", force=(0.0, "0.71e5*T")),
            "T": sciml.Equation(b=("u", "v")),
        }
    )
    still = sciml.Condition(dirichlet=0.0)
    sides = {
        name: sciml.Condition(by_field={"flow": still, "T": sciml.Condition(**given)})
        for name, given in (
            ("left", {"dirichlet": 1.0}),
            ("right", {"dirichlet": 0.0}),
            ("bottom", {"neumann": 0.0}),
            ("top", {"neumann": 0.0}),
        )
    }
    problem, place = sciml.Problem(None, air, sides), mesh(2, 8)
    exact = sciml.solve(problem, Newton(), on=place)
    monkeypatch.setattr(newton, "_eliminated", lambda J: False)
    found = sciml.solve(problem, Newton(), on=place)
    assert int(found.stats.iterations) <= int(exact.stats.iterations) + 2
    assert torch.allclose(found.value, exact.value, atol=1e-5 * float(exact.value.abs().max()))
    assert any("by direct" in note for note in found.notes)
