"""The command ``sciml export``; nothing of weight is loaded before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sciml.core.errors import InputError, did_you_mean

FORMATS = ("neuraloperator", "npz")


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
