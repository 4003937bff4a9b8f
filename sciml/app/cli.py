"""The command line. Exit codes: 0 solved, 1 not solved, 2 bad input.

Only what a command needs is imported, and inside it: ``sciml --help`` loads typer and nothing of
weight.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import sciml
from sciml.app.console import (
    NOT_SOLVED,
    Command,
    Device,
    Dtype,
    Overrides,
    Seed,
    SpecFile,
    Trust,
    aligned,
    as_folder,
    complain,
    print_facts,
    reported,
)
from sciml.app.presets import names_starting, preset, presets
from sciml.core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from sciml.app.run import Setting
    from sciml.app.spec import Spec

_PICTURES = (".png", ".gif")
_DATA = (".h5", ".vtu", ".vti", ".pvd", ".csv")

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


def command(example: str, name: str | None = None) -> Callable[[Command], Command]:
    """A function as a command, ``name`` if not its own, whose help ends with ``example``."""

    def register(function: Command) -> Command:
        app.command(name, epilog=f"Example:  {example}")(reported(function))
        return function

    return register


@command("sciml new darcy --out darcy.yaml")
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


@command("sciml solve configs/poisson.yaml --set grid.shape=[129,129]")
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
    trust: Trust = False,
) -> None:
    """Solve a spec; write the solution, its plots, and a report."""
    from sciml.app.read import load_spec
    from sciml.app.run import Setting

    setting = Setting(device, dtype, seed)
    _solve(load_spec(spec, set_ or ()), setting, spec, set_, out, compare, trust)


@command("sciml fit configs/conductivity.yaml")
def fit(
    spec: SpecFile,
    set_: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the results go; runs/<name of the spec> by default.")
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    r"""Find what a spec leaves unknown from its observations, and how sure that is.

    A number: `parameters: {k: {unknown: 1.0, lower: 0}}`, 1.0 the first guess; k may stand in any
    expression.

    A field: `K: {unknown: {field: log, start: 1, prior: h1}}`, or prior tv or gaussian.

    A law: `K: {network: {of: \[u], width: 8, positive: true}}`.

    `observations: readings.csv` has a column for each coordinate and each field observed, and
    `noise:` is the standard deviation of a reading, without which no function can be found. Of
    several experiments a parameter is a list, and a column of its name says which one a reading is
    of. The spec's own solver answers at every guess.
    """
    from sciml.app.read import load_spec
    from sciml.app.run import Setting

    setting = Setting(device, seed=seed)
    stated = load_spec(spec, set_ or ())
    if not stated.unknown:
        raise InputError(
            f"{stated.locate('problem.parameters')}: nothing is unknown: write parameters: "
            "{k: {unknown: 1.0}}, 1.0 the first guess, and observations: readings.csv"
        )
    _solve(stated, setting, spec, set_, out)


def _solve(
    problem: Spec,
    setting: Setting,
    path: Path,
    set_: list[str] | None,
    out: Path | None,
    compare: bool = False,
    trust: bool = False,
) -> None:
    """Answer a spec read from ``path``, and leave what was found in a folder."""
    from sciml.app import output, record
    from sciml.app.console import solving
    from sciml.app.report import comparison, facts
    from sciml.app.run import FRAMES, add, answer, describe, write_run
    from sciml.core.disk import claimed
    from sciml.operators.module import trusted

    directory = as_folder(out or Path("runs") / path.stem)
    if compare:
        from sciml.app.compare import baselines, check_comparable

        check_comparable(problem)
    typer.echo(describe(problem))
    with claimed(directory, "solving in"):
        before = record.replaced(directory, problem)
        if before is not None:
            typer.echo(f"  {before}")
        with solving(problem) as watched, trusted(trust):
            result = answer(problem, setting, watched, directory / FRAMES)
        paths = write_run(result, directory, set_ or ())
    told = record.read(directory, record.RUN)
    for note in told["notes"]:
        typer.echo(f"  {note}")
    print_facts(facts(told) | output.facts(told))
    if compare:
        rows = baselines(result)
        add(directory, baselines=rows)
        typer.echo(comparison(rows))
    probed = problem.output is not None and problem.output.probes
    written = [*paths, *([directory / output.PROBES] if probed else [])]
    for what, endings in (("plot", _PICTURES), ("report", (".html",)), ("data", _DATA)):
        found = dict.fromkeys(p for p in written if p.suffix in endings and p.is_file())
        if found:
            first, *others = found
            typer.echo(f"{what:<7} {', '.join([str(first), *(p.name for p in others)])}")
    status = result.solution.status
    if not status.success:
        complain(str(status))
        raise typer.Exit(NOT_SOLVED)


@command("sciml validate configs/darcy.yaml")
def validate(
    spec: SpecFile, set_: Overrides = None, device: Device = "cpu", dtype: Dtype = "float64"
) -> None:
    """Say which kind of spec it is, check it and its data, estimate the memory; solve nothing."""
    from sciml.app.run import Setting
    from sciml.app.validate import validated

    title, notes, facts = validated(spec, set_ or (), Setting(device, dtype))
    typer.echo(title)
    for note in notes:
        typer.echo(f"  {note}")
    print_facts(facts)


@command("sciml converge configs/reference/nafems-t4.yaml")
def converge(
    spec: SpecFile,
    set_: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for the table, as CSV and JSON, and its picture.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float64",
) -> None:
    """Follow a spec's quantities over three grids or meshes: order, limit, estimated error."""
    from sciml.app.console import progress_line
    from sciml.app.converge import HEAD, converge, refinement, rows, write
    from sciml.app.read import load_spec
    from sciml.app.run import Setting, describe

    problem = load_spec(spec, set_ or ())
    directory = None if out is None else as_folder(out)
    typer.echo(describe(problem))
    trends, seconds = converge(problem, Setting(device, dtype), progress_line)
    typer.echo(f"  {refinement(problem)}")
    typer.echo(aligned([HEAD, *rows(trends)]))
    for trend in trends:
        if trend.why:
            typer.echo(f"  {trend.name} has no order: {trend.why}")
    if directory is not None:
        for path in write(trends, problem, seconds, directory):
            typer.echo(path)


@command("sciml sweep configs/reference/laminate.yaml --over k=1:1000:log")
def sweep(
    spec: SpecFile,
    over: Annotated[
        list[str] | None,
        typer.Option(
            help="A parameter and its range: k=1:1000, k=1:1000:log; in place of the spec's "
            "sweep:. Repeatable."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Relative to each quantity's largest value; 1e-3, or the spec's."),
    ] = None,
    set_: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the results go; runs/<spec>-sweep by default.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float64",
) -> None:
    """Draw a spec's quantities against its parameters, solved where the curves need it."""
    from sciml.app.console import progress_line
    from sciml.app.read import load_spec
    from sciml.app.run import Setting, describe
    from sciml.app.sweep import Curve, stated, sweep, write
    from sciml.core.run.quantities import is_constant

    problem = load_spec(spec, set_ or ())
    wanted, tolerance = stated(problem, over or (), tolerance)
    directory = as_folder(out or Path("runs") / f"{spec.stem}-sweep")
    typer.echo(describe(problem))
    found = sweep(problem, wanted, tolerance, Setting(device, dtype), progress_line)
    paths = write(found, directory)
    spline = isinstance(found, Curve) and found.kind == "spline"
    kind = "a cubic spline" if spline else "a Chebyshev series"
    solves = " x ".join(map(str, found.shape))
    typer.echo(f"{solves} solves, joined by {kind}, to {found.error:.1e}")
    for name, pair in found.extremes().items():
        told = []
        if is_constant(pair[0][0], pair[1][0]):
            typer.echo(f"{name}  {pair[1][0]:.7g} everywhere")
            continue
        for value, where in pair:
            at = (f"{one.name} = {x:.6g}" for one, x in zip(wanted, where, strict=True))
            told.append(f"{value:.7g} at {', '.join(at)}")
        typer.echo(f"{name}  {' to '.join(told)}")
    for path in paths:
        typer.echo(path)
    if not found.converged:
        complain(f"not to the tolerance {tolerance:g} with that many solves: does the curve jump?")
        raise typer.Exit(NOT_SOLVED)


@command("sciml modes configs/drum.yaml --count 12")
def modes(
    spec: SpecFile,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many, the lowest first; the spec's, or 6.")
    ] = None,
    set_: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the results go; runs/<spec>-modes by default.")
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Find the lowest eigenvalues of a spec's problem and their modes, each with bounds."""
    from sciml.app.console import solving
    from sciml.app.modes import describe, facts, find, table, write
    from sciml.app.read import load_spec
    from sciml.app.run import Setting
    from sciml.core.disk import claimed

    chosen, problem = Setting(device, seed=seed), load_spec(spec, set_ or ())
    directory = as_folder(out or Path("runs") / f"{spec.stem}-modes")
    typer.echo(describe(problem, count))
    with claimed(directory, "finding modes in"):
        with solving(problem) as watched:
            found = find(problem, chosen, count, progress=watched)
        summary, paths = write(found, problem, chosen, directory, set_ or ())
    for note in summary["notes"]:
        typer.echo(f"  {note}")
    typer.echo(aligned(table(summary)))
    print_facts(facts(summary))
    for path in paths:
        typer.echo(path)
    if not found.status.success:
        complain(str(found.status))
        raise typer.Exit(NOT_SOLVED)


@command("sciml report runs/cg runs/pinn --out comparison.html")
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
    from sciml.app.report import write_pair
    from sciml.app.run import rewrite_report

    if len(runs) > 2:
        raise InputError(f"a report is of one run or two; got {len(runs)}")
    if out is not None and out.is_dir():
        raise InputError(f"--out '{out}' is a directory; name a file such as comparison.html")
    if len(runs) == 1:
        typer.echo(rewrite_report(runs[0], out))
        return
    typer.echo(write_pair(runs[0], runs[1], out or Path("comparison.html")))


@command("sciml plot runs/darcy")
def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory or solution.h5.")],
    out: Annotated[Path | None, typer.Option(help="Directory for the figures.")] = None,
    grid: Annotated[
        str | None,
        typer.Option(help="Nodes an axis, such as 200,200: a trained function is drawn there."),
    ] = None,
) -> None:
    """Draw the figures of a run again."""
    from sciml.app.console import whole_numbers
    from sciml.app.run import redraw

    shape = None if grid is None else whole_numbers("--grid", grid)
    figures, notes = redraw(run, None if out is None else as_folder(out), shape)
    for path in figures.values():
        typer.echo(path)
    for note in notes:
        typer.echo(note)


@command("sciml sample runs/darcy points.csv --out values.csv")
def sample(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")],
    points: Annotated[
        Path,
        typer.Argument(metavar="POINTS", help="A CSV file; its first line names x, y, z and t."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The CSV file; RUN/sampled.csv by default.")
    ] = None,
) -> None:
    """Write the values of a run's answer at points; a trained function is evaluated itself."""
    from sciml.app.sample import sampled, write

    home = run if run.is_dir() else run.parent
    typer.echo(write(sampled(run, points), out or home / "sampled.csv"))


@command("sciml info runs/darcy")
def info(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="WHAT", help="A run, solution.h5, a spec, a mesh, a dataset or others' data."
        ),
    ],
) -> None:
    """Summarise a run, a solution file, a spec, a mesh or a dataset.

    Of a mesh, or a spec on one, its regions and boundaries are listed, with counts and sizes. Of
    data that another program wrote (.pt, .npz, HDF5) its layout, fields, splits and digests.
    """
    from sciml.app import record
    from sciml.core.problem.mesh_file import SUFFIXES
    from sciml.core.run import weights
    from sciml.operators import checkpoint

    if what.suffix in (".yaml", ".yml"):
        from sciml.app.read import load
        from sciml.app.validate import describe
        from sciml.core.run.serialise import dump

        stated = load(what)
        typer.echo(describe(stated, what))
        _print_mesh(getattr(stated, "on", None))
        typer.echo(json.dumps(dump(stated), indent=2))
    elif (what / "manifest.json").is_file():
        from sciml.app.generate import summarise

        print_facts(summarise(what))
    elif (what / record.FILE).is_file():
        _print_record(record.read(what, *record.FOLDERS))
    elif _of_others(what):
        from sciml.app.generate import describe_foreign

        print_facts(describe_foreign(what))
    elif (what / weights.FILE).is_file() or (what / checkpoint.OLDER).is_file():
        record.read(what, record.OPERATOR)  # tells that its record is missing
    elif what.is_file() and what.suffix.lower() in set(SUFFIXES) - {".h5"}:
        from sciml.core.problem.mesh_file import MeshFile

        _print_mesh(MeshFile(str(what)).mesh())
    elif what.is_file() and what.suffix != ".h5":
        raise InputError(
            f"'{what}' is none of what info reads: a run's directory, its solution.h5, a spec "
            "(.yaml), a mesh, a dataset, a trained network"
        )
    else:
        _print_solution(what)


def _of_others(what: Path) -> bool:
    """Whether this is data of another program: not what our own commands leave."""
    from sciml.core.run import weights
    from sciml.datasets.foreign import is_foreign, is_solution
    from sciml.operators import checkpoint

    own = (weights.FILE, checkpoint.OLDER, "solution.h5")
    kept = what.is_dir() and any((what / name).is_file() for name in own)
    return not kept and is_foreign(what) and not is_solution(what)


def _print_mesh(on: Any) -> None:
    """The parts of a mesh; nothing of other places."""
    from sciml.app import meshes
    from sciml.core.problem.mesh import Mesh

    if isinstance(on, Mesh):
        print_facts(meshes.facts(on))
        typer.echo(aligned(meshes.groups(on)))


def _print_record(found: Mapping[str, Any]) -> None:
    from sciml.app import output, record
    from sciml.app.report import facts
    from sciml.app.train import facts as training_facts

    if found["format"] == record.MODES:
        from sciml.app import modes

        typer.echo(found["description"])
        typer.echo(aligned(modes.table(found)))
        print_facts(modes.facts(found))
        return
    if found["format"] != record.RUN:
        print_facts(training_facts(found))
        return
    typer.echo(found["description"])
    for note in found["notes"]:
        typer.echo(f"  {note}")
    print_facts(facts(found) | output.facts(found))


def _print_solution(path: Path) -> None:
    from sciml.core.run.solution import load_solution

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
        | ({"derived": ", ".join(solution.kept)} if solution.kept else {})
    )


@command("sciml certify runs/darcy --steps 5")
def certify(
    what: Annotated[
        Path, typer.Argument(metavar="RUN|SPEC", help="A run's directory, or a spec to solve.")
    ],
    set_: Overrides = None,
    steps: Annotated[int, typer.Option(min=0, help="Conjugate-gradient steps to tighten by.")] = 0,
    pde: Annotated[
        bool, typer.Option("--pde", help="The distance to the differential equation's solution.")
    ] = False,
) -> None:
    """Bound the distance to the exact solution from both sides; a run's report tells it.

    To that of the discrete problem, or with --pde to that of the differential equation, error of
    the grid included: on grids, for -div(K grad u) + c u = f. The bounds of a run's own spec are
    written into its record and its report.
    """
    from sciml.app.read import explain, load_spec
    from sciml.app.run import Setting, add, answer, bounds, describe, read_solution, run_spec
    from sciml.core.problem.place import discrete

    # A spec has a suffix; of anything else that is not there the folder of a run is meant.
    of_run = what.is_dir() or not (what.exists() or what.suffix)
    read = run_spec if of_run else load_spec
    problem = read(what, set_ or ())
    if not problem.problem.linear:
        raise InputError(
            "a certificate is for steady linear problems; this one is nonlinear or in time"
        )
    stored = read_solution(what) if what.is_dir() else answer(problem, Setting()).solution
    if pde and steps:
        raise InputError("--steps tightens the bounds of the discrete problem, not those of --pde")
    try:
        if pde:
            bound: Any = sciml.certify(stored, problem.problem, discrete(problem.on), of="pde")
        else:
            # A hole holds no answer; its points are no unknowns, so any number will do there.
            bound = sciml.certify(
                stored.value.nan_to_num(0.0), problem.problem, discrete(problem.on), steps=steps
            )
    except InputError as error:
        raise InputError(explain(error, problem)) from None
    kept = add(what, certificate=bounds(bound)) if what.is_dir() and not set_ else None
    typer.echo(describe(problem))
    if not stored.status.success:
        typer.echo(f"note: the solve beneath did not converge ({stored.status.name.lower()})")
    typer.echo(str(bound))
    if kept is not None:
        typer.echo(f"report  {kept}")


@command("sciml generate configs/datasets/darcy.yaml --out data/darcy")
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
    from sciml.app.generate import make_dataset
    from sciml.app.read import load_family

    family = load_family(spec, set_ or ())
    if count is not None:
        family = family.with_count(count)
    make_dataset(family, as_folder(out), engine=engine, workers=workers, device=device)


@command("sciml import pairs/darcy --as data/darcy   # .pt, .npz, PDEBench, The Well", "import")
def import_(
    what: Annotated[
        Path,
        typer.Argument(metavar="WHAT", help="A file, or a folder of files, of other programs."),
    ],
    as_: Annotated[Path, typer.Option("--as", help="The dataset's folder, which is made.")],
    axes: Annotated[
        str | None,
        typer.Option(help="Of the arrays, where they cannot be told: sample,time,channel,x,y,z."),
    ] = None,
    boundary: Annotated[
        str | None, typer.Option(help="One per axis of space: dirichlet, neumann or periodic.")
    ] = None,
) -> None:
    """Write data that another program made as a dataset of ours, every file under its hash."""
    from sciml.app.generate import describe_dataset
    from sciml.datasets.foreign import Foreign, import_foreign

    given = Foreign(what, axes=_names(axes), boundary=_names(boundary))
    import_foreign(given, as_folder(as_))
    print_facts(describe_dataset(as_))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


@command("sciml export data/darcy --to npz --out darcy.npz")
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A dataset's folder, or others' data.")
    ],
    to: Annotated[str, typer.Option(help="neuraloperator (.pt pairs) or npz (one archive).")],
    out: Annotated[
        Path, typer.Option(help="pairs/darcy makes pairs/darcy_train_64.pt; or the archive's name.")
    ],
) -> None:
    """Write a dataset on a grid for other programs: inputs and outputs, all samples of a split."""
    from sciml.datasets.export import export_archive, export_pairs

    known = ("neuraloperator", "npz")
    if to not in known:
        raise InputError(f"unknown format '{to}'{did_you_mean(to, known)}", "--to")
    if to == "npz":
        typer.echo(export_archive(folder, out))
        return
    for path in export_pairs(folder, out.parent, out.name):
        typer.echo(path)


@command("sciml train configs/train/mgno-darcy.yaml --device cuda")
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
    trust: Trust = False,
) -> None:
    """Fit a neural operator to data or to problems solved meanwhile, or a preconditioner."""
    from sciml.app.read import PRECONDITIONER, kind_of, read_training
    from sciml.app.train import PICTURE, REPORT, facts, train
    from sciml.app.yaml import read_yaml
    from sciml.operators.module import trusted

    source, directory = read_yaml(spec), as_folder(out or Path("runs") / spec.stem)
    part = "preconditioner" if kind_of(source) is PRECONDITIONER else "training"
    overrides = [*(set_ or ()), *([] if seed is None else [f"{part}.seed={seed}"])]
    with trusted(trust):
        record = train(read_training(source, overrides), directory, device, overrides)
    if record is None:  # one of several processes, of which another tells
        return
    print_facts(facts(record))
    typer.echo(f"plot    {directory / PICTURE}")
    typer.echo(f"report  {directory / REPORT}")
    typer.echo(f"weights {directory / record['weights']}")


@command("sciml evaluate runs/mgno-darcy --data data/darcy --certify")
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder with a trained operator.")],
    data: Annotated[
        list[Path],
        typer.Option(
            help="A dataset's folder, or others' data. Repeatable: further ones stand beside it."
        ),
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
    trust: Trust = False,
) -> None:
    """Measure a trained operator: errors, resolutions, seconds beside multigrid's, certificates."""
    from sciml.app.evaluate import Question, measure, tables, write
    from sciml.core.disk import claimed
    from sciml.operators.module import trusted

    home = run if run.is_dir() else run.parent
    question = Question(
        run, tuple(data), split, transfer, certify, samples, frames, start, batch, device
    )
    folder = as_folder(out or home / "evaluation")
    with claimed(folder, "evaluating in"), trusted(trust):
        findings = measure(question)
        paths, notes = write(question, findings, folder)
    for title, rows in tables(findings):
        typer.echo(typer.style(title, bold=True))
        typer.echo(aligned(rows) + "\n")
    for line in (*paths, *notes):
        typer.echo(line)


@command("sciml schema > schema.json   # completion in editors")
def schema() -> None:
    """Print the JSON Schema of a spec for ``sciml solve``."""
    from sciml.app.read import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@command("sciml bench elliptic --quick")
def bench(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="elliptic, reference or pinnacle.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the tables to this file; of reference and pinnacle, .json is gone on from."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, for a first look.")] = False,
    names: Annotated[
        str | None, typer.Option(help="Of pinnacle: its problems, with commas between.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Of pinnacle: how many seeds, of which the worst is shown.")
    ] = None,
    files: Annotated[
        Path | None, typer.Option(help="Of pinnacle: the folder of the benchmark's own answers.")
    ] = None,
) -> None:
    """Measure the solvers against SciPy and PyAMG, or the answers against published values."""
    known = ("elliptic", "reference", "pinnacle")
    if suite not in known:
        raise InputError(f"unknown suite '{suite}'{did_you_mean(suite, known)}")
    for name, option in (("--names", names), ("--seeds", seeds), ("--files", files)):
        if option is not None and suite != "pinnacle":
            raise InputError(f"{name} is for sciml bench pinnacle", name)
    if quick and suite != "elliptic":
        raise InputError("--quick is for sciml bench elliptic", "--quick")
    if suite != "elliptic":
        from sciml.app import pinnacle, reference
        from sciml.app.console import progress_line

        kept = out if out is not None and out.suffix == ".json" else None
        head: tuple[str, ...]
        if suite == "reference":
            head, rows = reference.HEAD, reference.reference(reference.cases(), kept, progress_line)
        else:
            asked = pinnacle.CASES if names is None else names.split(",")
            many = 1 if seeds is None else seeds
            head, rows = pinnacle.HEAD, pinnacle.pinnacle(asked, many, files, kept, progress_line)
        table = aligned([head, *rows])
        typer.echo(table)
        if out is not None and kept is None:
            out.write_text(table + "\n", encoding="utf-8")
        return
    from sciml.app.bench import elliptic

    elliptic(out, quick)


if __name__ == "__main__":
    main()
