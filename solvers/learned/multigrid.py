"""Multigrid whose coarse grids are corrected by a network: linear and SPD, whatever it says.

Where coefficients are constant, black-box multigrid has for every level one interpolation P and
one stencil A_c = P^T A P, by a formula. For anisotropy across the grid their sequence degrades from
level to level. A small network looks at the stencil of a level and answers (p, q, s):

    P' = P + p C,        A_c' = exp(s) (P'^T A P' - q t D^T D),        |q| < 1,

with C = +1 at two opposite corners of P's stencil and -1 at the other two, so that its rows' sums
remain; D the mixed difference u_ij - u_i+1,j - u_i,j+1 + u_i+1,j+1, so that A_c' acts on smooth
functions as before up to fourth derivatives; and t the largest number for which P'^T A P' - t D^T D
is not negative, found from the symbols, a(theta) >= t 16 sin^2(theta_1/2) sin^2(theta_2/2). So A_c'
is symmetric positive definite with A, and so is the cycle: B = M + K B_c K^T with the smoother's M.
All stencils keep their nine points: an iteration costs what it cost, and the network, one
evaluation a level, next to nothing.

That a network writes interpolation or coarse operators in the set-up alone is the idea of Greenfeld
et al. 2019 (arXiv 1902.10248), Luz et al. 2020 (arXiv 2003.05744) and RAPNet (arXiv 2605.26854).
Before it is used it is tried against the formula on a small grid; the better one is taken.

*Training* of the coarse grids, on matrices alone:

    minimise  mean n(rho),    rho = |E v|_A / |v|_A,

with E the error operator of a whole cycle, differentiated through its smoothing, transfers and
coarse stencils on all levels; n(rho) the iterations of CG per factor e (``multigrid.cycle``); and
v what some cycles leave of random vectors, near the slowest modes. Where a cycle does not converge
n goes on as a straight line, so that there is a slope back. Stencils are constant: an operator is
nine numbers, applied as a convolution, in float32.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciml.core.algebra import kernels
from sciml.core.algebra.kernels import reference
from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.stencil import Stencil, box_offsets
from sciml.core.algebra.transfer import Transfer, coarse_shape, galerkin_terms, transfer_offsets
from sciml.core.errors import InputError
from sciml.core.run.training_run import EpochProgress, seeded
from sciml.core.run.weights import check_fit, load_into
from sciml.solvers.learned.preconditioner_training import (
    Matrices,
    PreconditionerTask,
    check_training,
    falling,
    symmetric_matrices,
    unfit,
)
from sciml.solvers.learned.weights import read_stored
from sciml.solvers.linear.iteration import dot, spread
from sciml.solvers.linear.multigrid.cycle import (
    DTYPES,
    PAYS,
    Cycle,
    MultigridCycle,
    Smoother,
    choose,
)
from sciml.solvers.linear.multigrid.hierarchy import Hierarchy, black_box, build, stays_constant

KIND = "learned_multigrid"
TRIED = 63  # points per axis of the grid on which the network is tried
_STEPS, _FIRST = 5, 1  # steps of CG there, and those before the reduction counts
_FULL = (2, 2)
_OFFSETS = box_offsets(2)
_CORNER, _SCALE, _SHARE = 0.6, 0.2, 0.95  # bounds of p and s, and of q
# x, y and both diagonals: with the centre all that a symmetric constant stencil has.
_SEEN = ((0, 1), (1, 0), (1, 1), (1, -1))
_FREQUENCIES = 32


@dataclass(frozen=True)
class CoarseningNetwork:
    """Options of the network: the width of its two hidden layers."""

    width: int = 32

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"width must be at least 1; got {self.width}", "preconditioner.width")

    @classmethod
    def from_plain(cls, options: dict[str, Any], path: Any) -> CoarseningNetwork:
        """The options in a file of weights; raises InputError where they are none."""
        try:
            return cls(**options)
        except TypeError as error:
            raise InputError(f"'{path}' describes no such network: {error}") from None


class CoarseningModule(nn.Module):
    """Two hidden layers, float32; zero at first, so that nothing is corrected.

    Equal under the grid's symmetries by averaging: exchanged axes change no answer, a reflection
    the sign of p alone.
    """

    def __init__(self, options: CoarseningNetwork) -> None:
        super().__init__()
        self.options = options
        self.layers = nn.Sequential(
            nn.Linear(len(_SEEN), options.width),
            nn.Tanh(),
            nn.Linear(options.width, options.width),
            nn.Tanh(),
        )
        self.last = nn.Linear(options.width, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, seen: Tensor) -> Tensor:
        """Entries (*batch, 4) over the centre's to (p, q, s) in (-1, 1), (*batch, 3)."""
        x, y, d, e = seen.unbind(-1)
        total = torch.zeros_like(seen[..., :3])
        for arranged, sign in (
            ((x, y, d, e), 1.0),
            ((y, x, d, e), 1.0),
            ((x, y, e, d), -1.0),
            ((y, x, e, d), -1.0),
        ):
            answer = self.last(self.layers(4 * torch.stack(arranged, -1)))
            total = total + answer * answer.new_tensor((sign, 1.0, 1.0))
        return torch.tanh(total / 4)


def formula_weights(a: Tensor) -> Tensor:
    """The weights of P for a constant stencil, (*batch, 9) both. Differentiable."""
    patch = Stencil(a[..., None, None].expand(*a.shape, 3, 3), _OFFSETS)
    return reference.interpolate(patch, _FULL).weights[..., 0, 0]


def coarsened(a: Tensor, formula: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
    """The weights of P' and the entries of A_c', (*batch, 9) each, for a constant stencil.

    ``a``: its entries by ``box_offsets(2)``, symmetric; ``formula``: the weights of P; (*batch, 9)
    both. Differentiable.
    """
    at = [_OFFSETS.index(offset) for offset in _SEEN]
    seen = a[..., at] / a[..., [_OFFSETS.index((0, 0))]]
    corner, share, scale = network(seen.to(torch.float32)).to(a.dtype).unbind(-1)
    signs = a.new_tensor([d[0] * d[1] for d in transfer_offsets(_FULL)])
    weights = formula + _CORNER * corner[..., None] * signs
    product = galerkin_product(a, weights)
    bent = a.new_tensor([_bend(offset) for offset in _OFFSETS])
    product = product - (_SHARE * share * most_bend(product))[..., None] * bent
    return weights, torch.exp(_SCALE * scale)[..., None] * product


def galerkin_product(a: Tensor, weights: Tensor) -> Tensor:
    """P^T A P of constant stencils, (*batch, 9) all."""
    out, middle, left, right = _terms()
    terms = weights[..., left] * a[..., middle] * weights[..., right]
    return torch.zeros_like(terms[..., :9]).index_add(-1, torch.tensor(out), terms)


def most_bend(a: Tensor) -> Tensor:
    """The largest t for which a - t D^T D has no negative symbol, (*batch,)."""
    waves, bends = _symbols()
    return ((a @ waves.to(a)) / bends.to(a)).amin(-1)


def _bend(offset: tuple[int, ...]) -> float:
    """The entry of D^T D: (2, -1) along one axis times the same along the other."""
    return math.prod(-1.0 if o else 2.0 for o in offset)


@lru_cache
def _terms() -> tuple[list[int], list[int], list[int], list[int]]:
    out, middle, left, right, _, _ = zip(*galerkin_terms(_OFFSETS, _FULL, _OFFSETS), strict=True)
    return list(out), list(middle), list(left), list(right)


@lru_cache
def _symbols() -> tuple[Tensor, Tensor]:
    """cos(theta . o) (9, frequencies), and the symbol of D^T D, off the axes where it is zero."""
    step = math.pi / _FREQUENCIES
    first = step * torch.arange(1, _FREQUENCIES + 1, dtype=torch.float64)
    second = torch.cat([-first, first])
    theta = torch.cartesian_prod(first, second)
    waves = torch.cos(theta.new_tensor(_OFFSETS) @ theta.T)
    return waves, 16 * (torch.sin(theta / 2) ** 2).prod(-1)


@dataclass(frozen=True, eq=False)
class LearnedCoarsening:
    """The network's coarse grids, for ``hierarchy.build``.

    The formula's where an axis is not coarsened, and where the network's is not finite.
    """

    network: CoarseningModule

    @torch.no_grad()
    def __call__(self, A: Stencil, factors: tuple[int, ...]) -> tuple[Transfer, Stencil]:
        """P' and A_c' for a patch of a constant stencil, (*batch, planes, *shape)."""
        if factors != _FULL:
            return black_box(A, factors)
        P = kernels.of(A.coefficients).interpolate(A, factors).weights
        centre = P[..., P.shape[-2] // 2, P.shape[-1] // 2].double()
        weights, planes = coarsened(entries(A), centre, self.network)
        if not bool((torch.isfinite(weights) & torch.isfinite(planes)).all()):
            return black_box(A, factors)
        shape = coarse_shape(A.shape, factors)
        stored, coarse = (
            part.to(A.dtype)[..., None, None].expand(*part.shape, *shape)
            for part in (weights, planes)
        )
        return (
            Transfer(stored, factors, A.periodic, A.shape),
            Stencil(coarse, _OFFSETS),
        )


def entries(A: Stencil) -> Tensor:
    """The entries of a constant stencil by ``box_offsets(2)``, float64 (*batch, 9)."""
    first = A.coefficients[..., 0, 0].double()
    zero = torch.zeros_like(first[..., 0])
    found = [first[..., A.offsets.index(o)] if o in A.offsets else zero for o in _OFFSETS]
    return torch.stack(found, -1)


@dataclass(frozen=True)
class LearnedMultigrid:
    """Multigrid with a network's coarse grids as a preconditioner: linear and SPD, for plain CG.

    ``path``: a file of weights, the folder of a training run, or the name of shipped weights.
    ``cycle``, ``smoother``, ``sweeps``, ``dtype``: as in :class:`~sciml.solvers.Multigrid`.
    ``trial``: keep the formula where, on a small grid, the network needs no fewer iterations; some
    20 ms. It stays anyhow where coefficients vary or coarse points do not fit (sizes that are not
    odd).
    ``setup`` raises InputError for weights that cannot be used, and for an operator that is not a
    real symmetric positive definite stencil in two dimensions.
    """

    path: str
    cycle: Cycle | Literal["auto"] = "auto"
    smoother: Smoother = "gauss_seidel"
    sweeps: int = 2
    trial: bool = True
    dtype: Literal["float32", "float64"] = "float32"
    kind: Literal["learned_multigrid"] = "learned_multigrid"

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise InputError(f"{self.kind}: sweeps must be at least 1; got {self.sweeps}")
        if self.cycle == "F":
            raise InputError(f"{self.kind}: an F-cycle is not symmetric; use V, W or alternating")

    @torch.no_grad()
    def setup(self, A: LinearMap) -> MultigridCycle:
        """Read the weights, try them, build the hierarchy of what is better."""
        key = "solver.preconditioner"
        if not isinstance(A, Stencil) or A.dimension != 2:
            raise InputError(f"{self.kind} needs a stencil on a grid of two dimensions", key)
        if A.dtype.is_complex or not (A.symmetric and A.definite):
            raise InputError(
                f"{self.kind} needs a real symmetric positive definite operator; use gmres with "
                "multigrid",
                key,
            )
        network = load_coarsening(self.path).to(A.device)
        same = uniform(A)
        if same is None:
            reason = "the coefficients vary, or the coarse points do not fit"
            return self._noted(self._formula(A), f"{reason}: the formula's coarse grids")
        learned = LearnedCoarsening(network)
        cycle: Cycle = "alternating" if self.cycle == "auto" else self.cycle
        found, better = "not tried", True
        if self.trial:
            ours, theirs = self._tried(at_most(same, TRIED), learned, cycle)
            found = f"{ours:.2g} iterations a digit on a small grid against {theirs:.2g}"
            better = ours < theirs
        if better:
            hierarchy = build(same, DTYPES[self.dtype], learned)
            ready = MultigridCycle(same, hierarchy, cycle, self.smoother, self.sweeps)
            return self._noted(ready, f"{found}: the network's coarse grids")
        return self._noted(self._formula(same), f"{found}: the formula's coarse grids")

    def _noted(self, cycle: MultigridCycle, text: str) -> MultigridCycle:
        cycle.notes = (f"{self.kind}: {text}",)
        return cycle

    def _formula(self, A: Stencil) -> MultigridCycle:
        hierarchy = build(A, DTYPES[self.dtype])
        if self.cycle == "auto":
            return choose(A, hierarchy, self.smoother, self.sweeps)
        return MultigridCycle(A, hierarchy, self.cycle, self.smoother, self.sweeps)

    def _tried(self, A: Stencil, learned: LearnedCoarsening, cycle: Cycle) -> tuple[float, float]:
        """The iterations of CG per digit on A, with the network and at best with the formula.

        A V-cycle's, which costs less, count for less.
        """
        ours, formula = build(A, torch.float32, learned), build(A, torch.float32)
        theirs = self._digit(A, formula, cycle)
        if self.cycle == "auto":
            theirs = min(theirs, self._digit(A, formula, "V") / PAYS)
        return self._digit(A, ours, cycle), theirs

    def _digit(self, A: Stencil, hierarchy: Hierarchy, cycle: Cycle) -> float:
        return iterations_per_digit(
            A, MultigridCycle(A, hierarchy, cycle, self.smoother, self.sweeps)
        )


def iterations_per_digit(A: Stencil, B: LinearMap) -> float:
    """How many iterations CG with B takes to a tenth of the error's energy norm, on a random error.

    Infinite where B is found not to be positive definite.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (*A.batch, *A.shape)
    e = torch.randn(shape, generator=generator, dtype=torch.float64).to(A.device)
    r = A.apply(e)
    p, rz = torch.zeros_like(e), torch.ones(A.batch, dtype=torch.float64, device=A.device)
    energies = []
    for _ in range(_STEPS):
        z = B.apply(r)
        old, rz = rz, dot(r, z, 2)
        p = z + spread(rz / old, 2) * p
        q = A.apply(p)
        step = spread(rz / dot(p, q, 2), 2)
        e, r = e - step * p, r - step * q
        energies.append(dot(e, r, 2))
        if not bool(((rz > 0) & (energies[-1] > 0)).all()):
            return math.inf
    digits = float((energies[_FIRST - 1] / energies[-1]).log10().min()) / 2
    return (_STEPS - _FIRST) / digits if digits > 0 else math.inf


def load_coarsening(path: str) -> CoarseningModule:
    """The network in a file of weights, in eval mode; raises InputError where there is none."""
    try:
        stored = read_stored(path, KIND)
        options = CoarseningNetwork.from_plain(stored.options, stored.path)
        check_fit(lambda: CoarseningModule(options), stored.tensors, stored.path)
        module = CoarseningModule(options)
        load_into(module, stored.tensors, stored.path)
    except InputError as error:
        raise InputError(error.message, "solver.preconditioner.path") from None
    return module.eval().requires_grad_(False)


def plain(options: CoarseningNetwork) -> dict[str, Any]:
    """The options as they are written beside weights."""
    return asdict(options)


def uniform(A: Stencil) -> Stencil | None:
    """A as a constant stencil, stored once; None where it is none, or its coarse points do not fit.

    Entries that point out of the grid are none, whatever is stored.
    """
    middle: tuple[Any, ...] = tuple(slice(n // 2, n // 2 + 1) for n in A.shape)
    planes = A.coefficients[(..., *middle)]
    if stays_constant(A, _FULL):
        return A
    for k, offset in enumerate(A.offsets):
        inside: tuple[Any, ...] = tuple(
            slice(None) if ring else slice(max(0, -o), n - max(0, o))
            for o, n, ring in zip(offset, A.shape, A.periodic, strict=True)
        )
        plane = A.coefficients.select(-A.dimension - 1, k)[(..., *inside)]
        if not bool((plane == planes.select(-A.dimension - 1, k)).all()):
            return None
    constant = _with(A, planes, A.shape)
    return constant if stays_constant(constant, _FULL) else None


def _with(A: Stencil, planes: Tensor, shape: tuple[int, ...]) -> Stencil:
    """The constant stencil of ``planes`` (*batch, entries, 1, 1) on a grid of this shape."""
    return Stencil(
        planes.expand(*planes.shape[: -len(shape)], *shape),
        A.offsets,
        periodic=A.periodic,
        symmetric=A.symmetric,
        definite=A.definite,
        nullspace=A.nullspace,
    )


def at_most(A: Stencil, points: int) -> Stencil:
    """The constant stencil on a grid of at most so many points per axis, with its boundary."""
    shape = tuple(
        min(n, points + 1 if ring else points) for n, ring in zip(A.shape, A.periodic, strict=True)
    )
    return A if shape == A.shape else _with(A, A.coefficients[..., :1, :1], shape)


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
        progress: EpochProgress | None = None,
    ) -> Path:
        """Train on ``matrices``, constant 2-D stencils; the file of weights in the folder ``out``.

        The weights are there from the first round on; the same call goes on where one was stopped,
        on a CPU to the same bits. Raises InputError for matrices that do not fit, or a folder with
        another run, and TrainingError where the loss is no longer a number.
        """
        stencils = _checked(matrices).to(device, torch.float32)
        options = CoarseningNetwork(self.width)
        with seeded(self.seed, device):
            network = CoarseningModule(options).to(device)
        task = PreconditionerTask(
            KIND,
            Path(out),
            {**asdict(self), "matrices": len(stencils)},
            plain(options),
            network,
            self.steps,
            lambda step: _losses(self, stencils, network, step),
            lambda step: falling(self.rate, step, self.rounds * self.steps),
            columns=("loss", "rho"),
        )
        return task.train(self.rounds, progress, clip=1.0)


def _losses(
    options: MultigridTraining, stencils: Tensor, network: nn.Module, step: int
) -> tuple[Tensor, Tensor]:
    """The loss of a step, and the mean contraction."""
    chosen = np.random.default_rng((options.seed, step)).integers(len(stencils), size=options.batch)
    levels = hierarchy(stencils[torch.from_numpy(chosen)], options.points, network)
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    shape = (options.vectors, options.batch, options.points, options.points)
    v = torch.randn(shape, generator=generator).to(stencils.device)
    with torch.no_grad():
        for _ in range(options.power):
            v = unit(levels[0][0], error_after(levels, v, options.cycle, options.sweeps))
    rho = energy(levels[0][0], error_after(levels, v, options.cycle, options.sweeps)).sqrt()
    return expected_iterations(rho).mean(), rho.mean()


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
    x: Tensor = torch.linalg.solve(dense.transpose(0, 1), b.flatten(-2)[..., None])
    return x.reshape(b.shape)


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
