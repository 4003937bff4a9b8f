"""The projection method: exact flows with their orders, invariants, obstacles, restarts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation, NavierStokes
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Obstacle, Problem, Robin, Time
from sciml.core.run.solution import Solution
from sciml.core.run.status import Status
from sciml.solvers import Projection
from sciml.solvers.flow.loops import tendency_u, tendency_v

REST = Condition(dirichlet=(0.0, 0.0))
WRAP = Condition(periodic=True)
OUT = Condition(neumann=0.0)
UNIT = Box((0.0, 0.0), (1.0, 1.0))
WALLS = dict.fromkeys(UNIT.sides, REST)
PERIODIC = dict.fromkeys(UNIT.sides, WRAP)
CHANNEL = {"left": WRAP, "right": WRAP, "bottom": REST, "top": REST}
LID = {**WALLS, "top": Condition(dirichlet=(1.0, 0.0))}


def flow(boundary: dict[str, Condition], **given: Any) -> Problem:
    given = {"time": Time(0.1), "initial": {"u": 0.0, "v": 0.0}, "viscosity": 0.05, **given}
    equation = NavierStokes(given.pop("viscosity"), given.pop("force", None))
    return Problem(given.pop("domain", UNIT), equation, boundary, **given)


def run(problem: Problem, n: int | tuple[int, int], **given: Any) -> Solution:
    shape = (n, n) if isinstance(n, int) else n
    rest = {k: v for k, v in given.items() if k in ("initial", "frames", "progress", "observe")}
    options = {k: v for k, v in given.items() if k not in rest}
    solver = Projection(**options)
    return solver.run(solver.init(problem, Grid(shape, "cell")), **rest)


# Taylor and Green's vortices (1937), carried along at the speed (1, 1/2).
NU = 0.02
U = "1 + sin(2*pi*(x - t))*cos(2*pi*(y - t/2))*exp(-8*pi**2*0.02*t)"
V = "0.5 - cos(2*pi*(x - t))*sin(2*pi*(y - t/2))*exp(-8*pi**2*0.02*t)"


def vortices(boundary: str) -> Problem:
    sides = PERIODIC
    if boundary == "walls":
        sides = dict.fromkeys(UNIT.sides, Condition(dirichlet=(U, V)))
    # The box is turned against the vortices so that no side lies in a symmetry.
    box = Box((0.1, 0.2), (1.1, 1.2))
    first = {"u": U, "v": V}
    return flow(sides, domain=box, viscosity=NU, time=Time(0.2), initial=first)


def exact_vortices(grid: Grid, t: float) -> torch.Tensor:
    x, y = (2 * math.pi * (axis - s * t) for axis, s in zip(grid.coordinates(), (1.0, 0.5)))
    decay = math.exp(-8 * math.pi**2 * NU * t)
    u, v = 1 + x.sin() * y.cos() * decay, 0.5 - x.cos() * y.sin() * decay
    p = ((2 * x).cos() + (2 * y).cos()) / 4 * decay**2
    return torch.stack([u, v, p - p.mean()])


def errors(solution: Solution) -> torch.Tensor:
    assert solution.on is not None
    gap = solution.last - exact_vortices(solution.on, 0.2)
    return gap.square().mean((-2, -1)).sqrt()


@pytest.mark.parametrize(("boundary", "sizes"), [("periodic", (24, 48)), ("walls", (32, 64))])
def test_second_order_in_space_and_time(boundary: str, sizes: tuple[int, int]) -> None:
    coarse, fine = (errors(run(vortices(boundary), n, step=0.15 / n)) for n in sizes)
    order = torch.log2(coarse / fine)
    assert (order[:2] - 2).abs().max() < 0.1
    # Walls spoil the pressure's order a little (Brown, Cortez and Minion 2001).
    assert abs(order[2] - 2) < (0.1 if boundary == "periodic" else 0.3)


@pytest.mark.parametrize("boundary", ["periodic", "walls"])
def test_second_order_in_time_alone(boundary: str) -> None:
    a, b, c = (run(vortices(boundary), 16, step=k).last[:2] for k in (0.01, 0.005, 0.0025))
    order = math.log2(float((a - b).norm() / (b - c).norm()))
    assert abs(order - 2) < 0.1


def test_a_chosen_step_follows_the_flow() -> None:
    solution = run(vortices("periodic"), 32)
    assert solution.converged and float(errors(solution)[:2].max()) < 0.02
    assert solution.fields == ("u", "v", "p") and solution.value.shape == (2, 3, 32, 32)
    assert "Adams-Bashforth" in solution.notes[-1]


HOLE = Obstacle("(x - 0.5)**2 + (y - 0.45)**2 < 0.0151", REST)
INLET = {
    "left": Condition(dirichlet=("6*y*(1 - y)", 0.0)), "right": OUT, "bottom": REST, "top": REST
}  # fmt: skip
SETTINGS = {
    "walls": (WALLS, None),
    "periodic": (PERIODIC, None),
    "channel": (CHANNEL, None),
    "outlet": (INLET, None),
    "obstacle between walls": (WALLS, HOLE),
    "obstacle on a torus": (PERIODIC, HOLE),
    "obstacle and outlet": (INLET, HOLE),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_projection_leaves_no_divergence_and_changes_nothing_twice(setting: str) -> None:
    boundary, hole = SETTINGS[setting]
    problem = flow(boundary, obstacle=hole)
    channel = Projection(rtol=1e-9).init(problem, Grid((20, 16), "cell")).channel
    random = np.random.default_rng(0)
    walls = channel.sides.at(0.0)
    u, v = (np.zeros((1, *(n + 2 for n in c.free.shape))) for c in channel.faces)
    for component, w in zip(channel.faces, (u, v), strict=True):
        w[:, 1:-1, 1:-1] = random.standard_normal(component.free.shape) * component.free
        component.fill(w, walls)
    channel.project(u, v, walls, 0.1, None)
    hx, hy = channel.grid.spacing
    flux_x, flux_y = (w[0, 1:-1, 1:-1] * c.open for c, w in zip(channel.faces, (u, v), strict=True))
    divergence = np.diff(flux_x, axis=0) / hx + np.diff(flux_y, axis=1) / hy
    assert np.abs(divergence).max() * min(hx, hy) < 1e-9 * np.abs(u).max()
    once = u.copy()
    channel.project(u, v, walls, 0.1, None)
    assert np.abs(u - once)[:, 1:-1, 1:-1].max() < 1e-6


def random_flow(n: int) -> torch.Tensor:
    return torch.randn(2, n, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_advection_neither_makes_nor_takes_energy() -> None:
    channel = Projection().init(flow(PERIODIC), Grid((12, 10), "cell")).channel
    random = np.random.default_rng(2)
    u, v = (np.zeros((1, c.free.shape[0] + 2, c.free.shape[1] + 2)) for c in channel.faces)
    for component, w in zip(channel.faces, (u, v), strict=True):
        w[:, 1:-1, 1:-1] = random.standard_normal(component.free.shape)
        component.fill(w, {})
    channel.project(u, v, {}, 1.0, None)
    p, zero = np.zeros((1, 14, 12)), np.zeros(1)
    work, size = 0.0, 0.0
    for component, loop, w in zip(channel.faces, (tendency_u, tendency_v), (u, v), strict=True):
        H, out = (np.zeros((1, *component.free.shape)) for _ in range(2))
        still = np.zeros((1, *component.free.shape))
        links, free = component.links, component.free
        loop(u, v, p, H, still, links, free, zero, 1.0, 1.0, 0.0, *channel.grid.spacing, out)
        once = (slice(-1), slice(None)) if component.axis == 0 else (slice(None), slice(-1))
        product = (w[0, 1:-1, 1:-1] * out[0])[once]
        work, size = work + product.sum(), size + np.abs(product).sum()
    assert abs(work) < 1e-13 * size


def test_momentum_is_kept_on_a_torus_and_energy_falls_between_walls() -> None:
    time = Time(0.2, frames=6)
    torus = run(flow(PERIODIC, time=time, viscosity=1e-3), 24, initial=random_flow(24))
    mean = torus.value[:, :2].mean((-2, -1))
    assert (mean - mean[0]).abs().max() < 1e-12
    box = run(flow(WALLS, time=time, viscosity=1e-3), 24, initial=random_flow(24))
    assert bool((box.value[:, :2].square().sum((1, 2, 3)).diff() < 0).all())


@pytest.mark.parametrize("driven", ["force", "inflow"])
def test_poiseuille_is_exact(driven: str) -> None:
    parabola = "y*(1 - y)"
    sides, force = CHANNEL, (2 * 0.05, 0.0)
    if driven == "inflow":
        inlet = Condition(dirichlet=(parabola, 0.0))
        sides, force = {**CHANNEL, "left": inlet, "right": OUT}, None
    first = {"u": parabola}
    solution = run(flow(sides, force=force, initial=first, time=Time(1.0)), (8, 12))
    assert solution.on is not None
    x, y = solution.on.coordinates()
    u, v, p = solution.last
    # The mean over a cell's faces is that of the faces' middles here: u does not depend on x.
    assert (u - y * (1 - y)).abs().max() < 1e-13
    assert v.abs().max() < 1e-13
    slope = 2 * 0.05 * (1 - x) if driven == "inflow" else torch.zeros_like(p)
    assert (p - slope).abs().max() < 1e-12


def test_kovasznay_flow_is_found_to_second_order() -> None:
    """The wake of a grid, Re 40 (Kovasznay 1948), a steady solution with inflow and outflow."""
    decay = 20 - math.sqrt(400 + 4 * math.pi**2)
    u = f"1 - exp({decay}*x)*cos(2*pi*y)"
    v = f"{decay}/(2*pi)*exp({decay}*x)*sin(2*pi*y)"
    sides = dict.fromkeys(UNIT.sides, Condition(dirichlet=(u, v)))
    box = Box((-0.5, -0.5), (1.0, 0.5))
    problem = flow(sides, domain=box, viscosity=1 / 40, initial={"u": u, "v": v}, time=Time(30.0))
    gaps = []
    for n in (16, 32):
        solution = run(problem, (3 * n // 2, n), steady_tolerance=1e-6)
        assert solution.on is not None
        x, y = solution.on.coordinates()
        exact = 1 - (decay * x).exp() * (2 * math.pi * y).cos()
        gaps.append((solution.last[0] - exact).square().mean().sqrt())
    assert abs(math.log2(gaps[0] / gaps[1]) - 2) < 0.15


def test_cavity_against_botella_and_peyret() -> None:
    """Extremes on the centre lines at Re 100 (1998, tables 9 and 10); second order towards them."""
    truth = torch.tensor([-0.2140424, 0.1795728, -0.2538030], dtype=torch.float64)
    gaps = []
    for n in (24, 48):
        solution = run(flow(LID, viscosity=0.01, time=Time(40.0)), n, steady_tolerance=1e-4)
        assert "steady at" in solution.notes[-1]
        u, v = (
            field[n // 2 - 1 : n // 2 + 1].mean(0)
            for field in (solution.last[0], solution.last[1].T)
        )
        gaps.append((torch.stack([u.min(), v.max(), v.min()]) - truth).abs().max())
    assert gaps[1] < 0.003 and gaps[0] / gaps[1] > 3


def test_frames_after_a_steady_state_are_that_state() -> None:
    problem = flow(LID, viscosity=0.1, time=Time(40.0, frames=5))
    shown: list[float] = []
    solution = run(problem, 12, steady_tolerance=1e-4, observe=lambda t, value: shown.append(t))
    assert shown[-4:] == [10, 20, 30, 40] and shown == sorted(shown)
    assert solution.times is not None and solution.times.tolist() == [0, 10, 20, 30, 40]
    assert torch.equal(solution.value[2], solution.value[4])
    assert not torch.equal(solution.value[0], solution.value[1])


def test_an_obstacle_along_the_grid_is_a_wall() -> None:
    """A channel whose lower quarter is solid is the channel above it."""
    sides = {"left": Condition(dirichlet=("(1 - y)*(y - 0.25)*(y > 0.25)", 0.0)), "right": OUT,
             "bottom": REST, "top": REST}  # fmt: skip
    options = {"time": Time(0.3, frames=3), "viscosity": 0.01}
    solid = Obstacle("y < 0.25", REST)
    whole = run(flow(sides, obstacle=solid, **options), (16, 16), step=0.02, rtol=1e-11)
    upper = run(flow(sides, domain=Box((0.0, 0.25), (1.0, 1.0)), **options), (16, 12), step=0.02)
    assert (whole.value[..., 4:] - upper.value).abs().max() < 1e-8
    assert bool((whole.value[:, :2, :, :4] == 0).all())
    assert bool(whole.value[:, 2, :, :4].isnan().all())


def test_flow_around_a_round_obstacle_sticks_to_it_and_keeps_its_symmetry() -> None:
    hole = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.04", REST)
    solution = run(flow(INLET, obstacle=hole, viscosity=0.01, time=Time(0.5)), 32, rtol=1e-10)
    assert solution.converged and solution.on is not None
    u, v = solution.last[:2]
    x, y = solution.on.coordinates()
    inside = (x - 0.5).square() + (y - 0.5).square() < (0.2 - 2 / 32) ** 2
    assert bool((u[inside] == 0).all() and (v[inside] == 0).all())
    assert (u - u.flip(1)).abs().max() < 1e-6 and (v + v.flip(1)).abs().max() < 1e-6
    # What comes in passes above and below.
    assert abs(float(u[16].sum() / u[0].sum()) - 1) < 0.05


class Killed(Exception):
    pass


@pytest.mark.parametrize("hole", [None, HOLE])
def test_a_killed_run_goes_on_exactly(hole: Obstacle | None, tmp_path: Path) -> None:
    def kill(step: int, t: float) -> None:
        if t > 0.22:
            raise Killed

    problem = flow(LID, obstacle=hole, viscosity=0.01, time=Time(0.4, frames=5))
    file = tmp_path / "frames.h5"
    whole = run(problem, 16)
    with pytest.raises(Killed):
        run(problem, 16, frames=file, progress=kill)
    steps: list[int] = []
    rest = run(problem, 16, frames=file, progress=lambda step, t: steps.append(step))
    assert torch.equal(rest.value.nan_to_num(), whole.value.nan_to_num())
    assert int(rest.stats.iterations) == int(whole.stats.iterations)
    assert 0 < len(steps) < int(whole.stats.iterations)
    assert rest.residual == whole.residual
    with pytest.raises(InputError, match="another"):
        run(replace(problem, time=Time(0.5, frames=5)), 16, frames=file)


@pytest.mark.parametrize("hole", [None, HOLE])
def test_a_batch_is_its_samples_one_by_one(hole: Obstacle | None) -> None:
    def problem(Re: Any) -> Problem:
        sides = {**LID, "top": Condition(dirichlet=("16*x**2*(1 - x)**2*(1 + Re/1000)*t", 0.0))}
        return flow(sides, viscosity="1/Re", parameters={"Re": Re}, obstacle=hole)

    values = (20.0, 50.0, 100.0)
    batch = run(problem(values), 16, step=0.01, rtol=1e-11)
    assert batch.value.shape == (3, 2, 3, 16, 16) and batch.residual.shape == (3,)
    for sample, Re in enumerate(values):
        single = run(problem(Re), 16, step=0.01, rtol=1e-11).value
        gap = batch.value[sample].nan_to_num() - single.nan_to_num()
        assert gap[:, :2].abs().max() < 1e-9


def test_a_batch_of_initial_flows_is_its_samples_one_by_one() -> None:
    first = torch.stack([random_flow(12), 0.5 * random_flow(12).flip(0)])
    problem = flow(WALLS, viscosity="1/Re", parameters={"Re": 50.0})
    batch = run(problem, 12, step=0.01, initial=first)
    single = [run(problem, 12, step=0.01, initial=sample).value for sample in first]
    assert (batch.value - torch.stack(single)).abs().max() < 1e-12
    both = replace(problem, parameters={"Re": (50.0, 60.0, 70.0)})
    with pytest.raises(InputError, match="batch"):
        run(both, 12, step=0.01, initial=first)


def test_a_step_beyond_cfl_is_refused_with_the_largest_that_is_not() -> None:
    problem = flow(LID, time=Time(1.0))
    with pytest.raises(InputError, match=r"admits at most 0\.0312") as caught:
        run(problem, 16, step=0.05)
    assert caught.value.key == "solver.step"
    assert run(problem, 16, step=0.0312).converged


def test_a_step_that_the_flow_outruns_is_shortened_and_said_so() -> None:
    sides = {**LID, "top": Condition(dirichlet=("1 + 2*t", 0.0))}
    solution = run(flow(sides, time=Time(1.0)), 16, step=0.03)
    assert solution.converged and "shortened" in solution.notes[-1]


def test_blow_up_keeps_the_frames_before() -> None:
    problem = flow(CHANNEL, force=("1e30*(t > 0.5)", 0.0), time=Time(1.0, frames=5))
    solution = run(problem, 8)
    assert solution.status is Status.BLOWN_UP
    assert solution.times is not None and solution.times.tolist() == [0, 0.25, 0.5]
    assert bool(solution.value.isfinite().all()) and len(solution.value) == 3


def test_a_node_grid_stands_for_the_cells_between() -> None:
    solver = Projection()
    solution = solver.run(solver.init(flow(LID), Grid((9, 9))))
    assert solution.on == Grid((8, 8), "cell", UNIT)
    assert torch.equal(solution.value, run(flow(LID), 8).value)


def lid(**top: Any) -> dict[str, Any]:
    return {"boundary": {**LID, "top": Condition(**top)}}


MOVING = Obstacle(HOLE.inside, Condition(dirichlet=(1.0, 0.0)))
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "one velocity": (lid(dirichlet=1.0), "both velocities", "boundary.top.dirichlet"),
    "robin": (lid(robin=Robin(1.0)), "not robin", "boundary.top"),
    "traction": (lid(neumann=1.0), "neumann: 0", "boundary.top.neumann"),
    "flux": (lid(dirichlet=(0.0, 1.0)), "outlet", "boundary"),
    "no time": ({"time": None, "initial": None}, "time", "time"),
    "name": ({"initial": {"w": 0.0}}, "unknown field 'w'", "initial"),
    "viscosity": ({"viscosity": -1.0}, "positive", "equation.viscosity"),
    "varying": ({"viscosity": "1 + x"}, "vary in space", "equation.viscosity"),
    "force": ({"force": (1.0,)}, "2 entries", "equation.force"),
    "hole in time": (
        {"obstacle": replace(MOVING, inside="x < t", boundary=REST)},
        "t out",
        "obstacle.inside",
    ),
    "moving hole": ({"obstacle": MOVING}, "at rest", "obstacle.boundary"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    given, text, key = BAD[case]
    given = dict(given)
    with pytest.raises(InputError, match=text) as caught:
        run(flow(given.pop("boundary", LID), **given), 8)
    assert caught.value.key == f"problem.{key}"


def test_other_equations_and_other_initial_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="navier_stokes"):
        run(Problem(UNIT, Equation(kind="poisson"), WALLS), 8)
    with pytest.raises(InputError, match="must end in"):
        run(flow(LID), 8, initial=torch.zeros(2, 9, 9))
    with pytest.raises(InputError, match="step must be positive"):
        Projection(step=-1.0)


def test_a_steady_state_is_one_in_any_unit_of_time() -> None:
    """The same cavity, in units of time a thousandth as long: the same steps, the same answer."""
    slow = run(flow(LID, viscosity=0.01, time=Time(20.0)), 8, steady_tolerance=2e-2)
    sides = {**WALLS, "top": Condition(dirichlet=(1e-3, 0.0))}
    fast = flow(sides, viscosity=1e-5, time=Time(2e4))
    fine = run(fast, 8, steady_tolerance=2e-5)
    sides = {**WALLS, "top": Condition(dirichlet=(1e3, 0.0))}
    coarse = run(flow(sides, viscosity=10.0, time=Time(0.02)), 8, steady_tolerance=20.0)
    for found, unit in ((fine, 1e-3), (coarse, 1e3)):
        assert int(found.stats.iterations) == int(slow.stats.iterations)
        assert "steady at" in found.notes[-1]
        torch.testing.assert_close(
            found.last[:2], unit * slow.last[:2], rtol=1e-6, atol=1e-9 * unit
        )
    # A flow that changes by itself while it crosses the box is not steady whatever is asked.
    hasty = run(flow(LID, viscosity=0.01, time=Time(1.0)), 8, steady_tolerance=1e9)
    assert int(hasty.stats.iterations) > 3


@pytest.mark.parametrize("zero", [(0, 0), ("0.0", 0), ("0*x", "0")])
def test_an_obstacle_at_rest_may_be_said_in_any_way(zero: tuple[Any, Any]) -> None:
    hole = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.04", Condition(dirichlet=zero))
    assert run(flow(LID, obstacle=hole, time=Time(0.02)), 16).converged
    moving = replace(hole, boundary=Condition(dirichlet=("0.1", 0)))
    with pytest.raises(InputError, match="at rest"):
        run(flow(LID, obstacle=moving, time=Time(0.02)), 16)


def test_gradients_are_refused_where_there_are_none() -> None:
    wanted = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    for given in (
        {"viscosity": wanted}, {"viscosity": "nu", "parameters": {"nu": wanted}},
        {"initial": {"u": "a*x", "v": 0.0}, "parameters": {"a": wanted}},
    ):  # fmt: skip
        with pytest.raises(InputError, match="no gradients"):
            run(flow(LID, **given), 8)


def test_the_constant_of_the_pressure_is_free_and_others_are_not() -> None:
    found = run(flow(LID), 16)
    raised = found.last + torch.tensor([0.0, 0.0, 7.0]).reshape(3, 1, 1)
    assert float(found.error(raised)) < 1e-14
    assert float(found.error(found.last + 0.01)) > 1e-3
    through = {**WALLS, "left": Condition(dirichlet=("y*(1 - y)", 0.0)), "right": OUT}
    assert run(flow(through), 8).measure is None
