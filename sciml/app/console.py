"""What all commands share: their options, how a mistake is told, and the exit codes.

Exit codes: 0 solved, 1 not solved, 2 bad input, 130 interrupted. Nothing of weight is loaded here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from sciml.core.errors import InputError, SolveError

NOT_SOLVED, BAD_INPUT, INTERRUPTED = 1, 2, 130

Command = TypeVar("Command", bound=Callable[..., Any])
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="A problem stated in YAML.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace a value: grid.shape=[65,65]. Repeatable."
    ),
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
        except MemoryError:
            complain("out of memory: use a coarser grid or a smaller batch")
            raise typer.Exit(BAD_INPUT) from None
        except OSError as error:
            if error.filename is None:
                raise
            complain(f"'{error.filename}': {error.strerror}")
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            complain("interrupted; nothing was left half-written")
            raise typer.Exit(INTERRUPTED) from None

    return wrapper  # type: ignore[return-value]


def complain(message: str) -> None:
    """One line on standard error."""
    typer.secho(f"sciml: {message}", err=True, fg="red" if sys.stderr.isatty() else None)


def print_facts(lines: Mapping[str, str]) -> None:
    """Names and values in two columns."""
    width = max(map(len, lines))
    for name, value in lines.items():
        typer.echo(f"{typer.style(name.ljust(width), bold=True)}  {value}")


def as_folder(path: Path) -> Path:
    """Where results go; raises InputError where the name is taken by a file."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"--out '{path}': '{place}' is a file; name a directory")
    return path
