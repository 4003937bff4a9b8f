"""``sciml evaluate``: what a trained operator is worth on data that it has not seen.

The first dataset is the one to answer for; further ones, of other distributions, stand beside it.
Everything measured goes to ``evaluation.json``; the tables are the same numbers, shortened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sciml.app import record
from sciml.app.figures_learning import Case, plot_cases, plot_errors, plot_transfer
from sciml.app.read import dataset_family
from sciml.app.report import drawn
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.run.certificate import Certificate
from sciml.datasets.foreign import Foreign
from sciml.datasets.loader import OperatorData, Times
from sciml.operators.checkpoint import load_operator
from sciml.solvers import Surrogate
from sciml.solvers.solve import solve
from sciml.training.conformal import ConformalSet
from sciml.training.data import as_trained, at_trained_shape, first_samples, open_split, resolutions
from sciml.training.evaluation import (
    METHODS,
    Bracket,
    Evaluation,
    MultigridTime,
    Polishing,
    ResolutionTransfer,
    bracket,
    evaluate,
    multigrid_time,
    polishing,
    resolution_transfer,
    roll_out,
)
from sciml.training.residual import problems_of

if TYPE_CHECKING:
    from sciml.operators.operator import Operator, Signature

FILE = "evaluation.json"
_TIMED = 50  # samples of the comparison with multigrid
_STEPS = 3  # of tightening a certificate by


@dataclass(frozen=True)
class Question:
    """What is to be found out: ``run``, a folder with an operator; ``data``, datasets' folders.

    ``transfer``: at every stored resolution too. ``certify``: the bounds against the true errors,
    and what a prediction saves a solver. ``samples``: the first so many for these two. ``frames``:
    in time, how many are predicted from those up to frame ``start``, one after another where the
    operator gives fewer; left out, those of the training, from each of its starts.
    """

    run: Path
    data: tuple[Path, ...]
    split: str = "test"
    transfer: bool = False
    certify: bool = False
    samples: int = 100
    frames: int | None = None
    start: int = 0
    batch: int = 16
    device: str = "cpu"


@dataclass(frozen=True)
class Findings:
    """What was found out. ``rival``: multigrid to the same errors, or why there is none."""

    operator: Operator
    evaluations: dict[str, Evaluation]
    rival: tuple[tuple[str, MultigridTime], ...] | str
    transfer: ResolutionTransfer | None = None
    brackets: tuple[Bracket, ...] = ()
    polishing: Polishing | None = None
    perfect: Polishing | None = None
    conformal: ConformalSet | None = None


def measure(question: Question) -> Findings:
    """Measure all that was asked for; raises InputError for data that does not fit the operator."""
    operator = load_operator(question.run, question.device)
    signature = operator.signature
    places = _places(operator, question)
    first = next(iter(places.values()))
    times = _times(operator, question)
    # What can be refused comes first, and what takes long after it.
    parts: tuple[Any, ...] = ()
    if question.certify:
        parts = certified(question.run, signature, first, question.split, question.samples)
    evaluations = {
        name: evaluate(
            operator,
            at_trained_shape(signature, folder, question.split, times),
            batch=question.batch,
        )
        for name, folder in places.items()
    }
    moved = None
    if question.transfer:
        moved = resolution_transfer(
            operator, first, split=question.split, samples=question.samples, times=times
        )
    errors = next(iter(evaluations.values())).relative_l2[:_TIMED]
    rival = _rival(signature, first, question.split, errors)
    found = Findings(operator, evaluations, rival, moved, *parts)
    return replace(found, conformal=_conformal(operator, question))


def _conformal(operator: Operator, question: Question) -> ConformalSet | None:
    """The set that the training was calibrated on, which is of as many frames as it gives."""
    stated = operator.provenance.get("conformal")
    return ConformalSet.from_json(stated) if stated and question.frames is None else None


def _places(operator: Operator, question: Question) -> dict[str, Path | Foreign]:
    """The data by their names."""
    origin = operator.provenance
    return {str(folder): as_trained(origin, folder, question.split) for folder in question.data}


def _times(operator: Operator, question: Question) -> Times | None:
    """The frames in and out: those of the training, or as many in as are taken of one field."""
    if question.frames is None:
        trained = operator.provenance.get("times")
        return Times(**{name: tuple(f) for name, f in trained.items()}) if trained else None
    taken = max(Counter(operator.signature.inputs).values())
    first = question.start - taken + 1
    if first < 0:
        raise InputError(
            f"the operator takes {taken} frames, so that --start must be at least {taken - 1}; "
            f"got {question.start}"
        )
    end = question.start + 1
    return Times(tuple(range(first, end)), tuple(range(end, end + question.frames)))


def _rival(
    signature: Signature, folder: Path | Foreign, split: str, errors: torch.Tensor
) -> tuple[tuple[str, MultigridTime], ...] | str:
    try:
        return same_error(signature, folder, split, errors)
    except InputError as error:
        return error.message


def same_error(
    signature: Signature, folder: Path | Foreign, split: str, errors: torch.Tensor
) -> tuple[tuple[str, MultigridTime], ...]:
    """Multigrid's time to an operator's ``errors`` (N,), against two references.

    Against the discrete solution of the operator's own grid; against the stored truth on the
    operator's own grid, and on finer stored grids until one reaches every sample's error. Raises
    InputError where the problem is not one for multigrid-CG.
    """
    own = signature.grid
    stated = problems_of(dataset_family(str(folder)), signature)
    data = at_trained_shape(signature, folder, split)
    x, truth = first_samples(data, len(errors))
    posed = _batch(stated, x)
    rows = [("discrete solution", multigrid_time(posed, own, errors, method=m)) for m in METHODS]
    nested = own.centring == "node"  # cells have no points in common with finer ones
    finer = _finer(own.shape, resolutions(folder, split)) if nested else {}
    for shape, place in {own.shape: None, **finer}.items():
        if place is not None:
            x, _ = first_samples(open_split(signature, place, split), len(errors))
        on = Grid(shape, own.centring, own.box)
        posed = _batch(stated, x)
        found = [multigrid_time(posed, on, errors, truth[:, 0], method=m) for m in METHODS]
        rows += [("stored truth", one) for one in found]
        if bool(found[0].reached.all()):
            break
    return tuple(rows)


def _batch(
    stated: Callable[[torch.Tensor], Problem], x: torch.Tensor
) -> Callable[[torch.Tensor], Problem]:
    return lambda which: stated(x[which])


def _finer(
    own: tuple[int, ...], stored: dict[tuple[int, ...], Path | Foreign]
) -> dict[tuple[int, ...], Path | Foreign]:
    """The stored node grids that contain the operator's own, from coarse to fine."""
    return {
        shape: place
        for shape, place in stored.items()
        if shape != own
        and all(n > m and (n - 1) % (m - 1) == 0 for n, m in zip(shape, own, strict=True))
    }


def certified(
    run: Path, signature: Signature, folder: Path | Foreign, split: str, samples: int
) -> tuple[tuple[Bracket, ...], Polishing, Polishing]:
    """Certificates of the surrogate's answers to the first problems of a split, and polishing.

    Bounds without tightening and after three steps; iterations from the predictions, and from the
    stored truth, which no surrogate trained on it can be expected to surpass.
    """
    x, y = first_samples(at_trained_shape(signature, folder, split), samples)
    on = signature.grid
    problem = problems_of(dataset_family(str(folder)), signature)(x)
    brackets = []
    for steps in (0, _STEPS):
        solution = solve(problem, Surrogate(str(run), steps=steps), on=on, throw=False)
        if not isinstance(solution.certificate, Certificate):
            raise InputError("this problem has no certificate: its operator is not definite")
        brackets.append(bracket(solution.value, solution.certificate, problem, on))
    return (
        tuple(brackets),
        polishing(solution.value, problem, on),
        polishing(y[:, 0], problem, on),
    )


def recorded(question: Question, findings: Findings) -> dict[str, Any]:
    """The findings as plain data, for ``evaluation.json``."""
    operator, rival = findings.operator, findings.rival
    return record.made(
        record.EVALUATION,
        run=str(question.run),
        kind=operator.options.kind,
        trained=list(operator.signature.grid.shape),
        provenance=operator.provenance,
        split=question.split,
        evaluations={name: e.to_json() for name, e in findings.evaluations.items()},
        multigrid=rival
        if isinstance(rival, str)
        else [{"reference": name, **row.to_json()} for name, row in rival],
        notes=list(operator.notes),
        conformal=findings.conformal and findings.conformal.to_json(),
        covered={}
        if findings.conformal is None
        else {name: e.covered(findings.conformal) for name, e in findings.evaluations.items()},
        transfer=findings.transfer and findings.transfer.to_json(),
        certificates=[found.to_json() for found in findings.brackets],
        polishing=findings.polishing and findings.polishing.to_json(),
        polishing_of_truth=findings.perfect and findings.perfect.to_json(),
    )


def write(question: Question, findings: Findings, out: Path) -> tuple[list[Path], list[str]]:
    """Write the record and the figures; returns their paths, and notes of what was not drawn."""
    paths = [record.write(out, recorded(question, findings), FILE)]
    first = next(iter(findings.evaluations.values()))
    signature = findings.operator.signature
    times = _times(findings.operator, question)
    place = next(iter(_places(findings.operator, question).values()))
    data = at_trained_shape(signature, place, question.split, times)
    chosen = {"best": first.ranked[0], "median": first.ranked[len(first.ranked) // 2]}
    chosen["worst"] = first.ranked[-1]
    cases = [_case(findings.operator, data, name, i, first) for name, i in chosen.items()]
    short = {Path(name).name: e for name, e in findings.evaluations.items()}
    found = short if len(short) == len(findings.evaluations) else findings.evaluations
    errors = {
        "$L^2$": {name: e.relative_l2.numpy() for name, e in found.items()},
        "$H^1$": {name: e.relative_h1.numpy() for name, e in found.items()},
    }
    ends = (signature.inputs[0], signature.outputs[-1])
    plots: dict[str, Callable[[Path], Any]] = {
        "cases.png": lambda path: plot_cases(cases, data.axes, ends, path),
        "errors.png": lambda path: plot_errors(errors, path),
    }
    if findings.transfer is not None:
        moved = {findings.operator.options.kind: findings.transfer}
        plots["transfer.png"] = lambda path: plot_transfer(moved, path)
    notes = [f"note: {note}" for note in findings.operator.notes]
    for name, measured in findings.evaluations.items():
        strange = [told for told in measured.unlike if told]
        often = 10 * len(signature.inputs) * len(measured.unlike)
        seen = findings.operator.provenance.get("seen", {}).get("samples", 1)
        if len(strange) > 3 * max(1.0, often / (seen + 1)):
            notes.append(
                f"note: {name} is another family than the training's: of {len(strange)} of "
                f"{len(measured.unlike)} inputs, such as {strange[0]}"
            )
    for name, draw in plots.items():
        note = drawn(out / name, draw)
        if note is None:
            paths.append(out / name)
        else:
            notes.append(note)
    return paths, notes


def _case(operator: Operator, data: OperatorData, name: str, index: int, found: Evaluation) -> Case:
    """One sample; of several channels the first input and the last output."""
    sample = data[index]
    x, y = sample["x"], sample["y"]
    prediction = roll_out(operator, x[None].to(operator.input_mean.device), len(y))[0].cpu()
    title = f"{name}: sample {index}\n$L^2$ error {float(found.relative_l2[index]):.2e}"
    return Case(title, x[0].numpy(), y[-1].numpy(), prediction[-1].numpy())


def tables(findings: Findings) -> list[tuple[str, list[Sequence[str]]]]:
    """What a person reads: titles and rows, the first row of each the heads of the columns."""
    parts = [("Relative errors", _error_rows(findings)), ("Time", _time_rows(findings))]
    if findings.conformal is not None:
        parts.insert(1, ("Conformal set", conformal_rows(findings, findings.conformal)))
    if findings.transfer is not None:
        parts.append(("Resolutions (mean relative L2)", transfer_rows(findings.transfer)))
    if findings.brackets:
        parts.append(("Certificates (relative energy norm)", bracket_rows(findings.brackets)))
    if findings.polishing is not None and findings.perfect is not None:
        rows = polishing_rows(
            {"prediction": findings.polishing, "the stored truth": findings.perfect}
        )
        parts.append((f"Multigrid-CG to {findings.polishing.rtol:.0e}", rows))
    return parts


def _error_rows(findings: Findings) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("data", "samples", "grid", "norm", "mean", "median", "90 %", "99 %", "worst")
    ]
    for name, found in findings.evaluations.items():
        for norm, numbers in found.summary().items():
            head = (name, str(len(found.relative_l2)), _by(found.shape), norm[-2:].upper())
            rows.append((*head, *(f"{value:.2e}" for value in numbers.values())))
    return rows


def conformal_rows(findings: Findings, found: ConformalSet) -> list[Sequence[str]]:
    """Which share of the truths lies in the set round their predictions."""
    rows: list[Sequence[str]] = [
        ("data", "distance to prediction", "share meant", "share within", "unlike all trained on")
    ]
    for name, measured in findings.evaluations.items():
        share = f"{100 * measured.covered(found):.1f} % of {len(measured.scores)}"
        meant = f"{100 * found.share:.0f} %, from {found.samples} samples"
        strange = f"{sum(map(bool, measured.unlike))} inputs"
        rows.append((name, f"{100 * found.radius:.3g} %", meant, share, strange))
    return rows


def _time_rows(findings: Findings) -> list[Sequence[str]]:
    """The operator's and multigrid's seconds; errors are the operator's."""
    found = next(iter(findings.evaluations.values()))
    kind = f"{findings.operator.options.kind}, {found.parameters:,} parameters, {found.device}"
    rows: list[Sequence[str]] = [
        ("what", "grid", "reached", "iterations", "ms alone", "ms each in a batch"),
        (kind, _by(found.shape), "", "", _ms(found.seconds), _ms(found.seconds_batched)),
    ]
    if isinstance(findings.rival, str):
        return [*rows, (f"no multigrid to compare with: {findings.rival}", "", "", "", "", "")]
    for reference, row in findings.rival:
        plain = row.to_json()
        rows.append(
            (
                f"{row.method.replace('_', ' ')} as near to the {reference}",
                _by(row.shape),
                f"{100 * plain['reached']:.0f} %",
                "-" if plain["iterations"] is None else f"{plain['iterations']:.1f}",
                _ms(plain["seconds"]),
                _ms(plain["seconds_batched"]),
            )
        )
    return rows


def transfer_rows(found: ResolutionTransfer) -> list[Sequence[str]]:
    """A row per resolution; the training's own is marked."""
    rows: list[Sequence[str]] = [("grid", "error", "interpolated", "drift")]
    for row in found.rows:
        name = _by(row.shape) + (" (trained)" if row.shape == found.trained else "")
        parts = (row.error, row.interpolated, row.drift)
        rows.append(
            (name, row.refused, "", "")
            if row.refused
            else (name, *(f"{float(part.mean()):.2e}" for part in parts))
        )
    return rows


def bracket_rows(found: Sequence[Bracket]) -> list[Sequence[str]]:
    """A row per number of tightening steps."""
    rows: list[Sequence[str]] = [
        ("steps", "held", "mean error", "lower / error, least", "upper / error, most")
    ]
    for one in found:
        rows.append(
            (
                str(one.steps),
                f"{int(one.held.sum())} of {len(one.held)}",
                f"{float(one.error.mean()):.2e}",
                f"{float((one.lower / one.error).min()):.4f}",
                f"{float((one.upper / one.error).max()):.4f}",
            )
        )
    return rows


def polishing_rows(found: dict[str, Polishing]) -> list[Sequence[str]]:
    """A row per start; iterations beside those from zero, and the share saved."""
    rows: list[Sequence[str]] = [
        (
            "start", "its residual", "its energy error", "iterations to the residual",
            "from zero", "saved", "to the energy error", "from zero", "saved",
        )
    ]  # fmt: skip
    for name, one in found.items():
        counts = one.to_json()["iterations"]
        rows.append(
            (
                name,
                f"{float(one.residual.mean()):.2e}",
                f"{float(one.energy.mean()):.2e}",
                f"{counts['residual']:.2f}",
                f"{counts['residual_from_zero']:.2f}",
                f"{100 * one.saved:.0f} %",
                f"{counts['energy']:.2f}",
                f"{counts['energy_from_zero']:.2f}",
                f"{100 * one.saved_in_energy:.0f} %",
            )
        )
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3g}"
