"""Deep conjugate directions (Kaneda et al. 2023, arXiv 2205.10763): a network proposes directions.

    q = net(r / ||r||),    p = q - sum_{i = 1, 2} p_{k-i} <q, A p_{k-i}> / <p_{k-i}, A p_{k-i}>,
    alpha = <p, r> / <p, A p>,    x += alpha p,    r = b - A x,

which is flexible CG with two previous directions and the network as its preconditioner:
``FCG(ConjugateDirections(path), directions=2)``.

The length of q means nothing to the method. Here q is given that of a step along it,

    z = q <q, r> / <q, A q>,

so that z is positively homogeneous in r and <z, r> > 0 whatever the network says. Where the
diagonal d of A varies (cut cells, half cells), the network sees d^-1/2 r and its answer is
multiplied by d^-1/2: it works on D^-1/2 A D^-1/2, a multiple of the paper's A where d is constant.

Two departures help a network from grid to grid. Its input has a mean square of 1, not a norm of 1:
a norm shared by more cells leaves each of them less, while biases stay. And the weights of a level
may stand for all levels below the finest (``repeat``), as many as the grid has: a grid of half as
many cells poses the same question at another scale. Without biases the answer is the same at every
amplitude, which falls from level to level.

Unknowns that nothing is linked to, as in holes, are none of the network's: it is given zeros there,
and z = r / d. Which cells are left may be an input of the network; the paper has none.

*Training*, without a single solution:

    minimise  mean_b || b - A q <q, b> / <q, A q> ||^2,      q = net(b),  ||b|| = 1,

the squared residual after one step along q with exact line search, whatever the length of q. The b
are random combinations of Ritz vectors of A (``lanczos``), never of A times something known. A is
scaled to a unit diagonal, as where the network is used. The paper trains on one matrix; several,
each with its own Ritz vectors, go with the cells as an input. A batch is of one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.core.algebra.kernels.reference import shifted
from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.run.training_run import EpochProgress, seeded
from sciml.core.run.weights import check_fit, load_into
from sciml.solvers.learned.lanczos import RitzPairs, cached_ritz_pairs, training_vectors
from sciml.solvers.learned.preconditioner_training import (
    Matrices,
    PreconditionerTask,
    check_training,
    symmetric_matrices,
    unfit,
)
from sciml.solvers.learned.weights import read_stored
from sciml.solvers.linear.inverse import Inverse
from sciml.solvers.linear.iteration import dot, norm, ratio, spread

KIND = "conjugate_directions"
COARSEST = 4  # cells per axis, at most, where the levels are repeated
_SLOW = 20_480  # values of a slice
_CELLS = 2**21  # that the network is given at once, over all samples


@dataclass(frozen=True)
class DirectionNetwork:
    """Options of the network; the defaults are the paper's for 64^3, (6, 10, 6) its for 128^3.

    ``dimension``: 2 or 3. ``convolutions``: per level, down to the coarsest grid and up again; each
    level down halves the grid. ``mask``: whether the cells that are no holes are an input too: in
    holes every level is set to zero, as the padding beyond the walls is; a coarse cell counts by
    its share. ``repeat``: use the last level above the coarsest grid again and again, until no axis
    of the coarsest has more than four cells; there are then no biases.
    """

    dimension: int
    channels: int = 16
    convolutions: tuple[int, ...] = (4, 6, 4)
    mask: bool = False
    repeat: bool = False

    def __post_init__(self) -> None:
        key = "preconditioner"
        if self.dimension not in (2, 3):
            raise InputError(
                f"dimension must be 2 or 3; got {self.dimension!r}", f"{key}.dimension"
            )
        if self.channels < 1:
            raise InputError(f"channels must be at least 1; got {self.channels}", f"{key}.channels")
        counts = self.convolutions
        if len(counts) < 3 or len(counts) % 2 == 0 or any(n < 2 or n % 2 for n in counts):
            raise InputError(
                "convolutions must be an odd number, at least 3, of even numbers of 2 or more; "
                f"got {list(counts)}",
                f"{key}.convolutions",
            )

    @classmethod
    def from_plain(cls, options: dict[str, Any], path: Any) -> DirectionNetwork:
        """The options in a file of weights; raises InputError where they are none."""
        try:
            return cls(**{**options, "convolutions": tuple(options["convolutions"])})
        except (TypeError, KeyError, InputError) as error:
            raise InputError(f"'{path}' describes no such network: {error}") from None


class Convolution3d(nn.Conv3d):
    """Convolution in 3-D that takes one small sample twice on the CPU.

    PyTorch gives one sample with that many values a slice to a routine five times slower.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Samples (B, channels, *grid)."""
        if len(x) == 1 and x.device.type == "cpu" and x[..., 0].numel() <= _SLOW:
            return super().forward(torch.cat([x, x]))[:1]
        return super().forward(x)


class DirectionModule(nn.Module):
    """The network: residuals (B, *grid) and cells (B, *grid) to directions (B, *grid), float32.

    A linear convolution; per level ReLU convolutions with additive skips over pairs; average pools
    by two; nearest upsampling plus the skip from the way down; a linear map of the channels at each
    point. Odd sizes are pooled with what is there. Weights are Glorot's, biases zero.
    """

    def __init__(self, options: DirectionNetwork) -> None:
        super().__init__()
        self.options = options
        d, c, bias = options.dimension, options.channels, not options.repeat
        convolution = nn.Conv2d if d == 2 else Convolution3d
        self.first = convolution(1, c, 3, padding=1, bias=bias)
        self.levels = nn.ModuleList(
            nn.ModuleList(convolution(c, c, 3, padding=1, bias=bias) for _ in range(count))
            for count in options.convolutions
        )
        self.last = nn.Linear(c, 1, bias=bias)
        for name, value in self.named_parameters():
            (nn.init.zeros_ if name.endswith("bias") else nn.init.xavier_uniform_)(value)

    def forward(self, r: Tensor, cells: Tensor) -> Tensor:
        """The direction for ``r``, zero where ``cells`` is zero."""
        r = r * cells.flatten(1).sum(1).sqrt().reshape(-1, *(1 for _ in r.shape[1:]))
        levels = [list(level.children()) for level in self.levels]
        depth = len(levels) // 2
        again = self._repeats(max(r.shape[1:]), depth)
        down = levels[:depth] + [levels[depth - 1]] * again
        up = [levels[depth + 1]] * again + levels[depth + 1 :]
        mask = cells[:, None] if self.options.mask else None
        x, skips = _masked(self.first(r[:, None]), mask), []
        for level in down:
            # The first convolution has no skip over it, and neither has the last.
            x = _masked(torch.relu(level[0](x)), mask)
            x = _masked(torch.relu(level[-1](_pairs(x, level[1:-1], mask))), mask)
            skips.append((x, mask))
            x, mask = self._pool(x), None if mask is None else self._pool(mask)
        x = _pairs(x, levels[depth], mask)
        for level in up:
            skip, mask = skips.pop()
            x = _pairs(_masked(self._unpool(x, skip.shape[2:]), mask) + skip, level, mask)
        direction: Tensor = self.last(x.movedim(1, -1))[..., 0]
        return direction * cells

    def _repeats(self, cells: int, depth: int) -> int:
        """How often to repeat a level on a grid with so many cells along its longest axis."""
        halvings = ((cells - 1) // COARSEST).bit_length()
        return max(halvings - depth, 0) if self.options.repeat else 0

    def _pool(self, x: Tensor) -> Tensor:
        pool = functional.avg_pool2d if self.options.dimension == 2 else functional.avg_pool3d
        return pool(x, 2, ceil_mode=True, count_include_pad=False)

    def _unpool(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        for axis, n in enumerate(shape, 2):
            x = x.narrow(axis, 0, n)
        return x


def _pairs(x: Tensor, convolutions: Sequence[nn.Module], mask: Tensor | None) -> Tensor:
    for first, second in zip(convolutions[::2], convolutions[1::2], strict=True):
        y = _masked(torch.relu(first(x)), mask)
        x = _masked(torch.relu(second(y)), mask) + x
    return x


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


@dataclass(frozen=True)
class ConjugateDirections:
    """A trained network as a preconditioner; nonlinear, for ``FCG(..., directions=2)``.

    ``path``: a file of weights, the folder of a training run, or the name of shipped weights.
    ``active``: for a matrix whose unknowns stand in a vector, the grid they came from as a bool
    tensor, True where a cell is no hole; they are its True cells, or all its cells, in row-major
    order. ``setup`` raises InputError for weights that cannot be used, and for an operator that is
    not real symmetric positive definite on a grid of the network's dimension.
    """

    path: str
    active: Any = field(default=None, compare=False, metadata={"yaml": False})
    kind: Literal["conjugate_directions"] = "conjugate_directions"

    def setup(self, A: LinearMap) -> ConjugateInverse:
        """Read the weights; find the holes."""
        module, options = load_directions(self.path)
        if A.dtype.is_complex or not (A.symmetric and A.definite):
            raise InputError(
                f"{self.kind} needs a real symmetric positive definite operator; use gmres with "
                "another preconditioner",
                "solver.preconditioner",
            )
        cells = Cells(A, self.active)
        if len(cells.shape) != options.dimension:
            raise InputError(
                f"the network was trained in {options.dimension} dimensions; the unknowns have "
                f"{len(cells.shape)}",
                "solver.preconditioner.path",
            )
        layout = torch.channels_last if options.dimension == 2 else torch.channels_last_3d
        module = module.to(A.device).to(memory_format=layout)  # type: ignore[call-overload]
        return ConjugateInverse(A, module, cells)


def load_directions(path: str) -> tuple[DirectionModule, DirectionNetwork]:
    """The network in a file of weights, in eval mode; raises InputError where there is none."""
    try:
        stored = read_stored(path, KIND)
        options = DirectionNetwork.from_plain(stored.options, stored.path)
        check_fit(lambda: DirectionModule(options), stored.tensors, stored.path)
        module = DirectionModule(options)
        load_into(module, stored.tensors, stored.path)
    except InputError as error:
        raise InputError(error.message, "solver.preconditioner.path") from None
    return module.eval().requires_grad_(False), options


class Cells:
    """Between the unknowns of ``A`` and the cells of a grid, with zeros in holes.

    ``shape``: the grid. ``mask``: (*A.batch, *A.shape), 1 for unknowns that are linked to others
    and 0 for those in holes; ``on_grid``: the same on the grid, (*A.batch, *shape). Without
    ``active``, A is a stencil, and an unknown without a link is a hole.
    """

    def __init__(self, A: LinearMap, active: Tensor | None) -> None:
        self.shape: tuple[int, ...] = A.shape
        self.places: Tensor | None = None  # of the unknowns, among the cells in row-major order
        if active is None:
            if not isinstance(A, Stencil):
                raise InputError(
                    f"{KIND} needs a grid; for a matrix pass active, a bool tensor of the grid's "
                    "shape that is True where there are unknowns",
                    "solver.preconditioner.active",
                )
            self.mask = linked(A).double()
            self.on_grid = self.mask
            return
        active = torch.as_tensor(active, dtype=torch.bool, device=A.device)
        count, own = active.numel(), int(active.sum())
        if tuple(active.shape) != A.shape:
            if len(A.shape) != 1 or A.size not in (count, own):
                raise InputError(
                    f"active has {count} cells, {own} of them True; the operator's unknowns are "
                    f"{list(A.shape)}",
                    "solver.preconditioner.active",
                )
            self.shape = tuple(active.shape)
            every = torch.arange(count, device=A.device)
            self.places = every if A.size == count else every[active.flatten()]
        flat = active.flatten() if self.places is None else active.flatten()[self.places]
        self.mask = flat.double().reshape(A.shape).expand(*A.batch, *A.shape)
        self.on_grid = active.double().expand(*A.batch, *active.shape)

    def scatter(self, u: Tensor) -> Tensor:
        """Unknowns (*batch, *A.shape) to the grid, (*batch, *shape)."""
        if self.places is None:
            return u
        value = u.new_zeros(*u.shape[:-1], prod(self.shape))
        return value.index_copy(-1, self.places, u).reshape(*u.shape[:-1], *self.shape)

    def gather(self, value: Tensor) -> Tensor:
        """The grid (*batch, *shape) to the unknowns, (*batch, *A.shape)."""
        return value if self.places is None else value.flatten(-len(self.shape))[..., self.places]


def linked(A: Stencil) -> Tensor:
    """Which unknowns are linked to another one, bool (*batch, *shape)."""
    centre = A.offsets.index((0,) * A.dimension)
    others = [k for k in range(len(A.offsets)) if k != centre]
    planes = A.coefficients.detach().index_select(
        -A.dimension - 1, torch.tensor(others, device=A.device)
    )
    return (planes != 0).any(-A.dimension - 1)


class ConjugateInverse(Inverse):
    """z = q <q, r> / <q, A q>, q = D^-1/2 net(D^-1/2 r / ||.||) off the holes; r / d in them.

    Batch dimensions beyond A's own may lead. Computes in float64 but for the network.
    """

    def __init__(self, A: LinearMap, network: nn.Module, cells: Cells) -> None:
        super().__init__(A, symmetric=False, definite=False, linear=False)
        self.A, self.network, self.cells = A, network, cells
        diagonal = A.diagonal().double()
        if not bool((diagonal > 0).all()):
            raise InputError(
                f"{KIND} needs a positive diagonal; this operator is not positive definite",
                "solver.preconditioner",
            )
        self.root = diagonal.rsqrt() * cells.mask
        self.holes = (1 - cells.mask) / diagonal if bool((cells.mask == 0).any()) else None

    @torch.no_grad()
    def apply(self, u: Tensor) -> Tensor:
        """The direction for the residual u, (*batch, *shape); float64."""
        d = len(self.shape)
        r = u.to(self.dtype)
        scaled = self.root * r
        size = norm(scaled, d)
        usable = size > 0
        unit = spread(ratio(torch.ones_like(size), size, usable), d) * scaled
        q = self.root * self._direction(unit)
        curvature = dot(q, self.A.apply(q), d)
        z = spread(ratio(dot(q, r, d), curvature, usable), d) * q
        return z if self.holes is None else z + self.holes * r

    def adjoint(self, u: Tensor) -> Tensor:
        """There is none: the map is not linear."""
        raise InputError(f"{KIND} is not linear and has no adjoint; use fcg", "solver.kind")

    def _direction(self, unit: Tensor) -> Tensor:
        """The network's answer to residuals of norm 1, as unknowns."""
        grid = self.cells.scatter(unit)
        k = grid.ndim - len(self.cells.shape)
        inputs = grid.reshape(-1, *self.cells.shape).float()
        masks = self.cells.on_grid.expand(grid.shape).reshape(inputs.shape).float()
        chunk = max(1, _CELLS // inputs[:1].numel()) if len(inputs) else 1
        found = [
            self.network(r, cells)
            for r, cells in zip(inputs.split(chunk), masks.split(chunk), strict=True)
        ]
        return self.cells.gather(
            torch.cat(found).reshape(grid.shape[:k] + self.cells.shape).double()
        )


def plain(options: DirectionNetwork) -> dict[str, Any]:
    """The options as a file of weights holds them."""
    return {**asdict(options), "convolutions": list(options.convolutions)}


WARM_UP = 100  # steps


@dataclass(frozen=True)
class ConjugateTraining:
    """How to train a network for deep conjugate directions; the defaults are the paper's.

    ``channels``, ``convolutions``, ``mask``, ``repeat``: of the network, :class:`DirectionNetwork`.
    ``ritz``: Lanczos steps per matrix, at most its unknowns. ``vectors``: training vectors over all
    matrices; ``valid`` more, never trained on, choose the epoch that is kept. ``rate``: Adam's.
    ``cosine``: let the rate rise over the first steps, then fall to zero along a cosine over all
    epochs. ``seed``: of weights, vectors, order. ``checkpoint``: seconds between two states.
    """

    channels: int = 16
    convolutions: tuple[int, ...] = (4, 6, 4)
    mask: bool = False
    repeat: bool = False
    ritz: int = 10_000
    vectors: int = 20_000
    valid: int = 200
    epochs: int = 50
    batch: int = 10
    rate: float = 1e-4
    cosine: bool = False
    seed: int = 0
    checkpoint: float = 60.0
    kind: Literal["conjugate_directions"] = "conjugate_directions"

    def __post_init__(self) -> None:
        check_training(self, ("ritz", "vectors", "valid", "epochs", "batch"))
        self.network(2)  # checks its options

    def network(self, dimension: int) -> DirectionNetwork:
        """The options of the network for grids of this dimension."""
        return DirectionNetwork(dimension, self.channels, self.convolutions, self.mask, self.repeat)

    def train(
        self,
        matrices: Matrices,
        out: str | Path,
        *,
        device: torch.device | str = "cpu",
        progress: EpochProgress | None = None,
        cache: str | Path | None = None,
    ) -> Path:
        """Train on ``matrices``, stencils of one shape; the weights' file in the folder ``out``.

        The weights of the best epoch, by the validation vectors, are there from the first epoch on;
        the same call goes on where one was stopped, on a CPU to the same bits. ``cache``: the
        folder of the Ritz vectors, ``out`` by default. Raises InputError for matrices that do not
        fit, or a folder with another run, and TrainingError where the loss is no longer a number.
        """
        stencils = [_scaled(name, A).to(device) for name, A in _checked(matrices)]
        A = Stencil(
            torch.stack([part.coefficients for part in stencils]),
            stencils[0].offsets,
            periodic=stencils[0].periodic,
            symmetric=True,
            definite=True,
        )
        pairs = cached_ritz_pairs(A, self.ritz, 0, torch.float32, cache or out)
        return (
            _Vectors(self, stencils, pairs)
            .task(Path(out), device)
            .train(self.epochs, progress, checkpoint=self.checkpoint)
        )


def line_searched_loss(A: LinearMap, q: Tensor, b: Tensor) -> Tensor:
    """||b - A q <q, b> / <q, A q>||^2 per sample; q and b (*batch, *A.shape)."""
    d = len(A.shape)
    image = A.apply(q)
    gap = b - spread(dot(q, b, d) / dot(q, image, d), d) * image
    return dot(gap, gap, d)


@dataclass(frozen=True)
class _Scaled:
    """D^-1/2 A D^-1/2 off the holes, and the cells that are none (*shape), float32."""

    coefficients: Tensor
    offsets: Sequence[tuple[int, ...]]
    periodic: Sequence[bool]
    cells: Tensor

    def to(self, device: torch.device | str) -> _Scaled:
        return replace(self, coefficients=self.coefficients.to(device), cells=self.cells.to(device))

    @property
    def stencil(self) -> Stencil:
        return Stencil(
            self.coefficients,
            self.offsets,
            periodic=self.periodic,
            symmetric=True,
            definite=True,
        )


class _Vectors:
    """What a network is trained on: the matrices, and vectors made of their Ritz vectors."""

    def __init__(
        self,
        options: ConjugateTraining,
        matrices: Sequence[_Scaled],
        pairs: Sequence[RitzPairs],
    ) -> None:
        self.options, self.matrices, self.pairs = options, matrices, pairs
        self.per_matrix = max(1, options.vectors // len(matrices))
        self.stencils = [matrix.stencil for matrix in matrices]
        self.order = lru_cache(maxsize=1)(self._order)

    def task(self, out: Path, device: torch.device | str) -> PreconditionerTask:
        """The losses of a new network."""
        options = self.options
        described = options.network(self.matrices[0].cells.ndim)
        with seeded(options.seed, device):
            network = DirectionModule(described).to(device)
        per_epoch = len(self.order(0))

        def loss(step: int) -> tuple[Tensor]:
            epoch, number = divmod(step, per_epoch)
            return (self.loss(network, *self.order(epoch)[number]).mean(),)

        return PreconditionerTask(
            KIND,
            out,
            {
                **asdict(replace(options, epochs=1, checkpoint=0.0)),
                "matrices": len(self.matrices),
                "shape": " x ".join(map(str, self.matrices[0].cells.shape)),
            },
            plain(described),
            network,
            per_epoch,
            loss,
            lambda step: self._rate(step, options.epochs * per_epoch),
            lambda: {"valid_loss": self._validated(network)},
            validated=("valid_loss",),
        )

    def _order(self, epoch: int) -> list[tuple[int, list[int]]]:
        """The batches of an epoch: a matrix, and the numbers of its vectors."""
        order = np.random.default_rng((self.options.seed, 1, epoch))
        batches = []
        for k in range(len(self.matrices)):
            shuffled = (k * self.per_matrix + order.permutation(self.per_matrix)).tolist()
            batches += [
                (k, shuffled[i : i + self.options.batch])
                for i in range(0, self.per_matrix, self.options.batch)
            ]
        return [batches[i] for i in order.permutation(len(batches))]

    def loss(self, network: nn.Module, matrix: int, indices: Sequence[int]) -> Tensor:
        """Of every vector of a batch."""
        b = training_vectors(self.pairs[matrix], self.options.seed, indices)
        cells = self.matrices[matrix].cells.expand(b.shape)
        return line_searched_loss(self.stencils[matrix], network(b, cells), b)

    def _rate(self, step: int, steps: int) -> float:
        """Adam's at this step of all."""
        if not self.options.cosine:
            return self.options.rate
        rise = min(1.0, (step + 1) / WARM_UP)
        return self.options.rate * rise * (1 + math.cos(math.pi * step / steps)) / 2

    def _validated(self, network: nn.Module) -> float:
        """The mean loss over the validation vectors, which are no training vectors."""
        count = len(self.matrices)
        first = count * self.per_matrix
        total, size = 0.0, self.options.batch
        for k in range(count):
            own = range(first + k, first + self.options.valid, count)
            for i in range(0, len(own), size):
                total += float(self.loss(network, k, own[i : i + size]).sum())
        return total / self.options.valid


def _checked(matrices: Matrices) -> list[tuple[str, Stencil]]:
    """Every sample of every matrix as a stencil of its own; InputError where they do not fit."""
    parts: list[tuple[str, Stencil]] = []
    for name, A in symmetric_matrices(KIND, matrices).items():
        if not isinstance(A, Stencil):
            raise InputError(
                f"{name}: {KIND} is trained on problems on grids, not on bare matrices", "data"
            )
        if not A.definite:
            raise unfit(KIND, name, A, "not positive definite")
        for index in np.ndindex(*A.batch):
            parts.append((name, Stencil(A.coefficients[index], A.offsets, periodic=A.periodic)))
    first = parts[0][1]
    for name, A in parts:
        if (A.shape, A.offsets, A.periodic) != (first.shape, first.offsets, first.periodic):
            raise InputError(
                f"{name}: {KIND} is trained on operators of one shape; got {list(first.shape)} and "
                f"{list(A.shape)}",
                "data",
            )
    return parts


def _scaled(name: str, A: Stencil) -> _Scaled:
    """The scaled stencil; its rows in holes are zero."""
    cells = linked(A)
    diagonal = A.diagonal().double()
    if not bool((diagonal > 0).all()):
        raise InputError(f"{name}: {KIND} needs a positive diagonal", "data")
    root = diagonal.rsqrt() * cells
    planes = [
        (A.entry(offset).double() * root * shifted(root, offset, A.periodic)).float()
        for offset in A.offsets
    ]
    return _Scaled(torch.stack(planes), A.offsets, A.periodic, cells.float())
