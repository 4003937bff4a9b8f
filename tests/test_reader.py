"""The reader: whatever a coefficient is written as, it means the same wherever it stands.

Every way to write 1 + (one of x, t, u, u_x, another field, a parameter) is put into every place.
There it has the values of the plain text, or both are refused in one line with the place's key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import PchipInterpolator
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
    solve,
)
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.quadrature import whole
from sciml.core.problem.table import curve
from sciml.core.run.status import Status
from sciml.discretization import discretize, semidiscretize
from sciml.discretization.elements.data import evaluate as on_elements
from sciml.discretization.elements.data import mesh_data
from sciml.discretization.fields import values_on
from sciml.discretization.fourier.modes import fourier
from sciml.discretization.fourier.terms import reader
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters
from sciml.discretization.volumes.coefficients import data, evaluate
from sciml.discretization.volumes.layout import layout
from sciml.solvers import ETDRK4, IMEX, SDIRK, Auto, Newton, Projection, RungeKutta

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
    "side": (on_a_side, (9, 9), "number x t u parameter", "problem.boundary.top.robin"),
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
    assert (len(PAIRS), answered) == (330, 242)


# ---- what was wrong ----

LINE = Box((0.0,), (1.0,))
ENDS_01 = {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet=1.0)}


def evolved(equation: Any, box: Box, grid: Grid, initial: Any) -> Tensor:
    sides = dict.fromkeys(box.sides, Condition(periodic=True))
    problem = Problem(box, equation, sides, time=Time(0.01), initial=initial)
    return solve(problem, ETDRK4(), on=grid).last


def test_a_function_of_time_moves_on_fourier_modes():
    equation = Equation(kind="kdv", f=lambda x, t: 100 * t + 0 * x)
    moved = evolved(equation, LINE, Grid((32,)), 0.0)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.005), rtol=1e-8, atol=0)


PULSE = "100*t*sin(2*pi*y)"


def pulse(y: Tensor, t: Tensor) -> Tensor:
    return 100 * t * (2 * torch.pi * y).sin()


@pytest.mark.parametrize(
    ("text", "function"),
    [
        (NavierStokes(0.01, vorticity_source=PULSE), NavierStokes(0.01, vorticity_source=pulse)),
        (NavierStokes(0.01, force=(PULSE, 0.0)), NavierStokes(0.01, force=(pulse, 0.0))),
    ],
    ids=["vorticity source", "force"],
)
def test_the_same_in_a_periodic_flow(text: NavierStokes, function: NavierStokes):
    right, found = (
        evolved(flow, BOX, Grid((16, 16)), {"vorticity": 0.0}) for flow in (text, function)
    )
    assert float(right.abs().max()) > 1e-3
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("periodic", [False, True])
def test_the_same_in_systems_and_for_other_fields(periodic: bool):
    def answer(f: Any, g: Any) -> Tensor:
        fields = {"u": Equation(d=1.0, f=f), "v": Equation(d=1.0, f=g)}
        sides = ROUND if periodic else WALLS
        initial = {"u": "sin(2*pi*x)", "v": "cos(2*pi*y)"}
        problem = Problem(BOX, System(fields), sides, time=Time(0.05), initial=initial)
        return solve(problem, Auto(), on=Grid((16, 16) if periodic else (17, 17))).last

    right = answer("v - u", "10*t")
    found = answer(lambda x, y, u, v: v - u, lambda t: 10 * t)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("K", ["0.1 + u**2", lambda u: 0.1 + u**2, lambda x, u: 0.1 + u**2])
def test_the_solution_is_no_coordinate(K: Any):
    problem = Problem(LINE, Equation(K=K, f=1.0), ENDS_01)
    # With w = 0.1 u + u^3/3 the equation is w'' = -1, and w(1/2) = w(1)/2 + 1/8.
    for solver in (Auto(), Newton()):
        u = float(solve(problem, solver, on=Grid((41,))).value[20])
        assert 0.1 * u + u**3 / 3 == pytest.approx((0.1 + 1 / 3) / 2 + 1 / 8, rel=2e-3)


def test_a_parameter_in_a_function_of_the_helmholtz_equation():
    def answer(f: Any) -> Tensor:
        equation, s = Helmholtz(wavenumber=5.0, f=f), {"s": 2.0}
        return solve(Problem(BOX, equation, WALLS, parameters=s), Auto(), on=NODES).value

    assert torch.equal(answer(lambda x, y, s: s + 0 * x), answer("s"))


def test_a_viscosity_is_not_frozen_at_the_start():
    walls = dict.fromkeys(BOX.sides, Condition(dirichlet=(0.0, 0.0)))
    for viscosity in ("0.01 + t", lambda t: 0.01 + t):
        problem = Problem(
            BOX, NavierStokes(viscosity), walls, time=TIME, initial={"u": 0.0, "v": 0.0}
        )
        with pytest.raises(InputError, match="must not vary in time"):
            Projection().init(problem, CELLS)


# ---- files by their centring ----


def saved(folder: Path, values: Any, centring: Any = None) -> FieldFile:
    name = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(name, values)
    return FieldFile(str(name), centring=centring)


def centres(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


@pytest.mark.parametrize("n", [64, 256])
def test_linear_values_at_cell_centres_are_exact_on_nodes(n: int, tmp_path: Path):
    K = saved(tmp_path, 1 + centres(n), "cell")
    found, right = (
        solve(Problem(LINE, Equation(K=k), ENDS_01), Auto(), on=Grid((129,))).value
        for k in (K, "1 + x")
    )
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    x = torch.linspace(0, 1, 129, dtype=torch.float64)
    exact = torch.log1p(x) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    assert float((found - exact).abs().max()) < 2e-6


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_values_on_another_grid_converge_with_second_order(centring: str, tmp_path: Path):
    def error(n: int) -> float:
        x = centres(n) if centring == "cell" else np.linspace(0, 1, n + 1)
        values = np.exp(x)[:, None] * (2 + np.sin(2 * x))[None, :]
        f = saved(tmp_path, values, centring)
        problem = Problem(BOX, Equation(), WALLS)
        gap = values_on(problem, Grid((129, 97)), f, KEY) - values_on(
            problem, Grid((129, 97)), "exp(x)*(2 + sin(2*y))", KEY
        )
        return float(gap.abs().max())

    errors = [error(n) for n in (16, 32, 64)]
    assert all(3.5 < a / b < 4.5 for a, b in pairwise(errors))


def test_one_value_less_than_nodes_are_the_cells_between(tmp_path: Path):
    problem = Problem(LINE, Equation(), ENDS_01)
    right = values_on(problem, Grid((129,)), "1 + x", KEY)
    for values in (saved(tmp_path, 1 + centres(128)), torch.from_numpy(1 + centres(128))):
        torch.testing.assert_close(values_on(problem, Grid((129,)), values, KEY), right)
    # What a file says of itself counts for more than its shape.
    nodes = saved(tmp_path, np.linspace(1, 2, 128), "node")
    torch.testing.assert_close(values_on(problem, Grid((129,)), nodes, KEY), right)
    cells = saved(tmp_path, 1 + centres(129), "cell")
    torch.testing.assert_close(values_on(problem, Grid((129,)), cells, KEY), right)


def test_values_at_cells_keep_their_sign_up_to_the_sides(tmp_path: Path):
    problem = Problem(LINE, Equation(), ENDS_01)
    value = values_on(problem, Grid((9,)), saved(tmp_path, [1.0, 100.0, 1.0], "cell"), KEY)
    assert float(value.min()) == 1.0


def test_values_at_cells_go_round_a_periodic_axis(tmp_path: Path):
    sides = dict.fromkeys(LINE.sides, Condition(periodic=True))
    problem = Problem(LINE, Equation(), sides)
    f = saved(tmp_path, [1.0, 2.0, 4.0], "cell")
    value = values_on(problem, Grid((13,)), f, KEY)
    assert value[0] == value[12] == pytest.approx(2.5)


# ---- tables ----


def test_a_table_is_the_monotone_interpolant(tmp_path: Path):
    rng = np.random.default_rng(3)
    for n in (2, 3, 4, 30):
        x, y = np.sort(rng.uniform(-5, 5, n)), np.round(rng.normal(size=n), 1).cumsum()
        right = PchipInterpolator(x, y)
        at = torch.linspace(x[0], x[-1], 401, dtype=torch.float64).requires_grad_()
        value = curve(Table(columns={"T": x, "k": y}, of="T"))(at)
        (slope,) = torch.autograd.grad(value.sum(), at)
        np.testing.assert_allclose(value.detach(), right(at.detach()), atol=1e-13)
        np.testing.assert_allclose(slope, right(at.detach(), 1), atol=1e-11)
        forward = torch.func.jvp(
            curve(Table(columns={"T": x, "k": y}, of="T")), (at.detach(),), (torch.ones(401),)
        )[1]
        np.testing.assert_allclose(forward, slope, atol=1e-12)


def test_beyond_its_range_a_table_is_refused_or_held():
    table = Table(columns={"x": [0.0, 0.5], "k": [1.0, 2.0]}, of="x")
    problem = Problem(LINE, Equation(K=table), ENDS_01)
    with pytest.raises(InputError, match=r"at x = 0.6.*of x from 0 to 0.5.*outside: hold") as error:
        discretize(problem, Grid((6,)))
    assert error.value.key == "problem.equation.K"
    held = values_on(problem, Grid((6,)), replace(table, outside="hold"), KEY)
    torch.testing.assert_close(held, torch.tensor([1, 1.4, 1.8, 2, 2, 2], dtype=torch.float64))


@pytest.mark.parametrize(
    ("K", "linear"),
    [("k(x)", True), (lambda x, k: k(x), True), ("k", False), ("k(u)", False), ("k(k)", False)],
)
def test_a_table_is_of_its_own_variable_unless_it_is_given_another(K: Any, linear: bool):
    tables = {"k": Table(columns={"u": [0.0, 1.0], "k": [1.0, 2.0]}, of="u")}
    assert Problem(LINE, Equation(K=K), ENDS_01, parameters=tables).linear is linear


def test_newton_sees_a_table_of_the_solution_and_its_range():
    def answer(K: Any, **options: Any) -> Any:
        problem = Problem(LINE, Equation(K=K, f=1.0), ENDS_01)
        return solve(problem, Newton(), on=Grid((41,)), **options)

    u = np.linspace(-1, 2, 301)
    table = Table(columns={"u": u, "k": 0.1 + u**2}, of="u")
    found, right = answer(table), answer("0.1 + u**2")
    assert int(found.stats.iterations) <= int(right.stats.iterations) + 1
    torch.testing.assert_close(found.value, right.value, rtol=0, atol=1e-4)
    short = Table(columns={"u": [0.5, 1.0], "k": [1.0, 2.0]}, of="u")
    failed = answer(short, throw=False)
    assert failed.status is Status.OUTSIDE_TABLE
    assert any("of u from 0.5 to 1" in note for note in failed.notes)
    with pytest.raises(SolveError, match=r"outside its range.*of u from 0\.5 to 1"):
        answer(short)


PUSH = Table(columns={"u": [0.0, 0.5], "k": [200.0, 200.0]}, of="u")
LATE = Table(columns={"t": [0.0, 0.005], "k": [1.0, 2.0]}, of="t")


@pytest.mark.parametrize("several", [False, True], ids=["one field", "a system"])
@pytest.mark.parametrize(
    "solver", [SDIRK(), IMEX(), RungeKutta(), ETDRK4(max_steps=1000)], ids=lambda s: s.kind
)
def test_a_run_that_leaves_a_table_says_which(solver: Any, several: bool):
    modes = solver.kind == "etdrk4"
    side = Condition(periodic=True) if modes else Condition(dirichlet=0.0)

    def run(f: Any, **more: Any) -> Any:
        one = Equation(d=1.0, f=f)
        fields = System({"v": Equation(d=1.0), "u": one}) if several else one
        start = {"v": 0.0, "u": 0.0} if several else 0.0
        sides = dict.fromkeys(LINE.sides, side)
        problem = Problem(LINE, fields, sides, time=Time(0.01), initial=start)
        return solve(problem, solver, on=Grid((32,) if modes else (41,)), **more)

    with pytest.raises(SolveError, match=r"outside table.*the table is of u from 0 to 0\.5"):
        run(PUSH)
    left = run(PUSH, throw=False)
    assert left.status is Status.OUTSIDE_TABLE
    assert any("of u from 0 to 0.5" in note for note in left.notes)
    with pytest.raises(InputError, match=r"the table is of t from 0 to 0\.005") as error:
        run(LATE)
    assert error.value.key == ("problem.equation.equations.u.f" if several else KEY)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("T,k\n0,1\n1,2\n", {"of": "t"}, "no column 't'"),
        ("T,k,rho\n0,1,3\n1,2,3\n", {"of": "T"}, "say which column"),
        ("T,k\n0,1\n1,2\n", {"of": "T", "column": "rho"}, "no column 'rho'; it has T, k"),
        ("T,k\n1,1\n0,2\n", {"of": "T"}, "T must increase .*1 is followed by 0"),
        ("T,k\n1,1\n1,2\n", {"of": "T"}, "1 occurs twice"),
        ("T,k\n0,nan\n1,2\n", {"of": "T"}, "line 2: expected 2 finite numbers"),
        ("T,k\n0,1,2\n", {"of": "T"}, "line 2: expected 2 finite numbers"),
        ("T,k\n0,1\n", {"of": "T"}, "at least two rows"),
        ("", {"of": "T"}, "needs a line of names"),
        ("T,T\n0,1\n", {"of": "T"}, "names a column twice"),
    ],
)
def test_what_is_no_table_is_refused(text: str, options: dict, said: str, tmp_path: Path):
    (tmp_path / "k.csv").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        discretize(
            Problem(LINE, Equation(K=Table(str(tmp_path / "k.csv"), **options)), ENDS_01),
            Grid((5,)),
        )
    assert error.value.key.startswith("problem.equation.K")


def test_a_file_that_has_changed_is_read_again(tmp_path: Path):
    file, problem = tmp_path / "k.csv", Problem(LINE, Equation(), ENDS_01)
    for top in (2, 35):
        file.write_text(f"x,k\n0,1\n1,{top}\n")
        for K in (Table(str(file), of="x"), "k"):
            parameters = {"k": Table(str(file), of="x")}
            value = values_on(replace(problem, parameters=parameters), Grid((3,)), K, KEY)
            assert value[-1] == top
