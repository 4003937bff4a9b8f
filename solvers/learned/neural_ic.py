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
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap
from sciml.solvers.incomplete import (
    CholeskyFactor,
    OrderedFactor,
    check_relaxation,
    factorise,
    reordered,
)
from sciml.solvers.inverse import PerSample, matrices
from sciml.solvers.learned.weights import load_into, read_stored
from sciml.solvers.relaxation import Triangle, split

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
        module = FactorModule(FactorNetwork.from_plain(stored.options, stored.path))
        load_into(module, stored.tensors, stored.path)
    except InputError as error:
        raise InputError(error.message, "solver.preconditioner.path") from None
    return module.eval().requires_grad_(False)


def plain(options: FactorNetwork) -> dict[str, Any]:
    """The options as they are written beside weights."""
    return asdict(options)
