"""From a trained function to a Solution: its residual at fresh points, and on the grid.

The residual of the answer is the largest, over the equation and its conditions, of

    rms(r_k) / scale_k       at points that the training never saw,

scale of the equation: rms of the sum of its terms' sizes; of a condition: rms of u, or of u and its
flux. On a grid the discrete residual ||b - A u|| / ||b|| is noted beside it, and where the discrete
operator is symmetric definite the certificate bounds the distance to the grid's own solution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.table import looked_up_outside
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.status import Status
from sciml.discretization import discretize, semidiscretize
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.certify import certify
from sciml.solvers.linear.iteration import relative_residual
from sciml.solvers.linear.krylov import CG, FCG, GMRES, MINRES, BiCGStab
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.nonlinear.descent import at
from sciml.solvers.nonlinear.newton import Newton
from sciml.solvers.trained.conditions import Piece, beside_rim
from sciml.solvers.trained.correction import estimated_error, far_from_singular
from sciml.solvers.trained.function import TrainedFunction
from sciml.solvers.trained.identification import Identification, identify
from sciml.solvers.trained.level import free_constants
from sciml.solvers.trained.minimisation import OptimiserResult
from sciml.solvers.trained.objective import Objective
from sciml.solvers.trained.observations import OBSERVED, Misfit, judge
from sciml.solvers.trained.sampling import sobol

# Those that go on from a guess on a grid, for linear and for nonlinear problems.
Polish = CG | FCG | MINRES | BiCGStab | GMRES | Multigrid | AMG | Newton
TEST_POINTS = 10_000
_CHUNK = 2**16  # points evaluated at once
# An estimated error above these, in rtol and of the answer, is not what was asked for.
_AMPLIFIED, _SURE = 100.0, 1e-3


@dataclass(frozen=True)
class Scales:
    """What residuals are compared with: rms of the equation's terms, of u, of u and its flux.

    ``own``: of conditions that are written out, by their side, that of their terms.
    """

    equation: float
    value: float
    flux: float
    own: Mapping[str, float] = field(default_factory=dict)

    def of(self, piece: Piece) -> float:
        """That of one piece."""
        if piece.name == "equation":
            return self.equation
        if piece.name in self.own:
            return self.own[piece.name]
        return self.flux if piece.flux else self.value


class Fresh:
    """Points at which an objective's residuals are measured, ansatz after ansatz.

    ``count`` of the equation, a tenth of them of every condition.
    """

    def __init__(self, objective: Objective, count: int = TEST_POINTS, seed: int = 2**31 - 1):
        objective.settle()
        generator = torch.Generator().manual_seed(seed)
        self.ruler = Ruler(objective, count)
        self.placed: list[tuple[Piece, list[tuple[Tensor, Any]]]] = []
        for piece in objective.pieces:
            if piece.name == OBSERVED:
                continue
            n = count if piece.name == "equation" else max(1, count // 10)
            points = piece.place(sobol(n, piece.free, generator))
            parts = [piece.seen(part) for part in points.split(_CHUNK)]
            known = [(part, objective.ansatz.known(part, piece.pairs)) for part in parts]
            self.placed.append((piece, known))

    def relative(self, objective: Objective) -> dict[str, float]:
        """The relative residual of every piece, by name."""
        objective.settle()
        scales, found = self.ruler.scales(objective), {}
        for piece, parts in self.placed:
            squares, total = 0.0, 0
            for part, known in parts:
                with torch.no_grad():
                    r = piece.residual(part, objective.ansatz.jet(part, piece.pairs, known))
                squares, total = squares + float(r.square().sum()), total + len(r)
            found[piece.name] = (squares / total) ** 0.5 / max(scales.of(piece), 1e-300)
        return found


def measure(
    objective: Objective, count: int = TEST_POINTS, seed: int = 2**31 - 1
) -> dict[str, float]:
    """The relative residual of every piece at ``count`` fresh points, by name."""
    return Fresh(objective, count, seed).relative(objective)


def largest(relative: Mapping[str, float]) -> float:
    """Of the equation and its conditions."""
    return max(relative.values())


@torch.no_grad()
def misfit_of(objective: Objective, rtol: float) -> Misfit | None:
    """What is left of the observations, None where there are none."""
    observed = objective.observed
    if observed is None:
        return None
    objective.settle()
    known = objective.ansatz.known(observed.points, ())
    gap = observed.gap(objective.ansatz.jet(observed.points, (), known))
    piece = objective.pieces[0]
    inside = piece.place(sobol(500, piece.free, torch.Generator().manual_seed(0)))
    spread = observed.spread(objective.ansatz.value(inside))
    return judge(observed, gap, spread, rtol, len(objective.unknown))


def met(objective: Objective, rtol: float) -> bool:
    """Whether residuals at fresh points are within tolerance, misfits no more than noise."""
    misfit = misfit_of(objective, rtol)
    return largest(measure(objective, 2000)) <= rtol and (misfit is None or misfit.fault is None)


class Ruler:
    """The points at which scales are read, ansatz after ansatz."""

    @torch.no_grad()
    def __init__(self, objective: Objective, count: int = 2000) -> None:
        piece, ansatz = objective.pieces[0], objective.ansatz
        self.free = free_constants(objective)
        n = min(count, 2000)
        self.points = piece.place(sobol(n, piece.free, torch.Generator().manual_seed(0)))
        self.seen = piece.seen(self.points)
        self.known = ansatz.known(self.seen, objective.form.pairs)
        self.own = [
            (p, ansatz.known(self.points, p.pairs)) for p in objective.pieces if p.terms is not None
        ]

    @torch.no_grad()
    def scales(self, objective: Objective) -> Scales:
        """Of the ansatz as it is now."""
        form, ansatz, x = objective.form, objective.ansatz, self.points
        jet = ansatz.jet(self.seen, form.pairs, self.known)
        size = _size(form.terms(self.seen, jet))
        jet = jet.select(slice(len(x)))
        # A constant that is free would make all residuals small beside it.
        value = float((jet.value - self.free @ jet.value.mean(0)).square().sum(-1).mean().sqrt())
        flux = value
        if any(p.flux for p in objective.pieces):
            flux += float(form.flux(x, jet).square().sum((0, 2)).mean().sqrt())
        own = {}
        for p, known in self.own:
            assert p.terms is not None
            own[p.name] = _size(p.terms(x, ansatz.jet(x, p.pairs, known)))
        return Scales(size, value, flux, own)


def scales_of(objective: Objective, count: int = 2000) -> Scales:
    """Of the ansatz as it is now."""
    return Ruler(objective, count).scales(objective)


def _size(terms: Sequence[Tensor]) -> float:
    """The rms of the sum of the terms' sizes."""
    total = torch.stack([term.abs() for term in terms]).sum(0)
    return float(total.square().sum(-1).mean().sqrt())


def answered(
    solver: Any,
    objective: Objective,
    course: OptimiserResult,
    on: Grid | Points | Mesh,
    setup_seconds: float,
    rtol: float,
    notes: Sequence[str] = (),
) -> Solution:
    """The Solution of a trained ansatz on a grid or at points."""
    problem = _known(objective)
    function = TrainedFunction.of(objective)
    level = function.level
    # A mesh's nodes lie in it whatever rounding says.
    value = values(level.value if isinstance(on, Mesh) else function, problem, on)
    relative = measure(objective)
    worst = largest(relative)
    residual = torch.tensor(worst, dtype=torch.float64)
    misfit = misfit_of(objective, rtol)
    known = Identification({}, ())
    if misfit is not None and objective.unknown and worst == worst:
        known = identify(objective, misfit.deviation)
        if known.open and worst > rtol:
            known = Identification({}, (), ("no standard errors: the equation is not met",))
    faults = [*([misfit.fault] if misfit is not None and misfit.fault else []), *known.open]
    status = _status(course.status, worst, rtol, misfit, known)
    amplified: list[str] = []
    if status.success and not objective.unknown and not far_from_singular(problem):
        share = estimated_error(objective, scales_of(objective).of)
        if not share <= max(_AMPLIFIED * rtol, _SURE):
            status = Status.NEARLY_SINGULAR
            amplified.append(
                f"the residual that is left comes to an error of about {100 * share:.2g} % of the "
                "answer, by one correction in polynomials"
            )
    outside = tuple(sorted(objective.form.data.left))
    fitted = [
        f"found {name} = {value:.8g}" + _surely(known.errors.get(name))
        for name, value in objective.found.items()
    ]
    levels = level.notes(objective.form.fields)
    said = _said(relative if misfit is None else {**relative, OBSERVED: misfit.relative})
    remarks = [
        *objective.notes,
        *course.notes,
        *notes,
        *fitted,
        *levels,
        *faults,
        *known.notes,
        *amplified,
        *looked_up_outside(outside),
        said,
    ]
    checked = value
    if function.hole is not None and not isinstance(on, Mesh):
        filled, inside = beside_rim(objective.form), value.isnan()
        if filled is not None:  # as on a grid
            checked = value = torch.where(inside, values(filled, problem, on), value)
        else:
            checked = torch.where(inside, values(level.value, problem, on), value)
    solution = Solution(
        value=value,
        residual=residual,
        statuses=(status.given(outside),),
        stats=Statistics(
            torch.tensor(len(course.losses)),
            torch.tensor(course.losses, dtype=torch.float64).clamp(min=0).sqrt(),
            setup_seconds,
            course.seconds,
        ),
        on=on,
        solver=solver,
        notes=tuple(remarks),
        times=None
        if problem.time is None
        else torch.tensor(problem.time.instants, dtype=torch.float64),
        fields=objective.form.fields,
        function=function,
        measure=level.measure(on),
        parameters=objective.found,
        standard_errors=known.errors,
        trained=objective,
        outside=outside,
    )
    polish = solver.polish
    if polish is not None:
        return _on_grid(_polished(replace(solution, value=checked), problem, on, polish),
                        problem, on)  # fmt: skip
    return replace(_on_grid(replace(solution, value=checked), problem, on), value=value)


def _polished(
    solution: Solution, problem: Problem, on: Grid | Points | Mesh, polish: Polish
) -> Solution:
    """The grid's own solution, by a solver that starts from the trained function."""
    if not isinstance(on, Grid) or problem.time is not None:
        raise InputError("polish is for steady problems on a grid", "solver.polish")
    state: Any = polish.init(problem, on)
    found = polish.run(state, initial=solution.value)
    count = int(found.stats.iterations.max())
    note = f"polish: {polish.kind}, {count} iterations from the trained function"
    # What is wrong with the unknowns, or with what was observed, a grid does not mend.
    bound = problem.observations is not None and not solution.status.success
    stats = replace(
        solution.stats,
        setup_seconds=solution.stats.setup_seconds + found.stats.setup_seconds,
        solve_seconds=solution.stats.solve_seconds + found.stats.solve_seconds,
    )
    return replace(
        solution,
        value=found.value,
        residual=found.residual,
        statuses=solution.statuses if bound else found.statuses,
        stats=stats,
        notes=(*solution.notes, note, *found.notes),
        function=None,
    )


def _known(objective: Objective) -> Problem:
    """The problem, what was unknown of it put in."""
    problem = objective.form.problem
    return replace(problem, parameters={**problem.parameters, **objective.found})


def values(
    function: Callable[[Tensor], Tensor], problem: Problem, on: Grid | Points | Mesh
) -> Tensor:
    """u at the points of a grid, a mesh or a cloud: ([frames], [fields], *shape)."""
    columns = on.coordinates()
    count = math.prod(on.shape)
    flat = [c.reshape(count, 1) for c in columns]
    space = torch.cat([torch.zeros(count, 0, dtype=torch.float64), *flat], 1)
    frames = []
    for t in (None,) if problem.time is None else problem.time.instants:
        x = space if t is None else torch.cat([space, space.new_full((count, 1), t)], 1)
        value = torch.cat([function(part) for part in x.split(_CHUNK)])
        several = value.shape[1] > 1
        frames.append(value.T.reshape(*((-1,) if several else ()), *on.shape))
    return frames[0] if problem.time is None else torch.stack(frames)


def _status(
    status: Status, worst: float, rtol: float, misfit: Misfit | None, known: Identification
) -> Status:
    if worst != worst or status is Status.NOT_FINITE:
        return Status.NOT_FINITE
    if worst <= rtol:
        if misfit is not None and misfit.fault is not None:
            return Status.MISFIT
        return Status.UNDETERMINED if known.open else Status.CONVERGED
    return Status.RESIDUAL_MISMATCH if status.success else status


def _surely(error: float | None) -> str:
    """What stands behind a value with this standard error."""
    return "" if error is None or error == float("inf") else f" +- {error:.2g}"


def _said(relative: dict[str, float]) -> str:
    parts = ", ".join(f"{name} {value:.2e}" for name, value in relative.items())
    return f"relative residuals at fresh points: {parts}"


def _on_grid(solution: Solution, problem: Problem, on: Grid | Points | Mesh) -> Solution:
    """With the discrete residual in the notes, and a certificate where one can be had."""
    if not isinstance(on, Grid) or problem.time is not None or len(solution.fields) > 1:
        return solution
    if problem.equation.written_out:
        return solution  # no grid knows it
    try:
        if not problem.linear:
            system = semidiscretize(problem, on)
            found = float(at(system, system.restrict(solution.value)).relative)
            return _noted(solution, f"discrete residual on the grid: {found:.2e}")
        linear = discretize(problem, on)
        found = float(relative_residual(linear.A, linear.restrict(solution.value), linear.b))
        solution = _noted(solution, f"discrete residual on the grid: {found:.2e}")
        return replace(solution, certificate=certify(solution.value, linear))
    except InputError as error:
        return _noted(solution, f"no check on the grid: {error.message}")


def _noted(solution: Solution, note: str) -> Solution:
    return replace(solution, notes=(*solution.notes, note))
