"""Training of deep conjugate directions: the loss, the state, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml import Status
from sciml.core.algebra.maps import LinearSystem, SparseMatrix
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem
from sciml.core.run.training_run import CHECKPOINT
from sciml.core.run.weights import FILE
from sciml.discretization import discretize
from sciml.solvers import CG, FCG
from sciml.solvers.learned import conjugate_directions
from sciml.solvers.learned.conjugate_directions import (
    ConjugateDirections,
    ConjugateTraining,
    line_searched_loss,
)
from sciml.solvers.learned.weights import read_stored

BOX = Box((0.0, 0.0), (1.0, 1.0))
SMALL = ConjugateTraining(
    channels=4, convolutions=(2, 2, 2), ritz=30, vectors=40, valid=9, epochs=3, rate=1e-3
)


def system(n: int = 10, inside: str = "(x - 0.4)**2 + (y - 0.6)**2 < 0.03") -> LinearSystem:
    problem = Problem(
        domain=BOX,
        equation=Equation(K=1.0, f="1 + x"),
        boundary={side: Condition(dirichlet=0.0) for side in BOX.sides},
        obstacle=Obstacle(inside, Condition(dirichlet=0.0)),
    )
    return discretize(problem, Grid((n, n), "cell"))


def weights(folder: Path) -> torch.Tensor:
    tensors = read_stored(folder / CHECKPOINT, "training run").tensors
    return torch.cat([v.flatten().double() for _, v in sorted(tensors.items())])


@settings(max_examples=15, deadline=None)
@given(length=st.floats(1e-3, 1e3), sign=st.sampled_from([-1.0, 1.0]), seed=st.integers(0, 99))
def test_the_loss_is_the_residual_of_the_best_step(length: float, sign: float, seed: int) -> None:
    A = system(6).A
    generator = torch.Generator().manual_seed(seed)
    q, b = torch.randn(2, 4, *A.shape, generator=generator, dtype=torch.float64)
    loss = line_searched_loss(A, q, b)
    assert torch.allclose(line_searched_loss(A, sign * length * q, b), loss, rtol=1e-9)
    # The step makes the energy of the error least: what is left is orthogonal to q.
    image = A.apply(q)
    t = (q * b).flatten(1).sum(1) / (q * image).flatten(1).sum(1)
    gap = b - t[:, None, None] * image
    assert (gap * q).flatten(1).sum(1).abs().max() < 1e-9
    assert torch.allclose(loss, gap.flatten(1).norm(dim=1).square())
    x = torch.randn(4, *A.shape, generator=generator, dtype=torch.float64)
    assert line_searched_loss(A, x, A.apply(x)).max() < 1e-20


def test_training_lowers_the_loss_and_the_iterations(tmp_path: Path) -> None:
    given = system(16)
    rows: list[Mapping[str, float]] = []
    options = ConjugateTraining(
        channels=8, convolutions=(2, 2, 2), ritz=100, vectors=500, valid=20, epochs=4, rate=2e-3
    )
    path = options.train([given.A], tmp_path, progress=lambda e, n, row: rows.append(row))
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["loss"] < 0.25 * rows[0]["loss"]
    assert rows[-1]["valid_loss"] < 0.1
    learned = FCG(preconditioner=ConjugateDirections(str(path)), rtol=1e-6)
    plain = CG(rtol=1e-6)
    # On the matrix it was trained on, with another hole, and on a larger grid.
    for other in (given, system(16, "(x - 0.6)**2 + (y - 0.3)**2 < 0.02"), system(24)):
        solution = learned.run(learned.init(other))
        assert solution.status is Status.CONVERGED
        reference = plain.run(plain.init(other))
        assert int(solution.stats.iterations) < 0.75 * int(reference.stats.iterations)
        assert torch.allclose(solution.value, reference.value, atol=1e-6, equal_nan=True)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    A = system().A
    SMALL.train([A], tmp_path / "whole")

    class Killed(Exception):
        pass

    loss, calls = conjugate_directions.line_searched_loss, []

    def killing(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 8:  # in the second epoch
            raise Killed
        return loss(*arguments)

    stopped = replace(SMALL, checkpoint=0.0)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(conjugate_directions, "line_searched_loss", killing)
        stopped.train([A], tmp_path / "parts")
    assert (tmp_path / "parts" / FILE).is_file()  # of the first epoch
    stopped.train([A], tmp_path / "parts")
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    history = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "parts")]
    rows = [[line.split(",") for line in text.splitlines()[1:]] for text in history]
    assert [(r[0], r[1], r[4], r[5]) for r in rows[0]] == [
        (r[0], r[1], r[4], r[5]) for r in rows[1]
    ]
    # More epochs of a finished run are the run with more epochs.
    replace(SMALL, epochs=4).train([A], tmp_path / "parts")
    replace(SMALL, epochs=4).train([A], tmp_path / "longer")
    assert torch.equal(weights(tmp_path / "parts"), weights(tmp_path / "longer"))


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    A = system().A
    replace(SMALL, epochs=1).train([A], tmp_path)
    with pytest.raises(InputError, match="batch was 10, now 5"):
        replace(SMALL, batch=5).train([A], tmp_path)
    with pytest.raises(InputError, match="shape was"):
        SMALL.train([system(9).A], tmp_path)


def test_seeds_differ_and_decide(tmp_path: Path) -> None:
    A, once = system().A, replace(SMALL, epochs=1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        replace(once, seed=seed).train([A], tmp_path / name, cache=tmp_path / "ritz")
    assert torch.equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not torch.equal(weights(tmp_path / "a"), weights(tmp_path / "c"))
    assert len(list((tmp_path / "ritz").iterdir())) == 1


def test_several_obstacles_with_the_cells_as_an_input(tmp_path: Path) -> None:
    parts = [system(10, f"(x - {c})**2 + (y - 0.5)**2 < 0.03").A for c in (0.3, 0.5, 0.7)]
    options = replace(SMALL, mask=True, vectors=60, epochs=4, rate=3e-3)
    rows: list[Mapping[str, float]] = []
    path = options.train(parts, tmp_path, progress=lambda e, n, row: rows.append(row))
    assert rows[-1]["loss"] < rows[0]["loss"]
    stored = read_stored(path, "conjugate_directions")
    assert stored.options["mask"] is True
    assert stored.tensors["first.weight"].shape == (4, 1, 3, 3)
    assert stored.provenance["training"]["matrices"] == 3


def test_three_dimensions(tmp_path: Path) -> None:
    box = Box((0.0,) * 3, (1.0,) * 3)
    problem = Problem(
        domain=box,
        equation=Equation(K=1.0, f=1.0),
        boundary={side: Condition(dirichlet=0.0) for side in box.sides},
    )
    given = discretize(problem, Grid((8, 8, 8), "cell"))
    path = replace(SMALL, epochs=1).train([given.A], tmp_path)
    solver = FCG(preconditioner=ConjugateDirections(str(path)), rtol=1e-6)
    assert solver.run(solver.init(given)).status is Status.CONVERGED


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    A = system().A
    assert isinstance(A, Stencil)
    indefinite = Stencil(A.coefficients, A.offsets, symmetric=True)
    cases = {
        "needs a matrix": [],
        "not on bare matrices": [SparseMatrix(A.to_scipy())],
        "real symmetric positive definite": [indefinite],
        "operators of one shape": [A, system(9).A],
    }
    for said, matrices in cases.items():
        with pytest.raises(InputError, match=said):
            SMALL.train(matrices, tmp_path)
    zero = Stencil(torch.zeros(5, 4, 4), cross_offsets(2), symmetric=True, definite=True)
    with pytest.raises(InputError, match="positive diagonal"):
        SMALL.train([zero], tmp_path)


@pytest.mark.parametrize("name", ["ritz", "vectors", "valid", "epochs", "batch", "rate"])
def test_options_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        replace(SMALL, **{name: 0})
    assert caught.value.key == f"preconditioner.{name}"


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(SolveError, match="Try a lower rate"):
        replace(SMALL, rate=1e30).train([system().A], tmp_path)
