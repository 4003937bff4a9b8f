"""A problem's data on a mesh: coefficients at points of elements, facets and nodes.

A coefficient is a number, an expression, a function of the coordinates, an array with a value per
node or per element, a file of such an array, or one of these for every named subdomain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from numbers import Real
from typing import Any

import numpy as np
import torch

from sciml.core.discretize.coefficients import load, require
from sciml.core.discretize.elements_tables import Part
from sciml.core.equation import FieldFile, Regions
from sciml.core.errors import InputError, did_you_mean
from sciml.core.expression import parse
from sciml.core.functions import call_named
from sciml.core.grid import AXES
from sciml.core.mesh import Mesh, seams
from sciml.core.problem import Coefficient, Problem

_REFUSED = {
    "t": "problems in time are not solved on meshes: leave t out",
    **dict.fromkeys(
        ("u", "ux", "uy", "uz"),
        "nonlinear problems are not solved on meshes: leave the solution out",
    ),
}


@dataclass(frozen=True)
class MeshData:
    """The mesh, the parameters (tensors of shape batch), and remarks for the user."""

    mesh: Mesh
    parameters: Mapping[str, torch.Tensor]
    notes: list[str] = field(default_factory=list)


def mesh_data(problem: Problem, mesh: Mesh) -> MeshData:
    """The evaluation context; raises InputError for a parameter that is not numeric."""
    named: dict[str, torch.Tensor] = {}
    for name, value in problem.parameters.items():
        key = f"problem.parameters.{name}"
        try:
            named[name] = torch.as_tensor(value, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"parameter '{name}' must be a number or a list of numbers; got {value!r}", key
            ) from None
        if name in (*AXES[: mesh.dimension], *_REFUSED):
            raise InputError(f"a parameter cannot be called '{name}': the name is taken", key)
        if not torch.isfinite(named[name]).all():
            raise InputError(f"parameter '{name}' must be finite; got {value!r}", key)
    try:
        torch.broadcast_shapes(*(p.shape for p in named.values()))
    except RuntimeError:
        raise InputError(
            "parameters given as lists must be equally long", "problem.parameters"
        ) from None
    return MeshData(mesh, named, list(seams(mesh)))


def evaluate(
    coefficient: Coefficient, part: Part, data: MeshData, key: str, *, positive: bool = False
) -> torch.Tensor:
    """The coefficient at a part's points, float64 (*batch, k, Q); k and Q are 1 where constant.

    Raises InputError where it is none of the known kinds, has a wrong shape, or has a value that
    is not finite (or not positive), and says where.
    """
    if isinstance(coefficient, Regions):
        value = _by_region(coefficient, part, data, key)
    else:
        value = _plain(coefficient, part, data, key).to(torch.float64)
    require(value, part.points, key, finite=True, positive=positive)
    return value


def _plain(coefficient: Coefficient, part: Part, data: MeshData, key: str) -> torch.Tensor:
    if isinstance(coefficient, Real):
        return torch.full((1, 1), float(coefficient), dtype=torch.float64)
    if isinstance(coefficient, str):
        return _expression(coefficient, part, data, key)
    if isinstance(coefficient, FieldFile):
        coefficient = load(coefficient, key)
    if isinstance(coefficient, (torch.Tensor, np.ndarray)):
        return _array(torch.as_tensor(coefficient), part, data, key)
    if callable(coefficient):
        shape = part.points[0].shape
        value = torch.as_tensor(
            call_named(coefficient, part.points, _named(data), _REFUSED, key), dtype=torch.float64
        )
        try:
            return value.expand(torch.broadcast_shapes(value.shape, shape))
        except RuntimeError:
            raise InputError(
                f"the function returned shape {list(value.shape)} for coordinates of shape "
                f"{list(shape)}; it must return one value per point, batch dimensions first",
                key,
            ) from None
    raise InputError(
        "a coefficient is a number, an expression, values at the nodes or elements, or a "
        f"function; got {type(coefficient).__name__}",
        key,
    )


def _expression(text: str, part: Part, data: MeshData, key: str) -> torch.Tensor:
    try:
        parsed = parse(text, (*AXES[: data.mesh.dimension], *data.parameters), _REFUSED)
    except InputError as error:
        raise InputError(error.message, error.key or key) from None
    value = parsed(**dict(zip(AXES, part.points, strict=False)), **_named(data))
    return value.reshape(1, 1) if value.ndim == 0 else value


def _named(data: MeshData) -> dict[str, torch.Tensor]:
    """The parameters, as they broadcast against a part's points."""
    return {name: p[..., None, None] if p.ndim else p for name, p in data.parameters.items()}


def _array(values: torch.Tensor, part: Part, data: MeshData, key: str) -> torch.Tensor:
    """A value per node, or per element where the part is the elements."""
    if values.ndim == 0:
        return values.reshape(1, 1)
    nodes, cells = data.mesh.shape[0], len(data.mesh.cells)
    if values.shape[-1] == nodes:
        return part.at_points(values.to(torch.float64))
    if values.shape[-1] == cells and part.inverse is not None:
        return values[..., None]
    raise InputError(
        f"the values have shape {list(values.shape)}; they must end in the {nodes} nodes"
        + (f" or the {cells} elements" if part.inverse is not None else "")
        + " of the mesh, batch first",
        key,
    )


def _by_region(coefficient: Regions, part: Part, data: MeshData, key: str) -> torch.Tensor:
    known = data.mesh.subdomains
    if part.inverse is None:
        raise InputError("regions give a coefficient of the equation, not of a boundary", key)
    for name in coefficient.regions:
        if name not in known:
            listed = f"it has {', '.join(sorted(known))}" if known else "it has none by name"
            raise InputError(
                f"the mesh has no subdomain '{name}': {listed}{_guess(name, known)}",
                f"{key}.regions.{name}",
            )
    times = np.zeros(len(data.mesh.cells), dtype=np.int64)
    for name in coefficient.regions:
        times[known[name]] += 1
    if (times != 1).any():
        bare = np.flatnonzero(times == 0)
        missing = [name for name in known if name not in coefficient.regions and len(known[name])]
        raise InputError(
            f"{len(bare)} elements are in none of the regions"
            + (f"; {', '.join(sorted(missing))} is missing" if missing else "")
            if len(bare)
            else _overlap({name: known[name] for name in coefficient.regions}, len(times)),
            f"{key}.regions",
        )
    values = [
        _plain(entry, _subset(part, known[name]), data, f"{key}.regions.{name}")
        for name, entry in coefficient.regions.items()
    ]
    batch = torch.broadcast_shapes(*(v.shape[:-2] for v in values))
    columns = max(v.shape[-1] for v in values)
    out = torch.zeros(*batch, len(times), columns, dtype=torch.float64)
    for name, value in zip(coefficient.regions, values, strict=True):
        index = torch.from_numpy(np.asarray(known[name], dtype=np.int64))
        shaped = value.to(torch.float64).expand(*batch, len(index), columns)
        out = out.index_copy(-2, index, shaped)
    return out


def _subset(part: Part, members: np.ndarray) -> Part:
    assert part.inverse is not None
    index = torch.from_numpy(np.asarray(members, dtype=np.int64))
    points = tuple(axis[index] for axis in part.points)
    return Part(part.tables, part.nodes[index], part.scale[index], points, part.inverse[index])


def _guess(name: str, known: Mapping[str, Any]) -> str:
    tail = did_you_mean(name, known)
    return tail if "did you mean" in tail else ""


def _overlap(regions: Mapping[str, np.ndarray], cells: int) -> str:
    """Which two regions share elements, and how many."""
    shared = (
        (one, other, len(np.intersect1d(regions[one], regions[other])))
        for one, other in combinations(regions, 2)
    )
    one, other, count = next(found for found in shared if found[2])
    return (
        f"regions '{one}' and '{other}' share {count} of {cells} elements, which would have two "
        "coefficients: the regions must not overlap"
    )
