"""One run: a spec answered, measured against what is known, and the folder that it leaves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciml.app import found, output, record
from sciml.app.console import Watch
from sciml.app.read import explain, read_spec
from sciml.app.report import SOLUTION, drawn, html
from sciml.app.spec import Spec
from sciml.app.yaml import parse_yaml
from sciml.core.algebra.maps import LinearSystem
from sciml.core.disk import write_text
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import AXES, Box, Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.place import discrete
from sciml.core.problem.reader import FieldFile
from sciml.core.problem.unknown import put
from sciml.core.run.certificate import Certificate, PdeCertificate
from sciml.core.run.files import FUNCTION, box_of, load_fields, save_solution
from sciml.core.run.frames import keep_state
from sciml.core.run.labels import Labels, called
from sciml.core.run.quantities import Output
from sciml.core.run.solution import Solution, load_solution, sample_names
from sciml.core.run.status import Doubt
from sciml.discretization import discretize, memory_estimate
from sciml.discretization.elements.boundary import check_sides
from sciml.discretization.fields import beside, exact_on_mesh, hole_on, values_on
from sciml.solvers.exact import check_exact
from sciml.solvers.linear.certify import certify
from sciml.solvers.resolution import resolved, with_space, with_stiffness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DTYPES = {"float64": torch.float64, "float32": torch.float32}
_ROUNDED = (
    "--dtype float32: the residual is that of the rounded system, whose answer may differ from the "
    "exact one's by 1e-4 and more on fine grids; use float64 where that matters"
)
FRAMES = "frames.h5"
MESH = "mesh.msh"  # of a geometry, for Gmsh
REPORT = "report.html"
RESIDUAL, CONVERGENCE, ERROR = "residual", "convergence", "error_bound"
_CAPTIONS = {
    "mises": "Von Mises stress",
    ERROR: "Where the error may be: each part's share of its bound, squares of which add up",
    RESIDUAL: "Residual of the discrete equations, relative to the rms of their right-hand side",
}
_POINTS = "Residual of the equation, and the points it was trained at"


@dataclass(frozen=True)
class Setting:
    """Where and in what precision a run computes; ``seed`` starts every random generator."""

    device: str = "cpu"
    dtype: str = "float64"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"--dtype '{self.dtype}' is unknown{did_you_mean(self.dtype, DTYPES)}")
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            raise InputError(f"--device '{self.device}' is unknown; write cpu or cuda") from None
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: no CUDA device can be used here; write --device cpu")


@dataclass(frozen=True)
class Answer:
    """A solution with what a run reports beside it.

    ``solution``: NaN inside the obstacle. ``error``: relative L2 error against the spec's exact
    solution, of shape batch; up to a constant where the problem leaves one free. ``fields``: the
    coefficients that vary, on the grid. ``seconds``: wall time of each stage. ``measured``: what
    the spec asks for under ``output:``.
    """

    spec: Spec
    setting: Setting
    solution: Solution
    error: torch.Tensor | None
    fields: Mapping[str, torch.Tensor]
    unknowns: int
    defect: torch.Tensor | None
    seconds: Mapping[str, float]
    measured: output.Measured | None = None


def lower(spec: Spec, setting: Setting) -> LinearSystem:
    """The spec's linear system; an InputError names file, line and column."""
    dtype, device = DTYPES[setting.dtype], setting.device
    try:
        system = discretize(spec.problem, discrete(spec.on), dtype=dtype, device=device)
    except InputError as error:
        raise InputError(explain(error, spec)) from None
    return replace(system, notes=(*system.notes, _ROUNDED)) if dtype == torch.float32 else system


def answer(
    spec: Spec,
    setting: Setting,
    progress: Watch | None = None,
    frames: Path | None = None,
    initial: torch.Tensor | None = None,
) -> Answer:
    """Discretise, set up, solve, and compare with the exact solution where the spec has one.

    ``frames``: the file in which a problem in time keeps its frames while it runs, and from which
    it goes on when a run before this one was killed. ``initial``: a first guess of a steady answer,
    (*batch, [fields], *grid).
    """
    try:
        asked, told = check(spec)
        _check_begun(spec, None if frames is None else frames.parent)
    except InputError as fault:
        raise InputError(explain(fault, spec)) from None
    torch.manual_seed(setting.seed)
    np.random.seed(setting.seed)  # PyAMG draws its test vectors from it
    start = time.perf_counter()
    system = reduced(spec, setting)
    seconds = {"discretise": time.perf_counter() - start} if system is not None else {}
    try:
        solution, steps = _solve(asked, setting, system, progress, frames, initial)
        if solution.on is not None and solution.on is not spec.on:
            spec = spec.moved(solution.on)
            asked = output.Asked(spec)
        solution = resolved(spec.problem, spec.on, solution)
        solution = with_space(spec.problem, spec.on, spec.solver, solution)
        solution = with_stiffness(spec.problem, spec.on, solution)
        seen = () if steps is None else steps.notes
        solution = replace(solution, notes=(*solution.notes, *told, *seen))
        if solution.parameters or solution.functions:
            spec = _found(spec, solution)
            asked = output.Asked(spec)
        fields = _residual(system, solution)
        solution = _told(solution, spec)
        # A flow's values inside an obstacle are means over faces, by which its forces are measured.
        numbers = None if spec.output is None else output.measured(solution, asked, steps)
        if numbers is not None:
            solution = replace(solution, notes=(*solution.notes, *numbers.notes))
        solution = _without_hole(solution, spec)
        solution = solution.with_derived(*(() if spec.output is None else spec.output.fields))
        solution = _certified(solution, spec)
        fields = beside(spec.problem, spec.on, solution.value) | found.on_place(solution) | fields
        if isinstance(solution.certificate, PdeCertificate):
            fields |= _share_of_error(solution.certificate, spec.on)
        error = error_of(solution, spec)
    except InputError as fault:
        raise InputError(explain(fault, spec)) from None
    seconds["set up"] = solution.stats.setup_seconds
    seconds["solve"] = solution.stats.solve_seconds
    unknowns = (
        solution.last[(0,) * solution.residual.ndim].numel() if system is None else system.A.size
    )
    defect = None if system is None else system.defect
    return Answer(spec, setting, solution, error, fields, unknowns, defect, seconds, numbers)


def _certified(solution: Solution, spec: Spec) -> Solution:
    """With the bounds that the spec asks for, where the solver has not given them."""
    held = isinstance(solution.certificate, PdeCertificate)
    if spec.certify is None or (spec.certify == "pde" and held):
        return solution
    try:
        if spec.certify == "pde":
            bounds: Any = certify(solution, spec.problem, discrete(spec.on), of="pde")
        else:
            bounds = certify(solution, spec.problem, discrete(spec.on))
    except InputError as error:
        raise InputError(error.message, error.key or "certify") from None
    return replace(solution, certificate=bounds)


def _share_of_error(bounds: PdeCertificate, on: Grid | Mesh | Points) -> dict[str, torch.Tensor]:
    """What each element, cell or node has of the bound of the error; their squares sum to its."""
    found = bounds.cells
    if not isinstance(on, Grid) or on.centring == "cell":
        return {ERROR: found}
    square = found.square()
    for k in range(len(on.shape)):
        axis = k - len(on.shape)
        none = torch.zeros_like(square.narrow(axis, 0, 1))
        square = (torch.cat([square, none], axis) + torch.cat([none, square], axis)) / 2
    return {ERROR: square.sqrt()}


def check(spec: Spec) -> tuple[output.Asked, tuple[str, ...]]:
    """What is asked for, and what is to be said of the exact solution; nothing is assembled.

    Raises InputError, with its key; of a mesh on which the problem is not posed before all else.
    """
    if isinstance(spec.on, Mesh):
        check_sides(spec.problem, spec.on)
    return output.check(spec), check_exact(spec.problem, spec.on)


def _check_begun(spec: Spec, folder: Path | None) -> None:
    """Raise InputError for a start from a run on another box, or from one to be written over."""
    for value in spec.problem.first.values():
        if not isinstance(value, FieldFile) or value.saved_field is None:
            continue
        saved, box = box_of(Path(value.file)), spec.problem.domain
        if saved and isinstance(box, Box) and (saved.lower, saved.upper) != (box.lower, box.upper):
            there, here = (f"{list(b.lower)} to {list(b.upper)}" for b in (saved, box))
            raise InputError(
                f"the run in '{Path(value.file).parent}' is on the box {there}, this problem on "
                f"{here}: values are taken where they are",
                "problem.initial",
            )
        if folder is not None and folder.resolve() == Path(value.file).resolve().parent:
            raise InputError(
                f"the run would be written over the one in '{folder}' from which it begins; give "
                "--out another folder",
                "problem.initial",
            )


def _found(spec: Spec, solution: Solution) -> Spec:
    """The spec, the parameters that were unknown put in."""
    known = {**spec.problem.parameters, **solution.parameters}
    problem = replace(spec.problem, parameters=known)
    return replace(spec, problem=put(problem, solution.functions))


def reduced(spec: Spec, setting: Setting) -> LinearSystem | None:
    """The linear system that the spec's solver answers; None where it is given the problem."""
    gridded = not (isinstance(spec.on, Points) or getattr(spec.solver, "reads_problem", False))
    return lower(spec, setting) if spec.problem.linear and gridded else None


def begin(spec: Spec, setting: Setting, system: LinearSystem | None) -> Any:
    """The state with which the spec's solver starts; raises InputError where it cannot."""
    if system is not None:
        return spec.solver.init(system)
    if setting.dtype != "float64":
        raise InputError("--dtype float32 is for steady linear problems; this one needs float64")
    with _default(setting.device):
        return spec.solver.init(spec.problem, spec.on)


def _solve(
    asked: output.Asked,
    setting: Setting,
    system: LinearSystem | None,
    progress: Watch | None,
    frames: Path | None,
    initial: torch.Tensor | None,
) -> tuple[Solution, output.Steps | None]:
    """The answer, and what was asked for at every step."""
    spec = asked.spec
    state = begin(spec, setting, system)
    if system is not None:
        return spec.solver.run(state, initial=initial, progress=progress), None
    with _default(setting.device):
        if progress is not None:
            progress.follow(state)
        more: dict[str, Any] = {"initial": initial}
        if spec.problem.time is not None:
            more = {"frames": frames}
        steps = None
        if output.watched(spec, kept=frames is not None):
            steps = output.Steps(asked, None if frames is None else frames.parent / output.PROBES)
            more["observe"] = steps
        try:
            solution: Solution = spec.solver.run(state, progress=progress, **more)
        finally:
            if steps is not None:
                steps.close()
    return solution, steps


def _default(device: str) -> AbstractContextManager[Any]:
    """That new tensors are on a device; nothing where they are, since torch asks at every call."""
    wanted = torch.device(device)
    return nullcontext() if torch.get_default_device() == wanted else wanted


def _told(solution: Solution, spec: Spec) -> Solution:
    """The answer with its problem and its names, on the CPU."""
    value, residual = solution.value.detach().cpu(), solution.residual.detach().cpu()
    samples = sample_names(spec.problem, tuple(residual.shape), spec.labels)
    return replace(
        solution,
        value=value,
        residual=residual,
        problem=spec.problem,
        labels=spec.labels,
        samples=samples,
    )


def _without_hole(solution: Solution, spec: Spec) -> Solution:
    on = spec.on if solution.on is None else solution.on
    hole = hole_on(spec.problem, on)
    if hole is None:
        return solution
    return replace(solution, value=torch.where(hole, torch.nan, solution.value))


def error_of(solution: Solution, spec: Spec) -> torch.Tensor | None:
    """Relative L2 error against the spec's exact solution, of shape batch; None without one."""
    if spec.problem.exact is None:
        return None
    if isinstance(spec.on, Mesh):
        return solution.error(exact_on_mesh(spec.problem, spec.on))
    hole = hole_on(spec.problem, spec.on)
    # Of a problem in time the last frame is compared.
    t = None if solution.times is None else float(solution.times[-1])
    exact = values_on(spec.problem, spec.on, spec.problem.exact, "problem.exact", hole, t)
    return solution.error(exact)


def _residual(system: LinearSystem | None, solution: Solution) -> dict[str, torch.Tensor]:
    """|b - A u| of a single field, relative to the rms of b; zero where u is known."""
    if system is None or len(system.fields) > 1:
        return {}
    A, b = system.A.detach(), system.b.detach()
    value = solution.value.detach().to(b.device).nan_to_num(0.0)
    gap = b - A.apply(system.restrict(value).to(b.dtype))
    scale = b.abs().square().mean().sqrt()
    size = (system.lift(gap) - system.lift(torch.zeros_like(gap))).abs()
    return {"residual": (size / scale if scale > 0 else size).detach().cpu()}


def describe(spec: Spec) -> str:
    """One line: what is solved on what, and by what."""
    span = spec.problem.time
    title = " ".join(spec.problem.name.split()) or Path(spec.path).stem
    when = "" if span is None else f", t = {span.start:g} to {span.end:g} in {span.frames} frames"
    kind, solver = spec.problem.equation.kind, spec.solver.kind
    place = "" if spec.problem.of_time_alone else f" on {extent(spec.on)}"
    return f"{title}: {kind}{place}{when}, solver {solver}"


def extent(on: Grid | Mesh | Points) -> str:
    """A grid, mesh or set of points in words: ``65 x 65 nodes``."""
    points = " x ".join(str(n) for n in on.shape)
    if isinstance(on, Points):
        d = on.box.dimension
        return f"{points} points in {d} dimensions" if d else "t alone"
    if isinstance(on, Mesh):
        return f"{points} nodes ({len(on.cells)} {on.element} {on.kind.plural})"
    return f"{points} {on.centring}s"


def memory(spec: Spec, setting: Setting) -> int:
    """Bytes that the discretisation takes at its peak, estimated without allocating them."""
    return memory_estimate(spec.problem, discrete(spec.on), DTYPES[setting.dtype].itemsize)


def recorded(result: Answer, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What ``run.json`` says: enough to repeat the run and to judge it."""
    solution, spec, setting = result.solution, result.spec, result.setting
    return record.of_spec(
        record.RUN,
        spec,
        title=spec.problem.name or Path(spec.path).stem,
        description=describe(spec),
        overrides=overrides,
        device=setting.device,
        dtype=setting.dtype,
        seed=setting.seed,
        notes=solution.notes,
        doubts=[str(note) for note in solution.notes if isinstance(note, Doubt)],
        status=solution.status.name.lower(),
        advice=solution.status.value,
        statuses=[status.name.lower() for status in solution.statuses],
        residual=solution.residual.tolist(),
        iterations=solution.stats.iterations.tolist(),
        error=None if result.error is None else result.error.tolist(),
        defect=None if result.defect is None else result.defect.tolist(),
        parameters={
            name: {"value": value, "standard_error": _finite(solution.standard_errors.get(name))}
            for name, value in solution.parameters.items()
        },
        certificate=None if solution.certificate is None else bounds(solution.certificate),
        unknowns=result.unknowns,
        fields=list(solution.fields),
        times=None if solution.times is None else solution.times.tolist(),
        seconds=dict(result.seconds),
        **output.recorded(result.measured),
        baselines=[],
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def bounds(found: Certificate | PdeCertificate) -> dict[str, Any]:
    """A certificate as plain data: per sample, relative to the solution's own energy norm."""
    if isinstance(found, PdeCertificate):
        return {
            "of": "pde",
            "lower": found.relative_lower.tolist(),
            "upper": found.relative_upper.tolist(),
            "notes": list(found.notes),
            "reason": found.reason,
        }
    return {
        "lower": found.relative_lower.tolist(),
        "upper": found.relative_upper.tolist(),
        "probability": found.probability,
        "steps": found.steps,
        "reason": found.reason,
    }


def write_run(result: Answer, folder: Path, overrides: Iterable[str] = ()) -> list[Path]:
    """Write the solution, the record, the figures and the report; returns the paths.

    In this order, so that what was computed is on the disk before anything is drawn. What cannot be
    drawn, or not for want of room, is a note of the record.
    """
    summary = recorded(result, overrides)
    solution = result.solution
    try:
        paths = list(save_solution(solution, folder, result.fields))
        if result.spec.geometry is not None:
            result.spec.geometry.write(folder / MESH)
            paths.append(folder / MESH)
        hidden = result.spec.problem.obstacle is not None or solution.history is not None
        keep_state(folder / FRAMES, paths[0], hidden)
        (folder / FRAMES).unlink(missing_ok=True)  # all of them are in solution.h5 now
        (folder / f"{RESIDUAL}.png").unlink(missing_ok=True)  # that of an earlier run
        kept = [path.name for path in paths if path.name in ("solution.h5", FUNCTION)]
        summary["hashes"] = record.hashes(folder, *kept)
        record.write(folder, summary)
        if result.measured is not None:
            by_step = output.watched(result.spec, kept=True)
            assert result.spec.output is not None
            stated = result.spec.output.quantities
            paths += output.write(result.measured, solution, stated, folder, by_step)
        paths += found.write(solution, folder)
    except OSError as error:
        raise InputError(f"cannot write to '{folder}': {error.strerror or error}") from None
    wanted = result.spec.output
    figures, notes = draw_figures(solution, result.fields, folder, summary["title"], wanted)
    report = add(
        folder,
        figures={caption: path.name for caption, path in figures.items()},
        notes=[*summary["notes"], *notes],
    )
    return [*paths, *figures.values(), folder / record.FILE, report]


def draw_figures(
    solution: Solution,
    fields: Mapping[str, torch.Tensor],
    directory: Path,
    title: str = "",
    wanted: Output | None = None,
) -> tuple[dict[str, Path], list[str]]:
    """Draw the answer, what follows from it, its convergence and the fields beside it.

    ``wanted``: what was asked for, of which lines and moving pictures are drawn. Returns files by
    caption, and notes, which say of a figure that it cannot be drawn, and why.
    """
    from sciml.app import figures_derived as derived
    from sciml.app.figures import (
        draws_by_pyvista,
        names_of_samples,
        plot_convergence,
        plot_curves,
        plot_field,
        plot_points,
        plot_residual,
        plot_solution,
        symbol,
    )  # fmt: skip

    plots: dict[str, tuple[str, Callable[[Path], Any]]] = {
        SOLUTION: ("solution.png", lambda path: plot_solution(solution, path, title)),
    }
    if derived.is_displacement(solution):
        plots["Deformed shape"] = ("deformed.png", partial(derived.plot_deformed, solution))
    if derived.is_flow(solution):
        plots["Streamlines"] = ("streamlines.png", partial(derived.plot_streamlines, solution))
    for name in solution.kept:
        caption = _CAPTIONS.get(name, name.replace("_", " ").capitalize())
        plots[caption] = (f"{name}.png", partial(derived.plot_derived, solution, name))
    figures, notes = dict[str, Path](), list[str]()
    for name, line in ({} if wanted is None else wanted.lines).items():
        if isinstance(solution.on, Points) and solution.function is None:
            notes.append(
                f"line {name} is not drawn: between scattered points only the trained function "
                "tells, in the run that trains it"
            )
            continue
        told = replace(solution, labels=output.labelled_along(solution.labels, line.of))
        along = partial(derived.plot_along, told, *output.along(solution, line))
        plots[f"Along {called(solution.labels, name)}"] = (f"line-{name}.png", along)
    if isinstance(solution.on, Mesh) and solution.on.dimension == 3 and not draws_by_pyvista():
        notes.append(
            "solids are drawn by matplotlib; PyVista draws them smoother, where it is installed: "
            "pip install 'sciml-pde[pyvista]'"
        )
    if wanted is not None and wanted.animation:
        plots["All frames"] = ("animation.gif", partial(derived.animate, solution))
    plots["Convergence"] = (f"{CONVERGENCE}.png", lambda path: plot_convergence(solution, path))
    for curve in found.curves(solution):
        law = {symbol(curve.name): curve.value}
        band = (curve.lower, curve.upper)
        picture = partial(plot_curves, curve.at, law, symbol(curve.of), band=band)
        plots[f"{curve.name}, as found"] = (f"{curve.name}.png", picture)
    for name, values in fields.items():
        assert solution.on is not None
        on, samples = discrete(solution.on), names_of_samples(solution)
        caption = _CAPTIONS.get(name, f"Coefficient {name}")
        drawing: Callable[[], Figure] = partial(plot_field, values, on, name, samples=samples)
        if name == RESIDUAL:
            drawing = partial(plot_residual, values, on, name)
        plots[caption] = (f"{name}.png", partial(_written, drawing, solution.labels))
    if solution.trained is not None and len(solution.trained.form.data.axes) > 1:
        points = partial(plot_points, solution.trained)
        plots[_POINTS] = (f"{RESIDUAL}.png", partial(_written, points, solution.labels))
    for caption, (name, draw) in plots.items():
        path = directory / name
        note = drawn(path, draw)
        if note is None:
            figures[caption] = path
        else:
            notes.append(note)
    kept = directory / f"{RESIDUAL}.png"  # drawn when it was trained
    if solution.trained is None and RESIDUAL not in fields and kept.is_file():
        figures[_POINTS] = kept
    return figures, notes


def _written(draw: Callable[[], Figure], labels: Labels, path: Path) -> None:
    from sciml.app.figures import labelled

    labelled(draw(), labels, path)


def read_solution(run: Path) -> Solution:
    """The solution in a run's folder, which its record vouches for, or in a file.

    With its trained function, where the run kept one.
    """
    if run.is_dir() and (run / record.FILE).is_file():
        record.check(run, record.read(run, record.RUN))
    solution = load_solution(run)
    if not (run / FUNCTION).is_file():
        return solution
    from sciml.solvers.trained.load import load_function

    return replace(solution, function=load_function(run))


def regridded(solution: Solution, shape: tuple[int, ...]) -> Solution:
    """The same on a grid of so many nodes an axis; of what lives on the old one the values alone.

    A trained function is evaluated there, NaN outside its domain, other values are interpolated.
    Raises InputError for another answer on a mesh, and for another number of axes.
    """
    on = solution.on
    if on is None or (isinstance(on, Mesh) and solution.function is None):
        raise InputError("--grid is for runs on a box; a mesh is drawn by its own elements")
    if isinstance(on, Mesh):
        lower, upper = on.nodes.min(0).tolist(), on.nodes.max(0).tolist()
        box = Box(tuple(lower), tuple(upper))
    else:
        box = on.box
    if len(shape) != box.dimension or box.dimension > len(AXES):
        raise InputError(
            f"--grid {','.join(map(str, shape))}: this run has {box.dimension} axes"
            + ("" if box.dimension <= len(AXES) else ", and a grid at most three")
        )
    grid = Grid(shape).bind(box)
    points = torch.stack([axis.flatten() for axis in grid.coordinates()], -1)
    value = solution.sample(points).unflatten(-1, shape)
    return replace(solution, value=value, on=grid, kept={}, measure=None, certificate=None)


def redraw(
    run: Path, out: Path | None, shape: tuple[int, ...] | None = None
) -> tuple[dict[str, Path], list[str]]:
    """Draw the figures of a run's folder, or of a file, again; see :func:`draw_figures`.

    ``shape``: on a grid of so many nodes an axis.
    """
    solution, fields = read_solution(run), load_fields(run)
    if shape is not None:
        solution, fields = regridded(solution, shape), {}
    home, title, wanted, notes = run if run.is_dir() else run.parent, "", None, []
    if (home / record.FILE).is_file():
        title = record.read(home, record.RUN)["title"]
        try:
            spec = run_spec(home)
            solution, wanted = replace(solution, problem=spec.problem), spec.output
        except InputError as error:  # its data lie elsewhere by now
            notes.append(f"lines and moving pictures are not drawn: {error}")
    figures, more = draw_figures(solution, fields, out or home, title, wanted)
    return figures, [*notes, *more]


def run_spec(folder: Path, overrides: Iterable[str] = ()) -> Spec:
    """The spec that a run recorded."""
    text = json.dumps(record.read(folder, record.RUN)["spec"])
    return read_spec(parse_yaml(text, str(folder / record.FILE)), overrides)


def rewrite_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run anew from its record and figures."""
    summary = record.read(folder, record.RUN)
    usual = {SOLUTION: "solution.png", "Convergence": "convergence.png"}
    named = summary.get("figures", usual)
    figures = {caption: folder / Path(file).name for caption, file in named.items()}
    path = out or folder / REPORT
    write_text(path, html(summary, figures))
    return path


def add(folder: Path, **found: Any) -> Path:
    """Add what was found later to a run's record and report; returns the report's path."""
    record.write(folder, {**record.read(folder, record.RUN), **found})
    return rewrite_report(folder)
