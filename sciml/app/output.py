"""What a spec asks for under ``output:``: checked before the solve, measured after, and written.

``quantities.csv`` has a row for every sample and frame, ``probes.csv`` the fields at the probes, in
time at every step of a solver that shows its steps, and then the quantities that are taken over
time too; ``line-NAME.csv`` has the fields along a line. Columns have the names and units that
``labels:`` gives.
"""

from __future__ import annotations

import csv
import inspect
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from sciml.app.spec import Spec
from sciml.core.disk import GrowingFile, atomic_write, vouched
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import derives, measures
from sciml.core.problem.expression import CONSTANTS, FUNCTIONS, names_in
from sciml.core.problem.grid import AXES, Grid, Points, axis_names
from sciml.core.problem.mesh import Mesh, inside
from sciml.core.problem.place import discrete
from sciml.core.problem.reader import NORMAL, Compiled, Context, Unknown, compile, state_names
from sciml.core.run.derived import Derivation
from sciml.core.run.frames import fingerprint, lineage_of
from sciml.core.run.labels import Label, Labels, called, named, unit_of
from sciml.core.run.quantities import Line, Measure, Measurement, Output, Prepare, Quantity
from sciml.core.run.series import over_time
from sciml.core.run.solution import Solution, by_function, check_time, measured_by
from sciml.discretization.elements.elasticity import STRESSES

QUANTITIES, PROBES, LINE = "quantities.csv", "probes.csv", "line-{}.csv"
_SHOWN = 6  # values of a batch are printed, more as their range
# Of which derived field a component is, whose unit it has.
_PART_OF = {
    **dict.fromkeys(("qx", "qy", "qz"), ("flux",)),
    **dict.fromkeys(STRESSES, ("stress",)),
    **dict.fromkeys(("s1", "s2", "s3"), ("principal_stress", "stress")),
}
_SAME = 1e-9  # of the time passed: instants that differ by less, by rounding, are the same


@dataclass(frozen=True)
class Measured:
    """What came of the quantities, by name, and of probes and lines, by name and field.

    ``lines``: each with the coordinates of its points (n, d). ``notes``: what they do not tell.
    """

    quantities: Mapping[str, Measurement]
    probes: Mapping[str, Mapping[str, torch.Tensor]]
    lines: Mapping[str, tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
    notes: tuple[str, ...] = ()


class Asked:
    """How what a spec asks for is measured, prepared once for each place that an answer comes on.

    A flow is told on the cells of a grid of nodes.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._prepares: list[tuple[Grid | Mesh | Points, Prepare]] = []
        self._looks: dict[tuple[int, str, Any], Measure] = {}

    def look(self, on: Grid | Mesh | Points, quantity: Quantity, key: str) -> Measure:
        """How a quantity is measured; raises InputError, with its key, for what means nothing."""
        known = [place for place, _ in self._prepares]
        if on not in known:
            problem = self.spec.problem
            prepare = measures.look_up(problem.equation, type(on))(problem, on)
            self._prepares.append((on, prepare))
            known.append(on)
        number = known.index(on)
        wanted = number, key, quantity.of
        if wanted not in self._looks:
            self._looks[wanted] = self._prepares[number][1](quantity, key)
        return self._looks[wanted]

    def found(self, solution: Solution, quantity: Quantity, key: str) -> Measurement:
        """What a quantity of an answer comes to."""
        on = self.spec.on if solution.on is None else solution.on
        if by_function(solution, quantity):
            problem = self.spec.problem
            of_function = measures.look_up(problem.equation, Points)
            look: Measure = of_function(problem, on, solution.function)(quantity, key)
        else:
            look = self.look(on, quantity, key)
        return measured_by(look, solution, quantity)

    def probe(
        self, on: Grid | Mesh | Points, name: str, point: tuple[float, ...], field: str
    ) -> Measure:
        """How a field is measured at a probe."""
        key = f"output.probes.{name}"
        try:
            return self.look(on, Quantity(at=point, of=field), key)
        except InputError as error:
            raise InputError(error.message, key) from None


def check(spec: Spec) -> Asked:
    """How all is measured; InputError, with its key, for what cannot be. Nothing is solved."""
    check_labels(spec)
    asked = Asked(spec)
    if spec.output is None:
        return asked
    if spec.output.animation and spec.problem.time is None:
        raise InputError("this problem has no time, so that nothing moves", "output.animation")
    if spec.output.fields:
        known = _derivations(spec)
        for k, name in enumerate(spec.output.fields):
            if name not in known:
                raise InputError(
                    f"there is no derived field '{name}'{did_you_mean(name, known)}",
                    f"output.fields.{k}",
                )
    if not (spec.output.quantities or spec.output.probes or spec.output.lines):
        return asked
    on, given, guess = spec.on, spec.problem.parameters, asked
    if any(isinstance(p, Unknown) for p in given.values()):
        guessed = {n: p.unknown if isinstance(p, Unknown) else p for n, p in given.items()}
        guess = Asked(replace(spec, problem=replace(spec.problem, parameters=guessed)))
    assert spec.output is not None
    _check_names(spec)
    before: list[str] = []
    for name, quantity in spec.output.quantities.items():
        key = f"output.quantities.{name}"
        if quantity.formula is not None:
            _formula(quantity.formula, before, key)
        else:
            check_time(spec.problem, quantity, key)
            guess.look(on, quantity, key)
        before.append(name)
    for name, point in spec.output.probes.items():
        for field in _fields(spec):
            guess.probe(on, name, point, field)
    for name, line in spec.output.lines.items():
        for end, point in (("start", line.start), ("end", line.end)):
            key = f"output.lines.{name}.{end}"
            try:
                guess.look(on, Quantity(at=point), key)
            except InputError as error:
                raise InputError(error.message, key) from None
        for k, what in enumerate(line.of):
            key = f"output.lines.{name}.of.{k}"
            try:
                guess.look(on, Quantity(at=line.start, of=what), key)
            except InputError as error:
                raise InputError(error.message, key) from None
    return asked


def _check_names(spec: Spec) -> None:
    """Raise InputError for names that mean something else where quantities are named."""
    assert spec.output is not None
    fields, axes = _fields(spec), axis_names(len(spec.on.coordinates()))
    taken = dict.fromkeys(CONSTANTS, "of a constant") | dict.fromkeys(FUNCTIONS, "of a function")
    taken |= dict.fromkeys(spec.problem.parameters, "of a parameter")
    taken |= dict.fromkeys((*axes, "t"), "of a coordinate")
    taken |= dict.fromkeys(state_names(fields, axes), "of a field or of its slope")
    asked = spec.output
    named = {"quantities": asked.quantities, "probes": asked.probes, "lines": asked.lines}
    for kind, entries in named.items():
        for name in entries:
            if name in taken:
                raise InputError(
                    f"'{name}' is the name {taken[name]}; call it something else",
                    f"output.{kind}.{name}",
                )


def _fields(spec: Spec) -> tuple[str, ...]:
    """The names of the answer's fields."""
    problem = spec.problem
    return problem.equation.fields(len(spec.on.coordinates()), tuple(problem.first))


def _derivations(spec: Spec) -> Mapping[str, Derivation]:
    """Which fields follow from the answer, by name."""
    found: Mapping[str, Derivation] = derives.look_up(spec.problem.equation, type(spec.on))(
        spec.problem, spec.on
    )
    return found


def check_labels(spec: Spec) -> None:
    """Raise InputError for a label of what there is not, and where two things have one name."""
    if not spec.labels:
        return
    problem, on = spec.problem, spec.on
    d = len(on.coordinates())
    own = (*problem.equation.fields(d, tuple(problem.first)), *axis_names(d), "t")
    known = {*own, "K"}
    known |= {*problem.parameters, *(("frequency",) if spec.modes is not None else ())}
    if spec.output is not None:
        known |= {*spec.output.quantities, *spec.output.probes, *spec.output.lines}
    if derives.knows(problem.equation, type(on)):
        for name, how in _derivations(spec).items():
            known |= {name, *how.components}
    taken = {name: name for name in own if name not in spec.labels}
    for key, label in spec.labels.items():
        if key not in known:
            raise InputError(
                f"there is nothing called '{key}' here{did_you_mean(key, known)}; --set labels= "
                f"leaves all labels out, --set labels.{key}= this one",
                f"labels.{key}",
            )
        name = label.name or key
        if name in taken:
            raise InputError(
                f"'{taken[name]}' is called '{name}' too; give each its own name",
                f"labels.{key}.name",
            )
        taken[name] = key


class Steps:
    """What is asked for at every step of a run in time: a solver's ``observe``.

    Fields at probes, and quantities that are taken over time, are written to the table ``path`` as
    they come; without one they are kept alone. What a run before this one, which was killed, wrote
    of earlier times stays, as far as hashes vouch for it and it is of the same problem, place,
    solver and measurement. What else was before is unknown, NaN, and ``notes`` say so.
    """

    def __init__(self, asked: Asked, path: Path | None) -> None:
        self.asked, self.spec, self.path = asked, asked.spec, path
        self.columns: dict[str, Callable[[torch.Tensor, float], Measurement]] = {}
        self.rows: list[list[float]] = []
        self.batch: tuple[int, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.file: GrowingFile | None = None
        self._marks: list[str] = []

    def __call__(self, t: float, value: Callable[[], torch.Tensor]) -> None:
        """A row for every sample at time t."""
        whole = value()
        first = not self.columns
        if first:
            self.columns = self._looks(whole)
        found = [look(whole, t).value for look in self.columns.values()]
        if any(value.ndim for value in found):
            values = torch.stack(list(torch.broadcast_tensors(*found)), -1)
            self.batch = tuple(values.shape[:-1])
            rows = values.reshape(-1, len(found)).tolist()
        else:
            rows = [[value.item() for value in found]]
        if first and self.path is not None:
            self.file = self._opened(self.path, t)
        new = [[*([k] if self.batch else []), t, *row] for k, row in enumerate(rows)]
        self.rows += new
        if self.file is not None:
            self.file.append(_as_csv(new))

    def _looks(self, value: torch.Tensor) -> dict[str, Callable[..., Measurement]]:
        """How each column is measured, on the grid on which the solver has its values."""
        spec, on = self.spec, discrete(self.spec.on)
        assert spec.output is not None
        if isinstance(on, Grid) and tuple(value.shape[-len(on.shape) :]) != on.shape:
            on = on.cells
        fields, asked = _fields(spec), self.asked
        self.time = named(spec.labels, "t")
        stated = {
            _probe(name, field, fields, spec.labels): (
                Quantity(at=point, of=field),
                asked.probe(on, name, point, field),
            )
            for name, point in spec.output.probes.items()
            for field in fields
        } | {
            heads(spec)[name]: (quantity, asked.look(on, quantity, f"output.quantities.{name}"))
            for name, quantity in spec.output.quantities.items()
            if quantity.over_time is not None
        }
        of_run = lineage_of(spec.problem, on, spec.solver)
        # At a single instant it is one and the same, whatever is made of it over time.
        self._marks = [
            fingerprint(of_run, replace(quantity, over_time=None, after=None, published=None))
            for quantity, _ in stated.values()
        ]
        return {name: look for name, (_, look) in stated.items()}

    def series(self, name: str, after: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Times (n,) from ``after`` on, and a column's values then, (*batch, n)."""
        count, lead = math.prod(self.batch), bool(self.batch)
        place = lead + 1 + list(self.columns).index(heads(self.spec)[name])
        times = torch.tensor([row[lead] for row in self.rows[::count]], dtype=torch.float64)
        values = torch.tensor([row[place] for row in self.rows], dtype=torch.float64)
        values = values.reshape(-1, *self.batch).movedim(0, -1)
        assert self.spec.problem.time is not None
        begun = self.spec.problem.time.start if after is None else after
        if times[0] > begun + 1e-9 * (times[-1] - begun):
            # What was before was not looked at, by a run on which this one went on.
            values = torch.full_like(values, math.nan)
        kept = times >= (times[0] if after is None else after)
        return times[kept], values[..., kept]

    def _opened(self, path: Path, t: float) -> GrowingFile:
        head = [*(["sample"] if self.batch else []), self.time, *self.columns]
        before = self._before(path, t)
        self.rows = [[float(cell) for cell in row] for row in before]
        return GrowingFile(path, json.dumps(self._marks), _as_csv([head, *before]))

    def _before(self, path: Path, t: float) -> list[list[str]]:
        """The rows of earlier times, the columns being those of now."""
        assert self.spec.problem.time is not None
        start, lead = self.spec.problem.time.start, bool(self.batch) + 1
        if t <= start:
            return []
        mark, text = vouched(path)
        known = json.loads(mark) if mark else []
        places = [known.index(own) + lead if own in known else None for own in self._marks]
        new = [name for name, place in zip(self.columns, places, strict=True) if place is None]
        if new:
            damaged = ", since it is not as it was written" if path.is_file() and not mark else ""
            told = f"of {', '.join(new)} nothing is known before t = {t:g}{damaged}"
            self.notes += (f"{path.name}: {told}",)
        if len(new) == len(places):
            return []
        rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        near = _SAME * (t - start)
        found = [
            [*row[:lead], *("nan" if place is None else row[place] for place in places)]
            for row in rows
            if float(row[lead - 1]) < t - near
        ]
        if not any(abs(float(row[lead - 1]) - t) <= near for row in rows):
            last = float(found[-1][lead - 1]) if found else start
            told = f"between t = {last:g} and {t:g} rows are missing, or not as they were written"
            self.notes += (f"{path.name}: {told}",)
            lost = [str(t - 2 * near), *["nan"] * len(places)]
            samples = [[str(k)] for k in range(math.prod(self.batch))] if self.batch else [[]]
            found += [[*sample, *lost] for sample in samples]
        return found

    def close(self) -> None:
        """End of the run."""
        if self.file is not None:
            self.file.close()


def _as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _probe(name: str, field: str, fields: Sequence[str], labels: Labels) -> str:
    """The head of a probe's column: its name, of several fields that of the field too."""
    if len(fields) == 1:
        return named(labels, name, field)
    return f"{called(labels, name)}.{named(labels, field)}"


def watched(spec: Spec, kept: bool) -> bool:
    """Whether the solver shows its steps: to probes, where these are ``kept`` in a file, too."""
    if spec.output is None or spec.problem.time is None:
        return False
    over = any(quantity.over_time is not None for quantity in spec.output.quantities.values())
    asked = over or (kept and bool(spec.output.probes))
    return asked and "observe" in inspect.signature(spec.solver.run).parameters


def measured(solution: Solution, asked: Asked, steps: Steps | None = None) -> Measured:
    """Everything that is asked for; over time from ``steps``, or else from the frames."""
    output = asked.spec.output or Output()
    quantities: dict[str, Measurement] = {}
    for name, quantity in output.quantities.items():
        key = f"output.quantities.{name}"
        if quantity.formula is not None:
            found = _by_formula(quantity.formula, quantities, solution, key)
        elif quantity.over_time is not None and steps is not None and steps.rows:
            times, values = steps.series(name, quantity.after)
            found = over_time(quantity.over_time, times, values)
        else:
            found = asked.found(solution, quantity, key)
        quantities[name] = _of_every_sample(found, quantity, quantities, solution)
    probes = {
        name: {
            field: asked.found(
                solution, Quantity(at=point, of=field), f"output.probes.{name}"
            ).value
            for field in solution.fields
        }
        for name, point in output.probes.items()
    }
    lines = {name: along(solution, line) for name, line in output.lines.items()}
    notes = []
    for name, (places, fields) in lines.items():
        known = torch.stack([v.isfinite().reshape(-1, len(places)).any(0) for v in fields.values()])
        missing = int((~known.any(0)).sum())
        if missing and all(status.success for status in solution.statuses):
            notes.append(
                f"line {name}: {missing} of its {len(places)} points lie outside, where there is "
                "no answer: nan"
            )
    return Measured(quantities, probes, lines, tuple(notes))


def _of_every_sample(
    found: Measurement,
    quantity: Quantity,
    known: Mapping[str, Measurement],
    solution: Solution,
) -> Measurement:
    """Its value for every sample, and for every frame but where it is one over time."""
    batch = tuple(solution.residual.shape)
    frames = () if solution.times is None else (len(solution.times),)
    whole = quantity.over_time is not None
    if quantity.formula is not None:
        names = _formula(quantity.formula, tuple(known), "").names
        whole = all(known[name].value.ndim == len(batch) for name in names)
    return replace(
        found, value=torch.broadcast_to(found.value, (*batch, *(() if whole else frames)))
    )


def _formula(text: str, names: Sequence[str], key: str) -> Compiled:
    return compile(text, Context((), others=tuple(names)), f"{key}.formula")


def _by_formula(
    text: str, known: Mapping[str, Measurement], solution: Solution, key: str
) -> Measurement:
    """An expression of quantities; of some with frames and some without one for every frame."""
    read = _formula(text, tuple(known), key)
    depth = max((known[name].value.ndim for name in read.names), default=0)
    values = {
        name: v if v.ndim == depth else v[..., None]
        for name, v in ((name, known[name].value) for name in read.names)
    }
    why = next((f"{name}: {known[name].why}" for name in read.names if known[name].why), "")
    return Measurement(read.at((), values), why=why)


def last(measurement: Measurement, solution: Solution) -> torch.Tensor:
    """A quantity of every sample, in time of the last frame where it has one for each."""
    if measurement.value.ndim == solution.residual.ndim:
        return measurement.value
    return measurement.value[..., -1]


def along(solution: Solution, line: Line) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """The points of a line (n, d), and the fields there (*batch, [frames], n) by name."""
    start, end = (torch.tensor(p, dtype=torch.float64) for p in (line.start, line.end))
    places = start + torch.linspace(0, 1, line.points, dtype=torch.float64)[:, None] * (end - start)
    if line.of:
        return places, {what: _between_nodes(solution, places, what) for what in line.of}
    values = _between_nodes(solution, places)
    several = len(solution.fields) > 1
    parts = values.unbind(-2) if several else (values,)
    return places, dict(zip(solution.fields, parts, strict=True))


def labelled_along(labels: Labels, what: Sequence[str]) -> Labels:
    """The labels, with the units that components have from the derived fields they are of."""
    units = {name: unit_of(labels, name, *_PART_OF.get(name, ())) for name in what}
    return {**labels, **{n: Label(called(labels, n), unit) for n, unit in units.items() if unit}}


def _between_nodes(
    solution: Solution, places: torch.Tensor, what: str | None = None
) -> torch.Tensor:
    """The fields, or an expression, at places, NaN where there is no answer."""
    if not isinstance(solution.on, Mesh):
        return solution.sample(places, what)
    there = inside(solution.on, places)
    some = solution.sample(places[there], what)
    values = some.new_full((*some.shape[:-1], len(places)), math.nan)
    values[..., there] = some
    return values


def recorded(found: Measured | None) -> dict[str, Any]:
    """The quantities, and the fields at probes, as plain data, for ``run.json``."""
    if found is None:
        return {"quantities": {}, "probes": {}}
    probes = {
        name: {field: _plain_numbers(values) for field, values in fields.items()}
        for name, fields in found.probes.items()
    }
    return {"quantities": _recorded(found), "probes": probes}


def _recorded(found: Measured) -> dict[str, Any]:
    return {
        name: {"value": _plain_numbers(m.value)}
        | ({} if m.place is None else {"at": m.place.tolist()})
        | ({} if m.error is None else {"error": _plain_numbers(m.error)})
        | ({"why": m.why or _NO_NUMBER} if _untold(m.value) else {})
        for name, m in found.quantities.items()
    }


_NO_NUMBER = "it divides by zero, or is a root or a logarithm of what has none"


def _untold(values: torch.Tensor) -> bool:
    return not bool(values.detach().isfinite().all())


def _plain_numbers(values: torch.Tensor) -> Any:
    """Numbers as lists, complex ones as texts, None for what is none."""
    if values.ndim == 0:
        number = values.detach().item()
        if isinstance(number, complex):
            return f"{number.real!r}{number.imag:+.17g}j"
        return number if math.isfinite(number) else None
    return [_plain_numbers(entry) for entry in values]


def write(
    found: Measured, solution: Solution, stated: Mapping[str, Quantity], folder: Path, by_step: bool
) -> list[Path]:
    """The tables as CSV; returns the paths. ``by_step``: that of the probes is there already."""
    paths, labels = [], solution.labels
    if found.quantities:
        columns = {
            named(labels, name, *_field_of(stated[name], solution.fields)): m.value
            for name, m in found.quantities.items()
        }
        paths.append(_table(folder / QUANTITIES, columns, solution))
    if found.probes and not by_step:
        columns = {
            _probe(name, field, tuple(fields), labels): value
            for name, fields in found.probes.items()
            for field, value in fields.items()
        }
        paths.append(_table(folder / PROBES, columns, solution))
    for name, (places, fields) in found.lines.items():
        paths.append(_line_table(folder / LINE.format(name), places, fields, solution))
    return paths


def heads(spec: Spec) -> dict[str, str]:
    """What each quantity is called in tables, and its unit."""
    fields = _fields(spec)
    stated = {} if spec.output is None else spec.output.quantities
    return {name: named(spec.labels, name, *_field_of(q, fields)) for name, q in stated.items()}


def _field_of(quantity: Quantity, fields: Sequence[str]) -> tuple[str, ...]:
    """The field or component that a quantity is a value of, if it is one and nothing else."""
    if quantity.kind not in ("mean", "max", "min", "at") or quantity.over_time == "frequency":
        return ()
    what = fields[0] if quantity.what is None else quantity.what
    if not isinstance(what, str):
        return ()
    return (what, *_PART_OF.get(what, ()))


def _table(path: Path, columns: Mapping[str, torch.Tensor], solution: Solution) -> Path:
    """A row for every sample and frame."""
    batch = tuple(solution.residual.shape)
    times = None if solution.times is None else solution.times.tolist()
    frames = () if times is None else (len(times),)
    time = named(solution.labels, "t")
    head = [*(["sample"] if batch else []), *([time] if times else []), *columns]
    full = {}
    for name, v in columns.items():
        own = v.detach()[..., None] if frames and v.ndim == len(batch) else v.detach()
        full[name] = torch.broadcast_to(own, (*batch, *frames))
    rows = []
    for index in product(*(range(n) for n in (*batch, *frames))):
        sample = [_flat(index[: len(batch)], batch)] if batch else []
        now = [times[index[-1]]] if times else []
        rows.append([*sample, *now, *(v[index].item() for v in full.values())])
    return _write_csv(path, head, rows)


def _flat(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    number = 0
    for i, n in zip(index, shape, strict=True):
        number = number * n + i
    return number


def _line_table(
    path: Path, places: torch.Tensor, fields: Mapping[str, torch.Tensor], solution: Solution
) -> Path:
    """A row for every sample, frame and point."""
    batch = tuple(solution.residual.shape)
    times = None if solution.times is None else solution.times.tolist()
    frames = () if times is None else (len(times),)
    labels = solution.labels
    named_by = partial(named, labels)
    head = [
        *(["sample"] if batch else []),
        *([named_by("t")] if times else []),
        *map(named_by, axis_names(places.shape[1])),
        *(named_by(what, *_PART_OF.get(what, ())) for what in fields),
    ]
    rows = []
    for index in product(*(range(n) for n in (*batch, *frames, len(places)))):
        sample = [_flat(index[: len(batch)], batch)] if batch else []
        now = [times[index[-2]]] if times else []
        values = [v[index].item() for v in fields.values()]
        rows.append([*sample, *now, *places[index[-1]].tolist(), *values])
    return _write_csv(path, head, rows)


def _write_csv(path: Path, head: list[str], rows: list[list[Any]]) -> Path:
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
    return path


def facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Quantities and probes of a run's record in words, by name; in time the last frame's."""
    asked = record["spec"].get("output") or {}
    stated = asked.get("quantities") or {}
    labels = {name: Label(**given) for name, given in (record["spec"].get("labels") or {}).items()}
    lines = {}
    for name, found in (record.get("quantities") or {}).items():
        given = {k: _plain(v) for k, v in stated[name].items() if v is not None}
        quantity = Quantity(**given)
        what = str(quantity)
        if _is_recovered(quantity, record):
            what += ", recovered at nodes"
        unit = unit_of(labels, name, *_field_of(quantity, record.get("fields", ("u",))))
        if quantity.published is not None:
            what += f"; published {quantity.published:g}"
            if isinstance(found["value"], float) and quantity.published:
                what += f", {100 * (found['value'] / quantity.published - 1):+.2g} %"
        single = quantity.over_time is not None or not isinstance(found["value"], list)
        in_time = bool(record.get("times")) and not single
        shown = _shown(found, in_time, f" {unit}" if unit else "")
        lines[called(labels, name)] = f"{shown}  ({what})"
    for name, fields in (record.get("probes") or {}).items():
        told = []
        for field, values in fields.items():
            unit = unit_of(labels, field) or (unit_of(labels, name) if len(fields) == 1 else "")
            shown = _shown({"value": values}, bool(record.get("times")), f" {unit}" if unit else "")
            told.append(f"{called(labels, field)} {shown}")
        place = ", ".join(f"{x:g}" for x in asked["probes"][name])
        lines[called(labels, name)] = f"{'; '.join(told)}  (at ({place}))"
    return lines


_TRAINED = ("pinn", "gaussians", "random_features")


def _is_recovered(quantity: Quantity, record: Mapping[str, Any]) -> bool:
    """Whether it is told at points or on a side, of what jumps between the elements of a mesh."""
    spec, kind, what = record["spec"], quantity.kind, quantity.what
    on_mesh = any(spec.get(place) for place in ("mesh", "geometry"))
    inside = kind in ("integral", "mean") and quantity.on is None
    inside |= (spec.get("solver") or {}).get("kind") in _TRAINED  # tells itself
    if not on_mesh or inside or quantity.raw or not isinstance(what, str):
        return False
    if kind in ("flux", "force", "formula"):
        return False
    known = {*record.get("fields", ()), *AXES, "t", *NORMAL, *CONSTANTS, *FUNCTIONS}
    return bool(names_in(what) - known - {*(spec["problem"].get("parameters") or ())})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shown(found: Mapping[str, Any], in_time: bool, unit: str) -> str:
    at, error = found.get("at"), found.get("error")
    why = f": {found['why']}" if found.get("why") else ""
    values = torch.tensor(_numbers(found["value"]))
    if values.is_complex():
        spelled = [f"{z.real:.6g}{z.imag:+.6g}i" for z in values.flatten().tolist()]
        more = f", ... {len(spelled)} in all" if len(spelled) > _SHOWN else ""
        return f"{', '.join(spelled[:_SHOWN])}{more}{unit}"
    values = values.double()
    if in_time:
        known = values[values.isfinite()]
        if not len(known):
            return f"cannot be told{why}"
        low, high = float(known.amin()), float(known.amax())
        last = values[..., -1].flatten().tolist()
        ranged = f", from {low:.6g} to {high:.6g}{unit} over time"
        return f"{_listed(last, unit, why)}{ranged}"
    if values.ndim:
        return _listed(values.flatten().tolist(), unit, why)
    where = "" if at is None else f" at ({', '.join(f'{x:.4g}' for x in at)})"
    spread = "" if error is None else f" +- {error:.1g}"
    return (
        f"{float(values):.6g}{spread}{unit}{where}" if values == values else f"cannot be told{why}"
    )


def _numbers(value: Any) -> Any:
    """None as NaN, a text as the complex number that it is."""
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    return math.nan if value is None else complex(value) if isinstance(value, str) else value


def _listed(values: list[float], unit: str, why: str) -> str:
    """Those that are numbers, and how many are none."""
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return f"cannot be told{why}"
    if len(values) <= _SHOWN:
        told = ", ".join(f"{v:.6g}" if math.isfinite(v) else "-" for v in values) + unit
    else:
        told = f"{min(known):.6g} to {max(known):.6g}{unit} over {len(known)} samples"
    if len(known) == len(values):
        return told
    return f"{told}; {len(values) - len(known)} of {len(values)} cannot be told{why}"
