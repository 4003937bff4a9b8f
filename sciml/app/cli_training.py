"""The commands on networks: ``train``, ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sciml.app.console import Device, Overrides, SpecFile, as_folder, print_facts


def train(
    spec: SpecFile,
    set_: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder, runs/<name of the spec> by default; resumed there."),
    ] = None,
    device: Device = "cpu",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of weights and order of samples; else the spec's.")
    ] = None,
) -> None:
    """Fit a neural operator to data or to problems solved meanwhile, or a preconditioner."""
    from sciml.app.train import (
        read_training,
        train,
        train_preconditioner,
        training_facts,
        trains_preconditioner,
    )
    from sciml.app.yaml_source import read_yaml

    source, directory = read_yaml(spec), as_folder(out or Path("runs") / spec.stem)
    part = "preconditioner" if trains_preconditioner(source) else "training"
    overrides = [*(set_ or ()), *([] if seed is None else [f"{part}.seed={seed}"])]
    if trains_preconditioner(source):
        print_facts(train_preconditioner(source, directory, device, overrides))
        return
    record = train(read_training(source, overrides), directory, device, overrides)
    if record is None:  # one of several processes, of which another tells
        return
    print_facts(training_facts(record))
    typer.echo(f"plot    {directory / 'loss.png'}")
    typer.echo(f"report  {directory / 'report.html'}")
    typer.echo(f"weights {directory / 'operator.json'}")


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
    device: Device = "cpu",
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
