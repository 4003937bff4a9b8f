"""Plain data, and where two trees of it differ."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sciml.core.problem.problem import Condition, Equation
from sciml.core.run.serialise import differences, dump

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
TREES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("abc", min_size=1), below),
    max_leaves=8,
)


@given(TREES)
def test_a_tree_does_not_differ_from_its_copy(tree: Any) -> None:
    assert list(differences(tree, copy.deepcopy(tree))) == []


@given(TREES, TREES)
def test_differences_are_unequal_and_the_same_both_ways(old: Any, new: Any) -> None:
    found = list(differences(old, new))
    assert all(before != after for _, before, after in found)
    assert [(key, before, after) for key, after, before in differences(new, old)] == found


def test_differences_are_named_by_dotted_keys() -> None:
    old = {"f": 1, "K": [1, {"alpha": 2}], "sides": {"left": 0}, "shape": [3, 3]}
    new = {"f": 1, "K": [1, {"alpha": 3}], "sides": {"right": 0}, "shape": [3]}
    assert list(differences(old, new, "problem")) == [
        ("problem.K.1.alpha", 2, 3),
        ("problem.shape", [3, 3], [3]),
        ("problem.sides.left", 0, None),
        ("problem.sides.right", None, 0),
    ]


def test_options_are_dumped_with_every_value_that_is_set() -> None:
    plain = dump({"sides": (Condition(dirichlet=0.0), Equation(K=("x", 2.0)))})
    assert plain["sides"][0] == {"dirichlet": 0.0, "periodic": False, "absorbing": False}
    assert plain["sides"][1]["K"] == ["x", 2.0] and next(iter(plain["sides"][1])) == "kind"
    assert "b" not in plain["sides"][1]
