"""The commands on runs: ``solve``, ``report``, ``plot``, ``info``, ``certify``, ``bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sciml.app.console import (
    NOT_SOLVED,
    Device,
    Dtype,
    Overrides,
    Seed,
    SpecFile,
    as_folder,
    complain,
    print_facts,
)
from sciml.core.errors import InputError, did_you_mean

_DATA = (".h5", ".vtu", ".vti", ".pvd")
_SUITES = ("elliptic",)


def solve(
    spec: SpecFile,
    set_: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the results go; runs/<name of the spec> by default.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Time classical solvers on the same problem too.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> None:
    """Solve a spec; write the solution, its plots, and a report."""
    from sciml.app.progress import solving
    from sciml.app.report import facts
    from sciml.app.run import FRAMES, Setting, answer, describe, record
    from sciml.app.run_folder import write_run
    from sciml.app.spec import load_spec

    setting = Setting(device, dtype, seed)
    problem = load_spec(spec, set_ or ())
    directory = as_folder(out or Path("runs") / spec.stem)
    if compare:
        from sciml.app.compare import baselines, check_comparable, plain_table

        check_comparable(problem)
    typer.echo(describe(problem))
    with solving(problem) as watched:
        result = answer(problem, setting, watched, directory / FRAMES)
    for note in result.solution.notes:
        typer.echo(f"  {note}")
    rows = baselines(result) if compare else []
    paths = write_run(result, directory, set_ or (), rows)
    print_facts(facts(record(result)))
    if compare:
        typer.echo(plain_table(rows))
    typer.echo(f"plot    {directory / 'solution.png'}")
    typer.echo(f"report  {directory / 'report.html'}")
    typer.echo(f"data    {', '.join(str(path) for path in paths if path.suffix in _DATA)}")
    status = result.solution.status
    if not status.success:
        complain(str(status))
        raise typer.Exit(NOT_SOLVED)


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN [RUN]", help="One run's directory, or two.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file; RUN/report.html, or comparison.html for two runs."),
    ] = None,
) -> None:
    """Write the report of a run anew, or one that puts two runs side by side."""
    from sciml.app.run_folder import rewrite_report

    if len(runs) > 2:
        raise InputError(f"a report is of one run or two; got {len(runs)}")
    if out is not None and out.is_dir():
        raise InputError(f"--out '{out}' is a directory; name a file such as comparison.html")
    if len(runs) == 1:
        typer.echo(rewrite_report(runs[0], out))
        return
    from sciml.app.report_pair import write_pair

    typer.echo(write_pair(runs[0], runs[1], out or Path("comparison.html")))


def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory or solution.h5.")],
    out: Annotated[Path | None, typer.Option(help="Directory for the figures.")] = None,
) -> None:
    """Draw the figures of a run again."""
    from sciml.app.run_folder import draw_figures, read_run
    from sciml.core.files import load_fields, load_solution

    solution, fields = load_solution(run), load_fields(run)
    home = run if run.is_dir() else run.parent
    title = read_run(home)["title"] if (home / "run.json").is_file() else ""
    for path in draw_figures(solution, fields, as_folder(out or home), title).values():
        typer.echo(path)


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

        print_facts(summarise(what))
    elif (what / "operator.json").is_file():
        from sciml.app.train import read_record, training_facts

        print_facts(training_facts(read_record(what)))
    elif (what / "weights.safetensors").is_file():
        from sciml.app.learn import FORMAT, learning_facts
        from sciml.app.train import read_record

        print_facts(learning_facts(read_record(what, FORMAT)))
    elif (what / "run.json").is_file():
        from sciml.app.report import facts
        from sciml.app.run_folder import read_run

        summary = read_run(what)
        typer.echo(summary["description"])
        for note in summary["notes"]:
            typer.echo(f"  {note}")
        print_facts(facts(summary))
    elif what.is_file() and what.suffix != ".h5":
        raise InputError(
            f"'{what}' is none of what info reads: a run's directory, its solution.h5, a spec "
            "(.yaml), a dataset, a trained network"
        )
    else:
        _print_solution(what)


def _print_solution(path: Path) -> None:
    from sciml.core.files import load_solution

    solution = load_solution(path)
    size = solution.value.abs() if solution.value.is_complex() else solution.value
    known = size[size.isfinite()]
    print_facts(
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


def certify(
    what: Annotated[
        Path, typer.Argument(metavar="RUN|SPEC", help="A run's directory, or a spec to solve.")
    ],
    set_: Overrides = None,
    steps: Annotated[int, typer.Option(min=0, help="Conjugate-gradient steps to tighten by.")] = 0,
) -> None:
    """Bound the distance to the exact discrete solution from both sides; a run's report tells it.

    The bounds of a run's own spec are written into its record and its report.
    """
    import sciml
    from sciml.app.run import Setting, answer, describe
    from sciml.app.run_folder import keep_certificate, run_spec
    from sciml.app.spec import explain, load_spec
    from sciml.core.files import load_solution
    from sciml.core.place import discrete

    read = run_spec if what.is_dir() else load_spec
    problem = read(what, set_ or ())
    if not problem.problem.linear:
        raise InputError(
            "a certificate is for steady linear problems; this one is nonlinear or in time"
        )
    stored = load_solution(what) if what.is_dir() else answer(problem, Setting()).solution
    try:
        # A hole holds no answer; its points are no unknowns, so any number will do there.
        bound = sciml.certify(
            stored.value.nan_to_num(0.0), problem.problem, discrete(problem.on), steps=steps
        )
    except InputError as error:
        raise InputError(explain(error, problem)) from None
    typer.echo(describe(problem))
    if not stored.converged:
        typer.echo(f"note: the solve beneath did not converge ({stored.status.name.lower()})")
    typer.echo(str(bound))
    if what.is_dir() and not set_:
        typer.echo(f"report  {keep_certificate(what, bound)}")


def bench(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="elliptic.")],
    out: Annotated[Path | None, typer.Option(help="Write the tables to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, for a first look.")] = False,
) -> None:
    """Measure the solvers against SciPy and PyAMG on this machine."""
    if suite not in _SUITES:
        raise InputError(f"unknown suite '{suite}'{did_you_mean(suite, _SUITES)}")
    from sciml.app.bench import elliptic

    elliptic(out, quick)
