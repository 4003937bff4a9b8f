"""The commands on specs: ``new``, ``validate``, ``schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sciml.app.console import Device, Dtype, Overrides, SpecFile, as_folder, print_facts
from sciml.app.presets import names_starting, preset, presets
from sciml.core.errors import InputError

if TYPE_CHECKING:
    from sciml.app.spec import Spec


def new(
    name: Annotated[
        str | None,
        typer.Argument(metavar="PRESET", help="One of --list.", autocompletion=names_starting),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file; PRESET.yaml by default.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the presets.")] = False,
) -> None:
    """Write a commented spec to start from; no file is ever overwritten."""
    if list_ or name is None:
        print_facts({preset.name: preset.title for preset in presets()})
        if not list_:
            raise InputError("name a preset, for example: sciml new poisson")
        return
    chosen = preset(name)
    path = out or Path(f"{chosen.name}.yaml")
    if path.is_dir():
        path = path / f"{chosen.name}.yaml"
    as_folder(path.parent).mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(chosen.text)
    except FileExistsError:
        raise InputError(f"'{path}' exists and is left as it is; name another with --out") from None
    typer.echo(f"{path}: {chosen.title}")
    typer.echo(f"next    {chosen.next_command(path)}")


def validate(
    spec: SpecFile, set_: Overrides = None, device: Device = "cpu", dtype: Dtype = "float64"
) -> None:
    """Check a spec and its data, estimate the memory, and solve nothing."""
    from sciml.app.run import Setting, describe, lower, memory
    from sciml.app.spec import load_spec

    setting = Setting(device, dtype)
    problem = load_spec(spec, set_ or ())
    if not problem.problem.linear or getattr(problem.solver, "reads_problem", False):
        _validate_evolution(problem)
        return
    system = lower(problem, setting)
    tags = [name for name in ("symmetric", "definite", "nullspace") if getattr(system.A, name)]
    typer.echo(describe(problem))
    for note in system.notes:
        typer.echo(f"  {note}")
    print_facts(
        {
            "unknowns": f"{system.A.size:,}",
            "operator": ", ".join(tags) or "not symmetric",
            "discretisation needs about": f"{memory(problem, setting) / 1e6:.3g} MB",
            "spec": "valid",
        }
    )


def _validate_evolution(spec: Spec) -> None:
    """Set the solver up, which checks all data, and say so."""
    from sciml.app.run import describe
    from sciml.app.spec import explain

    try:
        spec.solver.init(spec.problem, spec.on)
    except InputError as error:
        raise InputError(explain(error, spec)) from None
    typer.echo(describe(spec))
    print_facts({"spec": "valid"})


def schema() -> None:
    """Print the JSON Schema of a spec."""
    from sciml.app.spec import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
