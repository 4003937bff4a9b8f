"""Deflation: a subspace that earlier solutions span is solved exactly, beside any preconditioner.

With the columns of W spanning the subspace, E = W^T A W, Q = W E^-1 W^T, P = I - A Q, and a
preconditioner M,

    B = P^T M P + Q

(the balancing form, BNN in Tang, Nabben, Vuik and Erlangga 2009; Mandel 1993). B is symmetric
definite wherever M is, whatever W is, so that plain CG takes it; span(W) is an eigenspace of B A
with the eigenvalue 1, and the rest of the spectrum is that of P^T M A. (A-DEF2, P^T M + Q, has the
same spectrum for fewer products with W, but is not symmetric.) One B costs 4 k n multiplications
beside M, its set-up k products with A.

Principal directions of solutions X = V S Y^T, the first columns of V, are the k-dimensional
subspace that misses least of them (proper orthogonal decomposition; with Krylov methods: Carlberg,
Forstall and Tuminaro 2016).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem, without_kernel
from sciml.core.errors import InputError
from sciml.core.run.solve import Progress
from sciml.solvers.linear.inverse import Inverse
from sciml.solvers.linear.iteration import LinearSolver, LinearState, Outcome, check_options
from sciml.solvers.linear.krylov import (
    CG,
    KrylovState,
    require_definite,
    require_definite_preconditioner,
)
from sciml.solvers.linear.preconditioner import Preconditioner, setup_preconditioner

_DEPENDENT = 1e-12  # singular values below this share of the largest are rounding


@dataclass(frozen=True, eq=False)
class Deflation:
    """A preconditioner that is exact on the span of ``vectors`` (k, *shape), for Python only.

    ``preconditioner``: options or a LinearMap for the rest, None for the identity. ``setup`` raises
    InputError where the vectors do not fit or A is not real symmetric positive definite.
    """

    vectors: torch.Tensor
    preconditioner: Any = None
    kind: Literal["deflation"] = "deflation"

    @torch.no_grad()
    def setup(self, A: LinearMap) -> DeflatedInverse:
        """Orthonormalise the vectors, apply A to them, factorise E."""
        if A.dtype.is_complex:
            raise InputError("deflation needs a real operator", "solver.preconditioner")
        require_definite(self.kind, A)
        M = setup_preconditioner(self.preconditioner, A)
        return DeflatedInverse(A, M, _basis(self.vectors, A))


class DeflatedInverse(Inverse):
    """``P^T M P + Q`` for W^T = ``basis`` (k, n), orthonormal rows."""

    def __init__(self, A: LinearMap, M: LinearMap | None, basis: torch.Tensor) -> None:
        super().__init__(
            A,
            symmetric=M is None or M.symmetric,
            definite=M is None or M.definite,
            linear=M is None or M.linear,
        )
        self.M, self.basis = M, basis
        self.notes = getattr(M, "notes", ())
        lead = (len(basis), *(1 for _ in A.batch), *A.shape)
        images = A.apply(basis.reshape(lead).expand(len(basis), *A.batch, *A.shape))
        # (*batch, k, n)
        self.images = images.reshape(len(basis), *A.batch, A.size).movedim(0, -2)
        E = self.images @ basis.mT
        self.factor, failed = torch.linalg.cholesky_ex((E + E.mT) / 2)
        if bool(failed.any()):
            raise InputError(
                "deflation: the operator is not positive definite on the span of the vectors; "
                "use minres",
                "solver.preconditioner",
            )

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``B u``; u (*batch, *shape)."""
        return self._through(u, None if self.M is None else self.M.apply)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``B^T u``; u (*batch, *shape)."""
        return self._through(u, None if self.M is None else self.M.adjoint)

    def _through(self, u: torch.Tensor, inner: Any) -> torch.Tensor:
        flat = u.to(self.dtype).reshape(*u.shape[: u.ndim - len(self.shape)], self.size)
        own = self._coarse(flat @ self.basis.mT)
        rest = flat - self._combined(own, self.images)
        if inner is not None:
            rest = inner(rest.reshape(u.shape)).to(self.dtype).reshape(flat.shape)
        again = self._coarse((self.images @ rest[..., None])[..., 0])
        return (rest + (own - again) @ self.basis).reshape(u.shape)

    def _coarse(self, right: torch.Tensor) -> torch.Tensor:
        """``E^-1 right``; right (*batch, k)."""
        return torch.cholesky_solve(right[..., None], self.factor)[..., 0]

    def _combined(self, coefficients: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (coefficients[..., None, :] @ rows)[..., 0, :]


def principal_directions(
    solutions: torch.Tensor, count: int, threshold: float = _DEPENDENT
) -> torch.Tensor:
    """Up to ``count`` orthonormal directions (k, *shape), the most important first.

    ``solutions``: (m, *shape). Directions with a singular value below ``threshold`` times the
    largest are left out. Raises InputError where a solution is not finite.
    """
    rows = solutions.detach().to(torch.float64).flatten(1)
    if not bool(torch.isfinite(rows).all()):
        raise InputError("a vector of the deflation subspace holds a NaN or an infinity")
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    kept = (values > threshold * values[0]).sum() if len(values) else 0
    first: torch.Tensor = directions[: min(count, int(kept))]
    return first.reshape(-1, *solutions.shape[1:])


def _basis(vectors: torch.Tensor, A: LinearMap) -> torch.Tensor:
    if tuple(vectors.shape[1:]) != A.shape:
        raise InputError(
            f"deflation: vectors have shape {list(vectors.shape)}; "
            f"it must be the number of them, then the operator's {list(A.shape)}"
        )
    rows = vectors.detach().to(A.device, torch.float64).flatten(1)
    # Vectors count by their direction, however long or short.
    lengths = rows.norm(dim=1, keepdim=True)
    rows = rows / torch.where(lengths > 0, lengths, 1.0)
    if A.nullspace:
        rows = without_kernel(A, rows.reshape(-1, *A.shape)).flatten(1)
    return principal_directions(rows, len(rows))


@dataclass(frozen=True)
class DeflatedCG(LinearSolver):
    """CG that deflates the span of its own last ``count`` solutions: for sequences of systems.

    The set-up remembers: each ``run`` adds its solution, and ``follow`` hands all of them on to the
    set-up of the next system. A basis is made anew at every new matrix, and for one matrix
    whenever as many solutions have come as are in it; directions below ``rtol`` are left out.
    ``work_units``: iterations and the products with A that made the basis.
    """

    count: int = 10
    preconditioner: Preconditioner | None = None
    kind: Literal["deflated_cg"] = "deflated_cg"
    rtol: float = 1e-8
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations, count=self.count)

    def setup(self, A: LinearMap) -> Recycling:
        """Set up the preconditioner; nothing is deflated yet."""
        return self._recycling(A, deque(maxlen=self.count))

    def follow(self, state: LinearState, system: LinearSystem) -> LinearState:
        """The set-up of the next system, of the same shape, that remembers what came before."""
        begun = self.init(system)
        prepared = self._recycling(system.A.detach(), state.prepared.solutions, begun.prepared.M)
        return replace(begun, prepared=prepared)

    def _recycling(
        self, A: LinearMap, solutions: deque[torch.Tensor], M: LinearMap | None = None
    ) -> Recycling:
        if A.dtype.is_complex:
            raise InputError(f"{self.kind} needs a real operator; use gmres", "solver.kind")
        require_definite(self.kind, A)
        M = setup_preconditioner(self.preconditioner, A) if M is None else M
        require_definite_preconditioner(self.kind, M, nonlinear="fcg")
        return Recycling(M, solutions)

    def iterate(
        self,
        A: LinearMap,
        prepared: Recycling,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        """Run CG to the tolerance, and remember the answer."""
        products = prepared.refresh(A, self.rtol)
        method = CG(rtol=self.rtol, max_iterations=self.max_iterations)
        result = method.iterate(A, KrylovState(prepared.map), b, initial, progress)
        prepared.remember(A, result.x)
        size = 0 if prepared.deflated is None else len(prepared.deflated.basis)
        return replace(
            result,
            work_units=float(result.iterations.max()) + products,
            notes=(*result.notes, f"{size} directions deflated"),
        )


@dataclass
class Recycling:
    """What deflated CG carries along: the preconditioner, solutions, and the basis made of them."""

    M: LinearMap | None
    solutions: deque[torch.Tensor]
    deflated: DeflatedInverse | None = None
    fresh: int = field(default=0, init=False)

    @property
    def map(self) -> LinearMap | None:
        """The deflated preconditioner; the bare one before there is a solution."""
        return self.M if self.deflated is None else self.deflated

    @property
    def notes(self) -> tuple[str, ...]:
        """What the preconditioner's set-up has to say."""
        return getattr(self.M, "notes", ())

    def refresh(self, A: LinearMap, threshold: float) -> int:
        """Make the basis anew where that is due; returns the products with A it took."""
        held = 0 if self.deflated is None else len(self.deflated.basis)
        if not self.solutions or (self.deflated is not None and self.fresh < held):
            return 0
        known = torch.stack(tuple(self.solutions))
        vectors = principal_directions(known, len(known), threshold)
        if not len(vectors):
            return 0
        self.deflated = Deflation(vectors.to(A.device), self.M).setup(A)
        self.fresh = 0
        return len(vectors)

    def remember(self, A: LinearMap, x: torch.Tensor) -> None:
        """Add the solutions of all samples, x (*batch, *shape), that are finite."""
        samples = x.detach().reshape(-1, *A.shape)
        finite = torch.isfinite(samples.flatten(1)).all(dim=1)
        self.solutions.extend(samples[finite].clone())
        self.fresh += int(finite.sum())
