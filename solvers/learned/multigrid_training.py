"""Training of the coarse grids in learned multigrid, on matrices alone.

    minimise  mean n(rho),    rho = |E v|_A / |v|_A,

with E the error operator of a whole cycle, differentiated through its smoothing, transfers and
coarse stencils on all levels; n(rho) the iterations of CG per factor e (``multigrid.cycle``); and
v what some cycles leave of random vectors, near the slowest modes. Where a cycle does not converge
n goes on as a straight line, so that there is a slope back. Stencils are constant: an operator is
nine numbers, applied as a convolution, in float32.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.core.stencil import Stencil, box_offsets
from sciml.solvers.learned.course import (
    Course,
    Matrices,
    Progress,
    check_training,
    falling,
    symmetric_matrices,
    unfit,
)
from sciml.solvers.learned.multigrid import (
    KIND,
    CoarseningModule,
    CoarseningNetwork,
    coarsened,
    entries,
    formula_weights,
    plain,
    uniform,
)
from sciml.solvers.multigrid.hierarchy import build

_SMALLEST = 7  # points per axis of the grid on which a training's cycle solves exactly
_LARGE = 511  # points per axis on which the level is found that a network corrects
_BENT = 0.95  # the contraction above which n is a straight line


@dataclass(frozen=True)
class MultigridTraining:
    """How to train a network for :class:`LearnedMultigrid`.

    ``width``: of the network. ``points`` per axis of the grid trained on, 2^k - 1. ``cycle`` and
    ``sweeps``: of the cycle that is made faster. ``vectors`` per matrix, each after ``power``
    cycles. ``rounds`` of ``steps`` of ``batch`` matrices; the state is saved with every round.
    ``rate``: Adam's, falling linearly.
    """

    width: int = 32
    points: int = 63
    cycle: Literal["V", "alternating"] = "alternating"
    sweeps: int = 2
    vectors: int = 2
    power: int = 6
    rounds: int = 20
    steps: int = 20
    batch: int = 8
    rate: float = 1e-2
    seed: int = 0
    kind: Literal["learned_multigrid"] = "learned_multigrid"

    def __post_init__(self) -> None:
        check_training(self, ("vectors", "power", "sweeps", "rounds", "steps", "batch"))
        if self.points <= _SMALLEST or self.points & (self.points + 1):
            raise InputError(
                f"points must be 15, 31, 63 or the like; got {self.points}",
                "preconditioner.points",
            )
        CoarseningNetwork(self.width)  # checks its options

    def train(
        self,
        matrices: Matrices,
        out: str | Path,
        *,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Path:
        """Train on ``matrices``, constant 2-D stencils; the file of weights in the folder ``out``.

        The weights are there from the first round on; the same call goes on where one was stopped,
        on a CPU to the same bits. Raises InputError for matrices that do not fit, or a folder with
        another run, and SolveError where the loss is no longer a number.
        """
        stencils = _checked(matrices).to(device, torch.float32)
        options = CoarseningNetwork(self.width)
        course = Course(
            KIND,
            out,
            {**asdict(self), "matrices": len(stencils)},
            lambda: CoarseningModule(options),
            plain(options),
            device,
        )

        def turn() -> dict[str, float]:
            steps = [_step(self, stencils, course) for _ in range(self.steps)]
            loss, rho = np.mean(steps, axis=0).tolist()
            return {"loss": loss, "rho": rho}

        return course.run(self.rounds, turn, progress)


def _step(options: MultigridTraining, stencils: Tensor, course: Course) -> tuple[float, float]:
    """One step of the training: the loss, and the mean contraction."""
    step = course.steps
    chosen = np.random.default_rng((options.seed, step)).integers(len(stencils), size=options.batch)
    levels = hierarchy(stencils[torch.from_numpy(chosen)], options.points, course.network)
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    shape = (options.vectors, options.batch, options.points, options.points)
    v = torch.randn(shape, generator=generator).to(stencils.device)
    with torch.no_grad():
        for _ in range(options.power):
            v = unit(levels[0][0], error_after(levels, v, options.cycle, options.sweeps))
    rho = energy(levels[0][0], error_after(levels, v, options.cycle, options.sweeps)).sqrt()
    rate = falling(options.rate, step, options.rounds * options.steps)
    loss = course.descend(expected_iterations(rho).mean(), rate=rate, clip=1.0)
    return loss, float(rho.detach().mean())


# An operator's nine entries (batch, 9), and the nine weights of its transfer, none on the last.
Levels = list[tuple[Tensor, Tensor | None]]


def hierarchy(a: Tensor, points: int, network: nn.Module) -> Levels:
    """The levels of the constant stencils a (batch, 9), of diagonal one on the finest."""
    a = a / a[:, 4:5]
    levels: Levels = []
    while points > _SMALLEST:
        weights, coarse = coarsened(a, formula_weights(a), network)
        levels.append((a, weights))
        a, points = coarse, points // 2
    return [*levels, (a, None)]


def error_after(levels: Levels, v: Tensor, cycle: str, sweeps: int) -> Tensor:
    """E v, (vectors, batch, n, n), differentiable."""
    return _cycle(levels, 0, v, torch.zeros_like(v), cycle, sweeps)


def _cycle(levels: Levels, depth: int, x: Tensor, b: Tensor, cycle: str, sweeps: int) -> Tensor:
    a, weights = levels[depth]
    if weights is None:
        return _exact(a, b)
    x = _smooth(a, x, b, sweeps, reverse=True)
    coarse_b = restrict(weights, b - product(a, x))
    twice = cycle == "alternating" and depth % 2 == 0 and levels[depth + 1][1] is not None
    coarse_x = torch.zeros_like(coarse_b)
    for _ in range(2 if twice else 1):
        coarse_x = _cycle(levels, depth + 1, coarse_x, coarse_b, cycle, sweeps)
    return _smooth(a, x + prolong(weights, coarse_x), b, sweeps, reverse=False)


def product(a: Tensor, u: Tensor) -> Tensor:
    """A u for u (vectors, batch, n, n), zero around the grid."""
    return F.conv2d(u, a.reshape(-1, 1, 3, 3), padding=1, groups=len(a))


def restrict(weights: Tensor, r: Tensor) -> Tensor:
    """P^T r."""
    return F.conv2d(r, weights.reshape(-1, 1, 3, 3), stride=2, groups=len(weights))


def prolong(weights: Tensor, z: Tensor) -> Tensor:
    """P z."""
    return F.conv_transpose2d(z, weights.reshape(-1, 1, 3, 3), stride=2, groups=len(weights))


def _smooth(a: Tensor, x: Tensor, b: Tensor, sweeps: int, *, reverse: bool) -> Tensor:
    colours = [(i, j) for i in (0, 1) for j in (0, 1)]
    inverse = a[:, 4].reciprocal()[:, None, None]
    for _ in range(sweeps):
        for i, j in reversed(colours) if reverse else colours:
            mask = torch.zeros_like(x[0, 0])
            mask[i::2, j::2] = 1
            x = x + mask * inverse * (b - product(a, x))
    return x


def _exact(a: Tensor, b: Tensor) -> Tensor:
    n = b.shape[-1] ** 2
    identity = torch.eye(n, device=b.device).reshape(n, 1, *b.shape[-2:])
    dense = product(a, identity.expand(n, len(a), *b.shape[-2:])).reshape(n, len(a), n)
    return torch.linalg.solve(dense.transpose(0, 1), b.flatten(-2)[..., None]).reshape(b.shape)


def energy(a: Tensor, x: Tensor) -> Tensor:
    """|x|_A^2, (vectors, batch)."""
    return (x * product(a, x)).sum((-2, -1)).clamp(min=1e-30)


def unit(a: Tensor, x: Tensor) -> Tensor:
    """x over its energy norm."""
    return x / energy(a, x).sqrt()[..., None, None]


def expected_iterations(rho: Tensor) -> Tensor:
    """Iterations of CG per factor e for the contraction rho; see ``multigrid.cycle``."""
    bent = rho.clamp(1e-3, _BENT)
    gap = (1 - bent).sqrt()
    return 1 / ((1 + gap) / (1 - gap)).log() + 10 * (rho - _BENT).clamp(min=0)


def _checked(matrices: Matrices) -> Tensor:
    """The entries of every sample of every matrix, (matrices, 9); InputError where one is none."""
    found = []
    for name, A in symmetric_matrices(KIND, matrices).items():
        if not isinstance(A, Stencil) or A.dimension != 2:
            raise InputError(f"{name}: {KIND} is trained on stencils in two dimensions", "data")
        if not A.definite:
            raise unfit(KIND, name, A, "not positive definite")
        constant = uniform(A)
        if constant is None:
            raise InputError(
                f"{name}: {KIND} is trained on constant coefficients, on grids whose number of "
                f"unknowns per axis is odd; got {list(A.shape)}",
                "data",
            )
        found += [fully_coarsened(a) for a in entries(constant).reshape(-1, 9)]
    return torch.stack(found)


def fully_coarsened(a: Tensor) -> Tensor:
    """The entries of the first level, of a stencil's (9,), that is coarsened along both axes.

    What a network corrects: above it, where one axis is coarsened alone, the formula stays.
    """
    A = Stencil(a[:, None, None].expand(9, _LARGE, _LARGE), box_offsets(2))
    for level in build(A, torch.float64).levels:
        if level.P is not None and level.P.factors == (2, 2):
            return entries(level.A)
    return a
