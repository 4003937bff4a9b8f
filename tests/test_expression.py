"""Expressions: equal to NumPy, differentiable, and nothing but arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from sciml.core.errors import InputError
from sciml.core.problem.expression import CONSTANTS, FUNCTIONS, Expression, level_set, parse

POINTS = np.linspace(-1.7, 1.9, 23)
VALUES = {"x": POINTS, "y": POINTS[::-1] ** 2 - 0.3, "k": 0.37}

NUMPY = {
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "exp": np.exp,
    "log": np.log, "sqrt": np.sqrt, "erf": scipy.special.erf, "abs": np.abs, "sign": np.sign,
    "floor": np.floor, "round": np.round, "step": lambda x: (x >= 0) * 1.0,
    "atan2": np.arctan2, "mod": np.mod,
    "min": lambda *a: np.minimum.reduce(np.broadcast_arrays(*a)),
    "max": lambda *a: np.maximum.reduce(np.broadcast_arrays(*a)),
    "where": np.where,
}  # fmt: skip


def tensors(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(np.array(v), dtype=dtype) for name, v in VALUES.items()}


def numpy_value(text: str) -> np.ndarray:
    # The texts below are written here, so Python itself may serve as the reference.
    scope = {"__builtins__": {}, **NUMPY, **CONSTANTS, **VALUES}
    with np.errstate(all="ignore"):
        return np.asarray(eval(text, scope), dtype=float)


def number_texts() -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["x", "y", "k", "pi", "e"]) | st.floats(
        0.01, 9.0, allow_subnormal=False
    ).map(lambda v: f"{v:.3g}")
    unary = [n for n in FUNCTIONS if n not in ("atan2", "mod", "min", "max", "where")]

    def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        masks = st.tuples(inner, st.sampled_from(["<", "<=", ">", ">="]), inner).map(
            lambda t: f"(({t[0]}) {t[1]} ({t[2]}))"
        )
        return st.one_of(
            st.tuples(st.sampled_from(unary), inner).map(lambda t: f"{t[0]}({t[1]})"),
            st.tuples(inner, st.sampled_from("+-*/"), inner).map(
                lambda t: f"({t[0]} {t[1]} {t[2]})"
            ),
            st.tuples(st.sampled_from(["min", "max", "atan2"]), inner, inner).map(
                lambda t: f"{t[0]}({t[1]}, {t[2]})"
            ),
            st.tuples(masks, inner, inner).map(lambda t: f"where({', '.join(t)})"),
            inner.map(lambda t: f"-({t})**2"),
        )

    return st.recursive(leaves, extend, max_leaves=8)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_equals_numpy(name: str) -> None:
    arguments = {"where": "x < y, x, k", "atan2": "x, y", "mod": "x, k", "min": "x, y, k",
                 "max": "x, y, k"}.get(name, "x")  # fmt: skip
    text = f"{name}({arguments})"
    ours = parse(text, VALUES)(**tensors()).numpy()
    np.testing.assert_allclose(ours, numpy_value(text), rtol=1e-14, atol=1e-15)


@settings(max_examples=300, deadline=None)
@given(number_texts())
def test_random_trees_equal_numpy(text: str) -> None:
    try:
        reference = np.broadcast_to(numpy_value(text), POINTS.shape)
    except ZeroDivisionError:  # of Python's floats, which know no infinity here
        reject()
    ours = np.broadcast_to(parse(text, VALUES)(**tensors()).numpy(), POINTS.shape)
    # Beyond this size a last-bit difference in an argument may move sin, floor and comparisons.
    tame = np.isfinite(reference) & (np.abs(reference) < 1e8)
    close = np.isclose(ours, reference, rtol=1e-6, atol=1e-6) | ~tame
    assert close.mean() > 0.9


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2**3**2", 512.0), ("-2**2", -4.0), ("2**-1", 0.5), ("7 % 4", 3.0), ("-7 % 4", 1.0),
        ("1/3", 1 / 3), ("1e-3 + .5 + 2.", 2.501), ("0x10", 16.0), ("  1 +\n 2 ", 3.0),
        ("9**9**9**9", math.inf), ("1/0", math.inf), ("pi", math.pi), ("e", math.e),
        ("3*(1 < 2)", 3.0), ("-(1 < 2)", -1.0), ("+4", 4.0),
    ],
)  # fmt: skip
def test_constants(text: str, value: float) -> None:
    result = parse(text)()
    assert result.dtype == torch.float64 and result.ndim == 0
    assert float(result) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    ["x < 0.5 and y > 0", "not x < 0.2 or y <= k", "-0.5 < x <= 0.5 < y", "x != x or x == x"],
)
def test_masks(text: str) -> None:
    expression = parse(text, VALUES)
    x, y, k = (np.array(VALUES[n]) for n in "xyk")
    expected = {
        "x < 0.5 and y > 0": (x < 0.5) & (y > 0),
        "not x < 0.2 or y <= k": ~(x < 0.2) | (y <= k),
        "-0.5 < x <= 0.5 < y": (x > -0.5) & (x <= 0.5) & (y > 0.5),
        "x != x or x == x": np.full(x.shape, True),
    }[text]
    result = expression(**tensors())
    assert expression.is_mask and result.dtype == torch.bool
    np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_coordinates_is_kept(dtype: torch.dtype) -> None:
    for text in ("1.1*(x < 0.3)", "where(x < 0.3, 1e4, 0.1)", "max(x, 0.1)", "x**2/3", "step(x)"):
        assert parse(text)(**tensors(dtype)).dtype == dtype
    value = parse("9.3*(x < 2)")(x=torch.zeros(1, dtype=torch.float64))
    assert float(value) == 9.3


def test_values_broadcast_as_a_batch() -> None:
    a = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).reshape(3, 1, 1)
    x, y = torch.meshgrid(torch.rand(4).double(), torch.rand(5).double(), indexing="ij")
    together = parse("sin(a*x) + y", ("x", "y", "a"))(x=x, y=y, a=a)
    assert together.shape == (3, 4, 5)
    for i in range(3):
        assert torch.equal(together[i], parse("sin(a*x) + y", ("x", "y", "a"))(x=x, y=y, a=i + 1.0))


@pytest.mark.parametrize(
    "text", ["sin(x)*exp(-y)", "x**3/(1 + y**2)", "where(x < 0.4, x**2, sqrt(x))", "max(x*y, y)",
             "atan2(x, y) + tanh(x)*erf(y)", "2**x"],
)  # fmt: skip
def test_derivatives(text: str) -> None:
    x = torch.tensor([0.15, 0.35, 0.6, 0.85], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.25, 0.55, 0.45, 0.95], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: parse(text)(x=x, y=y), (x, y))


def test_it_is_data() -> None:
    expression = parse("sin(k*x)", ("x", "y", "k"))
    assert isinstance(expression, Expression) and expression.names == {"x", "k"}
    assert expression == parse("sin(k*x)", ("x", "k")) and hash(expression) is not None
    with pytest.raises(AttributeError):
        expression.text = "1"  # type: ignore[misc]
    with pytest.raises(InputError, match="needs a value for 'k'"):
        expression(x=1.0)


@settings(max_examples=100, deadline=None)
@given(st.recursive(
    st.sampled_from(["x < y", "x**2 + y**2 < 0.4", "x > 0.1", "y >= k", "-0.5 < x < 0.5"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({' '.join(t)})"),
        inner.map(lambda t: f"(not ({t}))"),
    ),
    max_leaves=6,
))  # fmt: skip
def test_level_set_is_negative_inside(text: str) -> None:
    mask = parse(text, VALUES)
    signed = level_set(mask)
    depth, held = signed(**tensors()), mask(**tensors())
    assert not signed.is_mask
    assert torch.equal((depth < 0)[depth != 0], held[depth != 0])


@pytest.mark.parametrize("text", ["x", "x == 0", "x < 1 and y != 0", "1"])
def test_no_level_set(text: str) -> None:
    with pytest.raises(InputError):
        level_set(parse(text))


HOSTILE = [
    "__import__('os').system('true')",
    "x.__class__",
    "x.real",
    "().__class__.__bases__",
    "(lambda: 0)()",
    "[x for x in (1,2)]",
    "(x for x in y)",
    "(y := 3)",
    "'text'",
    "b'bytes'",
    "f'{x}'",
    '"%s" % x',
    "x[0]",
    "sin(*x)",
    "sin(**x)",
    "sin(x=1)",
    "where(x < 1, y=2, z=3)",
    "-" * 100_000 + "1",
    "-" * 9_000 + "1",
    "not " * 2_000 + "x<1",
    "(" * 100_000 + "1" + ")" * 100_000,
    "(" * 4_000 + "1" + ")" * 4_000,
    "2**" * 3_000 + "2",
    "+".join(["x"] * 4_000),
    "x" * 20_000,
    "9" * 9_000,
    "0x" + "f" * 9_000,
    "1e99999",
    "ｓｉｎ(x)",  # full-width letters, which Python itself would read as sin
    "sіn(x)",  # a Cyrillic letter
    "x\0",
    "x; y",
    "x\\\n+1",
    "x if y else z",
    "x = 1",
    "await x",
    "(yield)",
    "eval(x)",
    "exec",
    "globals()",
    "__builtins__",
    "None",
    "True",
    "...",
    "1j",
    "x @ y",
    "x // y",
    "x << 2",
    "x & y",
    "~x",
    "x is y",
    "x in y",
    "x, y",
    "{x}",
    "lambda: x",
    "x # comment",
    "",
    "   ",
    "x) + (y",
    "sin(x)(y)",
    "2(x)",
    "x(2)",
    "import os",
    "x\n\ny",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_expressions_are_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert "\n" not in caught.value.message and len(caught.value.message) < 400


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="xyzsincopqrt0123456789.+-*/%()<>=!, e_", max_size=40) | st.text(max_size=30)
)
def test_any_text_is_an_expression_or_an_input_error(text: str) -> None:
    try:
        expression = parse(text)
    except InputError:
        return
    assert expression(x=0.1, y=0.2, z=0.3).ndim == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sine", "unknown name 'sine' at column 1; did you mean 'sin'?"),
        ("1+sine(x)", "unknown function 'sine' at column 3; did you mean 'sin'?"),
        ("x^2", "unexpected '^' at column 2; use ** for powers"),
        ("sin", "'sin' at column 1 is a function: write sin(...)"),
        ("x(2)", "'x' at column 1 is no function; write x*(...)"),
        ("1 + (x", "'(' at column 5 is never closed"),
        ("x)", "')' at column 2 has no '(' before it"),
        ("min(x)", "'min' at column 1 takes 2 or more arguments; got 1"),
        ("sin(x, y)", "'sin' at column 1 takes 1 argument; got 2"),
        ("where(x, 1, 2)", "'where' needs a condition at column 7"),
        ("x + t", "'t' at column 5: not yet"),
        ("x +* y", "at column 4"),
    ],
)
def test_messages_name_the_column(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, ("x", "y"), {"t": "not yet"})
    assert message in caught.value.message
