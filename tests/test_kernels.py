"""The compiled kernels equal their torch reference, and the transfers satisfy their identities."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from sciml.core.algebra.kernels import compiled, reference
from sciml.core.algebra.stencil import Stencil, box_offsets, cross_offsets

SHAPES = [(9, 8, 7), (12, 10, 11), (8, 6, 10), (3, 4, 5)]
# A batch is a loop around all others: every second case has one.
CASES = [
    (shape[:d], ring, offsets, ((), (2,))[(k + i + sum(ring)) % 2])
    for d in (1, 2, 3)
    for i, shape in enumerate(SHAPES)
    for ring in product([False, True], repeat=d)
    for k, offsets in enumerate((cross_offsets, box_offsets))
]


def random_stencil(shape, ring, offsets, batch, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    d = len(shape)
    names = offsets(d)
    size = (*batch, len(names), *shape)
    values = -torch.rand(size, generator=generator, dtype=torch.float64)
    values.select(-d - 1, names.index((0,) * d)).fill_(len(names) + 1.0)
    return Stencil(values.to(dtype), names, periodic=ring)


def even_rings(shape, ring):
    return tuple(p and n % 2 == 0 for p, n in zip(ring, shape, strict=True))


def fields(A, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.rand((*A.batch, *A.shape), generator=generator, dtype=A.dtype) for _ in range(count)
    ]


@pytest.mark.parametrize(("shape", "ring", "offsets", "batch"), CASES)
def test_apply_and_sweep_equal_the_reference(shape, ring, offsets, batch):
    A = random_stencil(shape, ring, offsets, batch)
    u, b = fields(A, 2)
    torch.testing.assert_close(compiled.apply(A, u), reference.apply(A, u))
    mine, truth = torch.empty_like(u), torch.empty_like(u)
    torch.testing.assert_close(compiled.apply_dot(A, u, mine), reference.apply_dot(A, u, truth))
    torch.testing.assert_close(mine, truth)
    for reverse, from_zero, count in product([False, True], [False, True], [1, 3]):
        x, y = u.clone(), u.clone()
        compiled.sweep(A, x, b, reverse=reverse, from_zero=from_zero, count=count)
        reference.sweep(A, y, b, reverse=reverse, from_zero=from_zero, count=count)
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("offsets", [cross_offsets, box_offsets])
@pytest.mark.parametrize("ring", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("shape", [(9, 14), (8, 7)])
def test_half_of_a_symmetric_stencil_stands_for_the_whole(shape, ring, offsets):
    A = random_stencil(shape, ring, offsets, (2,))
    planes = A.coefficients + A.transpose().coefficients
    S = Stencil(planes, A.offsets, periodic=ring, symmetric=True)
    broken = Stencil(planes.clone(), A.offsets, periodic=ring, symmetric=True)
    for offset in S.offsets:
        if offset < (0, 0):
            broken.entry(offset).fill_(torch.nan)
    u, b = fields(S, 2)
    P = reference.interpolate(
        S, tuple(1 if p and n % 2 else 2 for p, n in zip(ring, shape, strict=True))
    )
    for reverse in (False, True):
        x, y = u.clone(), u.clone()
        compiled.sweep(broken, x, b, reverse=reverse, from_zero=False, count=2)
        reference.sweep(S, y, b, reverse=reverse, from_zero=False, count=2)
        torch.testing.assert_close(x, y)
    right, other = torch.empty(2, 2, *P.shape, dtype=torch.float64)
    compiled.restrict_residual(broken, P, u, b, right)
    reference.restrict_residual(S, P, u, b, other)
    torch.testing.assert_close(right, other)
    assert compiled.apply(broken, u).isnan().any()  # the residual that verifies reads every entry


@pytest.mark.parametrize(("shape", "ring", "offsets", "batch"), CASES)
def test_transfers_equal_the_reference_and_the_galerkin_identity(shape, ring, offsets, batch):
    A = random_stencil(shape, even_rings(shape, ring), offsets, batch)
    u, b = fields(A, 2)
    for factors in product((1, 2), repeat=len(shape)):
        if max(factors) == 1:
            continue
        P, Q = reference.interpolate(A, factors), compiled.interpolate(A, factors)
        torch.testing.assert_close(P.weights, Q.weights)
        coarse, truth = reference.galerkin(A, P), compiled.galerkin(A, P)
        torch.testing.assert_close(coarse.coefficients, truth.coefficients)
        right, other = torch.empty(2, *batch, *P.shape, dtype=torch.float64)
        compiled.restrict_residual(A, P, u, b, right)
        reference.restrict_residual(A, P, u, b, other)
        torch.testing.assert_close(right, other)
        x, y = u.clone(), u.clone()
        compiled.prolong_add(P, x, right)
        reference.prolong_add(P, y, right)
        torch.testing.assert_close(x, y)
        # P^T A P v, applied factor by factor, is what the Galerkin stencil does at once.
        lifted = torch.zeros_like(u)
        reference.prolong_add(P, lifted, right)
        reference.restrict_residual(A, P, torch.zeros_like(u), A.apply(lifted), other)
        torch.testing.assert_close(coarse.apply(right), other)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_vector_kernels_equal_the_reference(batch):
    A = random_stencil((7, 9), (False, False), cross_offsets, batch)
    x, r, p, q = fields(A, 4)
    alpha = torch.rand(batch, dtype=torch.float64)
    x2, r2 = x.clone(), r.clone()
    first, second = compiled.step(x, r, p, q, alpha), reference.step(x2, r2, p, q, alpha)
    torch.testing.assert_close((x, r, first), (x2, r2, second))
    low, other = p.float(), p.float()
    compiled.scale(q, alpha, low)
    reference.scale(q, alpha, other)
    torch.testing.assert_close(low, other)
    torch.testing.assert_close(compiled.inner(q, low, 2), reference.inner(q, low, 2))
    factor, beta = torch.rand(2, *batch, dtype=torch.float64)
    turned = p.clone()
    compiled.turn(turned, low, factor, beta)
    reference.turn(p, low, factor, beta)
    torch.testing.assert_close(turned, p)


def test_reference_kernels_are_differentiable():
    A = random_stencil((5, 6), (False, True), box_offsets, ())
    coefficients = A.coefficients.clone().requires_grad_()

    def value(c):
        stencil = Stencil(c, A.offsets, periodic=A.periodic)
        P = reference.interpolate(stencil, (2, 2))
        return reference.galerkin(stencil, P).coefficients

    assert torch.autograd.gradcheck(value, coefficients, fast_mode=True)


# Of both precisions the source is one; cycles have single.
@pytest.mark.parametrize(
    ("shape", "offsets", "dtype"),
    [
        ((15, 14), cross_offsets, torch.float64),
        ((15, 14), cross_offsets, torch.float32),
        ((6, 7), box_offsets, torch.float32),
        ((5, 6, 7), box_offsets, torch.float32),
    ],
)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_constant_stencils_stay_one_row(shape, offsets, batch, dtype):
    d = len(shape)
    full = random_stencil(shape, (False,) * d, offsets, batch, dtype=dtype)
    row = full.coefficients[(..., *(slice(3, 4),) * d)]
    ring = (False,) * (d - 1) + (shape[-1] % 2 == 0,)
    planes = row.expand(full.coefficients.shape)
    constant = Stencil(planes, full.offsets, periodic=ring)
    dense = Stencil(planes.contiguous(), full.offsets, periodic=ring)
    assert compiled.pack(constant).coefficients.shape[-d:] == (1,) * d
    u, b = fields(dense, 2)
    torch.testing.assert_close(compiled.apply(constant, u), reference.apply(dense, u))
    P = compiled.interpolate(dense, (2,) * d)
    for reverse, from_zero in product([False, True], repeat=2):
        x, y = u.clone(), u.clone()
        compiled.sweep(constant, x, b, reverse=reverse, from_zero=from_zero)
        reference.sweep(dense, y, b, reverse=reverse, from_zero=from_zero)
        torch.testing.assert_close(x, y)
    right, other = torch.empty(2, *batch, *P.shape, dtype=dtype)
    compiled.restrict_residual(constant, P, u, b, right)
    reference.restrict_residual(dense, P, u, b, other)
    torch.testing.assert_close(right, other)


@pytest.mark.parametrize("offsets", [cross_offsets, box_offsets])
@pytest.mark.parametrize("shape", list(product(range(1, 6), repeat=2)))
def test_tiny_grids_equal_the_reference(shape, offsets):
    for ring in product(*([False, True] if n > 1 else [False] for n in shape)):
        A = random_stencil(shape, ring, offsets, ())
        u, b = fields(A, 2)
        torch.testing.assert_close(compiled.apply(A, u), reference.apply(A, u))
        for reverse, from_zero in product([False, True], repeat=2):
            # What a sweep from zero finds in x must not matter.
            x, y = u.clone().fill_(torch.nan) if from_zero else u.clone(), u.clone()
            compiled.sweep(A, x, b, reverse=reverse, from_zero=from_zero)
            reference.sweep(A, y, b, reverse=reverse, from_zero=from_zero)
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize("sweeps", [1, 2, 3])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 15])
def test_pipelined_order_respects_the_colours(n, ring, reverse, sweeps):
    order, starts, fresh = compiled._order(n, ring, reverse, True, sweeps)
    colours, _, _ = compiled._order(n, ring, reverse, False, sweeps)
    assert sorted(order) == sorted(list(range(n)) * sweeps)
    assert starts.tolist() == [0, n * sweeps]
    assert sorted(order[fresh]) == list(range(n))
    for i in range(n - 1 + ring):
        pair = (i, (i + 1) % n)
        assert [k for k in order if k in pair] == [k for k in colours if k in pair]
        assert [k for k in order[fresh] if k in pair] == list(
            dict.fromkeys(k for k in order if k in pair)
        )


@pytest.mark.parametrize(
    ("shape", "ring"), [((9, 8), (False, True)), ((8, 6, 10), (True, False, True))]
)
def test_symmetric_galerkin_halves_the_work_not_the_answer(shape, ring):
    A = random_stencil(shape, ring, box_offsets, (2,))
    half = (A.coefficients + A.transpose().coefficients) / 2
    plain = Stencil(half, A.offsets, periodic=ring)
    tagged = Stencil(half, A.offsets, periodic=ring, symmetric=True)
    P = compiled.interpolate(plain, (2,) * len(shape))
    coarse, mirrored = compiled.galerkin(plain, P), compiled.galerkin(tagged, P)
    torch.testing.assert_close(coarse.coefficients, mirrored.coefficients)
