"""Lanczos, Ritz vectors and what training vectors are made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sciml.core.algebra.maps import SparseMatrix
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.errors import InputError
from sciml.solvers.learned import lanczos as lanczos_module
from sciml.solvers.learned.lanczos import (
    RitzPairs,
    cached_ritz_pairs,
    lanczos,
    ritz_pairs,
    training_vectors,
)

DOUBLE = torch.float64


def poisson(shape: tuple[int, ...], weights: torch.Tensor | None = None) -> Stencil:
    """-div(w grad u) with Dirichlet ends; faces carry the harmonic mean of w (*batch, *shape)."""
    d = len(shape)
    w = torch.ones(shape, dtype=DOUBLE) if weights is None else weights
    arms, centre = [], torch.zeros_like(w)
    for axis in range(-d, 0):
        for way in (1, -1):
            beside = w.roll(way, axis)
            face = 2 * w * beside / (w + beside).clamp(min=1e-300)
            end = torch.arange(shape[axis]) == (0 if way == 1 else shape[axis] - 1)
            end = end.reshape([-1 if k == axis else 1 for k in range(-d, 0)])
            centre = centre + torch.where(end, w, face)
            arms.append(torch.where(end, 0.0, -face))
    centre = torch.where(centre == 0, 1.0, centre)
    planes = torch.stack([centre, *arms], -d - 1)
    return Stencil(planes, cross_offsets(d), symmetric=True, definite=True)


def varied(shape: tuple[int, ...], *batch: int) -> Stencil:
    """A matrix without multiple eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    return poisson(shape, 0.5 + torch.rand(*batch, *shape, generator=generator, dtype=DOUBLE))


def dense(A: Stencil) -> np.ndarray:
    return A.to_scipy().toarray()


def test_the_lanczos_relation_holds_and_the_basis_is_orthonormal() -> None:
    A = varied((9, 8))
    start = torch.randn(A.shape, dtype=DOUBLE)
    V, alpha, beta = lanczos(A, start, 40)
    T = torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1)
    gap = V @ torch.from_numpy(dense(A)) - T @ V
    assert gap[:-1].abs().max() < 1e-13
    assert (V @ V.T - torch.eye(40, dtype=DOUBLE)).abs().max() < 1e-14
    # What is left over belongs to the last vector alone, orthogonal to all.
    assert (gap[-1] @ V.T).abs().max() < 1e-13


def test_after_a_breakdown_there_are_zeros() -> None:
    A = SparseMatrix(np.diag([1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0]))
    V, _, beta = lanczos(A, torch.ones(7, dtype=DOUBLE), 6)
    assert (V.norm(dim=1) > 0).tolist() == [True] * 3 + [False] * 3
    assert (beta > 0).tolist() == [True] * 2 + [False] * 3
    assert lanczos(A, torch.zeros(7, dtype=DOUBLE), 3)[0].norm() == 0
    (pairs,) = ritz_pairs(A, 7, 0, DOUBLE)
    assert torch.allclose(pairs.values, torch.tensor([1.0, 2.0, 4.0], dtype=DOUBLE))


def test_multiple_eigenvalues_do_no_harm() -> None:
    A = poisson((6, 6))  # the eigenvalues for (i, j) and (j, i) are equal
    (pairs,) = ritz_pairs(A, 36, 0, DOUBLE)
    rows = pairs.vectors.flatten(1)
    assert (rows @ rows.T - torch.eye(len(rows), dtype=DOUBLE)).abs().max() < 1e-12
    images = torch.stack([A.apply(v) for v in pairs.vectors])
    assert (images - pairs.values[:, None, None] * pairs.vectors).abs().max() < 1e-10


def test_all_steps_give_all_eigenpairs() -> None:
    A = varied((7, 6))
    (pairs,) = ritz_pairs(A, 100, 0, DOUBLE)
    wanted = np.linalg.eigvalsh(dense(A))
    assert np.allclose(pairs.values, wanted, rtol=1e-12)
    images = torch.stack([A.apply(v) for v in pairs.vectors])
    assert (images - pairs.values[:, None, None] * pairs.vectors).abs().max() < 1e-12


def test_the_ends_of_the_spectrum_come_first() -> None:
    A = varied((16, 16))
    (pairs,) = ritz_pairs(A, 120, 0, DOUBLE)
    wanted = np.linalg.eigvalsh(dense(A))
    assert np.allclose(pairs.values[:3], wanted[:3], rtol=1e-6)
    assert np.allclose(pairs.values[-3:], wanted[-3:], rtol=1e-6)


def test_a_batch_is_a_loop() -> None:
    A = varied((6, 7), 2, 3)
    together = ritz_pairs(A, 20, 5, DOUBLE)
    start = torch.randn(2, 3, *A.shape, dtype=DOUBLE)
    V, alpha, beta = lanczos(A, start, 20)
    assert len(together) == 6
    for index in np.ndindex(2, 3):
        one = Stencil(A.coefficients[index], A.offsets, symmetric=True, definite=True)
        for whole, own in zip((V, alpha, beta), lanczos(one, start[index], 20), strict=True):
            assert (whole[index] - own).abs().max() < 1e-9


def test_what_the_matrix_makes_zero_is_left_out() -> None:
    w = torch.ones(8, 8, dtype=DOUBLE)
    w[2:5, 3:6] = 0
    A = poisson((8, 8), w)
    empty = Stencil(A.coefficients * (w > 0), A.offsets, symmetric=True, definite=True)
    (pairs,) = ritz_pairs(empty, 64, 0, DOUBLE)
    assert len(pairs.values) > 20
    assert pairs.vectors[:, 2:5, 3:6].abs().max() == 0
    free = np.diag([1.0, *[2.0] * 8, 1.0]) - np.diag([1.0] * 9, 1) - np.diag([1.0] * 9, -1)
    (pairs,) = ritz_pairs(SparseMatrix(free), 10, 0, DOUBLE)
    assert len(pairs.values) == 9
    assert pairs.vectors.sum(1).abs().max() < 1e-10


def test_steps_must_be_positive() -> None:
    with pytest.raises(InputError, match="at least 1 step"):
        ritz_pairs(varied((4, 4)), 0, 0, DOUBLE)


def test_training_vectors_have_norm_one_and_belong_to_their_number() -> None:
    (pairs,) = ritz_pairs(varied((8, 8)), 30, 0, torch.float32)
    b = training_vectors(pairs, 7, range(12))
    assert b.dtype == torch.float32
    assert torch.allclose(b.flatten(1).norm(dim=1), torch.ones(12), atol=1e-5)
    again = training_vectors(pairs, 7, [11, 3])
    assert torch.allclose(again, b[[11, 3]], atol=1e-6)
    assert not torch.allclose(training_vectors(pairs, 8, [3]), b[[3]], atol=1e-2)


def test_low_frequencies_are_emphasised_ninefold() -> None:
    eye = torch.eye(1000, dtype=DOUBLE)
    b = training_vectors(RitzPairs(torch.arange(1.0, 1001.0), eye), 0, range(400))
    energy = b.square().mean(0)
    low, high = energy[:550], energy[550:]
    # 220,000 and 180,000 draws; that a vector's norm is 1 shifts the ratio by 2 in 550.
    assert abs(low.mean() / high.mean() / 81 - 1) < 0.02
    assert low.min() > 10 * high.max()


def test_no_ritz_vector_no_training() -> None:
    nothing = RitzPairs(torch.zeros(0), torch.zeros(0, 4, 4))
    with pytest.raises(InputError, match="the matrix is zero"):
        training_vectors(nothing, 0, [0])


def test_the_cache_is_used_and_made_anew_where_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    A = varied((6, 6), 2)
    first = cached_ritz_pairs(A, 8, 0, DOUBLE, tmp_path)
    (file,) = tmp_path.iterdir()
    made: list[int] = []

    def counted(*arguments: object) -> list[RitzPairs]:
        made.append(1)
        return ritz_pairs(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(lanczos_module, "ritz_pairs", counted)

    def same(pairs: list[RitzPairs]) -> bool:
        return all(
            torch.equal(p.values, q.values) and torch.equal(p.vectors, q.vectors)
            for p, q in zip(first, pairs, strict=True)
        )

    assert same(cached_ritz_pairs(A, 8, 0, DOUBLE, tmp_path))
    assert not made
    file.write_bytes(file.read_bytes()[:-9])
    assert same(cached_ritz_pairs(A, 8, 0, DOUBLE, tmp_path))
    assert len(made) == 1
    cached_ritz_pairs(A, 9, 0, DOUBLE, tmp_path)
    cached_ritz_pairs(varied((6, 6)), 8, 0, DOUBLE, tmp_path)
    assert len(made) == 3
    assert len(list(tmp_path.iterdir())) == 3
