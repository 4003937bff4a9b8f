"""Answers of specs against what is known of them, kept as they come: for tables of many problems.

Errors are relative, in L2, over all fields that are compared, at points that no training saw, of
the last iterate; seconds are CPU seconds of the whole run, verification included.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.app.read import load_spec
from sciml.app.run import Setting, answer
from sciml.app.spec import Spec
from sciml.core.disk import digest, hash_of, write_json
from sciml.core.problem.grid import Grid
from sciml.core.run.solution import Solution
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters
from sciml.discretization.points.strong import strong_form
from sciml.solvers.trained.conditions import pieces
from sciml.solvers.trained.sampling import sobol

ROOT = Path(__file__).resolve().parents[1]
_POINTS = 20_000
_AT_ONCE = 20_000


@dataclass(frozen=True)
class Known:
    """What is right: texts by field, or points (N, D), time last, with values (N, fields).

    ``reference`` gives such points and values. Of neither the spec's own ``exact`` counts.
    ``level``: the fields that are known up to a constant.
    """

    exact: Mapping[str, str] | None = None
    reference: Callable[[], tuple[Tensor, Tensor]] | None = None
    fields: tuple[str, ...] = ("u",)
    level: tuple[str, ...] = ()


def error(spec: Spec, solution: Solution, known: Known) -> float:
    """How far the answer is from what is known."""
    fields, points, values = wanted(spec, known)
    if solution.function is None:  # on a mesh
        found = solution.sample(points).reshape(-1, len(points)).T
        ours = torch.cat([found.real, found.imag], 1) if found.is_complex() else found
    else:
        parts = [solution.function(part).detach() for part in points.split(_AT_ONCE)]
        named = list(solution.fields)
        ours = torch.cat(parts)[:, [named.index(name) for name in fields]]
    inside = ~(ours.isnan().any(1) | values.isnan().any(1))
    gap, values = (ours - values)[inside], values[inside].clone()
    for k, name in enumerate(fields):
        if name in known.level:
            gap[:, k] -= gap[:, k].mean()
            values[:, k] -= values[:, k].mean()
    return float(gap.norm() / values.norm())


def wanted(spec: Spec, known: Known) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """The fields that are compared, points (N, D), and what is right there (N, fields)."""
    if known.reference is not None:
        return (known.fields, *known.reference())
    problem = spec.problem
    exact = known.exact or {"u": problem.exact}
    read = Pointwise(problem, (), numeric_parameters(problem))
    points = fresh(spec)
    values = [read(text, "problem.exact", points).expand(len(points)) for text in exact.values()]
    return tuple(exact), points, torch.stack(values, -1)


def fresh(spec: Spec) -> Tensor:
    """Sobol points of the domain and its time, (20,000, D)."""
    inside = pieces(strong_form(spec.problem), hard=True, periodic_built_in=True)[0]
    return inside.place(sobol(_POINTS, inside.free, torch.Generator().manual_seed(2**20 + 7)))


@dataclass
class Kept:
    """Figures in a JSON file, each with what it was measured of; another spec is measured anew."""

    path: Path

    def run(
        self,
        name: str,
        spec: Path,
        changes: Sequence[str],
        known: Known,
        found: Callable[[Spec, Solution], Mapping[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """The figures of a run, found now or before: ``found`` gives more of them."""
        stored = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {}
        mark = hash_of({"spec": digest(spec), "changes": list(changes)})
        if stored.get(name, {}).get("spec") != mark:
            figures = measured(spec, changes, known, found)
            stored = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {}
            stored[name] = {"spec": mark, **figures}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, stored)
        return dict(stored[name])


def measured(
    path: Path,
    changes: Sequence[str],
    known: Known,
    found: Callable[[Spec, Solution], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Answer a spec and compare."""
    spec = load_spec(path, changes)
    begun = time.process_time()
    result = answer(spec, Setting())
    seconds, solution = time.process_time() - begun, result.solution
    on_grid = solution.function is None and isinstance(solution.on, Grid)
    return {
        "solver": spec.solver.kind,
        "error": float(result.error) if on_grid else error(spec, solution, known),
        "seconds": seconds,
        "status": solution.status.name.lower(),
        "residual": float(solution.residual.max()),
        "notes": list(map(str, solution.notes)),
        **({} if found is None else found(spec, solution)),
    }
