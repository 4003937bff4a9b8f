"""Coefficients on a mesh: what :mod:`sciml.core.problem.reader` reads, at points of its parts.

Arrays are a value per node or per element; besides, a coefficient may be one for every named
subdomain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh, seams
from sciml.core.problem.problem import Coefficient, Problem
from sciml.core.problem.quadrature import Quadrature
from sciml.core.problem.reader import (
    IMAGINARY,
    NO_NORMAL,
    NO_TIME,
    NORMAL,
    Context,
    Regions,
    compile,
    outside,
    read_parameters,
    short,
    state_names,
)
from sciml.core.problem.table import Curve
from sciml.discretization.volumes.coefficients import require

_REFUSED = {"t": NO_TIME, **dict.fromkeys(NORMAL, NO_NORMAL)}
_NO_STATE = "this may depend on the coordinates, t and parameters, not on the solution"


@dataclass(frozen=True)
class MeshData:
    """The mesh, the parameters (tensors of shape batch, and tables), and remarks for the user.

    ``left``: ranges of tables that an iterate has been outside. ``fields``: what the equation's are
    called. ``time``: of a problem in time the instant, of shape (). ``complex``: whether
    coefficients may be, and name ``i``.
    """

    mesh: Mesh
    parameters: Mapping[str, torch.Tensor]
    notes: list[str] = field(default_factory=list)
    tables: Mapping[str, Curve] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    fields: tuple[str, ...] = ("u",)
    time: torch.Tensor | None = None
    complex: bool = False

    def at_time(self, t: float | torch.Tensor) -> MeshData:
        """The same at another time; itself where the problem has none."""
        if self.time is None:
            return self
        return replace(self, time=torch.as_tensor(t, dtype=torch.float64))

    def context(self, part: Quadrature, state: tuple[str, ...] = ()) -> Context:
        """Which names mean what on a part of the mesh, ``state`` among them."""
        axes = AXES[: self.mesh.dimension]
        unknown = dict.fromkeys(state_names(self.fields), _NO_STATE)
        return Context(
            axes,
            timed=self.time is not None,
            state=state,
            parameters=tuple(self.parameters),
            others=tuple(part.normal),
            tables=tuple(self.tables.items()),
            refused=tuple({**_REFUSED, **unknown}.items()),
        )


def mesh_data(problem: Problem, mesh: Mesh) -> MeshData:
    """The evaluation context.

    Raises InputError for a parameter that is not numeric, and for what no problem on a mesh has: a
    domain, an obstacle.
    """
    if problem.domain is not None:
        raise InputError(
            "a problem on a mesh has no domain: the mesh is the domain", "problem.domain"
        )
    if problem.obstacle is not None:
        raise InputError("a mesh has its holes itself: leave the obstacle out", "problem.obstacle")
    fields = problem.equation.fields(mesh.dimension, problem.first)
    waves = problem.equation.complex
    taken = (*AXES[: mesh.dimension], *_REFUSED, *state_names(fields), *(IMAGINARY,) * waves)
    parameters, tables = read_parameters(problem.parameters, taken)
    if waves:
        parameters[IMAGINARY] = torch.tensor(1j, dtype=torch.complex128)
    start = None if problem.time is None else problem.time.start
    time = None if start is None else torch.tensor(start, dtype=torch.float64)
    notes = list(seams(mesh))
    return MeshData(mesh, parameters, notes, tables, fields=tuple(fields), time=time, complex=waves)


def evaluate(
    coefficient: Coefficient,
    part: Quadrature,
    data: MeshData,
    key: str,
    *,
    positive: bool = False,
    state: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """The coefficient at a part's points, float64 (*batch, k, Q); k and Q are 1 where constant.

    ``state``: fields and slopes there by name, (*batch, k, Q), where they are known. Raises
    InputError where the coefficient is none of the known kinds, has a wrong shape, or has a value
    that is not finite (or not positive), and says where. With ``state`` values are not checked: an
    iteration sees them itself.
    """
    if isinstance(coefficient, Regions):
        value = _by_region(coefficient, part, data, key, state)
    else:
        value = _plain(coefficient, part, data, key, state)
    if state is not None:
        return value
    if value.is_complex():
        if positive:
            raise InputError(f"{short(key)} must be real; it is complex", key)
        for share in (value.real, value.imag):
            require(share, part.points, key, finite=True)
        return value
    require(value, part.points, key, finite=True, positive=positive)
    return value


def _plain(
    coefficient: Coefficient,
    part: Quadrature,
    data: MeshData,
    key: str,
    given: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    state = {} if given is None else given
    read = compile(coefficient, data.context(part, tuple(state)), key)
    known = {
        name: p[..., None, None] if p.ndim else p
        for name, p in data.parameters.items()
        if name in read.names
    }
    known |= {**part.normal, **state}
    if data.time is not None:
        known["t"] = data.time

    def locate(
        values: torch.Tensor, centring: str | None, points: Sequence[torch.Tensor], key: str
    ) -> torch.Tensor:
        return _array(values, centring, part, data, key)

    value = read.at(part.points, known, locate)
    if value.is_complex() and not data.complex:
        raise InputError(f"{short(key)} must be real; it is complex", key)
    value = value.to(torch.complex128 if value.is_complex() else torch.float64)
    if read.curves and read.names & state.keys():
        data.left.update(c.range for c in read.curves if bool(value.detach().isnan().any()))
    elif read.curves:
        try:
            require(value.reshape(1, 1) if value.ndim == 0 else value, part.points, key,
                    finite=True)  # fmt: skip
        except InputError as error:
            raise InputError(error.message + outside(read), key) from None
    return value.reshape(1, 1) if value.ndim == 0 else value


def _array(
    values: torch.Tensor, centring: str | None, part: Quadrature, data: MeshData, key: str
) -> torch.Tensor:
    """A value per node, or per element where the part is the elements."""
    nodes, cells = data.mesh.shape[0], len(data.mesh.cells)
    if values.shape[-1] == nodes and centring != "cell":
        return part.at_points(values.to(torch.float64))
    if values.shape[-1] == cells and centring != "node" and part.inverse is not None:
        return (values if part.members is None else values[..., part.members])[..., None]
    raise InputError(
        f"the values have shape {list(values.shape)}; they must end in the {nodes} nodes"
        + (f" or the {cells} elements" if part.inverse is not None else "")
        + " of the mesh, batch first",
        key,
    )


def _by_region(
    coefficient: Regions,
    part: Quadrature,
    data: MeshData,
    key: str,
    state: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
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
    places = {name: _places(part, known[name]) for name in coefficient.regions}
    values = [
        _plain(
            entry,
            part.of(places[name]),
            data,
            f"{key}.regions.{name}",
            None if state is None else {n: v[..., places[name], :] for n, v in state.items()},
        )
        for name, entry in coefficient.regions.items()
    ]
    batch = torch.broadcast_shapes(*(v.shape[:-2] for v in values))
    columns = max(v.shape[-1] for v in values)
    dtype = torch.complex128 if any(v.is_complex() for v in values) else torch.float64
    out = torch.zeros(*batch, len(part.nodes), columns, dtype=dtype)
    for name, value in zip(coefficient.regions, values, strict=True):
        index = places[name]
        shaped = value.expand(*batch, len(index), columns).to(out.dtype)
        out = out.index_copy(-2, index, shaped)
    return out


def _places(part: Quadrature, members: np.ndarray) -> torch.Tensor:
    """Which of a part's elements are among those numbered."""
    wanted = torch.from_numpy(np.asarray(members, dtype=np.int64))
    if part.members is None:
        return wanted
    return torch.isin(part.members, wanted).nonzero()[:, 0]


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
