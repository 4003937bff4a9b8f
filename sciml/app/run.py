"""One run: a spec answered, measured against what is known, and its record."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sciml
from sciml.app.progress import Watch
from sciml.app.spec import Spec, explain
from sciml.core.certificate import Certificate
from sciml.core.discretize import discretize, memory_estimate
from sciml.core.discretize.elements_elasticity import von_mises
from sciml.core.equation import Elasticity, Equation
from sciml.core.errors import InputError, did_you_mean
from sciml.core.fields import exact_on_mesh, hole_on, values_on
from sciml.core.linear import LinearSystem
from sciml.core.mesh import PLURALS, Mesh
from sciml.core.place import discrete
from sciml.core.plain import dump
from sciml.core.points import Points
from sciml.core.problem import Problem
from sciml.core.solution import Solution

DTYPES = {"float64": torch.float64, "float32": torch.float32}
_ROUNDED = (
    "--dtype float32: the residual is that of the rounded system, whose answer may differ from the "
    "exact one's by 1e-4 and more on fine grids; use float64 where that matters"
)
FRAMES = "frames.h5"
RECORD_FORMAT = "sciml run 1"
_PACKAGES = ("torch", "numpy", "scipy", "pyamg", "numba", "h5py", "matplotlib", "pydantic")


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
    coefficients that vary, on the grid. ``seconds``: wall time of each stage.
    """

    spec: Spec
    setting: Setting
    solution: Solution
    error: torch.Tensor | None
    fields: Mapping[str, torch.Tensor]
    unknowns: int
    defect: torch.Tensor | None
    seconds: Mapping[str, float]


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
) -> Answer:
    """Discretise, set up, solve, and compare with the exact solution where the spec has one.

    ``frames``: the file in which a problem in time keeps its frames while it runs, and from which
    it goes on when a run before this one was killed.
    """
    torch.manual_seed(setting.seed)
    np.random.seed(setting.seed)  # PyAMG draws its test vectors from it
    start = time.perf_counter()
    gridded = not (isinstance(spec.on, Points) or getattr(spec.solver, "reads_problem", False))
    system = lower(spec, setting) if spec.problem.linear and gridded else None
    seconds = {"discretise": time.perf_counter() - start} if system is not None else {}
    try:
        solution = _solve(spec, setting, system, progress, frames)
        spec = _found(spec, solution)
        fields = _varying_coefficients(spec) | _residual(system, solution)
        solution = _without_hole(solution, spec)
        error = error_of(solution, spec, system is not None and system.A.nullspace)
        fields |= _stress(spec, solution)
    except InputError as fault:
        raise InputError(explain(fault, spec)) from None
    seconds["set up"] = solution.stats.setup_seconds
    seconds["solve"] = solution.stats.solve_seconds
    unknowns = (
        solution.last[(0,) * solution.residual.ndim].numel() if system is None else system.A.size
    )
    defect = None if system is None else system.defect
    return Answer(spec, setting, solution, error, fields, unknowns, defect, seconds)


def _found(spec: Spec, solution: Solution) -> Spec:
    """The spec, the parameters that were unknown put in."""
    if not solution.parameters:
        return spec
    known = {**spec.problem.parameters, **solution.parameters}
    return replace(spec, problem=replace(spec.problem, parameters=known))


def _solve(
    spec: Spec,
    setting: Setting,
    system: LinearSystem | None,
    progress: Watch | None,
    frames: Path | None,
) -> Solution:
    if system is not None:
        return spec.solver.run(spec.solver.init(system), progress=progress)
    if setting.dtype != "float64":
        raise InputError("--dtype float32 is for steady linear problems; this one needs float64")
    with torch.device(setting.device):
        state = spec.solver.init(spec.problem, spec.on)
        if progress is not None:
            progress.follow(state)
        more = {} if spec.problem.time is None else {"frames": frames}
        return spec.solver.run(state, progress=progress, **more)


def _without_hole(solution: Solution, spec: Spec) -> Solution:
    hole = hole_on(spec.problem, spec.on)
    value = solution.value.detach().cpu()
    if hole is not None:
        value = torch.where(hole, torch.nan, value)
    return replace(solution, value=value, residual=solution.residual.detach().cpu())


def error_of(solution: Solution, spec: Spec, free_constant: bool) -> torch.Tensor | None:
    """Relative L2 error against the spec's exact solution, of shape batch; None without one."""
    if spec.problem.exact is None:
        return None
    if isinstance(spec.on, Mesh):
        return _error_on_mesh(solution, spec.problem, spec.on, free_constant)
    hole = hole_on(spec.problem, spec.on)
    # Of a problem in time the last frame is compared.
    t = None if solution.times is None else float(solution.times[-1])
    exact = values_on(spec.problem, spec.on, spec.problem.exact, "problem.exact", hole, t)
    if free_constant:
        dims = tuple(range(-len(spec.on.shape), 0))
        exact = exact + (solution.value - exact).nanmean(dims, keepdim=True)
    return solution.error(exact)


def _error_on_mesh(
    solution: Solution, problem: Problem, mesh: Mesh, free_constant: bool
) -> torch.Tensor:
    exact = exact_on_mesh(problem, mesh)
    if not free_constant:
        return solution.error(exact)
    gap = solution.value - exact(*(x[:, None] for x in mesh.coordinates()))[..., 0]
    shift = gap.mean(-1)[..., None, None]
    return solution.error(lambda *x: exact(*x) + shift)


def _varying_coefficients(spec: Spec) -> dict[str, torch.Tensor]:
    """K where it varies: ``K``, or ``K_x``, ``K_y``, ``K_z`` of a diagonal one."""
    if not isinstance(spec.problem.equation, Equation):
        return {}
    K = spec.problem.equation.K
    if isinstance(K, (tuple, list)):
        named = {f"K_{axis}": entry for axis, entry in zip("xyz", K, strict=False)}
    else:
        named = {"K": K}
    hole = hole_on(spec.problem, spec.on)
    fields = {}
    for name, entry in named.items():
        if isinstance(entry, (Real, tuple, list)) or not Equation(K=entry).linear:
            continue
        value = values_on(spec.problem, spec.on, entry, "problem.equation.K", hole)
        fields[name] = value if hole is None else torch.where(hole, torch.nan, value)
    return fields


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


def _stress(spec: Spec, solution: Solution) -> dict[str, torch.Tensor]:
    """The von Mises stress of an elastic body's elements."""
    if not (isinstance(spec.problem.equation, Elasticity) and isinstance(spec.on, Mesh)):
        return {}
    return {"stress": von_mises(spec.problem, spec.on, solution.value)}


def describe(spec: Spec) -> str:
    """One line: what is solved on what, and by what."""
    on, span = spec.on, spec.problem.time
    title = spec.problem.name or Path(spec.path).stem
    points = " x ".join(str(n) for n in on.shape)
    if isinstance(on, Points):
        what = f"points in {len(on.coordinates())} dimensions"
    elif isinstance(on, Mesh):
        what = f"nodes ({len(on.cells)} {on.element} {PLURALS[on.dimension]})"
    else:
        what = "nodes" if on.centring == "node" else "cells"
    when = "" if span is None else f", t = {span.start:g} to {span.end:g} in {span.frames} frames"
    kind, solver = spec.problem.equation.kind, spec.solver.kind
    return f"{title}: {kind} on {points} {what}{when}, solver {solver}"


def memory(spec: Spec, setting: Setting) -> int:
    """Bytes that the discretisation takes at its peak, estimated without allocating them."""
    return memory_estimate(spec.problem, discrete(spec.on), DTYPES[setting.dtype].itemsize)


def record(result: Answer, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What ``run.json`` says: enough to repeat the run and to judge it."""
    solution, spec, setting = result.solution, result.spec, result.setting
    return {
        "format": RECORD_FORMAT,
        "title": spec.problem.name or Path(spec.path).stem,
        "description": describe(spec),
        "status": solution.status.name.lower(),
        "advice": solution.status.value,
        "statuses": [status.name.lower() for status in solution.statuses],
        "residual": solution.residual.tolist(),
        "iterations": solution.stats.iterations.tolist(),
        "error": None if result.error is None else result.error.tolist(),
        "defect": None if result.defect is None else result.defect.tolist(),
        "certificate": None if solution.certificate is None else bounds(solution.certificate),
        "unknowns": result.unknowns,
        "times": None if solution.times is None else solution.times.tolist(),
        "seconds": dict(result.seconds),
        "notes": list(solution.notes),
        "spec_file": str(Path(spec.path).resolve()),
        "overrides": list(overrides),
        "spec": _absolute(dump(spec)),
        "device": setting.device,
        "dtype": setting.dtype,
        "seed": setting.seed,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["sciml", *sys.argv[1:]]),
    }


def bounds(found: Certificate) -> dict[str, Any]:
    """A certificate as plain data: per sample, relative to the solution's own energy norm."""
    return {
        "lower": found.relative_lower.tolist(),
        "upper": found.relative_upper.tolist(),
        "probability": found.probability,
        "steps": found.steps,
        "reason": found.reason,
    }


def _absolute(tree: Any) -> Any:
    """Field files by their absolute path, so that the record can be read from anywhere."""
    if isinstance(tree, dict):
        known = tree.keys() <= {"file", "dataset", "element", "merge"} and "file" in tree
        fixed = {"file": str(Path(tree["file"]).resolve())} if known else {}
        return {key: _absolute(value) for key, value in tree.items()} | fixed
    return [_absolute(value) for value in tree] if isinstance(tree, list) else tree


def versions() -> dict[str, str]:
    """The versions of Python, of this package and of those it stands on."""
    found = {"python": platform.python_version(), "sciml-pde": sciml.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
