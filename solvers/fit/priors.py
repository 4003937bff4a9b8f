"""Priors of unknown functions: what is preferred among those that explain the readings.

Each is a quadratic form m^T R m of the distance m from the start, R sparse and positive definite.
With D_a the differences along an axis over its spacing and V the volume of a node, of a field z

    h1:        R = sum_a D_a^T V D_a + V / (10 L)^2,                    small slopes;
    tv:        the same with V / sqrt((D_a z)^2 + beta^2) in place of V: of the z at hand it has the
               value of the sum of slopes' sizes, and lies above it elsewhere (lagged diffusivity,
               Vogel and Oman 1996), along each axis by itself;
    gaussian:  R = v (K + V / l^2) V^-1 (K + V / l^2), K = sum_a D_a^T V D_a, the precision of a
               field of Matern's covariance (Lindgren, Rue and Lindstroem 2011), v such that its
               variance is one far from the sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from torch import Tensor

from sciml.core.problem.unknown import Network, UnknownField

_WIDE = 10.0  # lengths of the domain over which a constant is not held by slopes
_SMOOTH = 0.1  # over the domain's length: slopes below are as if smooth
_FREE = 1e-8  # what holds an unknown that has no prior
_SHARE = 1 / 3  # of the domain's longest side, that values are alike over


def field_precision(
    stated: UnknownField, shape: Sequence[int], sizes: Sequence[float], z: Tensor
) -> scipy.sparse.csc_matrix:
    """R of a field on a grid of ``shape`` over a box of ``sizes``, at the values z, flat."""
    d, longest = len(shape), max(sizes)
    spacing = [size / (n - 1) for size, n in zip(sizes, shape, strict=True)]
    volume = _volumes(shape, spacing)
    mass, whole = scipy.sparse.diags(volume), math.prod(spacing)
    terms = []
    for axis in range(d):
        D = _differences(shape, spacing, axis)
        weight = np.full(D.shape[0], whole)
        if stated.prior == "tv":
            slope = D @ z.detach().numpy()
            weight /= np.sqrt(slope**2 + (_SMOOTH / longest) ** 2)
        terms.append(D.T @ scipy.sparse.diags(weight) @ D)
    stiffness = sum(terms[1:], terms[0])
    if stated.prior != "gaussian":
        return (stiffness + mass / (_WIDE * longest) ** 2).tocsc()
    order = 2 - d / 2
    inverse = math.sqrt(8 * order) / (stated.length or _SHARE * longest)
    variance = math.gamma(order) / (
        math.gamma(2) * (4 * math.pi) ** (d / 2) * inverse ** (2 * order)
    )
    shifted = stiffness + inverse**2 * mass
    return (variance * shifted @ scipy.sparse.diags(1 / volume) @ shifted).tocsc()


def law_precision(network: Network) -> scipy.sparse.csc_matrix:
    """R of a law: one for each weight but the constant, which is free."""
    count = (len(network.of) + 2) * network.width
    return scipy.sparse.diags([1.0] * count + [_FREE]).tocsc()


def free_precision(sizes: Sequence[float]) -> scipy.sparse.csc_matrix:
    """R of numbers of these sizes, on which there is no prior."""
    return scipy.sparse.diags([_FREE / size**2 for size in sizes]).tocsc()


def _volumes(shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    found = np.ones(())
    for n, h in zip(shape, spacing, strict=True):
        own = np.full(n, h)
        own[0] = own[-1] = h / 2
        found = np.multiply.outer(found, own)
    return found.ravel()


def _differences(
    shape: Sequence[int], spacing: Sequence[float], axis: int
) -> scipy.sparse.csr_matrix:
    found = scipy.sparse.identity(1)
    for k, (n, h) in enumerate(zip(shape, spacing, strict=True)):
        own = scipy.sparse.identity(n)
        if k == axis:
            own = scipy.sparse.diags([-1 / h, 1 / h], [0, 1], shape=(n - 1, n))
        found = scipy.sparse.kron(found, own)
    return found.tocsr()
