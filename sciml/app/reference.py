"""``sciml bench reference``: published values beside ours, of the cases in ``configs/reference``.

Each case is a spec whose quantities have ``published:`` values; it is solved on three grids or
meshes (:mod:`sciml.app.converge`), which gives the observed order. Of a case with an exact solution
the error is a row, beside 0: its order is that of theory. Of a case with a ``sweep`` the
largest values over it are compared. Rows are kept in a JSON file as each case is done, from which
an interrupted run goes on: a case is solved anew where its spec has changed since.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import sciml
from sciml.app.converge import Trend, converge, modes_of, trends_of_modes
from sciml.app.output import last
from sciml.app.read import load_spec
from sciml.app.run import Setting, answer
from sciml.app.spec import Spec
from sciml.app.sweep import stated, sweep
from sciml.core.disk import digest, write_json
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.place import discrete

HEAD = ("case", "quantity", "ours", "extrapolated", "published", "difference", "order", "seconds")
# Of straight elements a finer mesh of the same polygon tends to the polygon's own answer; vortices
# have to be resolved before they are shed at all; solids, flows and mixtures take long where
# elements are halved twice; under a point that holds a solid it gives way by the logarithm of h;
# two fields that swing about each other take small steps.
_ONCE = (
    "cahn-hilliard",
    "dfg-2d1-elements",
    "dfg-2d2",
    "dfg-2d2-elements",
    "dfg-2d3-elements",
    "kirsch",
    "lame-block",
    "nafems-le1",
    "nafems-le10",
    "nafems-r0031-1",
    "neo-hookean",
    "schroedinger",
    "step",
)


def cases() -> list[Path]:
    """The specs; raises InputError where this is no checkout, but an installed package."""
    folder = Path(sciml.__file__).resolve().parents[1] / "configs" / "reference"
    found = sorted(folder.glob("*.yaml"))
    if not found:
        raise InputError("the reference cases are in the repository: run this in a checkout of it")
    return found


def reference(
    paths: Iterable[Path],
    kept: Path | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> Iterator[list[str]]:
    """A row for every quantity with a published value, as its case is done.

    ``kept``: a JSON file with the rows that were found before, and that takes the new ones.
    """
    known = _known(kept)
    for path in paths:
        mark = digest(path)
        if known.get(path.stem, {}).get("spec") != mark:
            told(path.stem)
            try:
                known[path.stem] = {"spec": mark, "rows": _rows(path)}
            except InputError as error:
                # That of a geometry where gmsh is not installed.
                yield [path.stem, "", error.message, *[""] * (len(HEAD) - 3)]
                continue
            if kept is not None:
                write_json(kept, {"cases": known})
        yield from known[path.stem]["rows"]


def _known(kept: Path | None) -> dict[str, Any]:
    if kept is None or not kept.is_file():
        return {}
    try:
        found = json.loads(kept.read_text("utf-8"))["cases"]
        return {str(case): {"spec": v["spec"], "rows": v["rows"]} for case, v in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"'{kept}' holds no rows of reference cases; name another file", "--out"
        ) from None


def _rows(path: Path) -> list[list[str]]:
    spec, start = load_spec(path), time.perf_counter()
    try:
        trends = _followed(spec, path.stem)
    except SolveError as error:
        return [[path.stem, "", str(error).partition(":")[0], *[""] * (len(HEAD) - 3)]]
    seconds = time.perf_counter() - start
    return [_row(path.stem, trend, seconds) for trend in trends if trend.published is not None]


def _followed(spec: Spec, case: str) -> list[Trend]:
    """The quantities of a case; raises SolveError where it is not solved."""
    if spec.modes is not None and case in _ONCE:
        return trends_of_modes(spec, [modes_of(spec, Setting(), discrete(spec.on))])
    if spec.modes is not None:
        return converge(spec, Setting())[0]
    assert spec.output is not None
    if spec.sweep is not None:
        extremes = sweep(spec, *stated(spec, (), None), Setting()).extremes()
        return [
            Trend(name, (extremes[name][1][0],) * 3, value)
            for name, value in spec.sweep.published.items()
        ]
    if case not in _ONCE:
        return converge(spec, Setting())[0]
    result = answer(spec, Setting())
    if not result.solution.status.success:
        raise SolveError(str(result.solution.status))
    assert result.measured is not None
    return [
        Trend(
            name, (float(last(found, result.solution)),) * 3, spec.output.quantities[name].published
        )
        for name, found in result.measured.quantities.items()
    ]


def _row(case: str, trend: Trend, seconds: float) -> list[str]:
    limit = trend.values[-1] if trend.extrapolated is None else trend.extrapolated
    assert trend.published is not None
    apart = limit / trend.published - 1 if trend.published else trend.values[-1]
    return [
        case,
        trend.name,
        f"{trend.values[-1]:.6g}",
        "" if trend.extrapolated is None else f"{limit:.6g}",
        f"{trend.published:.6g}",
        f"{100 * apart:+.2g} %",
        "" if trend.order is None else f"{trend.order:.2f}",
        f"{seconds:.2g}",
    ]
