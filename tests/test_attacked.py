"""Inputs from outside that ended in a traceback, or in a number that nobody wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciml.app.read import read_spec
from sciml.app.run import Setting, answer
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.expression import parse
from sciml.core.problem.table import read_columns
from sciml.core.run.status import Status
from sciml.solvers import PINN, Projection

FLOW = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: navier_stokes, viscosity: 0.01}
  boundary:
    left: {dirichlet: [0, 0]}
    right: {dirichlet: [0, 0]}
    bottom: {dirichlet: [0, 0]}
    top: {dirichlet: [1, 0]}
  initial: 0
  time: {end: 0.01, frames: 2}
grid: {shape: [8, 8], centring: cell}
"""
PERIODIC = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: allen_cahn, K: 0.01}
  boundary: {left: periodic, right: periodic, bottom: periodic, top: periodic}
  initial: "sin(2*pi*x)"
  time: {end: 0.01, frames: 2}
grid: {shape: [16, 16], centring: cell}
solver: {kind: etdrk4}
""".replace("periodic", "{periodic: true}")


def solved(text: str, *changes: str) -> Status:
    return answer(read_spec(parse_yaml(text), changes), Setting()).solution.status


@pytest.mark.parametrize("text", [FLOW, PERIODIC], ids=["flow", "etdrk4"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["grid.shape=[200000,200000]"], "use at most"),
        (["grid.shape=[512,512]", "problem.time.frames=1000000"], "keep fewer frames"),
    ],
)
def test_what_is_larger_than_any_memory_is_refused_before_it_is_taken(
    text: str, changes: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        solved(text, *changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("grid.shape=[200000,200000]", "use at most"),
        ("solver.points=100000000000", "more than fit"),
    ],
)
def test_a_trained_function_asks_for_memory_first(change: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        solved(PERIODIC, "solver={kind: pinn}", change)


def test_a_viscosity_that_admits_no_step_is_a_status() -> None:
    assert solved(FLOW, "problem.equation.viscosity=1e308") is Status.BLOWN_UP


def test_an_archive_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones((8, 8)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(InputError, match="is an archive, as"):
        solved(PERIODIC, f"problem.initial={{file: {tmp_path / 'a.npy'}}}")


@pytest.mark.parametrize("text", ["0_1", "1_0 + x", "x*1.5_0", "2e1_0", ".5_0"])
def test_an_underscore_is_no_digit(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)
    assert parse("k_1 + x", ("x", "k_1")).names == {"k_1", "x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,T\n0,1\n0_1,2\n", "line 3: expected 2 finite numbers"),
        ("x,T\n\u0663,1\n", "line 2: expected 2 finite numbers"),
        ("x,x\n0,1\n", "names a column twice"),
        (f"x,T\n0,{'1' * 131_073}\n", "field larger than field limit"),
    ],
)
def test_a_column_holds_what_was_written(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_columns(file)
    file.write_text("\ufeffx,T\n0,1\n", encoding="utf-8")
    assert read_columns(file) == {"x": [0.0], "T": [1.0]}


def test_two_halves_of_a_character_are_one_and_one_half_is_refused() -> None:
    assert parse_yaml('name: "\\ud83d\\ude00"').data == {"name": "\U0001f600"}
    with pytest.raises(InputError, match="half of a character"):
        parse_yaml('name: "\\ud83d"')


def test_a_tolerance_that_anything_meets_is_refused() -> None:
    for tolerance in (-1.0, 1e30):
        with pytest.raises(InputError, match="steady_tolerance must be"):
            Projection(steady_tolerance=tolerance)
        with pytest.raises(InputError, match="rtol must"):
            PINN(rtol=tolerance)


@pytest.mark.parametrize("part", ["d", "m"])
def test_a_change_in_time_without_time_is_named_beside_an_exact_solution(part: str) -> None:
    steady = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {energy: "sqrt(1 + ux**2 + uy**2)"}
  boundary: {all: {dirichlet: x}}
  exact: x
grid: {shape: [9, 9]}
"""
    with pytest.raises(InputError, match=rf"equation.{part}: the equation depends on time"):
        solved(steady, f"problem.equation.{part}=1")
