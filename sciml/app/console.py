"""What all commands share: their options, how a mistake and progress are told, and the exit codes.

Exit codes: 0 solved, 1 not solved, 2 bad input, 130 interrupted, 141 nobody reads the output.
Progress goes to standard error: a live bar on a terminal, else a line every few seconds. Nothing of
weight is loaded here.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sciml.core.errors import InputError, SolveError

if TYPE_CHECKING:
    from rich.console import Console

    from sciml.app.spec import Spec
    from sciml.core.problem.problem import Time


_FULL = re.compile("can't allocate memory|out of memory")
NOT_SOLVED, BAD_INPUT, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141

Command = TypeVar("Command", bound=Callable[..., Any])
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec in YAML.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value: grid.shape=[65,65]; solver= removes the key. Repeatable.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Import and run the code that a spec or an operator names."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="float64, or float32 where a loose rtol will do.")]
Seed = Annotated[int, typer.Option(help="Start of every random generator.")]


def reported(command: Command) -> Command:
    """The command with a user's mistakes told in one line, and the right exit code."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except SolveError as error:
            complain(str(error))
            raise typer.Exit(NOT_SOLVED) from None
        except InputError as error:
            complain(str(error))
            raise typer.Exit(BAD_INPUT) from None
        except (MemoryError, RuntimeError) as error:
            # torch has no class of its own for the memory of a CPU.
            if isinstance(error, RuntimeError) and not _FULL.search(str(error)):
                raise
            complain("out of memory: use a coarser grid or a smaller batch or network")
            raise typer.Exit(BAD_INPUT) from None
        except BrokenPipeError:
            # Whoever read the output has left; results are on the disk before they are told.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED_PIPE) from None
        except OSError as error:
            said = error.strerror or str(error) or type(error).__name__
            complain(said if error.filename is None else f"'{error.filename}': {said}")
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            complain("interrupted; nothing was left half-written")
            raise typer.Exit(INTERRUPTED) from None

    return wrapper  # type: ignore[return-value]


def complain(message: str) -> None:
    """One line on standard error."""
    typer.secho(f"sciml: {message}", err=True, fg="red" if sys.stderr.isatty() else None)


def progress_line(line: str) -> None:
    """One line on standard error; that nobody reads it any more stops no computation."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def print_facts(lines: Mapping[str, str]) -> None:
    """Names and values in two columns."""
    width = max(map(len, lines))
    for name, value in lines.items():
        typer.echo(f"{typer.style(name.ljust(width), bold=True)}  {value}")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a text with columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Those of a text such as ``200,200``, 2 or more; raises InputError for another."""
    parts = [part.strip() for part in text.strip("[]").split(",")]
    if not all(part.isascii() and part.isdigit() and int(part[:9]) >= 2 for part in parts):
        raise InputError(f"{option} takes numbers of 2 and more, such as 200,200; got '{text}'")
    return tuple(map(int, parts))


def as_folder(path: Path) -> Path:
    """Where results go; raises InputError where the name is taken by a file."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"--out '{path}': '{place}' is a file; name a directory")
    return path


Report = Callable[[int, int, Mapping[str, Any]], None]
_PLAIN_SECONDS = 2.0
_TERMS = 4  # of a loss are named, the largest first


@dataclass
class Watch:
    """What a solver calls while it runs: ``watch(step, reached)``.

    ``show`` takes the line to be shown and how far the problem's time is. ``record``: what a solver
    that trains keeps of itself, see ``trained.minimisation``. ``words``: the line of a steady
    problem, with {step} and {reached} in it.
    """

    show: Callable[[str, float], None]
    span: Time | None
    record: Mapping[str, Any] = field(default_factory=dict)
    words: str = "iteration {step}, relative residual {reached:.2e}"

    def follow(self, state: Any) -> None:
        """Look into the record of a solver's state, where it keeps one."""
        self.record = getattr(state, "record", self.record)

    def __call__(self, step: int, reached: float) -> None:
        """Show the step; ``reached``: a relative residual or a bound, or the problem's time."""
        line = training_line(step, reached, self.record) if self.record else None
        self.show(line or self._step_line(step, reached), reached)

    def _step_line(self, step: int, reached: float) -> str:
        if self.span is None:
            return self.words.format(step=step, reached=reached)
        return f"step {step}, t = {reached:.4g} of {self.span.end:.4g}"


@contextmanager
def solving(spec: Spec) -> Iterator[Watch]:
    """A watch for solvers: one live line or bar on a terminal, else a line every few seconds."""
    from rich.console import Console

    # Training goes through all of time at once.
    span = None if getattr(spec.solver, "reads_problem", False) else spec.problem.time
    words = getattr(spec.solver, "progresses", Watch.words)
    console = Console(stderr=True)
    if console.is_terminal and span is not None:
        with _time_bar(console, span) as advance:
            yield Watch(advance, span)
        return
    if console.is_terminal:
        with console.status("setting up; the first run compiles its kernels") as live:
            yield Watch(lambda line, _: live.update(line), span, words=words)
        return
    last = time.monotonic()

    def show(line: str, reached: float) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_SECONDS:
            last = time.monotonic()
            progress_line(line)

    yield Watch(show, span, words=words)


@contextmanager
def _time_bar(console: Console, span: Time) -> Iterator[Callable[[str, float], None]]:
    """A progress bar over the time of the problem, with the time left on the clock."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("setting up", total=span.end - span.start)
        yield lambda line, reached: bar.update(
            task, completed=reached - span.start, description=line
        )


def training_line(step: int, reached: float, record: Mapping[str, Any]) -> str:
    """How far a function's training is: its residual, the loss by its terms, error, time left."""
    largest = sorted(record.get("terms", {}).items(), key=lambda term: -term[1])
    terms = ", ".join(f"{name} {size:.1e}" for name, size in largest[:_TERMS])
    more = f", {len(largest) - _TERMS} more" if len(largest) > _TERMS else ""
    line = f"iteration {step}, relative residual {reached:.2e} ({terms}{more})"
    if record.get("error") is not None:
        line += f", error {record['error']:.2e}"
    if record.get("left") is not None:
        line += f", at most {clock(record['left'])} left"
    return line


@contextmanager
def training(epochs: int) -> Iterator[Report]:
    """A callback for ``fit``: a bar with the time left, or a line every few seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _epoch_bar(console, epochs) as advance:
            yield advance
        return
    begun = last = time.monotonic()
    before: int | None = None  # the epochs that were done before this call

    def report(epoch: int, epochs: int, record: Mapping[str, Any]) -> None:
        nonlocal last, before
        before = epoch - 1 if before is None else before
        now = time.monotonic()
        if now - last < _PLAIN_SECONDS and epoch < epochs:
            return
        last = now
        left = (now - begun) / (epoch - before) * (epochs - epoch)
        line = f"epoch {epoch} of {epochs}, {_epoch_line(record)}, {clock(left)} left"
        progress_line(line)

    yield report


@contextmanager
def _epoch_bar(console: Console, epochs: int) -> Iterator[Report]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("preparing", total=epochs)
        yield lambda epoch, epochs, record: bar.update(
            task, completed=epoch, description=_epoch_line(record)
        )


def _epoch_line(record: Mapping[str, Any]) -> str:
    line = f"loss {record['loss']:.3e}"
    valid = record.get("valid_l2")
    return line if valid is None else f"{line}, validation error {100 * valid:.3g} %"


def clock(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
