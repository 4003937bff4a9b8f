"""``sciml modes``: the modes of a spec, in a table, a figure and files.

The table has for every mode its eigenvalue lambda, where lambda = (2 pi f)^2 the frequency f, the
bounds of the discrete problem's own, how far the equation is met, and how many there are of it.
``~2`` are two values within a thousandth of each other: a multiple eigenvalue that a mesh splits
looks like that, and so do two that differ by little; which it is a finer mesh tells.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sciml.app import record
from sciml.app.figures_derived import plot_modes
from sciml.app.formula import statement
from sciml.app.output import check_labels
from sciml.app.read import explain
from sciml.app.report import (
    columns_table,
    document,
    drawn,
    facts_table,
    figure,
    heading,
    notes_list,
    section,
    setting,
    verdict,
)
from sciml.app.run import REPORT, Setting, extent
from sciml.app.spec import Modes, Spec
from sciml.core.algebra.pencil import Pencil
from sciml.core.disk import atomic_write, write_text
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.place import discrete
from sciml.core.run.eigenmodes import Eigenmodes
from sciml.core.run.files import save_modes
from sciml.core.run.labels import unit_of
from sciml.core.run.status import Doubt
from sciml.discretization import pencil
from sciml.solvers.eigen.lobpcg import LOBPCG
from sciml.solvers.eigen.modes import eigenmodes, most_modes

TABLE, FIGURE = "modes.csv", "modes.png"
_CERTAIN = "no eigenvalue below the last bound is missed: they were counted"
_UNCERTAIN = "lower bounds hold if no eigenvalue below them was missed: there are too many to count"


def find(
    spec: Spec,
    chosen: Setting,
    count: int | None = None,
    on: Grid | Mesh | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Eigenmodes:
    """The modes of a spec, on another place where one is given; InputErrors name file and line."""
    wanted = Modes() if spec.modes is None else spec.modes
    _check(chosen)
    try:
        check_labels(spec)
        place = discrete(spec.on) if on is None else on
        with torch.device(chosen.device):
            return eigenmodes(
                spec.problem,
                place,
                wanted.count if count is None else count,
                LOBPCG(rtol=wanted.rtol, seed=chosen.seed),
                throw=False,
                progress=progress,
            )
    except InputError as fault:
        raise _placed(fault, spec, count) from None


def checked(spec: Spec, chosen: Setting) -> tuple[Pencil, int]:
    """What ``find`` starts from, and its unknowns; refuses what that would refuse."""
    assert spec.modes is not None
    _check(chosen)
    try:
        check_labels(spec)
        posed = pencil(spec.problem, discrete(spec.on))
        return posed, most_modes(next(posed.samples()), spec.modes.count)
    except InputError as fault:
        raise _placed(fault, spec) from None


def _check(chosen: Setting) -> None:
    if chosen.dtype != "float64":
        raise InputError("--dtype float32 is for steady linear problems; modes need float64")


def _placed(fault: InputError, spec: Spec, count: int | None = None) -> InputError:
    if fault.key != "count":
        return InputError(explain(fault, spec))
    if count is not None:
        return InputError(f"--count: {fault.message}")
    return InputError(explain(InputError(fault.message, "modes.count"), spec))


def describe(spec: Spec, count: int | None = None) -> str:
    """One line: what the modes are of."""
    wanted = (Modes() if spec.modes is None else spec.modes).count if count is None else count
    title = " ".join(spec.problem.name.split()) or Path(spec.path).stem
    kind = spec.problem.equation.kind
    return f"{title}: {wanted} modes of {kind} on {extent(discrete(spec.on))}"


def numbers(found: Eigenmodes) -> torch.Tensor:
    """What is published of modes: frequencies where there are, else eigenvalues."""
    frequencies = found.frequencies
    return found.values if frequencies is None else frequencies


def recorded(
    found: Eigenmodes, spec: Spec, chosen: Setting, overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """What ``run.json`` says of them."""
    return record.of_spec(
        record.MODES,
        spec,
        title=spec.problem.name or Path(spec.path).stem,
        description=describe(spec, found.values.shape[-1]),
        overrides=overrides,
        device=chosen.device,
        dtype=chosen.dtype,
        seed=chosen.seed,
        notes=found.notes,
        doubts=[str(note) for note in found.notes if isinstance(note, Doubt)],
        status=found.status.name.lower(),
        advice=found.status.value,
        statuses=[status.name.lower() for status in found.statuses],
        values=found.values.tolist(),
        frequencies=None if found.frequencies is None else found.frequencies.tolist(),
        bounds=_finite(found.bounds.tolist()),
        residuals=found.residuals.tolist(),
        multiplicities=found.multiplicities.tolist(),
        near=found.groups.tolist(),
        counted=found.counted.tolist(),
        iterations=found.iterations.tolist(),
        seconds={"modes": found.seconds},
    )


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if math.isfinite(value) else None


def table(summary: Mapping[str, Any]) -> list[list[str]]:
    """The head and a row for every mode, from the record; of a batch sample by sample."""
    labels = summary["spec"].get("labels") or {}
    oscillates = summary["frequencies"] is not None
    unit = (labels.get("frequency") or {}).get("unit")
    frequency = [f"frequency ({unit})" if unit else "frequency"] if oscillates else []
    published = (summary["spec"].get("modes") or {}).get("published") or []
    batch = isinstance(summary["values"][0], list)
    head = [
        *(["sample"] if batch else []),
        *("mode", "eigenvalue", *frequency, "at least", "at most", "residual", "multiplicity"),
        *(["published"] if published else []),
    ]
    rows = []
    for index in _places(summary["values"]):
        value, low_high, residual, times, near = (
            _at(summary[name], index)
            for name in ("values", "bounds", "residuals", "multiplicities", "near")
        )
        number = index[-1]
        known = published[number] if number < len(published) else None
        rows.append(
            [
                *([", ".join(map(str, index[:-1]))] if batch else []),
                str(number + 1),
                f"{value:.10g}",
                *([f"{_at(summary['frequencies'], index):.8g}"] if oscillates else []),
                *("-" if end is None else f"{end:.10g}" for end in low_high),
                f"{residual:.1e}",
                f"{times}" if near <= times else f"~{near}",
                *([_beside(summary, index, known)] if published else []),
            ]
        )
    return [head, *rows]


def _beside(summary: Mapping[str, Any], index: tuple[int, ...], known: float | None) -> str:
    """A published value, and how far ours is from it."""
    if known is None:
        return ""
    name = "values" if summary["frequencies"] is None else "frequencies"
    ours = _at(summary[name], index)
    return f"{known:.8g} ({100 * (ours / known - 1):+.2g} %)" if known else f"{known:g}"


def _places(values: Any) -> list[tuple[int, ...]]:
    if not isinstance(values, list):
        return [()]
    return [(k, *rest) for k, entry in enumerate(values) for rest in _places(entry)]


def _at(values: Any, index: Sequence[int]) -> Any:
    for k in index:
        values = values[k]
    return values


def facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """What holds for all of them, by name."""
    counted = all(_flat(summary["counted"]))
    return {
        "status": summary["status"].replace("_", " "),
        "bounds": _CERTAIN if counted else _UNCERTAIN,
        "iterations": str(max(_flat(summary["iterations"]))),
        "time": ", ".join(f"{name} {value:.3g} s" for name, value in summary["seconds"].items()),
    }


def _flat(values: Any) -> list[Any]:
    return [v for entry in values for v in _flat(entry)] if isinstance(values, list) else [values]


def write(
    found: Eigenmodes,
    spec: Spec,
    chosen: Setting,
    folder: Path,
    overrides: Iterable[str] = (),
) -> tuple[dict[str, Any], list[Path]]:
    """Write the modes, their record and table, the figure and the report; the record and paths."""
    summary = recorded(found, spec, chosen, overrides)
    try:
        paths = [*save_modes(found, folder)]
        summary["hashes"] = record.hashes(folder, paths[0].name)
        record.write(folder, summary)
        paths.append(_write_table(folder / TABLE, found))
    except OSError as error:
        raise InputError(f"cannot write to '{folder}': {error.strerror or error}") from None
    unit = unit_of(spec.labels, "frequency")
    note = drawn(folder / FIGURE, lambda path: plot_modes(found, path, summary["title"], unit))
    if note is not None:
        summary = {**summary, "notes": [*summary["notes"], note]}
        record.write(folder, summary)
    write_text(folder / REPORT, html(summary, folder / FIGURE))
    return summary, [*paths, folder / FIGURE, folder / record.FILE, folder / REPORT]


def _write_table(path: Path, found: Eigenmodes) -> Path:
    """All digits of what the console shows, as CSV."""
    lead = found.values.ndim - 1
    frequencies = found.frequencies
    columns = {
        "eigenvalue": found.values,
        **({} if frequencies is None else {"frequency": frequencies}),
        "at_least": found.bounds[..., 0],
        "at_most": found.bounds[..., 1],
        "residual": found.residuals,
        "multiplicity": found.multiplicities,
        "near": found.groups,
    }
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(["sample"] if lead else []), "mode", *columns])
        count = found.values.shape[-1]
        flat = [values.detach().reshape(-1).tolist() for values in columns.values()]
        for k, row in enumerate(zip(*flat, strict=True)):
            writer.writerow([*([k // count] if lead else []), k % count + 1, *row])
    return path


def html(summary: Mapping[str, Any], picture: Path) -> str:
    """The report as one page."""
    head, *rows = table(summary)
    doubts = summary["doubts"]
    said = f"{summary['status'].replace('_', ' ').capitalize()}. {summary['advice']}"
    said = f"{said} But: {'; '.join(doubts)}." if doubts else said
    return document(
        summary["title"],
        [
            heading(summary["title"], summary["description"]),
            verdict(said, solved=summary["status"] == "converged", doubted=bool(doubts)),
            section("What has these modes", statement(summary["spec"]["problem"])),
            section("The modes", figure("Modes", picture), columns_table(head, rows)),
            section("How they were found", facts_table(facts(summary))),
            section("Notes", notes_list(summary["notes"])),
            section("The run", facts_table(setting(summary))),
        ],
    )
