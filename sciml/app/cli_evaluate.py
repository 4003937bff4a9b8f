"""The command ``sciml evaluate``; nothing of weight is loaded before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder with a trained operator.")],
    data: Annotated[
        list[Path],
        typer.Option(help="A dataset's folder. Repeatable: further ones stand beside the first."),
    ],
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    transfer: Annotated[
        bool, typer.Option("--transfer", help="At every stored resolution too.")
    ] = False,
    certify: Annotated[
        bool, typer.Option("--certify", help="Bounds against true errors; iterations saved.")
    ] = False,
    samples: Annotated[
        int, typer.Option(min=1, help="Samples for --transfer and --certify.")
    ] = 100,
    frames: Annotated[
        int | None, typer.Option(min=1, help="In time: predict so many frames, one by one.")
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="The last frame given to --frames.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples answered at once.")] = 16,
    out: Annotated[
        Path | None, typer.Option(help="Where the results go; RUN/evaluation by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Measure a trained operator: errors, resolutions, seconds beside multigrid's, certificates."""
    from sciml.app.evaluate import Question, aligned, measure, tables, write

    home = run if run.is_dir() else run.parent
    question = Question(
        run, tuple(data), split, transfer, certify, samples, frames, start, batch, device
    )
    findings = measure(question)
    for title, rows in tables(findings):
        typer.echo(typer.style(title, bold=True))
        typer.echo(aligned(rows) + "\n")
    for path in write(question, findings, out or home / "evaluation"):
        typer.echo(path)
