"""J2 plasticity on meshes: exact curves, the tangent, Hill's cylinder, runs that are killed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch
from test_elements import blocks
from test_general_form import everywhere, square

import sciml
from sciml import InputError
from sciml.app import run as app_run
from sciml.app.read import read_spec
from sciml.app.run import Setting, answer, write_run
from sciml.app.yaml import parse_yaml
from sciml.core.algebra.nonlinear import Moment
from sciml.core.problem.condition import Condition
from sciml.core.problem.equation import Elasticity, Equation, Plasticity
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import read_mesh
from sciml.core.problem.problem import Problem, Time
from sciml.core.problem.reader import Normal
from sciml.core.run.solution import Solution, load_solution
from sciml.core.run.status import Doubt, Status
from sciml.discretization import semidiscretize
from sciml.solvers import SDIRK, QuasiStatic

E, Y, H, K = 200.0, 1.0, 20.0, 10.0
METAL = Plasticity(E, Y, hardening=H, kinematic_hardening=K)
FREE = Condition(neumann=0.0)
RING = Path(__file__).parents[1] / "configs" / "reference" / "meshes" / "ring.msh"


def bar(right: Condition, end: float, frames: int, **parameters: Any) -> Problem:
    """A cube on three planes without friction, drawn at one side."""
    sides = {
        "left": Condition(dirichlet=(0.0, None, None)),
        "bottom": Condition(dirichlet=(None, 0.0, None)),
        "back": Condition(dirichlet=(None, None, 0.0)),
        "right": right,
        "top": FREE,
        "front": FREE,
    }
    return Problem(None, METAL, sides, time=Time(end, frames=frames), parameters=parameters)


def strip(metal: Plasticity, right: tuple[Any, Any], frames: int = 2, **parameters: Any) -> Problem:
    """A square, its left side held and its right one moved."""
    sides = {
        **everywhere(FREE),
        "left": Condition(dirichlet=0.0),
        "right": Condition(dirichlet=right),
    }
    return Problem(None, metal, sides, time=Time(1.0, frames=frames), parameters=parameters)


def pulls(solution: Solution, on: str = "right") -> torch.Tensor:
    assert solution.problem is not None
    unit = [1.0, *[0.0] * (len(solution.fields) - 1)]
    return solution.quantity(force=tuple(unit), on=on).value


def test_a_bar_is_drawn_and_pressed_along_the_exact_curve() -> None:
    """To 0.03, back to 0, on to -0.03; between the frames the turn is found."""
    mesh, loose = blocks(1, 3, "Q1"), QuasiStatic(rtol=0.02)
    moved = Condition(dirichlet=("0.03*sin(pi*t/2)", None, None))
    found = sciml.solve(bar(moved, 3.0, 4), loose, on=mesh)
    tangent, top = E * (H + K) / (E + H + K), 0.03
    first = Y + tangent * (top - Y / E)
    p = top - first / E
    turn = first - 2 * (Y + H * p)  # there it yields again: Bauschinger, and hardening
    strain = top + (turn - first) / E
    exact = [0.0, first, turn - tangent * strain, turn - tangent * (strain + top)]
    assert pulls(found).tolist() == pytest.approx(exact, rel=1e-9)
    assert pulls(found, "left").tolist() == pytest.approx([-f for f in exact], rel=1e-9)
    p += (tangent - E) / E * -strain
    again = found.derived("plastic").value[2]
    torch.testing.assert_close(again, torch.full_like(again, p), rtol=1e-8, atol=0)
    assert any(isinstance(note, Doubt) and "P2" in note for note in found.notes)
    # One step over all of it is cut where the loads turn.
    once = sciml.solve(bar(moved, 3.0, 2), loose, on=mesh)
    assert pulls(once)[-1].item() == pytest.approx(exact[-1], rel=2e-2)


def test_what_a_pull_leaves_behind() -> None:
    pulled = Condition(neumann=("1.5*t*(2 - t)", 0.0, 0.0))
    found = sciml.solve(bar(pulled, 2.0, 3), on=blocks(1, 3, "Q1"))
    plastic = 0.5 / (H + K)
    tip = found.quantity(at=(1.0, 1.0, 1.0), of="u").value
    assert tip.tolist() == pytest.approx([0.0, 1.5 / E + plastic, plastic], rel=1e-9)
    side = found.quantity(at=(1.0, 1.0, 1.0), of="v").value[-1].item()
    assert side == pytest.approx(-plastic / 2, rel=1e-9)
    assert found.quantity(max="mises", raw=True).value[-1].item() < 1e-8


def test_the_tangent_is_consistent_and_newton_quadratic() -> None:
    mesh = square(2, "P2")
    problem = strip(replace(METAL, hardening=1.0, kinematic_hardening=0.0), ("0.05*t", "0.02*t"))
    history = semidiscretize(problem, mesh).history
    assert history is not None
    plain, now = history.plain, Moment(1.0, torch.zeros(history.shape, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    u = 0.02 * torch.rand(plain.shape, generator=generator, dtype=torch.float64)
    v, eps = torch.rand(plain.shape, generator=generator, dtype=torch.float64), 1e-7
    slope = (plain.residual(u + eps * v, now) - plain.residual(u - eps * v, now)) / (2 * eps)
    tangent = plain.linearise(u, now)
    assert tangent.symmetric
    torch.testing.assert_close(tangent.apply(v), slope, rtol=1e-5, atol=1e-6)
    sizes, u = [], torch.zeros(plain.shape, dtype=torch.float64)
    while (size := float(plain.residual(u, now).norm())) > 1e-11 and len(sizes) < 20:
        sizes.append(size)
        J = plain.linearise(u, now).to_scipy().toarray()
        u = u - torch.from_numpy(np.linalg.solve(J, plain.residual(u, now).numpy()))
    assert len(sizes) < 12
    order = math.log(sizes[-1] / sizes[-2]) / math.log(sizes[-2] / sizes[-3])
    assert order > 1.8


@pytest.mark.parametrize("revolved", [False, True])
def test_below_its_limit_a_metal_is_elastic(revolved: bool) -> None:
    flat = square(2, "P2")
    mesh = replace(flat, points=flat.points + np.array([3.0, 0.0]), axisymmetric=revolved)
    sides = {**everywhere(FREE), "left": Condition(dirichlet=(0.0, None))}
    sides["bottom"] = Condition(dirichlet=(None, 0.0))
    stated = {"force": (0.3, -0.2)}
    slow = Problem(None, Plasticity(E, 1e9, **stated), sides, time=Time(1.0))  # type: ignore[arg-type]
    found = sciml.solve(replace(slow, time=Time(1.0, frames=3)), on=mesh)
    elastic = sciml.solve(Problem(None, Elasticity(E, **stated), sides), on=mesh)  # type: ignore[arg-type]
    loose = 1e-6 if revolved else 0.0  # u / r is no polynomial, and rules differ
    for value in found.value:  # the load is there from the start
        torch.testing.assert_close(value, elastic.value, rtol=loose, atol=1e-15)
    for name in ("strain", "stress"):
        given, wanted = found.derived(name).value[-1], elastic.derived(name).value
        torch.testing.assert_close(given, wanted, rtol=1e-9, atol=1e-11 + loose)
    assert float(found.derived("plastic").value.abs().max()) == 0


def test_what_is_lost_is_never_won_back() -> None:
    """Over a closed way the work is what was dissipated and stored, at every point by itself."""
    soft = replace(METAL, hardening=0.0, kinematic_hardening=5.0)
    way = strip(soft, ("0.02*sin(2*pi*t)", "0.01*sin(4*pi*t)"), 5)
    found = sciml.solve(way, QuasiStatic(rtol=0.05), on=square(1, "P2"))
    assert found.history is not None
    plastic, p = found.history[..., :-1], found.history[..., -1]
    assert bool((p.diff(dim=0) >= 0).all()) and float(p[-1].min()) > 0
    # Neither does a plastic strain change the volume.
    assert float(plastic[..., :3].sum(-1).abs().max()) < 1e-15
    most = found.quantity(max="mises", raw=True).value
    assert float(most.max()) < 1.05 * (Y + 5.0 * float(p.max()))
    both = pulls(found) + pulls(found, "left")
    assert float(both.abs().max()) < 1e-12


def hill(pressure: float, nu: float) -> float:
    """The outer displacement of a tube of radii 1 and 2 (Hill 1950), exact as nu tends to 1/2."""
    limit, low, high = 0.48 / math.sqrt(3), 1.0, 2.0
    for _ in range(60):
        c = (low + high) / 2
        enough = limit * (math.log(c) + 0.5 * (1 - c**2 / 4)) > pressure
        low, high = (low, c) if enough else (c, high)
    return limit * low**2 * (1 - nu**2) / (210.0 * 2)


def tube(nu: float, end: float, frames: int) -> Problem:
    sides = {
        "inner": Condition(neumann=Normal("-t")),
        "outer": FREE,
        "y0": Condition(dirichlet=(None, 0.0)),
        "x0": Condition(dirichlet=(0.0, None)),
    }
    metal = Plasticity(210.0, 0.24, nu)
    return Problem(None, metal, sides, time=Time(end, frames=frames))


def section(n: int) -> tuple[Mesh, dict[str, Condition]]:
    """Of the same body a slice in r and z, and its sides."""
    flat = square(n, "P2")
    mesh = replace(flat, points=flat.points * [1.0, 0.2] + [1.0, 0.0], axisymmetric=True)
    flat_side = Condition(dirichlet=(None, 0.0))
    sides = {"left": Condition(neumann=Normal("-t")), "right": FREE}
    return mesh, {**sides, "bottom": flat_side, "top": flat_side}


def test_a_tube_yields_from_within() -> None:
    found = sciml.solve(tube(0.49, 0.18, 4), on=read_mesh(RING, "Q2"))
    outer = found.quantity(at=(2.0, 0.0), of="u").value
    assert outer[-1].item() == pytest.approx(hill(0.18, 0.49), rel=2e-3)
    assert found.quantity(max="mises", raw=True).value[-1].item() == pytest.approx(0.24, rel=1e-2)
    mesh, sides = section(6)
    turned = sciml.solve(replace(tube(0.49, 0.18, 2), boundary=sides), on=mesh)
    around = turned.quantity(at=(2.0, 0.1), of="u").value[-1].item()
    assert around == pytest.approx(outer[-1].item(), rel=1e-3)


def test_beyond_the_limit_load_there_is_no_equilibrium() -> None:
    """2 / sqrt 3 of the yield stress times ln(b / a), 0.19209."""
    mesh, sides = section(2)
    loaded, loose = replace(tube(0.3, 0.24, 5), boundary=sides), QuasiStatic(rtol=0.05)
    found = sciml.solve(loaded, loose, on=mesh, throw=False)
    assert found.status is Status.NO_EQUILIBRIUM
    assert found.times is not None and float(found.times[-1]) == pytest.approx(0.18)
    (note,) = [note for note in found.notes if "beyond t = " in note]
    limit = 0.48 / math.sqrt(3) * math.log(2)
    assert float(note.rpartition(" ")[2]) == pytest.approx(limit, rel=1e-2)


def test_gradients_and_batches() -> None:
    metal = replace(METAL, yield_stress="limit")
    way, mesh = ("0.02*t", "0.03*t**2"), square(1, "P2")
    loose = QuasiStatic(rtol=0.1, equilibrium=1e-12)
    limit = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    found = sciml.solve(strip(metal, way, limit=limit), loose, on=mesh)
    (slope,) = torch.autograd.grad(pulls(found)[-1], limit)
    near = sciml.solve(strip(metal, way, limit=[1 - 1e-5, 1 + 1e-5]), loose, on=mesh)
    low, high = pulls(near)[:, -1].tolist()
    assert slope.item() == pytest.approx((high - low) / 2e-5, rel=1e-6)


class KilledError(Exception):
    pass


def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    problem = strip(METAL, ("0.03*sin(3*t)", "0.01*t"), 5)
    solver, mesh = QuasiStatic(rtol=0.02), square(1, "P2")
    whole = sciml.solve(problem, solver, on=mesh)

    def kill(step: int, t: float) -> None:
        if t > 0.6:
            raise KilledError

    state = solver.init(problem, mesh)
    with pytest.raises(KilledError):
        solver.run(state, frames=tmp_path / "frames.h5", progress=kill)
    found = solver.run(state, frames=tmp_path / "frames.h5")
    assert "went on from frame 3" in "".join(found.notes)
    assert torch.equal(found.value, whole.value)
    assert found.history is not None and whole.history is not None
    assert torch.equal(found.history, whole.history)


SPEC = """
problem:
  equation: {kind: plasticity, young: 200, yield_stress: "1 + x", hardening: 20}
  boundary:
    left: {dirichlet: [0, null]}
    right: {dirichlet: ["0.03*t", null]}
    bottom: {dirichlet: [null, 0]}
    top: {neumann: 0}
  time: {end: 0.5, frames: 3}
mesh: {file: square.msh}
solver: {kind: quasi_static, rtol: 0.05}
output:
  quantities:
    pull: {force: [1, 0], on: right}
    most: {max: plastic, over_time: max}
    stress: {max: mises}
    lost: {integral: plastic}
"""


def test_a_spec_leaves_stresses_and_goes_on_from_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_run, "draw_figures", lambda *given: ({}, []))
    flat = square(2)
    names = {n: (k + 1, 1) for k, n in enumerate(flat.boundaries)} | {"body": (9, 2)}
    lines, tags = zip(
        *((f, names[n][0]) for n, fs in flat.boundaries.items() for f in fs), strict=True
    )
    data = [np.array(tags), np.full(len(flat.cells), 9)]
    file = meshio.Mesh(
        np.pad(flat.points, ((0, 0), (0, 1))),
        [("line", np.array(lines)), ("triangle", flat.cells)],
        cell_data={"gmsh:physical": data, "gmsh:geometrical": data},
        field_data={n: np.array(v) for n, v in names.items()},
    )
    file.write(tmp_path / "square.msh", file_format="gmsh22", binary=False)
    text = SPEC.replace("square.msh", str(tmp_path / "square.msh"))
    short = read_spec(parse_yaml(text, "spec.yaml"))
    write_run(answer(short, Setting(), frames=tmp_path / "frames.h5"), tmp_path)
    seen = meshio.read(tmp_path / "frames" / "0002.vtu")
    assert {"mises", "plastic"} <= set(seen.point_data)
    read = replace(load_solution(tmp_path), problem=short.problem)
    again = read.quantity(max="mises").value
    stored = meshio.read(tmp_path / "frames" / "0002.vtu").point_data["mises"]
    assert again[-1].item() == pytest.approx(stored.max(), rel=1e-12)
    for stated in ({"max": "mises"}, {"force": (1.0, 0.0), "on": "right"}):
        with pytest.raises(InputError, match="not kept with this answer"):
            replace(read, history=None).quantity(**stated)
    longer = ["problem.time.end=1", "problem.time.frames=5"]
    later = read_spec(parse_yaml(text, "spec.yaml"), longer)
    going = answer(later, Setting(), frames=tmp_path / "frames.h5")
    anew = answer(later, Setting(), frames=tmp_path / "other" / "frames.h5")
    assert "went on from frame 3" in "".join(going.solution.notes)
    assert torch.equal(going.solution.value, anew.solution.value)
    for name in ("pull", "stress", "lost"):
        assert going.measured is not None and anew.measured is not None
        found = going.measured.quantities[name].value
        assert torch.equal(found, anew.measured.quantities[name].value)


def bad() -> list[tuple[Any, str]]:
    sides = {**everywhere(FREE), "left": Condition(dirichlet=0.0)}

    def stated(metal: Plasticity, **more: Any) -> Problem:
        return Problem(None, metal, sides, **{"time": Time(1.0), **more})

    return [
        (lambda: stated(replace(METAL, yield_stress=0.0)), "yield_stress must be positive"),
        (lambda: stated(replace(METAL, yield_stress="x - 0.5")), "it is -0.4.* somewhere"),
        (lambda: stated(replace(METAL, hardening=-1.0)), "softens"),
        (lambda: stated(replace(METAL, kinematic_hardening="-x")), "softens"),
        (lambda: stated(replace(METAL, poisson_ratio=0.5)), "between -1 and 0.5"),
        (lambda: stated(replace(METAL, young=0.0)), "young must be positive"),
        (lambda: stated(replace(METAL, force=(1.0,))), "list of 2"),
        (lambda: replace(stated(METAL), boundary=everywhere(FREE)), "stop 0 of its 3 rigid"),
        (lambda: stated(METAL, time=None), "give time: {end: 1}, and loads that name t"),
        (lambda: stated(METAL, initial="x"), "leave initial out"),
        (lambda: replace(METAL, plane="stress"), "plane stress"),
        (lambda: stated(Plasticity(E, Y, force=(9.0, 0.0))), "let them grow with t"),
    ]


@pytest.mark.parametrize("case", bad(), ids=lambda case: case[1])
def test_what_no_metal_is(case: tuple[Any, str]) -> None:
    make, told = case
    with pytest.raises(InputError, match=told):
        sciml.solve(make(), on=square(2, "P2"))


def test_each_has_its_own_solvers() -> None:
    metal = strip(METAL, ("t", 0.0))
    with pytest.raises(InputError, match="use quasi_static"):
        sciml.solve(metal, SDIRK(), on=square(1, "P2"))
    sides = everywhere(Condition(dirichlet=0.0))
    heat = Problem(None, Equation(d=1.0), sides, time=Time(1.0), initial=0.0)
    with pytest.raises(InputError, match="for bodies that remember"):
        sciml.solve(heat, QuasiStatic(), on=square(2))
    with pytest.raises(InputError, match="equilibrium lies between"):
        QuasiStatic(equilibrium=0.0)
