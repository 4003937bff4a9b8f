"""What is measured of an operator, held against numbers known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from evaluated import SHAPES, family, operator, solving, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import dataset
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.datasets.loader import OperatorData, Times
from sciml.discretization import discretize
from sciml.operators import Signature
from sciml.solvers.linear.iteration import relative_residual
from sciml.training import evaluate, resolution_transfer
from sciml.training.data import at_trained_shape, first_samples, open_split, resolutions
from sciml.training.evaluation import on_shape, roll_out, spread
from sciml.training.residual import problems_of

POINTWISE = {"square": torch.square, "affine": lambda z: 3 * z - 1, "sine": torch.sin}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("smooth"))


def test_errors_are_the_norms_of_numpy(folder: Path) -> None:
    f = operator(lambda z: 0.05 * z)
    data = at_trained_shape(f.signature, folder, "test")
    found = evaluate(f, data, batch=3)
    for i in range(len(data)):
        x, y = (data[i][name].double().numpy()[0] for name in ("x", "y"))
        gap = 0.05 * x - y
        parts = [[u, *np.gradient(u, 1 / 16, edge_order=2)] for u in (gap, y)]
        l2, h1 = ([np.sqrt(np.sum(np.square(p[:n]))) for p in parts] for n in (1, 3))
        assert float(found.relative_l2[i]) == pytest.approx(l2[0] / l2[1], rel=1e-5)
        assert float(found.relative_h1[i]) == pytest.approx(h1[0] / h1[1], rel=1e-5)
    assert found.parameters == 3 and found.shape == (17, 17) and found.batch == 3


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_batches_change_nothing(folder: Path, batch: int) -> None:
    f = operator(lambda z: 0.05 * z)
    data = at_trained_shape(f.signature, folder, "test")
    whole, parts = evaluate(f, data, batch=4), evaluate(f, data, batch=batch)
    torch.testing.assert_close(parts.relative_l2, whole.relative_l2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5])
def test_a_multiple_of_the_truth_is_off_by_it_in_both_norms(tmp_path: Path, factor: float) -> None:
    dataset(tmp_path)
    f = operator(
        lambda z: factor * z, (9, 5), ("u",), ("u",), Box((0.0, 0.0), (1.0, 2.0)), "neumann"
    )
    found = evaluate(f, open_split(f.signature, tmp_path, "train"))
    expected = torch.full((5,), abs(factor - 1), dtype=torch.float64)
    torch.testing.assert_close(found.relative_l2, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.relative_h1, expected, rtol=1e-6, atol=1e-7)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_spread_is_that_of_numpy(values: list[float]) -> None:
    found = spread(torch.tensor(values, dtype=torch.float64))
    assert found["mean"] == pytest.approx(np.mean(values))
    for name, share in (("median", 50), ("p90", 90), ("p99", 99), ("worst", 100)):
        assert found[name] == pytest.approx(np.percentile(values, share))


def test_ranks_go_from_best_to_worst(folder: Path) -> None:
    f = operator(lambda z: 0.05 * z)
    found = evaluate(f, at_trained_shape(f.signature, folder, "test"))
    ordered = found.relative_l2[list(found.ranked)]
    assert bool((ordered.diff() >= 0).all()) and sorted(found.ranked) == [0, 1, 2, 3]


def test_mode_is_left_as_it_was(folder: Path) -> None:
    f = operator(lambda z: z)
    for training in (True, False):
        f.train(training)
        evaluate(f, at_trained_shape(f.signature, folder, "test"))
        assert f.training is training


# Frames that follow from frames


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_roll_out_of_a_factor_is_its_powers(steps: int) -> None:
    f = operator(lambda z: -2 * z, (5,), ("u",), ("u",))
    x = torch.randn(3, 1, 5)
    expected = torch.cat([(-2.0) ** k * x for k in range(1, steps + 1)], 1)
    torch.testing.assert_close(roll_out(f, x, steps), expected)


def test_roll_out_feeds_back_all_the_frames_that_it_takes() -> None:
    f = operator(lambda z: z.sum(1, keepdim=True), (4,), ("u", "u"), ("u",))
    fibonacci = roll_out(f, torch.ones(1, 2, 4), 7)[0, :, 0]
    assert fibonacci.tolist() == [2, 3, 5, 8, 13, 21, 34]
    pairs = operator(lambda z: z.flip(1) + 1, (4,), ("u", "u"), ("u", "u"))
    assert roll_out(pairs, torch.tensor([[[0.0] * 4, [5.0] * 4]]), 4)[0, :, 0].tolist() == [
        6, 1, 2, 7,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "outputs", "channels"), [(("a",), ("u",), 2), (("u",), ("u", "u"), 3)]
)
def test_what_cannot_be_rolled_out_is_refused(
    inputs: tuple[str, ...], outputs: tuple[str, ...], channels: int
) -> None:
    f = operator(lambda z: z, (4,), inputs, outputs)
    with pytest.raises(InputError, match="rolled out"):
        roll_out(f, torch.ones(1, 1, 4), channels)


def test_a_trajectory_is_compared_frame_by_frame(tmp_path: Path) -> None:
    dataset(tmp_path, frames=5)
    f = operator(lambda z: 0 * z, (9, 5), ("u",), ("u",), Box((0.0, 0.0), (1.0, 2.0)))
    times = Times((1,), (2, 3, 4))
    data = open_split(f.signature, tmp_path, "test", times)
    assert data[0]["y"].shape == (3, 9, 5)
    assert evaluate(f, data).relative_l2.tolist() == [1.0, 1.0]


# Resolutions


def test_stored_resolutions_are_found(folder: Path) -> None:
    assert list(resolutions(folder, "test")) == sorted(SHAPES)
    for shape, place in resolutions(folder, "test").items():
        assert OperatorData(place, "test").shape == shape


@pytest.mark.parametrize(("shape", "step"), [((17, 17), 1), ((5, 5), 2), ((3, 3), 4)])
def test_the_trained_resolution_is_stored_or_every_so_many_points(
    folder: Path, shape: tuple[int, ...], step: int
) -> None:
    data = at_trained_shape(operator(torch.sin, shape).signature, folder, "test")
    assert data.shape == shape
    fine = OperatorData(folder, "test")[2]["y"]
    stride = 32 // (shape[0] - 1)
    torch.testing.assert_close(data[2]["y"], fine[:, ::stride, ::stride], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shape": (12, 12)}, r"\[12, 12\].*\[9, 9\], \[17, 17\], \[33, 33\]"),
        ({"inputs": ("b",)}, "has no 'b'"),
        ({"inputs": ("a", "a")}, "gives the inputs a; the operator takes a, a"),
        ({"box": Box((0.0, 0.0), (1.0, 2.0))}, "spans 0 to 1 and the operator was trained on 0 to"),
        ({"shape": (17,)}, "."),
    ],
)
def test_data_that_does_not_fit_is_refused(folder: Path, change: dict, told: str) -> None:
    f = operator(torch.sin, **change)
    with pytest.raises(InputError, match=told):
        at_trained_shape(f.signature, folder, "test")


def test_resampling_is_of_second_order() -> None:
    signature = operator(torch.sin, (9,)).signature
    fine = torch.linspace(0, 1, 1601, dtype=torch.float64)
    gaps = []
    for n in (17, 33, 65):
        coarse = torch.sin(3 * torch.linspace(0, 1, n, dtype=torch.float64))
        gaps.append(float((on_shape(signature, coarse, (1601,)) - torch.sin(3 * fine)).abs().max()))
    orders = np.log2(np.divide(gaps[:-1], gaps[1:]))
    assert np.abs(orders - 2).max() < 0.1


def test_resampling_to_a_grid_within_takes_its_points() -> None:
    signature = operator(torch.sin, (9, 9)).signature
    values = torch.randn(2, 1, 33, 33, dtype=torch.float64)
    expected = values[..., ::4, ::4]
    torch.testing.assert_close(on_shape(signature, values, (9, 9)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_resampling_on_a_ring_commutes_with_shifts(centring: Literal["node", "cell"]) -> None:
    ring = Grid((9,), centring, Box((0.0,), (1.0,)))
    signature = Signature(("a",), ("u",), ring, ("periodic",))
    values = torch.randn(8, dtype=torch.float64)
    ends = int(centring == "node")

    def finer(opened: Tensor) -> Tensor:
        found = on_shape(signature, signature.close(opened), (16 + ends,))
        assert not ends or found[0] == found[-1]
        return signature.open(found)

    torch.testing.assert_close(finer(values.roll(1)), finer(values).roll(2), rtol=0, atol=1e-12)


def test_drift_on_a_ring_counts_every_point_once(tmp_path: Path) -> None:
    """f(a) = a plus its mean, which is another one on other points."""
    dataset(tmp_path, grid=(9,))
    f = operator(lambda z: z + z.mean(-1, keepdim=True), (5,), side="periodic")
    (row,) = resolution_transfer(f, tmp_path).rows
    for i, sample in enumerate(OperatorData(tmp_path, "test")[k]["x"][0] for k in range(2)):
        fine = sample[:-1].double().numpy()
        coarse = fine[::2]
        gap = 2 * abs(fine.mean() - coarse.mean())  # |1| = 2 on four points
        expected = gap / np.linalg.norm(coarse + coarse.mean())
        assert float(row.drift[i]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("function", POINTWISE.values(), ids=POINTWISE)
def test_a_pointwise_operator_does_not_drift(
    folder: Path, function: Callable[[Tensor], Tensor]
) -> None:
    found = resolution_transfer(operator(function), folder)
    assert [row.shape for row in found.rows] == sorted(SHAPES) and found.trained == (17, 17)
    for row in found.rows:
        assert float(row.drift.max()) < 1e-6 and len(row.drift) == 4
        data = open_split(
            operator(function).signature, resolutions(folder, "test")[row.shape], "test"
        )
        whole = evaluate(operator(function, row.shape), data)
        torch.testing.assert_close(row.error, whole.relative_l2)


def test_a_kernel_in_pixels_drifts() -> None:
    """f(u)_i = u_{i+1} - u_i is h u': it halves where the grid is refined."""
    f = operator(lambda z: torch.diff(z, dim=2, append=z[:, :, -1:]), (17,))
    a = torch.linspace(0, 1, 33)[None, None]
    here, there = f(a)[..., :-1], f(a[..., ::2])[..., :-1]
    torch.testing.assert_close(2 * here[..., ::2], there)


def test_errors_of_a_solver_as_an_operator_are_of_second_order(folder: Path) -> None:
    found = resolution_transfer(operator(solving, (33, 33)), folder, samples=3)
    errors = torch.stack([row.error for row in found.rows])
    # The truth is the solution on 65 points, whose own error is a known share of these.
    factor = (16**-2 - 64**-2) / (32**-2 - 64**-2)
    assert float((errors[1] / errors[2] / factor).log2().abs().max()) < 0.1
    own = found.rows[-1]
    assert float(own.drift.max()) == 0 and torch.equal(own.error, own.interpolated)


def test_resolutions_asked_for_are_kept_and_others_refused(folder: Path) -> None:
    f = operator(torch.sin)
    rows = resolution_transfer(f, folder, [(33, 33), (9, 9)], samples=2).rows
    assert [row.shape for row in rows] == [(9, 9), (33, 33)] and len(rows[0].error) == 2
    with pytest.raises(InputError, match=r"not stored at \[10, 10\]"):
        resolution_transfer(f, folder, [(10, 10)])


def test_a_grid_that_the_network_refuses_is_reported(folder: Path) -> None:
    def even(z: Tensor) -> Tensor:
        if z.shape[-1] > 20:
            raise InputError("this network takes at most 20 points")
        return z

    rows = resolution_transfer(operator(even), folder).rows
    assert [bool(row.refused) for row in rows] == [False, False, True]
    assert "at most 20 points" in rows[-1].to_json()["refused"]


# Problems from inputs


def test_inputs_state_the_problem_that_was_solved(folder: Path) -> None:
    f = operator(torch.sin, (33, 33))
    x, y = first_samples(at_trained_shape(f.signature, folder, "test"), 3)
    on = f.signature.grid
    truth = solving(x)
    system = discretize(problems_of(family(), f.signature)(x), on)
    solved = relative_residual(system.A, system.restrict(truth[:, 0].double()), system.b)
    assert float(solved.max()) < 1e-3 < 0.1 < float((truth - y).norm() / y.norm()) * 1e4


@pytest.mark.parametrize(
    ("inputs", "outputs", "told"),
    [
        (("b",), ("u",), "lack a"),
        (("a", "b"), ("u",), "'b' has no place"),
        (("a",), ("v",), "u alone"),
    ],
)
def test_inputs_that_state_no_problem_are_refused(
    inputs: tuple[str, ...], outputs: tuple[str, ...], told: str
) -> None:
    signature = operator(torch.sin, inputs=inputs, outputs=outputs).signature
    with pytest.raises(InputError, match=told):
        problems_of(family(), signature)
