"""Forces of a flow balance to rounding; series in time give extremes and frequencies."""

from __future__ import annotations

import pytest

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Obstacle, Problem, Time
from sciml.solvers import Projection

WALL, ROUND = Condition(dirichlet=[0, 0]), Condition(periodic=True)
DIRECTIONS = (1.0, 0.0), (0.0, 1.0)


def forces(solution, parts) -> list[float]:
    return [
        sum(float(solution.quantity(force=d, on=part).value[-1]) for part in parts)
        for d in DIRECTIONS
    ]


@pytest.mark.parametrize("grid", [Grid((8, 7), "cell"), Grid((9, 8))])
def test_forces_on_the_walls_of_a_cavity_cancel(grid):
    lid = Condition(dirichlet=["16*x**2*(1 - x)**2", 0])
    boundary = {"left": WALL, "right": WALL, "bottom": WALL, "top": lid}
    box = Box((0.0, 0.0), (1.0, 1.0))
    p = Problem(box, NavierStokes(viscosity=0.1), boundary, time=Time(20.0), initial=0.0)
    s = sciml.solve(p, Projection(steady_tolerance=1e-11), on=grid)
    assert forces(s, p.boundary) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert abs(float(s.quantity(force=(1, 0), on="top").value[-1])) > 0.1


@pytest.mark.parametrize("shape", [(20, 10), (21, 10)])
def test_drag_and_lift_of_a_disc_and_the_shear_of_walls_are_what_drives_the_flow(shape):
    disc = Obstacle("(x - 0.93)**2 + (y - 0.52)**2 < 0.04", WALL)
    boundary = {"left": ROUND, "right": ROUND, "bottom": WALL, "top": WALL}
    equation, box = NavierStokes(viscosity=0.1, force=[1.0, 0.3]), Box((0.0, 0.0), (2.0, 1.0))
    p = Problem(box, equation, boundary, disc, time=Time(50.0), initial=0.0)
    s = sciml.solve(p, Projection(steady_tolerance=1e-10, rtol=1e-11), on=Grid(shape, "cell"))
    # The force acts on the free faces, on the half cells at the walls too.
    x, y = Grid(shape, "cell", box).coordinates()
    h, k = 2 / shape[0], 1 / shape[1]

    def free(x, y) -> int:
        return int(((x - 0.93) ** 2 + (y - 0.52) ** 2 >= 0.04).sum())

    along = free(x - h / 2, y) * h * k
    across = 0.3 * (free(x, y - k / 2) * h * k)
    assert forces(s, ("bottom", "top", "obstacle")) == pytest.approx([along, across], abs=1e-8)


def test_a_force_on_what_has_none_is_refused():
    boundary = {"left": Condition(dirichlet=[1, 0]), "right": Condition(neumann=0)}
    boundary |= {"bottom": WALL, "top": WALL}
    box = Box((0.0, 0.0), (1.0, 1.0))
    p = Problem(box, NavierStokes(viscosity=0.1), boundary, time=Time(0.01), initial=0.0)
    s = sciml.solve(p, on=Grid((8, 8), "cell"))
    for wrong, why in (
        (dict(force=(1, 0), on="right"), "outlet"),
        (dict(force=(1, 0), on="obstacle"), "there is no part"),
        (dict(force=(1, 0, 0), on="top"), "2 components"),
        (dict(flux="u", on="right"), "u\\*nx"),
    ):
        with pytest.raises(InputError, match=why):
            s.quantity(**wrong)
