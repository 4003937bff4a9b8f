"""Ritz vectors of a symmetric matrix, and training vectors made of them.

Lanczos: from v_1 = A x / ||A x||, x ~ N(0, 1),

    beta_j v_{j+1} = A v_j - alpha_j v_j - beta_{j-1} v_{j-1},
    A V_m = V_m T_m + beta_m v_{m+1} e_m^T,

each new vector made orthogonal to all before it, twice (twice is enough: Giraud, Langou,
Rozloznik and van den Eshof 2005). With T_m = Y diag(theta) Y^T the Ritz vectors are V_m Y. Those of
Ritz value zero are left out: the kernel of A, and what stands in for vectors after a breakdown.

A training vector is b = sum_i c_i y_i / ||.||, c_i ~ N(0, 1), times 9 for the lowest 55 % (Kaneda
et al. 2023: m/2 + 500 of m = 10,000), since what is left of a residual is what is slow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.run.weights import write_weights
from sciml.solvers.learned.weights import read_stored
from sciml.solvers.linear.iteration import norm, ratio, spread

KIND = "ritz_pairs"
EMPHASIS, LOW = 9.0, 0.55
_BREAKDOWN = 100  # in units of the dtype's eps, relative to ||A||
_ZERO = 1e-8  # Ritz values below this share of the largest


@dataclass(frozen=True)
class RitzPairs:
    """Ritz ``values`` (m,), ascending and positive, and orthonormal ``vectors`` (m, *shape)."""

    values: Tensor
    vectors: Tensor


@torch.no_grad()
def lanczos(A: LinearMap, start: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """``steps`` Lanczos steps from ``start`` (*batch, *shape), in its dtype and on its device.

    Returns V (*batch, steps, n) with orthonormal rows, alpha (*batch, steps) and beta
    (*batch, steps - 1). Where a sample breaks down, its Krylov space being exhausted, the rows and
    coefficients that would follow are zero.
    """
    d, n = len(A.shape), A.size
    lead = start.shape[: start.ndim - d]
    V = start.new_zeros(*lead, steps, n)
    alpha, beta = start.new_zeros(*lead, steps), start.new_zeros(*lead, steps)
    size, going = norm(start, d), norm(start, d) > 0
    V[..., 0, :] = spread(ratio(torch.ones_like(size), size, going), 1) * start.flatten(-d)
    scale = torch.zeros_like(size)
    for j in range(steps):
        v = V[..., j, :]
        w = A.apply(v.reshape(start.shape)).flatten(-d)
        scale = torch.maximum(scale, norm(w, 1))
        alpha[..., j] = torch.linalg.vecdot(v, w)
        if j + 1 == steps:
            break
        known = V[..., : j + 1, :]
        for _ in range(2):
            w = w - ((known @ w[..., None]).mT @ known)[..., 0, :]
        size = norm(w, 1)
        going = going & (size > _BREAKDOWN * torch.finfo(w.dtype).eps * scale)
        if not going.any():
            break
        beta[..., j] = torch.where(going, size, 0.0)
        V[..., j + 1, :] = spread(ratio(torch.ones_like(size), size, going), 1) * w
    return V, alpha, beta[..., :-1]


@torch.no_grad()
def ritz_pairs(A: LinearMap, steps: int, seed: int, dtype: torch.dtype) -> list[RitzPairs]:
    """Ritz pairs of every sample of A, in row-major order of its batch; at most ``steps`` each.

    A: real, symmetric, semidefinite. The start of sample i depends on (seed, i) alone. Raises
    InputError where ``steps`` is no positive number.
    """
    if steps < 1:
        raise InputError(f"Ritz vectors need at least 1 step of Lanczos; got {steps}")
    count, steps = int(np.prod(A.batch)), min(steps, A.size)
    noise = np.stack(
        [np.random.default_rng((seed, i)).standard_normal(A.size) for i in range(count)]
    )
    x = torch.from_numpy(noise).reshape(*A.batch, *A.shape).to(A.device, dtype)
    V, alpha, beta = lanczos(A, A.apply(x), steps)
    V, alpha, beta = (t.reshape(count, *t.shape[len(A.batch) :]) for t in (V, alpha, beta))
    # The projected problem is small, and its accuracy that of all training vectors.
    T = torch.diag_embed(alpha.double())
    T = T + torch.diag_embed(beta.double(), 1) + torch.diag_embed(beta.double(), -1)
    values, Y = torch.linalg.eigh(T)
    floor = max(_ZERO, 8 * torch.finfo(dtype).eps)
    pairs = []
    for theta, y, basis in zip(values, Y, V, strict=True):
        kept = theta > floor * theta[-1]
        vectors = (y[:, kept].mT.to(dtype) @ basis).reshape(-1, *A.shape)
        pairs.append(RitzPairs(theta[kept].to(dtype), vectors))
    return pairs


def cached_ritz_pairs(
    A: Stencil, steps: int, seed: int, dtype: torch.dtype, folder: str | Path
) -> list[RitzPairs]:
    """The same, kept in ``folder`` in a file per matrix, steps, seed and dtype.

    A file that cannot be read is made anew.
    """
    options = _identity(A, steps, seed, dtype)
    name = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:16]
    file = Path(folder) / f"ritz-{name}.safetensors"
    if file.is_file():
        try:
            stored = read_stored(file, KIND)
            if stored.options == options:
                return _unpacked(stored.tensors, A.device)
        except InputError:
            pass
    pairs = ritz_pairs(A, steps, seed, dtype)
    packed = {f"values.{i}": pair.values for i, pair in enumerate(pairs)}
    packed |= {f"vectors.{i}": pair.vectors for i, pair in enumerate(pairs)}
    write_weights(file, KIND, options, packed, {})
    return pairs


def training_vectors(pairs: RitzPairs, seed: int, indices: Sequence[int]) -> Tensor:
    """The training vectors of these numbers, (len(indices), *shape), each of norm 1.

    Vector i depends on (seed, i) alone.
    """
    count = len(pairs.values)
    if not count:
        raise InputError("no Ritz vector to train on: the matrix is zero")
    drawn = np.stack(
        [np.random.default_rng((seed, i)).standard_normal(count, np.float32) for i in indices]
    )
    drawn[:, : round(LOW * count)] *= EMPHASIS
    coefficients = torch.from_numpy(drawn).to(pairs.vectors)
    coefficients = coefficients / coefficients.norm(dim=1, keepdim=True)  # the rows are orthonormal
    rows: Tensor = coefficients @ pairs.vectors.flatten(1)
    return rows.reshape(-1, *pairs.vectors.shape[1:])


def _identity(A: Stencil, steps: int, seed: int, dtype: torch.dtype) -> dict[str, Any]:
    entries = A.coefficients.detach().cpu().contiguous().numpy().tobytes()
    return {
        "matrix": hashlib.sha256(entries).hexdigest(),
        "shape": [*A.batch, *A.shape],
        "offsets": [list(o) for o in A.offsets],
        "periodic": list(A.periodic),
        "steps": steps,
        "seed": seed,
        "dtype": str(dtype),
    }


def _unpacked(tensors: dict[str, Tensor], device: torch.device) -> list[RitzPairs]:
    count = sum(name.startswith("values.") for name in tensors)
    return [
        RitzPairs(tensors[f"values.{i}"].to(device), tensors[f"vectors.{i}"].to(device))
        for i in range(count)
    ]
