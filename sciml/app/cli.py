"""The command line. Exit codes: 0 solved, 1 not solved, 2 bad input.

Only what a command needs is imported, and inside it: ``sciml --help`` loads typer and nothing of
weight.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

import sciml
from sciml.app.cli_data import export, generate
from sciml.app.cli_runs import bench, certify, info, plot, report, solve
from sciml.app.cli_specs import new, schema, validate
from sciml.app.cli_training import evaluate, train
from sciml.app.console import reported

# Every command with an example, which its help ends with.
_COMMANDS: tuple[tuple[Callable[..., Any], str], ...] = (
    (new, "sciml new darcy --out darcy.yaml"),
    (solve, "sciml solve configs/poisson.yaml --set grid.shape=[129,129]"),
    (validate, "sciml validate configs/darcy.yaml"),
    (report, "sciml report runs/cg runs/pinn --out comparison.html"),
    (plot, "sciml plot runs/darcy"),
    (info, "sciml info runs/darcy"),
    (certify, "sciml certify runs/darcy --steps 5"),
    (generate, "sciml generate configs/datasets/darcy.yaml --out data/darcy"),
    (export, "sciml export data/darcy --to npz --out darcy.npz"),
    (train, "sciml train configs/train/mgno-darcy.yaml --device cuda"),
    (evaluate, "sciml evaluate runs/mgno-darcy --data data/darcy --certify"),
    (schema, "sciml schema > schema.json   # completion in editors"),
    (bench, "sciml bench elliptic --quick"),
)

app = typer.Typer(
    name="sciml",
    help="State a PDE once, in YAML; solve it, see it, and know how good the answer is.",
    epilog="Example:  sciml new poisson && sciml solve poisson.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the ``sciml`` script."""
    # Threads that spin while they wait slow a shared machine tenfold; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sciml {sciml.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    pass


for _command, _example in _COMMANDS:
    app.command(epilog=f"Example:  {_example}")(reported(_command))


if __name__ == "__main__":
    main()
