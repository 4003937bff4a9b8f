"""The reader: whatever a coefficient is written as, it means the same wherever it stands.

Every way to write 1 + (one of x, t, u, u_x, another field, a parameter) is put into every place.
There it has the values of the plain text, or both are refused in one line with the place's key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciml import (
    Box,
    Condition,
    Equation,
    FieldFile,
    Grid,
    Helmholtz,
    NavierStokes,
    Problem,
    Robin,
    System,
    Table,
    Time,
)
from sciml.core.discretize import discretize, semidiscretize
from sciml.core.discretize.coefficients import data, evaluate
from sciml.core.discretize.elements_data import evaluate as on_elements
from sciml.core.discretize.elements_data import mesh_data
from sciml.core.discretize.layout import layout
from sciml.core.errors import InputError
from sciml.core.fields import values_on
from sciml.core.mesh import Mesh
from sciml.core.pointwise import Pointwise, numeric_parameters
from sciml.core.quadrature import whole
from sciml.solvers import Projection
from sciml.solvers.spectral.fourier import fourier
from sciml.solvers.spectral.terms import reader

BOX = Box((0.0, 0.0), (1.0, 1.0))
WALLS = dict.fromkeys(BOX.sides, Condition(dirichlet=0.0))
ROUND = dict.fromkeys(BOX.sides, Condition(periodic=True))
TIME = Time(1.0)
NODES, CELLS = Grid((9, 9)), Grid((8, 8), "cell")
T = 0.3
KEY = "problem.equation.f"
# Four triangles around the centre of the square.
MESH = Mesh(
    np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]], dtype=float),
    np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]),
    {},
    {"rest": np.array([[0, 1], [1, 2], [2, 3], [0, 3]])},
)


def wave(points: tuple[Tensor, ...]) -> Tensor:
    x, y = points
    return (3 * x).sin() * (1 + y)


# ---- the places: a coefficient and parameters to values ----


def on_grid(grid: Grid) -> Callable[..., Tensor]:
    def place(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
        problem = Problem(BOX, Equation(d=1.0), WALLS, None, parameters, time=TIME, initial=0.0)
        lay = layout(problem, grid.bind(BOX), torch.float64, "cpu")
        info = data(problem, lay, torch.float64, torch.device("cpu")).at_time(T)
        u = wave(info.own)
        state = info.with_state(u, (2 * u, 3 * u))
        return evaluate(coefficient, info.own, state, KEY).expand(grid.shape)

    return place


def on_mesh(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    problem = Problem(None, Equation(), {"rest": Condition(neumann=0.0)}, parameters=parameters)
    part = whole(MESH, 3)
    value = on_elements(coefficient, part, mesh_data(problem, MESH), KEY)
    return value.expand(part.points[0].shape)


def at_points(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    problem = Problem(BOX, Equation(d=1.0), WALLS, None, parameters, time=TIME, initial=0.0)
    read = Pointwise(problem, ("u", "v"), numeric_parameters(problem))
    points = torch.linspace(0, 1, 33, dtype=torch.float64).reshape(11, 3)
    u = wave((points[:, 0], points[:, 1]))
    values, slopes = torch.stack([u, 5 * u], 1), torch.stack([u, 2 * u, 3 * u, u], 0)
    slopes = torch.stack([slopes.reshape(2, 2, 11)[:, 0], slopes.reshape(2, 2, 11)[:, 1]], -1)
    return read(coefficient, KEY, points, values, slopes).expand(11)


def at_modes(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    problem = Problem(BOX, Equation(d=1.0), ROUND, None, parameters, time=TIME, initial=0.0)
    space = fourier(problem, Grid((8, 8), "cell").bind(BOX), torch.device("cpu"))
    read = reader(problem, space, ("u", "v"))
    u = wave(space.points)
    state = {"t": read.instant(T), "u": u, "ux": 2 * u, "uy": u, "v": 3 * u, "vx": u, "vy": u}
    value = read.read(coefficient, KEY).at({**read.parameters, **state})
    return value.expand(space.shape)


def in_helmholtz(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    equation = Helmholtz(wavenumber=5.0, f=coefficient)
    system = discretize(Problem(BOX, equation, WALLS, parameters=parameters), NODES)
    return system.b.real


def in_systems(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    equations = {"u": Equation(d=1.0, f=coefficient), "v": Equation(d=1.0)}
    initial = {"u": "sin(3*x)", "v": "cos(x)*y"}
    problem = Problem(BOX, System(equations), WALLS, None, parameters, time=TIME, initial=initial)
    system = semidiscretize(problem, NODES)
    return system.residual(system.first[0], T)


def in_a_flow(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    walls = dict.fromkeys(BOX.sides, Condition(dirichlet=(0.0, 0.0)))
    equation = NavierStokes(0.1, force=(coefficient, 0.0))
    problem = Problem(
        BOX, equation, walls, None, parameters, time=TIME, initial={"u": 0.0, "v": 0.0}
    )
    channel = Projection().init(problem, CELLS).channel
    return torch.from_numpy(channel.force(T)[0])


def on_a_side(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    sides = WALLS | {"top": Condition(robin=Robin(1.0, coefficient))}
    problem = Problem(BOX, Equation(d=1.0), sides, None, parameters, time=TIME, initial=0.0)
    system = semidiscretize(problem, NODES)
    return system.residual(system.first[0], T)


def at_the_start(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    time = Time(1.0, start=T)
    problem = Problem(BOX, Equation(d=1.0), WALLS, None, parameters, time=time, initial=coefficient)
    return semidiscretize(problem, NODES).first[0]


def exact(coefficient: Any, parameters: dict[str, Any]) -> Tensor:
    problem = Problem(BOX, Equation(d=1.0), WALLS, None, parameters, time=TIME, initial=0.0)
    return values_on(replace(problem, exact=coefficient), NODES, coefficient, "problem.exact", t=T)


# Each place with the shape of its own arrays, what it knows, and the key of its refusals.
SYSTEM = "problem.equation.equations.u.f"
PLACES: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], str, str]] = {
    "node grid": (on_grid(NODES), (9, 9), "number x t u slope parameter", KEY),
    "cell grid": (on_grid(CELLS), (8, 8), "number x t u slope parameter", KEY),
    "mesh": (on_mesh, (5,), "number x parameter", KEY),
    "points": (at_points, (9, 9), "number x t u slope other parameter", KEY),
    "modes": (at_modes, (8, 8), "number x t u slope other parameter", KEY),
    "helmholtz": (in_helmholtz, (9, 9), "number x parameter", KEY),
    "system": (in_systems, (9, 9), "number x t u other parameter", SYSTEM),
    "flow": (in_a_flow, (8, 8), "number x t parameter", "problem.equation.force[0]"),
    "side": (on_a_side, (9, 9), "number x t parameter", "problem.boundary.top.robin"),
    "start": (at_the_start, (9, 9), "number x t parameter", "problem.initial.u"),
    "exact": (exact, (9, 9), "number x t parameter", "problem.exact"),
}

# ---- the kinds: what 1 + one name may be written as ----

NAMES = {"x": "x", "t": "t", "u": "u", "slope": "ux", "other": "v", "parameter": "s"}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "number": lambda: 2.5,
    "x": lambda x: 1 + x,
    "t": lambda t: 1 + t,
    "u": lambda u: 1 + u,
    "slope": lambda a, y, ux: 1 + ux,
    "other": lambda x, y, *, v: 1 + v,
    "parameter": lambda s, *places: 1 + s + 0 * places[0],
}
ENDS = [-9.0, 9.0]
KINDS = [
    *((form, "number") for form in ("number", "function", "tensor")),
    *((form, "x") for form in ("function", "table", "k", "k(.)", "file", "tensor", "array")),
    *(
        (form, name)
        for name in ("t", "u", "slope", "other", "parameter")
        for form in ("function", "table", "k", "k(.)")
    ),
]


def written(form: str, name: str, shape: tuple[int, ...], folder: Path) -> tuple[Any, dict]:
    """A coefficient and the parameters that it needs."""
    variable = NAMES.get(name, "")
    columns = {variable: ENDS, "k": [1 + end for end in ENDS]}
    parameters = {"s": 0.7} if name == "parameter" else {}
    if form == "function":
        return FUNCTIONS[name], parameters
    if form == "number":
        return 2.5, {}
    if form == "table":
        return Table(columns=columns, of=variable), parameters
    if form in ("k", "k(.)"):
        text = "k" if form == "k" else f"k({variable})"
        return text, parameters | {"k": Table(columns=columns, of=variable)}
    if name == "number":
        return torch.tensor(2.5), {}
    if shape == (5,):
        values = torch.from_numpy(1 + MESH.points[:, 0])
    else:
        points = Grid(shape, "cell" if shape == (8, 8) else "node").bind(BOX).axes()[0]
        values = (1 + points)[:, None].expand(shape).clone()
    if form == "file":
        np.save(folder / "k.npy", values.numpy())
        return FieldFile(str(folder / "k.npy")), {}
    return (values if form == "tensor" else values.numpy()), {}


def outcome(place: Callable[..., Tensor], coefficient: Any, parameters: dict) -> Any:
    try:
        return place(coefficient, parameters)
    except InputError as error:
        assert error.key is not None
        assert "\n" not in error.message
        return error.key


PAIRS = [(place, form, name) for place in PLACES for form, name in KINDS]


@pytest.mark.parametrize(("where", "form", "name"), PAIRS)
def test_a_coefficient_means_the_same_however_it_is_written(
    where: str, form: str, name: str, tmp_path: Path
):
    place, shape, known, key = PLACES[where]
    coefficient, parameters = written(form, name, shape, tmp_path)
    text = "2.5" if name == "number" else f"1 + {NAMES[name]}"
    right = outcome(place, text, {"s": 0.7} if name == "parameter" else {})
    found = outcome(place, coefficient, parameters)
    if name in known.split():
        torch.testing.assert_close(found, right, rtol=1e-13, atol=1e-13)
    else:
        assert isinstance(found, str)
        assert isinstance(right, str)
        assert found.startswith(key)
        assert right.startswith(key)


def test_the_crossing_is_as_large_as_it_says():
    answered = sum(name in PLACES[where][2].split() for where, _, name in PAIRS)
    assert (len(PAIRS), answered) == (330, 238)
