"""Multigrid whose interpolation is corrected by a network: linear, and SPD whatever it says.

Black-box multigrid takes the interpolation P from the stencil by a formula (``core.transfer``),
which is poor where the coefficient varies from cell to cell. Here a small convolutional network
looks at the stencil around each coarse point, on every level, and

    P' = P + Delta,      sum_j Delta_ij = 0,      A_c = P'^T A P'.

The pattern of P is kept, so a cycle costs what it cost; so are its rows' sums, so constants are
interpolated as before on every grid, and the ones at the coarse points, so P' has full rank and A_c
is symmetric positive definite with A. The cycle's error operator is S* T S with 0 <= T <= 1 as in
``multigrid.cycle``: a fixed symmetric positive definite preconditioner, fit for plain CG.

The idea of a network that interpolates is Greenfeld et al. 2019 (arXiv 1902.10248) and Luz et al.
2020 (arXiv 2003.05744); that it works in the set-up only, that of RAPNet (arXiv 2605.26854). Before
it is used it is tried against the formula on a window of the finest grid; the better one is taken.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciml.core import kernels
from sciml.core.errors import InputError
from sciml.core.kernels.reference import at_coarse
from sciml.core.linear import LinearMap
from sciml.core.stencil import Offset, Stencil, box_offsets, shifted
from sciml.core.transfer import Transfer, transfer_offsets
from sciml.solvers.learned.weights import load_into, read_stored
from sciml.solvers.multigrid.choice import choose, iterations
from sciml.solvers.multigrid.cycle import Cycle, MultigridCycle, Smoother
from sciml.solvers.multigrid.hierarchy import Hierarchy, build
from sciml.solvers.multigrid.solver import DTYPES

KIND = "learned_multigrid"
WINDOW = 95  # points per axis of the window on which both interpolations are tried
_STEPS = 8
_BLOCK = ((0, 0), (0, 1), (1, 0), (1, 1))  # the fine points that belong to a coarse one
_OTHERS = tuple(o for o in box_offsets(2) if any(o))
_CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
FEATURES = 5 * len(_OTHERS)  # per coarse point: the four rows of its block, and P


@dataclass(frozen=True)
class TransferNetwork:
    """Options of the network: the channels of its two convolutions."""

    channels: int = 24

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise InputError(
                f"channels must be at least 1; got {self.channels}", "preconditioner.channels"
            )

    @classmethod
    def from_plain(cls, options: dict[str, Any], path: Any) -> TransferNetwork:
        """The options in a file of weights; raises InputError where they are none."""
        try:
            return cls(**options)
        except TypeError as error:
            raise InputError(f"'{path}' describes no such network: {error}") from None


class TransferModule(nn.Module):
    """Two 3 x 3 convolutions and a pointwise map, float32; zero at first, so that P' = P.

    Features (B, FEATURES, *coarse) to (B, 6, *coarse) in (-1, 1): the corrections of the fine
    points after a coarse one along the second axis, along the first, and four along both.
    """

    def __init__(self, options: TransferNetwork) -> None:
        super().__init__()
        self.options = options
        c = options.channels
        self.first = nn.Conv2d(FEATURES, c, 3, padding=1)
        self.second = nn.Conv2d(c, c, 3, padding=1)
        self.last = nn.Conv2d(c, 6, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """The corrections."""
        x = torch.relu(self.first(features))
        return torch.tanh(self.last(torch.relu(self.second(x)) + x))


def features(A: Stencil, P: Transfer) -> Tensor:
    """What the network sees, (*batch, FEATURES, *coarse), float32; it does not change with s A.

    The weights of P, and a_k / a_0 at the four fine points of a block, as sign(q) sqrt(|q|), so
    that weak links are told from weaker ones.
    """
    diagonal = A.diagonal()
    inverse = torch.where(diagonal != 0, diagonal, 1.0).reciprocal()
    ratios = torch.stack(
        [A.entry(o) * inverse if o in A.offsets else torch.zeros_like(diagonal) for o in _OTHERS],
        dim=-3,
    )
    rows = torch.sign(ratios) * ratios.abs().sqrt()
    blocks = [at_coarse(rows, d, P.factors, P.periodic) for d in _BLOCK]
    planes = [k for k, d in enumerate(P.offsets) if any(d)]
    return torch.cat([*blocks, P.weights[..., planes, :, :]], dim=-3).float()


def corrected(P: Transfer, corrections: Tensor) -> Transfer:
    """P' of the corrections (*batch, 6, *coarse), zero where a fine point lacks a coarse one.

    A row of P with the sum s gets s (c_j - mean of c), so that its sum remains.
    """
    at = {d: k for k, d in enumerate(transfer_offsets(P.factors))}
    weights = list(P.weights.unbind(-3))
    wide, tall = corrections[..., 0, :, :], corrections[..., 1, :, :]
    corners = corrections[..., 2:, :, :] - corrections[..., 2:, :, :].mean(-3, keepdim=True)
    for points, changes in (
        (((0, 1), (0, -1)), (wide, -wide)),
        (((1, 0), (-1, 0)), (tall, -tall)),
        (_CORNERS, tuple(corners.unbind(-3))),
    ):
        # The coarse points around the fine one at d = points[0] from C lie at C + step.
        steps = [tuple(int(a != b) for a, b in zip(points[0], d, strict=True)) for d in points]
        total, inside = torch.zeros_like(wide), torch.ones_like(wide)
        for d, step in zip(points, steps, strict=True):
            total = total + shifted(P.weights[..., at[d], :, :], step, P.periodic)
            inside = inside * shifted(torch.ones_like(inside), step, P.periodic)
        for d, step, change in zip(points, steps, changes, strict=True):
            back: Offset = tuple(-s for s in step)
            moved = shifted(total * inside * change, back, P.periodic)
            weights[at[d]] = weights[at[d]] + moved
    return Transfer(torch.stack(weights, -3), P.factors, P.periodic, P.fine_shape)


@dataclass(frozen=True, eq=False)
class LearnedInterpolation:
    """The formula's interpolation with the network's correction, for ``hierarchy.build``.

    The formula's alone where an axis is not coarsened, and where the network's is not finite.
    """

    network: TransferModule

    @torch.no_grad()
    def __call__(self, A: Stencil, factors: tuple[int, ...]) -> Transfer:
        """P' for the stencil A (*batch, planes, *shape)."""
        P = kernels.of(A.coefficients).interpolate(A, factors)
        if factors != (2, 2):
            return P
        seen = features(A, P)
        answer = self.network(seen.reshape(-1, *seen.shape[-3:])).reshape(
            *seen.shape[:-3], 6, *seen.shape[-2:]
        )
        learned = corrected(P, answer.to(P.weights.dtype))
        return learned if bool(torch.isfinite(learned.weights).all()) else P


@dataclass(frozen=True)
class LearnedMultigrid:
    """Multigrid with a network's interpolation as a preconditioner: linear and SPD, for plain CG.

    ``path``: a file of weights, the folder of a training run, or the name of shipped weights.
    ``cycle``, ``smoother``, ``sweeps``, ``dtype``: as in :class:`~sciml.solvers.Multigrid`.
    ``trial``: use the formula's interpolation where, on a window of the grid, it needs no more
    iterations. ``setup`` raises InputError for weights that cannot be used, and for an operator
    that is not a real symmetric positive definite stencil in two dimensions.
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
        """Read the weights, try both interpolations, build the hierarchy of the better one."""
        key = "solver.preconditioner"
        if not isinstance(A, Stencil) or A.dimension != 2:
            raise InputError(f"{self.kind} needs a stencil on a grid of two dimensions", key)
        if A.dtype.is_complex or not (A.symmetric and A.definite):
            raise InputError(
                f"{self.kind} needs a real symmetric positive definite operator; use gmres with "
                "multigrid",
                key,
            )
        learned = LearnedInterpolation(load_transfer(self.path).to(A.device))
        dtype = DTYPES[self.dtype]
        note = ""
        use = True
        if self.trial:
            window = middle(A)
            ours, formula = (self._expected(window, i) for i in (learned, None))
            use = ours < formula
            note = f": {ours:.2g} iterations a digit on a window against {formula:.2g}"
        cycle = self._cycle(A, build(A, dtype, learned)) if use else None
        if cycle is None or not sound(cycle.hierarchy):
            cycle, use = self._cycle(A, build(A, dtype)), False
        taken = "the learned interpolation is used" if use else "the formula's interpolation stays"
        cycle.notes = (f"{self.kind}: {taken}{note}",)
        return cycle

    def _cycle(self, A: Stencil, hierarchy: Hierarchy) -> MultigridCycle:
        if self.cycle == "auto":
            return choose(A, hierarchy, self.smoother, self.sweeps)
        return MultigridCycle(A, hierarchy, self.cycle, self.smoother, self.sweeps)

    def _expected(self, A: Stencil, interpolation: LearnedInterpolation | None) -> float:
        """Iterations of CG per digit that the V-cycle's contraction lets expect."""
        hierarchy = build(A, torch.float32, interpolation)
        if not sound(hierarchy):
            return float("inf")
        V = MultigridCycle(A, hierarchy, "V", self.smoother, self.sweeps)
        return iterations(float(V.contraction(0, _STEPS).max())) * 2.302585


def load_transfer(path: str) -> TransferModule:
    """The network in a file of weights, in eval mode; raises InputError where there is none."""
    try:
        stored = read_stored(path, KIND)
        module = TransferModule(TransferNetwork.from_plain(stored.options, stored.path))
        load_into(module, stored.tensors, stored.path)
    except InputError as error:
        raise InputError(error.message, "solver.preconditioner.path") from None
    return module.eval().requires_grad_(False)


def plain(options: TransferNetwork) -> dict[str, Any]:
    """The options as they are written beside weights."""
    return asdict(options)


def middle(A: Stencil) -> Stencil:
    """The window of at most WINDOW^2 points in the middle, zero Dirichlet values around it."""
    starts = [max(0, (n - WINDOW) // 2) for n in A.shape]
    whole = all(n <= WINDOW for n in A.shape)
    return A if whole else window(A, starts, [min(n, WINDOW) for n in A.shape])


def window(A: Stencil, starts: list[int], sizes: list[int]) -> Stencil:
    """A principal submatrix of A: its rows and columns in a box of the grid."""
    where: tuple[Any, ...] = tuple(slice(i, i + n) for i, n in zip(starts, sizes, strict=True))
    return Stencil(
        A.coefficients[(..., *where)], A.offsets, symmetric=A.symmetric, definite=A.definite
    )


def sound(hierarchy: Hierarchy) -> bool:
    """Whether every level's diagonal is positive and finite in the cycle's precision."""
    for level in hierarchy.levels:
        diagonal = level.A.diagonal()
        if not bool(((diagonal > 0) & torch.isfinite(diagonal)).all()):
            return False
    coarsest = hierarchy.coarsest
    return not isinstance(coarsest, Tensor) or bool(torch.isfinite(coarsest).all())
