"""A trained function: an ``nn.Module`` from coordinates to values, and its file.

    u = G + phi N - mean,

with what is built in and the constant that a problem leaves free (``level``) part of it, so that
it needs neither the problem nor the training any more. Its derivatives are those of autograd.

The file is safetensors with a hash (``core.run.weights``). Its tensors are the module's own; JSON
says what they belong to: the networks by their options, the data that are built in as they were
stated, that is numbers and texts of the white-listed language of expressions. Tables, files and
arrays go along by value, the windows of a time and the functions that begin them as functions
themselves. A Python function has no such form: it is named by its place in the problem, and whoever
loads the file states the problem again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import nan
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.body import Body
from sciml.core.problem.equation import Equation
from sciml.core.problem.geometry import KINDS, Arc, Cylinder, Primitive
from sciml.core.problem.grid import Box
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Obstacle, Problem, Time
from sciml.core.problem.reader import FieldFile, RunField, is_array, load
from sciml.core.problem.table import Table, curve
from sciml.core.run.files import FUNCTION
from sciml.core.run.serialise import differences
from sciml.core.run.weights import (
    StoredWeights,
    check_fit,
    load_into,
    read_file,
    write_weights,
)
from sciml.discretization.points.jet import Jet, Pairs, jet_of
from sciml.discretization.points.pointwise import Pointwise
from sciml.discretization.points.region import Meshed, Region, Shaped, hole_of
from sciml.solvers.trained.conditions import BuiltIn, Constraint, Rim, Stated, Wall
from sciml.solvers.trained.level import Level
from sciml.solvers.trained.networks import rebuilt
from sciml.solvers.trained.objective import Ansatz, Objective
from sciml.solvers.trained.series import Series
from sciml.solvers.trained.windows import FieldOf, Glued

_KIND = "trained function"
_START = "solver.start"
_OUTSIDE = 1e-9  # of a box's lengths, by which rounding may leave it


@runtime_checkable
class Rebuildable(Protocol):
    """A network that says what it is built of again; see ``networks.rebuilds``."""

    options: Mapping[str, Any]


class TrainedFunction(nn.Module):
    """Of points (N, D), time last, the values (N, F); in the dtype of its weights, float64.

    ``fields`` (F) and ``axes`` (D) are the names of both. The weights are frozen, so that a plain
    call has no graph, and one at points that have one goes on with it; ``requires_grad_()`` thaws
    them. ``parameters_found``: those of the problem that were unknown, as found.
    """

    free: Tensor
    quadrature: Tensor
    weights: Tensor

    def __init__(
        self,
        ansatz: Ansatz,
        data: Pointwise,
        free: Tensor,
        quadrature: Tensor,
        weights: Tensor,
        found: Mapping[str, float] | None = None,
        region: Shaped | Meshed | None = None,
    ) -> None:
        super().__init__()
        self.ansatz, self.data = ansatz, data
        self.fields, self.axes = data.fields, data.axes
        # Where it has no value: NaN.
        self.hole, self.region = hole_of(data), region
        self.parameters_found = dict(found or {})
        self.networks = nn.ModuleList(_module(part.network) for part in _parts(ansatz))
        self.functions = nn.ModuleList(dict.fromkeys(_functions(ansatz)))
        for k, array in enumerate(_arrays(ansatz, data)):
            self.register_buffer(f"array_{k}", array)
        self.register_buffer("free", free)
        self.register_buffer("quadrature", quadrature)
        self.register_buffer("weights", weights)
        self.requires_grad_(False)

    @classmethod
    def of(cls, objective: Objective) -> TrainedFunction:
        """That of an objective as it is now, which may be trained on without changing it."""
        objective.settle()
        form, level = objective.form, Level.of(objective)
        parameters = {
            name: torch.as_tensor(p, dtype=torch.float64).detach().reshape(())
            for name, p in form.data.parameters.items()
        }
        adopt = _Adopted(_setting(form.data, form.fields, parameters))
        ansatz = adopt.ansatz(objective.ansatz)
        empty = torch.zeros(0, dtype=torch.float64)
        several = bool(level.free.any())
        return cls(
            ansatz, adopt.data, level.free, level.points if several else empty,
            level.weights if several else empty, objective.found, _kept(form.region),
        )  # fmt: skip

    def forward(self, points: Tensor) -> Tensor:
        """u; raises InputError for points of another dimension."""
        points = torch.as_tensor(points, dtype=self.free.dtype, device=self.free.device)
        if points.ndim != 2 or points.shape[1] != len(self.axes):
            raise InputError(
                f"points are (N, {len(self.axes)}), a column for each of "
                f"{', '.join(self.axes)}; got the shape {list(points.shape)}"
            )
        value = self.level(points) if len(self.quadrature) else self.ansatz(points)
        hole, region = self.hole, self.region
        if region is not None and not torch.compiler.is_exporting():
            space = points.detach()[:, : region.box.dimension].double().cpu()
            there = region.contains(space).to(value.device)
            return torch.where(there[:, None], value, nan)
        return value if hole is None else torch.where(hole.outside(points)[:, None], value, nan)

    @property
    def level(self) -> Level:
        """Itself, with what is said of the constants that are free."""
        timed = self.data.problem.time is not None
        return Level(self.ansatz, self.free, self.quadrature, self.weights, timed)

    def jet(self, points: Tensor, pairs: Pairs = ()) -> Jet:
        """Values, slopes and the second derivatives ``pairs``, such as ((0, 0), (0, 1)).

        With a graph by the weights where these are thawed.
        """
        points = torch.as_tensor(points, dtype=self.free.dtype, device=self.free.device)
        return jet_of(self, points, pairs, any(p.requires_grad for p in self.parameters()))

    @property
    def has_rates(self) -> bool:
        """Whether its start was built in with a rate: the equation had u_tt."""
        built_in = _parts(self.ansatz)[0].built_in
        return built_in is not None and any(c.order == 2 for c in built_in.constraints)

    def field(self, name: str | None = None, t: float | None = None, rate: bool = False) -> FieldOf:
        """A field as a coefficient, initial data, or whatever else is a function of x, y, z.

        ``name``: None where there is one. ``t``: the instant, None for the last of a function in
        time. ``rate``: its derivative by t there. It raises InputError outside the box that the
        function was trained in.
        """
        if name is None and len(self.fields) > 1:
            raise InputError(f"say which field: one of {', '.join(self.fields)}")
        if name is not None and name not in self.fields:
            raise InputError(f"there is no field '{name}'{did_you_mean(name, self.fields)}")
        span = self.data.problem.time
        if span is None and (t is not None or rate):
            raise InputError("this function has no time; leave t and rate out")
        if span is not None:
            t = span.end if t is None else float(t)
            if not span.start <= t <= span.end:
                raise InputError(f"time runs from {span.start:g} to {span.end:g}; got {t:g}")
        return FieldOf(Inside(self), 0 if name is None else self.fields.index(name), t, rate)

    def save(self, folder: str | Path) -> Path:
        """Keep it in a folder, for ``sciml.load_function``; the file's path.

        Raises InputError where a network does not say what it is built of.
        """
        path = Path(folder) / FUNCTION
        # Buffers may be shared, which the format does not know.
        tensors = {name: value.clone() for name, value in self.state_dict().items()}
        write_weights(path, _KIND, self.described(), tensors, {"found": self.parameters_found})
        return path

    def described(self) -> dict[str, Any]:
        """All but its tensors, as plain data."""
        ansatz, data, problem = self.ansatz, self.data, self.data.problem
        span, writer = problem.time, _Writer(self)
        parts = _parts(ansatz)
        return {
            "fields": self.fields,
            "lower": problem.box.lower,
            "upper": problem.box.upper,
            "time": None if span is None else [span.start, span.end],
            "periodic": problem.periodic,
            "obstacle": None if problem.obstacle is None else problem.obstacle.inside,
            "region": _described(self.region),
            "parameters": {
                name: writer.table(p) if isinstance(p, Table) else float(data.parameters[name])
                for name, p in problem.parameters.items()
            },
            "networks": [_options(part.network) for part in parts],
            "built_in": [writer.built_in(part.built_in) for part in parts],
            "joints": list(ansatz.network.joints) if isinstance(ansatz.network, Glued) else None,
            "functions": [function.described() for function in _nested(self)],
            "levelled": bool(len(self.quadrature)),
        }


@dataclass(frozen=True, eq=False)
class Inside:
    """A trained function that raises InputError outside the box that it was trained in."""

    function: TrainedFunction

    def __call__(self, points: Tensor) -> Tensor:
        """Its values."""
        axes, box = self.function.axes, self.function.data.problem.box
        if points.shape[1] != len(axes):
            raise InputError(
                f"the trained function is of {', '.join(axes)}: it cannot stand in a problem of "
                "another dimension"
            )
        for k, (low, high) in enumerate(zip(box.lower, box.upper, strict=True)):
            slack, column = _OUTSIDE * (high - low), points[:, k].detach()
            if bool(((column < low - slack) | (column > high + slack)).any()):
                raise InputError(
                    f"the trained function is known for {box.axes[k]} from {low:g} to {high:g}; "
                    f"asked at {float(column.min()):g} to {float(column.max()):g}"
                )
        found: Tensor = self.function(points)
        if bool(found.isnan().any()):
            where = "inside its obstacle" if self.function.region is None else "outside its domain"
            raise InputError(f"the trained function is not known {where}")
        return found


def read_function(folder: str | Path, problem: Problem | None = None) -> TrainedFunction:
    """What :meth:`TrainedFunction.save` wrote; see ``load.load_function``."""
    path = Path(folder)
    path = path / FUNCTION if path.is_dir() else path
    stored = read_stored(path)
    try:
        found = _read(stored.options, stored.tensors, path, problem)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise InputError(f"'{path}' holds no function: {type(error).__name__}: {error}") from None
    load_into(found, stored.tensors, path)
    found.parameters_found = {k: float(v) for k, v in stored.provenance.get("found", {}).items()}
    return found


def read_stored(path: Path) -> StoredWeights:
    """A function's file, its hash checked; raises InputError where there is none."""
    if not path.is_file():
        home = path.parent if path.name == FUNCTION else path
        raise InputError(
            f"'{home}' holds no trained function: a run of a solver such as pinn leaves one in its "
            "folder, and so does solution.save"
        )
    return read_file(path, _KIND)


def networks_in(stored: StoredWeights) -> list[nn.Module]:
    """The networks of a file with their weights, one for each window of time."""
    found = []
    for k, options in enumerate(stored.options["networks"]):
        head = f"networks.{k}."
        own = {n.removeprefix(head): v for n, v in stored.tensors.items() if n.startswith(head)}
        found.append(_network(options, own, stored.path))
        load_into(found[-1], own, stored.path)
    return found


def _network(options: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    check_fit(lambda: rebuilt(options, tensors), tensors, path)
    with torch.random.fork_rng(devices=[]):
        network = rebuilt(options, tensors)
    return network.to(next(v.dtype for v in tensors.values() if v.is_floating_point()))


def _read(
    stated: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path, problem: Problem | None
) -> TrainedFunction:
    """The function that is described so, its buffers still without values but for arrays."""
    box = Box(tuple(stated["lower"]), tuple(stated["upper"]))
    given = stated["parameters"]
    numbers = {
        name: torch.tensor(p, dtype=torch.float64)
        for name, p in given.items()
        if not isinstance(p, Mapping)
    }
    tables = {name: _Reader.table(p) for name, p in given.items() if isinstance(p, Mapping)}
    span = None if stated["time"] is None else Time(stated["time"][1], stated["time"][0])
    place = (box, span, stated["periodic"], stated["obstacle"])
    data = _stand_in(*place, tuple(stated["fields"]), numbers, tables, given)
    functions = []
    for k, each in enumerate(stated["functions"]):
        head = f"functions.{k}."
        own = {n.removeprefix(head): v for n, v in tensors.items() if n.startswith(head)}
        functions.append(_read(each, own, path, None))
    region = _region(stated.get("region"))
    body = region.body if isinstance(region, Shaped) else None
    reader, parts = _Reader(data, tensors, functions, problem, body), list[Ansatz]()
    for k, (options, built_in) in enumerate(
        zip(stated["networks"], stated["built_in"], strict=True)
    ):
        head = f"networks.{k}."
        own = {n.removeprefix(head): v for n, v in tensors.items() if n.startswith(head)}
        network: Any = _network(options, own, path)
        parts.append(Ansatz(network, reader.built_in(built_in, parts)))
    joints = stated["joints"]
    ansatz = parts[0] if joints is None else Ansatz(Glued(tuple(parts), tuple(joints)))
    free, quadrature, weights = (
        torch.zeros_like(tensors[name]) for name in ("free", "quadrature", "weights")
    )
    return TrainedFunction(ansatz, data, free, quadrature, weights, region=region)


def _kept(region: Region) -> Shaped | Meshed | None:
    """What of a domain goes along with its function; None of a box, which the data know."""
    if isinstance(region, Shaped):
        return Shaped(region.body, Pointwise(_BARE, around=region.box))
    return Meshed(region.mesh, {}) if isinstance(region, Meshed) else None


def _described(region: Shaped | Meshed | None) -> dict[str, Any] | None:
    """A domain as plain data."""
    if region is None:
        return None
    if isinstance(region, Meshed):
        mesh = region.mesh
        middles = None if mesh.middles is None else mesh.middles.tolist()
        return {
            "points": mesh.points.tolist(), "cells": mesh.cells.tolist(), "middles": middles,
            "element": mesh.element,
        }  # fmt: skip
    body, shapes = region.body, {}
    for name, shape in body.shapes.items():
        given = {f.name: getattr(shape, f.name) for f in fields(shape)[:KINDS]}
        shapes[name] = {k: _plain_shape(v) for k, v in given.items() if v is not None}
    return {"shapes": shapes, "region": body.made_of}


def _plain_shape(value: Any) -> Any:
    if isinstance(value, (Arc, Cylinder)):
        given = {f.name: getattr(value, f.name) for f in fields(value)}
        return {k: _plain_shape(v) for k, v in given.items() if v is not None}
    return [_plain_shape(v) for v in value] if isinstance(value, (tuple, list)) else float(value)


def _region(stated: Mapping[str, Any] | None) -> Shaped | Meshed | None:
    """The way back."""
    if stated is None:
        return None
    if "cells" in stated:
        middles = None if stated["middles"] is None else np.asarray(stated["middles"])
        cells = np.asarray(stated["cells"], dtype=np.int64)
        return Meshed(
            Mesh(np.asarray(stated["points"]), cells, element=stated["element"], middles=middles),
            {},
        )
    shapes = {}
    for name, given in stated["shapes"].items():
        ((kind, value),) = given.items()
        if kind == "polygon":
            value = [Arc(**_tuples(v)) if isinstance(v, Mapping) else v for v in value]
        if kind == "cylinder":
            value = Cylinder(**_tuples(value))
        shapes[name] = Primitive(**{kind: _tuple(value)})
    body = Body(shapes, stated["region"])
    return Shaped(body, Pointwise(_BARE, around=body.box))


def _tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tuple(value) for name, value in given.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


# A problem without conditions, for a domain of which nothing but its inside is asked.
_BARE = Problem(None, Equation(), {})


def _module(network: Any) -> nn.Module:
    """A network, or the blocks of one that is no module."""
    return network if isinstance(network, nn.Module) else nn.ModuleList(network.blocks())


def _options(network: Any) -> Mapping[str, Any]:
    if isinstance(network, nn.Module) and isinstance(network, Rebuildable):
        return network.options
    raise InputError(
        f"the function is not kept: its network, a {type(network).__name__}, does not say what it "
        "is built of; make it an nn.Module with options, and register it by networks.rebuilds"
    )


def _parts(ansatz: Ansatz) -> tuple[Ansatz, ...]:
    """The windows of time, or the one ansatz."""
    return ansatz.network.parts if isinstance(ansatz.network, Glued) else (ansatz,)


def _data_of(ansatz: Ansatz) -> list[Stated]:
    """All data that are built in, of every window."""
    found = []
    for part in _parts(ansatz):
        if part.built_in is None:
            continue
        for constraint in part.built_in.constraints:
            found += [*constraint.data, *(() if constraint.slope is None else (constraint.slope,))]
        if part.built_in.given is not None:
            found.append(part.built_in.given)
        if part.built_in.rim is not None:
            found.append(part.built_in.rim.data)
        found += [wall.data for wall in part.built_in.walls]
    return found


def _functions(ansatz: Ansatz) -> list[TrainedFunction]:
    """The trained functions among the data, from other runs."""
    values = (value for stated in _data_of(ansatz) for value in stated.values)
    found = (_owner(value) for value in values)
    return [function for function in found if function is not None]


def _nested(function: TrainedFunction) -> list[TrainedFunction]:
    return [f for f in function.functions if isinstance(f, TrainedFunction)]


def _owner(value: Any) -> TrainedFunction | None:
    """The trained function whose field it is."""
    known = isinstance(value, FieldOf) and isinstance(value.function, Inside)
    return value.function.function if known else None


def _arrays(ansatz: Ansatz, data: Pointwise) -> list[Tensor]:
    """Values on grids among the data, each once, in the order in which they are met."""
    found: dict[Any, Tensor] = {}
    for stated in _data_of(ansatz):
        for value in stated.values:
            if isinstance(value, FieldFile):
                found[value] = data.files[value]
            elif isinstance(value, FieldOf) and value.series is not None:
                found[id(value.series)] = value.series.coefficients
            elif is_array(value):
                found[id(value)] = value
    return list(found.values())


def _setting(
    around: Pointwise, fields: tuple[str, ...], parameters: Mapping[str, Tensor]
) -> Pointwise:
    """What data at points are read against: no more of the problem than they need."""
    problem = around.problem
    tables = {n: _inlined(p) for n, p in problem.parameters.items() if isinstance(p, Table)}
    inside = None if problem.obstacle is None else problem.obstacle.inside
    place = (around.box, problem.time, around.periodic, inside)
    return _stand_in(*place, fields, parameters, tables, problem.parameters)


def _stand_in(
    box: Box,
    time: Time | None,
    periodic: Sequence[bool],
    inside: str | None,
    fields: tuple[str, ...],
    parameters: Mapping[str, Tensor],
    tables: Mapping[str, Table],
    order: Mapping[str, Any],
) -> Pointwise:
    """A problem of the same box, time and parameters, of which nothing else is asked."""
    ring, wall = Condition(periodic=True), Condition(dirichlet=0.0)
    sides = {side: ring if periodic[k // 2] else wall for k, side in enumerate(box.sides)}
    stated = {n: tables[n] if n in tables else float(parameters[n]) for n in order}
    problem = Problem(
        box, Equation(d=0.0 if time is None else 1.0), sides, parameters=stated, time=time,
        initial=None if time is None else 0.0,
        obstacle=None if inside is None else Obstacle(inside, wall),
    )  # fmt: skip
    return Pointwise(problem, fields, dict(parameters))


@dataclass
class _Adopted:
    """An ansatz with its data read against ``data`` alone, its networks copied."""

    data: Pointwise
    known: dict[int, Ansatz] = field(default_factory=dict)

    def ansatz(self, given: Ansatz) -> Ansatz:
        if id(given) not in self.known:
            self.known[id(given)] = self._adopt(given)
        return self.known[id(given)]

    def _adopt(self, given: Ansatz) -> Ansatz:
        if isinstance(given.network, Glued):
            parts = tuple(self.ansatz(part) for part in given.network.parts)
            return Ansatz(Glued(parts, given.network.joints))
        network = copy.deepcopy(given.network)
        return Ansatz(network, None if given.built_in is None else self.built_in(given.built_in))

    def built_in(self, given: BuiltIn) -> BuiltIn:
        constraints = tuple(
            replace(
                c,
                data=tuple(map(self.stated, c.data)),
                slope=None if c.slope is None else self.stated(c.slope),
            )
            for c in given.constraints
        )
        carried = None if given.given is None else self.stated(given.given)
        rim = given.rim
        if rim is not None:
            hole = replace(rim.hole, data=self.data)
            rim = replace(rim, hole=hole, data=self.stated(rim.data))
        walls = tuple(replace(wall, data=self.stated(wall.data)) for wall in given.walls)
        return replace(
            given, constraints=constraints, given=carried, moving=False, rim=rim, walls=walls
        )

    def stated(self, given: Stated) -> Stated:
        values = tuple(map(self.value, given.values, given.keys))
        return replace(given, data=self.data, values=values)

    def value(self, value: Any, key: str) -> Any:
        if isinstance(value, RunField):
            value = value.function
        if isinstance(value, FieldFile) and value not in self.data.files:
            self.data.files[value] = load(value, key)
        if isinstance(value, Table):
            return _inlined(value)
        if isinstance(value, FieldOf) and isinstance(value.function, Ansatz):
            return replace(value, function=self.ansatz(value.function))
        if is_array(value):
            tensor = torch.as_tensor(value).detach()
            return float(tensor) if tensor.ndim == 0 else tensor.to(torch.float64)
        return value


_VALUES = "values of the table"


def _inlined(table: Table) -> Table:
    """The same without its file."""
    read = curve(table)
    columns = {table.of: read.knots.tolist(), _VALUES: read.values.tolist()}
    return Table(columns=columns, of=table.of, outside=table.outside)


class _Writer:
    """The data of a function as plain data."""

    def __init__(self, function: TrainedFunction) -> None:
        self.parts = _parts(function.ansatz)
        self.functions = _nested(function)
        self.arrays = _arrays(function.ansatz, function.data)
        self.files = function.data.files

    def built_in(self, given: BuiltIn | None) -> dict[str, Any] | None:
        if given is None:
            return None
        return {
            "constraints": [
                {
                    "axis": c.axis, "low": c.low, "high": c.high, "ends": c.ends,
                    "known": c.known.tolist(), "order": c.order,
                    "data": [self.stated(each) for each in c.data],
                    "slope": None if c.slope is None else self.stated(c.slope),
                }
                for c in given.constraints
            ],
            "given": None if given.given is None else self.stated(given.given),
            "rim": None if given.rim is None else {
                "known": given.rim.known.tolist(), "data": self.stated(given.rim.data),
                "after": given.rim.after,
            },
            "walls": [
                {"faces": wall.faces, "known": wall.known.tolist(), "data": self.stated(wall.data)}
                for wall in given.walls
            ],
        }  # fmt: skip

    def stated(self, given: Stated) -> dict[str, Any]:
        values = [self.value(v, key) for v, key in zip(given.values, given.keys, strict=True)]
        return {"values": values, "keys": given.keys, "normal": given.normal}

    def value(self, value: Any, key: str) -> Any:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, Real):
            return float(value)
        if isinstance(value, Table):
            return self.table(value)
        if isinstance(value, FieldFile):
            number = self._number(self.files[value])
            return {"array": number, "file": value.file, "centring": value.centring,
                    "dataset": value.dataset, "saved_field": value.saved_field}  # fmt: skip
        if is_array(value):
            return {"array": self._number(value)}
        if isinstance(value, FieldOf):
            where = {"field": value.field, "t": value.t, "rate": value.rate}
            owner = _owner(value)
            if owner is not None:
                return {"function": self.functions.index(owner), **where}
            window = next(k for k, part in enumerate(self.parts) if part is value.function)
            series = None if value.series is None else self._number(value.series.coefficients)
            return {"window": window, **where, "series": series}
        return {"python": key}

    def table(self, table: Table) -> dict[str, Any]:
        read = curve(table)
        return {"of": table.of, "outside": table.outside, "knots": read.knots.tolist(),
                "values": read.values.tolist()}  # fmt: skip

    def _number(self, array: Tensor) -> int:
        return next(k for k, each in enumerate(self.arrays) if each is array)


@dataclass(frozen=True)
class _Reader:
    """The way back."""

    data: Pointwise
    tensors: Mapping[str, Tensor]
    functions: Sequence[TrainedFunction]
    problem: Problem | None
    body: Body | None = None

    def built_in(self, given: Mapping[str, Any] | None, parts: list[Ansatz]) -> BuiltIn | None:
        if given is None:
            return None
        constraints = tuple(
            Constraint(
                int(c["axis"]), float(c["low"]), float(c["high"]), str(c["ends"]),
                torch.tensor(c["known"]), tuple(self.stated(d, "", parts) for d in c["data"]),
                int(c["order"]), None if c["slope"] is None
                else self.stated(c["slope"], "t", parts),
            )
            for c in given["constraints"]
        )  # fmt: skip
        carried = None if given["given"] is None else self.stated(given["given"], "", parts)
        rim, hole, at = None, hole_of(self.data), given["rim"]
        if at is not None and hole is not None:
            data = self.stated(at["data"], "", parts)
            rim = Rim(hole, torch.tensor(at["known"]), data, int(at["after"]))
        count = len(self.data.axes), len(self.data.fields)
        walls = tuple(
            Wall(
                self.body, tuple(map(int, w["faces"])), torch.tensor(w["known"]),
                self.stated(w["data"], "", parts),
            )
            for w in given.get("walls", ()) if self.body is not None
        )  # fmt: skip
        return BuiltIn(*count, constraints, carried, rim=rim, walls=walls)

    def stated(self, given: Mapping[str, Any], suffix: str, parts: list[Ansatz]) -> Stated:
        keys = tuple(map(str, given["keys"]))
        values = tuple(
            self.value(value, key, k, suffix, parts)
            for k, (value, key) in enumerate(zip(given["values"], keys, strict=True))
        )
        normal = None if given["normal"] is None else tuple(map(float, given["normal"]))
        return Stated(self.data, values, keys, normal)

    def value(self, value: Any, key: str, k: int, suffix: str, parts: list[Ansatz]) -> Any:
        if not isinstance(value, Mapping):
            return value
        if "python" in value:
            return self._python(key, k, suffix)
        if "knots" in value:
            return self.table(value)
        if "array" in value:
            array = self.tensors[f"array_{int(value['array'])}"].clone()
            if "file" not in value:
                return array
            source = FieldFile(
                value["file"], value["dataset"], value["centring"], value["saved_field"]
            )
            self.data.files[source] = array
            return source
        function: Callable[[Tensor], Tensor] = (
            parts[int(value["window"])]
            if "window" in value
            else Inside(self.functions[int(value["function"])])
        )
        t = None if value["t"] is None else float(value["t"])
        found = FieldOf(function, int(value["field"]), t, bool(value["rate"]))
        number, box = value.get("series"), self.data.box
        if number is None:
            return found
        coefficients = self.tensors[f"array_{int(number)}"].clone()
        series = Series(coefficients, box.lower, box.upper, tuple(self.data.periodic))
        return replace(found, series=series)

    @staticmethod
    def table(stated: Mapping[str, Any]) -> Table:
        columns = {stated["of"]: stated["knots"], _VALUES: stated["values"]}
        return Table(columns=columns, of=stated["of"], outside=stated["outside"])

    def _python(self, key: str, k: int, suffix: str) -> Any:
        """What was stated as a Python function, from the problem that is given."""
        if self.problem is None:
            raise InputError(
                f"{key} was a Python function, which no file holds: give the problem too, "
                "load_function(folder, problem)"
            )
        obstacle = self.problem.obstacle
        if key.startswith("problem.obstacle"):
            found = None if obstacle is None else obstacle.boundary.dirichlet
            found = found[k] if isinstance(found, (list, tuple)) else found
        elif key == "problem.initial":
            found = self.problem.first.get(self.data.fields[k] + suffix)
        else:
            side = key.split(".")[2]
            known = self.problem.boundary
            found = known[side].dirichlet if side in known else None
            if isinstance(found, (list, tuple)):
                found = found[k]
        if not callable(found):
            raise InputError(f"{key} was a Python function; this problem has none there")
        return found


def begin(objective: Objective, folder: str, window: int = 0, count: int = 1) -> None:
    """Let an objective's function go on from the one that a run kept; unknowns from what it found.

    ``window``: the number of the present one, of ``count``; where the kept function has one
    alone, the first begins with it and the others are left as they are. Raises InputError for a
    folder without a function, and one of other windows, fields or layers.
    """
    try:
        stored = read_stored(Path(folder) / FUNCTION if Path(folder).is_dir() else Path(folder))
        networks = networks_in(stored)
        fields = tuple(stored.options["fields"])
        found = {name: float(value) for name, value in stored.provenance.get("found", {}).items()}
    except InputError as error:
        raise InputError(error.message, _START) from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"'{folder}' holds no function: {error}", _START) from None
    if fields != objective.form.fields:
        raise InputError(
            f"the function in '{folder}' is of {', '.join(fields)}; this problem's fields are "
            f"{', '.join(objective.form.fields)}",
            _START,
        )
    if len(networks) not in (1, count):
        raise InputError(
            f"the function in '{folder}' has {len(networks)} windows of time, this training "
            f"{count}; write windows: {len(networks)}",
            _START,
        )
    if window and len(networks) == 1:
        return
    network, own = networks[window], objective.ansatz.network
    before, now = (_plain(_options(each)) for each in (network, own))
    unlike = [f"{key} was {old}, is {new}" for key, old, new in differences(before, now)]
    if unlike:
        raise InputError(f"the network in '{folder}' is another: {'; '.join(unlike)}", _START)
    objective.restart(found)
    given: Any = network.requires_grad_(True)
    objective.ansatz, objective.begun = Ansatz(given, objective.ansatz.built_in), True


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """What of a network's options decides whether another may go on from its weights."""
    found: dict[str, Any] = json.loads(json.dumps(options))
    found.pop("count", None)
    for corner in ("lower", "upper"):
        found.get("embedding", {}).pop(corner, None)
    return found
