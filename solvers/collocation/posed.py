"""A problem made ready for training: equation, conditions, what is unknown and what was seen.

Parameters of the problem that are to be found are trained with the ansatz, and the observations

    u(x_n) - u_n

are one more piece beside the equation and its conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, did_you_mean
from sciml.core.grid import Grid
from sciml.core.jet import Jet
from sciml.core.linear import LinearSystem
from sciml.core.mesh import Mesh
from sciml.core.points import Points
from sciml.core.pointwise import numeric_parameters
from sciml.core.problem import Problem, Unknown
from sciml.core.strong import StrongForm, strong_form
from sciml.core.table import read_columns
from sciml.solvers.collocation.conditions import (
    BuiltIn,
    Piece,
    built_in,
    disagreement,
    extent,
    pieces,
)
from sciml.solvers.collocation.objective import Ansatz, Network, Objective

OBSERVED = "observations"
_TRIED = 1000  # places at which a weight is tried
_KEY = "problem.observations"


def stated(
    problem: Problem | LinearSystem, on: Grid | Mesh | Points | None
) -> tuple[Problem, Grid | Points]:
    """The problem and where its answer is wanted, bound to its box.

    A linear system stands for the problem that it was made of. Raises InputError for a matrix, a
    mesh, or nowhere.
    """
    if isinstance(problem, LinearSystem):
        origin, on = problem.problem, problem.on
        if origin is None:
            raise InputError("a function is trained on a problem, not on a matrix", "solver.kind")
        problem = origin
    if on is None:
        raise InputError(
            "a problem needs a place for its answer: pass on=Grid((129, 129)) or on=Points(1000)"
        )
    if isinstance(on, Mesh):
        raise InputError("collocation is on boxes; a mesh has no box", "mesh")
    return problem, on.bind(problem.box)


def posed(
    problem: Problem,
    network: Callable[[StrongForm], Network],
    hard: bool,
    weights: Mapping[str, float | str],
    extension: Mapping[str, float | str] | None = None,
) -> Objective:
    """The objective of a problem for the network that ``network(form)`` makes.

    ``weights``: of the equation, the soft conditions (by side, or ``start``) and the observations,
    numbers or expressions of the place. ``extension``: what carries the data that are built in, by
    field, in place of their interpolation. Raises InputError for a weight that belongs to nothing
    or is negative somewhere, and for an extension that does not meet the data.
    """
    numbers = numeric_parameters(problem)
    form = strong_form(problem, numbers)
    base, notes = (built_in(form) if hard else None), []
    if extension is not None:
        base = _given(form, base if hard else None, extension)
    elif base is not None and disagreement(form, base) is not None:
        base, hard = None, False
        notes.append("the data disagree where sides meet, so that the conditions are soft")
    parts = pieces(form, hard, True)
    if problem.observations is not None:
        parts = (*parts, _observed(form))
    known = [piece.name for piece in parts]
    for name in weights:
        if name not in known and name not in (*problem.box.sides, "start"):
            raise InputError(
                f"no condition is called '{name}'{did_you_mean(name, known)}",
                f"solver.weights.{name}",
            )
    unknown = {
        name: nn.Parameter(torch.tensor([numbers[name]], dtype=torch.float64))
        for name, value in problem.parameters.items()
        if isinstance(value, Unknown)
    }
    numbered = {name: w for name, w in weights.items() if not isinstance(w, str)}
    profiles = {p.name: _profile(form, p, weights[p.name]) for p in parts
                if isinstance(weights.get(p.name), str)}  # fmt: skip
    ansatz = Ansatz(network(form), base)
    return Objective(form, ansatz, parts, numbered, profiles, unknown, notes=notes)


def _given(form: StrongForm, base: BuiltIn | None, extension: Mapping[str, float | str]) -> BuiltIn:
    """What is built in, its data carried by the ``extension``."""
    key = "solver.extension"
    if base is None:
        raise InputError("an extension carries data that are built in, and there are none", key)
    for name in extension:
        if name not in form.fields:
            raise InputError(f"no field is called '{name}'{did_you_mean(name, form.fields)}",
                             f"{key}.{name}")  # fmt: skip
        _check_place(form, extension[name], f"{key}.{name}")

    def carried(points: Tensor) -> Tensor:
        columns = [
            form.data(extension.get(name, 0.0), f"{key}.{name}", points).expand(len(points))
            for name in form.fields
        ]
        return torch.stack(columns, -1)

    found = replace(base, given=carried)
    missed = disagreement(form, found)
    if missed is not None:
        raise InputError(f"the extension does not meet the data of '{missed}'", key)
    return found


def _profile(form: StrongForm, piece: Piece, weight: float | str) -> Callable[[Tensor], Tensor]:
    """A weight that depends on the place, from points (N, D) to (N,)."""
    key = f"solver.weights.{piece.name}"
    _check_place(form, weight, key)

    def at(points: Tensor) -> Tensor:
        return form.data(weight, key, points).expand(len(points))

    generator = torch.Generator().manual_seed(0)
    cube = torch.rand(_TRIED, piece.free, generator=generator, dtype=torch.float64)
    tried = piece.place(cube)
    least = at(tried)
    bad = ~(torch.isfinite(least) & (least >= 0))
    if bad.any():
        place = ", ".join(f"{c:.4g}" for c in tried[bad][0].tolist())
        raise InputError(f"a weight must not be negative; it is {float(least[bad][0]):.4g} "
                         f"at ({place})", key)  # fmt: skip
    return at


def _check_place(form: StrongForm, coefficient: float | str, key: str) -> None:
    """Raise InputError for what depends on the solution."""
    for name in sorted(form.data.names(coefficient, key)):
        if name in form.fields or name in form.data.slopes:
            raise InputError(f"must depend on the place alone, not on '{name}'", key)


def _observed(form: StrongForm) -> Piece:
    """The observations as a piece of fixed points."""
    columns = _columns(form.problem.observations)
    axes, fields = form.data.axes, [name for name in form.fields if name in columns]
    for name in columns:
        if name not in (*axes, *form.fields):
            raise InputError(
                f"unknown column '{name}'{did_you_mean(name, (*axes, *form.fields))}", _KEY
            )
    missing = [name for name in axes if name not in columns] or ([] if fields else ["u"])
    if missing:
        raise InputError(
            f"the observations lack the column '{missing[0]}'; they need {', '.join(axes)} and "
            f"one of {', '.join(form.fields)}",
            _KEY,
        )
    points = torch.stack([columns[name] for name in axes], -1)
    seen = torch.stack([columns[name] for name in fields], -1)
    lower, upper = extent(form)
    outside = ((points < lower) | (points > upper)).any(-1)
    if outside.any():
        row = int(outside.nonzero()[0])
        place = ", ".join(f"{a} = {c:.6g}" for a, c in zip(axes, points[row].tolist(), strict=True))
        raise InputError(f"observation {row + 1} at {place} lies outside the domain", _KEY)
    which = [form.fields.index(name) for name in fields]

    def residual(_: Tensor, jet: Jet) -> Tensor:
        return jet.value[:, which] - seen

    return Piece(OBSERVED, lower, lower, residual, fixed=points)


def _columns(observations: str | Mapping[str, Any] | None) -> dict[str, Tensor]:
    """The columns by name, float64 (N,) each."""
    if isinstance(observations, Mapping):
        return {n: torch.as_tensor(v, dtype=torch.float64) for n, v in observations.items()}
    try:
        columns = read_columns(Path(str(observations)))
    except InputError as error:
        raise InputError(error.message, _KEY) from None
    return {n: torch.tensor(v, dtype=torch.float64) for n, v in columns.items()}
