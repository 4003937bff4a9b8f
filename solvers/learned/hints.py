"""HINTS: relaxation, with a network's correction every so many steps (arXiv 2208.13273).

One period, for A e = r from e = 0, s being ``every``:

    s - 1 times   e += (D/omega + L)^-1 (r - A e)                relaxation: rough errors
    once          e += t lift^-1 N(K, ..., f = g q / |q|),  q = r - A e       network: smooth ones

(Zhang, Kahana, Kopanicakova, Turkel, Ranade, Pathak and Karniadakis 2024, algorithm 1). N was
trained to take a source f to the solution; here its source is the residual, brought to the size g
that sources had in training. The paper's t is |q| / g; ours makes the error least in the energy
norm, t = d . q / d . A d, for an A that is not symmetric definite the residual. So no network can
do harm: on symmetric definite systems every step of the period lowers the error's energy.

Periods repeated are a solver; one is a preconditioner, which is not linear: for fcg or gmres.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem, without_kernel
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.solution import Solution
from sciml.core.run.solve import Progress
from sciml.solvers.learned.surrogate import channels, check_same
from sciml.solvers.linear.inverse import Inverse
from sciml.solvers.linear.iteration import (
    LinearSolver,
    LinearState,
    StationaryMethod,
    check_options,
    dot,
    linear_system,
    norm,
    ratio,
    singular_symmetric,
    spread,
)
from sciml.solvers.linear.krylov import FCG, GMRES
from sciml.solvers.linear.relaxation import check_omega, sor, splittings

if TYPE_CHECKING:
    from sciml.operators import Operator

_SOURCE = "problem.equation.f"

# A residual (*batch, *shape) of any size to something like the error, up to a factor.
Correction = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class HINTS:
    """Relaxation with a network's correction: on its own, or as a preconditioner.

    ``path``: the folder of an operator one of whose inputs is the source f. ``every``: steps of a
    period, the last of which is the network's. ``omega`` of the relaxation, 1 for Gauss-Seidel.
    ``method``: ``stationary`` repeats periods; fcg and gmres take one as their preconditioner.
    An iteration is a period.
    """

    path: str
    every: int = 15
    omega: float = 1.0
    method: Literal["stationary", "fcg", "gmres"] = "fcg"
    kind: Literal["hints"] = "hints"
    rtol: float = 1e-8
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        check_omega(self.kind, self.omega, "solver.omega")
        if self.every < 1:
            raise InputError(
                f"{self.kind}: every must be at least 1; got {self.every}", "solver.every"
            )

    def init(self, problem: Problem | LinearSystem, on: Grid | Mesh | None = None) -> HINTSState:
        """Discretise, load the network, and read its inputs off the problem.

        Raises InputError where the network takes no source or was trained on another problem.
        """
        system = linear_system(problem, on)
        start = time.perf_counter()
        operator = _load(self.path, system.A.device)
        correction = network_correction(operator, system, self.path)
        period = Period(system.A.detach(), correction, self.every, self.omega)
        solver = self._method(period)
        inner = solver.init(system)
        return HINTSState(solver, replace(inner, setup_seconds=time.perf_counter() - start))

    def run(
        self,
        state: HINTSState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Solve for one right-hand side, that of the problem unless ``b`` is given."""
        solution = state.solver.run(state.inner, initial=initial, b=b, progress=progress)
        work = float(solution.stats.iterations.max()) * (self.every + 1)
        return replace(solution, solver=self, stats=replace(solution.stats, work_units=work))

    def _method(self, period: LinearMap) -> LinearSolver:
        kinds: dict[str, Callable[..., LinearSolver]] = {
            "stationary": Stationary,
            "fcg": FCG,
            "gmres": GMRES,
        }
        return kinds[self.method](period, rtol=self.rtol, max_iterations=self.max_iterations)


@dataclass(frozen=True)
class Stationary(StationaryMethod):
    """``x += M (b - A x)`` for a map M, for Python only."""

    M: LinearMap
    kind: Literal["stationary"] = "stationary"
    rtol: float = 1e-8
    max_iterations: int = 10_000
    window = 200

    def setup(self, A: LinearMap) -> LinearMap:
        """The map itself."""
        return self.M


@dataclass(frozen=True)
class HINTSState:
    """The method that repeats or takes the period, and its own state."""

    solver: LinearSolver
    inner: LinearState


class Period(Inverse):
    """``every`` - 1 relaxations and one correction, from zero: a map that is not linear."""

    def __init__(self, A: LinearMap, correction: Correction, every: int, omega: float) -> None:
        if A.dtype.is_complex:
            raise InputError("hints needs a real operator; use gmres", "solver.kind")
        super().__init__(A, symmetric=False, definite=False, linear=False)
        self.A, self.correction, self.every = A, correction, every
        self.relaxation = sor(A, splittings(A), omega)

    @torch.no_grad()
    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """The period's answer to ``A e = u``; u (*batch, *shape)."""
        e, q = torch.zeros_like(u), u.clone()
        for _ in range(self.every - 1):
            self._add(e, q, self.relaxation.apply(q))
        d = self._direction(q)
        image = self.A.apply(d)
        dimension = len(self.shape)
        test = d if self.A.symmetric and self.A.definite else image
        every = torch.ones_like(norm(q, dimension), dtype=torch.bool)
        t = ratio(dot(test, q, dimension), dot(test, image, dimension), every)
        return e.add_(spread(t, dimension) * d)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """InputError: a map that is not linear has none."""
        raise InputError("hints is not linear and has no adjoint; use multigrid for gradients")

    def _add(self, e: torch.Tensor, q: torch.Tensor, step: torch.Tensor) -> None:
        if singular_symmetric(self.A):
            without_kernel(self.A, step)
        e.add_(step)
        q.sub_(self.A.apply(step))

    def _direction(self, q: torch.Tensor) -> torch.Tensor:
        """The network's, zero for samples where it gave a NaN or an infinity."""
        dimension = len(self.shape)
        d = self.correction(q).to(q.dtype)
        finite = torch.isfinite(d.flatten(-dimension)).all(dim=-1)
        d = torch.where(spread(finite, dimension), d, 0.0)
        return without_kernel(self.A, d) if singular_symmetric(self.A) else d


def network_correction(operator: Operator, system: LinearSystem, path: str) -> Correction:
    """The operator as a function from residuals to corrections, on the system's own grid.

    Raises InputError where the operator takes no source or was trained on another problem.
    """
    problem, grid, names = system.problem, system.on, operator.signature.inputs
    if problem is None or not isinstance(grid, Grid):
        raise InputError("hints needs a problem on a grid, not a mesh or a bare matrix")
    origin = operator.provenance
    places, trained = origin.get("places") or {}, origin.get("spec")
    if not isinstance(trained, Mapping) or not set(names) <= set(places):
        raise InputError(
            f"the operator in '{path}' does not say which problem it was trained on, and which "
            "part of it each input is; train it on a dataset of sciml generate",
            "solver.path",
        )
    sources = [k for k, name in enumerate(names) if places[name] == _SOURCE]
    if len(sources) != 1 or len(operator.signature.outputs) != 1:
        raise InputError(
            "hints needs a network from the source f, among others, to one field; this one takes "
            f"{', '.join(names)} to {', '.join(operator.signature.outputs)}",
            "solver.path",
        )
    check_same(trained, problem, places)
    if operator.signature.grid.centring != grid.centring:
        raise InputError(
            f"the network was trained on {operator.signature.grid.centring} values; "
            f"got a grid of {grid.centring} values",
            "grid.centring",
        )
    known = channels(problem, grid, names, places).detach().to(system.A.device)
    return _Residuals(operator, system, known, sources[0])


class _Residuals:
    """A network whose source is the residual, at the size of those it was trained on."""

    def __init__(
        self, operator: Operator, system: LinearSystem, known: torch.Tensor, source: int
    ) -> None:
        self.operator, self.known, self.source = operator, known, source
        self.lift, self.restrict = system.lift, system.restrict
        mean, deviation = operator.input_mean[source], operator.input_std[source]
        self.size = float(torch.hypot(mean, deviation))

    def __call__(self, q: torch.Tensor) -> torch.Tensor:
        # The lift adds boundary values, which an error does not have.
        field = (self.lift(q) - self.lift(torch.zeros_like(q))).nan_to_num(0.0)
        dimension = self.operator.signature.dimension
        batch, grid = field.shape[:-dimension], field.shape[-dimension:]
        rms = field.flatten(-dimension).square().mean(-1).sqrt()
        scale = spread(torch.where(rms > 0, self.size / rms, 0.0), dimension)
        given = self.known.expand(*batch, *self.known.shape[-dimension - 1 :]).clone()
        given.select(-dimension - 1, self.source).copy_(field * scale)
        answer = self.operator(given.reshape(-1, *given.shape[-dimension - 1 :]))
        return self.restrict(answer[:, 0].reshape(*batch, *grid).to(q.dtype))


def _load(path: str, device: torch.device) -> Operator:
    from sciml.operators import load_operator

    try:
        return load_operator(path, device)
    except InputError as error:
        raise InputError(error.message, "solver.path") from None
