"""Training of the interpolation in learned multigrid, on matrices alone.

    minimise  mean n(rho),    rho = |T S v|_A^2 / |v|_A^2,    T = 1 - P' (P'^T A P')^-1 P'^T A,

with S the smoother, n(rho) the iterations of CG per factor e (``multigrid.choice``), and v what
some steps of the two-grid iteration S* T S leave of random vectors: near its slowest modes. A is a
window of a training matrix or of one of its coarse operators, made with the network as it is, so
that the network meets what it will meet. The coarse correction is the best one in the energy norm,
so that the gradient passes through P' where it is applied to it, and not through the inverse.
In float64, since the energy of a slow mode is what is left after cancellation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sciml.core import kernels
from sciml.core.errors import InputError, SolveError
from sciml.core.files import write_text
from sciml.core.kernels.reference import prolong_add
from sciml.core.linear import LinearMap
from sciml.core.stencil import Stencil, box_offsets
from sciml.core.transfer import Transfer
from sciml.solvers.learned.multigrid import (
    KIND,
    LearnedInterpolation,
    TransferModule,
    TransferNetwork,
    corrected,
    features,
    plain,
    window,
)
from sciml.solvers.learned.weights import FILE, read_stored, write_weights
from sciml.solvers.multigrid.hierarchy import build

# progress(round, rounds, row of the history)
Progress = Callable[[int, int, Mapping[str, float]], None]
STATE = "checkpoint.safetensors"
HISTORY = "history.csv"
COLUMNS = ("round", "steps", "seconds", "cpu_seconds", "loss", "rho")
_FULL = (2, 2)


@dataclass(frozen=True)
class MultigridTraining:
    """How to train a network for :class:`LearnedMultigrid`.

    ``channels``: of the network. ``window``: points per axis of what is trained on, odd.
    ``vectors`` per window, each after ``power`` steps of the iteration. ``sweeps``: of the
    smoother, before and after. ``rounds`` of ``steps`` of ``batch`` windows; coarse operators are
    made anew, and the state is saved, with every round. ``rate``: Adam's, falling linearly.
    """

    channels: int = 24
    window: int = 23
    vectors: int = 4
    power: int = 4
    sweeps: int = 2
    rounds: int = 40
    steps: int = 50
    batch: int = 8
    rate: float = 3e-3
    seed: int = 0
    kind: Literal["learned_multigrid"] = "learned_multigrid"

    def __post_init__(self) -> None:
        for name in ("vectors", "power", "sweeps", "rounds", "steps", "batch"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}",
                    f"preconditioner.{name}",
                )
        if self.window < 5 or self.window % 2 == 0:
            raise InputError(
                f"window must be odd and at least 5; got {self.window}", "preconditioner.window"
            )
        if not self.rate > 0:
            raise InputError(f"rate must be positive; got {self.rate:g}", "preconditioner.rate")
        TransferNetwork(self.channels)  # checks its options

    def train(
        self,
        matrices: Sequence[LinearMap],
        out: str | Path,
        *,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Path:
        """See :func:`train_learned_multigrid`."""
        return train_learned_multigrid(self, matrices, out, device=device, progress=progress)


def train_learned_multigrid(
    options: MultigridTraining,
    matrices: Sequence[LinearMap],
    out: str | Path,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Train on ``matrices``, 2-D stencils of any shape; the file of weights in the folder ``out``.

    The weights are there from the first round on; the same call goes on where one was stopped, on
    a CPU to the same bits. Raises InputError for matrices that do not fit, or a folder with another
    run, and SolveError where the loss is no longer a number.
    """
    parts = _checked(matrices, options.window, torch.device(device))
    return _Run(options, parts, Path(out), torch.device(device)).finish(progress)


def energy_left(A: Stencil, P: Transfer, v: Tensor, sweeps: int) -> Tensor:
    """rho = |T S v|_A^2 / |v|_A^2, (vectors, *batch), differentiable in P's weights.

    ``v``: (vectors, *batch, *shape); A (*batch, planes, *shape) holds no graph.
    """
    held = replace(P, weights=P.weights.detach())
    with torch.no_grad():
        w = v.clone()
        _smooth(A, w, sweeps, reverse=False)
        z = coarse_solution(A, held, w, coarse_inverse(A, held))
        before = _energy(A, v)
    y = w.clone()
    prolong_add(P, y, z)
    return _energy(A, y) / before


@torch.no_grad()
def two_grid(A: Stencil, P: Transfer, v: Tensor, sweeps: int, steps: int) -> Tensor:
    """v after ``steps`` of S* T S, of unit energy; shapes as in :func:`energy_left`."""
    inverse = coarse_inverse(A, P)
    for _ in range(steps):
        v = v / _energy(A, v).clamp(min=1e-30).sqrt()[..., None, None]
        _smooth(A, v, sweeps, reverse=False)
        kernels.of(v).prolong_add(P, v, coarse_solution(A, P, v, inverse))
        _smooth(A, v, sweeps, reverse=True)
    return v / _energy(A, v).clamp(min=1e-30).sqrt()[..., None, None]


def coarse_solution(A: Stencil, P: Transfer, x: Tensor, inverse: Tensor) -> Tensor:
    """The coarse z for which P z is the best correction of the error x, (vectors, *batch, *coarse).

    ``inverse``: of :func:`coarse_inverse`.
    """
    right = x.new_empty((*x.shape[:-2], *P.shape))
    kernels.of(x).restrict_residual(A, P, x, torch.zeros_like(x), right)
    flat = right.flatten(-2).to(inverse.dtype)
    return torch.einsum("...ij,...j->...i", inverse, flat).to(x.dtype).reshape(right.shape)


def coarse_inverse(A: Stencil, P: Transfer) -> Tensor:
    """(P^T A P)^-1, float64 (*batch, n, n)."""
    coarse = kernels.of(A.coefficients).galerkin(A, P).to(torch.float64)
    n = coarse.size
    identity = torch.eye(n, dtype=torch.float64, device=A.device)
    identity = identity.reshape(n, *(1,) * len(A.batch), *P.shape)
    columns = coarse.apply(identity.expand(n, *A.batch, *P.shape))
    dense = columns.reshape(n, -1, n).transpose(0, 1)
    return torch.stack([torch.linalg.inv(part) for part in dense]).reshape(*A.batch, n, n)


def expected_iterations(rho: Tensor) -> Tensor:
    """Iterations of CG per factor e for the contraction rho; see ``multigrid.choice``."""
    gap = (1 - rho.clamp(1e-6, 1 - 1e-5)).sqrt()
    return 1 / ((1 + gap) / (1 - gap)).log()


def _smooth(A: Stencil, x: Tensor, sweeps: int, *, reverse: bool) -> None:
    """S or S* on the error x, in place."""
    zero = torch.zeros_like(x)
    for _ in range(sweeps):
        kernels.of(x).sweep(A, x, zero, reverse=reverse, from_zero=False)


def _energy(A: Stencil, x: Tensor) -> Tensor:
    return (x * A.apply(x)).flatten(-2).sum(-1)


@dataclass
class _Position:
    """Seconds so far, and the rows of the rounds done."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class _Run:
    """One call of the training: what is built before the first step, and the state that moves."""

    def __init__(
        self,
        options: MultigridTraining,
        matrices: Sequence[Stencil],
        out: Path,
        device: torch.device,
    ) -> None:
        self.options, self.matrices, self.out, self.device = options, matrices, out, device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(options.seed)
            self.network = TransferModule(TransferNetwork(options.channels)).to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=options.rate)
        shapes = sorted({A.shape for A in matrices})
        described = {**asdict(options), "matrices": len(matrices), "shapes": shapes}
        self.settings: dict[str, Any] = json.loads(json.dumps(described))
        self.position = self._restored()

    def finish(self, progress: Progress | None) -> Path:
        """The rounds that are left."""
        while len(self.position.history) < self.options.rounds:
            row = self._round()
            if progress is not None:
                progress(int(row["round"]), self.options.rounds, row)
        return self.out / FILE

    def _round(self) -> dict[str, float]:
        position, steps = self.position, self.options.steps
        done = len(position.history)
        clock = (time.perf_counter(), time.process_time())
        levels = self._levels()
        losses, rhos = [], []
        for step in range(done * steps, (done + 1) * steps):
            loss, rho = self._step(step, levels)
            losses.append(loss)
            rhos.append(rho)
        position.seconds += time.perf_counter() - clock[0]
        position.cpu_seconds += time.process_time() - clock[1]
        row = {
            "round": done + 1.0,
            "steps": (done + 1.0) * steps,
            "seconds": position.seconds,
            "cpu_seconds": position.cpu_seconds,
            "loss": float(np.mean(losses)),
            "rho": float(np.mean(rhos)),
        }
        position.history.append(row)
        self._save()
        return row

    def _levels(self) -> list[list[Stencil]]:
        """Per depth the operators that hold a window, made with the network as it is."""
        levels: list[list[Stencil]] = []
        learned = LearnedInterpolation(self.network)
        for A in self.matrices:
            fitting = [
                level.A
                for level in build(A, torch.float64, learned).levels
                if min(level.A.shape) >= self.options.window
            ]
            for depth, operator in enumerate(fitting):
                levels += [[]] * (depth == len(levels))
                levels[depth] = [*levels[depth], operator]
        return levels

    def _windows(self, step: int, levels: Sequence[Sequence[Stencil]]) -> Stencil:
        """A batch of windows of all depths, as stencils of the box."""
        random = np.random.default_rng((self.options.seed, 1, step))
        size = self.options.window
        offsets = box_offsets(2)
        parts = []
        for _ in range(self.options.batch):
            operators = levels[int(random.integers(len(levels)))]
            A = operators[int(random.integers(len(operators)))]
            starts = [int(random.integers(n - size + 1)) for n in A.shape]
            part = window(A, starts, [size, size])
            zero = torch.zeros_like(part.diagonal())
            parts.append(
                torch.stack([part.entry(o) if o in part.offsets else zero for o in offsets])
                / part.diagonal().mean()
            )
        return Stencil(torch.stack(parts), offsets, symmetric=True, definite=True)

    def _step(self, step: int, levels: Sequence[Sequence[Stencil]]) -> tuple[float, float]:
        options = self.options
        A = self._windows(step, levels)
        formula = kernels.of(A.coefficients).interpolate(A, _FULL)
        P = corrected(formula, self.network(features(A, formula)).to(A.dtype))
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        shape = (options.vectors, options.batch, *A.shape)
        v = torch.randn(shape, generator=generator, dtype=A.dtype).to(self.device)
        held = replace(P, weights=P.weights.detach())
        v = two_grid(A, held, v, options.sweeps, options.power)
        rho = energy_left(A, P, v, options.sweeps)
        loss = expected_iterations(rho).mean()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise SolveError(
                f"the loss is {value} at step {step + 1}; the last good state is in '{self.out}'. "
                "Try a lower rate"
            )
        total = options.rounds * options.steps
        for group in self.optimiser.param_groups:
            group["lr"] = options.rate * (1 - 0.95 * step / total)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        return value, float(rho.detach().mean())

    def _save(self) -> None:
        """The weights as they are now, for use; the state; the history."""
        origin = {"training": self.settings, **self.position.history[-1]}
        write_weights(
            self.out / FILE, KIND, plain(self.network.options), self.network.state_dict(), origin
        )
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        write_weights(
            self.out / STATE, f"{KIND} training", self.settings, tensors, asdict(self.position)
        )
        lines = [",".join(f"{row[name]:.9g}" for name in COLUMNS) for row in self.position.history]
        write_text(self.out / HISTORY, "\n".join([",".join(COLUMNS), *lines]) + "\n")

    def _restored(self) -> _Position:
        file = self.out / STATE
        if not file.is_file():
            return _Position()
        stored = read_stored(file, f"{KIND} training")
        changed = [
            f"{name} was {stored.options.get(name)!r}, now {value!r}"
            for name, value in self.settings.items()
            if stored.options.get(name) != value
        ]
        if changed:
            raise InputError(
                f"'{self.out}' holds a run with other settings: {'; '.join(changed)}. Name another "
                "folder",
                "out",
            )
        network, state = {}, dict[int, dict[str, Tensor]]()
        for name, value in stored.tensors.items():
            owner, _, key = name.partition(".")
            if owner == "network":
                network[key] = value
            else:
                index, _, entry = key.partition(".")
                state.setdefault(int(index), {})[entry] = value
        self.network.load_state_dict(network)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        return _Position(**stored.provenance)


def _checked(matrices: Sequence[LinearMap], window: int, device: torch.device) -> list[Stencil]:
    """Every sample of every matrix as a float64 stencil; InputError where one does not fit."""
    parts: list[Stencil] = []
    for A in matrices:
        if not isinstance(A, Stencil) or A.dimension != 2 or A.dtype.is_complex:
            raise InputError(f"{KIND} is trained on real stencils in two dimensions", "data")
        if not (A.symmetric and A.definite):
            raise InputError(f"{KIND} is trained on symmetric positive definite operators", "data")
        if min(A.shape) < window:
            raise InputError(
                f"{KIND}: a window of {window}^2 points does not fit into {list(A.shape)}", "data"
            )
        for index in np.ndindex(*A.batch):
            part = A if not A.batch else replace_coefficients(A, A.coefficients[index])
            parts.append(part.to(torch.float64).detach())
    if not parts:
        raise InputError(f"{KIND} needs a matrix to be trained on", "data")
    return [replace_coefficients(A, A.coefficients.to(device)) for A in parts]


def replace_coefficients(A: Stencil, coefficients: Tensor) -> Stencil:
    """A with other coefficients and its other properties."""
    return Stencil(
        coefficients,
        A.offsets,
        periodic=A.periodic,
        symmetric=A.symmetric,
        definite=A.definite,
        nullspace=A.nullspace,
    )
