"""Newmark's method and generalised alpha: order, energy, damping of the unresolved, gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from test_general_form import everywhere, square

import sciml
from sciml import InputError
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.problem.condition import Condition
from sciml.core.problem.equation import Elasticity, Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Problem, Time
from sciml.discretization import semidiscretize
from sciml.solvers import SDIRK, Newmark

WALL = {"all": Condition(dirichlet=0.0)}


def string(damping: float, end: float = 1.0, frames: int = 2) -> Problem:
    """A damped string with a load that swings: no mode of it is alone."""
    return Problem(
        Box((0.0,), (1.0,)),
        Equation(m="1 + x", d=damping, f="sin(5*t)*x"),
        WALL,
        time=Time(end, frames=frames),
        initial={"u": "sin(pi*x)", "ut": "x*(1 - x)"},
    )


@pytest.mark.parametrize(("damping", "rho"), [(0.0, 1.0), (3.0, 1.0), (3.0, 0.5), (0.0, 0.0)])
def test_it_is_of_second_order_with_and_without_damping(damping: float, rho: float) -> None:
    problem, ends = string(damping, 0.5), []
    for n in (50, 100, 200):
        method = Newmark(step=0.5 / n, rtol=0.9, rho_inf=rho)
        ends.append(sciml.solve(problem, method, on=Grid((9,))).value[-1])
    changes = [float((b - a).norm()) for a, b in pairwise(ends)]
    assert math.log2(changes[0] / changes[1]) == pytest.approx(2, abs=0.1)


def body(initial: dict[str, str], **given: object) -> Problem:
    still = Condition(neumann=0.0)
    sides = {"left": Condition(dirichlet=0.0), "right": still, "bottom": still, "top": still}
    return Problem(None, Elasticity(10.0, 0.3), sides, initial=initial, **given)  # type: ignore


def test_the_energy_of_an_elastic_body_is_kept_to_rounding_or_dissipated() -> None:
    """v . M v / 2 + u . K u / 2 halfway between steps of a tenth of the first period."""
    mesh, h = square(2, "P2"), 0.2
    initial = {"u": "0.1*x**2", "v": "0.05*x*sin(9*y)", "vt": "x"}
    problem = body(initial, time=Time(60 * h, frames=61))
    system = semidiscretize(problem, mesh)
    assert isinstance(system.inertia, PatternMatrix)
    M, K = system.inertia.to_scipy(), system.linearise(system.first[0], 0.0).to_scipy()
    found = {}
    for rho in (1.0, 0.5):
        method = Newmark(step=h, rtol=0.9, rho_inf=rho)
        frames = sciml.solve(problem, method, on=mesh, throw=False).value
        x = system.restrict(frames).numpy()
        v, u = np.diff(x, axis=0) / h, (x[1:] + x[:-1]) / 2
        found[rho] = (v * (M @ v.T).T + u * (K @ u.T).T).sum(1) / 2
    assert np.ptp(found[1.0]) < 1e-10 * found[1.0].mean()
    assert found[0.5][-1] < 0.9 * found[0.5][0]


def test_it_is_newmarks_recursion() -> None:
    """Beside beta = 1/4, gamma = 1/2 written out with the assembled matrices."""
    mesh, h = square(2, "P2"), 0.1
    problem = body({"u": "0.1*x", "v": "0", "vt": "x*y"}, time=Time(5 * h))
    system = semidiscretize(problem, mesh)
    M, K = (
        A.to_scipy().toarray() for A in (system.inertia, system.linearise(system.first[0], 0.0))
    )
    u, v = (x.numpy() for x in system.first)
    a = np.linalg.solve(M, -K @ u)
    for _ in range(5):
        new = np.linalg.solve(M + h * h / 4 * K, -K @ (u + h * v + h * h / 4 * a))
        u, v, a = u + h * v + h * h / 4 * (a + new), v + h / 2 * (a + new), new
    value = sciml.solve(problem, Newmark(step=h, rtol=0.9), on=mesh).value[-1]
    torch.testing.assert_close(system.restrict(value), torch.from_numpy(u), rtol=0, atol=1e-10)


def test_a_sudden_load_doubles_what_it_does_slowly_in_sane_steps() -> None:
    """A mass on a spring: u = g (1 - cos(w t)) / w^2 has twice the amplitude of rest."""
    problem = Problem(
        Box((0.0,), (1.0,)),
        Equation(m=1.0, K=1.0, c=25.0, f=25.0),
        {"all": Condition(neumann=0.0)},
        time=Time(1.3, frames=14),
        initial=0.0,
    )
    solution = sciml.solve(problem, Newmark(rtol=1e-5), on=Grid((5,)))
    assert solution.status.success
    true = 1 - torch.cos(5 * solution.times)
    assert float((solution.value[:, 2] - true).abs().max()) < 2e-2
    assert float(solution.value.max()) == pytest.approx(2, abs=0.02)
    assert int(solution.stats.iterations.max()) < 200


def test_a_run_that_was_killed_goes_on_to_the_bit(tmp_path: Path) -> None:
    problem, method = string(0.3, frames=6), Newmark(rtol=1e-5, rho_inf=0.7)
    whole = sciml.solve(problem, method, on=Grid((9,)))

    def killed(step: int, t: float) -> None:
        if t > 0.5:
            raise KeyboardInterrupt

    kept = tmp_path / "frames.h5"
    with pytest.raises(KeyboardInterrupt):
        sciml.solve(problem, method, on=Grid((9,)), frames=kept, progress=killed)
    again = sciml.solve(problem, method, on=Grid((9,)), frames=kept)
    assert any("went on" in note for note in again.notes)
    assert torch.equal(again.value, whole.value)


def test_the_steps_under_a_sudden_load_do_not_follow_the_waves_of_a_finer_mesh() -> None:
    free = Condition(neumann=0.0)
    problem = Problem(
        None,
        Elasticity(1000.0, 0.3, force=(0.0, -1.0)),
        {"left": Condition(dirichlet=0.0), "right": free, "bottom": free, "top": free},
        time=Time(0.2),
        initial=0.0,
    )
    growth = {}
    for solver in (Newmark(), SDIRK(rtol=1e-4)):
        found = [sciml.solve(problem, solver, on=square(n, "P2")) for n in (2, 5)]
        steps = [int(solution.stats.iterations.max()) for solution in found]
        growth[solver.kind] = steps[1] / steps[0]
        assert steps[1] < 200
    assert growth["newmark"] < 1.15 < 1.2 < growth["sdirk"]


def test_a_gradient_goes_through_its_steps() -> None:
    def tip(c: torch.Tensor) -> torch.Tensor:
        problem = replace(string(1.0, 0.3), parameters={"c": c})
        problem = replace(problem, equation=Equation(m=1.0, d=1.0, K="c", f="t*c*u**2"))
        return sciml.solve(problem, Newmark(step=0.05, rtol=0.9, rho_inf=0.6), on=Grid((9,))).value[
            -1, 3
        ]

    c = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    tip(c).backward()
    ends = [float(tip(torch.tensor(1.2 + s, dtype=torch.float64))) for s in (1e-5, -1e-5)]
    assert float(c.grad) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_moving_supports_on_a_mesh() -> None:
    """u = sin(t) x at all sides, of u_tt - Lap u = -sin(t) x."""
    problem = Problem(
        None,
        Equation(m=1.0, f="-sin(t)*x"),
        everywhere(Condition(dirichlet="sin(t)*x")),
        time=Time(1.0),
        initial={"u": 0.0, "ut": "x"},
    )
    mesh = square(4)
    solution = sciml.solve(problem, Newmark(), on=mesh)
    exact = torch.from_numpy(math.sin(1) * mesh.nodes[:, 0])
    assert float((solution.value[-1] - exact).abs().max()) < 3e-3


def test_bad_input_is_one_line() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        Newmark(rho_inf=1.5)
    heat = Problem(Box((0.0,), (1.0,)), Equation(d=1.0), WALL, time=Time(1.0), initial=0.0)
    with pytest.raises(InputError, match="second order in time"):
        sciml.solve(heat, Newmark(), on=Grid((5,)))
