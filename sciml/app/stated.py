"""What was solved, as HTML with MathML, from a problem's plain data: a record needs no more.

Of the coefficient form only what is not zero is shown; a coefficient too long to stand in the
equation gets a line of its own below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from sciml.app.formula import (
    MINUS,
    cases,
    fenced,
    math,
    mathml,
    matrix,
    name,
    number,
    terms,
    vector,
    words,
)

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
    return len(domain["lower"]) if domain else None


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
    elif kind == "navier_stokes":
        _flow(sheet, equation)
    elif kind == "helmholtz":
        _waves(sheet, equation)
    elif kind == "elasticity":
        _solid(sheet, equation)
    else:
        _coefficient_form(sheet, equation, name("u"), dimension, "")


def _coefficient_form(
    sheet: _Sheet, equation: Plain, u: str, dimension: int | None, tail: str
) -> None:
    """``m u_tt + d u_t - div(K grad u) + b . grad u + c u + ... = f``, zeros left out."""
    if equation.get("energy"):
        integral = f"<mo>∫</mo>{mathml(equation['energy'], product=True)}<mi>d</mi><mi>x</mi>"
        sheet.equations.append(_line([f"{u}{words(' makes ')}{integral}{words(' stationary')}"]))
        return
    found: list[str] = []
    for key, axes in (("m", "tt"), ("d", "t")):
        value = equation.get(key, 0.0)
        if not _is_zero(value):
            _add(found, sheet.factor(f"{key}{tail}", value), _derivative(axes, u))
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
    source = equation.get("f", 0.0)
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


def _flow(sheet: _Sheet, equation: Plain) -> None:
    u, p = '<mi mathvariant="bold">u</mi>', "<mi>p</mi>"
    carried = f"{fenced(f'{u}<mo>·</mo>{_GRADIENT}')}{u}"
    nu = sheet.factor("nu", equation["viscosity"])
    force = ""
    if equation.get("force"):
        sheet.define("F", equation["force"])
        force = f"<mo>+</mo>{name('F')}"
    line = (
        f"{_derivative('t', u)}<mo>+</mo>{carried}<mo>=</mo>{MINUS}{_GRADIENT}{p}"
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
    sheet.definitions.append(f"<p>plane {escape(str(equation.get('plane', 'strain')))} in 2-D</p>")


def _data(problem: Plain) -> Iterator[tuple[str, str]]:
    """Name and HTML of every further line: where, when, on the boundary, from where."""
    domain, time = problem.get("domain"), problem.get("time")
    if domain:
        intervals = [
            fenced(f"{number(a)}<mo>,</mo>{number(b)}")
            for a, b in zip(domain["lower"], domain["upper"], strict=True)
        ]
        cube = len(intervals) > 3 and len(set(intervals)) == 1
        power = f"<msup><mrow>{intervals[0]}</mrow><mn>{len(intervals)}</mn></msup>"
        yield "domain", math(power if cube else "<mo>×</mo>".join(intervals))
    if problem.get("obstacle"):
        yield "without", math(mathml(problem["obstacle"]["inside"]))
        yield "on its rim", _condition(problem["obstacle"]["boundary"])
    if time:
        start = number(time.get("start", 0.0))
        yield "time", math(f"{start}<mo>≤</mo><mi>t</mi><mo>≤</mo>{number(time['end'])}")
    yield from _sides(problem.get("boundary", {}))
    for unknown, value in _initial(problem).items():
        yield f"{math(name(unknown))} at the start", math(_whole(value))
    for key, value in (problem.get("parameters") or {}).items():
        if isinstance(value, Mapping) and "unknown" in value:
            yield math(name(key)), f"to be found, from {math(number(value['unknown']))}"
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


def _sides(boundary: Plain) -> Iterator[tuple[str, str]]:
    """A line for each condition, with all sides on which it holds."""
    groups: dict[str, list[str]] = {}
    for side, condition in boundary.items():
        groups.setdefault(_condition(condition), []).append(side)
    for shown, sides in groups.items():
        everywhere = len(sides) > 1 and len(groups) == 1 and set(sides) <= _SIDES
        yield ("on every side" if everywhere else f"on {escape(', '.join(sides))}"), shown


def _condition(condition: Plain) -> str:
    flux = f"{_NORMAL}<mo>·</mo><mi>K</mi>{_GRADIENT}<mi>u</mi>"
    if condition.get("dirichlet") is not None:
        return math(f"<mi>u</mi><mo>=</mo>{_whole(condition['dirichlet'])}")
    if condition.get("neumann") is not None:
        return math(f"{flux}<mo>=</mo>{_whole(condition['neumann'])}")
    if condition.get("robin") is not None:
        robin = condition["robin"]
        alpha = robin["alpha"]
        factor = "" if alpha == 1 else mathml(alpha, product=True)
        return math(f"{factor}<mi>u</mi><mo>+</mo>{flux}<mo>=</mo>{_whole(robin.get('g', 0.0))}")
    return "waves leave" if condition.get("absorbing") else "periodic"


def _table(rows: Mapping[str, str]) -> str:
    body = "".join(
        f'<tr><th>{key}</th><td><div class="wide">{value}</div></td></tr>'
        for key, value in rows.items()
    )
    return f'<table class="data">{body}</table>'
