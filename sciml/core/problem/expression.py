"""Safe expressions of x, y, z and named parameters, such as ``1 + 0.9*sin(2*pi*x)``.

The text is parsed by :mod:`ast` and translated, through a white list, into a tree with three kinds
of node (a number, a name, a call); the tree is interpreted onto torch. Nothing is ever handed to
``eval``, so an expression can do arithmetic and nothing else. Literals are floats: ``9**9**9**9``
is inf. Comparisons and ``and``, ``or``, ``not`` give masks (bool tensors), which count as 1 and 0
in arithmetic.

A mask made of comparisons has a level set, a real function that is negative where it holds:

    a < b  ->  a - b,    a > b  ->  b - a,    and  ->  max,    or  ->  min,    not  ->  minus.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial, reduce
from typing import TYPE_CHECKING, Any, Union

from sciml.core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import torch

    from sciml.core.problem.table import Curve

MAX_LENGTH = 10_000
MAX_DEPTH = 200
MAX_NODES = 5_000
_MOST_TERMS = 200  # of a product multiplied out
CONSTANTS = {"pi": math.pi, "e": math.e}

# How many arguments each function takes, least and most.
_ARITY: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan"), (1, 1)),
    **dict.fromkeys(("sinh", "cosh", "tanh", "exp", "log", "sqrt", "erf"), (1, 1)),
    **dict.fromkeys(("abs", "sign", "floor", "round", "step"), (1, 1)),
    **dict.fromkeys(("atan2", "mod"), (2, 2)),
    **dict.fromkeys(("min", "max"), (2, 100)),
    "where": (3, 3),
}
FUNCTIONS = tuple(_ARITY)

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.Mod: "mod",
}  # fmt: skip
_COMPARE: dict[type[ast.AST], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_LOGIC = ("and", "or", "not")
_MASKS = frozenset((*_COMPARE.values(), *_LOGIC))
_OPERATORS: dict[str, Callable[[Value, Value], torch.Tensor]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "**": operator.pow, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip

# Of a value that jumps, the derivative says nothing of the jump.
JUMPS = frozenset({"sign", "floor", "round", "step", "where", "mod", *_MASKS})

_FOREIGN = re.compile(r"[^A-Za-z0-9_.+\-*/%()<>=!,\s]")
_INSTEAD = {
    "^": "use ** for powers", "&": "use and", "|": "use or", "~": "use not",
    "[": "use ( )", "{": "use ( )", "π": "write pi", "²": "write **2",
}  # fmt: skip
# Longer runs would only reach the parser's own stack limit; a person never writes them.
_GROUPED = re.compile(r"(?<![\w.])\.?\d[\w.]*_")
_PREFIX_RUN = re.compile(r"(?:(?:[-+]|\bnot\b)\s*){50}")


@dataclass(frozen=True)
class Number:
    """A literal or a constant."""

    value: float


@dataclass(frozen=True)
class Name:
    """A coordinate or a parameter."""

    name: str


@dataclass(frozen=True)
class Call:
    """A function or an operator, by its name in the expression, and its arguments."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Lookup:
    """A value of the table called ``name``, for the argument."""

    name: str
    curve: Curve
    argument: Node


Node = Union[Number, Name, Call, Lookup]  # noqa: UP007  (evaluated at import, on Python 3.10 too)


@dataclass(frozen=True)
class Expression:
    """An expression, parsed once; ``expression(x=..., y=...)`` gives its value.

    ``names``: the coordinates and parameters that occur in it. ``root`` is its tree.
    """

    text: str
    names: frozenset[str]
    root: Node = field(repr=False, compare=False)

    @property
    def is_mask(self) -> bool:
        """Whether the value is true or false rather than a number."""
        return _is_mask(self.root)

    @property
    def jumps(self) -> frozenset[str]:
        """What occurs in it whose value may jump: where, step, sign, floor, a comparison, ..."""
        return _called(self.root) & JUMPS

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The tables that it looks into."""
        return _looked_up(self.root)

    @property
    def terms(self) -> tuple[Expression, ...]:
        """What adds up to it, sums before a factor or over a divisor multiplied out."""
        return tuple(Expression(self.text, _names(part), part) for part in _terms(self.root))

    def __call__(self, **values: torch.Tensor | float) -> torch.Tensor:
        """The value for tensors or numbers that broadcast together; differentiable.

        Names that do not occur are ignored, so one may pass all coordinates and parameters.
        Numbers become float64; a tensor keeps its dtype and device. A mask gives a bool tensor.
        Raises InputError for a missing value.
        """
        import torch

        used: dict[str, torch.Tensor] = {}
        for name in sorted(self.names):
            if name not in values:
                raise InputError(f"the expression '{_short(self.text)}' needs a value for '{name}'")
            value = values[name]
            tensor = torch.as_tensor(value, dtype=None if torch.is_tensor(value) else torch.float64)
            real_or_complex = tensor.is_floating_point() or tensor.is_complex()
            used[name] = tensor if real_or_complex else tensor.to(torch.float64)
        like = max(
            used.values(), key=lambda v: v.ndim, default=torch.zeros((), dtype=torch.float64)
        )
        return _tensor(_evaluate(self.root, used, like), like)


def parse(
    text: str,
    names: Iterable[str] = ("x", "y", "z"),
    refused: Mapping[str, str] | None = None,
    tables: Mapping[str, Any] | None = None,
) -> Expression:
    """Parse ``text``, in which ``names`` may occur besides the functions, ``pi`` and ``e``.

    ``refused`` maps names that are understood but not admitted here to the reason why not.
    ``tables`` may stand alone, for their value at their own variable, or be called: ``k(T + 20)``;
    only what they are ``of`` is asked before the expression is.
    Raises InputError, with the column, for anything that is not in the white list.
    """
    if not isinstance(text, str):
        raise InputError(f"an expression is a string; got {type(text).__name__}")
    line = re.sub(r"\s", " ", text)
    _scan(line)
    reader = _Reader(line, frozenset(names), refused or {}, tables or {})
    root = reader.read(_syntax_tree(line), 1)
    return Expression(text, frozenset(reader.used), root)


@lru_cache(maxsize=512)
def names_in(text: str) -> frozenset[str]:
    """All names that stand in a text, functions that are called aside; none if it is no expression.

    For what must be known before anyone can say what they mean.
    """
    line = re.sub(r"\s", " ", text)
    try:
        _scan(line)
        tree = _syntax_tree(line)
    except InputError:
        return frozenset()
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return frozenset(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called
    )


def linear_parts(text: str, names: Iterable[str]) -> dict[str, str]:
    """What a text multiplies each of ``names`` by, as texts, and under "" what names none.

    Exact, by the rules of sums, products and quotients. Raises InputError where the text is not
    linear in them, as far as these rules tell.
    """
    wanted, line = frozenset(names), re.sub(r"\s", " ", text)
    _scan(line)

    def named(node: ast.expr) -> frozenset[str]:
        return wanted & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}

    def joined(first: dict[str, str], second: dict[str, str], sign: str) -> dict[str, str]:
        found = dict(first)
        for name, part in second.items():
            found[name] = f"{found.get(name, '')} {sign} ({part})".strip()
        return found

    def split(node: ast.expr) -> dict[str, str]:
        if not named(node):
            return {"": ast.unparse(node)}
        match node:
            case ast.Name(id=name):
                return {name: "1"}
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
                sign = "-" if isinstance(node.op, ast.USub) else "+"
                return joined({}, split(inner), sign)
            case ast.BinOp(left=a, op=ast.Add() | ast.Sub(), right=b):
                return joined(split(a), split(b), "+" if isinstance(node.op, ast.Add) else "-")
            case ast.BinOp(left=a, op=ast.Mult(), right=b) if not named(a) or not named(b):
                scale, inner = (a, b) if not named(a) else (b, a)
                return {k: f"({ast.unparse(scale)})*({v})" for k, v in split(inner).items()}
            case ast.BinOp(left=a, op=ast.Div(), right=b) if not named(b):
                return {k: f"({v})/({ast.unparse(b)})" for k, v in split(a).items()}
        raise InputError(
            f"'{_short(ast.unparse(node))}' is not linear in {', '.join(sorted(named(node)))}"
        )

    return split(_syntax_tree(line))


def level_set(expression: Expression, smooth: bool = False) -> Expression:
    """A real-valued expression that is negative where the mask ``expression`` holds.

    ``smooth``: differentiable but where several of its parts are zero, by Rvachev's functions
    a + b +- sqrt(a^2 + b^2), which have the signs of max and min. Raises InputError unless it is
    made of ``<``, ``<=``, ``>``, ``>=`` joined by and, or, not.
    """
    if not expression.is_mask:
        raise InputError(
            f"'{_short(expression.text)}' is a number, not a condition; "
            "write a comparison such as x**2 + y**2 < 0.04"
        )
    signed = _signed(expression.root, expression.text, smooth)
    return Expression(expression.text, expression.names, signed)


def _scan(line: str) -> None:
    """Refuse what the parser should not even see: length, foreign characters, nesting."""
    if len(line) > MAX_LENGTH:
        raise InputError(f"an expression has at most {MAX_LENGTH} characters; this has {len(line)}")
    if not line.strip():
        raise InputError("the expression is empty; write a number, or e.g. sin(pi*x)")
    if foreign := _FOREIGN.search(line):
        character = foreign.group()
        hint = _INSTEAD.get(
            character, "an expression holds names, numbers, + - * / ** % ( ) < > = ,"
        )
        raise InputError(f"unexpected {character!r} at column {foreign.start() + 1}; {hint}")
    if grouped := _GROUPED.search(line):
        raise InputError(
            f"a number at column {grouped.start() + 1} has an underscore; write digits alone"
        )
    if run := _PREFIX_RUN.search(line):
        raise InputError(f"too many signs in a row at column {run.start() + 1}")
    opened: list[int] = []
    for column, character in enumerate(line, 1):
        if character == "(":
            opened.append(column)
            if len(opened) > MAX_DEPTH // 2:
                raise InputError(
                    f"parentheses nested over {MAX_DEPTH // 2} deep at column {column}"
                )
        elif character == ")":
            if not opened:
                raise InputError(f"')' at column {column} has no '(' before it")
            opened.pop()
    if opened:
        raise InputError(f"'(' at column {opened[-1]} is never closed")


def _syntax_tree(line: str) -> ast.expr:
    # The parentheses let leading blanks through; they also make col_offset the column from one.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(f"({line})", mode="eval").body
    except SyntaxError as error:
        column = min(max((error.offset or 2) - 1, 1), len(line))
        reason = (error.msg or "").split(".")[0].split(";")[0]
        raise InputError(f"cannot read '{_short(line)}' at column {column}: {reason}") from None
    except (MemoryError, RecursionError, ValueError, OverflowError):
        raise InputError(f"cannot read '{_short(line)}': it is nested too deeply") from None


class _Reader:
    """Translates a syntax tree into ours; anything not named here is refused."""

    def __init__(
        self,
        line: str,
        names: frozenset[str],
        refused: Mapping[str, str],
        tables: Mapping[str, Any],
    ) -> None:
        self.line = line
        self.names = names
        self.refused = refused
        self.tables = tables
        self.used: set[str] = set()
        self.count = 0

    def read(self, node: ast.expr, depth: int) -> Node:
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_NODES:
            raise InputError(
                f"the expression is too large at column {node.col_offset}: at most {MAX_NODES} "
                f"operations, {MAX_DEPTH} deep; put large data into a field file"
            )
        match node:
            case ast.Constant():
                return Number(self._literal(node))
            case ast.Name():
                return self._name(node)
            case ast.Call():
                return self._call(node, depth)
            case ast.BinOp(left, op, right) if type(op) in _BINARY:
                pair = (self.read(left, depth + 1), self.read(right, depth + 1))
                return Call(_BINARY[type(op)], pair)
            case ast.UnaryOp(ast.USub(), operand):
                return Call("neg", (self.read(operand, depth + 1),))
            case ast.UnaryOp(ast.UAdd(), operand):
                return self.read(operand, depth + 1)
            case ast.UnaryOp(ast.Not(), operand):
                return Call("not", (self._mask(operand, "not", depth),))
            case ast.BoolOp(op, values):
                word = "and" if isinstance(op, ast.And) else "or"
                return Call(word, tuple(self._mask(value, word, depth) for value in values))
            case ast.Compare() if all(type(op) in _COMPARE for op in node.ops):
                return self._comparison(node, depth)
        raise self._refusal(node)

    def _literal(self, node: ast.Constant) -> float:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise self._refusal(node)
        try:
            value = float(node.value)
        except OverflowError:
            value = math.inf
        if math.isinf(value):
            raise InputError(f"the number at column {node.col_offset} is too large for a float")
        return value

    def _name(self, node: ast.Name) -> Node:
        name, column = node.id, node.col_offset
        if name in self.names:
            self.used.add(name)
            return Name(name)
        if name in self.tables:
            return self._table(name, column)
        if name in CONSTANTS:
            return Number(CONSTANTS[name])
        if name in self.refused:
            raise InputError(f"'{name}' at column {column}: {self.refused[name]}")
        if name in _ARITY:
            raise InputError(f"'{name}' at column {column} is a function: write {name}(...)")
        known = (*self.names, *self.tables, *CONSTANTS, *FUNCTIONS)
        raise InputError(f"unknown name '{name}' at column {column}{did_you_mean(name, known)}")

    def _table(self, name: str, column: int) -> Node:
        variable = self.tables[name].of
        if variable not in self.names:
            why = self.refused.get(variable, "it is unknown here")
            raise InputError(
                f"'{name}' at column {column} is a table of '{variable}' ({why}); "
                f"write {name}(...) with what to look up"
            )
        self.used.add(variable)
        return Lookup(name, self.tables[name], Name(variable))

    def _call(self, node: ast.Call, depth: int) -> Node:
        column = node.col_offset
        if not isinstance(node.func, ast.Name):
            raise InputError(
                f"a number at column {column} is called as a function; write * between"
            )
        name = node.func.id
        if name not in _ARITY and name not in self.tables:
            if name in self.names or name in CONSTANTS:
                raise InputError(f"'{name}' at column {column} is no function; write {name}*(...)")
            raise InputError(
                f"unknown function '{name}' at column {column}"
                + did_you_mean(name, (*FUNCTIONS, *self.tables))
            )
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise InputError(f"'{name}' at column {column} takes plain arguments only")
        least, most = (1, 1) if name in self.tables else _ARITY[name]
        if not least <= len(node.args) <= most:
            wanted = str(least) if least == most else f"{least} or more"
            raise InputError(
                f"'{name}' at column {column} takes {wanted} argument{'s'[: least != 1]}; "
                f"got {len(node.args)}"
            )
        if name in self.tables:
            return Lookup(name, self.tables[name], self.read(node.args[0], depth + 1))
        if name == "where":
            rest = [self.read(a, depth + 1) for a in node.args[1:]]
            return Call(name, (self._mask(node.args[0], name, depth), *rest))
        return Call(name, tuple(self.read(a, depth + 1) for a in node.args))

    def _comparison(self, node: ast.Compare, depth: int) -> Node:
        terms = [self.read(term, depth + 1) for term in (node.left, *node.comparators)]
        links = tuple(
            Call(_COMPARE[type(op)], (terms[i], terms[i + 1])) for i, op in enumerate(node.ops)
        )
        return links[0] if len(links) == 1 else Call("and", links)

    def _mask(self, node: ast.expr, word: str, depth: int) -> Node:
        result = self.read(node, depth + 1)
        if not _is_mask(result):
            raise InputError(
                f"'{word}' needs a condition at column {node.col_offset}, such as x < 0.5"
            )
        return result

    def _refusal(self, node: ast.expr) -> InputError:
        end = node.end_col_offset or node.col_offset
        piece = _short(self.line[node.col_offset - 1 : end - 1])
        return InputError(
            f"'{piece}' at column {node.col_offset} is not allowed in an expression; "
            "use numbers, names, functions, + - * / ** %, comparisons, and, or, not"
        )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_mask(node: Node) -> bool:
    return isinstance(node, Call) and node.function in _MASKS


def _called(node: Node) -> frozenset[str]:
    if isinstance(node, Lookup):
        return _called(node.argument)
    if not isinstance(node, Call):
        return frozenset()
    return frozenset({node.function}).union(*map(_called, node.arguments))


def _looked_up(node: Node) -> tuple[Curve, ...]:
    if isinstance(node, Lookup):
        return (node.curve, *_looked_up(node.argument))
    arguments = node.arguments if isinstance(node, Call) else ()
    return tuple(curve for argument in arguments for curve in _looked_up(argument))


def _terms(node: Node) -> list[Node]:
    if not isinstance(node, Call):
        return [node]
    parts = [_terms(argument) for argument in node.arguments]
    match node.function:
        case "+":
            return [*parts[0], *parts[1]]
        case "-":
            return [*parts[0], *(Call("neg", (part,)) for part in parts[1])]
        case "neg":
            return [Call("neg", (part,)) for part in parts[0]]
        case "*" if len(parts[0]) * len(parts[1]) <= _MOST_TERMS:
            return [Call("*", (a, b)) for a in parts[0] for b in parts[1]]
        case "/":
            return [Call("/", (part, node.arguments[1])) for part in parts[0]]
    return [node]


def _names(node: Node) -> frozenset[str]:
    if isinstance(node, Name):
        return frozenset({node.name})
    if isinstance(node, Lookup):
        return _names(node.argument)
    arguments = node.arguments if isinstance(node, Call) else ()
    return frozenset().union(*map(_names, arguments))


def _signed(node: Node, text: str, smooth: bool) -> Node:
    if isinstance(node, Call):
        match node.function:
            case "<" | "<=":
                return Call("-", node.arguments)
            case ">" | ">=":
                return Call("-", node.arguments[::-1])
            case "and" | "or":
                parts = tuple(_signed(part, text, smooth) for part in node.arguments)
                if smooth:
                    return reduce(partial(_joined, "+" if node.function == "and" else "-"), parts)
                return Call("max" if node.function == "and" else "min", parts)
            case "not":
                return Call("neg", (_signed(node.arguments[0], text, smooth),))
    raise InputError(
        f"'{_short(text)}' has no inside; make it of <, <=, >, >= joined by and, or, not"
    )


def _joined(sign: str, a: Node, b: Node) -> Node:
    """a + b +- sqrt(a^2 + b^2)."""
    squares = Call("+", (Call("*", (a, a)), Call("*", (b, b))))
    return Call(sign, (Call("+", (a, b)), Call("sqrt", (squares,))))


Value = Union["torch.Tensor", float]


def _evaluate(node: Node, values: Mapping[str, torch.Tensor], like: torch.Tensor) -> Value:
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Name):
        return values[node.name]
    if isinstance(node, Lookup):
        argument = _numeric(_evaluate(node.argument, values, like), like)
        return node.curve(_tensor(argument, like))
    arguments = [_evaluate(argument, values, like) for argument in node.arguments]
    if node.function in _LOGIC or node.function == "where":
        return _logic(node.function, [_tensor(a, like) for a in arguments], like)
    if node.function in _OPERATORS:
        # A Python float beside a tensor keeps x**2 the multiplication that it is.
        left, right = (_numeric(a, like) for a in arguments)
        if isinstance(left, float) and isinstance(right, float):
            left = _tensor(left, like)
        return _OPERATORS[node.function](left, right)
    tensors = [_tensor(_numeric(a, like), like) for a in arguments]
    function = _functions()[node.function]
    return function(*tensors) if len(tensors) <= 2 else reduce(function, tensors)


def _logic(function: str, tensors: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    import torch

    if function == "where":
        chosen, other = (_tensor(_numeric(t, like), like) for t in tensors[1:])
        return torch.where(tensors[0], chosen, other)
    if function == "not":
        return torch.logical_not(tensors[0])
    return reduce(torch.logical_and if function == "and" else torch.logical_or, tensors)


def _tensor(value: Value, like: torch.Tensor) -> torch.Tensor:
    import torch

    if torch.is_tensor(value):
        return value
    return torch.tensor(value, dtype=like.dtype, device=like.device)


def _numeric(value: Value, like: torch.Tensor) -> Value:
    """A mask as 1 and 0 in the dtype of the calculation; anything else as it is."""
    if isinstance(value, float) or value.is_floating_point() or value.is_complex():
        return value
    return value.to(like.dtype)


@cache
def _functions() -> dict[str, Callable[..., torch.Tensor]]:
    import torch

    same = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log")
    more = ("sqrt", "erf", "abs", "sign", "floor", "round", "neg", "atan2")
    return {name: getattr(torch, name) for name in (*same, *more)} | {
        "min": torch.minimum,
        "max": torch.maximum,
        "mod": torch.remainder,
        "step": lambda x: (x >= 0).to(x.dtype),
    }
