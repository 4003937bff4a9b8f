"""The discrete residual as a loss: the solvers' own, differentiable, on any grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation, Helmholtz
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Obstacle, Problem, Robin, Time
from sciml.datasets.distributions import Blocks, GaussianField, Uniform
from sciml.datasets.family import DatasetOptions, Family
from sciml.discretization import discretize
from sciml.operators import Residual, Signature
from sciml.solvers import Direct
from sciml.solvers.linear.iteration import relative_residual
from sciml.solvers.solve import solve
from sciml.training.residual import residual_of

SQUARE = Box((0.0, 0.0), (1.0, 2.0))
FIELD = GaussianField(through="2 + tanh(a)")
DIRICHLET = Condition(dirichlet="x + y**2")


def family(
    equation: Any, sides: tuple[Condition, ...], *, centring: str = "node", **problem: Any
) -> Family:
    names = ("left", "right", "bottom", "top")
    stated = Problem(SQUARE, equation, dict(zip(names, sides, strict=True)), **problem)
    return Family(stated, Grid((9, 11), centring))  # type: ignore[arg-type]


MIXED = (
    DIRICHLET,
    Condition(neumann=0.3),
    Condition(robin=Robin(1.0, "x")),
    Condition(dirichlet=1.0),
)
WRAPPED = (Condition(periodic=True), Condition(periodic=True), DIRICHLET, DIRICHLET)
NOISE = GaussianField()
FAMILIES = {
    "Darcy": family(Equation(K=FIELD, f=1.0), (DIRICHLET,) * 4),
    "on cells": family(Equation(K=FIELD, f=1.0), (DIRICHLET,) * 4, centring="cell"),
    "mixed sides": family(Equation(K=FIELD, c=1.0, f=NOISE), MIXED),
    "periodic": family(Equation(K=Blocks(2, Uniform(1.0, 3.0)), f="y"), WRAPPED),
    "singular": family(Equation(K=FIELD, f="cos(pi*x)"), (Condition(neumann=0.0),) * 4),
    "advection": family(Equation(K=1.0, b=(Uniform(-2.0, 2.0), 1.0), f=NOISE), (DIRICHLET,) * 4),
    "random number in the data": family(
        Equation(f="warmth*x"),
        (Condition(dirichlet="warmth"),) * 4,
        parameters={"warmth": Uniform(1.0, 2.0)},
    ),
    "Helmholtz": family(
        Helmholtz(GaussianField(through="3 + tanh(a)")),
        (Condition(absorbing=True), *(Condition(dirichlet="x"),) * 3),
    ),
    "insulated obstacle": family(
        Equation(f=NOISE),
        (DIRICHLET,) * 4,
        obstacle=Obstacle("(x - cx)**2 + (y - 1)**2 < 0.06", Condition(neumann=0.0)),
        parameters={"cx": Uniform(0.3, 0.7)},
    ),
    "obstacle": family(
        Equation(f=NOISE),
        (DIRICHLET,) * 4,
        obstacle=Obstacle("(x - cx)**2 + (y - 1)**2 < 0.04", Condition(dirichlet=0.0)),
        parameters={"cx": Uniform(0.3, 0.7)},
    ),
}
each_family = pytest.mark.parametrize("name", FAMILIES)


def case(name: str, dtype: torch.dtype = torch.float64) -> tuple[Family, Signature, Tensor, Tensor]:
    """Three samples in the layout of training data: family, signature, inputs, solutions."""
    known = FAMILIES[name]
    drawn = known.draw(0, [0, 1, 2])
    shape = known.on.shape
    x = [v.reshape(3, *v.shape[1:], *(1,) * (3 - v.ndim)).expand(3, *shape) for v in drawn.values()]
    order = [list(drawn).index(place) for place in known.inputs.values()]
    values = [solve(p, Direct(), on=known.on).value for p in separate(known, drawn)]
    y = torch.stack(values)
    channels = torch.stack([y.real, y.imag], 1) if y.is_complex() else y[:, None]
    outputs = ("u_real", "u_imag") if y.is_complex() else ("u",)
    sides = known.problem.periodic
    boundary = tuple("periodic" if wraps else "dirichlet" for wraps in sides)
    signature = Signature(tuple(known.inputs), outputs, known.on, boundary)  # type: ignore[arg-type]
    inputs = torch.stack([x[k] for k in order], 1)
    return known, signature, inputs.to(dtype), channels.nan_to_num(0.0).to(dtype)


def separate(known: Family, drawn: Any) -> list[Problem]:
    return [known.problems({place: v[k] for place, v in drawn.items()}) for k in range(3)]


def disturbed(y: Tensor) -> Tensor:
    return y + torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@each_family
def test_solutions_have_none(name: str) -> None:
    known, signature, x, y = case(name)
    residual = residual_of(known, signature)(y, x)
    assert residual.shape == (3,)
    assert residual.dtype == torch.float64
    assert residual.max() < 1e-11


@each_family
def test_it_is_the_residual_of_the_solvers(name: str) -> None:
    """Where the values on Dirichlet sides, which are no unknowns, are right."""
    known, signature, x, y = case(name)
    drawn = known.draw(0, [0, 1, 2])
    prediction, expected = [], []
    for problem, u in zip(separate(known, drawn), disturbed(y), strict=True):
        system = discretize(problem, known.on)
        value = torch.complex(u[0], u[1]) if len(u) == 2 else u[0]
        unknowns = system.restrict(value)
        expected.append(relative_residual(system.A, unknowns, system.b))
        right = system.lift(unknowns)
        parts = (right.real, right.imag) if right.is_complex() else (right,)
        prediction.append(torch.stack(parts).nan_to_num(0.0))
    found = residual_of(known, signature)(torch.stack(prediction), x)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=0)


@each_family
def test_gradient(name: str) -> None:
    known, signature, x, y = case(name)
    residual = residual_of(known, signature)
    assert torch.autograd.gradcheck(
        lambda u: residual(u, x), disturbed(y).requires_grad_(), fast_mode=True
    )


def test_wrong_values_on_a_dirichlet_side_count() -> None:
    known, signature, x, y = case("Darcy")
    residual = residual_of(known, signature)
    wrong = y.clone()
    wrong[1, 0, 0, 4] += 0.1
    found = residual(wrong, x)
    system = discretize(known.sample(0, [1]), known.on)
    expected = 0.1 * system.A.diagonal().mean() / torch.linalg.vector_norm(system.b)
    assert found[1].item() == pytest.approx(expected.item(), rel=1e-9)
    assert found[[0, 2]].max() < 1e-11


def test_values_inside_an_obstacle_do_not_count() -> None:
    known, signature, x, y = case("insulated obstacle")
    drawn = known.draw(0, [0, 1, 2])
    hole = torch.stack(
        [solve(p, Direct(), on=known.on).value.isnan() for p in separate(known, drawn)]
    )[:, None]
    assert hole.flatten(1).any(1).all()
    residual = residual_of(known, signature)
    changed = disturbed(y).masked_fill(hole, 7.0).requires_grad_()
    found = residual(changed, x)
    torch.testing.assert_close(found, residual(changed.masked_fill(hole, 0.0), x))
    (gradient,) = torch.autograd.grad(found.sum(), changed)
    assert (gradient[hole] == 0).all()
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["random number in the data", "advection"])
def test_any_resolution(name: str) -> None:
    """The grid is that of the prediction, whatever the operator was trained on."""
    known, signature, x, y = case(name)
    fine = replace(signature, grid=replace(signature.grid, shape=(5, 6)))
    assert residual_of(known, fine)(y, x).max() < 1e-11


def test_order_of_the_inputs_is_the_signatures() -> None:
    known, signature, x, y = case("obstacle")
    assert len(signature.inputs) == 2
    turned = replace(signature, inputs=signature.inputs[::-1])
    assert residual_of(known, turned)(y, x.flip(1)).max() < 1e-11


@each_family
def test_stored_precision(name: str) -> None:
    """Data in float32 are computed with in float64: what is left is their own rounding."""
    known, signature, x, y = case(name, torch.float32)
    residual = residual_of(known, signature)(y, x)
    assert residual.dtype == torch.float64
    assert 1e-11 < residual.max() < 1e-3


def test_it_is_what_the_loss_takes() -> None:
    known, signature, x, y = case("Darcy", torch.float32)
    residual = residual_of(known, signature)
    loss = Residual().build(signature, residual)
    assert torch.equal(loss(y + 1, y, x), residual(y + 1, x))


def test_equation_without_data_counts_absolutely() -> None:
    """|b| = 0 counts as 1, as in the solvers."""
    known = family(Equation(K=FIELD), (Condition(dirichlet=0.0),) * 4)
    signature = Signature(("K",), ("u",), known.on, ("dirichlet", "dirichlet"))
    x = known.draw(0, [0])["problem.equation.K"][:, None]
    residual = residual_of(known, signature)
    assert residual(torch.zeros_like(x), x).item() == 0
    assert 0 < residual(torch.ones_like(x), x).item() < float("inf")


SIGNATURE = Signature(("K",), ("u",), Grid((9, 11), domain=SQUARE), ("dirichlet", "dirichlet"))
DARCY = FAMILIES["Darcy"]


@pytest.mark.parametrize(
    ("known", "signature", "message"),
    [
        (
            family(Equation(d=1.0, K=FIELD), (DIRICHLET,) * 4, time=Time(1.0), initial=0.0),
            SIGNATURE,
            "not steady and linear",
        ),
        (
            family(Equation(K="1 + u**2", f=NOISE), (DIRICHLET,) * 4),
            SIGNATURE,
            "not steady and linear",
        ),
        (DARCY, replace(SIGNATURE, inputs=("f",)), "the inputs lack K, which is random"),
        (DARCY, replace(SIGNATURE, inputs=("K", "q")), "input 'q' has no place in the equation"),
        (DARCY, replace(SIGNATURE, outputs=("u", "q")), "u alone must be the output; got u, q"),
        (
            replace(
                family(Equation(K=FIELD, f=NOISE), (DIRICHLET,) * 4),
                dataset=DatasetOptions(inputs={"K": "problem.equation.K"}),
            ),
            SIGNATURE,
            "the inputs lack problem.equation.f",
        ),
    ],
)
def test_what_has_no_residual_is_refused(known: Family, signature: Signature, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        residual_of(known, signature)
    assert caught.value.key == "training.loss"
