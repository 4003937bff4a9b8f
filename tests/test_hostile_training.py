"""Trained solvers on data and options that are no numbers: one line or a status, never a hang."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sciml import Box, Condition, Equation, Grid, Problem, Status, solve
from sciml.core.errors import InputError
from sciml.solvers.trained import (
    PINN,
    RAD,
    Causal,
    DeepRitz,
    EnergyNaturalGradient,
    Gaussians,
    GaussNewton,
    LatinHypercube,
    NaturalGradient,
    RandomFeatures,
    Sobol,
    UniformSampling,
    VariableProjection,
)
from sciml.solvers.trained.objective import Objective

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
ZERO = dict.fromkeys(SQUARE.sides, Condition(dirichlet=0.0))
POISSON = Problem(SQUARE, Equation(f=1.0), ZERO)
SOLVERS = (
    PINN(width=4, points=30, optimiser=GaussNewton(iterations=2)),
    Gaussians(count=8, optimiser=VariableProjection(iterations=1)),
    RandomFeatures(count=12, bandwidths=(2.0, 4.0)),
    DeepRitz(width=4, points=30, optimiser=NaturalGradient(iterations=2)),
)
LEFT = "log(-1 - y)"
HOSTILE = {
    "an infinite source": replace(POISSON, equation=Equation(f="1/(x - x)")),
    "a source that is infinity": replace(POISSON, equation=Equation(f=math.inf)),
    "an infinite K": replace(POISSON, equation=Equation(K="1/(x - x)", f=1.0)),
    "K that overflows": replace(POISSON, equation=Equation(K=1e308, f=1.0)),
    "K without a value": replace(POISSON, equation=Equation(K="sqrt(x - 2)", f=1.0)),
    "c that overflows": replace(POISSON, equation=Equation(c=1e308, f=1e308)),
    "dirichlet": replace(POISSON, boundary={**ZERO, "left": Condition(dirichlet=LEFT)}),
    "neumann": replace(POISSON, boundary={**ZERO, "left": Condition(neumann=LEFT)}),
    "infinite neumann": replace(POISSON, boundary={**ZERO, "left": Condition(neumann=math.inf)}),
}


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.kind)
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_finite_is_a_status(name: str, solver: Any) -> None:
    solution = solve(HOSTILE[name], solver, on=Grid((5, 5)), throw=False)
    assert not solution.converged
    worst = float(solution.residual)
    assert solution.status is Status.NOT_FINITE or worst > solver.rtol


def test_an_overflowing_curvature_ends_the_descent_of_an_energy() -> None:
    """The energy is finite, its Gram matrix is not: no damping is larger than infinity."""
    solution = solve(HOSTILE["K that overflows"], SOLVERS[3], on=Grid((5, 5)), throw=False)
    assert solution.status is Status.NOT_FINITE
    assert any("not finite at iteration 0" in note for note in solution.notes) or any(
        "no finite loss" in note for note in solution.notes
    )


@pytest.mark.parametrize(
    "solver",
    [
        SOLVERS[2],
        replace(SOLVERS[0], optimiser=EnergyNaturalGradient(iterations=2)),
        replace(SOLVERS[0], optimiser=GaussNewton(iterations=2)),
    ],
    ids=["features", "energy_natural_gradient", "gauss_newton"],
)
def test_derivatives_that_overflow_beside_a_finite_residual_are_a_status(
    solver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Objective.jacobian

    def steep(objective: Objective, *blocks: Any) -> tuple[torch.Tensor, torch.Tensor]:
        r, J = whole(objective, *blocks)
        return r, J.fill_(math.inf)

    monkeypatch.setattr(Objective, "jacobian", steep)
    solution = solve(POISSON, solver, on=Grid((5, 5)), throw=False)
    assert not solution.converged


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: PINN(rtol=math.inf), "solver.rtol"),
        (lambda: PINN(seed=2**70), "solver.seed"),
        (lambda: PINN(seconds=math.inf), "solver.seconds"),
        (lambda: PINN(features=-1), "solver.features"),
        (lambda: PINN(feature_scale=math.nan), "solver.feature_scale"),
        (lambda: Gaussians(drop=2.0), "solver.drop"),
        (lambda: Gaussians(grow=math.inf), "solver.grow"),
        (lambda: Gaussians(width=math.nan).init(POISSON, Grid((5, 5))), "solver.width"),
        (lambda: RandomFeatures(bandwidths=(math.inf,)), "solver.bandwidths"),
        (lambda: RandomFeatures(bandwidths=(4.0, math.nan)), "solver.bandwidths"),
        (lambda: GaussNewton(damping=math.inf), "solver.optimiser.damping"),
        (lambda: VariableProjection(damping=0.0), "solver.optimiser.damping"),
        (lambda: VariableProjection(damping=math.nan), "solver.optimiser.damping"),
        (lambda: NaturalGradient(damping=-1.0), "solver.optimiser.damping"),
        (lambda: EnergyNaturalGradient(cutoff=math.nan), "solver.optimiser.cutoff"),
        (lambda: EnergyNaturalGradient(cutoff=2.0), "solver.optimiser.cutoff"),
        (lambda: Causal(epsilon=math.inf), "solver.causal"),
        (lambda: RAD(power=math.nan), "solver.sampler"),
        (lambda: RAD(floor=math.inf), "solver.sampler"),
        (lambda: Sobol(every=-1), "solver.sampler.every"),
        (lambda: UniformSampling(every=-1), "solver.sampler.every"),
        (lambda: LatinHypercube(every=-1), "solver.sampler.every"),
    ],
)
def test_options_that_are_no_numbers_are_refused(make: Callable[[], Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key == key


def test_the_answer_to_data_that_overflow_is_kept() -> None:
    """A value that is not finite is no reason to lose the others: the status says it."""
    solution = solve(HOSTILE["an infinite source"], SOLVERS[0], on=Grid((5, 5)), throw=False)
    assert solution.value.shape == (5, 5) and solution.value.dtype == torch.float64
    assert any("the residual of 'equation' at (" in note for note in solution.notes)
