"""Expressions as presentation MathML, which browsers set without any script.

``mathml("1 + 0.5*sin(pi*x)**2")`` gives a row of elements; what cannot be read stands as text.
Sums are handed out term by term (:func:`terms`), so that a line may break between them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from html import escape
from typing import Any

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε",
    "eta": "η", "theta": "θ", "kappa": "κ", "lam": "λ", "lambda": "λ", "mu": "μ", "nu": "ν",
    "omega": "ω", "phi": "φ", "pi": "π", "psi": "ψ", "rho": "ρ", "sigma": "σ", "tau": "τ",
    "xi": "ξ", "zeta": "ζ",
}  # fmt: skip
_SLOPE = re.compile(r"u[xyz]|u[xyz]{2}|ut")
_INDEXED = re.compile(r"([A-Za-z]+?)_?([0-9]+)")
_COMPARE: dict[type[ast.AST], str] = {
    ast.Lt: "&lt;", ast.LtE: "≤", ast.Gt: "&gt;", ast.GtE: "≥", ast.Eq: "=", ast.NotEq: "≠",
}  # fmt: skip
_BARS = {"abs": ("|", "|"), "floor": ("⌊", "⌋")}
# How tightly each kind of expression binds.
_OR, _AND, _NOT, _RELATION, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(9)
_SHORT_EXPONENT = 24
_SPACE = "\u00a0"  # MathML drops plain spaces at the ends of a text
MINUS = '<mo form="prefix">−</mo>'
_TIMES = '<mo>&#x2062;</mo><mspace width="0.12em"/>'

Piece = tuple[str, int]


def math(content: str, *, display: bool = False) -> str:
    """A ``<math>`` element around a row."""
    mode = ' display="block"' if display else ""
    return f"<math{mode}><mrow>{content}</mrow></math>"


def mathml(value: Any, *, product: bool = False) -> str:
    """A number or an expression as a row of MathML; ``product``: to stand as a factor."""
    text, binds = _value(value)
    return fenced(text) if product and binds < _PRODUCT else text


def terms(value: Any) -> list[str]:
    """The terms of a sum, each with its sign, or the expression as its only term."""
    tree = _parsed(value)
    if tree is None:
        return [mathml(value)]
    found: list[str] = []
    for sign, node in _addends(tree, "+"):
        text = _at_least(node, _PRODUCT)
        negative = text.startswith(MINUS)
        text = fenced(text) if negative and sign == "−" else text
        plus = sign == "+" and (not found or negative)
        lead = f'<mo form="infix">{sign}</mo>' if found else MINUS
        found.append(text if plus else lead + text)
    return found


def number(value: float) -> str:
    """A number, as a multiple of a power of ten where it is very small or large."""
    sign = MINUS if value < 0 else ""
    size = abs(value)
    if size == 0 or 1e-3 <= size < 1e5:
        return f"{sign}<mn>{size:.10g}</mn>"
    mantissa, _, exponent = f"{size:.10e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    lead = "" if mantissa == "1" else f"<mn>{mantissa}</mn><mo>×</mo>"
    power = int(exponent)
    raised = f"{MINUS}<mn>{-power}</mn>" if power < 0 else f"<mn>{power}</mn>"
    return f"{sign}{lead}<msup><mn>10</mn><mrow>{raised}</mrow></msup>"


def name(word: str) -> str:
    """A name: Greek letters by their sign, ``x1`` and ``ux`` with an index."""
    if word in _GREEK:
        return f"<mi>{_GREEK[word]}</mi>"
    if _SLOPE.fullmatch(word):
        return f"<msub><mi>u</mi><mi>{word[1:]}</mi></msub>"
    indexed = _INDEXED.fullmatch(word)
    if indexed:
        return f"<msub>{name(indexed[1])}<mn>{indexed[2]}</mn></msub>"
    head, _, tail = word.partition("_")
    if head and tail:
        return f"<msub>{name(head)}<mi>{escape(tail)}</mi></msub>"
    return f"<mi>{escape(word)}</mi>"


def vector(entries: Sequence[Any]) -> str:
    """A row of entries in parentheses."""
    return fenced("<mo>,</mo>".join(mathml(entry) for entry in entries))


def matrix(rows: Sequence[Sequence[Any]]) -> str:
    """A matrix in parentheses."""
    body = "".join(
        "<mtr>" + "".join(f"<mtd><mrow>{mathml(entry)}</mrow></mtd>" for entry in row) + "</mtr>"
        for row in rows
    )
    return fenced(f"<mtable>{body}</mtable>")


def cases(rows: Sequence[tuple[str, str]]) -> str:
    """Values and the conditions under which they hold, behind a brace."""
    body = "".join(
        f'<mtr><mtd style="text-align:left"><mrow>{value}</mrow></mtd>'
        f'<mtd style="text-align:left"><mrow>{when}</mrow></mtd></mtr>'
        for value, when in rows
    )
    return f'<mrow><mo stretchy="true">{{</mo><mtable>{body}</mtable></mrow>'


def words(text: str) -> str:
    """Plain words inside a formula."""
    return f"<mtext>{escape(text).replace(' ', _SPACE)}</mtext>"


def _value(value: Any) -> Piece:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value), _SIGN if value < 0 else _ATOM
    tree = _parsed(value)
    return (words(str(value)), _ATOM) if tree is None else _node(tree)


def _parsed(value: Any) -> ast.expr | None:
    if not isinstance(value, str):
        return None
    try:
        return ast.parse(value.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return None


def fenced(text: str) -> str:
    """A row in parentheses, as tall as what stands in them where that is tall."""
    tall = any(tag in text for tag in ("<mfrac", "<mtable"))
    fixed = "" if tall else ' stretchy="false"'
    return f"<mrow><mo{fixed}>(</mo>{text}<mo{fixed}>)</mo></mrow>"


def _at_least(node: ast.expr, binds: int) -> str:
    text, own = _node(node)
    return text if own >= binds else fenced(text)


def _node(node: ast.expr) -> Piece:
    match node:
        case ast.Constant(value=bool() | str() | None):
            return words(ast.unparse(node)), _ATOM
        case ast.Constant(value=value):
            return number(float(value)), _ATOM  # type: ignore[arg-type]
        case ast.Name(id=word):
            return name(word), _ATOM
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return f"<mo>¬</mo>{_at_least(inner, _NOT)}", _NOT
        case ast.UnaryOp(op=op, operand=inner):
            sign = MINUS if isinstance(op, ast.USub) else '<mo form="prefix">+</mo>'
            return f"{sign}{_at_least(inner, _PRODUCT)}", _SIGN
        case ast.BinOp():
            return _binary(node)
        case ast.Compare(left=left, ops=ops, comparators=others):
            parts = [_at_least(left, _SUM)]
            for relation, other in zip(ops, others, strict=True):
                parts.append(f"<mo>{_COMPARE[type(relation)]}</mo>{_at_least(other, _SUM)}")
            return "".join(parts), _RELATION
        case ast.BoolOp(op=op, values=values):
            both = isinstance(op, ast.And)
            joint = words(" and " if both else " or ")
            binds = _AND if both else _OR
            return joint.join(_at_least(value, binds + 1) for value in values), binds
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _call(function, arguments), _ATOM
    return words(ast.unparse(node)), _ATOM


def _binary(node: ast.BinOp) -> Piece:
    left, right = node.left, node.right
    match node.op:
        case ast.Add() | ast.Sub():
            sign = "+" if isinstance(node.op, ast.Add) else "−"
            tight = _SUM if sign == "+" else _PRODUCT
            return f"{_at_least(left, _SUM)}<mo>{sign}</mo>{_at_least(right, tight)}", _SUM
        case ast.Mult():
            second = _at_least(right, _POWER)
            dot = "<mo>·</mo>" if second.startswith("<mn>") else _TIMES
            return f"{_at_least(left, _PRODUCT)}{dot}{second}", _PRODUCT
        case ast.Div():
            over, under = _node(left)[0], _node(right)[0]
            return f"<mfrac><mrow>{over}</mrow><mrow>{under}</mrow></mfrac>", _POWER
        case ast.Pow():
            return _power(left, right), _POWER
        case ast.Mod():
            return f"{_at_least(left, _PRODUCT)}{words(' mod ')}{_at_least(right, _POWER)}", _SUM
    return words(ast.unparse(node)), _ATOM


def _power(base: ast.expr, exponent: ast.expr) -> str:
    raised = f"<mrow>{_node(exponent)[0]}</mrow>"
    plain = isinstance(base, ast.Call) and isinstance(base.func, ast.Name)
    if plain and base.func.id in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):  # type: ignore
        function = f"<msup><mi>{base.func.id}</mi>{raised}</msup>"  # type: ignore[attr-defined]
        return _applied(function, base.args)  # type: ignore[attr-defined]
    inner = _at_least(base, _ATOM)
    if isinstance(base, ast.Call) and base.func.id == "exp":  # type: ignore[attr-defined]
        inner = fenced(inner)
    return f"<msup><mrow>{inner}</mrow>{raised}</msup>"


def _call(function: str, arguments: Sequence[ast.expr]) -> str:
    inner = [_node(argument)[0] for argument in arguments]
    if function == "sqrt":
        return f"<msqrt>{inner[0]}</msqrt>"
    if function in _BARS:
        opening, closing = _BARS[function]
        return f"<mrow><mo>{opening}</mo>{inner[0]}<mo>{closing}</mo></mrow>"
    if function == "exp" and len(ast.unparse(arguments[0])) <= _SHORT_EXPONENT:
        return f"<msup><mi>e</mi><mrow>{inner[0]}</mrow></msup>"
    if function == "where" and len(arguments) == 3:
        return cases(_branches(arguments))
    shown = {"log": "ln", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
    return _applied(f"<mi>{escape(shown.get(function, function))}</mi>", arguments)


def _applied(function: str, arguments: Sequence[ast.expr]) -> str:
    inner = "<mo>,</mo>".join(_node(argument)[0] for argument in arguments)
    return f"<mrow>{function}<mo>&#x2061;</mo>{fenced(inner)}</mrow>"


def _branches(arguments: Sequence[ast.expr]) -> list[tuple[str, str]]:
    """The rows of ``where(condition, value, else)``, an else that is another where among them."""
    condition, value, rest = arguments
    rows = [(_node(value)[0], words("where ") + row) for row in _alternatives(condition)]
    if isinstance(rest, ast.Call) and isinstance(rest.func, ast.Name) and rest.func.id == "where":
        return [*rows, *_branches(rest.args)]
    return [*rows, (_node(rest)[0], words("elsewhere"))]


def _alternatives(condition: ast.expr) -> list[str]:
    """A long list of alternatives goes line by line."""
    if isinstance(condition, ast.BoolOp) and isinstance(condition.op, ast.Or):
        return [_node(value)[0] for value in condition.values]
    return [_node(condition)[0]]


def _addends(node: ast.expr, sign: str) -> list[tuple[str, ast.expr]]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        below = sign if isinstance(node.op, ast.Add) else "−" if sign == "+" else "+"
        return [*_addends(node.left, sign), *_addends(node.right, below)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _addends(node.operand, "−" if sign == "+" else "+")
    return [(sign, node)]
