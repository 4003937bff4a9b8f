"""Bounds of the distance to the solution of the differential equation, on known solutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.discretization.volumes.equilibrium import equilibrium

BOX = Box((0.0, 0.0), (1.0, 1.0))
WALLS = {"all": Condition(dirichlet=0.0)}
POISSON = Problem(BOX, Equation(f="2*pi**2*sin(pi*x)*sin(pi*y)"), WALLS)
# |u|_E of sin(pi x) sin(pi y), and |u - I u|_E = h pi^2 / sqrt(24) + O(h^2) of its interpolant.
NORM = math.pi / math.sqrt(2)


def wave(points: torch.Tensor) -> torch.Tensor:
    return torch.sin(math.pi * points).prod(-1, keepdim=True)


def nodes(n: int) -> torch.Tensor:
    lines = torch.meshgrid(*[torch.linspace(0, 1, n + 1, dtype=torch.float64)] * 2, indexing="ij")
    return wave(torch.stack(lines, -1))[..., 0]


def test_the_interpolant_of_a_sine_is_enclosed_within_the_factors_of_theory() -> None:
    for n in (32, 64):
        found = sciml.certify(nodes(n), POISSON, Grid((n + 1, n + 1)), of="pde")
        # The slopes' error is h^2 u_xx^2 / 12 on the mean, and the same of y, to leading order.
        error = math.pi**2 / math.sqrt(24) / n
        assert float(found.lower) == pytest.approx(error * math.sqrt(3) / 2, rel=0.02)
        assert error * 1.3 < float(found.upper) < error * 1.5
        assert float(found.oscillation) < 0.1 * error * 32 / n
        # The cells' shares add up to the bound.
        assert float(found.cells.square().sum().sqrt()) == pytest.approx(float(found.upper))


@pytest.mark.parametrize("size", [1e-1, 1e-4, 1e-7])
def test_of_a_smooth_function_the_bounds_meet_whatever_the_grid(size: float) -> None:
    def near(points: torch.Tensor) -> torch.Tensor:
        return wave(points) * (1 + size)

    found = sciml.certify(near, POISSON, Grid((17, 17)), of="pde")
    assert (
        float(found.lower) <= size * NORM * (1 + 1e-6) and float(found.lower) > 0.99 * size * NORM
    )
    assert size * NORM * (1 - 1e-6) <= float(found.upper) < 1.02 * size * NORM
    assert float(found.relative_upper) == pytest.approx(size, rel=0.15)


def test_a_stopped_iteration_and_noise_are_enclosed() -> None:
    # The distance of v to the solution u is at least that to the interpolant's, less its own.
    n, generator = 32, torch.Generator().manual_seed(1)
    for share in (1e-3, 1.0):
        noise = torch.randn(n + 1, n + 1, generator=generator, dtype=torch.float64)
        for side in (noise[0], noise[-1], noise[:, 0], noise[:, -1]):
            side.zero_()
        v = nodes(n) + share * noise
        found = sciml.certify(v, POISSON, Grid((n + 1, n + 1)), of="pde")
        error = _sine_error(v)
        assert float(found.lower) <= error <= float(found.upper)
        assert float(found.upper) < 1.5 * error and float(found.lower) > 0.8 * error


def _sine_error(v: torch.Tensor) -> float:
    from sciml.solvers.linear.equilibrated import multilinear

    n = v.shape[0] - 1
    x, w = np.polynomial.legendre.leggauss(5)
    total, start = 0.0, torch.arange(n, dtype=torch.float64)
    for a, wa in zip((x + 1) / 2, w / 2, strict=True):
        for b, wb in zip((x + 1) / 2, w / 2, strict=True):
            _, (sx, sy) = multilinear(v, [a, b], [1 / n, 1 / n])
            X, Y = math.pi * (start[:, None] + a) / n, math.pi * (start + b) / n
            gap = (math.pi * X.cos() * Y.sin() - sx) ** 2 + (math.pi * X.sin() * Y.cos() - sy) ** 2
            total += wa * wb / n**2 * float(gap.sum())
    return math.sqrt(total)


def test_an_exact_answer_in_the_space_has_no_error() -> None:
    sides = {
        "left": Condition(dirichlet=1.0),
        "right": Condition(robin=sciml.Robin(2.0, 5.0)),
        "bottom": Condition(neumann=0.0),
        "top": Condition(neumann=0.0),
    }
    problem = Problem(BOX, Equation(f=0.0), sides)
    x = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None].expand(9, 9)
    found = sciml.certify(1 + x, problem, Grid((9, 9)), of="pde")
    assert float(found.upper) < 1e-9 and float(found.lower) < 1e-12


def test_jumps_of_k_between_cells_are_exact() -> None:
    # u with K u' = 1 in stripes of contrast 1e6 is linear in every cell: no error but rounding.
    K = torch.tensor([1.0, 1e6, 1.0, 1e3, 1.0, 10.0], dtype=torch.float64)
    u = torch.cat([torch.zeros(1, dtype=torch.float64), (1 / K / 6).cumsum(0)])
    sides = {"left": Condition(dirichlet=0.0), "right": Condition(neumann=1.0)}
    problem = Problem(Box((0.0,), (1.0,)), Equation(K=K, f=0.0), sides)
    found = sciml.certify(u, problem, Grid((7,)), of="pde")
    assert float(found.upper) < 1e-9 * math.sqrt(float(u[-1]))
    # Of a wrong one it is known: K (u - v)'^2 over one cell.
    v = u.clone()
    v[1] += 1e-3
    error = math.sqrt(6 * 1e-6 * (K[0] + K[1]))
    found = sciml.certify(v, problem, Grid((7,)), of="pde")
    assert float(found.lower) <= error * (1 + 1e-12) <= float(found.upper) * (1 + 2e-12)
    assert float(found.upper) == pytest.approx(error, rel=1e-6)
    assert float(found.lower) > 0.98 * error


def test_fluxes_balance_to_rounding_however_early_the_iteration_stopped() -> None:
    sides = {
        "left": Condition(neumann="y"),
        "right": Condition(robin=sciml.Robin(1.0, "x")),
        "bottom": Condition(periodic=True),
        "top": Condition(periodic=True),
    }
    problem = Problem(BOX, Equation(K="1 + x", f="x - y"), sides)
    made = equilibrium(problem, Grid((12, 9), "cell", BOX))
    u = torch.randn(12, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    qx, qy = made.fluxes(u)
    # A u = b without the fluxes is the source alone, integrated over the cells.
    x, y = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (12, 9))
    source = x[:, None] / 12 - y / 9
    left = qx.diff(dim=0) + qy.diff(dim=1) + source / 108
    assert float(left.abs().max()) < 1e-12
    assert torch.allclose(qx[0], -(torch.arange(9, dtype=torch.float64) + 0.5) / 81)


def test_a_batch_is_the_same_as_one_by_one_and_cells_count_as_nodes_do() -> None:
    problem = Problem(
        BOX, Equation(c="k", f=1.0), WALLS, parameters={"k": torch.tensor([0.0, 50.0])}
    )
    grid = Grid((12, 12), "cell")
    solution = sciml.solve(problem, on=grid)
    both = sciml.certify(solution, problem, grid, of="pde")
    assert tuple(both.upper.shape) == (2,)
    for k in (0, 1):
        one = Problem(BOX, Equation(c=[0.0, 50.0][k], f=1.0), WALLS)
        alone = sciml.certify(solution.value[k], one, grid, of="pde")
        assert float(alone.upper) == pytest.approx(float(both.upper[k]), rel=1e-6)
        assert float(alone.lower) == pytest.approx(float(both.lower[k]), rel=1e-4)
        assert 0.3 * float(alone.upper) < float(alone.lower)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda: Problem(BOX, Equation(b=[1.0, 0.0], f=1.0), WALLS), "advection"),
        (lambda: Problem(BOX, Equation(c=-1.0, f=1.0), WALLS), "c of at least 0"),
        (
            lambda: Problem(
                BOX, Equation(), {"all": Condition(robin=sciml.Robin("max(0, x + y - 0.1)", 1.0))}
            ),
            "whole of a face",
        ),
        (
            lambda: Problem(BOX, Equation(c="max(0, x - 0.07)"), {"all": Condition(neumann=0.0)}),
            "whole of a cell",
        ),
        (lambda: Problem(BOX, Equation(K=[[2.0, 1.0], [1.0, 2.0]], f=1.0), WALLS), "diagonal K"),
    ],
)
def test_what_has_no_bound_is_refused(given: Callable[[], Problem], told: str) -> None:
    with pytest.raises(InputError, match=told):
        sciml.certify(torch.zeros(9, 9), given(), Grid((9, 9)), of="pde")


def test_a_function_that_is_none_on_the_torus_or_data_that_jump_have_no_upper_bound() -> None:
    torus = Problem(BOX, Equation(c=1.0, f=1.0), {"all": Condition(periodic=True)})
    found = sciml.certify(lambda p: p[:, :1], torus, Grid((9, 9)), of="pde")
    assert math.isinf(float(found.upper)) and "jumps" in found.reason
    sides: dict[str, Any] = {"top": Condition(dirichlet=1.0), "all": Condition(dirichlet=0.0)}
    lid = Problem(BOX, Equation(f=0.0), sides)
    found = sciml.certify(torch.zeros(9, 9), lid, Grid((9, 9)), of="pde")
    assert math.isinf(float(found.upper)) and "corner" in found.reason


def test_the_command_line_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sciml.app.cli import certify

    spec = tmp_path / "p.yaml"
    spec.write_text(
        "problem: {domain: {kind: box, lower: [0, 0], upper: [1, 1]}, equation: {f: 1}, "
        "boundary: {all: {dirichlet: 0}}}\n"
        "grid: {shape: [17, 17]}\n"
    )
    certify(spec, pde=True)
    assert "the solution of the differential equation is between" in capsys.readouterr().out
