"""``eigenmodes``: the lowest modes of a problem, each with a residual and a two-sided bound.

The kernel is looked for among the vectors that the discretisation names and deflated: its modes
have the eigenvalue zero. LOBPCG finds the others (:mod:`sciml.solvers.eigen.lobpcg`); where A is
singular or indefinite A + s M is preconditioned. Afterwards the eigenvalues below a gap behind the
wanted ones are counted (:mod:`sciml.solvers.eigen.bounds`); where there are more than were found,
the block grows and the iteration goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.pencil import Pencil, shifted
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.eigenmodes import Eigenmodes, rows_of
from sciml.core.run.status import Doubt, Status
from sciml.discretization import pencil
from sciml.solvers.eigen.bounds import (
    AFFORDABLE,
    Evidence,
    count_below,
    evidence,
    lower_bounds,
    separation,
)
from sciml.solvers.eigen.lobpcg import LOBPCG, Block, Form, form_of, lobpcg, orthonormal
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct, small
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.linear.preconditioner import setup_preconditioner

_DENSE = 600  # unknowns up to which all eigenvalues are computed
_KERNEL = 1e-12  # of |A| |v|: rounding
_DEPENDENT = 1e-10  # of the largest candidate: one that is none
_LOOSE = 1e-5  # of the gap's geometric mean with lambda: residuals behind the wanted modes
_PATIENCE = 30  # steps that a gap behind them is waited for
_ATTEMPTS = 4


def eigenmodes(
    problem: Problem,
    on: Grid | Mesh,
    count: int = 6,
    method: LOBPCG | None = None,
    *,
    throw: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> Eigenmodes:
    """The lowest ``count`` modes of a linear problem whose data are zero, zero modes among them.

    Of ``-div(K grad u) + c u = lambda w u``, w being m, d or 1, on a grid or a mesh, and of elastic
    bodies, ``lambda = (2 pi f)^2``. float64, on torch's default device. ``values`` are
    differentiable in tensor coefficients; of a multiple eigenvalue the sum is. Raises InputError
    for a problem that has no modes, or not so many, SolveError where they are not found, unless
    ``throw`` is False. ``progress(iteration, residual)`` is called once per iteration.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"count is a whole number of modes, 1 or more; got {count!r}", "count")
    if not isinstance(problem, Problem):
        raise InputError(
            f"eigenmodes takes (problem, on, count) with a Problem; got a {type(problem).__name__}"
        )
    options = LOBPCG() if method is None else method
    device = torch.get_default_device()
    with torch.device("cpu"):  # where what has no device of its own is made
        modes = _modes(pencil(problem, on, device=device), count, options, progress)
    if throw and not modes.status.success:
        worst = float((modes.residuals / modes.values.abs().clamp(min=1e-300)).max())
        raise SolveError(f"{modes.status} (worst relative residual {worst:.2e})")
    return replace(modes, problem=problem)


def _modes(
    posed: Pencil,
    count: int,
    options: LOBPCG,
    progress: Callable[[int, float], None] | None,
) -> Eigenmodes:
    """Those of every sample, on the CPU."""
    start = time.perf_counter()
    found = [_of_sample(sample, count, options, progress) for sample in posed.samples()]
    lead = posed.batch

    def stacked(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(parts).reshape((*lead, *parts[0].shape)).cpu()

    notes = dict.fromkeys([*posed.notes, *(note for one in found for note in one.notes)])
    vectors = torch.stack([one.vectors for one in found])
    return Eigenmodes(
        values=stacked([one.values for one in found]),
        fields=_lifted(posed, vectors.reshape((*lead, *vectors.shape[1:]))),
        residuals=stacked([one.residuals for one in found]),
        bounds=stacked([one.bounds for one in found]),
        multiplicities=stacked([one.multiplicities for one in found]),
        counted=stacked([torch.tensor(one.counted) for one in found]),
        iterations=stacked([torch.tensor(one.iterations) for one in found]),
        statuses=tuple(one.status for one in found),
        on=posed.on,
        names=posed.fields,
        oscillates=posed.oscillates,
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
    )


def _lifted(posed: Pencil, vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (*batch, count, *shape) on the place, mode by mode: what is known may be a batch."""
    count = len(posed.batch)
    parts = [posed.lift(u).detach().cpu() for u in vectors.unbind(count)]
    return torch.stack(parts, count)


@dataclass(frozen=True)
class _Found:
    """The modes of one sample, kernel included; ``vectors`` (count, *A.shape)."""

    values: torch.Tensor
    vectors: torch.Tensor
    residuals: torch.Tensor
    bounds: torch.Tensor
    multiplicities: torch.Tensor
    counted: bool
    iterations: int
    status: Status
    notes: tuple[str, ...]


def most_modes(posed: Pencil, count: int) -> int:
    """How many modes there are of one sample; raises InputError where ``count`` is more."""
    free = int((posed.M.detach().diagonal() > 0).sum())
    if count > free:
        raise InputError(
            f"{count:,} modes are asked for, and {free:,} unknowns have no more than {free:,}: "
            "lower count, or refine",
            "count",
        )
    return free


def _of_sample(
    posed: Pencil,
    count: int,
    options: LOBPCG,
    progress: Callable[[int, float], None] | None,
) -> _Found:
    A, M = posed.A.detach(), posed.M.detach()
    free = most_modes(posed, count)
    kernel = _kernel(posed.candidates, A, M)
    regular = A.definite and not A.nullspace and not len(kernel)
    scale = 0.0 if regular else posed.scale
    shift = scale - posed.floor
    wanted = max(count - len(kernel), 1) if free > len(kernel) else 0
    search = _Search(
        posed, A, M, kernel, shift, scale, wanted, free - len(kernel), options, progress
    )
    found = search.run()
    zero = evidence(search.form, kernel, posed.share, search.terms)
    return _told(posed, count, kernel, zero, found)


def _kernel(candidates: torch.Tensor, A: LinearMap, M: LinearMap) -> torch.Tensor:
    """The combinations of the candidates that A annihilates, (k, n), M-orthonormal."""
    root = A.diagonal().abs().sqrt().flatten()
    root = torch.where(root > 0, root, 1.0)
    V = candidates.flatten(1) * (M.diagonal().flatten() > 0)
    if not len(V):
        return V
    turn, sizes, _ = torch.linalg.svd(V * root, full_matrices=False)
    kept = sizes > _DEPENDENT * sizes[0]
    V = (turn[:, kept] / sizes[kept]).T @ V
    image = A.apply(V.reshape(-1, *A.shape)).flatten(1) / root
    turn, sizes, _ = torch.linalg.svd(image, full_matrices=False)
    V = turn[:, sizes < _KERNEL].T @ V
    return orthonormal(V, form_of(A, M, A, V[:0]), [])[0] if len(V) else V


@dataclass(frozen=True)
class _Pairs:
    """What a search came to: ``low`` (p,) lower bounds, NaN where there is none."""

    block: Block
    evidence: Evidence
    low: torch.Tensor
    counted: bool
    iterations: int
    status: Status
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Search:
    """The ``wanted`` lowest eigenvalues of a pencil that are not those of its ``kernel`` (k, n).

    ``size``: how many there are.
    """

    posed: Pencil
    A: LinearMap
    M: LinearMap
    kernel: torch.Tensor
    shift: float
    scale: float
    wanted: int
    size: int
    options: LOBPCG
    progress: Callable[[int, float], None] | None

    @cached_property
    def guard(self) -> int:
        """Vectors beyond the wanted ones: they quicken the iteration and show the gap."""
        return max(4, -(-self.wanted // 3))

    @cached_property
    def is_dense(self) -> bool:
        """Whether all eigenvalues are computed at once."""
        return self.size <= max(_DENSE, 8 * (self.wanted + self.guard))

    @cached_property
    def form(self) -> Form:
        """The maps on rows, with the preconditioner set up."""
        B, A = self.A, self.A
        if not self.is_dense:
            definite = shifted(A, self.M, self.shift) if self.shift else A
            made = setup_preconditioner(self._chosen(), definite)
            assert made is not None
            B = made
        return form_of(A, self.M, B, self.kernel, self.posed.floor, self.scale)

    def _chosen(self) -> Any:
        if self.options.preconditioner is not None:
            return self.options.preconditioner
        if small(self.A):
            return Direct()
        return Multigrid() if isinstance(self.A, Stencil) else AMG()

    @cached_property
    def terms(self) -> int:
        """Entries of A's fullest row, at least."""
        if isinstance(self.A, Stencil):
            return len(self.A.offsets)
        return int(np.diff(self.A.to_scipy().indptr).max())

    def run(self) -> _Pairs:
        """Iterate and count, with a larger block where eigenvalues were missed."""
        rows, iterations = min(self.wanted + self.guard, self.size), 0
        notes: tuple[str, ...] = ()
        X = self.random(rows, 0) if not self.is_dense else self.kernel[:0]
        for attempt in range(_ATTEMPTS):
            block = self.dense(rows) if self.is_dense else self.iterate(X)
            iterations += block.iterations
            found = evidence(self.form, block.vectors, self.posed.share, self.terms)
            low = torch.full_like(found.values, torch.nan)
            if rows == self.size:
                j, rho, known = rows, torch.inf, True
            else:
                j, rho = separation(found.values, found.residuals, self.wanted)
                below = self.count(rho, rho - float(found.values[j - 1])) if j else None
                known = below == j + len(self.kernel)
                missed = 0 if below is None else below - j - len(self.kernel)
                if block.status.success and (not j or missed > 0) and attempt < _ATTEMPTS - 1:
                    more = max(missed, 0) + self.guard
                    rows = min(rows + more, self.size)
                    X = torch.cat([block.vectors, self.random(more, attempt + 1)])
                    continue
                if below is not None and not known:
                    told = f"{below} eigenvalues lie below {rho:.6g}, {j + len(self.kernel)} found"
                    notes, j = (Doubt(f"{told}: no lower bound is certain"),), 0
            if j:
                low[:j] = lower_bounds(found, j, rho)
            break
        return _Pairs(block, found, low, known, iterations, self.judged(block, found), notes)

    def judged(self, block: Block, found: Evidence) -> Status:
        """The block's status, where the residuals computed anew bear it out."""
        residual, theta = found.residuals[: self.wanted], found.values[: self.wanted]
        allowed = self.options.rtol * self.form.size(theta) / self.posed.share**0.5
        if not block.status.success or self.is_dense:
            return block.status
        within = residual <= 1.01 * allowed + 2 * found.floor.max()
        return Status.CONVERGED if bool(within.all()) else Status.RESIDUAL_MISMATCH

    def random(self, rows: int, again: int) -> torch.Tensor:
        """Rows (rows, n) drawn at random and smoothed by the preconditioner."""
        generator = torch.Generator().manual_seed(self.options.seed + again)
        drawn = torch.randn(rows, self.A.size, generator=generator, dtype=torch.float64)
        weights = self.form.weights
        return self.form.B(drawn.to(weights.device) * weights)

    def dense(self, rows: int) -> Block:
        """The lowest eigenvalues of all, by LAPACK, but for the kernel's."""
        has = (self.M.diagonal() > 0).flatten().cpu().numpy()
        A, M = (m.to_scipy()[has][:, has].toarray() for m in (self.A, self.M))
        moved = M @ self.kernel.cpu().numpy()[:, has].T
        far = np.abs(A).sum(1).max() / (self.posed.share * M.diagonal().min())
        values, vectors = scipy.linalg.eigh(A + far * moved @ moved.T, M)
        X = np.zeros((rows, self.A.size))
        X[:, has] = vectors[:, :rows].T
        kept = torch.from_numpy(X).to(self.kernel.device)
        found = torch.from_numpy(values[:rows]).to(kept.device)
        return Block(found, kept, torch.zeros_like(found), 0, Status.CONVERGED)

    def iterate(self, X: torch.Tensor) -> Block:
        """LOBPCG until the wanted pairs have converged and a gap behind them is seen."""
        wanted, waited = self.wanted, 0

        def done(theta: torch.Tensor, residual: torch.Tensor, tolerance: torch.Tensor) -> bool:
            nonlocal waited
            if not bool((residual[:wanted] <= tolerance[:wanted]).all()):
                return False
            waited += 1
            j, rho = separation(theta, residual / self.posed.share**0.5, wanted)
            if not j:
                return waited > _PATIENCE
            behind = theta[wanted:j]
            good = _LOOSE * ((rho - behind) * self.form.size(behind)).sqrt()
            return bool((residual[wanted:j] <= good.maximum(tolerance[wanted:j])).all())

        return lobpcg(self.form, X, self.options, done, self.progress)

    def count(self, rho: float, room: float) -> int | None:
        """How many eigenvalues lie below rho, zero ones included; None where that is not known.

        ``room``: how near to rho no Ritz value lies.
        """
        on = self.posed.on
        dimension = on.dimension if isinstance(on, Mesh) else len(on.shape)
        if self.A.size > AFFORDABLE[dimension]:
            return None
        found = count_below(self.A.to_scipy(), self.M.to_scipy(), rho, self.posed.share)
        return None if found is None or found.error >= room else found.below


def _told(posed: Pencil, count: int, kernel: torch.Tensor, zero: Evidence, found: _Pairs) -> _Found:
    """The kernel's modes and the others, as far as they were asked for."""
    far = zero.residuals + zero.rounding
    more = found.evidence
    values = torch.cat([torch.zeros_like(far), more.values])
    residuals = torch.cat([zero.residuals, more.residuals])
    low = torch.cat([-far, found.low])
    high = torch.cat([far, more.values + more.rounding])
    # Where nothing is known from below, residuals say how near another may be.
    reach = torch.where(low.isnan(), values - residuals, low)
    together = rows_of(reach[1:] <= high[:-1])
    vectors = torch.cat([kernel, found.block.vectors])[:count]
    return _Found(
        values=_traced(posed, vectors, values[:count]),
        vectors=_signed(vectors).reshape(-1, *posed.A.shape),
        residuals=residuals[:count],
        bounds=torch.stack([low, high], -1)[:count],
        multiplicities=together[:count],
        counted=found.counted,
        iterations=found.iterations,
        status=found.status,
        notes=found.notes,
    )


def _signed(vectors: torch.Tensor) -> torch.Tensor:
    """Rows with their largest entry positive, the first of those that are as large to rounding."""
    size = vectors.abs()
    first = (size >= (1 - 1e-6) * size.amax(1, keepdim=True)).to(torch.int8).argmax(1, keepdim=True)
    return vectors * vectors.gather(1, first).sign()


def _traced(posed: Pencil, vectors: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The values, with the graph of x^T (A - lambda M) x where one is wanted."""
    if not posed.requires_grad:
        return values
    x = vectors.reshape(-1, *posed.A.shape)
    dims = tuple(range(1, x.ndim))
    stiff, heavy = ((x * m.apply(x)).sum(dims) for m in (posed.A, posed.M))
    change = stiff - values * heavy
    return values + (change - change.detach())
