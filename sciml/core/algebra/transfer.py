"""Transfers between a grid and its coarse grid, with operator-dependent weights.

Along a coarsened axis the coarse point C sits at the fine index 2 C + 1, along the others at C; any
fine size is admitted. The prolongation is stored by coarse point: ``P_d[C]`` is the weight of C in
the fine point f = 2 C + 1 + d, d in {-1, 0, 1}. For a fine point that is no coarse point along the
axes S (Dendy 1982; de Zeeuw 1990, in the form that serves every dimension):

    P_d[C] = -(1 / abar_0(f)) sum_k abar_k(f) P_{d+k}[C],   k_i in {0, -d_i} for i in S, k != 0,

with abar the stencil summed over the axes not in S. The restriction is the adjoint, and the coarse
operator the Galerkin product P^T A P.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch

Offset = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Transfer:
    """A prolongation: ``weights`` (*batch, len(offsets), *coarse shape), see the module.

    ``factors``: 2 along coarsened axes, 1 along the others. ``periodic``: per axis.
    """

    weights: torch.Tensor
    factors: tuple[int, ...]
    periodic: tuple[bool, ...]
    fine_shape: tuple[int, ...]

    @property
    def offsets(self) -> tuple[Offset, ...]:
        """The offsets d, in row-major order."""
        return transfer_offsets(self.factors)

    @property
    def shape(self) -> tuple[int, ...]:
        """The coarse grid's shape."""
        return tuple(self.weights.shape[-len(self.factors) :])


def transfer_offsets(factors: tuple[int, ...]) -> tuple[Offset, ...]:
    """The fine neighbours d of a coarse point that it contributes to."""
    return tuple(product(*((-1, 0, 1) if f == 2 else (0,) for f in factors)))


def coarse_shape(shape: tuple[int, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    """Points at odd indices of the coarsened axes, all points of the others."""
    return tuple(n // f for n, f in zip(shape, factors, strict=True))


@lru_cache
def interpolation_terms(
    offsets: tuple[Offset, ...], factors: tuple[int, ...]
) -> tuple[tuple[int, tuple[tuple[int, int], ...]], ...]:
    """Per weight, in order of computation: (plane of P_d, ((stencil plane, known P plane), ...)).

    A known plane of -1 marks a term of the denominator abar_0.
    """
    planes = {d: i for i, d in enumerate(transfer_offsets(factors))}
    entries = []
    for d in sorted(planes, key=lambda d: sum(map(abs, d))):
        if not any(d):
            continue
        terms = []
        for k, offset in enumerate(offsets):
            steps = [o if s else 0 for o, s in zip(offset, d, strict=True)]
            if not any(steps):
                terms.append((k, -1))
            elif all(o in (0, -s) for o, s in zip(steps, d, strict=True)):
                known = tuple(s + o for s, o in zip(d, steps, strict=True))
                terms.append((k, planes[known]))
        entries.append((planes[d], tuple(terms)))
    return tuple(entries)


@lru_cache
def galerkin_terms(
    offsets: tuple[Offset, ...], factors: tuple[int, ...], coarse_offsets: tuple[Offset, ...]
) -> tuple[tuple[int, int, int, int, Offset, Offset], ...]:
    """Terms (plane of A_c, of A, left P, right P, d, e) of A_c,e = sum P_d a_k P_{d+k-2e}."""
    planes = {d: i for i, d in enumerate(transfer_offsets(factors))}
    terms = []
    for out, e in enumerate(coarse_offsets):
        for left, d in enumerate(planes):
            for k, offset in enumerate(offsets):
                right = tuple(
                    x + o - f * s for x, o, s, f in zip(d, offset, e, factors, strict=True)
                )
                if right in planes:
                    terms.append((out, k, left, planes[right], d, e))
    return tuple(terms)


def padded(offset: Offset) -> Offset:
    """An offset or shape part with leading zeros up to three axes."""
    return (0,) * (3 - len(offset)) + tuple(offset)


@lru_cache
def interpolation_table(
    offsets: tuple[Offset, ...], factors: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """``interpolation_terms`` as integer arrays for the compiled loops: rows and their starts."""
    directions = transfer_offsets(factors)
    rows, starts = [], [0]
    for plane, terms in interpolation_terms(offsets, factors):
        rows += [(plane, k, known, *padded(directions[plane])) for k, known in terms]
        starts.append(len(rows))
    return np.array(rows, dtype=np.int64).reshape(-1, 6), np.array(starts, dtype=np.int64)


@lru_cache
def galerkin_table(
    offsets: tuple[Offset, ...], factors: tuple[int, ...], coarse_offsets: tuple[Offset, ...]
) -> np.ndarray:
    """``galerkin_terms`` as an integer array for the compiled loops, ordered by d."""
    terms = sorted(galerkin_terms(offsets, factors, coarse_offsets), key=lambda term: term[4])
    rows = [(out, k, left, right, *padded(d), *padded(e)) for out, k, left, right, d, e in terms]
    return np.array(rows, dtype=np.int64)


@lru_cache
def mirror_table(offsets: tuple[Offset, ...]) -> np.ndarray:
    """Per offset before the centre: (its plane, the opposite's plane, the offset's components)."""
    half = offsets[: len(offsets) // 2]
    rows = [
        (k, offsets.index(tuple(-s for s in offset)), *padded(offset))
        for k, offset in enumerate(half)
    ]
    return np.array(rows, dtype=np.int64)
