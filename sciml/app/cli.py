"""The command line. Exit codes: 0 solved, 1 not solved, 2 bad input.

Only what a command needs is imported, and inside it: ``sciml --help`` loads typer and nothing of
weight.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

import sciml
from sciml.app.cli_data import export
from sciml.app.cli_evaluate import evaluate
from sciml.core.errors import InputError, SolveError, did_you_mean

if TYPE_CHECKING:
    from sciml.app.run import Setting
    from sciml.app.spec import Spec

NOT_SOLVED, BAD_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="sciml",
    help="State a PDE once, in YAML; solve it, see it, and know how good the answer is.",
    epilog="Example:  sciml solve configs/darcy.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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


def main() -> None:
    """Entry point of the ``sciml`` script."""
    # Threads that spin while they wait slow a shared machine tenfold; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    app()


def _reported(command: Command) -> Command:
    """The command with a user's mistakes told in one line, and the right exit code."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except SolveError as error:
            _complain(str(error))
            raise typer.Exit(NOT_SOLVED) from None
        except InputError as error:
            _complain(str(error))
            raise typer.Exit(BAD_INPUT) from None
        except MemoryError:
            _complain("out of memory: use a coarser grid or a smaller batch")
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            _complain("interrupted; nothing was left half-written")
            raise typer.Exit(INTERRUPTED) from None

    return wrapper  # type: ignore[return-value]


def _complain(message: str) -> None:
    typer.secho(f"sciml: {message}", err=True, fg="red" if sys.stderr.isatty() else None)


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


@app.command(epilog="Example:  sciml solve configs/poisson.yaml --set grid.shape=[129,129]")
@_reported
def solve(
    spec: SpecFile,
    set_: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the results go; runs/<name of the spec> by default.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> None:
    """Solve a spec; write the solution, its plots, and a report."""
    from sciml.app.progress import solving
    from sciml.app.report import facts
    from sciml.app.run import FRAMES, answer, describe, record, write_run

    problem, setting = _load(spec, set_, device, dtype, seed)
    directory = out or Path("runs") / spec.stem
    if directory.exists() and not directory.is_dir():
        raise InputError(f"--out '{directory}' is a file; name a directory")
    typer.echo(describe(problem))
    # Training goes through all of time at once.
    span = None if getattr(problem.solver, "reads_problem", False) else problem.problem.time
    with solving(span) as report:
        result = answer(problem, setting, report, directory / FRAMES)
    for note in result.solution.notes:
        typer.echo(f"  {note}")
    paths = write_run(result, directory, set_ or ())
    _print_table(facts(record(result)))
    typer.echo(f"plot    {directory / 'solution.png'}")
    typer.echo(f"report  {directory / 'report.html'}")
    typer.echo(f"data    {', '.join(str(path) for path in paths if path.suffix in _DATA)}")
    status = result.solution.status
    if not status.success:
        _complain(str(status))
        raise typer.Exit(NOT_SOLVED)


_DATA = (".h5", ".vtu", ".vti", ".pvd")


@app.command(epilog="Example:  sciml validate configs/darcy.yaml")
@_reported
def validate(
    spec: SpecFile, set_: Overrides = None, device: Device = "cpu", dtype: Dtype = "float64"
) -> None:
    """Check a spec and its data, estimate the memory, and solve nothing."""
    from sciml.app.run import describe, lower, memory

    problem, setting = _load(spec, set_, device, dtype, 0)
    if not problem.problem.linear or getattr(problem.solver, "reads_problem", False):
        _validate_evolution(problem)
        return
    system = lower(problem, setting)
    tags = [name for name in ("symmetric", "definite", "nullspace") if getattr(system.A, name)]
    typer.echo(describe(problem))
    for note in system.notes:
        typer.echo(f"  {note}")
    _print_table(
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
    _print_table({"spec": "valid"})


@app.command(epilog="Example:  sciml schema > schema.json   # completion in editors")
@_reported
def schema() -> None:
    """Print the JSON Schema of a spec."""
    from sciml.app.spec import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command(epilog="Example:  sciml plot runs/darcy")
@_reported
def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory or solution.h5.")],
    out: Annotated[Path | None, typer.Option(help="Directory for the figures.")] = None,
) -> None:
    """Draw the figures of a run again."""
    from sciml.app.plot import plot_convergence, plot_field, plot_solution
    from sciml.core.files import load_fields, load_solution
    from sciml.core.place import discrete

    solution, fields = load_solution(run), load_fields(run)
    directory = out or (run if run.is_dir() else run.parent)
    record = directory / "run.json"
    title = _read_record(record)["title"] if record.is_file() else ""
    plot_solution(solution, directory / "solution.png", title)
    plot_convergence(solution, directory / "convergence.png")
    assert solution.on is not None
    for name, values in fields.items():
        plot_field(values, discrete(solution.on), name, directory / f"{name}.png")
    for name in ("solution", "convergence", *fields):
        typer.echo(directory / f"{name}.png")


@app.command(epilog="Example:  sciml info runs/darcy")
@_reported
def info(
    what: Annotated[
        Path, typer.Argument(metavar="WHAT", help="A run, solution.h5, a spec or a dataset.")
    ],
) -> None:
    """Summarise a run, a solution file, a spec or a dataset, and draw a few of its samples."""
    if what.suffix in (".yaml", ".yml"):
        from sciml.app.run import describe
        from sciml.app.spec import load_spec
        from sciml.core.plain import dump

        problem = load_spec(what)
        typer.echo(describe(problem))
        typer.echo(json.dumps(dump(problem), indent=2))
    elif (what / "manifest.json").is_file():
        from sciml.app.plot_samples import summarise

        _print_table(summarise(what))
    elif (what / "operator.json").is_file():
        from sciml.app.train import read_record, training_facts

        _print_table(training_facts(read_record(what)))
    elif (what / "weights.safetensors").is_file():
        from sciml.app.learn import FORMAT, learning_facts
        from sciml.app.train import read_record

        _print_table(learning_facts(read_record(what, FORMAT)))
    elif (what / "run.json").is_file():
        from sciml.app.report import facts

        summary = _read_record(what / "run.json")
        typer.echo(summary["description"])
        for note in summary["notes"]:
            typer.echo(f"  {note}")
        _print_table(facts(summary))
    else:
        _print_solution(what)


@app.command(epilog="Example:  sciml certify runs/darcy --steps 5")
@_reported
def certify(
    what: Annotated[
        Path, typer.Argument(metavar="RUN|SPEC", help="A run's directory, or a spec to solve.")
    ],
    set_: Overrides = None,
    steps: Annotated[int, typer.Option(min=0, help="Conjugate-gradient steps to tighten by.")] = 0,
) -> None:
    """Bound the distance to the exact discrete solution from both sides."""
    from sciml.app.run import Setting, answer, describe
    from sciml.app.spec import explain, load_spec, read_spec
    from sciml.app.yaml_source import parse_yaml
    from sciml.core.files import load_solution
    from sciml.core.place import discrete

    if what.is_dir():
        text = json.dumps(_read_record(what / "run.json")["spec"])
        problem = read_spec(parse_yaml(text, str(what / "run.json")), set_ or ())
        value = load_solution(what).value
    else:
        problem = load_spec(what, set_ or ())
        value = answer(problem, Setting()).solution.value
    try:
        # A hole holds no answer; its points are no unknowns, so any number will do there.
        bound = sciml.certify(
            value.nan_to_num(0.0), problem.problem, discrete(problem.on), steps=steps
        )
    except InputError as error:
        raise InputError(explain(error, problem)) from None
    typer.echo(describe(problem))
    typer.echo(str(bound))


@app.command(epilog="Example:  sciml generate configs/datasets/darcy.yaml --out data/darcy")
@_reported
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
    from sciml.app.families import load_family, make_dataset

    family = load_family(spec, set_ or ())
    if count is not None:
        family = family.with_count(count)
    make_dataset(family, out, engine=engine, workers=workers, device=device)


@app.command(epilog="Example:  sciml train configs/train/mgno-darcy.yaml --device cuda")
@_reported
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
    from sciml.app.learn import is_learning, learn
    from sciml.app.train import read_training, train, training_facts
    from sciml.app.yaml_source import read_yaml

    source, directory = read_yaml(spec), out or Path("runs") / spec.stem
    part = "preconditioner" if is_learning(source) else "training"
    overrides = [*(set_ or ()), *([] if seed is None else [f"{part}.seed={seed}"])]
    if is_learning(source):
        _print_table(learn(source, directory, device, overrides))
        return
    record = train(read_training(source, overrides), directory, device, overrides)
    if record is None:  # one of several processes, of which another tells
        return
    _print_table(training_facts(record))
    typer.echo(f"plot    {directory / 'loss.png'}")
    typer.echo(f"report  {directory / 'report.html'}")
    typer.echo(f"weights {directory / 'operator.json'}")


app.command(epilog="Example:  sciml export data/darcy --to npz --out darcy.npz")(_reported(export))
app.command(epilog="Example:  sciml evaluate runs/mgno-darcy --data data/darcy --certify")(
    _reported(evaluate)
)


@app.command(epilog="Example:  sciml bench elliptic --quick")
@_reported
def bench(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="elliptic.")],
    out: Annotated[Path | None, typer.Option(help="Write the tables to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, for a first look.")] = False,
) -> None:
    """Measure the solvers against SciPy and PyAMG on this machine."""
    suites = ("elliptic",)
    if suite not in suites:
        raise InputError(f"unknown suite '{suite}'{did_you_mean(suite, suites)}")
    from sciml.app.bench import elliptic

    elliptic(out, quick)


def _load(
    path: Path, overrides: list[str] | None, device: str, dtype: str, seed: int
) -> tuple[Spec, Setting]:
    from sciml.app.run import Setting
    from sciml.app.spec import load_spec

    setting = Setting(device, dtype, seed)
    return load_spec(path, overrides or ()), setting


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read '{path}': {error.strerror}; name a run's directory"
        ) from None
    except ValueError:
        raise InputError(f"'{path}' is not JSON") from None
    if not isinstance(record, dict) or record.get("format") != "sciml run 1":
        raise InputError(f"'{path}' is no record of a run")
    return record


def _print_solution(path: Path) -> None:
    from sciml.core.files import load_solution

    solution = load_solution(path)
    known = solution.value[solution.value.isfinite()]
    _print_table(
        {
            "status": str(solution.status).partition(":")[0],
            "shape": " x ".join(str(n) for n in solution.value.shape),
            "range": f"{float(known.min()):.6g} to {float(known.max()):.6g}"
            if known.numel()
            else "no finite value",
            "true relative residual": f"{float(solution.residual.max()):.2e}",
            "iterations": str(int(solution.stats.iterations.max())),
            "solver": str(solution.solver),
        }
    )


def _print_table(lines: dict[str, str]) -> None:
    width = max(map(len, lines))
    for name, value in lines.items():
        typer.echo(f"{typer.style(name.ljust(width), bold=True)}  {value}")


if __name__ == "__main__":
    main()
