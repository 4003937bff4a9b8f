"""What a linear iteration gets from its interface, and when it is told to end, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import scipy.sparse
import torch
from test_solvers import diffusion, exact, random_definite, right_side

import sciml
from sciml import Status, solvers
from sciml.core.algebra.maps import LinearMap, LinearSystem, SparseMatrix
from sciml.core.errors import InputError, SolveError
from sciml.core.run.solve import Progress
from sciml.solvers.linear.iteration import (
    Ledger,
    LinearSolver,
    Outcome,
    StationaryMethod,
    axpy,
    dot,
    norm,
    precondition,
    ratio,
    spread,
    verified,
    xpay,
)
from sciml.solvers.linear.krylov import KrylovMethod, Traits

torch.set_num_threads(1)


@dataclass(frozen=True)
class ConjugateResiduals(KrylovMethod):
    """A whole new method: the least residual of symmetric definite systems (Stiefel 1955)."""

    kind: Literal["conjugate_residuals"] = "conjugate_residuals"
    traits = Traits(operator="definite", preconditioner="definite")
    window = 1000

    def method(
        self, A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
    ) -> None:
        d = len(A.shape)
        z = precondition(A, M, r).clone()
        p, q = z.clone(), A.apply(z)
        rho = dot(z, q, d)
        while ledger.active:
            image = precondition(A, M, q)
            alpha = ratio(rho, dot(q, image, d), ledger.running)
            axpy(alpha, p, x)
            axpy(-alpha, q, r)
            ledger.record(norm(r, d))
            z = z - spread(alpha, d) * image
            w = A.apply(z)
            rho, before = dot(z, w, d), rho
            beta = ratio(rho, before, ledger.running)
            xpay(z, beta, p)
            xpay(w, beta, q)


# z is updated, not computed anew, so that single precision would drift.
EXACT = solvers.Multigrid(dtype="float64")
NEW = {
    "1d": (lambda: diffusion((40,)), None),
    "jacobi": (lambda: diffusion((17, 14)), solvers.Jacobi()),
    "multigrid": (lambda: diffusion((17, 14)), EXACT),
    "singular": (lambda: diffusion((12, 13), neumann=True), EXACT),
    "matrix": (lambda: random_definite(150), solvers.AMG()),
    "batches": (lambda: diffusion((8, 7), batch=(2, 2)), solvers.Jacobi()),
}


@pytest.mark.parametrize("name", NEW)
def test_a_new_method_is_a_recurrence(name: str) -> None:
    make, M = NEW[name]
    A = make()
    b = right_side(A)
    seen: list[float] = []
    solver = ConjugateResiduals(preconditioner=M, rtol=1e-10)
    solution = sciml.solve(A, b, solver, progress=lambda _, relative: seen.append(relative))
    assert solution.converged if A.batch == () else bool(solution.converged.all())
    assert float(solution.residual.max()) <= 1.01e-10
    # A condition of 1e4 stands between residual and error.
    np.testing.assert_allclose(solution.value.numpy(), exact(A, b), atol=1e-5, rtol=0)
    assert len(seen) == int(solution.stats.iterations.max())
    if M is None:
        assert solution.stats.work_units == len(seen)
    if M is EXACT:
        assert solution.stats.work_units == len(seen) * (1 + M.setup(A).work_units)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_the_new_methods_iterates_are_those_of_minres(count: int) -> None:
    A = diffusion((9, 8), contrast=4.0)
    b = right_side(A)
    ours, theirs = (
        sciml.solve(A, b, kind(max_iterations=count), throw=False).value
        for kind in (ConjugateResiduals, solvers.MINRES)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_the_new_method_has_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    K = 0.5 + torch.rand(5, 5, generator=generator, dtype=torch.float64)

    def answer(K: torch.Tensor) -> torch.Tensor:
        problem = sciml.Problem(
            sciml.Box((0.0, 0.0), (1.0, 1.0)),
            sciml.Equation(K=K, f=1.0),
            {"all": sciml.Condition(dirichlet=0.0)},
        )
        return sciml.solve(problem, ConjugateResiduals(rtol=1e-13), on=sciml.Grid((5, 5))).value

    assert torch.autograd.gradcheck(answer, [K.requires_grad_()], atol=1e-6)


def _map(symmetric: bool, trusted: bool) -> LinearMap:
    half = scipy.sparse.diags([1.0, 0.0 if symmetric else 0.5], [0, 1], shape=(150, 150))
    M = SparseMatrix(half.tocsr(), symmetric=True, definite=True)
    M.trusted = trusted
    return M


@pytest.mark.parametrize(
    ("A", "options", "message"),
    [
        (lambda: diffusion((9, 9), advection=3.0), {}, "needs a symmetric operator"),
        (lambda: diffusion((9, 9), shift=3.0), {}, "needs a positive definite operator"),
        (lambda: random_definite(150), {"preconditioner": solvers.ILU()}, "not symmetric"),
        (
            lambda: random_definite(150),
            {"preconditioner": _map(symmetric=False, trusted=False)},
            "random probes found .* not symmetric",
        ),
        (lambda: random_definite(150), {"rtol": 2.0}, "rtol must lie between 0 and 1"),
        (lambda: random_definite(150), {"max_iterations": 0}, "max_iterations must be at least 1"),
        (
            lambda: SparseMatrix(np.eye(3) * (1 + 0j), definite=True),
            {},
            "conjugate_residuals needs real numbers",
        ),
    ],
)
def test_the_new_method_refuses_what_its_traits_exclude(
    A: Any, options: dict[str, Any], message: str
) -> None:
    operator = A()
    with pytest.raises(InputError, match=message):
        sciml.solve(operator, right_side(operator), ConjugateResiduals(**options))


def test_an_untrusted_map_that_suits_is_taken() -> None:
    A = random_definite(150)
    solver = ConjugateResiduals(preconditioner=_map(symmetric=True, trusted=False))
    assert sciml.solve(A, right_side(A), solver).converged


@dataclass(frozen=True)
class Scripted(KrylovMethod):
    """For A = 1: the residual is multiplied by each of ``factors`` in turn, the last for ever.

    ``spoil``: the step at which r alone becomes NaN. ``lie``: r says zero, x stays; x is NaN where
    that is spoilt.
    """

    factors: tuple[tuple[float, ...], ...] = ()
    spoil: int | None = None
    lie: bool = False
    kind: Literal["scripted"] = "scripted"
    traits = Traits(operator="any", preconditioner="linear")
    window = 7

    def method(
        self, A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
    ) -> None:
        while ledger.active:
            factor = torch.tensor(
                [script[min(ledger.count, len(script) - 1)] for script in self.factors],
                dtype=torch.float64,
            ).reshape(ledger.scale.shape)
            factor = torch.where(ledger.running, factor, 1.0)[..., None]
            if self.lie:
                r.zero_()
            else:
                x.add_((1 - factor) * r)
                r.mul_(factor)
            if ledger.count + 1 == self.spoil:
                (x if self.lie else r).fill_(torch.nan)
            ledger.record(norm(r, 1))


def _run(*factors: tuple[float, ...], **options: Any) -> sciml.Solution:
    solver = Scripted(factors=factors, **options)
    b = torch.ones(4) if len(factors) == 1 else torch.ones(len(factors), 4)
    return sciml.solve(SparseMatrix(np.eye(4)), b, solver, throw=False)


@pytest.mark.parametrize("last", [1.0, 0.9999, 1.5])
def test_a_residual_that_stands_still_ends_as_stagnated_after_the_window(last: float) -> None:
    solution = _run((0.5, 0.5, 0.5, last))
    assert solution.status is Status.STAGNATED
    assert int(solution.stats.iterations) == 3 + Scripted.window


def test_a_first_step_that_does_not_help_counts_too() -> None:
    solution = _run((1.0,))
    assert solution.status is Status.STAGNATED
    assert int(solution.stats.iterations) == Scripted.window


def test_a_slow_fall_is_no_stagnation() -> None:
    # 0.5 % a step are 1 % in three, and a pause shorter than the window is forgiven.
    assert _run((0.995,), max_iterations=40).status is Status.MAX_ITERATIONS
    pauses = ((*(1.0,) * (Scripted.window - 1), 0.5) * 5, 0.5)
    solution = _run((*pauses[0], pauses[1]), rtol=0.01)
    assert solution.status is Status.CONVERGED
    assert int(solution.stats.iterations) == 5 * Scripted.window + 2


def test_each_sample_has_its_own_window() -> None:
    solution = _run((0.1,), (0.5, 1.0), (*(1.0,) * 5, 0.1), rtol=2e-8)
    assert solution.statuses == (Status.CONVERGED, Status.STAGNATED, Status.CONVERGED)
    assert solution.stats.iterations.tolist() == [8, 1 + Scripted.window, 5 + 8]


def test_a_nan_in_the_residual_ends_the_sample_at_once() -> None:
    solution = _run((0.5,), spoil=3)
    assert solution.status is Status.NOT_FINITE
    assert int(solution.stats.iterations) == 3


def test_a_nan_in_the_first_guess_is_told_before_any_iteration() -> None:
    A = diffusion((9, 9))
    guess = torch.full(A.shape, torch.nan, dtype=torch.float64)
    for solver in (solvers.CG(), solvers.GMRES(), solvers.Multigrid(full=False)):
        solution = sciml.solve(A, right_side(A), solver, initial=guess, throw=False)
        assert solution.status is Status.NOT_FINITE
        assert int(solution.stats.iterations) == 0


def test_a_claim_that_the_true_residual_denies_ends_at_the_first_restart() -> None:
    solution = _run((0.5,), lie=True)
    assert solution.status is Status.STAGNATED
    assert int(solution.stats.iterations) == 1
    assert float(solution.residual) == 1.0


def test_a_nan_in_an_answer_that_claims_to_have_converged_is_told() -> None:
    A, solver = SparseMatrix(np.eye(4)), Scripted(factors=((0.5,),), spoil=1, lie=True)
    outcome = solver.iterate(A, solver.setup(A), torch.ones(4), None, None)
    assert outcome.statuses == (Status.NOT_FINITE,)


@dataclass(frozen=True)
class Cycles(StationaryMethod):
    """``x += M (b - A x)`` for a given M."""

    M: LinearMap
    kind: Literal["cycles"] = "cycles"
    rtol: float = 1e-8
    max_iterations: int = 100
    window = 50

    def setup(self, A: LinearMap) -> LinearMap:
        return self.M


@pytest.mark.parametrize(("growth", "steps"), [(2.0, 14), (10.1, 4), (1e5, 1)])
def test_divergence_is_a_residual_ten_thousand_times_the_first(growth: float, steps: int) -> None:
    A, M = SparseMatrix(np.eye(4)), SparseMatrix((1 - growth) * np.eye(4))
    solution = sciml.solve(A, torch.ones(4), Cycles(M), throw=False)
    assert solution.status is Status.DIVERGED
    assert int(solution.stats.iterations) == steps


def test_a_residual_that_grows_a_little_has_not_diverged() -> None:
    A, M = SparseMatrix(np.eye(4)), SparseMatrix(-0.1 * np.eye(4))
    solution = sciml.solve(A, torch.ones(4), Cycles(M, max_iterations=49), throw=False)
    assert solution.status is Status.MAX_ITERATIONS


class Spoiled(SparseMatrix):
    """A matrix whose product holds a NaN from the given call on, or has the other sign."""

    def __init__(self, matrix: np.ndarray, at: int, *, sign: bool = False) -> None:
        super().__init__(matrix, symmetric=True, definite=True)
        self.calls, self.at, self.sign = 0, at, sign

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        image = super().apply(u)
        if self.calls < self.at:
            return image
        return -image if self.sign else image * torch.nan


MATRIX = np.diag(np.arange(1.0, 9.0))


@pytest.mark.parametrize("kind", [solvers.CG, solvers.FCG])
def test_what_was_found_before_a_nan_is_kept(kind: Any) -> None:
    b = torch.ones(8, dtype=torch.float64)
    by_operator = sciml.solve(Spoiled(MATRIX, 3), b, kind(), throw=False)
    assert by_operator.status is Status.NOT_FINITE
    assert int(by_operator.stats.iterations) == 2
    assert bool(torch.isfinite(by_operator.value).all())


def test_what_was_found_before_a_preconditioners_nan_is_kept() -> None:
    b = torch.ones(8, dtype=torch.float64)
    M = Spoiled(np.diag(1 / np.arange(2.0, 10.0)), 3)
    solution = sciml.solve(SparseMatrix(MATRIX), b, solvers.CG(preconditioner=M), throw=False)
    assert solution.status is Status.NOT_FINITE
    assert int(solution.stats.iterations) == 2
    assert bool(torch.isfinite(solution.value).all())


@pytest.mark.parametrize("kind", [solvers.CG, solvers.FCG])
def test_curvature_that_turns_negative_ends_with_what_was_found(kind: Any) -> None:
    b = torch.ones(8, dtype=torch.float64)
    solution = sciml.solve(Spoiled(MATRIX, 3, sign=True), b, kind(), throw=False)
    assert solution.status is Status.INDEFINITE_OPERATOR
    assert int(solution.stats.iterations) == 2
    M = Spoiled(np.eye(8), 3, sign=True)
    solution = sciml.solve(SparseMatrix(MATRIX), b, kind(preconditioner=M), throw=False)
    assert solution.status is Status.INDEFINITE_PRECONDITIONER
    assert int(solution.stats.iterations) == 2
    # Curvature that is zero stops the method too; why, is told of the system.
    zero = SparseMatrix(0 * MATRIX, definite=True)
    outcome = kind().iterate(zero, kind().setup(zero), b, None, None)
    assert outcome.statuses == (Status.INDEFINITE_OPERATOR,)
    assert sciml.solve(zero, b, kind(), throw=False).status is Status.INCOMPATIBLE


@dataclass(frozen=True)
class Liar(LinearSolver):
    """Says that it converged, with zero."""

    kind: Literal["liar"] = "liar"
    rtol: float = 1e-8

    def setup(self, A: LinearMap) -> None:
        return None

    def iterate(
        self,
        A: LinearMap,
        prepared: None,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        none = torch.zeros((), dtype=torch.int64)
        return Outcome(torch.zeros_like(b), (Status.CONVERGED,), none, torch.zeros(1))


def test_convergence_that_is_only_claimed_is_a_mismatch() -> None:
    system = LinearSystem(SparseMatrix(np.eye(4)), torch.ones(4, dtype=torch.float64))
    assert sciml.solve(system, Liar(), throw=False).status is Status.RESIDUAL_MISMATCH
    with pytest.raises(SolveError, match="residual mismatch"):
        sciml.solve(system, Liar())


@pytest.mark.parametrize(
    ("status", "residual", "expected"),
    [
        (Status.CONVERGED, 1e-8, Status.CONVERGED),
        (Status.CONVERGED, 1.02e-8, Status.RESIDUAL_MISMATCH),
        (Status.CONVERGED, float("nan"), Status.NOT_FINITE),
        (Status.STAGNATED, 1.0e-8, Status.CONVERGED),
        (Status.STAGNATED, 1.02e-8, Status.STAGNATED),
        (Status.MAX_ITERATIONS, float("inf"), Status.MAX_ITERATIONS),
    ],
)
def test_the_true_residual_alone_decides(status: Status, residual: float, expected: Status) -> None:
    assert verified(status, residual, 1e-8) is expected
