"""What was solved, as HTML with MathML, from a problem's plain data: a record needs no more.

Of the coefficient form only what is not zero is shown; a coefficient too long to stand in the
equation gets a line of its own below. ``mathml("1 + 0.5*sin(pi*x)**2")`` gives a row of elements,
which browsers set without any script; what cannot be read stands as text. Sums are handed out term
by term (:func:`terms`), so that a line may break between them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from sciml.core.problem.equation import KINDS

Plain = Mapping[str, Any]

_INLINE = 16  # characters of a coefficient that may stand in the equation itself
_GRADIENT, _LAPLACE = "<mo>∇</mo>", "<mi>Δ</mi>"
_NORMAL = '<mi mathvariant="bold">n</mi>'
_INFIX = '<mo form="infix">{}</mo>'
_SIDES = {"left", "right", "bottom", "top", "back", "front"}


@dataclass
class _Sheet:
    """Lines as they are found: the equations, what symbols in them stand for."""

    equations: list[str] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)

    def factor(self, symbol: str, value: Any) -> str:
        """A coefficient as a factor: itself if it is short, else its symbol, defined below."""
        if isinstance(value, (int, float)):
            return "" if value == 1 else mathml(value, product=True)
        if isinstance(value, str) and len(value) <= _INLINE:
            return mathml(value, product=True)
        self.define(symbol, value)
        return name(symbol)

    def define(self, symbol: str, value: Any) -> None:
        """A line ``symbol = value``."""
        self.definitions.append(_line([f"{name(symbol)}<mo>=</mo>{_whole(value)}"], value))


def statement(problem: Plain) -> str:
    """The equation, its conditions and its data as HTML."""
    sheet = _Sheet()
    _equation(sheet, problem["equation"], _dimension(problem))
    parts = [_block(sheet.equations, "equation")]
    parts += [_block(sheet.definitions, "where")] if sheet.definitions else []
    parts.append(_table(dict(_data(problem))))
    return "".join(parts)


def _dimension(problem: Plain) -> int | None:
    domain = problem.get("domain")
    if not domain or "lower" not in domain:
        return None
    return len(domain["lower"])


def _block(lines: Sequence[str], kind: str) -> str:
    return f'<div class="{kind}">{"".join(lines)}</div>'


def _line(pieces: Sequence[str], value: Any = None) -> str:
    """One formula, a ``<math>`` per piece, so that a narrow page may break it between them."""
    if value is not None and isinstance(value, str):
        first, *rest = terms(value)
        symbol = pieces[0].partition("<mo>=</mo>")[0]
        pieces = [f"{symbol}<mo>=</mo>{first}", *rest]
    return f"<p>{' '.join(math(piece) for piece in pieces)}</p>"


def _whole(value: Any) -> str:
    """Any coefficient: a number, an expression, a file, one per region, a vector or a matrix."""
    if isinstance(value, Mapping) and "regions" in value:
        return cases([(_whole(entry), words(f"in {n}")) for n, entry in value["regions"].items()])
    if isinstance(value, Mapping):
        return words(_described(value))
    if isinstance(value, (list, tuple)):
        nested = bool(value) and isinstance(value[0], (list, tuple))
        return matrix(value) if nested else vector(value)
    return mathml(value)


def _described(value: Plain) -> str:
    if "file" in value:
        part = f", {value['dataset']}" if value.get("dataset") else ""
        return f"values of {str(value['file']).rpartition('/')[2]}{part}"
    if "of" in value:
        source = f", {str(value['table']).rpartition('/')[2]}" if value.get("table") else ""
        return f"a table of {value['of']}{source}"
    return ", ".join(f"{key} {entry}" for key, entry in value.items())


def _derivative(axes: str, of: str) -> str:
    index = "".join(f"<mi>{axis}</mi>" for axis in axes)
    return f"<msub><mo>∂</mo><mrow>{index}</mrow></msub>{of}"


def _equation(sheet: _Sheet, equation: Plain, dimension: int | None) -> None:
    kind = equation["kind"]
    if kind in ("system", "gray_scott"):
        for unknown, part in equation["equations"].items():
            _coefficient_form(sheet, part, name(unknown), dimension, f"_{unknown}")
    elif kind in ("navier_stokes", "stokes"):
        _flow(sheet, equation, kind == "navier_stokes")
    elif kind == "helmholtz":
        _waves(sheet, equation)
    elif kind == "elasticity":
        _solid(sheet, equation)
    elif kind in KINDS:
        _coefficient_form(sheet, equation, name("u"), dimension, "")
    else:
        _of_another_type(sheet, equation)


def _of_another_type(sheet: _Sheet, equation: Plain) -> None:
    """An equation that this page has no formula for: what it is called, and its data."""
    sheet.equations.append(f"<p>{escape(str(equation['kind']))}</p>")
    for key, value in equation.items():
        if key != "kind" and value is not None:
            sheet.define(key, value)


def _coefficient_form(
    sheet: _Sheet, equation: Plain, u: str, dimension: int | None, tail: str
) -> None:
    """``m u_tt + d u_t - div(K grad u) + b . grad u + c u + ... = f``, zeros left out.

    In the general form ``m u_tt + d u_t - div F = s``.
    """
    if equation.get("energy"):
        integral = f"<mo>∫</mo>{mathml(equation['energy'], product=True)}<mi>d</mi><mi>x</mi>"
        sheet.equations.append(_line([f"{u}{words(' makes ')}{integral}{words(' stationary')}"]))
        return
    found: list[str] = []
    for key, axes in (("m", "tt"), ("d", "t")):
        value = equation.get(key, 0.0)
        if not _is_zero(value):
            _add(found, sheet.factor(f"{key}{tail}", value), _derivative(axes, u))
    flux = equation.get("flux")
    if flux is not None:
        sheet.define(f"F{tail}", flux)
        _add(found, MINUS, f"{_GRADIENT}<mo>·</mo>{name(f'F{tail}')}")
    else:
        _diffusion(sheet, found, equation.get("K", 1.0), u, f"K{tail}", equation)
    _advection(sheet, found, equation.get("b"), u, f"b{tail}", dimension)
    for key, what in (
        ("c", u),
        ("dispersion", _derivative("xxx", u)),
        ("biharmonic", f"<msup>{_LAPLACE}<mn>2</mn></msup>{u}"),
    ):
        value = equation.get(key, 0.0)
        if not _is_zero(value):
            _add(found, sheet.factor(f"{key}{tail}", value), what)
    source = equation.get("f" if flux is None else "source", 0.0)
    if isinstance(source, str) and len(source) > 3 * _INLINE:
        sheet.define(f"f{tail}", source)
        right = [name(f"f{tail}")]
    else:
        right = terms(source) if isinstance(source, str) else [_whole(source)]
    found = found or [number(0)]
    found[-1] += f"<mo>=</mo>{right[0]}"
    sheet.equations.append(_line([*found, *right[1:]]))


def _is_zero(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and value == 0)


def _add(found: list[str], factor: str, what: str) -> None:
    """One more term, its sign taken from its factor."""
    if factor.startswith(MINUS):
        minus = _INFIX.format("−") if found else MINUS
        bare = factor.removeprefix(MINUS)
        found.append(f"{minus}{'' if bare == '<mn>1</mn>' else bare}{what}")
    else:
        found.append(f"{_INFIX.format('+') if found else ''}{factor}{what}")


def _diffusion(
    sheet: _Sheet, found: list[str], K: Any, u: str, symbol: str, equation: Plain
) -> None:
    if _is_zero(K):
        return
    if isinstance(K, (int, float)):
        _add(found, sheet.factor(symbol, -K) if K != -1 else "", f"{_LAPLACE}{u}")
        return
    factor = sheet.factor(symbol, K)
    flux = fenced(f'{factor}<mspace width="0.1em"/>{_GRADIENT}{u}')
    _add(found, MINUS, f"{_GRADIENT}<mo>·</mo>{flux}")


def _advection(
    sheet: _Sheet, found: list[str], b: Any, u: str, symbol: str, dimension: int | None
) -> None:
    if b is None:
        return
    if dimension == 1:
        _add(found, sheet.factor(symbol, b[0]), _derivative("x", u))
        return
    sheet.define(symbol, b)
    _add(found, name(symbol), f"<mo>·</mo>{_GRADIENT}{u}")


def _flow(sheet: _Sheet, equation: Plain, carried: bool) -> None:
    u, p = '<mi mathvariant="bold">u</mi>', "<mi>p</mi>"
    moving = f"<mo>+</mo>{fenced(f'{u}<mo>·</mo>{_GRADIENT}')}{u}" if carried else ""
    nu = sheet.factor("nu", equation["viscosity"])
    force = ""
    if equation.get("force"):
        sheet.define("F", equation["force"])
        force = f"<mo>+</mo>{name('F')}"
    line = (
        f"{_derivative('t', u)}{moving}<mo>=</mo>{MINUS}{_GRADIENT}{p}"
        f"<mo>+</mo>{nu}{_LAPLACE}{u}{force}"
    )
    curl = equation.get("vorticity_source", 0.0)
    if not _is_zero(curl):
        line += "<mo>+</mo><mi>F</mi>"
        rotated = f"{_GRADIENT}<mo>×</mo><mi>F</mi>"
        first, *rest = terms(curl)
        sheet.definitions.append(_line([f"{rotated}<mo>=</mo>{first}", *rest]))
    sheet.equations.append(_line([line]))
    sheet.equations.append(_line([f"{_GRADIENT}<mo>·</mo>{u}<mo>=</mo><mn>0</mn>"]))


def _waves(sheet: _Sheet, equation: Plain) -> None:
    found: list[str] = []
    _diffusion(sheet, found, equation.get("K", 1.0), "<mi>u</mi>", "K", equation)
    k = equation["wavenumber"]
    if isinstance(k, (int, float)) or len(str(k)) <= _INLINE:
        square = f"<msup><mrow>{mathml(k, product=True)}</mrow><mn>2</mn></msup>"
    else:
        sheet.define("k", k)
        square = "<msup><mi>k</mi><mn>2</mn></msup>"
    f = equation.get("f", 0.0)
    long = isinstance(f, str) and len(f) > _INLINE
    if long:
        sheet.define("f", f)
    right = name("f") if long else _whole(f)
    line = f"{_INFIX.format('−')}{square}<mi>u</mi><mo>=</mo>{right}"
    sheet.equations.append(_line([*found, line]))


def _solid(sheet: _Sheet, equation: Plain) -> None:
    force = equation.get("force")
    if force:
        sheet.define("F", force)
    right = name("F") if force else number(0)
    stress = '<mi mathvariant="bold">σ</mi>'
    sheet.equations.append(_line([f"{MINUS}{_GRADIENT}<mo>·</mo>{stress}<mo>=</mo>{right}"]))
    half = "<mfrac><mn>1</mn><mn>2</mn></mfrac>"
    strain = fenced("<mo>∇</mo><mi>u</mi><mo>+</mo><mo>∇</mo><msup><mi>u</mi><mi>⊤</mi></msup>")
    sheet.equations.append(_line([f"{stress}<mo>=</mo><mi>C</mi><mo>:</mo>{half}{strain}"]))
    sheet.define("E", equation["young"])
    sheet.define("nu", equation.get("poisson_ratio", 0.3))
    if equation.get("shear") is not None:
        sheet.define("G", equation["shear"])
    sheet.definitions.append(f"<p>plane {escape(str(equation.get('plane', 'strain')))} in 2-D</p>")


def _data(problem: Plain) -> Iterator[tuple[str, str]]:
    """Name and HTML of every further line: where, when, on the boundary, from where."""
    domain, time = problem.get("domain"), problem.get("time")
    fields = _fields(problem["equation"])
    if domain and "shapes" in domain:
        yield "domain", escape(str(domain.get("region") or next(iter(domain["shapes"]))))
    elif domain:
        intervals = [
            fenced(f"{number(a)}<mo>,</mo>{number(b)}")
            for a, b in zip(domain["lower"], domain["upper"], strict=True)
        ]
        cube = len(intervals) > 3 and len(set(intervals)) == 1
        power = f"<msup><mrow>{intervals[0]}</mrow><mn>{len(intervals)}</mn></msup>"
        yield "domain", math(power if cube else "<mo>×</mo>".join(intervals))
    if problem.get("obstacle"):
        yield "without", math(mathml(problem["obstacle"]["inside"]))
        yield "on its rim", _condition(problem["obstacle"]["boundary"], fields)
    parts = problem["equation"].get("equations") or {"u": problem["equation"]}
    for unknown, part in parts.items():
        for bound, sign in (("lower", "≥"), ("upper", "≤")):
            if part.get(bound) is not None:
                yield "obstacle", math(f"{name(unknown)}<mo>{sign}</mo>{_whole(part[bound])}")
    if time:
        start = number(time.get("start", 0.0))
        yield "time", math(f"{start}<mo>≤</mo><mi>t</mi><mo>≤</mo>{number(time['end'])}")
    yield from _sides(problem.get("boundary", {}), fields)
    for unknown, value in _initial(problem).items():
        yield f"{math(name(unknown))} at the start", math(_whole(value))
    for key, value in (problem.get("parameters") or {}).items():
        if isinstance(value, Mapping) and "unknown" in value:
            within = [
                f"{side} {math(number(value[bound]))}"
                for side, bound in (("above", "lower"), ("below", "upper"))
                if bound in value
            ]
            first = f"to be found, from {math(number(value['unknown']))}"
            yield math(name(key)), ", ".join([first, *within])
        else:
            yield math(name(key)), math(_listed(value))
    if problem.get("observations"):
        given = problem["observations"]
        text = given if isinstance(given, str) else f"{', '.join(given)} at given points"
        yield "observations", escape(str(text).rpartition("/")[2])
    if problem.get("exact") is not None:
        yield "exact solution", math(_whole(problem["exact"]))


def _initial(problem: Plain) -> Mapping[str, Any]:
    initial = problem.get("initial")
    if initial is None:
        return {}
    named = isinstance(initial, Mapping) and not {"file", "of"} & initial.keys()
    return initial if named else {"u": initial}


def _listed(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "<mo>,</mo>".join(mathml(entry) for entry in value)
    return _whole(value)


@dataclass(frozen=True)
class _Written:
    """How a field's conditions are written: its value, what passes, and what an outlet adds."""

    value: str
    flux: str
    outlet: str = ""


def _fields(equation: Plain) -> Mapping[str, _Written]:
    """By name how conditions on the equation's fields are written."""
    kind, bold = equation["kind"], '<mi mathvariant="bold">u</mi>'
    if kind == "elasticity":
        return {"": _Written(bold, f'<mi mathvariant="bold">σ</mi><mo>·</mo>{_NORMAL}')}
    if kind in ("navier_stokes", "stokes"):
        outlet = "<mo>,</mo><mi>p</mi><mo>=</mo><mn>0</mn>"
        return {"": _Written(bold, f"<msub><mo>∂</mo><mi>n</mi></msub>{bold}", outlet)}
    parts = equation.get("equations") or {"u": equation}
    several = len(parts) > 1
    return {
        field: _Written(name(field), _passing(part, name(field), f"_{field}" if several else ""))
        for field, part in parts.items()
    }


def _passing(equation: Plain, u: str, tail: str) -> str:
    """n . K grad u, without a K that is 1."""
    K = equation.get("K", 1.0)
    plain = isinstance(K, (int, float)) and K == 1 and not equation.get("energy")
    factor = "" if plain else name(f"K{tail}") if tail else "<mi>K</mi>"
    return f"{_NORMAL}<mo>·</mo>{factor}{_GRADIENT}{u}"


def _sides(boundary: Plain, fields: Mapping[str, _Written]) -> Iterator[tuple[str, str]]:
    """A line for each condition, with all sides on which it holds."""
    groups: dict[str, list[str]] = {}
    for side, condition in boundary.items():
        groups.setdefault(_condition(condition, fields), []).append(side)
    for shown, sides in groups.items():
        everywhere = len(sides) > 1 and len(groups) == 1 and set(sides) <= _SIDES
        yield ("on every side" if everywhere else f"on {escape(', '.join(sides))}"), shown


def _condition(condition: Plain, fields: Mapping[str, _Written]) -> str:
    if all(isinstance(each, Mapping) for each in condition.values()):
        own = [(fields[f], each) for f, each in condition.items() if f in fields]
        if own:
            return "; ".join(_of_field(each, written) for written, each in own)
    shown = dict.fromkeys(_of_field(condition, written) for written in fields.values())
    return "; ".join(shown)


def _of_field(condition: Plain, field: _Written) -> str:
    """One condition of one field."""
    u, flux, zero = field.value, field.flux, "<mo>=</mo><mn>0</mn>"
    if condition.get("dirichlet") is not None:
        return math(_given(u, condition["dirichlet"]))
    if condition.get("neumann") is not None:
        given = condition["neumann"]
        return math(f"{flux}{zero}{field.outlet}" if _is_zero(given) else _given(flux, given))
    if condition.get("robin") is not None:
        robin = condition["robin"]
        alpha = robin["alpha"]
        if isinstance(alpha, Mapping):
            first = (
                f"{mathml(alpha['normal'], product=True)}<mo>(</mo>{_along(u)}<mo>)</mo>{_NORMAL}"
            )
        elif isinstance(alpha, (list, tuple)):
            first = f"<mo>diag</mo><mo>(</mo>{_listed(alpha)}<mo>)</mo>{u}"
        else:
            first = f"{'' if alpha == 1 else mathml(alpha, product=True)}{u}"
        return math(f"{first}<mo>+</mo>{flux}<mo>=</mo>{_vector(robin.get('g', 0.0))}")
    if condition.get("contact") is not None:
        return math(f"{_along(u)}<mo>≤</mo>{_whole(condition['contact'])}") + ", pressed or free"
    return "waves leave" if condition.get("absorbing") else "periodic"


def _vector(value: Any) -> str:
    """A vector on a side: one coefficient, a list, or what its normal component is."""
    if isinstance(value, Mapping) and "normal" in value:
        return f"{mathml(value['normal'], product=True)}{_NORMAL}"
    return _whole(value)


def _along(u: str) -> str:
    """A vector's normal component."""
    return f"{_NORMAL}<mo>·</mo>{u}"


def _given(u: str, value: Any) -> str:
    """``u = value``; of a vector that is given in part ``u_y = 0``, component by component."""
    if isinstance(value, Mapping) and "normal" in value:
        return f"{u}<mo>=</mo>{_vector(value)}"
    if not isinstance(value, (list, tuple)):
        return f"{u}<mo>=</mo>{_whole(value)}"
    if None not in value:
        rest = all(_is_zero(entry) for entry in value)
        return f"{u}<mo>=</mo>{'<mn>0</mn>' if rest else _whole(value)}"
    known = [(axis, entry) for axis, entry in zip("xyz", value, strict=False) if entry is not None]
    parts = [f"<msub><mi>u</mi><mi>{axis}</mi></msub><mo>=</mo>{_whole(v)}" for axis, v in known]
    return "<mo>,</mo>".join(parts) or words("free")


def _table(rows: Mapping[str, str]) -> str:
    body = "".join(
        f'<tr><th>{key}</th><td><div class="wide">{value}</div></td></tr>'
        for key, value in rows.items()
    )
    return f'<table class="data">{body}</table>'


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
    text, binds = _piece(value)
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


def _piece(value: Any) -> Piece:
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
