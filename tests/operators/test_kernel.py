"""Kernel regression: linear maps are found exactly, what is left out is what others would say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators import Kernel, Operator, Signature
from sciml.operators.checkpoint import load_operator
from sciml.training import TensorData, Training, TrainingData, fit

ON = Signature(("a",), ("u",), Grid((33,), "node", Box((0.0,), (2.0,))), ("neumann",))


def walks(count: int, seed: int = 0) -> Tensor:
    """Random functions of a few waves, (count, 1, 33)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 1, 33, dtype=torch.float64)
    waves = torch.stack([torch.cos(torch.pi * k * x) / (1 + k) for k in range(6)])
    return (torch.randn(count, 6, generator=generator, dtype=torch.float64) @ waves)[:, None]


def regressed(x: Tensor, y: Tensor, **options: object) -> Operator:
    operator = Operator.build(Kernel(**options), ON).double()  # type: ignore[arg-type]
    operator.prepare(x, y)
    return operator.eval()


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_a_linear_map_is_found_exactly_from_as_many_samples_as_it_has_directions() -> None:
    x, new = walks(8), walks(20, seed=1)
    operator = regressed(x, x.cumsum(-1), form="linear")
    assert relative(operator(new), new.cumsum(-1)) < 1e-6
    few = walks(5)
    assert relative(regressed(few, few.cumsum(-1), form="linear")(new), new.cumsum(-1)) > 1e-2


def test_a_quadratic_map_needs_the_quadratic_form_which_auto_finds() -> None:
    x, new = walks(60), walks(20, seed=1)
    truth = 3 + (x[..., :1] * x).cumsum(-1)
    wanted = 3 + (new[..., :1] * new).cumsum(-1)
    errors = {f: relative(regressed(x, truth, form=f)(new), wanted) for f in ("linear", "auto")}
    assert errors["linear"] > 1e-2 and errors["auto"] < 1e-5, errors


@pytest.mark.parametrize("form", ["linear", "quadratic", "matern", "gaussian"])
def test_what_is_left_out_is_what_the_others_give(form: str) -> None:
    x = walks(14)
    y = torch.sin(x).cumsum(-1)
    network = Operator.build(Kernel(form=form), ON).double().network  # type: ignore[arg-type]
    left_out = network.regress(x, y)
    number, length = float(network.chosen[0]), float(network.chosen[1])
    z, encoder = network.places[:14], network.encoder
    assert number == ("linear", "quadratic", "matern", "gaussian").index(form)
    r = torch.cdist(z, z) / length
    products = z @ z.T
    s = 5**0.5 * r
    K = {
        "linear": 1 + products,
        "quadratic": (1 + products / length**2) ** 2,
        "matern": (1 + s + s**2 / 3) * torch.exp(-s),
        "gaussian": torch.exp(-(r**2) / 2),
    }[form]
    torch.testing.assert_close((x - network.centre).flatten(1) @ encoder.flatten(1).T, z)
    phi = network.basis.flatten(1)
    targets = (y - network.mean).flatten(1) @ phi.T
    # The ridge from the weights: (K + ridge) alpha = targets.
    alpha = network.weights[:14]
    ridge = float(((targets - K @ alpha) * alpha).sum() / alpha.square().sum())
    for i in (0, 5, 13):
        others = [k for k in range(14) if k != i]
        own = K[others][:, others] + ridge * torch.eye(13, dtype=torch.float64)
        found = K[i, others] @ torch.linalg.solve(own, targets[others])
        torch.testing.assert_close(
            left_out[i].flatten(), (network.mean.flatten() + found @ phi), rtol=1e-4, atol=1e-6
        )


def test_fit_solves_keeps_and_tells_the_error_of_what_was_left_out(tmp_path: Path) -> None:
    x, new = walks(80).float(), walks(200, seed=1).float()
    data = TrainingData(
        TensorData(x, torch.sin(x).cumsum(-1)), TensorData(new, torch.sin(new).cumsum(-1)), ON
    )
    operator = fit(Kernel(), data, Training(), tmp_path)
    rows = (tmp_path / "history.csv").read_text().splitlines()
    assert len(rows) == 2  # no epochs but the one in which it is measured
    measured = float(dict(zip(rows[0].split(","), rows[1].split(","), strict=True))["valid_l2"])
    told = operator.provenance["left_out"]
    assert 0.5 < measured / told < 2, (measured, told)
    again = load_operator(tmp_path)
    assert torch.equal(again(new), operator(new))
    assert again.provenance["left_out"] == told
    same = fit(Kernel(), data, Training(), tmp_path)
    assert torch.equal(same(new), operator(new))


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    x = walks(5)
    with pytest.raises(InputError, match="5 samples and room for 4"):
        regressed(x, x, samples=4)
    with pytest.raises(InputError, match="did you mean 'matern'"):
        Kernel(form="mattern")  # type: ignore[arg-type]
    data = TrainingData(TensorData(x, x), None, ON)
    fit(Kernel(), data, Training(), tmp_path)
    with pytest.raises(InputError, match="starts from no other"):
        fit(Kernel(), data, Training(), start=tmp_path)
