"""Progress on standard error: a live bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from sciml.core.problem import Time

Report = Callable[[int, int, Mapping[str, Any]], None]
_PLAIN_SECONDS = 2.0


@contextmanager
def solving(span: Time | None) -> Iterator[Callable[[int, float], None]]:
    """A callback for solvers: one live line or bar on a terminal, else a line every few seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal and span is not None:
        with _bar(console, span) as advance:
            yield advance
        return
    if console.is_terminal:
        with console.status("setting up; the first run compiles its kernels") as live:
            yield lambda step, residual: live.update(_step_line(step, residual, None))
        return
    last = time.monotonic()

    def report(step: int, reached: float) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_SECONDS:
            last = time.monotonic()
            console.print(_step_line(step, reached, span), highlight=False)

    yield report


@contextmanager
def _bar(console: Console, span: Time) -> Iterator[Callable[[int, float], None]]:
    """A progress bar over the time of the problem, with the time left on the clock."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("setting up", total=span.end - span.start)
        yield lambda step, reached: bar.update(
            task, completed=reached - span.start, description=_step_line(step, reached, span)
        )


def _step_line(step: int, reached: float, span: Time | None) -> str:
    if span is None:
        return f"iteration {step}, relative residual {reached:.2e}"
    return f"step {step}, t = {reached:.4g} of {span.end:.4g}"


@contextmanager
def training(epochs: int) -> Iterator[Report]:
    """A callback for ``fit``: a bar with the time left, or a line every few seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _epochs(console, epochs) as advance:
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
        console.print(line, highlight=False)

    yield report


@contextmanager
def _epochs(console: Console, epochs: int) -> Iterator[Report]:
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
