"""Unknown functions: fields with their posterior, laws on unseen experiments, priors, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from typer.testing import CliRunner

import sciml
from sciml.app import cli
from sciml.app.read import load_spec, read_spec
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Unknown
from sciml.core.problem.unknown import Law, Network, UnknownField, leaves, put
from sciml.solvers import Fit
from sciml.solvers.fit.functions import LawFunction, law_start
from sciml.solvers.fit.priors import field_precision
from sciml.solvers.fit.sensitivities import jacobian, solved

CONFIGS = Path(__file__).parent.parent / "configs"
LINE, SQUARE = Box((0.0,), (1.0,)), Box((0.0, 0.0), (1.0, 1.0))
INCLUSION = "exp(1.2*exp(-20*((x - 0.4)**2 + (y - 0.6)**2)))"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def poisson(box: Box, observations: Any = None, noise: Any = None, **data: Any) -> Problem:
    sides = dict.fromkeys(box.sides, Condition(0.0))
    equation = Equation(kind="diffusion", **({"K": 1.0, "f": 1.0} | data))
    return Problem(box, equation, sides, observations=observations, noise=noise)


def seen(problem: Problem, on: Grid, count: int, noise: float) -> dict[str, Tensor]:
    d = problem.box.dimension
    points = torch.rand(count, d, generator=generator(), dtype=torch.float64)
    error = noise * torch.randn(count, generator=generator(1), dtype=torch.float64)
    value = sciml.solve(problem, on=on).sample(points) + error
    return dict(zip("xy", points.T, strict=False)) | {"u": value}


def test_a_field_of_a_linear_problem_has_the_exact_posterior() -> None:
    """u = G f: mean (J^T J + R)^-1 J^T d and its covariance, as dense linear algebra has them."""
    grid, noise = Grid((17,)), 0.01
    data = seen(poisson(LINE, f="10*sin(3*x)"), grid, 9, noise)
    field = UnknownField("plain", 0.0, "gaussian", length=0.5, strength=0.2)
    problem = poisson(LINE, data, noise, f=Unknown(field))
    found = sciml.fit(problem, on=grid)
    state = Fit().init(problem, grid)
    answer = solved(state.experiment, state.start)
    J = (jacobian(state.experiment, answer, "unknown") / noise).numpy()
    R = 0.2 * field_precision(field, (17,), (1.0,), state.start).toarray()
    right = (data["u"] - answer.readings).numpy() / noise
    covariance = np.linalg.inv(J.T @ J + R)
    values = found.functions["equation.f"].values.numpy()
    np.testing.assert_allclose(values, covariance @ J.T @ right, atol=1e-3 * np.abs(values).max())
    deviation = found.deviations["equation.f"].values.numpy()
    np.testing.assert_allclose(deviation, np.sqrt(np.diag(covariance)), rtol=1e-6)


def test_a_field_is_found_as_well_as_its_noise_lets_it_and_says_how_well() -> None:
    grid, noise = Grid((17, 17)), 0.005
    data = seen(poisson(SQUARE, K=INCLUSION, f=10.0), Grid((49, 49)), 60, noise)
    field = UnknownField(prior="gaussian", length=0.4)
    problem = poisson(SQUARE, data, noise, K=Unknown(field), f=10.0)
    found = sciml.fit(problem, on=grid)
    axes = torch.meshgrid(*(torch.linspace(0, 1, 17, dtype=torch.float64),) * 2, indexing="ij")
    x, y = axes
    truth = 1.2 * (-20 * ((x - 0.4) ** 2 + (y - 0.6) ** 2)).exp()
    gap = found.functions["equation.K"](*axes).log() - truth
    assert gap.norm() < 0.35 * truth.norm()
    inside = gap.abs() <= 2 * found.deviations["equation.K"](*axes)
    assert inside.double().mean() > 0.85
    misfit = (found.sample(torch.stack([data["x"], data["y"]], -1)) - data["u"]) / noise
    assert float(misfit.square().mean()) == pytest.approx(1.0, abs=0.03)  # and not below
    state = Fit().init(problem, grid)
    answer = solved(state.experiment, state.start)
    J, h = jacobian(state.experiment, answer), 1e-4
    way = torch.randn(len(state.start), generator=generator(2), dtype=torch.float64)
    ends = [solved(state.experiment, state.start + s * h * way).readings for s in (1, -1)]
    torch.testing.assert_close(J @ way, (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-7)


def test_jumps_are_kept_by_the_prior_that_lets_them_be() -> None:
    """Half a rod conducts ten times as well as the other; few jumps beat small slopes."""
    grid, noise = Grid((65,)), 2e-4
    data = seen(poisson(LINE, K="where(x > 0.47, 1.0, 0.1)"), Grid((257,)), 60, noise)
    x = torch.linspace(0, 1, 65, dtype=torch.float64)
    truth = torch.where(x > 0.47, 1.0, 0.1).log()
    errors = []
    for prior in ("h1", "tv"):
        field = Unknown(UnknownField(prior=prior, start=0.5))
        found = sciml.fit(poisson(LINE, data, noise, K=field), on=grid, throw=False)
        errors.append(float((found.functions["equation.K"](x).log() - truth).abs().mean()))
    assert errors[1] < 0.6 * errors[0]


def test_a_law_from_three_experiments_holds_in_one_that_was_not_among_them() -> None:
    spec = load_spec(CONFIGS / "law.yaml")
    found = sciml.solve(spec.problem, Fit(iterations=12), on=Grid((33,)), throw=False)
    law = found.functions["equation.K"]
    for source, right in ((1.5, 0.0), (0.0, 0.7)):
        sides = {"left": Condition(0.0), "right": Condition(right)}
        answers = [
            sciml.solve(Problem(LINE, Equation(kind="diffusion", K=K, f=source), sides),
                        on=Grid((33,))).value
            for K in (law, "0.1 + u**2")
        ]  # fmt: skip
        assert (answers[0] - answers[1]).norm() < 0.02 * answers[1].norm()
    u = torch.linspace(-0.2, 0.7, 50, dtype=torch.float64)
    gap = (law(u) / (0.1 + u**2)).log().abs()
    assert (gap <= 2.5 * found.deviations["equation.K"](u)).double().mean() > 0.9
    assert any("known for u from -0.4" in note for note in found.notes)


def test_a_monotone_law_grows_wherever_its_weights_are() -> None:
    for positive in (True, False):
        network = Network(("u",), 5, positive=positive, monotone=True)
        weights = law_start(network) + torch.randn(16, generator=generator(), dtype=torch.float64)
        u = torch.linspace(-3, 3, 200, dtype=torch.float64)
        assert bool((LawFunction(network, weights, (0.0,), (1.0,))(u).diff() > 0).all())


def test_priors_are_what_they_are_called() -> None:
    """Gaussian: variance one and Matern's correlation; tv: at its own point the sum of slopes."""
    stated, n = UnknownField(prior="gaussian", length=0.2), 201
    covariance = np.linalg.inv(
        field_precision(stated, (n,), (1.0,), torch.zeros(n, dtype=torch.float64)).toarray()
    )
    kappa, r = np.sqrt(12) / 0.2, np.linspace(0, 0.3, 61)
    np.testing.assert_allclose(
        covariance[100, 100:161], (1 + kappa * r) * np.exp(-kappa * r), atol=0.01
    )
    plane = field_precision(stated, (41, 41), (1.0, 1.0), torch.zeros(41**2, dtype=torch.float64))
    middle = scipy.sparse.linalg.spsolve(plane, np.eye(1, 41**2, 840)[0])[840]
    assert middle == pytest.approx(1.0, abs=0.08)
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    jump = 3.0 * (x > 0.5).double()
    form = field_precision(UnknownField(prior="tv"), (101,), (1.0,), jump)
    assert float(jump @ torch.from_numpy(form @ jump.numpy())) == pytest.approx(3.0, rel=0.02)


def test_functions_are_found_by_their_place_and_put_back() -> None:
    law, field = Law(Network(("u",))), Unknown(UnknownField())
    sides = {"left": Condition(neumann=law), "right": Condition(0.0)}
    problem = Problem(LINE, Equation(kind="diffusion", K=field, f=2.0), sides,
                      observations={"x": [0.5], "u": [1.0]}, noise=0.1)  # fmt: skip
    found = leaves(problem, (Unknown, Law))
    assert found == {"equation.K": field, "boundary.left.neumann": law}
    known = put(problem, {"equation.K": 3.0, "boundary.left.neumann": "1 - u"})
    assert known.equation.K == 3.0  # type: ignore[attr-defined]
    assert known.boundary["left"] == Condition(neumann="1 - u")
    assert known.boundary["right"] == problem.boundary["right"]


GOOD: dict[str, Any] = {"x": [0.2, 0.5, 0.7], "u": [0.1, 0.2, 0.15]}


def test_functions_that_cannot_be_found_are_refused() -> None:
    field, grid = Unknown(UnknownField()), Grid((17,))
    with pytest.raises(InputError, match="K is a function: state noise:"):
        sciml.fit(poisson(LINE, GOOD, K=field), on=grid)
    with pytest.raises(InputError, match="f has no strength and others have"):
        stated = poisson(LINE, GOOD, 0.1, K=Unknown(UnknownField(strength=1.0)), f=field)
        sciml.fit(stated, on=grid)
    with pytest.raises(InputError, match="a law is of coordinates and fields, not of 'ux'"):
        sciml.fit(poisson(LINE, GOOD, 0.1, K=Law(Network(("ux",)))), on=grid)
    with pytest.raises(InputError, match="K is unknown: give observations"):
        poisson(LINE, K=field)
    with pytest.raises(InputError, match="K is a function that is to be found: fit finds it"):
        sciml.solve(poisson(LINE, GOOD, 0.1, K=field), sciml.solvers.CG(), on=grid)
    with pytest.raises(InputError, match="shape has 1 entries here"):
        sciml.fit(poisson(LINE, GOOD, 0.1, K=Unknown(UnknownField(shape=(3, 3)))), on=grid)


@pytest.mark.parametrize(
    ("K", "message"),
    [
        ("{unknown: 1.0}", "an unknown number is a parameter"),
        ("{unknown: {feild: log}}", "unknown key 'feild'; did you mean 'field'?"),
        ("{unknown: {start: -1}}", "above zero for field: log; got -1"),
        ("{unknown: {prior: h2}}", "'h2' is none of h1, tv, gaussian"),
        ("{network: {of: [w]}}", "a law is of coordinates and fields, not of 'w'"),
        ("{network: {of: [u], width: 0}}", "width is 1 to 64; got 0"),
        ("{network: {width: 8}}", "names what the law is of"),
    ],
)
def test_a_spec_says_what_is_wrong_with_an_unknown_function(K: str, message: str) -> None:
    text = (
        "problem:\n  domain: {kind: box, lower: [0], upper: [1]}\n"
        f"  equation: {{kind: diffusion, K: {K}, f: 1}}\n  boundary: {{all: {{dirichlet: 0}}}}\n"
        "  observations: {x: [0.5], u: [1.0]}\n  noise: 0.1\ngrid: {shape: [9]}\n"
    )
    with pytest.raises(InputError, match=r"spec\.yaml:3:") as caught:
        read_spec(parse_yaml(text, "spec.yaml"))
    assert message in str(caught.value)


def test_what_a_run_found_goes_into_another_spec(tmp_path: Path) -> None:
    """A field as a file, a law as a table: with these the same answer, without a fit."""
    given = CONFIGS / "conductivity-field.yaml"
    run = CliRunner().invoke(cli.app, ["fit", str(given), "--set", "grid.shape=[13,13]", "--out",
                                       str(tmp_path / "run")])  # fmt: skip
    assert run.exit_code == 0, run.output
    assert (tmp_path / "run" / "deviation_K.png").is_file()
    found = sciml.load_solution(tmp_path / "run")
    kept = sciml.FieldFile(str(tmp_path / "run" / "K.npy"))
    problem = load_spec(given).problem
    again = replace(problem, equation=replace(problem.equation, K=kept), observations=None,
                    noise=None)  # fmt: skip
    value = sciml.solve(again, on=Grid((13, 13))).value
    assert (value - found.value).norm() < 0.02 * found.value.norm()
