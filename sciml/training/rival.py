"""How long our own multigrid takes to be as good as a surrogate: the line that keeps one honest.

Full multigrid (followed by cycles where it alone does not do) and multigrid-CG from zero are run
iteration by iteration, and stopped at the first one whose relative L2 distance to the reference is
at most the surrogate's error of that sample. The reference is either the truth of the dataset,
which a coarse grid cannot come nearer to than its discretisation error, or the tightly solved
system of the same grid. Timed are, on one thread: the discretisation (stencils from coefficients),
the set-up of the hierarchy, and those iterations; each part as the fastest of several runs. What is
left out: reading the inputs, and recomputing the residual to see that it has converged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sciml.core.discretize import discretize
from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.linear import LinearMap, LinearSystem
from sciml.core.problem import Problem
from sciml.solvers.krylov import CG
from sciml.solvers.multigrid import Multigrid
from sciml.training.evaluation import fastest, one_thread

Method = Literal["full_multigrid", "cg"]
METHODS: tuple[Method, ...] = ("full_multigrid", "cg")
_MOST = 30  # iterations after which an error counts as out of reach
_UNREACHED = 1e-15  # a tolerance that no run meets: the count of iterations alone ends it
_TIGHT = 1e-12
_REPEATS = 3


@dataclass(frozen=True)
class MultigridTime:
    """What one method takes to the errors asked for.

    ``iterations``: (N,), cycles after full multigrid or steps of CG, -1 where the grid's own
    ``floor``, the error (N,) of the exact discrete solution, is above the error asked for.
    ``seconds``: (N,) of each sample alone, NaN where not reached: discretisation, set-up,
    iterations. ``seconds_batched``: per sample, the reached ones as one batch, which iterates until
    the last is there; NaN where there are none.
    """

    method: Method
    shape: tuple[int, ...]
    iterations: Tensor
    floor: Tensor
    seconds: Tensor
    seconds_batched: float

    @property
    def reached(self) -> Tensor:
        """Mask of the samples whose error was reached."""
        return self.iterations >= 0

    def to_json(self) -> dict[str, Any]:
        """Plain data; means over the samples that were reached."""
        there = self.reached
        some = bool(there.any())
        return {
            "method": self.method,
            "shape": list(self.shape),
            "reached": float(there.double().mean()),
            "iterations": float(self.iterations[there].double().mean()) if some else None,
            "floor": float(self.floor.mean()),
            "seconds": float(self.seconds[there].mean()) if some else None,
            "seconds_batched": self.seconds_batched if some else None,
        }


@torch.no_grad()
def multigrid_time(
    problem: Callable[[Tensor], Problem],
    on: Grid,
    errors: Tensor,
    reference: Tensor | None = None,
    *,
    method: Method = "full_multigrid",
) -> MultigridTime:
    """The time to each of the relative L2 ``errors`` (N,).

    ``problem(which)``: the batch of the problems with these positions, an int64 tensor.
    ``reference``: values (N, *shape), of this grid or of one whose nodes it contains; left out, the
    solution of the discrete problem to 1e-12. Raises InputError for a problem that multigrid-CG
    does not suit.
    """
    errors = errors.double()
    with one_thread():
        everyone = torch.arange(len(errors))
        system = discretize(problem(everyone), on)
        exact = _exact(system)
        truth = exact if reference is None else reference.double()
        floor = _distance(exact, truth)
        counts = _counts(system, method, truth, torch.where(floor <= errors, errors, torch.inf))
        counts = torch.where(floor <= errors, counts, -1)
        seconds = torch.full((len(errors),), float("nan"), dtype=torch.float64)
        for i in torch.nonzero(counts >= 0).flatten().tolist():
            seconds[i] = _seconds(problem, everyone[i : i + 1], on, method, int(counts[i]))
        there = everyone[counts >= 0]
        batched = float("nan")
        if len(there):
            most = int(counts.max())
            batched = _seconds(problem, there, on, method, most) / len(there)
    return MultigridTime(method, on.shape, counts, floor, seconds, batched)


def _exact(system: LinearSystem) -> Tensor:
    solver = CG(preconditioner=Multigrid(), rtol=_TIGHT)
    state = solver.init(system)
    return solver.run(state).value


def _counts(system: LinearSystem, method: Method, truth: Tensor, errors: Tensor) -> Tensor:
    """The first iteration that is near enough, per sample."""
    counts = torch.full((len(errors),), -1)
    prepared = _setup(system.A, method)
    for k in range(_MOST + 1):
        x = _iterated(system, prepared, method, k)
        near = _distance(system.lift(x), truth) <= errors
        counts[(counts < 0) & near] = k
        if bool((counts >= 0).all()):
            break
    return counts


def _setup(A: LinearMap, method: Method) -> Any:
    if method == "cg":
        return CG(preconditioner=Multigrid()).setup(A)
    return Multigrid().setup(A)


def _iterated(system: LinearSystem, prepared: Any, method: Method, k: int) -> Tensor:
    """The iterate k; of full multigrid 0 is its first guess, of CG zero."""
    if k == 0:
        return prepared.first_guess(system.b) if method == "full_multigrid" else system.b * 0
    solver = (
        Multigrid(rtol=_UNREACHED, max_iterations=k)
        if method == "full_multigrid"
        else CG(preconditioner=Multigrid(), rtol=_UNREACHED, max_iterations=k)
    )
    return solver.iterate(system.A, prepared, system.b, None, None).x


def _distance(value: Tensor, truth: Tensor) -> Tensor:
    """Relative L2 distance per sample on the points of ``truth``."""
    dimension = value.ndim - 1
    steps = []
    for n, m in zip(value.shape[1:], truth.shape[1:], strict=True):
        step, rest = divmod(n - 1, m - 1)
        if rest or step < 1:
            raise InputError(f"a grid of {n} points does not contain the reference's {m}")
        steps.append(slice(None, None, step))
    gap = value[(slice(None), *steps)] - truth
    axes = tuple(range(1, dimension + 1))
    return gap.square().sum(axes).sqrt() / truth.square().sum(axes).sqrt()


def _seconds(
    problem: Callable[[Tensor], Problem], which: Tensor, on: Grid, method: Method, k: int
) -> float:
    """Discretisation, set-up and k iterations of the samples ``which``, together."""
    chosen = problem(which)
    system, discretising = fastest(lambda: discretize(chosen, on), _REPEATS)
    prepared, preparing = fastest(lambda: _setup(system.A, method), _REPEATS)
    _, iterating = fastest(lambda: _iterated(system, prepared, method, k), _REPEATS)
    return discretising + preparing + iterating
