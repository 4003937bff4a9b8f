"""Why a linear system has no answer: a kernel, and a right-hand side that is not orthogonal to it.

A x = b has a solution if v . b = 0 for every v with A^H v = 0. Most kernels are known beforehand:
where nothing fixes the level of u, constants on a connected part of the unknowns are in the kernel,
and b has to sum to zero there (Fredholm's alternative; of the differential equation, the source
and the fluxes have to integrate to zero). Others are found by singular values where the matrix is
small. Of nonlinear equations F(u) = 0 without such a level the sum of F is one number for every u,
which has to be zero. It is asked only when a solver has failed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.csgraph import connected_components

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.errors import InputError
from sciml.core.run.status import Status
from sciml.solvers.linear.inverse import matrices

_ROUNDING = 1e-12  # of a row's entries: a sum below is zero
_DENSE = 400  # unknowns up to which singular values are computed
_TRIED = (0.0, 1.0, 3.0)  # the largest value
_SAME_SUM = 1e-9  # of the sum of the sizes
_SAMPLES = 16  # of a batch that are looked at
_EXPLAINED = {
    Status.MAX_ITERATIONS,
    Status.STAGNATED,
    Status.DIVERGED,
    Status.BREAKDOWN,
    Status.INDEFINITE_OPERATOR,
    Status.INDEFINITE_PRECONDITIONER,
    Status.NOT_FINITE,
    Status.LOST_TO_ROUNDING,
    Status.RESIDUAL_MISMATCH,
    Status.LINE_SEARCH_FAILED,
    Status.NOT_CONVEX,
}


def explained(
    A: LinearMap, b: torch.Tensor, statuses: tuple[Status, ...], rtol: float
) -> tuple[tuple[Status, ...], tuple[str, ...]]:
    """The statuses, INCOMPATIBLE where there is no solution, and notes that name the kernel.

    b (*batch, *A.shape). Samples beyond the first sixteen that failed keep their status.
    """
    failed = [k for k, status in enumerate(statuses) if status in _EXPLAINED][:_SAMPLES]
    try:
        samples = matrices(A) if failed else []
    except InputError:
        return statuses, ()
    lead = b.shape[: b.ndim - len(A.shape)]
    which = np.broadcast_to(np.arange(len(samples)).reshape(A.batch), lead).ravel()
    right = b.detach().cpu().numpy().reshape(-1, A.size)
    found, notes = list(statuses), []
    for k in failed:
        reason = _beside_range(A, right[k], rtol)
        reason = reason or _incompatible(samples[which[k]], right[k], A.shape, rtol)
        if reason:
            found[k] = Status.INCOMPATIBLE
            if reason not in notes:
                notes.append(reason)
    return tuple(found), tuple(notes)


@torch.no_grad()
def unbalanced(
    system: NonlinearSystem, u: torch.Tensor, statuses: tuple[Status, ...], rtol: float
) -> tuple[tuple[Status, ...], tuple[str, ...]]:
    """The statuses, INCOMPATIBLE where F sums to the same whatever u is, and that not zero.

    Tried are zero and two random functions, since u (*batch, *shape), at which a solver has failed,
    may be so large that rounding hides the sum.
    """
    if not any(status in _EXPLAINED for status in statuses):
        return statuses, ()
    generator = torch.Generator().manual_seed(0)
    sums, sizes = [], []
    for scale in _TRIED:
        tried = scale * torch.rand(u.shape, generator=generator, dtype=torch.float64).to(u)
        F = system.residual(tried, 0.0).flatten(-len(system.shape))
        F = F.reshape(len(statuses), -1)
        sums.append(F.sum(-1))
        sizes.append(F.abs().sum(-1))
    spread = torch.stack([(total - sums[0]).abs() for total in sums]).amax(0)
    allowed = _SAME_SUM * torch.stack(sizes).amax(0)
    fixed = (spread <= allowed) & (sums[0].abs() > 10 * allowed)
    fixed &= sums[0].abs() > max(rtol, _ROUNDING) * sizes[0]
    found, notes = list(statuses), []
    for k, total in enumerate(sums[0].tolist()):
        if bool(fixed[k]) and statuses[k] in _EXPLAINED:
            found[k] = Status.INCOMPATIBLE
            notes.append(f"source and fluxes sum to {-total:.3g} whatever u is, and should to zero")
    return tuple(found), tuple(dict.fromkeys(notes))


def _beside_range(A: LinearMap, b: np.ndarray, rtol: float) -> str:
    """Of a self-adjoint map whose kernel was given: what b has of it."""
    if A.kernel is None or not A.self_adjoint or not np.isfinite(b).all():
        return ""
    rows = A.kernel.flatten(1).cpu().numpy()
    share, length = np.linalg.norm(rows.conj() @ b), np.linalg.norm(b)
    if not share > max(rtol, _ROUNDING) * length:
        return ""
    return f"{share / length:.1e} of the right-hand side lies in the nullspace, and none may"


def _incompatible(
    matrix: scipy.sparse.csr_matrix, b: np.ndarray, shape: tuple[int, ...], rtol: float
) -> str:
    """What b does not meet, or nothing."""
    if not np.isfinite(b).all():
        return ""
    for part, size in _level_free(matrix):
        there = b[part]
        total, all_of_it = there.sum(), np.abs(there).sum()
        if abs(total) > max(rtol, _ROUNDING) * all_of_it:
            return _described(part, size, shape, total)
    if matrix.shape[0] > _DENSE:
        return ""
    with np.errstate(all="ignore"):
        try:
            return _outside_the_range(matrix.toarray(), b, rtol)
        except np.linalg.LinAlgError:
            return ""


def _outside_the_range(matrix: np.ndarray, b: np.ndarray, rtol: float) -> str:
    """By singular values; rows and columns are brought to one size first, or these say nothing."""
    rows = np.abs(matrix).max(1)
    rows = np.where(rows > 0, rows, 1.0)
    even = matrix / rows[:, None]
    columns = np.abs(even).max(0)
    even = even / np.where(columns > 0, columns, 1.0)
    right = b / rows
    left, values, _ = np.linalg.svd(even)
    kernel = left[:, values <= _ROUNDING * values[0]]
    share, length = np.linalg.norm(kernel.conj().T @ right), np.linalg.norm(right)
    if not share > max(rtol, _ROUNDING) * length:
        return ""
    return (
        f"the matrix is singular ({kernel.shape[1]} of {len(values)} dimensions), and "
        f"{share / length:.1e} of the right-hand side lies outside its range"
    )


def _level_free(matrix: scipy.sparse.csr_matrix) -> Iterator[tuple[np.ndarray, int]]:
    """Connected parts on which constants are in the kernel of A^H, and the number of parts."""
    count, labels = connected_components(abs(matrix), directed=False)
    sums = np.abs(np.asarray(matrix.sum(axis=0)).ravel())
    sizes = np.asarray(abs(matrix).sum(axis=0)).ravel()
    bound = np.zeros(count, dtype=bool)
    bound[labels[sums > _ROUNDING * sizes]] = True
    for part in np.flatnonzero(~bound):
        yield np.flatnonzero(labels == part), count


def _described(part: np.ndarray, count: int, shape: tuple[int, ...], total: complex) -> str:
    size = int(np.prod(shape))
    if count == 1:
        where = f"all {size} unknowns, whose level nothing fixes"
    else:
        index = [int(i) for i in np.unravel_index(part[0], shape)]
        first = index[0] if len(index) == 1 else tuple(index)
        where = (
            f"a part of {len(part)} of {size} unknowns that is cut off from the others (the first "
            f"is {first}) and whose level nothing fixes"
        )
    return f"the right-hand side sums to {total:.3g}, and should to zero, over {where}"
