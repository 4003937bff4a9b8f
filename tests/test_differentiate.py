"""Gradients through a solve equal central differences, whatever solver, side and coefficient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import sciml
from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import SolveError
from sciml.core.problem.problem import Condition, Equation, Problem, Robin
from sciml.core.run.solve import Solver
from sciml.discretization import discretize
from sciml.solvers import CG, FCG, GMRES, MINRES, Auto, BiCGStab, Direct, FastPoisson, Multigrid

SQUARE = sciml.Box((0.0, 0.0), (1.0, 1.0))
N = 7
ON = sciml.Grid((N, N))
TIGHT = 1e-12


def sides(**given: Condition) -> dict[str, Condition]:
    return {side: given.get(side, Condition(dirichlet=0.0)) for side in SQUARE.sides}


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)


def value_of(problem: Problem, solver: Solver, on: sciml.Grid = ON) -> torch.Tensor:
    return sciml.solve(problem, solver, on=on).value


SYMMETRIC = [
    CG(preconditioner=Multigrid(), rtol=TIGHT),
    FCG(preconditioner=Multigrid(), rtol=TIGHT),
    MINRES(rtol=TIGHT),
    Multigrid(rtol=TIGHT),
    Direct(rtol=TIGHT),
    Auto(rtol=TIGHT),
]


@pytest.mark.parametrize("solver", SYMMETRIC, ids=lambda s: s.kind)
def test_gradient_in_conductivity_source_and_boundary_values(solver: Solver) -> None:
    def answer(K: torch.Tensor, f: torch.Tensor, g: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        flux, robin = Condition(neumann=h), Condition(robin=Robin(0.7, h))
        walls = sides(left=Condition(dirichlet=g), top=flux, right=robin)
        return value_of(Problem(SQUARE, Equation(K=K, f=f, c=0.3), walls), solver)

    inputs = [field(N, N), field(N, N, seed=1), field(N, seed=2), field(N, seed=3)]
    assert torch.autograd.gradcheck(answer, [x.requires_grad_() for x in inputs], atol=1e-6)


@pytest.mark.parametrize(
    "solver",
    [
        GMRES(preconditioner=Multigrid(), rtol=TIGHT),
        BiCGStab(rtol=TIGHT),
        Direct(rtol=TIGHT),
        Auto(rtol=TIGHT),
    ],
    ids=lambda s: s.kind,
)
def test_gradient_of_a_nonsymmetric_problem(solver: Solver) -> None:
    def answer(K: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        equation = Equation(K=K, b=(b, "y"), c=c, f=1.0)
        return value_of(Problem(SQUARE, equation, sides(top=Condition(neumann=0.0))), solver)

    inputs = [field(N, N), field(N, N, seed=1), field(N, N, seed=2)]
    assert torch.autograd.gradcheck(answer, [x.requires_grad_() for x in inputs], atol=1e-6)


def test_gradient_in_a_named_parameter_and_through_an_expression() -> None:
    def answer(strength: torch.Tensor) -> torch.Tensor:
        equation = Equation(K="1 + strength*x*y", f="sin(pi*x)")
        problem = Problem(SQUARE, equation, sides(), parameters={"strength": strength})
        return value_of(problem, Auto(rtol=TIGHT))

    assert torch.autograd.gradcheck(answer, field(3).requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("kind", ["neumann", "periodic"])
def test_gradient_of_a_singular_problem_with_mean_zero(kind: str, centring: str) -> None:
    condition = Condition(neumann=0.0) if kind == "neumann" else Condition(periodic=True)
    on = sciml.Grid((N + 2, N + 2), centring)  # type: ignore[arg-type]

    def answer(K: torch.Tensor, amplitude: torch.Tensor) -> torch.Tensor:
        walls = dict.fromkeys(SQUARE.sides, condition)
        source = "amplitude*cos(2*pi*x)*cos(2*pi*y)"
        equation = Equation(K=K, f=source)
        problem = Problem(SQUARE, equation, walls, parameters={"amplitude": amplitude})
        return value_of(problem, CG(preconditioner=Multigrid(), rtol=TIGHT), on)

    K = field(N + 2, N + 2)
    if kind == "periodic" and centring == "node":
        K[-1], K[:, -1] = K[0], K[:, 0]
    inputs = (K.requires_grad_(), field(seed=1).requires_grad_())
    assert torch.autograd.gradcheck(answer, inputs, atol=1e-6)


@pytest.mark.parametrize("dimension", [1, 3])
def test_gradient_in_one_and_three_dimensions(dimension: int) -> None:
    box = sciml.Box((0.0,) * dimension, (1.0,) * dimension)
    walls = {side: Condition(dirichlet=0.0) for side in box.sides}

    def answer(K: torch.Tensor) -> torch.Tensor:
        problem = Problem(box, Equation(K=K, f=1.0), walls)
        return value_of(problem, Auto(rtol=TIGHT), sciml.Grid((5,) * dimension))

    inputs = field(*(5,) * dimension).requires_grad_()
    assert torch.autograd.gradcheck(answer, inputs, atol=1e-6)


def test_gradient_of_a_batch_is_that_of_each_sample() -> None:
    K = field(3, N, N).requires_grad_()
    weight = field(3, N, N, seed=5)
    solver = CG(preconditioner=Multigrid(), rtol=TIGHT)
    whole = value_of(Problem(SQUARE, Equation(K=K, f=1.0), sides()), solver)
    (together,) = torch.autograd.grad((weight * whole).sum(), K)
    for sample in range(3):
        alone = K[sample].detach().requires_grad_()
        value = value_of(Problem(SQUARE, Equation(K=alone, f=1.0), sides()), solver)
        (gradient,) = torch.autograd.grad((weight[sample] * value).sum(), alone)
        assert torch.allclose(gradient, together[sample], rtol=1e-9, atol=1e-12)


def test_fast_poisson_is_differentiable_in_its_source() -> None:
    def answer(f: torch.Tensor) -> torch.Tensor:
        return value_of(Problem(SQUARE, Equation(f=f), sides()), FastPoisson())

    assert torch.autograd.gradcheck(answer, field(N, N).requires_grad_(), atol=1e-6)


def test_one_set_up_answers_and_differentiates_many_right_hand_sides() -> None:
    solver = CG(preconditioner=Multigrid(), rtol=TIGHT)
    state = sciml.init(Problem(SQUARE, Equation(K="1 + x", f=1.0), sides()), solver, ON)

    def answer(b: torch.Tensor) -> torch.Tensor:
        return solver.run(state, b=b).value

    assert torch.autograd.gradcheck(answer, field(N - 2, N - 2).requires_grad_(), atol=1e-6)


def test_nothing_is_kept_of_the_iterations() -> None:
    """The graph of an answer holds the same tensors after 5 iterations as after 500."""

    def saved(solver: Solver) -> int:
        count = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += 1
            return tensor

        K = field(33, 33).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            value_of(Problem(SQUARE, Equation(K=K, f=1.0), sides()), solver, sciml.Grid((33, 33)))
        return count

    assert saved(CG(preconditioner=Multigrid())) == saved(CG(rtol=1e-10)) > 0


def test_a_solve_without_gradients_has_no_graph() -> None:
    K = field(N, N).requires_grad_()
    with torch.no_grad():
        value = value_of(Problem(SQUARE, Equation(K=K, f=1.0), sides()), CG())
    assert not value.requires_grad
    assert not value_of(Problem(SQUARE, Equation(K=K.detach(), f=1.0), sides()), CG()).requires_grad


def test_an_adjoint_that_does_not_converge_is_an_error() -> None:
    """The right-hand side is an eigenvector, found in one step; the adjoint's is not."""
    system = discretize(Problem(SQUARE, Equation(f=1.0), sides()), sciml.Grid((17, 17)))
    x = torch.sin(torch.pi * torch.linspace(0, 1, 17, dtype=torch.float64))[1:-1]
    b = (x[:, None] * x[None, :]).requires_grad_()
    solution = sciml.solve(LinearSystem(system.A, b), CG(max_iterations=2))
    with pytest.raises(SolveError, match="adjoint"):
        (solution.value * field(15, 15)).sum().backward()


def test_the_transpose_of_a_stencil_is_differentiated_too() -> None:
    planes = field(9, 4, 4).requires_grad_()
    offsets = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]

    def product(p: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return Stencil(p, offsets).adjoint(u)

    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(product, (planes, field(4, 4, seed=1).requires_grad_()))


def test_sampling_at_points_is_differentiable() -> None:
    points = field(5, 2) * 0.6

    def measured(f: torch.Tensor) -> torch.Tensor:
        problem = Problem(SQUARE, Equation(f=f), sides())
        return sciml.solve(problem, Direct(), on=ON).sample(points)

    assert torch.autograd.gradcheck(measured, field(N, N).requires_grad_(), atol=1e-6)
