"""What a trained operator is worth, on samples that it has not seen.

*Errors* of an operator f against the truth y on samples x:

    relative L2 of a sample:  ||f(x) - y|| / ||y||,     relative H1:  the same with the norm
    (||y||^2 + ||grad y||^2)^(1/2),

over all channels and points, by the losses of training (plain sums; differences for the gradient,
through the seam on periodic axes). An operator whose outputs are the frames after its inputs is
rolled out: its answers are its next inputs, until as many frames are there as the data has.

Seconds can be compared: one thread, the fastest of several runs, the device waited for.

*Certificates*: a prediction's against its true error, and what it saves a solver. Let u* be the
discrete solution, e = u* - u the error of a prediction u, and ||e||_A^2 = e . A e. A certificate
claims lower <= ||e||_A <= upper. The true error is known from a solution v of the same system
solved to 1e-13, whose own distance to u* is certified too, to delta: by the triangle inequality a
bound is found wrong only where it misses ||v - u||_A by more than delta.

Multigrid-CG is run from t u, t = u . b / u . A u the multiple nearest to u* in the energy norm, and
from zero. Two counts are kept, iterations to a relative
residual ||b - A u|| / ||b|| and to a relative error ||e||_A / ||u*||_A: a network's error is rough,
which the residual weighs by the eigenvalues of A, so that a prediction near in energy can begin
with a residual above that of zero.

*Resolutions*: one operator at several of the same functions. Let f be trained on n points along an
axis, R_m the passage to m points (linear interpolation, which for nested grids is taking every so
many points), a_m an input given on m points and u_m the truth there. Per sample, in relative L2:

    error          ||f(a_m) - u_m|| / ||u_m||,
    interpolated   ||R_m f(R_n a_m) - u_m|| / ||u_m||, what a fixed grid and interpolation give,
    drift          ||R_k f(a_m) - R_k f(R_n a)|| / ||R_k f(R_n a)||, k = min(m, n): f of the
                   restriction against the restriction of f, a being the finest input there is.

An operator on functions has errors that do not grow with m and a drift that is small beside them
(arXiv 2506.10973); a network whose kernels are fixed in pixels need not.

*The rival*: how long our own multigrid takes to be as good, the line that keeps one honest. Full
multigrid (followed by cycles where it alone does not do) and multigrid-CG from zero are run
iteration by iteration, and stopped at the first one whose relative L2 distance to the reference is
at most the surrogate's error of that sample. The reference is either the truth of the dataset,
which a coarse grid cannot come nearer to than its discretisation error, or the tightly solved
system of the same grid. Timed are, on one thread: the discretisation (stencils from coefficients),
the set-up of the hierarchy, and those iterations; each part as the fastest of several runs. What is
left out: reading the inputs, and recomputing the residual to see that it has converged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.run.certificate import Certificate
from sciml.datasets.foreign import Foreign
from sciml.datasets.loader import OperatorData, Times
from sciml.discretization import discretize
from sciml.operators.losses import RelativeH1, RelativeL2
from sciml.operators.operator import Operator, Signature, resample
from sciml.operators.seen import unlike
from sciml.solvers.linear.certify import certify
from sciml.solvers.linear.iteration import relative_residual
from sciml.solvers.linear.krylov import CG
from sciml.solvers.linear.multigrid import Multigrid
from sciml.training.conformal import ConformalSet, scores
from sciml.training.data import Shape, batches, first_samples, open_split, resolutions

Result = TypeVar("Result")
_REPEATS = 5


@dataclass(frozen=True)
class Evaluation:
    """Errors on one split at one resolution, and what they cost.

    ``relative_l2``, ``relative_h1``: (N,), float64; ``scores``: distances from the truth relative
    to the prediction. ``unlike``: of every input what no training input had, in words.
    ``seconds``: the fastest of five answers to one sample. ``seconds_batched``: per sample of a
    batch of ``batch``, likewise.
    """

    relative_l2: Tensor
    relative_h1: Tensor
    scores: Tensor
    unlike: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: int
    seconds: float
    seconds_batched: float
    batch: int
    device: str

    @property
    def ranked(self) -> tuple[int, ...]:
        """The samples' positions from the best to the worst relative L2."""
        return tuple(self.relative_l2.argsort(stable=True).tolist())

    def covered(self, found: ConformalSet) -> float:
        """The share of the truths that lie in the set round their predictions."""
        return float((self.scores <= found.radius).double().mean())

    def summary(self) -> dict[str, dict[str, float]]:
        """The distribution of both errors."""
        return {"relative_l2": spread(self.relative_l2), "relative_h1": spread(self.relative_h1)}

    def to_json(self) -> dict[str, Any]:
        """Plain data: the summary and every number."""
        return {
            "samples": len(self.relative_l2),
            "shape": list(self.shape),
            "parameters": self.parameters,
            "device": self.device,
            "seconds": self.seconds,
            "seconds_batched": self.seconds_batched,
            "batch": self.batch,
            "summary": self.summary(),
            "relative_l2": self.relative_l2.tolist(),
            "relative_h1": self.relative_h1.tolist(),
            "scores": self.scores.tolist(),
            "unlike": list(self.unlike),
        }


def spread(errors: Tensor) -> dict[str, float]:
    """Mean, median, 90th and 99th percentile and the worst of ``errors`` (N,)."""
    errors = errors.double()
    return {
        "mean": float(errors.mean()),
        "median": float(errors.quantile(0.5)),
        "p90": float(errors.quantile(0.9)),
        "p99": float(errors.quantile(0.99)),
        "worst": float(errors.max()),
    }


@torch.no_grad()
def evaluate(operator: Operator, data: OperatorData, *, batch: int = 16) -> Evaluation:
    """The errors of every sample of ``data``, on the operator's device, and seconds per sample.

    Raises InputError where the operator cannot take the grid or the channels.
    """
    l2, h1 = RelativeL2().build(operator.signature), RelativeH1().build(operator.signature)
    errors: list[Tensor] = []
    strange: list[str] = []
    device = operator.input_mean.device
    seen = operator.provenance.get("seen")
    for x, y in batches(data, batch, device):
        strange += [""] * len(x) if seen is None else unlike(seen, x.cpu(), operator.signature)
        prediction = roll_out(operator, x, y.shape[1])
        found = [l2(prediction, y, x), h1(prediction, y, x), scores(prediction, y)]
        errors.append(torch.stack([error.double() for error in found]).cpu())
    measured = torch.cat(errors, 1)
    first, _ = first_samples(data, batch, device)
    return Evaluation(
        measured[0],
        measured[1],
        measured[2],
        tuple(strange),
        data.shape,
        sum(p.numel() for p in operator.parameters()),
        inference_seconds(operator, first[:1]),
        inference_seconds(operator, first),
        len(first),
        str(device),
    )


def roll_out(operator: Operator, x: Tensor, channels: int) -> Tensor:
    """``operator(x)``, its answers fed back until there are so many output channels.

    Fed back are the last frames, as many as it takes, of inputs and answers together. Raises
    InputError where inputs and outputs are not the same single field.
    """
    own = len(operator.signature.outputs)
    if channels == own:
        return answer(operator, x)
    names = {*operator.signature.inputs, *operator.signature.outputs}
    if len(names) > 1 or channels % own:
        raise InputError(
            f"the data has {channels} output channels and the operator gives {own}; only an "
            "operator from frames of one field to its next frames can be rolled out"
        )
    frames = x
    for _ in range(channels // own):
        frames = torch.cat([frames, answer(operator, frames[:, -x.shape[1] :])], 1)
    return frames[:, x.shape[1] :]


@torch.no_grad()
def answer(operator: Operator, x: Tensor) -> Tensor:
    """``operator(x)`` in evaluation mode, left as it was."""
    training = operator.training
    try:
        y: Tensor = operator.eval()(x)
    finally:
        operator.train(training)
    return y


def inference_seconds(operator: Operator, x: Tensor) -> float:
    """Seconds per sample of ``operator(x)``: on one thread, the fastest of five warm runs."""
    with one_thread():
        answer(operator, x)
        _, seconds = fastest(lambda: answer(operator, x), _REPEATS, x.device)
    return seconds / len(x)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch, and the compiled kernels that follow it, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fastest(
    work: Callable[[], Result], repeats: int, device: torch.device | None = None
) -> tuple[Result, float]:
    """What ``work`` returns, and the wall seconds of the fastest of ``repeats`` runs."""
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        result = work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return result, best


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


_TIGHT = 1e-13

_MOST = 50


@dataclass(frozen=True)
class Bracket:
    """Bounds and the true error, relative to ||u*||_A; (N,) float64.

    ``held``: mask of the samples whose error lies between its bounds. ``steps``: of tightening.
    """

    lower: Tensor
    upper: Tensor
    error: Tensor
    held: Tensor
    steps: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "steps": self.steps,
            "held": float(self.held.double().mean()),
            "lower": spread(self.lower),
            "error": spread(self.error),
            "upper": spread(self.upper),
            "lower_over_error": spread(self.lower / self.error),
            "upper_over_error": spread(self.upper / self.error),
        }


@torch.no_grad()
def bracket(u: Tensor, certificate: Certificate, problem: Problem, on: Grid) -> Bracket:
    """Whether ``certificate`` holds the true error of ``u`` (N, *grid) between its bounds."""
    system = discretize(problem, on)
    tight = _solved(system)
    own = certify(system.lift(tight), system)
    size = _energy(system, tight)
    error = _energy(system, tight - system.restrict(u.double()))
    lower, upper = certificate.lower.reshape(-1), certificate.upper.reshape(-1)
    slack = own.upper.reshape(-1)
    held = (lower <= error + slack) & (error - slack <= upper)
    return Bracket(lower / size, upper / size, error / size, held, certificate.steps)


@dataclass(frozen=True)
class Polishing:
    """Multigrid-CG to ``rtol`` from a prediction and from zero; (N,) each.

    ``residual`` and ``energy``: relative residual and relative energy error of the prediction (zero
    has 1 in both). Iterations to a relative residual, and to a relative energy error, of ``rtol``.
    """

    rtol: float
    residual: Tensor
    energy: Tensor
    by_residual: Tensor
    by_residual_from_zero: Tensor
    by_energy: Tensor
    by_energy_from_zero: Tensor

    @property
    def saved(self) -> float:
        """The share of iterations saved to the residual, over all samples."""
        return 1 - float(self.by_residual.sum() / self.by_residual_from_zero.sum())

    @property
    def saved_in_energy(self) -> float:
        """The share of iterations saved to the energy error, over all samples."""
        return 1 - float(self.by_energy.sum() / self.by_energy_from_zero.sum())

    def to_json(self) -> dict[str, Any]:
        """Plain data; iterations as means."""
        return {
            "rtol": self.rtol,
            "residual": spread(self.residual),
            "energy": spread(self.energy),
            "iterations": {
                "residual": float(self.by_residual.double().mean()),
                "residual_from_zero": float(self.by_residual_from_zero.double().mean()),
                "energy": float(self.by_energy.double().mean()),
                "energy_from_zero": float(self.by_energy_from_zero.double().mean()),
            },
            "saved": self.saved,
            "saved_in_energy": self.saved_in_energy,
        }


@torch.no_grad()
def polishing(u: Tensor, problem: Problem, on: Grid, rtol: float = 1e-6) -> Polishing:
    """Iterations of multigrid-CG from the best multiple of ``u`` (N, *grid), and from zero."""
    system = discretize(problem, on)
    guess = system.restrict(u.double())
    tight = _solved(system)
    square = _inner(guess, system.A.apply(guess))
    nearest = torch.where(square > 0, _inner(guess, system.b) / square, 0.0)
    start = nearest[(..., *(None,) * len(system.A.shape))] * guess
    zero = torch.zeros_like(tight)
    size = _energy(system, tight)
    starts = [_counts(system, x, tight, rtol) for x in (start, zero)]
    return Polishing(
        rtol,
        relative_residual(system.A, guess, system.b),
        _energy(system, tight - guess) / size,
        starts[0][0],
        starts[1][0],
        starts[0][1],
        starts[1][1],
    )


def _solved(system: LinearSystem) -> Tensor:
    """The unknowns to 1e-13, or as near as rounding lets them come."""
    solver = CG(preconditioner=Multigrid(), rtol=_TIGHT)
    return solver.iterate(system.A, solver.setup(system.A), system.b, None, None).x


def _energy(system: LinearSystem, v: Tensor) -> Tensor:
    """||v||_A per sample."""
    return _inner(v, system.A.apply(v)).clamp(min=0.0).sqrt()


def _inner(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).flatten(1).sum(1)


def _counts(
    system: LinearSystem, start: Tensor, tight: Tensor, rtol: float
) -> tuple[Tensor, Tensor]:
    """Iterations from ``start`` to the residual and to the energy error, 50 at most; (B,)."""
    prepared = CG(preconditioner=Multigrid()).setup(system.A)
    size = _energy(system, tight)
    counts = torch.full((2, len(start)), _MOST)
    waiting = torch.ones_like(counts, dtype=torch.bool)
    x = start
    for k in range(_MOST + 1):
        if k:
            solver = CG(preconditioner=Multigrid(), rtol=_UNREACHED, max_iterations=k)
            x = solver.iterate(system.A, prepared, system.b, start, None).x
        reached = torch.stack(
            [
                relative_residual(system.A, x, system.b) <= rtol,
                _energy(system, tight - x) / size <= rtol,
            ]
        )
        counts[waiting & reached] = k
        waiting &= ~reached
        if not bool(waiting.any()):
            break
    return counts[0], counts[1]


@dataclass(frozen=True)
class AtResolution:
    """What became of one resolution; (N,) float64 each, empty where ``refused`` says why."""

    shape: Shape
    error: Tensor
    interpolated: Tensor
    drift: Tensor
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        if self.refused:
            return {"shape": list(self.shape), "refused": self.refused}
        parts = {"error": self.error, "interpolated": self.interpolated, "drift": self.drift}
        return {"shape": list(self.shape), **{name: spread(e) for name, e in parts.items()}}


@dataclass(frozen=True)
class ResolutionTransfer:
    """The resolutions from coarse to fine, and the one of the training."""

    trained: Shape
    rows: tuple[AtResolution, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"trained": list(self.trained), "rows": [row.to_json() for row in self.rows]}


def on_shape(signature: Signature, values: Tensor, shape: Shape) -> Tensor:
    """``values`` (..., *grid) on a grid of ``shape`` with the same box, centring and seams."""
    if tuple(values.shape[values.ndim - len(shape) :]) == tuple(shape):
        return values
    opened = [n - repeated for n, repeated in zip(shape, signature.repeated, strict=True)]
    return signature.close(resample(signature.open(values), signature, opened))


@torch.no_grad()
def resolution_transfer(
    operator: Operator,
    folder: str | Path | Foreign,
    shapes: Sequence[Shape] = (),
    *,
    split: str = "test",
    samples: int | None = None,
    times: Times | None = None,
    batch: int = 16,
) -> ResolutionTransfer:
    """Measure ``operator`` on the stored resolutions of one dataset, all of them if left out.

    ``samples``: the first so many. Raises InputError for a resolution that is not stored; one that
    the network cannot take is reported, not raised.
    """
    stored = resolutions(folder, split)
    wanted = [tuple(shape) for shape in shapes] or list(stored)
    for shape in wanted:
        if shape not in stored:
            known = ", ".join(str(list(s)) for s in stored)
            raise InputError(f"'{folder}' is not stored at {list(shape)}; at {known}")
    wanted.sort(key=prod)
    signature = operator.signature
    finest = _inputs(
        open_split(signature, stored[wanted[-1]], split, times), operator, batch, samples
    )
    rows = []
    for shape in wanted:
        data = open_split(signature, stored[shape], split, times)
        try:
            rows.append(_measured(operator, data, finest, batch))
        except InputError as error:
            none = torch.empty(0, dtype=torch.float64)
            rows.append(AtResolution(shape, none, none, none, str(error)))
    return ResolutionTransfer(signature.grid.shape, tuple(rows))


def _inputs(data: OperatorData, operator: Operator, batch: int, samples: int | None) -> Tensor:
    """The first ``samples`` inputs on the operator's own grid, (N, C, *grid)."""
    signature, parts, count = operator.signature, [], 0
    for x, _ in batches(data, batch, operator.input_mean.device):
        parts.append(on_shape(signature, x, signature.grid.shape))
        count += len(x)
        if samples is not None and count >= samples:
            break
    return torch.cat(parts)[:samples]


def _measured(operator: Operator, data: OperatorData, finest: Tensor, batch: int) -> AtResolution:
    signature = operator.signature
    own, distance = signature.grid.shape, RelativeL2().build(signature)
    coarser = tuple(map(min, own, data.shape))
    parts: list[Tensor] = []
    start = 0
    for whole_x, whole_y in batches(data, batch, operator.input_mean.device):
        reference_input = finest[start : start + len(whole_x)]
        start += len(whole_x)
        x, y = whole_x[: len(reference_input)], whole_y[: len(reference_input)]
        if not len(x):
            break
        here, fixed, reference = (
            roll_out(operator, given, y.shape[1])
            for given in (x, on_shape(signature, x, own), reference_input)
        )
        fixed = on_shape(signature, fixed, data.shape)
        here_cut, reference = (on_shape(signature, u, coarser) for u in (here, reference))
        drift = distance(here_cut, reference, reference)
        found = [distance(here, y, x), distance(fixed, y, x), drift]
        parts.append(torch.stack(found).double().cpu())
    error, interpolated, drift = torch.cat(parts, 1)
    return AtResolution(data.shape, error, interpolated, drift)


Method = Literal["full_multigrid", "cg"]
METHODS: tuple[Method, ...] = ("full_multigrid", "cg")
_MOST_CYCLES = 30  # iterations after which an error counts as out of reach
_UNREACHED = 1e-15  # a tolerance that no run meets: the count of iterations alone ends it
_TIGHT_SOLVE = 1e-12
_RUNS = 3


@dataclass(frozen=True)
class MultigridTime:
    """What one method takes to the errors asked for.

    ``iterations``: (N,), cycles after full multigrid or steps of CG, -1 where the grid's own
    ``floor``, the error (N,) of the exact discrete solution, is above the error asked for.
    ``seconds``: (N,) of each sample alone, NaN where not reached: discretisation, set-up,
    iterations. ``seconds_batched``: per sample, the reached ones as one batch, which iterates until
    the last is there; NaN where there are none.
    """

    method: Method
    shape: tuple[int, ...]
    iterations: Tensor
    floor: Tensor
    seconds: Tensor
    seconds_batched: float

    @property
    def reached(self) -> Tensor:
        """Mask of the samples whose error was reached."""
        return self.iterations >= 0

    def to_json(self) -> dict[str, Any]:
        """Plain data; means over the samples that were reached."""
        there = self.reached
        some = bool(there.any())
        return {
            "method": self.method,
            "shape": list(self.shape),
            "reached": float(there.double().mean()),
            "iterations": float(self.iterations[there].double().mean()) if some else None,
            "floor": float(self.floor.mean()),
            "seconds": float(self.seconds[there].mean()) if some else None,
            "seconds_batched": self.seconds_batched if some else None,
        }


@torch.no_grad()
def multigrid_time(
    problem: Callable[[Tensor], Problem],
    on: Grid,
    errors: Tensor,
    reference: Tensor | None = None,
    *,
    method: Method = "full_multigrid",
) -> MultigridTime:
    """The time to each of the relative L2 ``errors`` (N,).

    ``problem(which)``: the batch of the problems with these positions, an int64 tensor.
    ``reference``: values (N, *shape), of this grid or of one whose nodes it contains; left out, the
    solution of the discrete problem to 1e-12. Raises InputError for a problem that multigrid-CG
    does not suit.
    """
    errors = errors.double()
    with one_thread():
        everyone = torch.arange(len(errors))
        system = discretize(problem(everyone), on)
        exact = _exact(system)
        truth = exact if reference is None else reference.double()
        floor = _distance(exact, truth)
        counts = _first_near(system, method, truth, torch.where(floor <= errors, errors, torch.inf))
        counts = torch.where(floor <= errors, counts, -1)
        seconds = torch.full((len(errors),), float("nan"), dtype=torch.float64)
        for i in torch.nonzero(counts >= 0).flatten().tolist():
            seconds[i] = _seconds(problem, everyone[i : i + 1], on, method, int(counts[i]))
        there = everyone[counts >= 0]
        batched = float("nan")
        if len(there):
            most = int(counts.max())
            batched = _seconds(problem, there, on, method, most) / len(there)
    return MultigridTime(method, on.shape, counts, floor, seconds, batched)


def _exact(system: LinearSystem) -> Tensor:
    solver = CG(preconditioner=Multigrid(), rtol=_TIGHT_SOLVE)
    state = solver.init(system)
    return solver.run(state).value


def _first_near(system: LinearSystem, method: Method, truth: Tensor, errors: Tensor) -> Tensor:
    """The first iteration that is near enough, per sample."""
    counts = torch.full((len(errors),), -1)
    prepared = _setup(system.A, method)
    for k in range(_MOST_CYCLES + 1):
        x = _iterated(system, prepared, method, k)
        near = _distance(system.lift(x), truth) <= errors
        counts[(counts < 0) & near] = k
        if bool((counts >= 0).all()):
            break
    return counts


def _setup(A: LinearMap, method: Method) -> Any:
    if method == "cg":
        return CG(preconditioner=Multigrid()).setup(A)
    return Multigrid().setup(A)


def _iterated(system: LinearSystem, prepared: Any, method: Method, k: int) -> Tensor:
    """The iterate k; of full multigrid 0 is its first guess, of CG zero."""
    if k == 0:
        return prepared.first_guess(system.b) if method == "full_multigrid" else system.b * 0
    solver = (
        Multigrid(rtol=_UNREACHED, max_iterations=k)
        if method == "full_multigrid"
        else CG(preconditioner=Multigrid(), rtol=_UNREACHED, max_iterations=k)
    )
    return solver.iterate(system.A, prepared, system.b, None, None).x


def _distance(value: Tensor, truth: Tensor) -> Tensor:
    """Relative L2 distance per sample on the points of ``truth``."""
    dimension = value.ndim - 1
    steps = []
    for n, m in zip(value.shape[1:], truth.shape[1:], strict=True):
        step, rest = divmod(n - 1, m - 1)
        if rest or step < 1:
            raise InputError(f"a grid of {n} points does not contain the reference's {m}")
        steps.append(slice(None, None, step))
    gap = value[(slice(None), *steps)] - truth
    axes = tuple(range(1, dimension + 1))
    return gap.square().sum(axes).sqrt() / truth.square().sum(axes).sqrt()


def _seconds(
    problem: Callable[[Tensor], Problem], which: Tensor, on: Grid, method: Method, k: int
) -> float:
    """Discretisation, set-up and k iterations of the samples ``which``, together."""
    chosen = problem(which)
    system, discretising = fastest(lambda: discretize(chosen, on), _RUNS)
    prepared, preparing = fastest(lambda: _setup(system.A, method), _RUNS)
    _, iterating = fastest(lambda: _iterated(system, prepared, method, k), _RUNS)
    return discretising + preparing + iterating
