"""What a grid leaves out of an answer: the share of the data it does not see, the error of space.

A solver is asked for a tolerance of its own, of the algebraic equations or of its steps in time,
and its status is about that. What space has to do with the answer is told beside it:

* data between the grid's points (:mod:`sciml.discretization.unseen`). Where half of a datum or more
  is unseen, another problem was solved than the one that was stated: UNDER_RESOLVED;
* in time the error of the discretisation, by Richardson's extrapolation. The same problem on two
  coarser grids gives D_1 = ||u_kh - u_h|| and D_2 = ||u_2kh - u_kh||; with errors C h^p they are
  C h^p (k^p - 1) and C h^p ((2k)^p - k^p), whose ratio gives p, and the error D_1 / (k^p - 1). In
  one dimension k = 2, else 4. It is told of every spec that is solved; in Python, where it would
  cost more than the rest of a short run, it is asked for: :func:`error_of_space`.

* elements of degree one in a solid, where the mesh is small: beside P2, by the energy stored; of a
  spec too, since P2 takes longer than P1.

Batches are not looked at: a data set pays nothing for each of its samples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sciml.core.errors import InputError
from sciml.core.problem.dispatch import stores
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.solution import Solution
from sciml.core.run.status import Doubt, Status
from sciml.discretization.unseen import unseen
from sciml.solvers.auto import Auto, choose_for
from sciml.solvers.linear.direct import Direct
from sciml.solvers.time.march import Integrator

_NOTED, _ANOTHER = 0.1, 0.5  # shares of a datum
_COMPARED = (10_000, 10_000, 2_000)  # elements by dimension up to which P2 is tried beside P1
_DOUBTED = 0.03  # error of space, relative, beyond which a note of it is a doubt
_COARSEST = 4  # intervals per axis
_LOOSE = 1e-4  # of the coarse runs, whose steps need not be as good as the answer's
_ORDERS = [1 + p / 20 for p in range(21)]


def resolved(problem: Any, on: Any, solution: Solution) -> Solution:
    """The solution with notes on data that its grid does not see, and a status where that is most.

    ``problem``, ``on``: as they were given to ``solve``; whatever is no single problem on a grid is
    left as it is.
    """
    if not isinstance(on, Grid) or not isinstance(problem, Problem) or solution.residual.ndim:
        return solution
    notes, statuses = [], solution.statuses
    missed = unseen(problem, on.bind(problem.box))
    for key, share in missed.items():
        if share >= _NOTED:
            notes.append(
                Doubt(
                    f"the grid does not see {100 * share:.0f} % of {key}, which varies between its "
                    "points; take a finer grid"
                )
            )
    if max(missed.values(), default=0.0) >= _ANOTHER:
        statuses = tuple(Status.UNDER_RESOLVED if s.success else s for s in statuses)
    return replace(solution, notes=(*solution.notes, *notes), statuses=statuses)


@torch.no_grad()
def with_stiffness(problem: Problem, on: Any, solution: Solution) -> Solution:
    """The solution of a solid in P1 with a note on the energy that P2 stores, on few elements.

    No estimate stands for P2 on more: what is recovered from the stresses of a mesh that locks has
    the same error (3.6 % for 70 % on Cook's panel).
    """
    if not isinstance(on, Mesh) or on.degree > 1 or not stores.knows(problem.equation, Mesh):
        return solution
    single = not solution.residual.ndim and solution.status.success
    if not single:
        return solution
    most = _COMPARED[on.dimension - 1]
    if len(on.cells) > most:
        note = (
            f"P1, which is too stiff in bending, is compared with P2 on up to {most:,} elements "
            "alone: how much it lacks here is not known"
        )
        return replace(solution, notes=(*solution.notes, note))
    energy, finer = stores.look_up(problem.equation, Mesh), replace(on, element="P2")
    solver: Any = Auto() if problem.bounded else Direct()
    better = solver.run(solver.init(problem, finer))
    own = float(energy(problem, on, solution.value))
    other = float(energy(problem, finer, better.value))
    if not better.status.success or not own > 0 or not other > 0:
        return solution
    gap = 100 * (own / other - 1)
    note = f"P1 stores {abs(gap):.2g} % {'less' if gap < 0 else 'more'} energy than P2 does"
    return replace(solution, notes=(*solution.notes, note))


def with_space(problem: Problem, on: Any, solver: Any, solution: Solution) -> Solution:
    """The solution of a problem in time with a note on its error of space, where it can be told."""
    share = error_of_space(problem, on, solver, solution)
    if share is None or problem.time is None:
        return solution
    note = (
        f"space: about {100 * share:.2g} % of the answer at t = {problem.time.end:g} is error of "
        "the grid, judged by coarser ones; rtol is of the steps in time"
    )
    note = Doubt(note) if share > _DOUBTED else note
    return replace(solution, notes=(*solution.notes, note))


def error_of_space(problem: Problem, on: Any, solver: Any, solution: Solution) -> float | None:
    """The estimated error of the grid at the end of time, relative in L2.

    None where there is no estimate: of a batch, of a method that is no method of lines, of grids
    that are not 4 or 8 times as fine as another, and where the coarse ones are not solved.
    """
    single = isinstance(on, Grid) and not solution.residual.ndim and solution.status.success
    if not single or problem.time is None:
        return None
    stride = 2 if len(on.shape) == 1 else 4
    grids = [_coarser(on, k) for k in (stride, 2 * stride)]
    method = _integrator(problem, on, solver)
    if method is None or None in grids:
        return None
    short = replace(problem, time=replace(problem.time, frames=2))
    try:
        with torch.no_grad():
            runs = [method.run(method.init(short, g)) for g in grids]
    except InputError:
        return None  # arrays that are no values on another grid
    if not all(run.status.success for run in runs):
        return None
    cells, d = on.centring == "cell", len(on.shape)
    fine, coarse, coarsest = solution.last.detach(), runs[0].last, runs[1].last
    first = _norm(coarse - _at(fine, stride, d, cells))
    second = _norm(coarsest - _at(coarse, 2, d, cells))
    size = _norm(_at(fine, stride, d, cells))
    if not size > 0 or not first + second < torch.inf:
        return None
    return _extrapolated(first, second, stride) / size


def _integrator(problem: Problem, on: Grid, solver: Any) -> Integrator | None:
    """The method of lines that was used, with a tolerance for coarse grids; None of another."""
    import sciml.solvers

    if isinstance(solver, Auto):
        options = {} if solver.rtol is None else {"rtol": solver.rtol}
        solver = getattr(sciml.solvers, choose_for(problem, on)[0])(**options)
    if not isinstance(solver, Integrator):
        return None
    return replace(solver, rtol=max(solver.rtol, _LOOSE), step=None)  # type: ignore[type-var]


def _coarser(on: Grid, stride: int) -> Grid | None:
    extra = on.centring == "node"
    intervals = [n - extra for n in on.shape]
    if any(n % stride or n // stride < _COARSEST for n in intervals):
        return None
    return replace(on, shape=tuple(n // stride + extra for n in intervals))


def _at(value: torch.Tensor, stride: int, d: int, cells: bool) -> torch.Tensor:
    """Values at the points of a grid ``stride`` times as coarse."""
    for k in range(-d, 0):
        n = value.shape[k]
        if not cells:
            value = value.index_select(k, torch.arange(0, n, stride))
            continue
        # The middle of a coarse cell lies between two fine ones.
        right = torch.arange(stride // 2, n, stride)
        value = (value.index_select(k, right - 1) + value.index_select(k, right)) / 2
    return value


def _norm(value: torch.Tensor) -> float:
    """Root mean square; NaN inside obstacles is left out."""
    return float(value[torch.isfinite(value)].square().mean().sqrt())


def _extrapolated(first: float, second: float, k: int) -> float:
    """The error C h^p, p between 1 and 2 from the ratio of both differences.

    Where the coarse grids see hardly anything the ratio tells of no order.
    """
    ratio = second / first if first > 0 else torch.inf

    def gap(p: float) -> float:
        found: float = ((2 * k) ** p - k**p) / (k**p - 1) - ratio
        return abs(found)

    error: float = first / (k ** min(_ORDERS, key=gap) - 1)
    return error
