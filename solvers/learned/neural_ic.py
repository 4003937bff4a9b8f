"""Incomplete Cholesky factors that a graph network corrects: linear, and SPD whatever it says.

    B = (L L^T)^-1,    L_ii = C_ii exp(x_i / 2),    L_ij = C_ij (1 + y_ij / 2) s_j,

where |x_i|, |y_ij| < 1 and C is the relaxed incomplete Cholesky factor of A (``incomplete``), in
the order of reverse Cuthill and McKee. A network that passes messages along the entries of C gives
x and y. L has C's pattern, so that an application costs what it cost, and a positive diagonal, so
that B is a fixed symmetric positive definite map, fit for plain CG. Against growth in L^-1,

    s_j = min(1, max(1, sigma_j(C)) / sigma_j(L)),     sigma_j(L) = sum_{i > j} |L_ij| / L_jj,

so that the columns of L stay diagonally dominant where those of C are, as they are for M-matrices
with A 1 >= 0. An untrained network says zero: then L = C.

All that the network sees is free of units, so that B(s A) = B(A) / s; of the order of the unknowns
it knows only which end of an entry comes first, as C does. A sparse factor from a graph network:
Haeusner et al. 2023 (NeuralIF, arXiv 2305.16368); one that corrects a classical factor: Trifonov et
al. 2024 (arXiv 2405.15557).

*Losses*: the error that conjugate gradients leave, or distances. Preconditioned by M = L L^T, k
steps of CG from zero leave the error e_k = p(M^-1 A) e_0, where the polynomial p of degree k, p(0)
= 1, is the one that makes its energy norm least. The loss

    energy:     mean (||e_k||_A / ||e_0||_A)^(1/k), the factor per step,

has therefore the gradient that it has with CG's step lengths held: p is stationary, so that its own
change does not matter to first order. Through what is left, linear recurrences, go

    z = M^-1 r,    g = dloss/dz:    dloss/dr = h,    dloss/dL_ij = -(h_i y_j + z_i q_j),

with y = L^-1 r, q = L^-1 g and h = L^-T q. The others are mean ||(M - A) w||^2 / ||A w||^2, in the
norm of D^-1, D the diagonal of A, with

    frobenius:  w = D^-1/2 n, n of N(0, 1)   (Haeusner et al. 2023, arXiv 2305.16368),
    solutions:  w = A^-1 b, b of N(0, 1)     (Trifonov et al. 2024, arXiv 2405.15557).

*Training* on any symmetric positive definite matrices:

    minimise  mean loss(L, A, b),    b of N(0, 1),

over the weights of the network that gives L. Each matrix is factorised once, exactly, for the
solutions of a few right-hand sides. Every eighth matrix is not trained on; its loss chooses the
round whose weights are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

from sciml.core.algebra.maps import LinearMap
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
from sciml.solvers.linear.incomplete import (
    CholeskyFactor,
    OrderedFactor,
    check_relaxation,
    factorise,
    reordered,
)
from sciml.solvers.linear.inverse import PerSample, matrices
from sciml.solvers.linear.inverse import matrices as samples
from sciml.solvers.linear.relaxation import Triangle, split

KIND = "neural_ic"
TRIAL = 1000  # unknowns on which both factors are tried
_STEPS = 10
_NODES, _EDGES = 3, 3


@dataclass(frozen=True)
class FactorNetwork:
    """Options of the network, and the factor that it corrects.

    ``channels`` of an unknown; ``messages``: rounds in which they pass along the entries of C.
    ``relaxation`` of C, see :class:`~sciml.solvers.IncompleteCholesky`.
    """

    channels: int = 12
    messages: int = 2
    relaxation: float = 0.98

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("messages", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} must be at least {least}; got {getattr(self, name)}",
                    f"preconditioner.{name}",
                )
        check_relaxation(self.relaxation, "preconditioner.relaxation")

    @classmethod
    def from_plain(cls, options: dict[str, Any], path: Any) -> FactorNetwork:
        """The options in a file of weights; raises InputError where they are none."""
        try:
            return cls(**options)
        except (TypeError, InputError) as error:
            raise InputError(f"'{path}' describes no such network: {error}") from None


@dataclass(frozen=True, eq=False)
class FactorGraph:
    """A factor C of n rows with m entries below its diagonal, and what the network sees of it.

    ``nodes`` (n, 3) and ``edges`` (m, 3), float32; ``rows``, ``columns`` (m,) int64, row by row;
    ``diagonal`` (n,) and ``lower`` (m,), the entries of C, float64.
    """

    nodes: Tensor
    edges: Tensor
    rows: Tensor
    columns: Tensor
    diagonal: Tensor
    lower: Tensor

    @classmethod
    def of(cls, matrix: scipy.sparse.csr_matrix, factor: CholeskyFactor) -> FactorGraph:
        """The graph of a symmetric matrix and its factor, in the order of both.

        Per unknown C_ii / sqrt(a_ii), and over a_ii the sums of row i of C C^T - A and of A; per
        entry C_ij / sqrt(a_ii), a_ij / sqrt(a_ii a_jj) and log(a_ii / a_jj) / 2.
        """
        T, C, one = factor.lower, factor.matrix(), np.ones(matrix.shape[0])
        counts = np.diff(T.starts)
        rows, columns = np.repeat(np.arange(len(counts)), counts), T.columns.astype(np.int64)
        square, diagonal = matrix.diagonal(), 1 / factor.pivots
        root, sums = np.sqrt(square), matrix @ one
        nodes = (diagonal / root, (C @ (C.T @ one) - sums) / square, sums / square)
        a = split(matrix).lower.values / (root[rows] * root[columns])
        edges = (T.values / root[rows], a, np.log(root[rows] / root[columns]))
        seen = (torch.from_numpy(np.stack(part, 1)).float() for part in (nodes, edges))
        exact = (torch.from_numpy(part) for part in (rows, columns, diagonal, T.values))
        return cls(*seen, *exact)


class FactorModule(nn.Module):
    """The network, float32; zero at first. Hidden layers are ReLUs of width ``channels``.

    A round sums over an unknown's entries in its row of C and, apart from these, in its column.
    """

    def __init__(self, options: FactorNetwork) -> None:
        super().__init__()
        self.options = options
        c, rounds = options.channels, options.messages + 1
        self.first = nn.Linear(_NODES, c)
        self.later = nn.ModuleList(nn.Linear(c, c) for _ in range(rounds))
        self.earlier = nn.ModuleList(nn.Linear(c, c, bias=False) for _ in range(rounds))
        self.entries = nn.ModuleList(nn.Linear(_EDGES, c, bias=False) for _ in range(rounds))
        self.updates = nn.ModuleList(
            nn.Sequential(nn.Linear(3 * c, c), nn.ReLU(), nn.Linear(c, c))
            for _ in range(options.messages)
        )
        self.hidden = nn.Linear(c, c)
        self.on_nodes, self.on_edges = nn.Linear(c, 1), nn.Linear(c, 1)
        for last in (self.on_nodes, self.on_edges):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, graph: FactorGraph) -> tuple[Tensor, Tensor]:
        """x (n,) and y (m,), in (-1, 1)."""
        x = torch.relu(self.first(graph.nodes))
        for k, update in enumerate(self.updates):
            message = self._message(k, x, graph)
            below = torch.zeros_like(x).index_add(0, graph.rows, message)
            above = torch.zeros_like(x).index_add(0, graph.columns, message)
            x = x + update(torch.cat([x, below, above], 1))
        on_nodes = self.on_nodes(torch.relu(self.hidden(x)))
        on_edges = self.on_edges(self._message(-1, x, graph))
        return torch.tanh(on_nodes[:, 0]), torch.tanh(on_edges[:, 0])

    def _message(self, k: int, x: Tensor, graph: FactorGraph) -> Tensor:
        """One vector per entry, of both its ends and itself."""
        later, earlier = self.later[k](x)[graph.rows], self.earlier[k](x)[graph.columns]
        return torch.relu(later + earlier + self.entries[k](graph.edges))


def corrected(graph: FactorGraph, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """L's diagonal (n,) and the entries below it (m,), float64, for what the network says."""
    diagonal = graph.diagonal * (0.5 * x.double()).exp()
    lower = graph.lower * (1 + 0.5 * y.double())
    before = _dominance(graph, graph.diagonal, graph.lower).clamp(min=1.0)
    after = _dominance(graph, diagonal, lower)
    return diagonal, lower * (before / torch.maximum(before, after))[graph.columns]


def _dominance(graph: FactorGraph, diagonal: Tensor, lower: Tensor) -> Tensor:
    """sigma_j, the sum of a column below the diagonal over the diagonal."""
    return torch.zeros_like(diagonal).index_add(0, graph.columns, lower.abs()) / diagonal


@dataclass(frozen=True)
class NeuralIC:
    """A network's incomplete Cholesky factor as a preconditioner: linear and SPD, for plain CG.

    ``path``: a file of weights, the folder of a training run, or the name of shipped weights.
    ``trial``: use the classical factor where, on the leading unknowns, it is not worse. Runs on the
    CPU, whatever the device of A: a triangular system is sequential. ``setup`` raises InputError
    for weights that cannot be used, and for an operator that is not real symmetric positive
    definite.
    """

    path: str
    trial: bool = True
    kind: Literal["neural_ic"] = "neural_ic"

    @torch.no_grad()
    def setup(self, A: LinearMap) -> PerSample:
        """Read the weights; factorise every sample and correct its factor."""
        module = load_factor(self.path)
        if A.dtype.is_complex or not (A.symmetric and A.definite):
            raise InputError(
                f"{self.kind} needs a real symmetric positive definite operator; use ilu",
                "solver.preconditioner",
            )
        found = [self._factor(module, matrix) for matrix in matrices(A)]
        actions = [factor.solve for factor, _ in found]
        inverse = PerSample(A, actions, actions, symmetric=True, definite=True)
        used = sum(learned for _, learned in found)
        inverse.notes = (
            f"{self.kind}: the learned factor is used"
            if used == len(found)
            else f"{self.kind}: the classical factor stays in {len(found) - used} of {len(found)}",
        )
        return inverse

    def _factor(
        self, module: FactorModule, matrix: scipy.sparse.csr_matrix
    ) -> tuple[OrderedFactor, bool]:
        order, moved = reordered(matrix)
        classical = factorise(moved, module.options.relaxation)
        learned = learned_factor(module, moved, classical)
        use = bool(np.isfinite(learned.pivots).all() and np.isfinite(learned.lower.values).all())
        if use and self.trial:
            n = min(TRIAL, len(order))
            window = moved[:n, :n]
            gains = [energy_gained(window, leading(f, n)) for f in (learned, classical)]
            use = gains[0] > gains[1]
        return OrderedFactor(order, learned if use else classical), use


@torch.no_grad()
def learned_factor(
    module: FactorModule, matrix: scipy.sparse.csr_matrix, classical: CholeskyFactor
) -> CholeskyFactor:
    """L for the matrix and its classical factor."""
    graph = FactorGraph.of(matrix, classical)
    diagonal, values = corrected(graph, *module(graph))
    lower = replace(classical.lower, values=values.numpy())
    return CholeskyFactor(lower, lower.transpose(), 1 / diagonal.numpy(), classical.shift)


def leading(factor: CholeskyFactor, n: int) -> CholeskyFactor:
    """The factor's leading n rows and columns, which for C are those of the leading block of A."""
    T = factor.lower
    end = T.starts[n]
    lower = Triangle(T.starts[: n + 1], T.columns[:end], T.values[:end], upper=False)
    return CholeskyFactor(lower, lower.transpose(), factor.pivots[:n], factor.shift)


def energy_gained(matrix: scipy.sparse.csr_matrix, factor: CholeskyFactor) -> float:
    """By how much some steps of CG, from zero, reduce the error's squared energy norm.

    sum_k alpha_k <r_k, z_k>, for a right-hand side of N(0, 1), always the same.
    """
    r = np.random.default_rng(0).standard_normal((matrix.shape[0], 1))
    p, rho, gained = np.zeros_like(r), np.inf, 0.0
    for _ in range(_STEPS):
        z = factor.solve(r)
        before, rho = rho, float((r * z).sum())
        if rho == 0:
            break
        p = z + (rho / before) * p
        q = matrix @ p
        alpha = rho / float((p * q).sum())
        r = r - alpha * q
        gained += alpha * rho
    return gained


def load_factor(path: str) -> FactorModule:
    """The network in a file of weights, in eval mode; raises InputError where there is none."""
    try:
        stored = read_stored(path, KIND)
        options = FactorNetwork.from_plain(stored.options, stored.path)
        check_fit(lambda: FactorModule(options), stored.tensors, stored.path)
        module = FactorModule(options)
        load_into(module, stored.tensors, stored.path)
    except InputError as error:
        raise InputError(error.message, "solver.preconditioner.path") from None
    return module.eval().requires_grad_(False)


def plain(options: FactorNetwork) -> dict[str, Any]:
    """The options as they are written beside weights."""
    return asdict(options)


FactorLoss = Literal["energy", "frobenius", "solutions"]
_LEAST = 1e-20  # of an error's squared norm, below which it is rounding


@dataclass(frozen=True, eq=False)
class BlockSystems:
    """Several matrices as one block-diagonal one.

    ``block`` (n,): to which each unknown belongs. ``b``, ``x`` (vectors, n), float64: A x = b.
    """

    graph: FactorGraph
    matrix: scipy.sparse.csr_matrix
    block: Tensor
    b: Tensor
    x: Tensor

    @classmethod
    def of(cls, parts: Sequence[BlockSystems]) -> BlockSystems:
        """All blocks of ``parts``, which have equally many vectors."""
        if len(parts) == 1:
            return parts[0]
        counts = [int(part.block[-1]) + 1 for part in parts]
        return cls(
            _joined([part.graph for part in parts]),
            scipy.sparse.block_diag([part.matrix for part in parts], format="csr"),
            torch.cat([p.block + at for p, at in zip(parts, _starts(counts), strict=True)]),
            torch.cat([part.b for part in parts], 1),
            torch.cat([part.x for part in parts], 1),
        )

    def dot(self, u: Tensor, v: Tensor) -> Tensor:
        """<u, v> per vector and block, (vectors, blocks)."""
        zero = u.new_zeros(u.shape[0], int(self.block[-1]) + 1)
        return zero.index_add(1, self.block, u * v)

    def spread(self, values: Tensor) -> Tensor:
        """A number per block, (vectors, blocks), for each of its unknowns."""
        return values[:, self.block]


def loss_of(
    kind: FactorLoss, batch: BlockSystems, diagonal: Tensor, lower: Tensor, steps: int
) -> Tensor:
    """The loss of L, diagonal (n,) and the entries below it (m,), float64; a scalar."""
    if kind == "energy":
        return energy_left(batch, diagonal, lower, steps)
    square = torch.from_numpy(batch.matrix.diagonal())
    w = batch.x if kind == "solutions" else batch.b * square.rsqrt()
    graph, image = batch.graph, _image(w, batch.matrix)
    below = (diagonal * w).index_add(1, graph.columns, lower * w[:, graph.rows])
    product = (diagonal * below).index_add(1, graph.rows, lower * below[:, graph.columns])
    gap = product - image
    return (batch.dot(gap, gap / square) / batch.dot(image, image / square)).mean()


def energy_left(batch: BlockSystems, diagonal: Tensor, lower: Tensor, steps: int) -> Tensor:
    """The mean of (||e_k||_A / ||e_0||_A)^(1/k) after k = ``steps`` steps of CG."""
    factor = _factor(batch.graph, diagonal, lower)
    r, x = batch.b, torch.zeros_like(batch.b)
    p, rho = x, torch.ones_like(batch.dot(r, r))
    for _ in range(steps):
        z = _preconditioned(r, diagonal, lower, factor, batch.graph)
        before, rho = rho, batch.dot(r.detach(), z.detach())
        p = z + batch.spread(rho / before) * p
        q = _image(p, batch.matrix)
        alpha = batch.spread(rho / batch.dot(p.detach(), q.detach()))
        x, r = x + alpha * p, r - alpha * q
    error = batch.x - x
    left = batch.dot(error, _image(error, batch.matrix)) / batch.dot(batch.x, batch.b)
    return (left.clamp(min=_LEAST) ** (0.5 / steps)).mean()


class _Solve(torch.autograd.Function):
    """z = (L L^T)^-1 r for rows r (vectors, n)."""

    @staticmethod
    def forward(
        ctx: Any, r: Tensor, diagonal: Tensor, lower: Tensor, factor: Any, graph: FactorGraph
    ) -> Tensor:
        y = r.detach().clone()
        factor.lower.solve(factor.pivots, y.numpy())
        z = y.clone()
        factor.upper.solve(factor.pivots, z.numpy())
        ctx.factor, ctx.graph, ctx.found = factor, graph, (y, z)
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (y, z), factor, graph = ctx.found, ctx.factor, ctx.graph
        q = gradients[0].clone()
        factor.lower.solve(factor.pivots, q.numpy())
        h = q.clone()
        factor.upper.solve(factor.pivots, h.numpy())
        i, j = graph.rows, graph.columns
        on_lower = -(h[:, i] * y[:, j] + z[:, i] * q[:, j]).sum(0)
        return h, -(h * y + z * q).sum(0), on_lower, None, None


_preconditioned: Callable[..., Tensor] = _Solve.apply


class _Product(torch.autograd.Function):
    """A u for rows u (vectors, n) and a symmetric matrix A."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, matrix: scipy.sparse.csr_matrix) -> Tensor:
        ctx.matrix = matrix
        return _times(matrix, u)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _times(ctx.matrix, gradients[0]), None


_image: Callable[[Tensor, scipy.sparse.csr_matrix], Tensor] = _Product.apply


def _times(matrix: scipy.sparse.csr_matrix, u: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray((matrix @ u.detach().numpy().T).T))


def _factor(graph: FactorGraph, diagonal: Tensor, lower: Tensor) -> CholeskyFactor:
    n = len(graph.diagonal)
    counts = np.bincount(graph.rows.numpy(), minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    columns = graph.columns.numpy().astype(np.int32)
    triangle = Triangle(starts, columns, lower.detach().numpy(), upper=False)
    return CholeskyFactor(triangle, triangle.transpose(), 1 / diagonal.detach().numpy(), 0.0)


def _joined(graphs: Sequence[FactorGraph]) -> FactorGraph:
    """The graphs beside each other."""
    starts = _starts([len(graph.diagonal) for graph in graphs])
    return FactorGraph(
        torch.cat([graph.nodes for graph in graphs]),
        torch.cat([graph.edges for graph in graphs]),
        torch.cat([graph.rows + at for graph, at in zip(graphs, starts, strict=True)]),
        torch.cat([graph.columns + at for graph, at in zip(graphs, starts, strict=True)]),
        torch.cat([graph.diagonal for graph in graphs]),
        torch.cat([graph.lower for graph in graphs]),
    )


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:k]) for k in range(len(counts))]


_SIDES = 16  # right-hand sides per matrix
_HELD_OUT = 8


@dataclass(frozen=True)
class NeuralICTraining:
    """How to train a network for :class:`NeuralIC`.

    ``channels``, ``messages``, ``relaxation``: of the network, see :class:`FactorNetwork`.
    ``loss``: what is left of the error's energy norm after ``depth`` steps of CG, or a distance of
    L L^T from A. ``vectors``: right-hand sides per matrix and step. ``rounds`` of ``steps`` of
    ``batch`` matrices; the state is saved with every round. ``rate``: Adam's, falling linearly.
    """

    channels: int = 12
    messages: int = 2
    relaxation: float = 0.98
    loss: FactorLoss = "energy"
    depth: int = 10
    vectors: int = 2
    rounds: int = 12
    steps: int = 100
    batch: int = 4
    rate: float = 2e-3
    seed: int = 0
    kind: Literal["neural_ic"] = "neural_ic"

    def __post_init__(self) -> None:
        check_training(self, ("depth", "vectors", "rounds", "steps", "batch"))
        if self.vectors > _SIDES:
            raise InputError(
                f"vectors must be at most {_SIDES}; got {self.vectors}", "preconditioner.vectors"
            )
        self.network()  # checks its options

    def network(self) -> FactorNetwork:
        """The options of the network."""
        return FactorNetwork(self.channels, self.messages, self.relaxation)

    def train(
        self,
        matrices: Matrices,
        out: str | Path,
        *,
        device: torch.device | str = "cpu",
        progress: EpochProgress | None = None,
    ) -> Path:
        """Train on ``matrices`` of any sizes; the file of weights in the folder ``out``.

        The weights of the best round are there from the first one on; the same call goes on where
        one was stopped, to the same bits. Raises InputError for matrices that are not real,
        symmetric and positive definite, for a device other than the CPU, and for a folder with
        another run, and TrainingError where the loss is no longer a number.
        """
        if torch.device(device).type != "cpu":
            raise InputError(f"{KIND} is trained on the CPU: triangular systems are sequential")
        parts = _prepared(self, matrices)
        unknowns = sum(part.matrix.shape[0] for part in parts)
        settings = {**asdict(self), "matrices": len(parts), "unknowns": unknowns}
        described = self.network()
        with seeded(self.seed):
            network = FactorModule(described)
        held = parts[_HELD_OUT - 1 :: _HELD_OUT] or parts
        kept = [part for k, part in enumerate(parts, 1) if k % _HELD_OUT]

        def valid_loss() -> dict[str, float]:
            return {"valid_loss": float(np.mean([float(_loss(self, [p], network)) for p in held]))}

        task = PreconditionerTask(
            KIND,
            Path(out),
            settings,
            plain(described),
            network,
            self.steps,
            lambda step: (_loss(self, _chosen(self, kept, step), network),),
            lambda step: falling(self.rate, step, self.rounds * self.steps),
            valid_loss,
            validated=("valid_loss",),
        )
        return task.train(self.rounds, progress, clip=1.0)


def _chosen(
    options: NeuralICTraining, parts: Sequence[BlockSystems], step: int
) -> list[BlockSystems]:
    """The matrices and right-hand sides of a step."""
    random = np.random.default_rng((options.seed, 1, step))
    chosen = random.choice(len(parts), min(options.batch, len(parts)), replace=False)
    return [_some(parts[k], random, options.vectors) for k in chosen]


def _loss(options: NeuralICTraining, parts: Sequence[BlockSystems], network: nn.Module) -> Tensor:
    batch = BlockSystems.of(parts)
    factor = corrected(batch.graph, *network(batch.graph))
    return loss_of(options.loss, batch, *factor, options.depth)


def _some(part: BlockSystems, random: np.random.Generator, count: int) -> BlockSystems:
    """The same matrix with ``count`` of its right-hand sides."""
    sides = torch.from_numpy(random.choice(len(part.b), count, replace=False))
    return BlockSystems(part.graph, part.matrix, part.block, part.b[sides], part.x[sides])


def _prepared(options: NeuralICTraining, matrices: Matrices) -> list[BlockSystems]:
    """Every sample of every matrix with its graph and solutions; InputError where one is unfit."""
    parts = []
    for number, (name, A) in enumerate(symmetric_matrices(KIND, matrices).items(), 1):
        if A.nullspace:
            raise unfit(KIND, name, A, "singular")
        for index, matrix in enumerate(samples(A)):
            _, moved = reordered(matrix)
            random = np.random.default_rng((options.seed, 0, number, index))
            b = random.standard_normal((_SIDES, A.size))
            x = _solved(moved, b)
            if x is None:
                raise unfit(KIND, name, A, "not positive definite")
            graph = FactorGraph.of(moved, factorise(moved, options.relaxation))
            block = torch.zeros(A.size, dtype=torch.int64)
            parts.append(
                BlockSystems(graph, moved, block, torch.from_numpy(b), torch.from_numpy(x))
            )
    return parts


def _solved(matrix: scipy.sparse.csr_matrix, b: np.ndarray) -> np.ndarray | None:
    """A^-1 b by L D L^T; None where a pivot says that A is not definite. b (vectors, n)."""
    try:
        factors = scipy.sparse.linalg.splu(
            matrix.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError:
        return None
    moved = not np.array_equal(factors.perm_r, factors.perm_c)
    if moved or not (factors.U.diagonal() > 0).all():
        return None
    return np.ascontiguousarray(factors.solve(b.T).T)
