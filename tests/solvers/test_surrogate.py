"""A network as a solver: what it answers is told truthfully, bounded, and polished."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import sciml
from sciml import Status
from sciml.app import cli
from sciml.core.errors import InputError
from sciml.core.problem.equation import FieldFile, Helmholtz
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.files import save_solution
from sciml.core.run.serialise import dump
from sciml.core.run.solution import load_solution
from sciml.discretization import discretize
from sciml.operators import MgNO, Operator, Signature, load_operator, save_operator
from sciml.solvers import CG, FCG, GMRES, Auto, Direct, Multigrid, Surrogate
from sciml.solvers.learned.surrogate import _best_multiple, channels, check_same

GRID = Grid((17, 17))
BOX = Box((0.0, 0.0), (1.0, 1.0))
K_PLACE = {"a": "problem.equation.K"}
POLISH = CG(preconditioner=Multigrid(), rtol=1e-9)


def darcy(K: Any, **more: Any) -> Problem:
    boundary = {side: Condition(dirichlet=0.0) for side in BOX.sides}
    return Problem(
        **{"domain": BOX, "equation": Equation(K=K, f=1.0), "boundary": boundary, **more}
    )


def fields(count: int, shape: tuple[int, ...] = GRID.shape, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + 9 * (torch.rand(count, *shape, generator=generator) > 0.5).double()


def network(
    folder: Path,
    problem: Problem,
    places: dict[str, str] = K_PLACE,
    outputs: tuple[str, ...] = ("u",),
    grid: Grid = GRID,
    scale: float = 0.02,
) -> str:
    """An untrained operator, whose answers are of the solution's size, in ``folder``."""
    signature = Signature(tuple(places), outputs, grid.bind(BOX), ("dirichlet", "dirichlet"))
    operator = Operator.build(MgNO(width=4, layers=2, levels=2), signature, seed=1)
    operator.output_std.fill_(scale)
    operator.provenance = {"places": places, "spec": json.loads(json.dumps(dump(problem)))}
    save_operator(operator, folder)
    return str(folder)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return network(tmp_path_factory.mktemp("operator"), darcy("1 + x"))


def energy(system: Any, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    e = system.restrict(u) - system.restrict(v)
    return (e * system.A.apply(e)).sum((-1, -2)).sqrt()


# --- predictions


def test_a_prediction_is_the_networks_with_the_true_boundary_values(path: str) -> None:
    K = fields(3)
    solution = sciml.solve(darcy(K), Surrogate(path), on=GRID, throw=False)
    with torch.no_grad():
        wanted = load_operator(path)(K[:, None].float())[:, 0].double()
    assert torch.equal(solution.value[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1])
    assert not solution.value[:, 0].any() and not solution.value[:, :, -1].any()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_an_unpolished_answer_is_no_success_and_says_how_far_off_it_is(
    path: str, batch: tuple[int, ...]
) -> None:
    K = fields(6)[: max(1, torch.Size(batch).numel())].reshape(*batch, *GRID.shape)
    solution = sciml.solve(darcy(K), Surrogate(path), on=GRID, throw=False)
    system = discretize(darcy(K), GRID)
    r = system.b - system.A.apply(system.restrict(solution.value))
    size = r.flatten(-2).norm(dim=-1) / system.b.flatten(-2).norm(dim=-1)
    torch.testing.assert_close(solution.residual, size.expand(batch))
    assert set(solution.statuses) == {Status.PREDICTED} and not solution.status.success
    assert solution.stats.iterations.shape == batch and not solution.stats.iterations.any()
    with pytest.raises(sciml.core.errors.SolveError, match="give polish"):
        sciml.solve(darcy(K), Surrogate(path), on=GRID)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("polish", [None, CG(preconditioner=Multigrid(), rtol=1e-3)])
def test_the_certificate_brackets_the_error_of_the_value(
    path: str, polish: CG | None, steps: int
) -> None:
    problem = darcy(fields(4))
    solution = sciml.solve(problem, Surrogate(path, polish, steps), on=GRID, throw=False)
    system = discretize(problem, GRID)
    truth = sciml.solve(system, Direct()).value
    error, bounds = energy(system, solution.value, truth), solution.certificate
    assert bounds is not None and bounds.steps == steps
    assert (bounds.lower <= error * (1 + 1e-6)).all() and (error <= bounds.upper * (1 + 1e-6)).all()
    own = energy(system, torch.zeros_like(truth), truth)
    assert (bounds.relative_lower * own <= error * (1 + 1e-6)).all()


def test_other_resolutions_are_answered(path: str) -> None:
    grid = Grid((25, 21))
    problem = darcy(fields(2, grid.shape))
    solution = sciml.solve(problem, Surrogate(path, POLISH), on=grid)
    truth = sciml.solve(problem, Direct(), on=grid)
    torch.testing.assert_close(solution.value, truth.value, rtol=1e-6, atol=1e-9)


# --- polishing


@pytest.mark.parametrize("scale", [0.02, -3.0, 1e6, 0.0])
@pytest.mark.parametrize(
    "polish", [POLISH, FCG(preconditioner=Multigrid()), GMRES(rtol=1e-8), Multigrid()]
)
def test_any_network_is_polished_to_the_tolerance(
    tmp_path: Path, polish: Any, scale: float
) -> None:
    problem = darcy(fields(2))
    weights = network(tmp_path, darcy("1 + x"), scale=scale)
    solution = sciml.solve(problem, Surrogate(weights, polish), on=GRID)
    assert set(solution.statuses) == {Status.CONVERGED}
    assert (solution.residual <= 1.01 * polish.rtol).all()
    truth = sciml.solve(problem, Direct(), on=GRID).value
    torch.testing.assert_close(solution.value, truth, rtol=1e-5, atol=1e-8)


@given(st.floats(-1e4, 1e4), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_polishing_never_starts_farther_off_than_zero(path: str, scale: float, seed: int) -> None:
    system = discretize(darcy(fields(2, seed=seed)), GRID)
    truth = sciml.solve(system, Direct()).value
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(system.b.shape, generator=generator, dtype=torch.float64)
    start = system.lift(_best_multiple(system, x))
    zero = energy(system, torch.zeros_like(truth), truth)
    assert (energy(system, start, truth) <= zero * (1 + 1e-12)).all()


def test_an_exact_prediction_needs_no_polish(tmp_path: Path, monkeypatch: Any) -> None:
    problem = darcy(fields(2))
    truth = sciml.solve(problem, CG(preconditioner=Multigrid(), rtol=1e-12), on=GRID).value
    monkeypatch.setattr(Operator, "forward", lambda self, x: 5 * truth[:, None])
    solver = Surrogate(network(tmp_path, darcy("1 + x")), POLISH, compare=True)
    solution = sciml.solve(problem, solver, on=GRID)
    assert not solution.stats.iterations.any()
    assert any("0 iterations from the prediction" in note for note in solution.notes)
    assert any(note.endswith("100 % saved") for note in solution.notes)


def test_a_prediction_that_is_not_finite_is_told_and_polished_from_zero(
    path: str, monkeypatch: Any
) -> None:
    whole = Operator.forward

    def broken(self: Operator, x: torch.Tensor) -> torch.Tensor:
        y = whole(self, x)
        y[1] = torch.nan
        return y

    monkeypatch.setattr(Operator, "forward", broken)
    problem = darcy(fields(2))
    solution = sciml.solve(problem, Surrogate(path), on=GRID, throw=False)
    assert solution.statuses == (Status.PREDICTED, Status.NOT_FINITE)
    assert solution.certificate is not None
    assert solution.certificate.upper.isfinite().tolist() == [True, False]
    assert solution.certificate.lower.isnan().tolist() == [False, True]
    polished = sciml.solve(problem, Surrogate(path, POLISH), on=GRID)
    zero = torch.zeros_like(polished.value)
    own = sciml.solve(problem, POLISH, on=GRID, initial=zero)
    assert polished.stats.iterations[1] == own.stats.iterations[1]
    assert polished.certificate is not None and polished.certificate.upper.isfinite().all()


def test_a_singular_problem_is_certified_and_polished(tmp_path: Path) -> None:
    def neumann(K: Any) -> Problem:
        boundary = {side: Condition(neumann=0.0) for side in BOX.sides}
        return darcy(K, equation=Equation(K=K, f="cos(pi*x)"), boundary=boundary)

    solver = Surrogate(network(tmp_path, neumann("1 + x")), POLISH)
    predicted = sciml.solve(neumann(fields(2)), replace(solver, polish=None), on=GRID, throw=False)
    system = discretize(neumann(fields(2)), GRID)
    truth = sciml.solve(system, CG(preconditioner=Multigrid(), rtol=1e-12)).value
    error, bounds = energy(system, predicted.value, truth), predicted.certificate
    assert bounds is not None and (bounds.lower <= error).all() and (error <= bounds.upper).all()
    polished = sciml.solve(neumann(fields(2)), solver, on=GRID)
    torch.testing.assert_close(polished.value, truth, rtol=1e-6, atol=1e-9)


def test_gradients_of_a_polished_answer_are_the_solvers(path: str) -> None:
    K = fields(1)[0].requires_grad_()
    found = []
    for solver in (Surrogate(path, POLISH), POLISH):
        loss = sciml.solve(darcy(K), solver, on=GRID).value.square().sum()
        found.append(torch.autograd.grad(loss, K)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-10)


def test_what_has_no_energy_norm_is_polished_without_a_certificate(tmp_path: Path) -> None:
    def advected(K: Any) -> Problem:
        return darcy(K, equation=Equation(K=K, b=(3.0, 1.0), f=1.0))

    solver = Surrogate(network(tmp_path, advected("1 + x")), GMRES(preconditioner=Multigrid()))
    solution = sciml.solve(advected(fields(2)), solver, on=GRID)
    truth = sciml.solve(advected(fields(2)), Direct(), on=GRID).value
    torch.testing.assert_close(solution.value, truth, rtol=1e-5, atol=1e-8)
    assert solution.certificate is None
    assert any(note.startswith("no certificate: ") for note in solution.notes)


def test_complex_waves_take_two_channels(tmp_path: Path) -> None:
    def waves(f: Any) -> Problem:
        boundary = {side: Condition(absorbing=True) for side in BOX.sides}
        return darcy(1.0, equation=Helmholtz(wavenumber=5.0, f=f), boundary=boundary)

    weights = network(
        tmp_path, waves("x"), {"f": "problem.equation.f"}, outputs=("u_real", "u_imag")
    )
    problem = waves(fields(2))
    predicted = sciml.solve(problem, Surrogate(weights), on=GRID, throw=False)
    with torch.no_grad():
        y = load_operator(weights)(fields(2)[:, None].float()).double()
    assert torch.equal(predicted.value, torch.complex(y[:, 0], y[:, 1]))
    polished = sciml.solve(problem, Surrogate(weights, GMRES(rtol=1e-9)), on=GRID)
    truth = sciml.solve(problem, Direct(), on=GRID).value
    torch.testing.assert_close(polished.value, truth, rtol=1e-5, atol=1e-8)


# --- which problem it is


@pytest.mark.parametrize(
    ("other", "key", "told"),
    [
        (
            darcy("1 + x", equation=Equation(K="1 + x", f=2.0)),
            "problem.equation.f",
            "1.0 in training, 2.0",
        ),
        (
            darcy("1 + x", boundary={s: Condition(dirichlet="y") for s in BOX.sides}),
            "problem.boundary.bottom.dirichlet",
            "0.0 in training, y here) and 1 more",
        ),
        (
            darcy("1 + x", equation=Equation(K="1 + x", c=1.0, f=1.0)),
            "problem.equation.c",
            "1.0 here",
        ),
        (
            darcy("1 + x", equation=Equation(K="1 + x", f=torch.ones(17, 17))),
            "problem.equation.f",
            "1.0 in training, tensor(",
        ),
        (darcy("1 + x", domain=Box((0.0, 0.0), (2.0, 1.0))), "problem.domain.upper.0", "2.0 here"),
    ],
)
def test_another_problem_is_refused_by_what_differs(
    path: str, other: Problem, key: str, told: str
) -> None:
    with pytest.raises(InputError) as fault:
        sciml.solve(other, Surrogate(path), on=GRID)
    assert fault.value.key == key
    assert told in fault.value.message and key in fault.value.message
    assert "\n" not in fault.value.message


@pytest.mark.parametrize(
    "same",
    [
        darcy(2.0),
        darcy("1 + x*y", name="another name", exact="x"),
        darcy("k0*(1 + x)", parameters={"k0": 2.0}),
        darcy("1 + x", equation=Equation(K="1 + x", f="1", kind="darcy")),
    ],
)
def test_the_same_problem_is_known_whatever_its_form(path: str, same: Problem) -> None:
    solution = sciml.solve(same, Surrogate(path, POLISH), on=GRID)
    truth = sciml.solve(same, Direct(), on=GRID).value
    torch.testing.assert_close(solution.value, truth, rtol=1e-6, atol=1e-9)


def test_inputs_are_read_at_their_places(tmp_path: Path) -> None:
    values = fields(2)
    file = tmp_path / "k.npy"
    np.save(file, values[0].numpy())
    x, y = GRID.bind(BOX).coordinates()
    problem = Problem(
        BOX,
        Equation(K=(FieldFile(str(file)), "1 + nu*x"), c=values, f=2.0),
        {s: Condition(dirichlet="x - y" if s == "left" else 0.0) for s in BOX.sides},
        parameters={"nu": torch.tensor([1.0, 3.0])},
    )
    places = {
        "k": "problem.equation.K.0",
        "l": "problem.equation.K.1",
        "c": "problem.equation.c",
        "f": "problem.equation.f",
        "g": "problem.boundary.left.dirichlet",
        "nu": "problem.parameters.nu",
    }
    found = channels(problem, GRID, tuple(places), places)
    nu = torch.tensor([1.0, 3.0], dtype=torch.float64)[:, None, None]
    wanted = [values[0], 1 + nu * x, values, torch.tensor(2.0), x - y, nu]
    for k, value in enumerate(wanted):
        torch.testing.assert_close(found[:, k], value.double().expand(2, 17, 17))
    check_same(dump(problem), problem, {})


@pytest.mark.parametrize("place", ["problem.equation.K.0", "problem.boundary.left.neumann"])
def test_a_place_where_nothing_stands_is_named(tmp_path: Path, place: str) -> None:
    weights = network(tmp_path, darcy("1 + x"), {"a": place})
    with pytest.raises(InputError) as fault:
        sciml.solve(darcy("1 + x"), Surrogate(weights), on=GRID)
    assert fault.value.key == place


# --- what cannot be answered


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"steps": -1}, "solver.steps"),
        ({"polish": Direct()}, "solver.polish"),
        ({"polish": Auto()}, "solver.polish"),
        ({"polish": Surrogate("runs/other")}, "solver.polish"),
        ({"compare": True}, "solver.compare"),
    ],
)
def test_options_are_checked(options: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as fault:
        Surrogate("runs/mgno", **options)
    assert fault.value.key == key


def test_what_it_cannot_answer_is_refused_in_one_line(path: str, tmp_path: Path) -> None:
    timed = darcy(
        "1 + x", equation=Equation(K="1 + x", f=1.0, d=1.0), time=Time(end=1.0), initial=0.0
    )
    nonlinear = darcy("1 + x", equation=Equation(K="1 + u**2", f=1.0))
    for problem, told in ((timed, "in time"), (nonlinear, "nonlinear")):
        with pytest.raises(InputError, match=told):
            sciml.solve(problem, Surrogate(path), on=GRID)
    with pytest.raises(InputError, match="not a mesh or a bare matrix"):
        Surrogate(path).init(replace(discretize(darcy("1 + x"), GRID), problem=None))
    with pytest.raises(InputError, match="trained on node values") as fault:
        sciml.solve(darcy("1 + x"), Surrogate(path), on=Grid((16, 16), "cell"))
    assert fault.value.key == "grid.centring"
    with pytest.raises(InputError) as fault:
        sciml.solve(darcy("1 + x"), Surrogate(str(tmp_path / "missing")), on=GRID)
    assert fault.value.key == "solver.path"
    with pytest.raises(InputError, match="leave initial out"):
        sciml.solve(darcy("1 + x"), Surrogate(path), on=GRID, initial=torch.zeros(17, 17))
    pair = network(tmp_path, darcy("1 + x"), outputs=("p", "q"))
    with pytest.raises(InputError, match="gives p, q; the problem needs u"):
        sciml.solve(darcy("1 + x"), Surrogate(pair), on=GRID)


def test_an_operator_without_a_problem_is_refused(tmp_path: Path) -> None:
    weights = network(tmp_path, darcy("1 + x"))
    operator = load_operator(weights)
    operator.provenance = {}
    save_operator(operator, tmp_path)
    with pytest.raises(InputError, match="does not say which problem") as fault:
        sciml.solve(darcy("1 + x"), Surrogate(weights), on=GRID)
    assert fault.value.key == "solver.path"


# --- the command line, and on disk

SPEC = """\
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: darcy, K: 1 + x, f: 1}
  boundary:
    left: {dirichlet: 0}
    right: {dirichlet: 0}
    bottom: {dirichlet: 0}
    top: {dirichlet: 0}
grid: {shape: [17, 17]}
solver: {kind: surrogate, path: PATH}
"""


def command(folder: Path, path: str, *overrides: str) -> Result:
    spec = folder / "spec.yaml"
    spec.write_text(SPEC.replace("PATH", path))
    options = [part for text in overrides for part in ("--set", text)]
    return CliRunner().invoke(cli.app, ["solve", str(spec), "--out", str(folder / "run"), *options])


def test_the_command_line_shows_the_bounds(path: str, tmp_path: Path) -> None:
    done = command(tmp_path, path)
    assert done.exit_code == 1
    assert "sciml: predicted: A network's prediction" in done.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    bounds = record["certificate"]
    line = f"{100 * bounds['lower']:.3g} to {100 * bounds['upper']:.3g} % in the energy norm"
    assert line in done.output and line in (tmp_path / "run" / "report.html").read_text()
    polish = "solver.polish={kind: cg, preconditioner: {kind: multigrid}}"
    done = command(tmp_path, path, polish, "solver.compare=true")
    assert done.exit_code == 0, done.output
    assert "saved" in done.output and "certificate of the prediction" in done.output


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("problem.equation.f=2", "problem.equation.f: the network was trained on another problem"),
        ("solver.path=nowhere", "solver.path: "),
        ("solver.polish={kind: direct}", "solver.polish.kind: unknown kind 'direct'"),
        ("grid.centring=cell", "grid.centring: the network was trained on node values"),
    ],
)
def test_mistakes_are_one_line(path: str, tmp_path: Path, override: str, told: str) -> None:
    done = command(tmp_path, path, override)
    assert done.exit_code == 2
    assert f"sciml: --set {override}: {told}" in done.output


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_certificate_survives_saving(path: str, tmp_path: Path, batch: tuple[int, ...]) -> None:
    K = fields(2)[: max(1, torch.Size(batch).numel())].reshape(*batch, *GRID.shape)
    solution = sciml.solve(darcy(K), Surrogate(path, steps=2), on=GRID, throw=False)
    save_solution(solution, tmp_path)
    found = load_solution(tmp_path)
    assert found.statuses == solution.statuses
    assert found.certificate is not None and solution.certificate is not None
    for name, value in vars(solution.certificate).items():
        read = getattr(found.certificate, name)
        assert torch.equal(read, value) if isinstance(value, torch.Tensor) else read == value
