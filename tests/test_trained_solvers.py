"""What every solver by a trained function does; a new one, or a new sampler, is one class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from sciml import Status
from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Time, Unknown
from sciml.discretization.points.jet import Jet, Pairs, jet_of
from sciml.discretization.points.strong import StrongForm
from sciml.solvers import CG, Multigrid
from sciml.solvers.solve import solve
from sciml.solvers.trained import (
    PINN,
    DeepRitz,
    Gaussians,
    GaussNewton,
    NaturalGradient,
    RandomFeatures,
    VariableProjection,
)
from sciml.solvers.trained.minimisation import Budget, OptimiserResult
from sciml.solvers.trained.networks import Dense, Tape
from sciml.solvers.trained.objective import Objective
from sciml.solvers.trained.sampling import check_bounded
from sciml.solvers.trained.solver import Collocation, at_least

WAVE = "sin(pi*x)*sin(2*pi*y)"
BOX = Box((0.0, 0.0), (1.0, 1.0))
POISSON = Problem(
    BOX, Equation(K=1.0, f=f"5*pi**2*{WAVE}"), dict.fromkeys(BOX.sides, Condition(0.0)), exact=WAVE
)
LINE = Box((0.0,), (1.0,))
HEAT = Problem(
    LINE,
    Equation(d=1.0, K=0.1),
    dict.fromkeys(LINE.sides, Condition(0.0)),
    time=Time(end=1.0, frames=3),
    initial={"u": "sin(pi*x)"},
    exact="exp(-0.1*pi**2*t)*sin(pi*x)",
)
GRID = Grid((9, 9))
COLLOCATION = (
    PINN(width=8, depth=1, points=80, optimiser=GaussNewton(iterations=8)),
    Gaussians(count=20, optimiser=VariableProjection(iterations=3)),
    RandomFeatures(count=60, bandwidths=(2.0, 4.0)),
)
ALL = (*COLLOCATION, DeepRitz(width=6, points=100, optimiser=NaturalGradient(iterations=5)))


def wave(grid: Grid) -> Tensor:
    x, y = grid.bind(BOX).coordinates()
    return (math.pi * x).sin() * (2 * math.pi * y).sin()


def kind(solver: Any) -> str:
    return str(solver.kind)


@pytest.mark.parametrize("solver", ALL, ids=kind)
def test_a_state_answers_again_as_it_did_before(solver: Any) -> None:
    state = solver.init(POISSON, GRID)
    first, second = solver.run(state), solver.run(state)
    assert torch.equal(first.value, second.value)
    assert torch.equal(first.stats.residuals, second.stats.residuals)


@pytest.mark.parametrize("solver", COLLOCATION, ids=kind)
def test_a_state_with_an_unknown_answers_again(solver: Any) -> None:
    data = {"x": torch.linspace(0.1, 0.9, 9), "y": torch.linspace(0.2, 0.8, 9)}
    data["u"] = (math.pi * data["x"]).sin() * (2 * math.pi * data["y"]).sin()
    unknown = replace(
        POISSON,
        equation=Equation(K="k", f=f"5*pi**2*{WAVE}"),
        parameters={"k": Unknown(1.5)},
        observations=data,
        exact=None,
    )
    state = solver.init(unknown, GRID)
    first, second = solver.run(state), solver.run(state)
    assert first.parameters == second.parameters
    assert first.parameters["k"] != 1.5


@pytest.mark.parametrize("solver", ALL, ids=kind)
def test_a_start_and_a_right_hand_side_are_refused(solver: Any) -> None:
    state = solver.init(POISSON, GRID)
    for given in ({"initial": torch.zeros(9, 9)}, {"b": torch.zeros(7, 7)}):
        with pytest.raises(InputError, match="from its own start"):
            solver.run(state, **given)


@pytest.mark.parametrize("solver", ALL, ids=kind)
def test_no_time_is_no_step(solver: Any) -> None:
    """One iteration is recorded, none is taken; the answer is still measured."""
    solver = replace(solver, seconds=0.0)
    solution = solver.run(solver.init(POISSON, GRID))
    assert int(solution.stats.iterations) <= 1 + (solver.kind == "random_features")
    assert float(solution.residual) > 0


@pytest.mark.parametrize("solver", ALL, ids=kind)
def test_polish_goes_on_to_its_own_tolerance(solver: Any) -> None:
    solver = replace(solver, polish=CG(Multigrid(), rtol=1e-11))
    solution = solver.run(solver.init(POISSON, GRID))
    assert solution.status is Status.CONVERGED and float(solution.residual) <= 1e-11
    exact = solve(POISSON, CG(rtol=1e-12), on=GRID)
    torch.testing.assert_close(solution.value, exact.value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", ALL, ids=kind)
@pytest.mark.parametrize(
    ("name", "value"),
    [("rtol", -1e-3), ("rtol", math.nan), ("seconds", -1.0), ("seed", -1), ("boundary_points", 0)],
)
def test_shared_options_out_of_range_are_refused(solver: Any, name: str, value: float) -> None:
    with pytest.raises(InputError) as caught:
        replace(solver, **{name: value})
    assert caught.value.key == f"solver.{name}"


@pytest.mark.parametrize("solver", COLLOCATION, ids=kind)
def test_windows_of_time_belong_to_all(solver: Any) -> None:
    solver = replace(solver, windows=3, seed=1)
    solution = solver.run(solver.init(HEAT, Grid((17,))))
    x = solution.on.coordinates()[0]
    exact = torch.stack([math.exp(-0.1 * math.pi**2 * t) * (math.pi * x).sin()
                         for t in solution.times.tolist()])  # fmt: skip
    assert float((solution.value - exact).norm() / exact.norm()) < 5e-3
    with pytest.raises(InputError, match="problems in time") as caught:
        solver.init(POISSON, GRID)
    assert caught.value.key == "solver.windows"


@pytest.mark.parametrize("solver", COLLOCATION, ids=kind)
def test_an_extension_belongs_to_all(solver: Any) -> None:
    """Data that the extension meets, and with it the solution: nothing is left to train."""
    solver = replace(solver, extension={"u": f"x + {WAVE}"})
    sides = {side: Condition(dirichlet="x") for side in BOX.sides}
    solution = solver.run(solver.init(replace(POISSON, boundary=sides, exact=None), GRID))
    x, _ = GRID.bind(BOX).coordinates()
    # Random first weights of a network are something to take away again.
    atol = 1e-2 if solver.kind == "pinn" else 1e-5
    torch.testing.assert_close(solution.value, x + wave(GRID), rtol=0, atol=atol)


@dataclass(frozen=True)
class Midpoints:
    """A sampler of its own: the midpoints of a lattice, or as many of them as are asked for."""

    every: int = 0
    kind: Literal["midpoints"] = "midpoints"

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        check_bounded(objective)
        found = []
        for piece, count in zip(objective.pieces, counts, strict=True):
            each = math.ceil(count ** (1 / max(piece.free, 1)))
            axis = (torch.arange(each, dtype=torch.float64) + 0.5) / each
            cube = torch.cartesian_prod(*[axis] * piece.free).reshape(-1, piece.free)
            found.append(piece.place(cube[:count]))
        return found


SAMPLED = (
    PINN(width=12, points=144, optimiser=GaussNewton(iterations=40)),
    Gaussians(count=50, points=144, optimiser=VariableProjection(iterations=8)),
    RandomFeatures(count=60, points=144, bandwidths=(4.0,)),
)


@pytest.mark.parametrize("solver", SAMPLED, ids=kind)
def test_a_sampler_is_one_class(solver: Any) -> None:
    solver = replace(solver, sampler=Midpoints(), hard=False, boundary_points=12)
    state = solver.init(POISSON, Grid((17, 17)))
    solution = solver.run(state)
    assert float(solution.error(wave(Grid((17, 17))))) < 0.02
    equation, *sides = state.objective.batches
    ticks = (torch.arange(12, dtype=torch.float64) + 0.5) / 12
    assert torch.equal(equation.points, torch.cartesian_prod(ticks, ticks))
    for side, axis in zip(sides, (1, 1, 0, 0), strict=True):
        assert torch.equal(side.points[:, axis], ticks)


@dataclass(frozen=True)
class Monomials(Collocation):
    """A trained solver of its own: the best polynomial of ``degree`` per axis."""

    degree: int = 6
    kind: Literal["monomials"] = "monomials"
    _: KW_ONLY
    points: int = 400

    def check(self) -> None:
        at_least(self, 1, "degree")

    def ansatz(self, form: StrongForm) -> Polynomial:
        return Polynomial(self.degree, form.problem.box.dimension + (form.problem.time is not None))

    def minimise(self, objective: Objective, budget: Budget) -> OptimiserResult:
        generator = torch.Generator().manual_seed(self.seed)
        found = self.minimisation(objective, self.points, generator, budget, total=1)
        return VariableProjection(iterations=0).minimise(objective, found)


class Polynomial:
    """Monomials of every degree, and a last layer that weighs them."""

    def __init__(self, degree: int, dimension: int) -> None:
        self.powers = torch.cartesian_prod(*[torch.arange(degree + 1)] * dimension)
        self.powers = self.powers.reshape(-1, dimension)
        self.last = Dense(len(self.powers), 1).double()
        torch.nn.init.zeros_(self.last.weight)

    def __call__(self, points: Tensor, pairs: Pairs, tape: Tape | None = None) -> Jet:
        def basis(x: Tensor) -> Tensor:
            return (x[:, None, :] ** self.powers).prod(-1)

        return self.last(jet_of(basis, points, pairs), tape)

    def blocks(self) -> list[Dense]:
        return [self.last]


@pytest.mark.parametrize("hard", [True, False])
def test_a_trained_solver_is_one_class(hard: bool) -> None:
    """It is exact where the solution is a polynomial, in space and in time, and verified."""
    u = "x*(1 - x)*y*(1 - y)*(1 + x)"
    f = "-((-6*x)*y*(1 - y) + (x - x**3)*(-2))"
    problem = replace(POISSON, equation=Equation(K=1.0, f=f), exact=u)
    solution = solve(problem, Monomials(degree=3, hard=hard, rtol=1e-9), on=Grid((9, 9)))
    x, y = solution.on.coordinates()
    assert solution.status is Status.CONVERGED
    torch.testing.assert_close(
        solution.value, x * (1 - x) * y * (1 - y) * (1 + x), rtol=0, atol=1e-9
    )
    moving = replace(
        HEAT,
        equation=Equation(d=1.0, K=1.0, f="x*(1 - x) + 2*(1 + t)"),
        initial={"u": "x*(1 - x)"},
        exact=None,
    )
    for windows in (1, 2):
        found = solve(moving, Monomials(degree=2, hard=hard, rtol=1e-9, windows=windows),
                      on=Grid((9,)))  # fmt: skip
        x = found.on.coordinates()[0]
        exact = torch.stack([x * (1 - x) * (1 + t) for t in found.times])
        torch.testing.assert_close(found.value, exact, rtol=0, atol=1e-9)


def test_the_interface_is_no_solver() -> None:
    made: Callable[..., Any] = Collocation
    with pytest.raises(TypeError, match="abstract"):
        made()
