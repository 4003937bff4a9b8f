"""Functions that were unknown, as found: what a run keeps of them, and their pictures.

A field goes into ``K.npy``, its values at the nodes of a grid over the domain, which a spec takes
as ``K: {file: K.npy}``; a law of one quantity into ``K.csv`` over the range on which it is known,
which a spec takes as ``K: {table: K.csv, of: u, column: K}`` and never looks up beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sciml.core.disk import atomic_write, write_text
from sciml.core.problem.grid import Points
from sciml.core.run.solution import Solution
from sciml.solvers.fit.functions import FieldFunction, LawFunction, reach

_PLACES = 201  # of a law's table and its picture
_SURE = 2.0  # deviations, of the band about a law


@dataclass(frozen=True)
class Curve:
    """A law over the range of what it is ``of``, between a band of two deviations."""

    name: str
    of: str
    at: np.ndarray
    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def name_of(place: str) -> str:
    """``K`` of ``equation.K``, ``left_neumann`` of ``boundary.left.neumann``."""
    return "_".join(place.split(".")[1:])


def on_place(solution: Solution) -> dict[str, torch.Tensor]:
    """Found fields and their deviations where the answer lives, but for K itself."""
    on = solution.on
    if on is None or isinstance(on, Points):
        return {}
    axes, shown = on.coordinates(), dict[str, torch.Tensor]()
    for place, function in solution.functions.items():
        if not isinstance(function, FieldFunction):
            continue
        if place != "equation.K":  # which is drawn wherever it varies
            shown[name_of(place)] = function(*axes).detach()
        if place in solution.deviations:
            shown[f"deviation_{name_of(place)}"] = solution.deviations[place](*axes).detach()
    return shown


def curves(solution: Solution) -> list[Curve]:
    """The found laws of one quantity."""
    found = []
    for place, law in solution.functions.items():
        if not isinstance(law, LawFunction) or len(law.network.of) > 1:
            continue
        of, name = law.network.of[0], name_of(place)
        low, high = reach(solution, of) if of in solution.fields else (law.low[0], law.high[0])
        at = torch.linspace(low, high, _PLACES, dtype=torch.float64)
        value, wide = law(at).detach(), _SURE * solution.deviations[place](at).detach()
        ends = (value - wide, value + wide)
        if law.network.positive:
            ends = (value * (-wide).exp(), value * wide.exp())
        found.append(Curve(name, of, *(v.numpy() for v in (at, value, *ends))))
    return found


def write(solution: Solution, folder: Path) -> list[Path]:
    """The files of what was found."""
    paths = []
    for place, function in solution.functions.items():
        if isinstance(function, FieldFunction):
            paths.append(folder / f"{name_of(place)}.npy")
            with atomic_write(paths[-1]) as path, path.open("wb") as file:
                np.save(file, function.at_nodes().detach().numpy())
    for curve in curves(solution):
        rows = zip(curve.at, curve.value, curve.lower, curve.upper, strict=True)
        text = "".join(",".join(f"{v:.10g}" for v in row) + "\n" for row in rows)
        head = f"{curve.of},{curve.name},lower,upper\n"
        paths.append(folder / f"{curve.name}.csv")
        write_text(paths[-1], head + text)
    return paths
