"""``sciml converge``: the quantities of a spec on three grids or meshes, and what they tend to.

With q_1, q_2, q_3 on spacings h, h/2, h/4 the observed order is p = log2((q_1 - q_2)/(q_2 - q_3)),
the extrapolated value q_3 + (q_3 - q_2)/(2^p - 1), and the error of q_3 estimated by their
distance (Richardson 1911; Roache 1998). Where the differences do not fall like a power of h there
is no order, and the error is at least the last difference.

In time steps are refined together with the spacing, else what is left of theirs would pass for a
limit: a step that is given is halved, the tolerance of steps falls to a quarter, as the error of a
scheme of second order in space does. Steps that a CFL condition sets follow the
spacing themselves.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sciml import solvers
from sciml.app.modes import find, numbers
from sciml.app.output import heads, last
from sciml.app.read import explain
from sciml.app.run import Setting, answer, describe, extent
from sciml.app.spec import Spec
from sciml.core.disk import atomic_write, write_json
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh, refined
from sciml.core.problem.place import discrete
from sciml.core.run.eigenmodes import Eigenmodes
from sciml.solvers.auto import Auto, choose_for
from sciml.solvers.time.etdrk4 import ETDRK4
from sciml.solvers.time.march import Integrator

LEVELS = 3
FILE = "converge"
_ROUNDED = 1e-9  # of the largest value: solvers stop near there
HEAD = ("quantity", "coarse", "finer", "finest", "order", "extrapolated", "error", "published")


@dataclass(frozen=True)
class Trend:
    """A quantity on three levels, and what follows; None where it follows no power of h.

    ``published``: what others report, or None.
    """

    name: str
    values: tuple[float, ...]
    published: float | None = None

    @property
    def _differences(self) -> tuple[float, float, float]:
        """The two differences, and what is rounding beside them."""
        first, second = self.values[0] - self.values[1], self.values[1] - self.values[2]
        return first, second, _ROUNDED * max(abs(v) for v in self.values)

    @property
    def order(self) -> float | None:
        """The observed order."""
        first, second, noise = self._differences
        if not abs(second) > noise or not first / second > 1:
            return None
        return math.log2(first / second)

    @property
    def why(self) -> str:
        """The reason where there is no order, or ""."""
        first, second, noise = self._differences
        if self.order is not None:
            return ""
        if not all(map(math.isfinite, self.values)):
            return "it cannot be told on every level"
        if abs(second) <= noise:
            told = "all levels" if abs(first) <= noise else "the two finer levels"
            return f"{told} agree but for rounding: nothing is left to be refined away"
        if abs(first) <= noise:
            return (
                f"only the finest level differs, by {abs(second):.2g}: the first two are too coarse"
            )
        if first * second < 0:
            return (
                f"its differences change sign, {-first:+.2g} then {-second:+.2g}: it is not yet "
                "where errors fall like a power of the spacing"
            )
        return (
            f"its differences do not fall, {-first:+.2g} then {-second:+.2g}: it has no limit, as "
            "the stress at a sharp corner, or the first level is too coarse"
        )

    @property
    def extrapolated(self) -> float | None:
        """The limit."""
        if self.order is None:
            return None
        return self.values[2] + (self.values[2] - self.values[1]) / (2**self.order - 1)

    @property
    def error(self) -> float:
        """Estimated, of the value on the finest level."""
        if self.extrapolated is None:
            return abs(self.values[2] - self.values[1])
        return abs(self.extrapolated - self.values[2])


def levels(spec: Spec) -> Iterator[Grid | Mesh]:
    """The grid or mesh of a spec, then with half and a quarter of its spacing."""
    on = discrete(spec.on)
    for _ in range(LEVELS):
        yield on
        if isinstance(on, Mesh):
            on = refined(on)
        else:
            nodes = on.centring == "node"
            on = replace(on, shape=tuple(2 * n - 1 if nodes else 2 * n for n in on.shape))


def converge(
    spec: Spec, setting: Setting, told: Callable[[str], None] = lambda line: None
) -> tuple[list[Trend], list[float]]:
    """The quantities on three levels, and the seconds that each took; of a time the last frame's.

    Raises InputError for a spec without quantities, SolveError where a level is not solved.
    """
    if spec.modes is not None and (spec.output is None or not spec.output.quantities):
        return _of_modes(spec, setting, told)
    if spec.output is None or not spec.output.quantities:
        raise InputError(
            explain(InputError("give output: {quantities: ...}, the numbers to follow"), spec)
        )
    found: dict[str, list[float]] = {name: [] for name in spec.output.quantities}
    seconds = []
    for level, on in enumerate(levels(spec)):
        told(f"on {extent(on)}")
        result = answer(placed_on(refined_in_time(spec, level), on), setting)
        if not result.solution.status.success:
            raise SolveError(f"on {extent(on)}: {result.solution.status}")
        assert result.measured is not None
        for name, m in result.measured.quantities.items():
            value = last(m, result.solution)
            if value.numel() != 1:
                raise InputError("converge is of one problem; this spec is a batch")
            if torch.as_tensor(value).is_complex():
                raise InputError(
                    f"'{name}' is complex: an order is of a number, such as its abs, real or imag",
                    f"output.quantities.{name}",
                )
            found[name].append(float(torch.as_tensor(value).detach()))
        seconds.append(sum(result.seconds.values()))
    trends = [
        Trend(heads(spec)[name], tuple(values), spec.output.quantities[name].published)
        for name, values in found.items()
    ]
    return trends, seconds


def _of_modes(
    spec: Spec, setting: Setting, told: Callable[[str], None]
) -> tuple[list[Trend], list[float]]:
    """The same of eigenvalues, or frequencies where there are."""
    assert spec.modes is not None
    found, seconds = [], []
    for on in levels(spec):
        told(f"on {extent(on)}")
        found.append(modes_of(spec, setting, on))
        seconds.append(found[-1].seconds)
    return trends_of_modes(spec, found), seconds


def modes_of(spec: Spec, setting: Setting, on: Grid | Mesh) -> Eigenmodes:
    """The modes on a place; SolveError where they are not found, InputError for a batch."""
    found = find(spec, setting, on=on)
    if not found.status.success:
        raise SolveError(f"on {extent(on)}: {found.status}")
    if found.values.ndim > 1:
        raise InputError("converge is of one problem; this spec is a batch")
    return found


def trends_of_modes(spec: Spec, found: Sequence[Eigenmodes]) -> list[Trend]:
    """A trend for every mode, from those on three levels, or on one alone."""
    assert spec.modes is not None
    letter = "lambda" if found[0].frequencies is None else "frequency"
    rows = torch.stack([numbers(modes) for modes in found]).T.tolist()
    known = [*spec.modes.published, *(None for _ in rows)]
    return [
        Trend(f"{letter}_{k + 1}", tuple(row if len(row) == LEVELS else row * LEVELS), value)
        for k, (row, value) in enumerate(zip(rows, known, strict=False))
    ]


def _steps(spec: Spec) -> dict[str, tuple[float, float]]:
    """The options of the solver that rule its steps: their values, and their share a level on."""
    solver, problem = spec.solver, spec.problem
    if problem.time is None:
        return {}
    found, chosen = {}, solver
    if isinstance(solver, Auto):
        chosen = getattr(solvers, choose_for(problem, spec.on)[0])()
    step = getattr(solver, "step", None)
    if step is not None:
        found["step"] = step, 0.5
    if isinstance(chosen, (Integrator, ETDRK4)):
        found["rtol"] = chosen.rtol if solver.rtol is None else solver.rtol, 0.25
    return found


def refined_in_time(spec: Spec, level: int) -> Spec:
    """The spec with the steps in time of a finer level."""
    changed: Any = {name: value * share**level for name, (value, share) in _steps(spec).items()}
    return replace(spec, solver=replace(spec.solver, **changed)) if level else spec


def refinement(spec: Spec) -> str:
    """What is refined from level to level, in words."""
    told = ["each level halves the spacing"]
    for name, (value, share) in _steps(spec).items():
        told.append(f"{name} from {value:g} to {value * share ** (LEVELS - 1):.3g}")
    if len(told) == 1 and spec.problem.time is not None:
        told.append("steps in time as they follow from it")
    return "; ".join(told)


def placed_on(spec: Spec, on: Grid | Mesh) -> Spec:
    """The spec on another grid or mesh."""
    if isinstance(on, Grid):
        return replace(spec, grid=on)
    moved = replace(spec)
    moved.__dict__["on"] = on
    return moved


def write(
    trends: Sequence[Trend], spec: Spec, seconds: Sequence[float], folder: Path
) -> list[Path]:
    """``converge.csv``, ``converge.json`` and ``converge.png``; the paths.

    The picture has for every quantity the error against the spacing, where there is no order the
    differences between the levels.
    """
    from sciml.app.figures import plot_errors

    folder.mkdir(parents=True, exist_ok=True)
    table, data, picture = (folder / f"{FILE}.{tail}" for tail in ("csv", "json", "png"))
    told = [extent(on) for on in levels(spec)]
    with atomic_write(table) as temporary, open(temporary, "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([HEAD[0], *told, *HEAD[4:], "why no order"])
        for t in trends:
            lines.writerow(
                [t.name, *t.values, t.order, t.extrapolated, t.error, t.published, t.why]
            )
    quantities = {
        t.name: {
            "values": [_finite(v) for v in t.values],
            "order": t.order,
            "why": t.why,
            "extrapolated": t.extrapolated,
            "error": _finite(t.error),
            "published": t.published,
        }
        for t in trends
    }
    write_json(
        data,
        {
            "format": "sciml converge 1",
            "description": describe(spec),
            "levels": told,
            "refinement": refinement(spec),
            "seconds": list(seconds),
            "quantities": quantities,
        },
    )
    plot_errors({t.name: (t.values, t.extrapolated, t.order) for t in trends}, picture)
    return [table, data, picture]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rows(trends: Sequence[Trend]) -> list[list[str]]:
    """The table for a terminal."""
    return [
        [
            t.name,
            *(f"{v:.7g}" for v in t.values),
            "-" if t.order is None else f"{t.order:.2f}",
            "-" if t.extrapolated is None else f"{t.extrapolated:.7g}",
            f"{t.error:.1e}",
            "" if t.published is None else f"{t.published:g}",
        ]
        for t in trends
    ]
