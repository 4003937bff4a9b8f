"""The Helmholtz equation on meshes: orders, open sides, complex data, what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special
import skfem
import torch

import sciml
from sciml.app.read import read_spec
from sciml.app.run import Setting, answer
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.equation import Helmholtz, Sponge
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Problem, Robin, Time
from sciml.core.problem.quadrature import relative_error, slopes, whole
from sciml.core.problem.reader import Regions
from sciml.solvers import SDIRK

K = 3.0
ALONG = (0.6, 0.8)


def box(n: int, element: str = "P1", length: float = 1.0) -> Mesh:
    """Triangles of [0, length] x [0, 1] with the names of its sides."""
    made = skfem.MeshTri.init_tensor(
        np.linspace(0, length, round(n * length) + 1), np.linspace(0, 1, n + 1)
    )
    x, y = made.p[:, made.facets].mean(1)
    near = {"left": x < 1e-9, "right": x > length - 1e-9, "bottom": y < 1e-9, "top": y > 1 - 1e-9}
    sides = {name: made.facets[:, there].T for name, there in near.items()}
    parts = made.p[0, made.t].mean(0)
    halves = {"a": np.flatnonzero(parts < length / 2), "b": np.flatnonzero(parts > length / 2)}
    return Mesh(made.p.T.copy(), made.t.T.copy(), halves, sides, element)


def slanted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.exp(1j * K * (ALONG[0] * x + ALONG[1] * y))


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_a_plane_wave_has_the_order_of_the_elements(element: str) -> None:
    """Dirichlet, complex Neumann, and Robin with a complex alpha that names the normal."""
    wave = f"exp(i*k*({ALONG[0]}*x + {ALONG[1]}*y))"
    slope = f"i*k*({ALONG[0]}*nx + {ALONG[1]}*ny)"
    boundary = {
        "left": Condition(dirichlet=wave),
        "bottom": Condition(neumann=f"{slope}*{wave}"),
        "right": Condition(robin=Robin(f"-{slope}")),
        "top": Condition(robin=Robin("2*i - 1", f"({slope} + 2*i - 1)*{wave}")),
    }
    errors = []
    for n in (16, 32):
        mesh = box(n, element)
        problem = Problem(None, Helmholtz(wavenumber="k"), boundary, parameters={"k": K})
        solution = sciml.solve(problem, on=mesh)
        assert solution.converged and solution.value.is_complex()
        errors.append(float(relative_error(mesh, solution.value, slanted)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(mesh.degree + 1, abs=0.15)


def test_a_wave_leaves_through_an_absorbing_side_and_an_admittance_sends_its_share_back() -> None:
    """At a right angle (1 - beta)/(1 + beta) comes back, through two media without reflection too.

    K = 4 and k = 2 k_0 carry waves as long as K = 1 and k = k_0, of an admittance four times that.
    """
    mesh = box(16, "P2", 2.0)
    free = Condition(neumann=0.0)
    for beta, wanted in ((True, 0.0), (0.25, 0.6), ("2 + 0*x", -1 / 3)):
        boundary = {"left": Condition(dirichlet=1.0), "right": Condition(absorbing=beta)}
        boundary |= {"bottom": free, "top": free}
        k = Regions({"a": 3.0, "b": 3.0})
        found = sciml.solve(Problem(None, Helmholtz(k), boundary), on=mesh).value
        x = torch.from_numpy(mesh.nodes[:, 0])
        back = wanted * np.exp(12j)
        exact = (torch.exp(3j * x) + back * torch.exp(-3j * x)) / (1 + back)
        assert float((found - exact).abs().max() / exact.abs().max()) < 1e-4, beta


def test_a_source_radiates_with_the_power_that_leaves() -> None:
    """Im int conj(u) f = int k |u|^2 over an absorbing rim: Green's identity, of any mesh."""
    mesh = box(12, "P2")
    boundary = {name: Condition(absorbing=True) for name in mesh.boundaries}
    f = "exp(-30*((x - 0.4)**2 + (y - 0.5)**2))"
    solution = sciml.solve(Problem(None, Helmholtz(K, f), boundary), on=mesh)
    system = sciml.discretize(Problem(None, Helmholtz(K, f), boundary), mesh)
    u, A = solution.value, system.A.to_scipy()
    power = np.imag(np.vdot(u.numpy(), A @ u.numpy()))
    sent = np.imag(np.vdot(u.numpy(), system.b.numpy()))
    assert power == pytest.approx(sent, rel=1e-6) and power < 0
    v = torch.randn(len(u), dtype=torch.complex128)
    left, right = torch.vdot(v, system.A.apply(u)), torch.vdot(system.A.adjoint(v), u)
    assert complex(left) == pytest.approx(complex(right), rel=1e-10)


def test_gradients_through_a_wave_are_those_of_differences() -> None:
    mesh = box(6, "P1")
    boundary = {name: Condition(absorbing=True) for name in mesh.boundaries}
    boundary["left"] = Condition(dirichlet="exp(i*y)")

    def loudness(f: Any) -> torch.Tensor:
        solution = sciml.solve(Problem(None, Helmholtz(K, f), boundary), on=mesh)
        return solution.value.abs().square().mean()

    start = torch.linspace(0, 1, mesh.shape[0], dtype=torch.float64)
    f = start.clone().requires_grad_()
    loudness(f).backward()
    assert f.grad is not None
    step = 1e-5 * torch.ones(mesh.shape[0], dtype=torch.float64)
    difference = float(loudness(start + step) - loudness(start - step)) / 2
    assert float((f.grad * step).sum()) == pytest.approx(difference, rel=1e-6)


SCATTERED = """\
problem:
  equation: {kind: helmholtz, wavenumber: k}
  parameters: {k: 2}
  boundary:
    rim: {dirichlet: "-exp(i*k*x)"}
    far: {robin: {alpha: "0.5/6 - i*k"}}
geometry:
  shapes: {far: {circle: [0, 0, 6]}, rim: {circle: [0, 0, 1]}}
  regions: {air: far - rim}
  size: 0.5
  element: P2
output:
  quantities: {back: {at: [-3, 0], of: "abs(u)"}}
"""


def test_a_soft_cylinder_scatters_as_its_series_says() -> None:
    """-sum i^n J_n(ka)/H_n(ka) H_n(kr) e^(i n phi), within what the round open side reflects."""
    pytest.importorskip("gmsh", exc_type=ImportError)
    result = answer(read_spec(parse_yaml(SCATTERED, "spec.yaml")), Setting())
    assert result.measured is not None
    n, k = np.arange(-30, 31), 2.0
    share = scipy.special.jv(n, k) / scipy.special.hankel1(n, k)
    series = (1j**n * share * scipy.special.hankel1(n, 3 * k) * (-1.0) ** n).sum()
    back = float(result.measured.quantities["back"].value)
    assert back == pytest.approx(abs(series), rel=0.01)


def test_the_imaginary_unit_is_a_name_on_grids_too() -> None:
    """The wave of the first test between the sides of a grid's box, from texts alone."""
    wave = "exp(i*k*(0.6*x + 0.8*y))"
    sides = {side: Condition(dirichlet=wave) for side in ("left", "bottom", "top")}
    sides["right"] = Condition(robin=Robin("-0.6*i*k"))
    problem = Problem(sciml.Box((0.0, 0.0), (1.0, 1.0)), Helmholtz("k"), sides, parameters={"k": K})
    grid = sciml.Grid((65, 65))
    found = sciml.solve(problem, on=grid).value
    exact = slanted(*grid.bind(problem.box).coordinates())
    assert float((found - exact).abs().max()) < 5e-3


def test_the_notes_say_how_many_nodes_a_wave_has() -> None:
    mesh = box(12, "P1")
    boundary = {name: Condition(absorbing=True) for name in mesh.boundaries}
    few = sciml.discretize(Problem(None, Helmholtz(20.0, 1.0), boundary), mesh).notes
    assert any("too few, refine the mesh" in note for note in few)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"equation": Helmholtz(K, sponge=Sponge(0.1))}, "a sponge lies along"),
        ({"equation": Helmholtz("i*6")}, "must be positive"),
        ({"equation": Helmholtz("6 - i")}, "waves would grow"),
        ({"equation": Helmholtz(K, K="1 + i")}, "K must be real"),
        ({"equation": Helmholtz(-1.0)}, "must be positive"),
        ({"time": Time(1.0), "initial": 0.0}, "only such equations are solved in time"),
        ({"parameters": {"i": 1.0}}, "cannot be called 'i'"),
        ({"equation": sciml.Equation(f=1.0)}, "absorbing is for waves"),
    ],
)
def test_refusals_are_one_line(changes: dict[str, Any], message: str) -> None:
    mesh = box(3)
    given = {"equation": Helmholtz(K), "parameters": {}, "time": None, **changes}
    boundary = {name: Condition(absorbing=True) for name in mesh.boundaries}
    problem = Problem(None, given.pop("equation"), boundary, **given)
    with pytest.raises(InputError, match=message) as caught:
        sciml.solve(problem, on=mesh)
    assert "\n" not in str(caught.value)


# In time.

PULSE = "exp(-60*(x - 0.5)**2)"
MOVING = {"u": PULSE, "ut": f"120*(x - 0.5)*{PULSE}"}  # to the right, at speed 1


def line(count: int, **parts: np.ndarray) -> Mesh:
    ticks, cells = np.linspace(0, 1, count + 1), np.arange(count)
    ends = {"left": np.array([[0]]), "right": np.array([[count]])}
    return Mesh(ticks[:, None], np.stack([cells, cells + 1], -1), parts, ends, "P2")


def in_time(on: Any, share: Any, end: float, **more: Any) -> torch.Tensor:
    walls = {"left": Condition(absorbing=True), "right": Condition(absorbing=share)}
    if isinstance(on, Mesh) and on.dimension == 2:
        walls |= {"bottom": Condition(neumann=0.0), "top": Condition(neumann=0.0)}
    domain = sciml.Box((0.0,), (1.0,)) if isinstance(on, sciml.Grid) else None
    equation = sciml.Equation(**{"m": 1.0, **more})
    problem = Problem(domain, equation, walls, time=Time(end), initial=MOVING)
    found = sciml.solve(problem, SDIRK(rtol=1e-3) if isinstance(on, Mesh) else None, on=on)
    assert found.converged
    last: torch.Tensor = found.value[-1]
    return last


def strip() -> Mesh:
    made = skfem.MeshTri.init_tensor(np.linspace(0, 1, 33), np.linspace(0, 0.05, 2))
    x, y = made.p[:, made.facets].mean(1)
    near = {"left": x < 1e-9, "right": x > 1 - 1e-9, "bottom": y < 1e-9, "top": y > 0.05 - 1e-9}
    sides = {name: made.facets[:, there].T for name, there in near.items()}
    return Mesh(made.p.T.copy(), made.t.T.copy(), {}, sides, "P2")


@pytest.mark.parametrize("place", ["grid", "line", "plane"])
def test_a_pulse_leaves_and_an_admittance_sends_its_share_back(place: str) -> None:
    """In one dimension exact: of a pulse of 1 an end of beta 1/2 sends back 1/3, of beta 1 none."""
    on: Any = {"grid": sciml.Grid((201,)), "line": line(32), "plane": strip()}[place]
    x = np.linspace(0, 1, 201) if place == "grid" else on.nodes[:, 0]
    for share, back in ((True, 0.0), (0.5, 1 / 3)):
        exact = back * np.exp(-60 * (x - 0.5) ** 2)
        assert np.abs(in_time(on, share, 1.0).numpy() - exact).max() < 0.01, share


def test_the_medium_beside_a_side_says_what_leaves() -> None:
    """m = 4 beyond x = 0.85, sqrt(m K) = 2 there: nothing is left once both waves have gone."""
    mesh = line(40, a=np.arange(34), b=np.arange(34, 40))
    assert float(in_time(mesh, True, 1.5, m=Regions({"a": 1.0, "b": 4.0})).abs().max()) < 0.01


def test_energy_only_falls_where_waves_leave_at_a_slant() -> None:
    """Of int (u_t^2 + |grad u|^2)/2, which stays where the sides are closed: -int beta u_t^2."""
    mesh = box(6, "P2")
    bump, left = "exp(-20*((x - 0.4)**2 + (y - 0.6)**2))", {}
    for name, side in (("open", Condition(absorbing=True)), ("shut", Condition(neumann=0.0))):
        sides, time = dict.fromkeys(mesh.boundaries, side), Time(2.0, frames=9)
        problem = Problem(None, sciml.Equation(m=1.0), sides, time=time, initial=bump)
        u = sciml.solve(problem, SDIRK(rtol=1e-3), on=mesh).value
        part = whole(mesh, 4)
        left[name] = (part.measure * slopes(part, u).square().sum(-3)).sum((-2, -1))
    assert float(left["open"][-1]) < 0.02 * float(left["open"][0])
    assert float(left["shut"][-1]) > 0.1 * float(left["shut"][0])


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        (sciml.Equation(d=1.0), "absorbing is for waves"),
        (sciml.Equation(m=1.0, K="1 + u"), "absorbing is for waves"),
    ],
)
@pytest.mark.parametrize("place", ["grid", "mesh"])
def test_only_linear_waves_leave(equation: sciml.Equation, message: str, place: str) -> None:
    on: Any = box(4) if place == "mesh" else sciml.Grid((9, 9))
    domain = None if place == "mesh" else sciml.Box((0.0, 0.0), (1.0, 1.0))
    sides = {name: Condition(absorbing=True) for name in ("left", "right", "bottom", "top")}
    problem = Problem(domain, equation, sides, time=Time(1.0), initial=0.0)
    with pytest.raises(InputError, match=message):
        sciml.solve(problem, on=on)
