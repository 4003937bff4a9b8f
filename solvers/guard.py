"""A preconditioner that is watched, and replaced by a classical one where it fails.

A nonlinear or untrusted map z = M r is dropped, sample by sample and for the rest of the solve,
once

    z holds a NaN or an infinity, or is zero;
    <r, z> <= 0, where the method needs a descent direction;
    the residual has not halved for some steps, and the best multiple of the classical map's z makes
    ||r - alpha A z|| smaller than that of M's.

Classical is multigrid on a stencil, Jacobi on a matrix. Flexible methods allow the change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap
from sciml.core.stencil import Stencil
from sciml.solvers.inverse import Inverse
from sciml.solvers.iteration import Iterate, Ledger, dot, norm, spread
from sciml.solvers.multigrid import Multigrid
from sciml.solvers.preconditioner import setup_preconditioner
from sciml.solvers.relaxation import Jacobi

PATIENCE = 20  # steps in which the residual must halve


@dataclass(frozen=True)
class Classical:
    """What takes over: set up when it is first needed, and kept for later solves."""

    A: LinearMap

    @cached_property
    def chosen(self) -> tuple[str, LinearMap | None]:
        """Name and map: multigrid, Jacobi, or the identity for a diagonal with zeros."""
        A = self.A
        suits = isinstance(A, Stencil) and not A.dtype.is_complex
        for options in (Multigrid(),) * (suits and (A.definite or not A.symmetric)) + (Jacobi(),):
            try:
                return options.kind, setup_preconditioner(options, A)
            except InputError:
                continue
        return "the identity", None

    def apply(self, r: torch.Tensor) -> torch.Tensor:
        """``z ~ A^-1 r``."""
        M = self.chosen[1]
        return r if M is None else M.apply(r).to(r.dtype)


class Guarded(Inverse):
    """``M`` until it fails, then the classical map; one object per solve.

    ``descent``: whether <r, z> must be positive, as conjugate gradients need it.
    """

    def __init__(self, A: LinearMap, M: LinearMap, classical: Classical, *, descent: bool) -> None:
        super().__init__(A, symmetric=False, definite=False, linear=False)
        self.A, self.M, self.classical, self.descent = A, M, classical, descent
        # What M's set-up has to say; ``events`` holds what was dropped in this solve, and why.
        self.notes = getattr(M, "notes", ())
        self.events: list[str] = []
        self._dropped = self._running = torch.zeros(())
        self._mark = self._marked_at = torch.zeros(())
        self._step: int | None = None

    def fresh(self) -> Guarded:
        """The same for another solve: nothing dropped yet."""
        return Guarded(self.A, self.M, self.classical, descent=self.descent)

    def watch(self, r: torch.Tensor, ledger: Ledger) -> None:
        """Look at the residual before a step: has it halved lately?"""
        norms, self._running, self._step = norm(r, len(self.shape)), ledger.running, ledger.count
        if ledger.count == 0 or self._mark.shape != norms.shape:
            self._mark, self._marked_at = norms, torch.full_like(ledger.iterations, ledger.count)
        halved = norms <= 0.5 * self._mark
        late = self._watched(r) & ~halved & (ledger.count - self._marked_at >= PATIENCE)
        if bool(late.any()):
            weak = self._reduction(self.classical.apply(r), r) > self._reduction(self.M.apply(r), r)
            self._drop(late & weak, f"did not halve the residual in {PATIENCE} steps")
        self._mark = torch.where(halved | late, norms, self._mark)
        self._marked_at = torch.where(halved | late, ledger.count, self._marked_at)

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``M u``, in the samples where M has been dropped the classical map's."""
        watched = self._watched(u)
        if bool(self._dropped.all()):
            return self.classical.apply(u)
        z = self.M.apply(u)
        if z.shape != u.shape:
            raise InputError(
                f"the preconditioner took shape {list(u.shape)} and returned {list(z.shape)}",
                "solver.preconditioner",
            )
        z, dimension = z.to(u.dtype), len(self.shape)
        size = norm(z, dimension)
        self._drop(watched & ~torch.isfinite(size), "returned a NaN or an infinity")
        self._drop(watched & (size == 0), "returned zero")
        if self.descent:
            self._drop(watched & (dot(z, u, dimension) <= 0), "gave no direction of descent")
        if not bool(self._dropped.any()):
            return z
        return torch.where(spread(self._dropped, dimension), self.classical.apply(u), z)

    def blame(self, where: torch.Tensor) -> bool:
        """Drop M in the samples ``where``; whether it was still in use in one of them."""
        found = len(self.events)
        self._drop(where, "broke the method down")
        return len(self.events) > found

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """Of M itself."""
        return self.M.adjoint(u)

    def _watched(self, u: torch.Tensor) -> torch.Tensor:
        """The samples that run, have a residual, and still use M."""
        size = norm(u, len(self.shape))
        there = (size > 0) & torch.isfinite(size)
        if self._dropped.shape != there.shape or self._dropped.dtype != torch.bool:
            self._dropped = torch.zeros_like(there)
        if self._running.shape == there.shape and self._running.dtype == torch.bool:
            there = there & self._running
        return there & ~self._dropped

    def _reduction(self, z: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        """cos^2 of the angle between r and A z: what the best multiple of z removes of ||r||^2."""
        image, dimension = self.A.apply(z.to(r.dtype)), len(self.shape)
        cosine = dot(image, r, dimension).abs() / (norm(image, dimension) * norm(r, dimension))
        return cosine.square().nan_to_num(0.0)

    def _drop(self, where: torch.Tensor, reason: str) -> None:
        where = where & ~self._dropped
        if not bool(where.any()):
            return
        self._dropped = self._dropped | where
        count = where.numel()
        samples = f" in {int(where.sum())} of {count} samples" if count > 1 else ""
        step = "" if self._step is None else f" at step {self._step}"
        self.events.append(
            f"the preconditioner {reason}{step}{samples}; {self.classical.chosen[0]} took over"
        )


def guard(A: LinearMap, M: LinearMap | None, *, descent: bool) -> LinearMap | None:
    """``M``, watched where it is nonlinear or untrusted."""
    if M is None or isinstance(M, Guarded) or (M.linear and M.trusted):
        return M
    return Guarded(A, M, Classical(A), descent=descent)


def for_one_solve(M: LinearMap | None) -> LinearMap | None:
    """``M`` as a solve begins: a guard that has dropped nothing."""
    return M.fresh() if isinstance(M, Guarded) else M


def watch(M: LinearMap | None, r: torch.Tensor, ledger: Ledger) -> None:
    """Show a guard the residual; anything else needs none."""
    if isinstance(M, Guarded):
        M.watch(r, ledger)


def blamed(M: LinearMap | None, where: torch.Tensor) -> bool:
    """Drop a guarded ``M`` in the samples ``where`` of a breakdown; whether it was still in use."""
    return isinstance(M, Guarded) and M.blame(where)


def noted(result: Iterate, M: LinearMap | None) -> Iterate:
    """The result, with what a guard has seen."""
    return replace(result, notes=tuple(M.events)) if isinstance(M, Guarded) else result
