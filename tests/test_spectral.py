"""ETDRK4: order, exact solutions, invariants, aliasing, batches, restarts and refusals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from sciml.core.errors import InputError, SolveError
from sciml.core.problem.equation import Elasticity, Equation, Helmholtz, NavierStokes, System
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Obstacle, Problem, Time
from sciml.core.run.status import Status
from sciml.discretization.fourier.exponential import Diagonal, Pair, phi
from sciml.discretization.fourier.modes import fourier
from sciml.discretization.fourier.vorticity import velocity
from sciml.solvers import ETDRK4, Auto
from sciml.solvers.solve import solve

CIRCLE = Box((0.0,), (2 * math.pi,))
TORUS = Box((0.0, 0.0), (2 * math.pi, 2 * math.pi))


def problem(domain: Box, equation: Any, initial: Any, end: float, **options: Any) -> Problem:
    """A periodic problem from 0 to ``end``; ``frames`` and fields of Problem as options."""
    time = Time(end, frames=options.pop("frames", 2))
    sides = {side: Condition(periodic=True) for side in domain.sides}
    return Problem(domain, equation, sides, time=time, initial=initial, **options)


def answer(stated: Problem, shape: tuple[int, ...], centring: Any = "node", **options: Any) -> Any:
    return solve(stated, ETDRK4(**options), on=Grid(shape, centring), throw=False)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    "z", [0j, 1e-9, -1e-3, 0.3 + 0.4j, 0.999j, -1.0, 1.001, -3 + 2j, 12j, -40.0, -1e5, 1e6j]
)
def test_phi_functions_are_exact_to_rounding(z: complex) -> None:
    mpmath.mp.dps = 60
    found = phi(torch.tensor([z], dtype=torch.complex128))
    for k, value in enumerate(found, 1):
        if z == 0:
            exact = 1 / mpmath.factorial(k)
        else:
            point = mpmath.mpc(z)
            series = sum(point**j / mpmath.factorial(j) for j in range(k))
            exact = (mpmath.exp(point) - series) / point**k
        assert abs(complex(value) - complex(exact)) <= 4e-15 * abs(complex(exact)) + 1e-18


@pytest.mark.parametrize("stiffness", [0.0, -1e-8, -0.1, -0.2501, -4.0, -900.0, 0.3 + 1j])
@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_functions_of_a_pair_are_those_of_its_matrix(stiffness: complex, damping: float) -> None:
    h, ones = 0.7, torch.ones(1, dtype=torch.complex128)
    A = torch.tensor([[0, 1], [stiffness, -damping]], dtype=torch.complex128)
    made = Pair(stiffness * ones, damping * ones, 1).function(torch.exp, h)
    columns = torch.stack([made.apply(e.reshape(2, 1)).flatten() for e in torch.eye(2) + 0j], dim=1)
    exact = torch.matrix_exp(h * A)
    assert gap(columns, exact) < 1e-12


ORDER = {
    "kdv": problem(CIRCLE, Equation(kind="kdv"), "0.6*sin(x) + 0.3*cos(2*x)", 0.1),
    "allen_cahn": problem(CIRCLE, Equation(kind="allen_cahn", K=0.1), "0.5*sin(x)", 2.0),
    "burgers": problem(CIRCLE, Equation(kind="burgers", K=0.1), "sin(x)", 1.0),
    "kuramoto_sivashinsky": problem(
        Box((0.0,), (8 * math.pi,)), Equation(kind="kuramoto_sivashinsky"), "cos(x/4)", 4.0
    ),
    "klein_gordon": problem(
        CIRCLE, Equation(kind="klein_gordon", f="-u**3 + cos(t)"), {"u": "sin(x)", "ut": "1"}, 2.0
    ),
    "navier_stokes": problem(
        TORUS,
        NavierStokes(viscosity=0.02, vorticity_source="cos(x + y)*cos(t)"),
        {"vorticity": "sin(x)*cos(2*y) + cos(y)"},
        1.0,
    ),
    "varying diffusivity": problem(
        CIRCLE, Equation(d=1.0, K="0.1 + 0.05*sin(x) + 0.02*u", c="sin(x)"), "cos(x)", 1.0
    ),
}


@pytest.mark.parametrize("name", ORDER)
def test_order_in_time_is_four(name: str) -> None:
    stated = ORDER[name]
    shape = (25,) * stated.box.dimension
    end = stated.time.end

    def last(steps: int) -> torch.Tensor:
        return answer(stated, shape, step=end / steps).value[-1]

    coarse, fine, reference = (last(n) for n in (32, 64, 512))
    order = math.log2(gap(coarse, reference) / gap(fine, reference))
    assert order == pytest.approx(4, abs=0.1)


def heat(x: torch.Tensor, y: torch.Tensor, t: float) -> torch.Tensor:
    return math.exp(-0.1 * (1 + 8 - 2 * 0.5 * 2) * t) * torch.sin(x - 2 * y)


def advection(x: torch.Tensor, y: torch.Tensor, t: float) -> torch.Tensor:
    return torch.exp(torch.sin(x - 0.7 * t) + torch.cos(y + 1.3 * t))


def drift(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, t: float) -> torch.Tensor:
    return math.exp(-0.9 * t) * torch.sin(x - t) * torch.cos(y) * torch.cos(2 * z)


def breather(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.cos(3 * x) * math.cos(math.sqrt(9 * 0.5 + 2) * t)


def damped(x: torch.Tensor, t: float) -> torch.Tensor:
    w = math.sqrt(4 - 0.25)
    return torch.sin(2 * x) * math.exp(-t / 2) * (math.cos(w * t) + 0.5 / w * math.sin(w * t))


def rotating(x: torch.Tensor, t: float) -> torch.Tensor:
    return math.cos(t) * torch.sin(x) + math.sin(t) * torch.cos(x)


def standing(x: torch.Tensor, t: float) -> torch.Tensor:
    return math.exp(-t) * torch.sin(x)


EXACT: dict[str, tuple[Problem, Callable[..., torch.Tensor]]] = {
    "heat with a tensor": (
        problem(
            TORUS,
            Equation(kind="heat", K=((0.1, 0.05), (0.05, 0.2))),
            "sin(x - 2*y)",
            1.0,
            frames=3,
        ),
        heat,
    ),
    "advection": (
        problem(TORUS, Equation(kind="advection", b=(0.7, -1.3)), "exp(sin(x) + cos(y))", 2.0),
        advection,
    ),
    "drift in 3-D": (
        problem(
            Box((0.0,) * 3, (2 * math.pi,) * 3),
            Equation(d=2.0, K=0.2, b=(2.0, 0.0, 0.0), c="0.6 + 0*x"),
            "sin(x)*cos(y)*cos(2*z)",
            1.0,
        ),
        drift,
    ),
    "linear Klein-Gordon": (
        problem(CIRCLE, Equation(kind="klein_gordon", K=0.5, c=2.0), "cos(3*x)", 5.0),
        breather,
    ),
    "damped wave": (problem(CIRCLE, Equation(m=1.0, d=1.0), "sin(2*x)", 3.0), damped),
    "source in time": (
        problem(
            CIRCLE,
            Equation(d=2.0, K=0.0, f="-2*sin(t)*sin(x) + 2*cos(t)*cos(x)"),
            "sin(x)",
            4.0,
        ),
        rotating,
    ),
    "varying diffusivity": (
        problem(
            CIRCLE,
            Equation(
                d=1.0,
                K="1 + 0.5*sin(x)",
                f="exp(-t)*(-sin(x) + sin(x)*(1 + 0.5*sin(x)) - 0.5*cos(x)**2)",
            ),
            "sin(x)",
            1.0,
        ),
        standing,
    ),
}


@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("name", EXACT)
def test_exact_solutions(name: str, centring: Any) -> None:
    stated, exact = EXACT[name]
    points = (33,) if stated.box.dimension < 3 else (9,)
    solution = answer(stated, points * stated.box.dimension, centring, rtol=1e-9)
    assert solution.converged and solution.value.shape[0] == stated.time.frames
    for k, t in enumerate(solution.times.tolist()):
        assert gap(solution.value[k], exact(*solution.on.coordinates(), t)) < 2e-9


def test_kdv_soliton_keeps_its_shape_and_its_invariants() -> None:
    stated = problem(
        Box((-20.0,), (20.0,)),
        Equation(kind="kdv"),
        "2*0.64/cosh(0.8*x)**2",
        1.0,
        frames=3,
    )
    solution = answer(stated, (256,), "cell", rtol=1e-7)
    (x,) = solution.on.axes()
    exact = 2 * 0.64 / torch.cosh(0.8 * (x - 4 * 0.64)) ** 2
    assert solution.converged and gap(solution.value[-1], exact) < 1e-7
    mass, momentum = solution.value.sum(-1), solution.value.square().sum(-1)
    assert (mass / mass[0] - 1).abs().max() < 1e-13
    assert (momentum / momentum[0] - 1).abs().max() < 1e-7


def test_burgers_agrees_with_the_cole_hopf_transform() -> None:
    nu = 0.1
    solution = answer(
        problem(CIRCLE, Equation(kind="burgers", K=nu), "sin(x)", 1.5), (193,), rtol=1e-8
    )
    n = 4800
    x = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    heated = torch.fft.rfft(torch.exp((torch.cos(x) - 1) / (2 * nu))) * torch.exp(-nu * 1.5 * k * k)
    exact = -2 * nu * torch.fft.irfft(1j * k * heated) / torch.fft.irfft(heated)
    assert solution.converged and gap(solution.value[-1, :-1], exact[:: n // 192]) < 1e-7


def taylor_green(x: torch.Tensor, y: torch.Tensor, t: float, nu: float) -> torch.Tensor:
    """The vorticity of a decaying vortex carried along by the flow (0.5, -0.25)."""
    return -2 * math.exp(-2 * nu * t) * torch.sin(x - 0.5 * t) * torch.sin(y + 0.25 * t)


def test_the_stored_allen_cahn_reference_is_met() -> None:
    file = Path(__file__).parent.parent / "benchmarks" / "references" / "allen_cahn.npz"
    stored = {name: torch.from_numpy(values) for name, values in np.load(file).items()}
    equation = Equation(d=1.0, K=1e-4, f="5*u - 5*u**3")
    stated = problem(Box((-1.0,), (1.0,)), equation, "x**2*cos(pi*x)", 1.0, frames=11)
    solution = answer(stated, (2049,), rtol=1e-6)
    assert torch.equal(stored["x"], solution.on.axes()[0][::2])
    assert torch.equal(stored["t"], solution.times)
    for found, exact in zip(solution.value[:, ::2], stored["u"], strict=True):
        assert gap(found, exact) < 3e-6  # the kink at x = 1, sampled: an error of 1 / n^2


def test_taylor_green_vortex_decays_and_drifts() -> None:
    flow = {"u": "0.5 - sin(x)*cos(y)", "v": "-0.25 + cos(x)*sin(y)"}
    stated = problem(TORUS, NavierStokes(viscosity=0.05), flow, 2.0, frames=3)
    solution = answer(stated, (25, 25), rtol=1e-9)
    x, y = solution.on.coordinates()
    assert solution.converged and solution.fields == ("vorticity",)
    for k, t in enumerate(solution.times.tolist()):
        assert gap(solution.value[k], taylor_green(x, y, t, 0.05)) < 1e-8


def test_flow_without_viscosity_keeps_mean_energy_and_enstrophy() -> None:
    w = torch.randn(2, 24, 24, dtype=torch.float64)
    stated = problem(TORUS, NavierStokes(viscosity=0.0), {"vorticity": 0.0}, 0.5)
    solver = ETDRK4(rtol=1e-8)
    state = solver.init(stated, Grid((24, 24), "cell"))
    space = state.evolution.fourier
    limited = space.backward(space.kept * space.forward(w)) + 0.1
    ends = solver.run(state, initial=limited).value[:, [0, -1]]
    assert gap(ends[:, 0], ends[:, 1]) > 0.1
    energy = velocity(space, space.forward(ends)).square().sum((0, -2, -1))
    for kept in (ends.mean((-2, -1)), ends.square().sum((-2, -1)), energy):
        assert (kept[:, 1] / kept[:, 0] - 1).abs().max() < 1e-8


@pytest.mark.parametrize("shape", [(24,), (25,), (12, 15), (9, 8, 10)])
def test_quadratic_terms_are_free_of_aliasing(shape: tuple[int, ...]) -> None:
    def space(points: tuple[int, ...]) -> Any:
        box = Box((0.0,) * len(points), (1.0,) * len(points))
        stated = problem(box, Equation(kind="heat"), 0.0, 1.0)
        return fourier(stated, Grid(points, "cell", box), torch.device("cpu"))

    coarse, fine = space(shape), space(tuple(2 * n for n in shape))
    factors = [coarse.kept * coarse.forward(torch.randn(shape).double()) for _ in range(2)]

    def refined(U: torch.Tensor) -> torch.Tensor:
        wide = torch.zeros(fine.modes, dtype=U.dtype)
        for index in torch.cartesian_prod(*map(torch.arange, U.shape)).reshape(-1, U.ndim).tolist():
            place = [i if i <= n // 2 else i + n for i, n in zip(index[:-1], shape, strict=False)]
            wide[(*place, index[-1])] = U[tuple(index)]
        return wide

    there = [fine.backward(refined(U)) for U in factors]
    here = [coarse.backward(U) for U in factors]
    exact, found = fine.forward(there[0] * there[1]), coarse.forward(here[0] * here[1])
    limited = refined(coarse.kept * found)
    mask = refined(coarse.kept + 0j).real
    assert (limited - mask * exact).abs().max() < 1e-14
    assert (refined(found) - exact).abs().max() > 1e-3  # without the rule they are not


def test_fields_of_a_system_are_coupled() -> None:
    turning = System({"p": Equation(d=1.0, K=0.0, f="q"), "q": Equation(d=1.0, K=0.0, f="-p")})
    stated = problem(CIRCLE, turning, {"p": "sin(x)", "q": "cos(x)"}, 3.0, frames=4)
    solution = answer(stated, (17,), rtol=1e-8)
    (x,) = solution.on.axes()
    t = solution.times[:, None]
    exact = torch.stack([torch.sin(x + t), torch.cos(x + t)], dim=1)
    assert solution.fields == ("p", "q") and solution.value.shape == (4, 2, 17)
    assert gap(solution.value, exact) < 1e-8


def test_gray_scott_conserves_what_is_only_exchanged() -> None:
    names = {"Du": 0.01, "Dv": 0.005, "feed": 0.0, "kill": 0.0}
    initial = {"u": "1 + 0.5*cos(x)*sin(y)", "v": "0.3 + 0.2*sin(x)"}
    stated = problem(TORUS, System(kind="gray_scott"), initial, 2.0, parameters=names)
    solution = answer(stated, (16, 16), "cell", rtol=1e-7)
    total = solution.value.sum((-3, -2, -1))
    assert solution.converged and abs(float(total[-1] / total[0]) - 1) < 1e-14
    assert solution.value[-1, 1].mean() > 1.1 * solution.value[0, 1].mean()


SPOT = {"u": "1 + 0*x", "v": "0.5 + 0.1*sin(x)"}
RATES = {"Du": (0.1, 0.2), "Dv": 0.05, "feed": (0.04, 0.02), "kill": 0.06}
FLOW = {"vorticity": "sin(x)*cos(2*y)"}


@pytest.mark.parametrize(
    ("equation", "initial", "names", "shape"),
    [
        (Equation(kind="burgers", K="nu"), "a*sin(x)", {"nu": (0.1, 0.2), "a": (1.0, 0.5)}, (33,)),
        (Equation(kind="klein_gordon", f="g*u**3"), "a*sin(x)", {"g": -1.0, "a": (1, 2)}, (16,)),
        (NavierStokes(viscosity="nu"), FLOW, {"nu": (0.1, 0.01)}, (17, 17)),
        (System(kind="gray_scott"), SPOT, RATES, (16,)),
        (Equation(d="d", K="k*(1 + 0.3*sin(x))"), "cos(x)", {"d": (1, 2), "k": (0.1, 0.3)}, (16,)),
    ],
)
def test_a_batch_is_a_loop(equation: Any, initial: Any, names: dict, shape: tuple) -> None:
    domain = CIRCLE if len(shape) == 1 else TORUS
    stated = problem(domain, equation, initial, 0.5, parameters=names, frames=3)
    together = answer(stated, shape, step=0.05, rtol=0.1)
    assert len(together.statuses) == 2 and together.converged.all()
    for i in range(2):
        one = {n: v[i] if isinstance(v, tuple) else v for n, v in names.items()}
        alone = answer(dataclasses.replace(stated, parameters=one), shape, step=0.05, rtol=0.1)
        assert alone.value.shape == together.value.shape[1:]
        assert gap(together.value[i], alone.value) < 1e-13
        assert float(together.residual[i]) == pytest.approx(float(alone.residual), rel=1e-6)


def test_initial_data_as_tensors_are_a_batch_and_may_replace_the_problem_s() -> None:
    (x,) = Grid((33,), "node", CIRCLE).axes()
    data = torch.stack([torch.sin(x), torch.cos(2 * x), torch.sin(x) + 0.2])
    equation, solver = Equation(kind="burgers", K=0.2), ETDRK4(rtol=1e-5)
    given = solve(problem(CIRCLE, equation, data, 1.0), solver, on=Grid((33,)))
    state = solver.init(problem(CIRCLE, equation, 0.0, 1.0), Grid((33,)))
    assert given.value.shape == (3, 2, 33)
    assert torch.equal(given.value, solver.run(state, initial=data).value)
    with pytest.raises(InputError, match=r"its last axes must be \[33\]"):
        solver.run(state, initial=data[:, :-1])
    batch = solver.init(problem(CIRCLE, Equation(kind="heat", K="k"), 0.0, 1.0,
                                parameters={"k": (1, 2)}), Grid((33,)))  # fmt: skip
    assert solver.run(batch, initial=data[0]).value.shape == (2, 2, 33)
    with pytest.raises(InputError, match="different batches"):
        solver.run(batch, initial=data)


def test_a_batch_taken_in_pieces_is_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    (x,) = Grid((33,), "node", CIRCLE).axes()
    data = torch.stack([torch.sin(x + 0.3 * i) for i in range(5)])
    stated = problem(CIRCLE, Equation(kind="klein_gordon", f="-u**3"), data, 1.0, frames=3)
    whole = answer(stated, (33,), step=0.05, rtol=0.1)
    monkeypatch.setattr("sciml.solvers.time.etdrk4._CACHED", 130)
    calls: list[tuple[int, float]] = []
    solver = ETDRK4(step=0.05, rtol=0.1)
    state = solver.init(stated, Grid((33,)))
    pieces = solver.run(state, progress=lambda count, t: calls.append((count, t)))
    assert torch.equal(pieces.value, whole.value)
    times = [t for _, t in calls]
    assert len(times) == 60 and times == sorted(times) and times[-1] == pytest.approx(1.0)


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [None, 0.01])
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path, step: float | None) -> None:
    names = {"g": (-1.0, -2.0)}
    equation = Equation(kind="klein_gordon", f="g*u**3 - 20*u**3*exp(-(10*(t - 0.7))**2)")
    stated = problem(CIRCLE, equation, "sin(x)", 1.0, frames=11, parameters=names)
    solver = ETDRK4(rtol=1e-6, step=step)
    state = solver.init(stated, Grid((17,)))
    whole = solver.run(state, frames=tmp_path / "whole.h5")

    def kill(count: int, t: float) -> None:
        if t > 0.45 and (tmp_path / "cut.h5").exists():
            raise Killed

    with pytest.raises(Killed):
        solver.run(state, frames=tmp_path / "cut.h5", progress=kill)
    times = []
    resumed = solver.run(
        state, frames=tmp_path / "cut.h5", progress=lambda count, t: times.append(t)
    )
    assert times[0] > 0.4
    assert torch.equal(resumed.value, whole.value)
    assert torch.equal(resumed.residual, whole.residual)
    assert torch.equal(resumed.stats.iterations, whole.stats.iterations)
    other = dataclasses.replace(stated, initial="cos(x)")
    with pytest.raises(InputError):
        solver.run(solver.init(other, Grid((17,))), frames=tmp_path / "cut.h5")


def test_the_error_is_below_what_is_reported_and_that_below_the_tolerance() -> None:
    reference = answer(ORDER["burgers"], (33,), step=1 / 2048, rtol=1e-9).value
    for rtol in (1e-3, 1e-5, 1e-8):
        solution = answer(ORDER["burgers"], (33,), rtol=rtol)
        assert gap(solution.value[-1], reference[-1]) < float(solution.residual) <= rtol
        assert solution.status is Status.CONVERGED


def test_a_step_too_long_for_the_tolerance_is_called_inaccurate() -> None:
    solution = answer(ORDER["allen_cahn"], (33,), step=0.5, rtol=1e-8)
    assert solution.status is Status.INACCURATE_IN_TIME and float(solution.residual) > 1e-8
    with pytest.raises(SolveError, match="time steps"):
        solve(ORDER["allen_cahn"], ETDRK4(step=0.5, rtol=1e-8), on=Grid((33,)))
    limited = answer(ORDER["allen_cahn"], (33,), rtol=1e-12, max_steps=64)
    assert limited.status is Status.INACCURATE_IN_TIME
    assert limited.stats.iterations <= 64


@pytest.mark.parametrize("step", [None, 0.005])
def test_blow_up_keeps_the_frames_before(step: float | None) -> None:
    equation = Equation(kind="diffusion_reaction", K=0.01, f="u**2")
    stated = problem(CIRCLE, equation, "a", 2.1, parameters={"a": (0.2, 1.0)}, frames=8)
    solution = answer(stated, (16,), "cell", step=step, rtol=1e-4)
    assert solution.statuses == (Status.CONVERGED, Status.BLOWN_UP)  # at t = 5 and at t = 1
    assert solution.value.shape == (2, 4, 16) and solution.times[-1] == pytest.approx(0.9)
    exact = 1 / (1 - solution.times)
    assert gap(solution.value[1, :, 0], exact) < 1e-4


def test_a_grid_too_coarse_for_the_solution_is_noted() -> None:
    steep = problem(CIRCLE, Equation(kind="burgers", K=0.002), "sin(x)", 1.2)
    assert any("under-resolved" in n for n in answer(steep, (65,), step=0.01, rtol=0.5).notes)
    smooth = answer(ORDER["burgers"], (65,), rtol=1e-3)
    assert not any("under-resolved" in n for n in smooth.notes)


def test_progress_is_called_at_every_step() -> None:
    calls: list[tuple[int, float]] = []
    solver = ETDRK4(step=0.125, rtol=0.5)
    state = solver.init(ORDER["burgers"], Grid((17,)))
    solver.run(state, progress=lambda count, t: calls.append((count, t)))
    assert [t for _, t in calls] == pytest.approx([0.125 * (i + 1) for i in range(8)])


@pytest.mark.parametrize(
    "equation",
    [
        Equation(kind="kuramoto_sivashinsky"),
        Equation(kind="kdv"),
        System(kind="gray_scott"),
        NavierStokes(viscosity=0.1),
    ],
    ids=lambda e: e.kind,
)  # fmt: skip
def test_auto_chooses_it(equation: Any) -> None:
    domain = TORUS if isinstance(equation, NavierStokes) else CIRCLE
    initial = {
        "gray_scott": {"u": 1.0, "v": "0.1*sin(x)"},
        "navier_stokes": {"vorticity": "sin(x)"},
    }.get(equation.kind, "0.1*sin(x)")
    names = dict(Du=0.1, Dv=0.1, feed=0.1, kill=0.1)
    stated = problem(domain, equation, initial, 0.01, parameters=names)
    solution = solve(stated, Auto(), on=Grid((17,) * domain.dimension))
    assert solution.converged and any(n.startswith("auto: etdrk4, because") for n in solution.notes)


def test_growth_that_no_grid_can_follow_is_told_from_growth_that_is_bounded() -> None:
    carried = Equation(m=1.0, K=1.0, b=(0.5,))  # grows at the rate 1/4 at most
    assert answer(problem(CIRCLE, carried, "sin(x)", 1.0), (33,)).converged
    with pytest.raises(InputError, match="ill-posed"):
        answer(problem(CIRCLE, Equation(m=1.0, K=-1.0), "sin(x)", 1.0), (33,))


def changed(**options: Any) -> Problem:
    return dataclasses.replace(ORDER["burgers"], **options)


WALLS = {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet=0.0)}
HOLE = Obstacle("x < 1", Condition(neumann=0.0))
FORM = "not of the coefficient form"
# Per case the problem, a part of the message, and the key after "problem.".
REFUSED: dict[str, tuple[Problem, str, str]] = {
    "walls": (changed(boundary=WALLS), "left is dirichlet", "boundary.left"),
    "obstacle": (changed(obstacle=HOLE), "no obstacles", "obstacle"),
    "steady": (changed(time=None, initial=None), "give time", "time"),
    "d = 0": (changed(equation=Equation(f="u")), "needs d > 0; got 0", "equation.d"),
    "d(x)": (changed(equation=Equation(d="2 + sin(x)")), "a constant d", "equation.d"),
    "energy": (changed(equation=Equation(d=1.0, energy="ux**2")), "energy", "equation.energy"),
    "growth": (changed(equation=Equation(kind="heat", K=-1.0)), "ill-posed", "equation"),
    "helmholtz": (changed(equation=Helmholtz(1.0)), FORM, "equation.kind"),
    "elasticity": (changed(equation=Elasticity(1.0)), FORM, "equation.kind"),
    "dispersion in 2-D": (
        problem(TORUS, Equation(d=1.0, dispersion=1.0), 0.0, 1.0),
        "one dimension",
        "equation.dispersion",
    ),
    "b in 2-D": (
        problem(TORUS, Equation(kind="burgers"), 0.0, 1.0), "b has 2 entries", "equation.b",
    ),
    "unknown name": (
        changed(equation=Equation(d=1.0, f="v**2")), "unknown name 'v'", "equation.f",
    ),
    "unknown field": (changed(initial={"w": 0.0}), "unknown field 'w'", "initial.w"),
    "missing field": (
        changed(
            equation=System(kind="gray_scott"),
            initial={"u": 1.0},
            parameters=dict(Du=1, Dv=1, feed=1, kill=1),
        ),
        "initial data for v",
        "initial",
    ),
    "inertia in a system": (
        changed(equation=System({"u": Equation(m=1.0)}), initial={"u": 1.0}),
        "in a system",
        "equation.equations.u",
    ),
    "flow in 1-D": (
        changed(equation=NavierStokes(1.0), initial={"vorticity": 0.0}),
        "two dimensions",
        "domain",
    ),
    "mean force": (
        problem(TORUS, NavierStokes(1.0, force=("1 + sin(y)", 0.0)), {"vorticity": 0.0}, 1.0),
        "force has a mean",
        "equation.force.0",
    ),
    "half a velocity": (
        problem(TORUS, NavierStokes(1.0), {"u": 0.0}, 1.0), "{vorticity", "initial",
    ),
    "parameter u": (changed(parameters={"u": 1.0}), "name is taken", "parameters.u"),
    "batches": (
        changed(
            parameters={"nu": (1, 2, 3)},
            equation=Equation(kind="heat", K="nu"),
            initial=torch.zeros(2, 17),
        ),
        "different batches",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    stated, message, key = REFUSED[name]
    with pytest.raises(InputError) as caught:
        ETDRK4().init(stated, Grid((17,) * stated.box.dimension))
    assert message in caught.value.message and "\n" not in caught.value.message
    assert caught.value.key == f"problem.{key}".rstrip(".")


@pytest.mark.parametrize(
    "options", [{"rtol": 0.0}, {"step": -1.0}, {"step": math.inf}, {"max_steps": 1}]
)
def test_options_are_checked(options: dict) -> None:
    with pytest.raises(InputError) as caught:
        ETDRK4(**options)
    assert caught.value.key == f"solver.{next(iter(options))}"


def test_a_force_is_its_curl() -> None:
    force = ("sin(y)*cos(t) + cos(x)", "sin(2*x)*cos(t)")
    source = "(2*cos(2*x) - cos(y))*cos(t)"
    ends = [
        answer(problem(TORUS, NavierStokes(0.1, **given), {"vorticity": "sin(x)"}, 1.0), (17, 17))
        for given in ({"force": force}, {"vorticity_source": source})
    ]
    assert gap(ends[0].value, ends[1].value) < 1e-12


def test_the_linear_part_is_a_number_per_mode() -> None:
    symbol = torch.tensor([[-1.0 + 0j, -2.0]])
    doubled = Diagonal(symbol).function(torch.exp, 2.0, factor=0.5)
    assert gap(doubled.apply(torch.ones(1, 2)), 0.5 * torch.exp(2 * symbol.real)) < 1e-7
