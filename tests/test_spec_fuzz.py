"""Two thousand damaged specs: each is a Spec or one line about what is wrong, never a traceback."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sciml.app.read import explain, read_spec
from sciml.app.spec import Spec
from sciml.app.yaml import parse_yaml, read_yaml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Points

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
GOOD = CONFIGS[0].read_text()
PARSED = [read_yaml(path).data for path in CONFIGS]
KEYS = [
    "problem",
    "grid",
    "solver",
    "domain",
    "equation",
    "boundary",
    "kind",
    "K",
    "b",
    "f",
    "shape",
    "lower",
    "left",
    "dirichlet",
    "robin",
    "periodic",
    "parameters",
    "exact",
    "obstacle",
    "inside",
    "file",
    "rtol",
    "preconditioner",
    "centring",
    "0",
]
WORDS = (
    *[
        "sin(x)",
        "x<",
        "x<1",
        "cg",
        "multigrid",
        "amg",
        "poisson",
        "general",
        "box",
        "u",
        "t",
        "k.npy",
        "where(x<1,1,2)",
        "1e-5",
    ],
    *("../..", "\0", "é", "[", "{", "&a", "*a", "!!x", "(" * 50),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 70), st.floats(), st.text(max_size=12),
    st.sampled_from(WORDS),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)


def holders(data: Any) -> list[Any]:
    below = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    own = [data] if isinstance(data, (dict, list)) and data else []
    return own + [holder for value in below for holder in holders(value)]


@st.composite
def mutated_configs(draw: st.DrawFn) -> str:
    data = copy.deepcopy(draw(st.sampled_from(PARSED)))
    for _ in range(draw(st.integers(1, 3))):
        if not (places := holders(data)):
            break
        holder = draw(st.sampled_from(places))
        places_within = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        match draw(st.sampled_from(["drop", "replace", "insert", "rename"])):
            case "drop":
                del holder[draw(st.sampled_from(places_within))]
            case "replace":
                holder[draw(st.sampled_from(places_within))] = draw(VALUES)
            case "insert" if isinstance(holder, dict):
                holder[draw(st.sampled_from(KEYS) | st.text(max_size=5))] = draw(VALUES)
            case "rename" if isinstance(holder, dict):
                key = draw(st.sampled_from(places_within))
                holder[draw(st.sampled_from(KEYS))] = holder.pop(key)
            case _:
                holder.append(draw(VALUES)) if isinstance(holder, list) else None
    return json.dumps(data, ensure_ascii=False)


def is_a_spec_or_an_input_error(text: str) -> bool:
    try:
        spec = read_spec(parse_yaml(text, "s.yaml"))
    except InputError as error:
        assert "\n" not in explain(error) and explain(error).startswith("s.yaml")
        return False
    box = spec.on.box
    assert isinstance(spec, Spec) and all(map(math.isfinite, (*box.lower, *box.upper)))
    assert isinstance(spec.on, Points) or all(map(math.isfinite, spec.on.spacing))
    return True


FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)


@settings(FUZZ, max_examples=1500)
@given(mutated_configs())
def test_mutated_specs_never_end_in_a_traceback(text: str) -> None:
    is_a_spec_or_an_input_error(text)


@settings(FUZZ, max_examples=500)
@given(st.data())
def test_mutated_text_never_ends_in_a_traceback(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(GOOD) - 1))
    length = data.draw(st.integers(0, 12))
    inserted = data.draw(
        st.text(alphabet="[]{}:,-?&*!|>'\"%@` \n\t#ax19.~\\", max_size=6) | st.text(max_size=6)
    )
    is_a_spec_or_an_input_error(GOOD[:start] + inserted + GOOD[start + length :])
