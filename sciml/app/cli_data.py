"""The commands on datasets: ``generate``, ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sciml.app.console import Device, Overrides, SpecFile, as_folder
from sciml.core.errors import InputError, did_you_mean

FORMATS = ("neuraloperator", "npz")


def generate(
    spec: SpecFile,
    out: Annotated[Path, typer.Option(help="The dataset's folder; the same command resumes it.")],
    set_: Overrides = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Samples in all, shared out as the spec's splits.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, dask://host:port or mpi.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Processes of the local engine.")] = 1,
    device: Device = "cpu",
) -> None:
    """Make a dataset from a family of problems: every sample solved and its residual checked."""
    from sciml.app.generate import load_family, make_dataset

    family = load_family(spec, set_ or ())
    if count is not None:
        family = family.with_count(count)
    make_dataset(family, as_folder(out), engine=engine, workers=workers, device=device)


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A dataset's folder.")],
    to: Annotated[str, typer.Option(help="neuraloperator (.pt pairs) or npz (one archive).")],
    out: Annotated[
        Path, typer.Option(help="pairs/darcy makes pairs/darcy_train_64.pt; or the archive's name.")
    ],
) -> None:
    """Write a dataset on a grid for other programs: inputs and outputs, all samples of a split."""
    if to not in FORMATS:
        raise InputError(f"unknown format '{to}'{did_you_mean(to, FORMATS)}", "--to")
    from sciml.datasets.export import export_archive, export_pairs

    if to == "npz":
        typer.echo(export_archive(folder, out))
        return
    for path in export_pairs(folder, out.parent, out.name):
        typer.echo(path)
