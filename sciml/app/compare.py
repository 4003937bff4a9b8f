"""``sciml solve --compare``: classical solvers on the very problem of a run, to the same tolerance.

A linear problem is handed to multigrid, PyAMG and SciPy as one matrix and right-hand side; any
other to the solver that the automatic choice takes on the run's grid. The methods take turns, the
least of up to three times is kept, and every residual is recomputed here. A trained solver is not
trained again: its own time counts, and where it was held to no tolerance, the others stop at the
residual that its answer has on the grid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch

from sciml.app.run import Answer, Setting, error_of, lower
from sciml.app.spec import Spec
from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.grid import Points
from sciml.core.run.solution import Solution
from sciml.solvers.auto import Auto, choose, choose_for
from sciml.solvers.linear.inverse import matrices
from sciml.solvers.linear.iteration import LinearSolver, relative_residual
from sciml.solvers.linear.krylov import CG
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.solve import solve

_ROUNDS, _LONG = 3, 2.0  # a method that takes longer than so many seconds runs once
_LOOSEST = 0.1
_SAMPLES = 4  # of a batch are solved by those that take one system at a time
# Unknowns up to which SuperLU is tried, by dimension: its fill grows too fast beyond.
_FACTORISED = {1: 2_000_000, 2: 300_000, 3: 30_000}

# The value on the grid of a single sample, set-up and solve seconds per sample, iterations, and
# the largest relative residual.
Found = tuple[torch.Tensor | None, float, float, int, float]
Method = Callable[[LinearSystem], Found]
Foreign = Callable[[scipy.sparse.csr_matrix, np.ndarray, float], tuple[np.ndarray, float, int]]


@dataclass(frozen=True)
class Row:
    """One solver: seconds per sample, iterations, the discrete residual and the error, if known.

    ``own``: the run itself. ``remark``: why there are no numbers, or what was chosen.
    """

    name: str
    iterations: int | None = None
    setup: float | None = None
    solve: float | None = None
    residual: float | None = None
    error: float | None = None
    own: bool = False
    remark: str = ""
    ratio: float | None = None


def check_comparable(spec: Spec) -> None:
    """Raise InputError where no other classical solver can be set beside the spec's."""
    if isinstance(spec.on, Points):
        raise InputError("--compare needs grid: or mesh:; no classical solver works at points")
    if not spec.problem.linear and spec.solver.kind in ("auto", _evolving(spec).kind):
        raise InputError(
            f"--compare has nothing to set beside {_evolving(spec).kind}: it compares linear "
            "problems, and solvers that the automatic choice would not take"
        )


def baselines(result: Answer) -> list[dict[str, Any]]:
    """The rows of the comparison as plain data, the run's own first."""
    spec = result.spec
    rows = _linear(result) if spec.problem.linear else _against_auto(result)
    base = (rows[0].setup or 0.0) + (rows[0].solve or 0.0)
    shown = []
    for row in rows:
        total = None if row.solve is None else (row.setup or 0.0) + row.solve
        shown.append(asdict(replace(row, ratio=None if total is None else total / base)))
    return shown


def label(solver: Any) -> str:
    """``cg + multigrid``: a solver and its preconditioner by their kinds."""
    inner = getattr(solver, "preconditioner", None) or getattr(solver, "polish", None)
    return solver.kind if inner is None else f"{solver.kind} + {inner.kind}"


def _linear(result: Answer) -> list[Row]:
    """The run, then our own classical solvers, then PyAMG's and SciPy's."""
    spec, samples = result.spec, result.solution.residual.numel()
    system = lower(spec, Setting(seed=result.setting.seed))
    own = _own(result, system)
    rtol = _tolerance(spec.solver, own)
    chosen: list[Any] = [choose(system.A.detach(), rtol)[0]]
    if isinstance(spec.solver, Auto):
        own = replace(own, name=f"auto: {label(chosen.pop())}")
    if isinstance(system.A, Stencil) and system.A.symmetric and system.A.definite:
        chosen.append(CG(preconditioner=Multigrid(), rtol=rtol))
    methods = {label(solver): _ours(solver, samples) for solver in chosen}
    if isinstance(spec.solver, (LinearSolver, Auto)):
        methods = {own.name: _ours(spec.solver, samples)} | {
            name: method for name, method in methods.items() if not own.name.endswith(name)
        }
    methods |= {name: _foreign(method, rtol) for name, method in _peers(system).items()}
    rows = []
    for row, value in _measured(methods, system):
        if row.name == own.name:
            own = replace(own, setup=row.setup, solve=row.solve)
            continue
        if value is not None and samples == 1:
            answer = replace(result.solution, value=value)
            error = error_of(answer, spec)
            row = replace(row, error=None if error is None else float(error))
        rows.append(row)
    return [own, *rows]


def _own(result: Answer, system: LinearSystem) -> Row:
    """The run as it was, its residual that of the discrete system."""
    solution = result.solution
    samples = solution.residual.numel()
    value = solution.value.nan_to_num(0.0).to(system.b.dtype)
    residual = relative_residual(system.A, system.restrict(value), system.b)
    return Row(
        label(result.spec.solver),
        int(solution.stats.iterations.max()),
        solution.stats.setup_seconds / samples,
        solution.stats.solve_seconds / samples,
        float(residual.max()),
        None if result.error is None else float(result.error.max()),
        own=True,
    )


def _tolerance(solver: Any, own: Row) -> float:
    """That of the solver, or of its polish; else the residual that the answer has."""
    if isinstance(solver, Auto):
        return solver.tolerance
    classical = solver if isinstance(solver, LinearSolver) else getattr(solver, "polish", None)
    if classical is not None:
        return float(classical.rtol)
    assert own.residual is not None
    return min(own.residual, _LOOSEST)


def _against_auto(result: Answer) -> list[Row]:
    """The run, and what the automatic choice makes of the same problem and grid."""
    spec, solution = result.spec, result.solution
    own = Row(
        label(spec.solver),
        int(solution.stats.iterations.max()),
        solution.stats.setup_seconds,
        solution.stats.solve_seconds,
        error=None if result.error is None else float(result.error.max()),
        own=True,
    )
    solver = _evolving(spec)
    state = solver.init(spec.problem, spec.on)
    found: Solution = min(
        (solver.run(state) for _ in range(2)), key=lambda s: s.stats.solve_seconds
    )
    error = error_of(found, spec)
    row = Row(
        solver.kind,
        int(found.stats.iterations.max()),
        found.stats.setup_seconds,
        found.stats.solve_seconds,
        error=None if error is None else float(error.max()),
    )
    return [own, row]


def _evolving(spec: Spec) -> Any:
    """The automatic choice for a nonlinear problem or one in time."""
    import sciml.solvers

    return getattr(sciml.solvers, choose_for(spec.problem, spec.on)[0])()


def _ours(solver: Any, samples: int) -> Method:
    def method(system: LinearSystem) -> Found:
        found = solve(system, solver, throw=False)
        stats = found.stats
        seconds = stats.setup_seconds / samples, stats.solve_seconds / samples
        return found.value, *seconds, int(stats.iterations.max()), float(found.residual.max())

    return method


def _foreign(method: Foreign, rtol: float) -> Method:
    """A method for one matrix, asked sample by sample."""

    def each(system: LinearSystem) -> Found:
        A = system.A.detach()
        right = system.b.reshape(-1, A.size).numpy()
        setup, seconds, iterations, worst = 0.0, 0.0, 0, 0.0
        chosen = matrices(A)[:_SAMPLES]
        for index, matrix in enumerate(chosen):
            b = right[min(index, len(right) - 1)]
            start = time.perf_counter()
            x, ready, count = method(matrix, b, rtol)
            setup += ready - start
            seconds += time.perf_counter() - ready
            iterations = max(iterations, count)
            worst = max(worst, float(np.linalg.norm(b - matrix @ x) / np.linalg.norm(b)))
        single = system.lift(torch.from_numpy(x).reshape(A.shape)) if not A.batch else None
        return single, setup / len(chosen), seconds / len(chosen), iterations, worst

    return each


def _peers(system: LinearSystem) -> dict[str, Foreign]:
    """PyAMG and SciPy, as far as they take the system."""
    A, found = system.A, {}
    if not A.dtype.is_complex and (A.definite or not A.symmetric):
        accelerated = "cg" if A.symmetric else "bicgstab"
        for short, kind in (("RS", "ruge_stuben"), ("SA", "smoothed_aggregation")):
            found[f"PyAMG {short} + {accelerated}"] = _pyamg(f"{kind}_solver", accelerated)
    dimension = len(A.shape) if isinstance(A, Stencil) else getattr(system.on, "dimension", 3)
    if not A.nullspace and A.size <= _FACTORISED[dimension]:
        found["SciPy SuperLU"] = _superlu
    return found


def _pyamg(kind: str, accelerated: str) -> Foreign:
    def method(matrix: scipy.sparse.csr_matrix, b: np.ndarray, rtol: float) -> Any:
        import pyamg

        residuals: list[float] = []
        hierarchy = getattr(pyamg, kind)(matrix)
        ready = time.perf_counter()
        x = hierarchy.solve(b, tol=rtol, accel=accelerated, maxiter=500, residuals=residuals)
        return x, ready, len(residuals) - 1

    return method


def _superlu(matrix: scipy.sparse.csr_matrix, b: np.ndarray, rtol: float) -> Any:
    factors = scipy.sparse.linalg.splu(matrix.tocsc())
    ready = time.perf_counter()
    return factors.solve(b), ready, 1


def _measured(
    methods: Mapping[str, Method], system: LinearSystem
) -> Iterator[tuple[Row, torch.Tensor | None]]:
    """Rounds in which each method takes its turn; the least total of each counts."""
    best: dict[str, Found] = {}
    failed: dict[str, str] = {}
    for turn in range(_ROUNDS):
        for name, method in methods.items():
            if name in failed or (turn and sum(best[name][1:3]) > _LONG):
                continue
            try:
                found = method(system)
            # Whatever another library raises on a system that it cannot take.
            except Exception as error:
                failed[name] = f"failed: {' '.join(str(error).split())[:80]}"
                continue
            if name not in best or sum(found[1:3]) < sum(best[name][1:3]):
                best[name] = found
    for name in methods:
        if name in failed:
            yield Row(name, remark=failed[name]), None
        else:
            value, setup, seconds, iterations, residual = best[name]
            yield Row(name, iterations, setup, seconds, residual), value
