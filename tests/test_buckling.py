"""Buckling: columns of Euler, equality with LAPACK, bounds, gradients, loads that press nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from test_general_form import square

import sciml
from sciml import InputError
from sciml.core.problem.condition import Condition
from sciml.core.problem.dispatch import poses_buckling
from sciml.core.problem.equation import Elasticity, Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem

FREE = Condition(neumann=0.0)
YOUNG, HIGH = 1000.0, 0.05


def column(n: int) -> Mesh:
    """1 by 1/20, 8 n by n elements."""
    block = square(8 * n, "P2")
    near = block.points[:, 1] <= n / (8 * n) + 1e-9
    kept = near[block.cells].all(1)
    number = np.cumsum(near) - 1
    points = block.points[near] * [1.0, 8 * HIGH]
    bare = Mesh(points, number[block.cells[kept]])
    facets = bare.topology.facets[:, bare.topology.boundary_facets()].T
    middle = points[facets].mean(1)
    sides = {"left": middle[:, 0] < 1e-9, "right": middle[:, 0] > 1 - 1e-9,
             "bottom": middle[:, 1] < 1e-9, "top": middle[:, 1] > HIGH - 1e-9}  # fmt: skip
    return Mesh(points, bare.cells, boundaries={k: facets[v] for k, v in sides.items()},
                element="P2")  # fmt: skip


def under(load: object, foot: object = 0.0, end: Condition | None = None) -> Problem:
    return Problem(
        None,
        Elasticity(YOUNG, 0.0, plane="stress"),
        {
            "left": Condition(dirichlet=foot),
            "right": Condition(neumann=(load, 0.0)) if end is None else end,
            "bottom": FREE,
            "top": FREE,
        },
    )


@pytest.mark.parametrize(
    ("problem", "length"),
    [
        (under(-1.0), 2.0),
        # Both ends clamped, one pushed in by what a pressure of 1 would: half the length.
        (under(0.0, end=Condition(dirichlet=(-1 / YOUNG, 0.0))), 0.5),
    ],
    ids=["one end free", "both clamped"],
)
def test_a_column_buckles_under_eulers_load(problem: Problem, length: float) -> None:
    """P / h = pi^2 E h^2 / (12 L^2), shear taken off; beams neglect P / (E h) beside 1."""
    euler = math.pi**2 * YOUNG * HIGH**2 / (12 * length**2)
    sheared = euler / (1 + 1.2 * euler / (YOUNG / 2))
    found = sciml.buckling(problem, column(2), 2)
    assert float(found.values[0]) == pytest.approx(sheared, rel=2 * euler / YOUNG + 1e-3)
    assert bool(found.counted) and found.frequencies is None
    # The end that is free goes sideways, and the foot does not.
    mode = found.fields[0]
    assert float(mode[1].abs().max()) > 10 * float(mode[0].abs().max())
    assert float(mode[:, column(2).nodes[:, 0] < 1e-9].abs().max()) == 0


@pytest.mark.parametrize("n", [1, 3])
def test_factors_are_those_of_lapack_within_their_bounds(n: int) -> None:
    """With few unknowns and with more, where LOBPCG finds them; all below the last are counted."""
    mesh, problem = column(n), under(-1.0)
    found = sciml.buckling(problem, mesh, 3)
    value = sciml.solve(problem, on=mesh).value
    posed = poses_buckling.look_up(problem.equation, Mesh)(
        problem, mesh, value, device=torch.device("cpu")
    )
    G, K = (m.to_scipy().toarray() for m in (posed.A, posed.M))
    assert np.abs(G - G.T).max() < 1e-12 * np.abs(G).max()
    true = torch.from_numpy(-1 / scipy.linalg.eigh(G, K, subset_by_index=(0, 2), eigvals_only=True))
    torch.testing.assert_close(found.values, true, rtol=1e-7, atol=0)
    low, high = found.bounds.unbind(-1)
    assert bool((low <= true * (1 + 1e-9)).all()) and bool((true <= high * (1 + 1e-9)).all())
    assert bool(((high - low) < 1e-4 * true).all()) and bool(found.counted)


def test_a_factor_falls_as_the_load_grows_and_so_says_its_gradient() -> None:
    load = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    problem = under("-p")
    problem = Problem(None, problem.equation, problem.boundary, parameters={"p": load})
    factor = sciml.buckling(problem, column(1)).values[0]
    factor.backward()
    assert float(load.grad) == pytest.approx(-float(factor) / 2, rel=1e-6)


def test_what_does_not_buckle_is_one_line() -> None:
    mesh = column(1)
    with pytest.raises(InputError, match="nothing buckles"):
        sciml.buckling(under(0.0), mesh)
    with pytest.raises(InputError, match="free to move"):
        sciml.buckling(under(-1.0, foot=(0.0, None)), mesh)
    with pytest.raises(InputError, match="asked for buckling"):
        line = Problem(Box((0.0,), (1.0,)), Equation(), {"all": Condition(dirichlet=0.0)})
        sciml.buckling(line, Grid((9,)))
    with pytest.raises(InputError, match="whole number"):
        sciml.buckling(under(-1.0), mesh, 0)
    # Drawn out, it gives way nowhere at a load that is anything like that.
    drawn = float("inf")
    try:
        drawn = float(sciml.buckling(under(1.0), mesh).values[0])
    except InputError as error:
        assert "nothing buckles" in error.message
    assert drawn > 100 * float(sciml.buckling(under(-1.0), mesh).values[0])
