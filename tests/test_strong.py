"""The equation at a point: jets, residuals of exact solutions, data built in."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml import Box, Condition, Equation, Problem, Time, load_spec
from sciml.core.errors import InputError
from sciml.core.problem.equation import NavierStokes, System
from sciml.core.problem.problem import Robin
from sciml.discretization.points.jet import Jet, coordinates, jet_of
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters
from sciml.discretization.points.strong import strong_form
from sciml.solvers.trained.conditions import built_in, disagreement, extent, pieces

CONFIGS = Path(__file__).parent.parent / "configs"
SOLVED = sorted(
    path.stem
    for path in CONFIGS.glob("*.yaml")
    if "\n  exact:" in path.read_text() and "\n  obstacle:" not in path.read_text()
)


def every_pair(dimension: int) -> tuple[tuple[int, int], ...]:
    return tuple(combinations_with_replacement(range(dimension), 2))


def cloud(count: int, *corners: tuple[float, float], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(corners, dtype=torch.float64).T
    cube = torch.rand(count, len(corners), generator=generator, dtype=torch.float64)
    return low + cube * (high - low)


def smooth(x: Tensor) -> Tensor:
    """Two functions of any number of variables."""
    phase = (x * torch.arange(1, x.shape[1] + 1)).sum(1)
    return torch.stack([phase.sin(), (x.square().sum(1)).exp() * 0.3], -1)


def test_parameters_are_not_rounded_on_the_way_to_the_points() -> None:
    """As float32, 0.1 is off by 1.5e-8, and every answer beside it."""
    box = Box((0.0,), (1.0,))
    sides = {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet=0.0)}
    problem = Problem(box, Equation(K="k"), sides, parameters={"k": 0.1})
    form = strong_form(problem)
    x = torch.rand(3, 1, dtype=torch.float64)
    assert form.data("k", "problem.equation.K", x).tolist() in ([0.1] * 3, 0.1)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_products_and_functions_of_jets_are_those_of_the_functions(dimension: int) -> None:
    x, pairs = cloud(7, *[(-1.0, 1.0)] * dimension), every_pair(dimension)
    jet = jet_of(smooth, x, pairs)
    product = jet_of(lambda y: smooth(y) * smooth(y).flip(1), x, pairs)
    torch.testing.assert_close((jet * jet.like(jet.data.flip(-1))).data, product.data)
    t = jet.value.tanh()
    outer = jet.through(t, 1 - t * t, -2 * t * (1 - t * t))
    torch.testing.assert_close(outer.data, jet_of(lambda y: smooth(y).tanh(), x, pairs).data)
    affine = coordinates(x, pairs)
    torch.testing.assert_close(affine.data, jet_of(lambda y: y.clone(), x, pairs).data)


def exact_jet(problem: Problem, points: Tensor, pairs: Any) -> Jet:
    read = Pointwise(problem, (), numeric_parameters(problem))
    return jet_of(
        lambda x: read(problem.exact, "problem.exact", x).expand(len(x))[:, None], points, pairs
    )


@pytest.mark.parametrize("name", SOLVED)
def test_exact_solutions_of_the_configs_have_no_residual(name: str) -> None:
    problem = load_spec(CONFIGS / f"{name}.yaml").problem
    if problem.domain is None or not isinstance(problem.equation, Equation):
        pytest.skip("no coefficient form on a box")
    try:
        form = strong_form(problem)
    except InputError as error:
        assert "derivatives" in str(error) or "one problem at a time" in str(error)
        pytest.skip(f"not at points: {error}")
    low, high = (corner.tolist() for corner in extent(form))
    x = cloud(200, *zip(low, high, strict=True))
    jet = exact_jet(problem, x, form.pairs)
    terms = torch.stack(form.terms(x, jet))
    size = float(terms.detach().abs().sum(0).mean())
    assert float(terms.detach().sum(0).abs().max()) < 1e-9 * max(size, 1.0)


@pytest.mark.parametrize("name", [n for n in SOLVED if n not in ("kdv", "batch")])
def test_what_is_built_in_meets_the_data_of_exact_solutions(name: str) -> None:
    """On known sides and at the start G is the data, phi zero, whatever else there is."""
    problem = load_spec(CONFIGS / f"{name}.yaml").problem
    if problem.domain is None or not isinstance(problem.equation, Equation):
        pytest.skip("no coefficient form on a box")
    try:
        form = strong_form(problem)
    except InputError:
        pytest.skip("not at points")
    base = built_in(form)
    if base is None:
        pytest.skip("no side is known")
    for piece in pieces(form, hard=False, periodic_built_in=True)[1:]:
        if piece.flux:
            continue
        x = piece.place(cloud(50, *[(0.0, 1.0)] * piece.free) if piece.free else torch.zeros(1, 0))
        known, distance = base.jets(x, ())
        assert float(piece.residual(x, known).abs().max()) < 1e-8, piece.name
        assert float(distance.value.abs().max()) < 1e-12
        if piece.name != "start":
            value = exact_jet(problem, x, ()).value
            torch.testing.assert_close(known.value, value, atol=1e-8, rtol=1e-8)


def test_data_that_disagree_at_a_corner_are_not_built_in() -> None:
    """The lid of a cavity: G would carry its motion down the walls."""
    box, rest = Box((0.0, 0.0), (1.0, 1.0)), Condition(dirichlet=(0.0, 0.0))
    sides = {"all": rest, "top": Condition(dirichlet=(1.0, 0.0))}
    form = strong_form(Problem(box, NavierStokes(viscosity=0.01), sides))
    base = built_in(form)
    assert base is not None and disagreement(form, base) == "left"
    still = strong_form(Problem(box, NavierStokes(viscosity=0.01), {"all": rest}))
    base = built_in(still)
    assert base is not None and disagreement(still, base) is None


def divergence(q: Callable[[Tensor, Tensor, Tensor], Tensor], u: Callable[[Tensor], Tensor],
               x: Tensor) -> Tensor:  # fmt: skip
    """div q(x, u, grad u) by differentiating the composed function."""
    x = x.clone().requires_grad_()
    value = u(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    flux = q(x, value, slope)
    return torch.stack(
        [torch.autograd.grad(flux[:, i].sum(), x, retain_graph=True)[0][:, i]
         for i in range(flux.shape[1])]
    ).sum(0)  # fmt: skip


def field(x: Tensor) -> Tensor:
    return (x[:, 0] * 1.3 + 0.4).sin() * (x[:, 1] - 0.2).cos() + 0.1 * x[:, 0] * x[:, 1]


FLUXES: dict[str, tuple[Equation, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "number": (Equation(K=2.5), lambda x, u, p: 2.5 * p),
    "of x": (Equation(K="1 + x*y"), lambda x, u, p: (1 + x[:, :1] * x[:, 1:]) * p),
    "diagonal": (
        Equation(K=("1 + x", 3.0)),
        lambda x, u, p: torch.stack([(1 + x[:, 0]) * p[:, 0], 3 * p[:, 1]], 1),
    ),
    "tensor": (
        Equation(K=((2.0, "x"), ("x", "3 + y"))),
        lambda x, u, p: torch.stack(
            [2 * p[:, 0] + x[:, 0] * p[:, 1], x[:, 0] * p[:, 0] + (3 + x[:, 1]) * p[:, 1]], 1
        ),
    ),
    "of u": (Equation(K="1 + u**2"), lambda x, u, p: (1 + u[:, None] ** 2) * p),
    "of the slope": (
        Equation(kind="minimal_surface"),
        lambda x, u, p: p / (1 + p.square().sum(1, keepdim=True)).sqrt(),
    ),
    "energy": (
        Equation(energy="0.25*(ux**2 + uy**2)**2"),
        lambda x, u, p: p * p.square().sum(1, keepdim=True),
    ),
}


@pytest.mark.parametrize("name", FLUXES)
def test_the_divergence_is_that_of_the_composed_function(name: str) -> None:
    equation, q = FLUXES[name]
    box = Box((0.0, 0.0), (1.0, 1.0))
    form = strong_form(Problem(box, equation, {"all": Condition(dirichlet=0.0)}))
    x = cloud(40, (0.0, 1.0), (0.0, 1.0))
    jet = jet_of(lambda y: field(y)[:, None], x, form.pairs)
    torch.testing.assert_close(form.residual(x, jet)[:, 0], -divergence(q, field, x))


def test_lower_terms_and_time() -> None:
    box = Box((0.0,), (1.0,))
    equation = Equation(m=2.0, d="1 + x", K=0.5, b=("u",), c="t", f="x*t")
    problem = Problem(box, equation, {"all": Condition(dirichlet=0.0)}, time=Time(1.0),
                      initial={"u": 0.0, "ut": 0.0})  # fmt: skip
    form = strong_form(problem)
    x = cloud(30, (0.0, 1.0), (0.0, 1.0))
    jet = jet_of(lambda y: field(y)[:, None], x, every_pair(2))
    u, (ux, ut), t = jet.value[:, 0], jet.gradient[..., 0], x[:, 1]
    expected = (2 * jet.second(1, 1)[:, 0] + (1 + x[:, 0]) * ut - 0.5 * jet.second(0, 0)[:, 0]
                + u * ux + t * u - x[:, 0] * t)  # fmt: skip
    torch.testing.assert_close(form.residual(x, jet)[:, 0], expected)
    assert form.pairs == ((0, 0), (1, 1))


def test_kovasznay_flow_has_no_residual() -> None:
    """Kovasznay 1948: steady flow behind a grid, Re = 40."""
    rate = 20 - math.sqrt(400 + 4 * math.pi**2)

    def flow(x: Tensor) -> Tensor:
        e, y = (rate * x[:, 0]).exp(), 2 * math.pi * x[:, 1]
        return torch.stack(
            [1 - e * y.cos(), rate / (2 * math.pi) * e * y.sin(), (1 - e * e) / 2], -1
        )

    box = Box((-0.5, -0.5), (1.0, 1.5))
    problem = Problem(box, NavierStokes(viscosity=1 / 40), {"all": Condition(dirichlet=(0.0, 0.0))})
    form = strong_form(problem)
    x = cloud(100, (-0.5, 1.0), (-0.5, 1.5))
    assert form.fields == ("u", "v", "p")
    assert float(form.residual(x, jet_of(flow, x, form.pairs)).abs().max()) < 1e-10


def test_systems_have_one_line_per_field() -> None:
    problem = Problem(
        Box((0.0,), (1.0,)), System(kind="gray_scott"), {"all": Condition(periodic=True)},
        parameters={"Du": 0.2, "Dv": 0.1, "feed": 0.03, "kill": 0.06}, time=Time(1.0),
        initial={"u": 1.0, "v": 0.0},
    )  # fmt: skip
    form = strong_form(problem)
    x = cloud(20, (0.0, 1.0), (0.0, 1.0))
    jet = jet_of(smooth, x, form.pairs)
    (u, v), ut = jet.value.T, jet.gradient[1]
    lap = jet.second(0, 0)
    first = ut[:, 0] - 0.2 * lap[:, 0] + u * v**2 - 0.03 * (1 - u)
    second = ut[:, 1] - 0.1 * lap[:, 1] - u * v**2 + 0.09 * v
    torch.testing.assert_close(form.residual(x, jet), torch.stack([first, second], -1))


def test_sides_with_fluxes_are_met_by_what_meets_them() -> None:
    """n . K grad u of x^2 + y with K = 2: -0, 4, -2, 2 on the four sides."""
    box = Box((0.0, 0.0), (1.0, 1.0))
    problem = Problem(
        box,
        Equation(K=2.0, f=-4.0),
        {
            "left": Condition(neumann=0.0),
            "right": Condition(neumann=4.0),
            "bottom": Condition(robin=Robin(alpha=3.0, g="3*x**2 - 2")),
            "top": Condition(dirichlet="x**2 + 1"),
        },
    )
    form = strong_form(problem)
    found = {p.name: p for p in pieces(form, hard=False, periodic_built_in=True)}
    assert list(found) == ["equation", "left", "right", "bottom", "top"]
    for piece in found.values():
        x = piece.place(cloud(20, *[(0.0, 1.0)] * piece.free))
        jet = jet_of(lambda y: y[:, :1] ** 2 + y[:, 1:], x, form.pairs)
        assert float(piece.residual(x, jet).abs().max()) < 1e-12, piece.name


@pytest.mark.parametrize(
    ("equation", "said"),
    [
        (Equation(K=torch.ones(5, 5)), "values on a grid"),
        (Equation(K="where(x < 0.5, 1, 2)"), "'<' jumps"),
        (Equation(kind="kuramoto_sivashinsky"), "above the second"),
        (Equation(energy="abs(ux) + step(x)*uy**2"), "jumps"),
    ],
)
def test_coefficients_without_the_derivatives_are_refused(equation: Equation, said: str) -> None:
    box = Box((0.0, 0.0), (1.0, 1.0))
    with pytest.raises(InputError, match=said):
        strong_form(Problem(box, equation, {"all": Condition(dirichlet=0.0)}))


@pytest.mark.parametrize(
    ("equation", "timed", "key"),
    [
        (Equation(kind="heat"), False, "problem.equation.d"),
        (Equation(m=1.0, energy="ux**2"), False, "problem.equation.m"),
        (Equation(f=1.0), True, "problem.equation"),
        (System({"a": Equation(d=1.0), "b": Equation()}), False, "problem.equation.equations.a.d"),
    ],
)
def test_an_equation_and_its_time_go_together(
    equation: Equation | System, timed: bool, key: str
) -> None:
    """As on grids: no derivative is left out without a word, and none is formed of nothing."""
    time, first = (Time(1.0), 0.0) if timed else (None, None)
    sides = {"all": Condition(dirichlet=0.0)}
    problem = Problem(Box((0.0,), (1.0,)), equation, sides, time=time, initial=first)
    with pytest.raises(InputError, match=r"time derivative|depends on time") as caught:
        strong_form(problem)
    assert caught.value.key == key


def test_a_side_may_be_named_beside_all() -> None:
    box = Box((0.0,) * 5, (1.0,) * 5)
    sides = {"all": Condition(dirichlet=0.0), "x2_high": Condition(neumann=1.0)}
    problem = Problem(box, Equation(), sides)
    assert set(problem.boundary) == set(box.sides)
    assert [s for s in box.sides if problem.boundary[s].kind == "neumann"] == ["x2_high"]
    assert box.axes == ("x1", "x2", "x3", "x4", "x5")
