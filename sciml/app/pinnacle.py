"""``sciml bench pinnacle``: the 22 problems of PINNacle, each by a trained function of ours.

``configs/pinnacle`` holds the problems and the trained functions that answer them; what makes a
spec that of a classical solver stands here, beside the least error that was published. Errors are
the benchmark's: relative L2, pooled over points, instants and fields. They are taken from the exact
solution at the benchmark's own points where there is one, else from the classical answer at its
nodes and frames; and from the benchmark's own files, which are no part of this repository, where
their folder is named. Every seed is kept in a JSON file as it is done, from which an interrupted
run goes on. Source: Hao et al. (2023), arXiv 2306.08827.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sciml
from sciml.app.read import load_spec
from sciml.app.run import Setting, answer, extent
from sciml.app.spec import Spec
from sciml.core.disk import digest, hash_of, write_json
from sciml.core.errors import InputError, SolveError, did_you_mean
from sciml.core.problem.grid import Points
from sciml.core.problem.mesh import Mesh
from sciml.core.run.solution import Solution
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters

HEAD = (
    "problem",
    "trained",
    "error",
    "to the file",
    "published",
    "published / ours",
    "CPU s",
    "classical",
    "its error",
    "its CPU s",
)
_AT_ONCE = 20_000
_INSTANT = re.compile(r"@ t=([-+.\deE]+)")


@dataclass(frozen=True)
class Case:
    """One problem of the benchmark.

    ``published``: the least relative L2 error of its tables. ``classical``: what makes the spec
    that of a classical solver, as for ``--set``. ``counts``: of an exact solution, the points
    between the ends of every axis, time last. ``exact``: that of several fields. ``instants``: of
    scattered points, how many times they are looked at. ``file``: that of the benchmark's own
    answer. ``level``: the field that is known up to a constant, and is zero in the lower corner.
    ``missing``: why nothing answers it.
    """

    published: float
    classical: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    exact: tuple[str, ...] = ()
    instants: int = 0
    file: str = ""
    level: int | None = None
    missing: str = ""


_FINE = ("solver=", "geometry.element=P2", "geometry.size=0.02")
_PERIODIC = "problem.boundary={left: {periodic: true}, right: {periodic: true}}"
_STEP = (
    "problem.equation={kind: navier_stokes, viscosity: 0.01}",
    "problem.boundary={inlet: {dirichlet: ['4*y*(1 - y)', 0]}, outlet: {neumann: 0}, "
    "bottom: {dirichlet: [0, 0]}, top: {dirichlet: [0, 0]}, step: {dirichlet: [0, 0]}, "
    "roof: {dirichlet: [0, 0]}}",
    "solver=",
    "geometry.size=0.04",
)
CASES: Mapping[str, Case] = {
    "burgers-1d-c": Case(
        1.43e-2,
        # The start is odd, so that the walls at rest are planes of symmetry.
        (_PERIODIC, "grid={shape: [4097]}", "solver={kind: etdrk4, rtol: 1.0e-8}"),
        file="burgers1d",
    ),
    "burgers-2d-c": Case(2.6e-1, missing="the two files of its start, burgers2d_init_*"),
    "poisson-2d-c": Case(1.23e-2, _FINE, file="poisson1_cg_data"),
    "poisson-2d-cg": Case(1.43e-2, _FINE, file="poisson_boltzmann2d"),
    "poisson-3d-cg": Case(1.02e-1, ("solver=", "geometry.element=P2"), file="poisson_3d"),
    "poisson-2d-ms": Case(
        5.9e-1,
        ("grid={shape: [641, 641]}", "solver={kind: cg, preconditioner: {kind: multigrid}}"),
        file="poisson_manyarea",
    ),
    "heat-2d-vc": Case(2.12e-1, missing="a source that is a formula divided by a table's field"),
    "heat-2d-ms": Case(
        2.4e-2, ("grid={shape: [513, 65]}", "solver={kind: sdirk, rtol: 1.0e-5}"), (8, 8, 313)
    ),
    "heat-2d-cg": Case(2.39e-2, ("solver=",), file="heat_complex"),
    "heat-2d-lt": Case(9.99e-1, ("solver={kind: sdirk, rtol: 1.0e-5}",), file="heat_longtime"),
    "flow-2d-c": Case(3.6e-2, ("solver=",), file="lid_driven_a4", level=2),
    "flow-2d-cg": Case(8.2e-2, _STEP, file="ns_0_obstacle"),
    "flow-2d-lt": Case(9.7e-1, missing="an outlet in time on boxes for trained functions"),
    "wave-1d-c": Case(
        9.8e-2, ("grid={shape: [513]}", "solver={kind: runge_kutta, rtol: 1.0e-7}"), (50, 50)
    ),
    "wave-2d-cg": Case(7.9e-1, missing="the values of its speed, darcy_2d_coef_256"),
    "wave-2d-ms": Case(9.8e-1, counts=(4, 4, 1334)),
    "gray-scott": Case(8.0e-2, ("solver={kind: etdrk4, rtol: 1.0e-4}",), file="grayscott"),
    "kuramoto-sivashinsky": Case(
        9.6e-1, ("solver={kind: etdrk4, rtol: 1.0e-6}",), file="Kuramoto_Sivashinsky"
    ),
    "poisson-nd": Case(4.7e-4, counts=(8,) * 5),
    "heat-nd": Case(1.2e-4, instants=25),
    "poisson-inverse": Case(
        1.2e-2,
        counts=(50, 50),
        exact=("sin(pi*x)*sin(pi*y)", "1/(1 + x**2 + y**2 + (x - 1)**2 + (y - 1)**2)"),
    ),
    "heat-inverse": Case(
        5.1e-2,
        counts=(17, 17, 71),
        exact=("exp(-z)*sin(pi*x)*sin(pi*y)", "2 + sin(pi*x)*sin(pi*y)"),
    ),
}


def spec_of(name: str) -> Path:
    """Its YAML; raises InputError for unknown problems, and where this is no checkout."""
    if name not in CASES:
        raise InputError(f"unknown problem '{name}'{did_you_mean(name, CASES)}", "--names")
    folder = Path(sciml.__file__).resolve().parents[1] / "configs" / "pinnacle"
    if not folder.is_dir():
        raise InputError("PINNacle's problems are in the repository: run this in a checkout of it")
    return folder / f"{name}.yaml"


def pinnacle(
    names: Iterable[str],
    seeds: int = 1,
    files: Path | None = None,
    kept: Path | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> Iterator[list[str]]:
    """A row for every problem, as it is done; the error is the worst of ``seeds`` seeds.

    ``files``: the folder of the benchmark's own answers, ``.dat`` or ``.dat.gz``. ``kept``: a JSON
    file with what was found before, and that takes the new figures.
    """
    if seeds < 1:
        raise InputError(f"at least one seed is needed; got {seeds}", "--seeds")
    if files is not None and not files.is_dir():
        raise InputError(f"there is no folder '{files}'", "--files")
    known = _known(kept)
    for name in names:
        path, case = spec_of(name), CASES[name]
        if case.missing:
            blank = [""] * (len(HEAD) - 5)
            yield [name, f"missing: {case.missing}", "", "", f"{case.published:.2g}", *blank]
            continue
        mark = hash_of({"spec": digest(path), "classical": list(case.classical)})
        if known.get(name, {}).get("spec") != mark:
            known[name] = {"spec": mark, "seeds": {}}
        found = known[name]
        run = _Run(path, case, found, files)
        try:
            for seed in map(str, range(seeds)):
                if not run.done(seed):
                    told(f"{name}, seed {seed}")
                    run.answer(seed)
                    if kept is not None:
                        write_json(kept, {"cases": known})
        except (InputError, SolveError) as error:
            yield [name, str(error).partition("\n")[0], *[""] * (len(HEAD) - 2)]
            continue
        yield _row(name, case, found, [str(seed) for seed in range(seeds)])


def _known(kept: Path | None) -> dict[str, Any]:
    if kept is None or not kept.is_file():
        return {}
    try:
        found = json.loads(kept.read_text("utf-8"))["cases"]
        return {
            str(name): {**v, "spec": v["spec"], "seeds": v["seeds"]} for name, v in found.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"'{kept}' holds no figures of these problems; name another file", "--out"
        ) from None


@dataclass
class _Run:
    """One problem while it is answered; ``found`` takes what is kept of it."""

    path: Path
    case: Case
    found: dict[str, Any]
    files: Path | None
    wanted: tuple[torch.Tensor, torch.Tensor] | None = None  # points (N, D), values (N, fields)

    @property
    def stored(self) -> Path | None:
        """The benchmark's own answer, where it is at hand."""
        if self.files is None or not self.case.file:
            return None
        there = (self.files / f"{self.case.file}{end}" for end in (".dat", ".dat.gz"))
        return next((path for path in there if path.is_file()), None)

    def done(self, seed: str) -> bool:
        """Whether nothing of this seed is left to find."""
        kept = self.found["seeds"].get(seed)
        return kept is not None and (self.stored is None or kept["file"] is not None)

    def answer(self, seed: str) -> None:
        """Train, and compare."""
        spec = load_spec(self.path, [f"solver.seed={seed}"])
        points, values = self.reference(spec)
        begun = time.process_time()
        solution = answer(spec, Setting(seed=int(seed))).solution
        seconds = time.process_time() - begun
        stored, timed = self.stored, spec.problem.time is not None
        axes = points.shape[1] - timed
        self.found["solver"] = spec.solver.kind
        self.found["seeds"][seed] = {
            "error": self.error(solution, points, values),
            "file": None
            if stored is None
            else self.error(solution, *read_answer(stored, axes, timed)),
            "seconds": seconds,
            "status": solution.status.name,
        }

    def reference(self, spec: Spec) -> tuple[torch.Tensor, torch.Tensor]:
        """Points and what is right there: exact, or the classical answer's nodes and frames."""
        if self.wanted is not None:
            return self.wanted
        classical = None
        if self.case.classical:
            other = load_spec(self.path, self.case.classical)
            begun = time.process_time()
            result = answer(other, Setting())
            classical, apart = result.solution, result.error
            self.found["classical"] = {
                "solver": f"{classical.solver.kind}, {extent(other.on)}",
                "seconds": time.process_time() - begun,
                "error": None if apart is None else float(apart),
                "status": classical.status.name,
            }
        exact = self.case.exact or (spec.problem.exact,)
        if exact != (None,):
            points = _benchmark_points(spec, self.case)
            read = Pointwise(spec.problem, (), numeric_parameters(spec.problem))
            values = [read(each, "problem.exact", points).expand(len(points)) for each in exact]
            self.wanted = points, torch.stack(values, -1)
        elif classical is not None:
            self.wanted = _frames(classical)
        else:
            raise SolveError("nothing is known to compare with")
        return self.wanted

    def error(self, solution: Solution, points: torch.Tensor, values: torch.Tensor) -> float:
        """The benchmark's: sqrt(mean square of the difference / that of the values)."""
        assert solution.function is not None
        ours = torch.cat([solution.function(part).detach() for part in points.split(_AT_ONCE)])
        # Rim nodes of straight elements lie beside the domain by the height of an arc.
        inside = ~(ours.isnan().any(1) | values.isnan().any(1))
        ours, values, points = ours[inside], values[inside].clone(), points[inside]
        if self.case.level is not None:
            k = self.case.level
            corner = int((points - points.min(0).values).square().sum(1).argmin())
            ours[:, k] -= ours[corner, k].clone()
            values[:, k] -= values[corner, k].clone()
        return float((ours - values).norm() / values.norm())


def _benchmark_points(spec: Spec, case: Case) -> torch.Tensor:
    """Uniform points between the ends of each axis, or scattered ones at each instant; (N, D)."""
    span = spec.problem.time
    if case.instants:
        assert isinstance(spec.on, Points) and span is not None
        places = torch.stack(
            spec.on.bind(spec.problem.domain or spec.problem.box).coordinates(), -1
        )
        times = torch.linspace(span.start, span.end, case.instants, dtype=torch.float64)
        return _product(places, times)
    box = spec.problem.box
    ends = [*zip(box.lower, box.upper, strict=True)]
    if span is not None:
        ends.append((span.start, span.end))
    axes = [
        torch.linspace(low, high, n + 2, dtype=torch.float64)[1:-1]
        for (low, high), n in zip(ends, case.counts, strict=True)
    ]
    return torch.cartesian_prod(*axes)


def _product(places: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Every place (n, d) at every time (m,), time last and slowest: (m n, d + 1)."""
    return torch.cat(
        [places.repeat(len(times), 1), times.repeat_interleave(len(places))[:, None]], 1
    )


def _frames(solution: Solution) -> tuple[torch.Tensor, torch.Tensor]:
    """The points (N, D) of an answer at all its frames, time last, and its values (N, fields)."""
    assert solution.on is not None
    if isinstance(solution.on, Mesh):
        places = torch.as_tensor(solution.on.nodes)
    else:
        places = torch.stack([x.reshape(-1) for x in solution.on.coordinates()], -1)
    fields = len(solution.fields)
    value = solution.value.double()
    frames = 1 if solution.times is None else len(solution.times)
    values = value.reshape(frames, fields, len(places)).movedim(1, 2).reshape(-1, fields)
    return (places if solution.times is None else _product(places, solution.times)), values


def read_answer(path: Path, axes: int, timed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The benchmark's file: points (N, D), time last, and values (N, fields).

    Wide: coordinates, then a column for each time and field, times in the header as ``@ t=``.
    """
    read = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [line for line in read.decode().splitlines() if line.strip()]
    header = "".join(line for line in lines if line.startswith("%"))
    rows = torch.tensor(
        np.array([line.split() for line in lines if not line.startswith("%")], dtype=np.float64)
    )
    places, columns = rows[:, :axes], rows[:, axes:]
    if not timed:
        return places, columns
    times = torch.tensor([*dict.fromkeys(map(float, _INSTANT.findall(header)))]).double()
    fields = columns.shape[1] // len(times)
    values = columns.reshape(len(places), len(times), fields).movedim(1, 0).reshape(-1, fields)
    return _product(places, times), values


def _row(name: str, case: Case, found: Mapping[str, Any], seeds: list[str]) -> list[str]:
    every = [found["seeds"][seed] for seed in seeds]
    error = max(each["error"] for each in every)
    stored = [each["file"] for each in every if each["file"] is not None]
    classical = found.get("classical")
    row = [
        name,
        found["solver"],
        f"{error:.2g}",
        f"{max(stored):.2g}" if stored else "",
        f"{case.published:.2g}",
        f"{case.published / error:.2g}",
        f"{max(each['seconds'] for each in every):.2g}",
    ]
    if classical is None:
        return [*row, "", "", ""]
    known = classical["error"]
    own = "" if known is None else f"{known:.2g}"
    return [*row, classical["solver"], own, f"{classical['seconds']:.2g}"]
