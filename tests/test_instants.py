"""Steps in time: where they must land, what tolerance they can meet, in what units they think."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.problem.table import Table
from sciml.discretization.instants import instants
from sciml.solvers import BDF, ETDRK4, IMEX, SDIRK, Projection, RungeKutta

LINE = Grid((17,))
HELD = {"all": Condition(dirichlet=0.0)}
PERIODIC = {"all": Condition(periodic=True)}
METHODS = [SDIRK(rtol=1e-4), BDF(), IMEX(rtol=1e-4), RungeKutta(rtol=1e-4)]


def stored(f: Any, insulated: bool = True, **time: Any) -> Problem:
    """u_t = u_xx + f from rest between insulated ends: the mean of u is the integral of f."""
    sides = {"all": Condition(neumann=0.0)} if insulated else HELD
    equation = Equation(kind="general", d=1.0, f=f)
    return Problem(Box((0.0,), (1.0,)), equation, sides, time=Time(1.0, **time), initial=0.0)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.kind)
@pytest.mark.parametrize(
    ("source", "more", "integral", "within"),
    [
        ("where(abs(t - 0.55) < 0.005, 100, 0)", {}, 1.0, 1e-3),
        ("exp(-((t - 0.63)/0.004)**2)", {}, 0.004 * math.sqrt(math.pi), 1e-3),
        ("where(abs(t - 0.55) < 5e-6, 1e5, 0)", {"breaks": (0.549995, 0.550005)}, 1.0, 1e-6),
        ("where(t < 0.3, 1, 0)", {"breaks": (0.3,)}, 0.3, 1e-6),
    ],
    ids=["box", "bell", "shot", "switch"],
)
def test_no_pulse_falls_between_two_steps(
    method: Any, source: str, more: dict[str, Any], integral: float, within: float
) -> None:
    last = sciml.solve(stored(source, **more), method, on=LINE).last
    assert float(last.mean()) == pytest.approx(integral, rel=within)


@pytest.mark.parametrize(
    ("method", "source", "integral"),
    [
        (SDIRK(rtol=1e-8), "where(abs(t - 0.545) < 0.005, 100, 0)*2*x", 1.0),
        (RungeKutta(rtol=1e-8), "where(t < 0.3, 1 + t, 2*t)*where(x < 0.5, 0, 2)", 1.255),
    ],
    ids=["box", "switch"],
)
def test_a_jump_is_no_part_of_a_step(method: Any, source: str, integral: float) -> None:
    """Nobody says where it is; an estimate across it would be a thousand times too small."""
    solution = sciml.solve(stored(source), method, on=Grid((8,), "cell"))
    assert float(solution.last.mean()) == pytest.approx(integral, rel=20 * method.rtol)


def test_jumps_are_found_to_the_last_bit() -> None:
    one = "where(t < 0.3, 0, x)"
    assert instants(stored(one)).breaks == pytest.approx([0.3], rel=1e-15)
    assert instants(stored(f"{one}*u")).breaks == pytest.approx([0.3], rel=1e-15)
    assert instants(stored(f"{one} + where(t > 0.30005, 1e-6, 0)", breaks=(0.3,))).breaks == (0.3,)
    square = instants(stored("where(sin(30*t) > 0, 1, -1)")).breaks
    assert square == pytest.approx([math.pi * k / 30 for k in range(10)], rel=1e-14, abs=1e-17)
    # A front that passes is at no instant everywhere; a steep slope is none.
    for smooth in ("where(x < t, 1, 0)", "tanh(500*(t - 0.3))", "exp(-((t - 0.63)/0.004)**2)"):
        assert instants(stored(smooth)).breaks == ()


def test_steps_land_on_the_knots_of_a_table_in_t() -> None:
    pulse = {"t": [0.0, 0.7, 0.7001, 0.7002, 1.0], "q": [0.0, 0.0, 1e4, 0.0, 0.0]}
    table = Table(columns=pulse, of="t")
    assert instants(stored(table)).edges == (0.7, 0.7001, 0.7002)
    last = sciml.solve(stored(table), SDIRK(), on=LINE).last
    assert float(last.mean()) == pytest.approx(1.0, rel=1e-4)


def test_data_that_always_change_or_never_need_no_landing() -> None:
    for quiet in ("3*x", "sin(20*t)", "exp(-2*t)*x", lambda x, t: x * t):
        assert instants(stored(quiet)).edges == ()


def test_a_function_that_takes_one_instant_at_a_time_is_sampled() -> None:
    def source(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 100 * torch.ones_like(x) if 0.5 < float(t) < 0.51 else torch.zeros_like(x)

    last = sciml.solve(stored(source), SDIRK(), on=LINE).last
    assert float(last.mean()) == pytest.approx(1.0, rel=1e-3)


def test_a_pulse_at_a_side_is_seen() -> None:
    sides = {
        "left": Condition(neumann="where(abs(t - 0.4) < 0.005, 100, 0)"),
        "right": Condition(neumann=0.0),
    }
    problem = replace(stored(0.0), boundary=sides)
    assert float(sciml.solve(problem, SDIRK(), on=Grid((16,), "cell")).last.mean()) == (
        pytest.approx(1.0, rel=1e-3)
    )


def test_spectral_steps_are_no_longer_than_a_pulse() -> None:
    problem = replace(stored("exp(-((t - 0.63)/0.004)**2)"), boundary=PERIODIC)
    last = sciml.solve(problem, ETDRK4(), on=Grid((16,), "cell")).last
    assert float(last.mean()) == pytest.approx(0.004 * math.sqrt(math.pi), rel=1e-5)


def test_a_run_over_jumps_goes_on_bit_for_bit(tmp_path: Any) -> None:
    problem = stored("where(t < 0.3, 1, 0)", insulated=False, breaks=(0.3, 0.5), frames=5)
    whole = sciml.solve(problem, BDF(), on=LINE)
    file = tmp_path / "frames.h5"

    class Killed(Exception):
        pass

    def kill(step: int, t: float) -> None:
        if t > 0.6:
            raise Killed

    with pytest.raises(Killed):
        sciml.solve(problem, BDF(), on=LINE, frames=file, progress=kill)
    again = sciml.solve(problem, BDF(), on=LINE, frames=file)
    assert any("went on from frame" in note for note in again.notes)
    assert torch.equal(again.value, whole.value)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.kind)
def test_other_units_take_the_same_steps(method: Any) -> None:
    problem = replace(stored(0.0, insulated=False), initial="sin(pi*x)", time=Time(0.1))
    large = sciml.solve(problem, method, on=LINE)
    small = sciml.solve(replace(problem, initial="1e-12*sin(pi*x)"), method, on=LINE)
    assert torch.equal(large.stats.iterations, small.stats.iterations)
    # At the bound of stability an explicit method follows its own rounding.
    assert torch.allclose(1e12 * small.value, large.value, rtol=1e-5, atol=0.0)


def test_a_field_at_rest_stays_there_and_meets_any_tolerance() -> None:
    for method in (SDIRK(atol=0.0), RungeKutta(atol=0.0), BDF(), ETDRK4()):
        problem = replace(stored(0.0), boundary=PERIODIC)
        solution = sciml.solve(problem, method, on=Grid((16,), "cell"))
        assert float(solution.value.abs().max()) == 0 and float(solution.residual) == 0


def test_what_has_come_to_rest_is_not_called_under_resolved() -> None:
    problem = replace(stored(0.0), boundary=PERIODIC, initial="sin(2*pi*x)", time=Time(10.0))
    solution = sciml.solve(problem, ETDRK4(), on=Grid((64,)))
    assert not any("under-resolved" in note for note in solution.notes)
    rough = replace(problem, initial="sin(2*pi*25*x)", time=Time(1e-5))
    answered = sciml.solve(rough, ETDRK4(), on=Grid((64,)), throw=False)
    assert any("under-resolved" in note for note in answered.notes)


@pytest.mark.parametrize("method", [SDIRK, BDF, IMEX, RungeKutta, ETDRK4], ids=lambda m: m.kind)
def test_a_tolerance_below_rounding_is_refused(method: Any) -> None:
    with pytest.raises(InputError, match=r"rounding is above rtol 1e-16.*1e-13 or more"):
        method(rtol=1e-16)


def test_times_and_steps_that_would_not_end_are_refused() -> None:
    for end in (1e-300, 1e200):
        with pytest.raises(InputError, match="no time that can be cut"):
            Time(end)
    with pytest.raises(InputError, match="no time that can be cut"):
        Time(1.0 + 1e-13, start=1.0)
    with pytest.raises(InputError, match=r"lies between start and end.*got 2"):
        Time(1.0, breaks=(0.5, 2.0))
    with pytest.raises(InputError, match=r"1\.0e\+12 steps .* would not end"):
        SDIRK(step=1e-12).init(stored(0.0), LINE)
    flow = Problem(
        Box((0.0, 0.0), (1.0, 1.0)),
        sciml.core.problem.equation.NavierStokes(viscosity=0.01),
        {"all": Condition(dirichlet=(0.0, 0.0))},
        time=Time(1.0),
        initial={"u": 0.0, "v": 0.0},
    )
    with pytest.raises(InputError, match="would not end"):
        sciml.solve(flow, Projection(step=1e-12), on=Grid((8, 8), "cell"))
