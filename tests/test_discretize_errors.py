"""Bad input: one line that says what, where, and what would be right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, FieldFile, Obstacle, Problem
from sciml.discretization import discretize

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
ZERO = Condition(dirichlet=0)
WALL = Condition(neumann=0)


def stated(equation=None, *, obstacle=None, parameters=None, sides=None, **boundary):
    conditions = {name: ZERO for name in SQUARE.sides} | (sides or {}) | boundary
    return Problem(SQUARE, equation or Equation(), conditions, obstacle, parameters or {})


def walls(**boundary):
    return {name: WALL for name in SQUARE.sides} | boundary


BAD = {
    "negative K": (stated(Equation(K="x - 0.5")), "problem.equation.K",
                   "K = -0.5 at x = 0, y = 0 (must be positive)"),
    "zero K": (stated(Equation(K=0.0)), "problem.equation.K", "must be positive"),
    "NaN in K": (stated(Equation(K="log(x - 0.5)")), "problem.equation.K", "at x = 0, y = 0"),
    "K of one sample": (stated(Equation(K="1 + a*x"), parameters={"a": [1.0, -2.0]}),
                        "problem.equation.K", "sample 1"),
    "negative diagonal K": (stated(Equation(K=(1.0, "y - 0.5"))), "problem.equation.K[1]",
                            "must be positive"),
    "not elliptic": (stated(Equation(K=((1.0, 2.0), (2.0, 1.0)))), "problem.equation.K",
                     "smallest eigenvalue"),
    "not elliptic somewhere": (stated(Equation(K=((1.0, "4*x"), ("4*x", 1.0)))),
                               "problem.equation.K", "not elliptic"),
    "not symmetric": (stated(Equation(K=((1.0, 0.5), (0.2, 1.0)))), "problem.equation.K",
                      "not symmetric"),
    "K too short": (stated(Equation(K=(1.0,))), "problem.equation.K", "needs 2"),
    "ragged K": (stated(Equation(K=((1.0, 0.0), (1.0,)))), "problem.equation.K", "2 rows of 2"),
    "b too short": (stated(Equation(b=(1.0,))), "problem.equation.b", "needs 2"),
    "infinite f": (stated(Equation(f="1/x")), "problem.equation.f", "f = inf at x = 0"),
    "NaN in c": (stated(Equation(c="sqrt(x - 0.5)")), "problem.equation.c", "must be finite"),
    "NaN in b": (stated(Equation(b=("sqrt(x - 0.5)", 1.0))), "problem.equation.b[0]", "finite"),
    "NaN on a side": (stated(left=Condition(dirichlet="log(y - 1)")),
                      "problem.boundary.left.dirichlet", "at x = 0, y = 0"),
    "NaN in a flux": (stated(top=Condition(neumann="log(x - 1)")),
                      "problem.boundary.top.neumann", "y = 1"),
    "unknown name": (stated(Equation(K="1 + q")), "problem.equation.K", "unknown name 'q'"),
    "unknown name on a side": (stated(left=Condition(dirichlet="z")),
                               "problem.boundary.left.dirichlet", "unknown name 'z'"),
    "time in a coefficient": (stated(Equation(f="sin(t)")), "problem.equation.f",
                              "this problem has no time"),
    "solution in a coefficient": (stated(Equation(K="1 + u**2")), "problem.equation.K",
                                  "use newton or auto"),
    "damping": (stated(Equation(d=1.0)), "problem.equation.d", "leave d out"),
    "mass": (stated(Equation(m="x")), "problem.equation.m", "leave m out"),
    "field shape": (stated(Equation(K=torch.ones(9))), "problem.equation.K", "[9, 9]"),
    "function shape": (stated(Equation(K=lambda x, y: torch.ones(4))), "problem.equation.K",
                       "one value per point"),
    "kind of value": (stated(Equation(f={"a": 1})), "problem.equation.f", "got dict"),
    "no file": (stated(Equation(K=FieldFile("nowhere.npy"))), "problem.equation.K",
                "file not found: nowhere.npy"),
    "hole covers all": (stated(obstacle=Obstacle("x > -1", ZERO)), "problem.obstacle.inside",
                        "no grid point lies outside"),
    "cut hole covers all": (stated(obstacle=Obstacle("x > -1", WALL)), "problem.obstacle.inside",
                            "no grid point lies outside"),
    "hole is no condition": (stated(obstacle=Obstacle("x - 1", ZERO)), "problem.obstacle.inside",
                             "comparison"),
    "hole with a tensor": (stated(Equation(K=((1.0, 0.1), (0.1, 1.0))),
                                  obstacle=Obstacle("x > 0.5", ZERO)),
                           "problem.equation.K", "scalar or diagonal"),
    "hole over a batch": (stated(obstacle=Obstacle("x > a", ZERO), parameters={"a": [0.5, 0.6]}),
                          "problem.obstacle.inside", "cannot vary over a batch"),
    "incompatible source": (stated(Equation(f=1.0), sides=walls()), "problem.equation.f",
                            "integrate to 1, must be 0"),
    "incompatible flux": (stated(sides=walls(left=Condition(neumann=2.0))),
                          "problem.equation.f", "integrate to 2, must be 0"),
    "parameter kind": (stated(parameters={"a": "one"}), "problem.parameters.a", "number"),
    "parameter name": (stated(parameters={"x": 1.0}), "problem.parameters.x", "taken"),
    "parameter lengths": (stated(parameters={"a": [1, 2], "b": [1, 2, 3]}),
                          "problem.parameters", "equally long"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_placed_and_on_one_line(name):
    problem, key, words = BAD[name]
    with pytest.raises(InputError) as caught:
        discretize(problem, Grid((9, 9)))
    assert caught.value.key == key
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_a_tensor_on_cells_names_the_right_centring():
    problem = stated(Equation(K=((1.0, 0.1), (0.1, 1.0))))
    with pytest.raises(InputError, match="use centring: node"):
        discretize(problem, Grid((9, 9), centring="cell"))


def test_too_large_a_grid_is_refused_before_anything_is_allocated():
    problem = stated(Equation(K="1 + x", f=1))
    with pytest.raises(InputError, match=r"needs about .* GB; .* are free: use at most \d+"):
        discretize(problem, Grid((3_000_000, 3_000_000)))


def test_bad_files(tmp_path):
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "broken.h5").write_bytes(b"no file")
    for file, words in (("words.npy", "real numbers"), ("broken.npy", "cannot read"),
                        ("broken.h5", "cannot read")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            discretize(stated(Equation(K=FieldFile(str(tmp_path / file)))), Grid((9, 9)))


def test_compatible_data_are_accepted_with_the_defect_reported():
    system = discretize(
        stated(Equation(f="exp(x) - 1.718281828459045"), sides=walls()), Grid((17, 17))
    )
    assert 1e-6 < float(system.defect) < 1e-2
    assert any("made compatible" in note for note in system.notes)
    assert float(system.b.sum()) == pytest.approx(0, abs=1e-14)


def test_a_hole_smaller_than_a_cell_is_noted():
    hole = Obstacle("(x - 0.51)**2 + (y - 0.51)**2 < 1e-6", ZERO)
    assert "smaller than a cell" in discretize(stated(obstacle=hole), Grid((9, 9))).notes[0]


def test_a_velocity_is_a_list_wherever_it_is_solved() -> None:
    with pytest.raises(InputError, match="b is a list with an entry for each axis") as caught:
        Equation(kind="advection", b=1.0)
    assert caught.value.key == "problem.equation.b"
