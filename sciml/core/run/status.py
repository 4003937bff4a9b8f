"""Why a solver stopped, as a typed reason that carries its own advice."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum


class Status(Enum):
    """Why a solve ended; the value is one sentence on what happened and what to try.

    ``CONVERGED`` and ``CERTIFIED`` alone mean success: the residual is within the tolerance, or the
    error is guaranteed to be.
    """

    CONVERGED = "The true relative residual is at or below the tolerance."
    CERTIFIED = (
        "The distance to the solution of the differential equation is guaranteed to be within what "
        "was asked for."
    )
    INACCURATE = (
        "The error could not be guaranteed to be within what was asked for by as many unknowns as "
        "are allowed; allow most: more of them, or ask for less."
    )
    MAX_ITERATIONS = (
        "The iteration limit was reached before the tolerance; "
        "raise max_iterations or use a stronger preconditioner, such as multigrid."
    )
    STAGNATED = (
        "The residual stopped falling above the tolerance; "
        "the tolerance is below what this precision can reach, or the preconditioner is too weak."
    )
    DIVERGED = (
        "The residual grew; the method does not suit this operator: "
        "use gmres for a nonsymmetric one, minres for an indefinite one, or direct."
    )
    BREAKDOWN = "The Krylov recurrence divided by zero; restart from another guess or use gmres."
    INDEFINITE_OPERATOR = (
        "A direction of negative curvature was met, so the operator is not positive definite; "
        "use minres (symmetric) or gmres."
    )
    INDEFINITE_PRECONDITIONER = (
        "The preconditioner is not positive definite; use gmres, "
        "or check it with sciml.check_preconditioner."
    )
    NOT_FINITE = (
        "A NaN or an infinity appeared; look for one in the coefficients, "
        "the right-hand side or the preconditioner."
    )
    LOST_TO_ROUNDING = (
        "Rounding in A x is far above the tolerance, so that no residual bears the answer out; "
        "the operator is singular to rounding, or badly scaled: fix the level of u, or scale it."
    )
    INCOMPATIBLE = (
        "The operator is singular and the right-hand side is not in its range, so that there is no "
        "solution; make the data compatible, or fix the level of u on every part of the domain."
    )
    LINE_SEARCH_FAILED = (
        "No step along Newton's direction made the residual fall; start from a better guess, "
        "use continuation in a parameter, or picard for a degenerate equation."
    )
    NOT_CONVEX = (
        "The energy is not convex at the iterate, so that a descent method has no direction; "
        "use newton with gmres, or start nearer to the minimum."
    )
    BLOWN_UP = (
        "The solution became infinite; the frames before are kept. "
        "Take a smaller step, or an implicit method."
    )
    STEP_TOO_SMALL = (
        "The error estimate asked for ever smaller time steps; the frames before are kept. "
        "Raise rtol, or use an implicit method for a stiff equation."
    )
    OUTSIDE_TABLE = (
        "A table was looked up outside its range, where it has no value; "
        "extend it, or write outside: hold to keep its ends."
    )
    NO_EQUILIBRIUM = (
        "No equilibrium was found under the loads of a step, however short; the frames before are "
        "kept. Beyond a limit load there is none: prescribe displacements, or give hardening."
    )
    INACCURATE_IN_TIME = (
        "The estimated error of the time steps is above rtol; take smaller steps or raise rtol."
    )
    UNDER_RESOLVED = (
        "The grid does not see half or more of what was stated, so that another problem was "
        "solved; take a finer grid, or data that it can hold."
    )
    PREDICTED = (
        "A network's prediction, held to no tolerance; look at its residual and certificate, "
        "or give polish: a solver that takes it to a tolerance."
    )
    TRAINING_ENDED = (
        "Training ended before the residual at fresh points met rtol; give more iterations, points "
        "or a wider network, or polish: a solver that goes on from the answer on the grid."
    )
    NEARLY_SINGULAR = (
        "The residual is within tolerance, but the operator makes something so small that the "
        "error is not; lower rtol, train longer, or move the problem away from its eigenvalue."
    )
    MISFIT = (
        "The equation is met, but the observations are missed by more than their noise; give the "
        "unknowns better guesses or bounds, look at the data and the equation, or state noise:."
    )
    UNDETERMINED = (
        "The observations do not determine all unknowns: other values would do as well; the notes "
        "say which. Observe more, or give some of them as numbers."
    )
    RESIDUAL_MISMATCH = (
        "The method reported convergence but the recomputed residual is above the tolerance; "
        "lower rtol, or use a better-conditioned formulation."
    )

    @property
    def success(self) -> bool:
        """Whether the answer may be used as it is."""
        return self in (Status.CONVERGED, Status.CERTIFIED)

    def __str__(self) -> str:
        return f"{self.name.lower().replace('_', ' ')}: {self.value}"

    def given(self, outside: Collection[str]) -> Status:
        """The status where the tables ``outside`` were looked up outside their ranges.

        A table has no value there: a run that ended for want of a finite number ended by it.
        """
        return Status.OUTSIDE_TABLE if outside and self in _WITHOUT_VALUE else self


class Doubt(str):
    """A note that says that the answer may be wrong by more than a few per cent.

    It stands among the others; where one does, no report calls the answer good.
    """

    __slots__ = ()


_WITHOUT_VALUE = (
    Status.NOT_FINITE,
    Status.LINE_SEARCH_FAILED,
    Status.BLOWN_UP,
    Status.STEP_TOO_SMALL,
)
