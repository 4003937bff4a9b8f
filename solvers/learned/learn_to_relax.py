"""Learning to Relax: omega chosen by a bandit over a sequence of systems (arXiv 2310.02246).

One omega of a grid per system; its cost is the number of iterations that the system took. Without a
context Tsallis-INF comes near the best fixed omega; with one, such as the diagonal shift c of
A + c I or the time step, ChebCB comes near the best omega for each context (Khodak, Chow, Balcan
and Talwalkar 2024, theorems 2.3 and 3.2). The answer to each system is what CG or SOR gives at that
omega, to its tolerance: learning changes the cost and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap, LinearSystem
from sciml.core.solve import Progress
from sciml.solvers.inverse import PerSample
from sciml.solvers.iteration import LinearSolver, LinearState, Outcome, check_options
from sciml.solvers.krylov import CG, KrylovState, require_definite
from sciml.solvers.learned.bandit import Bandit, ChebCB, TsallisINF
from sciml.solvers.relaxation import SOR, Splitting, check_omega, sor, splittings, ssor


@dataclass(frozen=True)
class LearnToRelax(LinearSolver):
    """SSOR-preconditioned CG, or SOR, whose omega is learned while a sequence is solved.

    The set-up remembers: each ``run`` chooses an omega and learns from its iterations, and
    ``follow`` hands on what was learned to the set-up of the next system. ``choices``: as many
    omegas from ``omegas[0]`` to ``omegas[1]``. ``contexts``: the range of the context that
    ``follow`` is given; without it the best fixed omega is sought. A batch has one omega, and costs
    what its samples take on average.
    """

    method: Literal["cg", "sor"] = "cg"
    omegas: tuple[float, float] = (1.0, 1.95)
    choices: int = 10
    contexts: tuple[float, float] | None = None
    seed: int = 0
    kind: Literal["learn_to_relax"] = "learn_to_relax"
    rtol: float = 1e-8
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        for omega in self.omegas:
            check_omega(self.kind, omega, "solver.omegas")
        if not self.omegas[0] < self.omegas[1]:
            raise InputError(f"{self.kind}: omegas must rise", "solver.omegas")
        if self.choices < 2:
            raise InputError(
                f"{self.kind}: choices must be at least 2; got {self.choices}", "solver.choices"
            )
        if self.contexts is not None and not self.contexts[0] < self.contexts[1]:
            raise InputError(f"{self.kind}: contexts must rise", "solver.contexts")

    @property
    def grid(self) -> np.ndarray:
        """The omegas to choose from."""
        return np.linspace(*self.omegas, self.choices)

    def setup(self, A: LinearMap) -> Relaxing:
        """Split the matrix; nothing is known of omega yet."""
        if self.contexts is None:
            return self._relaxing(A, TsallisINF(self.choices, self.seed))
        return self._relaxing(A, ChebCB(self.choices, self.contexts, seed=self.seed))

    def begin(self, system: LinearSystem, context: float | None = None) -> LinearState:
        """The set-up of the first system, with its context."""
        state = self.init(system)
        return replace(state, prepared=replace(state.prepared, context=context))

    def follow(
        self, state: LinearState, system: LinearSystem, context: float | None = None
    ) -> LinearState:
        """The set-up of the next system, with its context, that knows what was learned before."""
        following = self.begin(system, context)
        prepared = replace(following.prepared, bandit=state.prepared.bandit)
        return replace(following, prepared=prepared)

    def _relaxing(self, A: LinearMap, bandit: Bandit) -> Relaxing:
        if A.dtype.is_complex:
            raise InputError(f"{self.kind} needs a real operator", "solver.kind")
        require_definite(self.kind, A)
        return Relaxing(bandit, splittings(A))

    def iterate(
        self,
        A: LinearMap,
        prepared: Relaxing,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        """Choose an omega, solve, learn from the iterations it took."""
        omega = float(self.grid[prepared.bandit.choose(prepared.context)])
        result = self._solve(A, prepared.parts, omega, b, initial, progress)
        prepared.bandit.learn(float(result.iterations.double().mean()))
        return replace(result, notes=(*result.notes, f"omega {omega:.3g}"))

    def _solve(
        self,
        A: LinearMap,
        parts: list[Splitting],
        omega: float,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        options = {"rtol": self.rtol, "max_iterations": self.max_iterations}
        if self.method == "cg":
            M: PerSample = ssor(A, parts, omega)
            return CG(**options).iterate(A, KrylovState(M), b, initial, progress)  # type: ignore[arg-type]
        step = sor(A, parts, omega)
        return SOR(omega, **options).iterate(A, step, b, initial, progress)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Relaxing:
    """The bandit, the splittings of A's samples, and this system's context."""

    bandit: Bandit
    parts: list[Splitting]
    context: float | None = None
