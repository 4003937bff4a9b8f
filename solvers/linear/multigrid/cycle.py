"""Multigrid, as a solver and as a preconditioner.

Black-box multigrid (Dendy 1982): operator-dependent prolongation, Galerkin coarse stencils, any
grid size, so that jumping coefficients, embedded obstacles and reaction terms need no care from the
user. As a preconditioner one cycle from a zero guess, z = B r, symmetric for a symmetric operator
and computed in float32 inside a float64 Krylov method; on its own, cycles repeated on the residual.

One cycle on level l, for A_l x = b (Trottenberg, Oosterlee, Schueller 2001, section 2.4):

    smooth x;   correct x on islands;   b' = P^T (b - A x);
    x' = cycle(b') gamma times;   x += P x';   correct x on islands;   smooth x,

the post-smoother in the adjoint order of the pre-smoother. That one begins with the points of the
coarse grid, so that the coarse correction stands between sweeps over those that it only
interpolates to: up to a third fewer iterations than in the opposite order. gamma = 1 is the
V-cycle, 2 the W-cycle; the alternating cycle takes 2 to the levels 1, 3, 5 and so on, 1 to the
others; the F-cycle visits the next level once as an F- and once as a V-cycle.

For symmetric A with adjoint smoothers S, S* and the islands' projection C, I - B A is
S* C T C S, where 0 <= T <= 1 is the error of the coarse correction: B is symmetric, and I - B A
lies between 0 and S* S in the energy inner product. Not so for F on more than three levels: its two
visits do not commute, and B is not symmetric.

Which cycle pays is found by a trial. With the spectrum of B A in [1 - rho, 1], conjugate gradients
take some

    n(rho) = 1 / log((1 + sqrt(1 - rho)) / (1 - sqrt(1 - rho)))

iterations per factor e. Both cycles' rho is measured in a few steps from a random error, on a level
so coarse that it costs little. Where V degrades with depth, as it does for large blocks and for
anisotropy across the grid, it does so there too; two levels further down that no longer showed.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.algebra import kernels
from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.solvers.linear.inverse import Inverse
from sciml.solvers.linear.iteration import StationaryMethod, check_options, norm
from sciml.solvers.linear.multigrid.hierarchy import Hierarchy, Level, build

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Multigrid(StationaryMethod):
    """Matrix-free black-box multigrid for the stencils of tensor grids.

    ``cycle``: V, W, F, alternating, or auto: V, or alternating where a trial on a
    coarse level says that it pays. ``smoother``: coloured Gauss-Seidel, or
    Chebyshev of degree 2 ``sweeps``. ``sweeps`` before and after each coarse correction. ``full``:
    correct the start, as a solver and in CG, by full multigrid on its residual. ``dtype`` of the
    cycle; residuals are always float64.
    """

    kind: Literal["multigrid"] = "multigrid"
    cycle: Cycle | Literal["auto"] = "auto"
    smoother: Smoother = "gauss_seidel"
    sweeps: int = 2
    full: bool = True
    dtype: Literal["float32", "float64"] = "float32"
    rtol: float = 1e-8
    max_iterations: int = 200
    window = 50

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        if self.sweeps < 1:
            raise InputError(f"multigrid: sweeps must be at least 1; got {self.sweeps}")

    @torch.no_grad()
    def setup(self, A: LinearMap) -> MultigridCycle:
        """Build the hierarchy; raises InputError for a matrix that is no stencil."""
        if not isinstance(A, Stencil):
            raise InputError(
                "multigrid needs a stencil on a tensor grid; use amg for a sparse matrix, or say "
                "which grid it lives on: shape=(n, n) in sciml.cg, as_scipy or as_petsc",
                "solver.kind",
            )
        if A.dtype.is_complex:
            raise InputError(
                "multigrid needs a real operator; for a complex one use gmres with "
                "shifted_laplacian, or direct",
                "solver.kind",
            )
        hierarchy = build(A, DTYPES[self.dtype])
        if self.cycle == "auto":
            return choose(A, hierarchy, self.smoother, self.sweeps, self.full)
        return MultigridCycle(A, hierarchy, self.cycle, self.smoother, self.sweeps, self.full)


Smoother = Literal["gauss_seidel", "chebyshev"]
Cycle = Literal["V", "W", "F", "alternating"]


class _WorkArrays(threading.local):
    """What a cycle writes to, made anew for every thread that uses it, and not pickled."""

    def __init__(self) -> None:
        self.of: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def __reduce__(self) -> tuple[type[_WorkArrays], tuple[()]]:
        return _WorkArrays, ()


class MultigridCycle(Inverse):
    """One cycle from a zero guess, in the hierarchy's dtype: an approximate inverse of A.

    ``full``: whether full multigrid is its first guess.
    """

    def __init__(
        self,
        A: Stencil,
        hierarchy: Hierarchy,
        cycle: Cycle,
        smoother: Smoother,
        sweeps: int,
        full: bool = True,
    ) -> None:
        commute = cycle != "F" or len(hierarchy.levels) <= 3
        super().__init__(A, symmetric=A.symmetric and commute, definite=A.definite)
        self.hierarchy, self.cycle, self.smoother, self.sweeps = hierarchy, cycle, smoother, sweeps
        self.full = full
        self._bounds = (
            [_spectral_bound(level) for level in hierarchy.levels]
            if smoother == "chebyshev"
            else []
        )
        self._work = _WorkArrays()

    def __repr__(self) -> str:
        levels = self.hierarchy.levels
        islands = sum(len(level.islands) for level in levels if level.islands)
        return (
            f"MultigridCycle({self.cycle}, {self.smoother}, {self.sweeps} sweeps, "
            f"{len(levels)} levels, {islands} islands)"
        )

    @property
    def work_units(self) -> float:
        """Multiplications of one cycle over those of one product with the finest operator."""
        entries = [level.A.size * len(level.A.offsets) for level in self.hierarchy.levels]
        return (2 * self.sweeps + 1) * self._entries(0, self.cycle, entries) / entries[0]

    @property
    def first_guess_units(self) -> float:
        """The same of full multigrid: on every level one restriction, and one cycle from there."""
        entries = [level.A.size * len(level.A.offsets) for level in self.hierarchy.levels]
        cycles = sum(self._entries(depth, self.cycle, entries) for depth in range(len(entries)))
        return ((2 * self.sweeps + 1) * cycles + sum(entries[:-1])) / entries[0]

    def _entries(self, depth: int, cycle: Cycle, entries: list[int]) -> int:
        """Stencil entries that one smoothing step on every visit of levels from ``depth`` reads."""
        if depth == len(entries) - 1:
            return 0
        below = sum(self._entries(depth + 1, c, entries) for c in self._visits(depth, cycle))
        return entries[depth] + below

    def _visits(self, depth: int, cycle: Cycle) -> tuple[Cycle, ...]:
        """The cycles that one visit of level ``depth`` makes on the next."""
        if self.hierarchy.levels[depth + 1].P is None or cycle == "V":
            return (cycle,)
        if cycle == "F":
            return ("F", "V")
        return (cycle,) * (2 if cycle == "W" or depth % 2 == 0 else 1)

    def contraction(self, depth: int, steps: int) -> torch.Tensor:
        """How a random error's energy norm falls in the last of two or more ``steps`` on a level.

        One float64 number per sample of A, for the cycle on the levels from ``depth`` on alone.
        """
        work, A = self._arrays(self.batch), self.hierarchy.levels[depth].A
        x, b = work[depth]
        generator = torch.Generator().manual_seed(0)
        x.copy_(torch.randn(x.shape, generator=generator))
        energies = []
        for step in range(steps):
            b.zero_()
            self._solve(depth, self.cycle, work, from_zero=False)
            if step >= steps - 2:
                energies.append((x * A.apply(x)).flatten(-A.dimension).sum(-1).double())
        return (energies[1] / energies[0]).clamp(0.0, 1.0).nan_to_num(0.0).sqrt()

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``B u`` for u (*batch, *shape), in u's dtype."""
        if u.is_complex() and not self.dtype.is_complex:
            return torch.complex(self.apply(u.real.contiguous()), self.apply(u.imag.contiguous()))
        out = torch.empty_like(u)
        self.apply_into(u, out)
        return out

    def apply_into(self, r: torch.Tensor, z: torch.Tensor) -> None:
        """z = B r without allocating."""
        x, scale = self.apply_scaled(r, norm(r, len(self.shape)))
        kernels.of(x).scale(x, scale, z)

    def apply_scaled(
        self, r: torch.Tensor, norms: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``B r = scale x``, x in the cycle's dtype: r is scaled so that any magnitude fits it."""
        work = self._arrays(self._batch(r))
        scale = self._scaled(r, norms, work)
        self._solve(0, self.cycle, work, from_zero=True)
        return work[0][0], scale

    def _scaled(
        self,
        r: torch.Tensor,
        norms: torch.Tensor,
        work: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        """Put r over the scale that is returned into the finest right-hand side."""
        scale = torch.where(norms > 0, norms / math.sqrt(self.size), 1.0)
        kernels.of(r).scale(r, scale.reciprocal(), work[0][1])
        return scale

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``B^T u``: the cycle itself; InputError where it is not symmetric."""
        if not self.symmetric:
            raise InputError(
                "a cycle has an adjoint for symmetric operators only, and no F-cycle has; "
                "use direct"
            )
        return self.apply(u)

    @torch.no_grad()
    def first_guess(self, b: torch.Tensor) -> torch.Tensor | None:
        """Full multigrid: solve on the coarsest level, then one cycle on each finer one.

        b (*batch, *shape) is restricted level by level; the result is in b's dtype.
        """
        if not self.full:
            return None
        if b.is_complex():
            parts = (self._full(part.contiguous()) for part in (b.real, b.imag))
            return torch.complex(*parts)
        return self._full(b)

    def _full(self, b: torch.Tensor) -> torch.Tensor:
        work = self._arrays(self._batch(b))
        twin, levels = kernels.of(b), list(enumerate(self.hierarchy.levels))[:-1]
        scale = self._scaled(b, norm(b, len(self.shape)), work)
        for depth, level in levels:
            assert level.P is not None
            work[depth][0].zero_()
            twin.restrict_residual(level.A, level.P, *work[depth], work[depth + 1][1])
        self._solve_coarsest(*work[-1])
        for depth, level in reversed(levels):
            assert level.P is not None
            twin.prolong_add(level.P, work[depth][0], work[depth + 1][0])
            self._solve(depth, self.cycle, work, from_zero=False)
        guess = torch.empty_like(b)
        twin.scale(work[0][0], scale, guess)
        return guess

    def _batch(self, r: torch.Tensor) -> tuple[int, ...]:
        return tuple(r.shape[: r.ndim - len(self.shape)])

    def _arrays(self, batch: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        kept = self._work.of
        if batch not in kept:
            kept.clear()  # one batch shape at a time
            kept[batch] = [
                (
                    level.A.coefficients.new_empty((*batch, *level.A.shape)),
                    level.A.coefficients.new_empty((*batch, *level.A.shape)),
                )
                for level in self.hierarchy.levels
            ]
        return kept[batch]

    def _solve(
        self,
        depth: int,
        cycle: Cycle,
        work: list[tuple[torch.Tensor, torch.Tensor]],
        from_zero: bool,
    ) -> None:
        """One cycle for levels ``depth`` and below, on the work arrays."""
        level = self.hierarchy.levels[depth]
        x, b = work[depth]
        if level.P is None:
            self._solve_coarsest(x, b)
            return
        twin = kernels.of(x)
        self._smooth(depth, x, b, reverse=True, from_zero=from_zero)
        if level.islands is not None:
            level.islands.correct(x, b)
        coarse_x, coarse_b = work[depth + 1]
        twin.restrict_residual(level.A, level.P, x, b, coarse_b)
        for visit, inner in enumerate(self._visits(depth, cycle)):
            self._solve(depth + 1, inner, work, from_zero=visit == 0)
        twin.prolong_add(level.P, x, coarse_x)
        if level.islands is not None:
            level.islands.correct(x, b)
        self._smooth(depth, x, b, reverse=False, from_zero=False)

    def _smooth(
        self, depth: int, x: torch.Tensor, b: torch.Tensor, *, reverse: bool, from_zero: bool
    ) -> None:
        level = self.hierarchy.levels[depth]
        if self.smoother == "chebyshev":
            if from_zero:
                x.zero_()
            _chebyshev(level, self._bounds[depth], x, b, 2 * self.sweeps)
            return
        kernels.of(x).sweep(level.A, x, b, reverse=reverse, from_zero=from_zero, count=self.sweeps)

    def _solve_coarsest(self, x: torch.Tensor, b: torch.Tensor) -> None:
        coarsest = self.hierarchy.coarsest
        shape = self.hierarchy.levels[-1].A.shape
        flat = b.reshape(*b.shape[: b.ndim - len(shape)], -1)
        if isinstance(coarsest, torch.Tensor):
            x.copy_(torch.matmul(coarsest, flat[..., None]).reshape(x.shape))
            return
        rows = flat.reshape(-1, flat.shape[-1]).double().numpy()
        solved = [coarsest[i % len(coarsest)].solve(row) for i, row in enumerate(rows)]
        x.copy_(torch.stack([torch.from_numpy(s) for s in solved]).reshape(x.shape))


def _spectral_bound(level: Level) -> float:
    """Gershgorin's bound of the spectrum of D^-1 A."""
    sums = level.A.coefficients.abs().sum(-level.A.dimension - 1)
    return float((sums / level.A.diagonal().abs()).max())


def _chebyshev(level: Level, bound: float, x: torch.Tensor, b: torch.Tensor, degree: int) -> None:
    """Chebyshev iteration on D^-1 A over [bound / 5, bound] (Saad 2003, algorithm 12.1)."""
    upper, lower = bound, bound / 5
    centre, radius = (upper + lower) / 2, (upper - lower) / 2
    sigma, diagonal = centre / radius, level.A.diagonal()
    rho = 1 / sigma
    direction = (b - level.A.apply(x)) / diagonal / centre
    for step in range(degree):
        x += direction
        if step + 1 == degree:
            return
        following = 1 / (2 * sigma - rho)
        residual = (b - level.A.apply(x)) / diagonal
        direction = following * rho * direction + 2 * following / radius * residual
        rho = following


# The ratio of V's iterations to the other's in the trial above which the latter is taken. Where it
# took less time (random blocks, checkerboards, rotated anisotropy) it was 1.09 to 1.60; elsewhere
# 0.97 to 1.06.
PAYS = 1.08
GOOD = 0.14  # a contraction of V that needs no trial of the other cycle
DEPTH = 2  # the level of the trial: a sixteenth of the points in two dimensions
_STEPS = 5


@torch.no_grad()
def choose(
    A: Stencil, hierarchy: Hierarchy, smoother: Smoother, sweeps: int, full: bool = True
) -> MultigridCycle:
    """The V-cycle, or the alternating one where it pays; one choice for all samples."""
    V = MultigridCycle(A, hierarchy, "V", smoother, sweeps, full)
    if not A.definite or _alike(hierarchy):
        return V
    rho = float(V.contraction(DEPTH, _STEPS).max())
    if rho < GOOD:
        return V
    alternating = MultigridCycle(A, hierarchy, "alternating", smoother, sweeps, full)
    other = float(alternating.contraction(DEPTH, _STEPS).max())
    return alternating if iterations(rho) > PAYS * iterations(other) else V


def _alike(hierarchy: Hierarchy) -> bool:
    """Whether nothing is to be chosen: few levels, or a cross of constants (no rotation)."""
    A = hierarchy.levels[0].A
    constant = all(s == 0 for s in A.coefficients.stride()[-A.dimension :])
    cross = len(A.offsets) <= 2 * A.dimension + 1
    return len(hierarchy.levels) < DEPTH + 3 or (constant and cross)


def iterations(rho: float) -> float:
    """Iterations of conjugate gradients per factor e, for a contraction rho: see the module."""
    gap = math.sqrt(max(1 - rho, 1e-12))
    return 1 / math.log((1 + gap) / max(1 - gap, 1e-12))
