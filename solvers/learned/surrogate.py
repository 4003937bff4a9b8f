"""A trained operator as a solver: predict, certify, polish.

    u_0 = network(inputs of the problem),
    eta <= ||u* - u_0||_A <= eta / sqrt(1 - rho)                            the certificate,
    u = polishing solver from t u_0,  t = u_0 . b / u_0 . A u_0             where one is given.

t u_0 is the best multiple of u_0: ||u* - t u_0||_A <= ||u*||_A, so that whatever the network says,
polishing starts no farther off, in the energy norm, than from zero. (For an A that is not symmetric
definite t makes ||b - t A u_0|| least.) Of what a good preconditioner needs to a tolerance eps it
saves about log(e_0) / log(eps), e_0 the relative error of the start, and less where u* is smooth:
the first multigrid cycle takes away more of a smooth error, which zero has, than of a network's
rough one.

The certificate and the polish are about u*, the solution of the problem's own grid. A network
trained on fine solutions that were cut down to a coarser grid learns another function.

*Inputs* are read off the problem, which has to be the one that the network was trained on. Which
part of the problem an input is, its place, is a dotted key: ``problem.equation.K``. What stands
there may be anything that a coefficient can be; it is evaluated as ``discretize`` does. All the
rest of the problem has to be as in training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from sciml.core.algebra.maps import LinearSystem, without_kernel
from sciml.core.errors import InputError
from sciml.core.problem.equation import KINDS
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.certificate import Certificate
from sciml.core.run.serialise import differences, dump
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.solve import Progress
from sciml.core.run.status import Doubt, Status
from sciml.discretization.fields import values_on
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.certify import certify
from sciml.solvers.linear.iteration import (
    dot,
    linear_system,
    ratio,
    relative_residual,
    spread,
)
from sciml.solvers.linear.krylov import CG, FCG, GMRES, MINRES, BiCGStab
from sciml.solvers.linear.multigrid import Multigrid

if TYPE_CHECKING:
    from sciml.operators import Operator

_PARAMETERS = "problem.parameters."
# What makes no other problem: presets are told apart by their coefficients.
_FREE = ("problem.name", "problem.exact")
_SHOWN = 3


def channels(
    problem: Problem, on: Grid, names: tuple[str, ...], places: Mapping[str, str]
) -> torch.Tensor:
    """The inputs ``names`` of a network, float64 of shape (*batch, len(names), *grid).

    A number is a constant channel. Raises InputError where nothing stands at a place, or what
    stands there cannot be evaluated on the grid.
    """
    values = [values_on(problem, on, _at(problem, places[n]), places[n]) for n in names]
    return torch.stack(torch.broadcast_tensors(*values), dim=-1 - len(on.shape))


def _at(problem: Problem, place: str) -> Any:
    """What stands at a place; a parameter is its own name, which is an expression."""
    if place.startswith(_PARAMETERS) and place.removeprefix(_PARAMETERS) in problem.parameters:
        return place.removeprefix(_PARAMETERS)
    value: Any = problem
    for part in place.split(".")[1:]:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, (tuple, list)):
            value = value[int(part)] if part.isdecimal() and int(part) < len(value) else None
        else:
            value = getattr(value, part, None)
    if value is None or isinstance(value, (tuple, list)):
        raise InputError("the network needs a number or a field here", place)
    return value


def check_same(trained: Mapping[str, Any], problem: Problem, places: Mapping[str, str]) -> None:
    """Raise InputError, with the first key, where the problem is not the one trained on.

    ``trained``: the problem as plain data. The places of the inputs are free.
    """
    found = list(_other(trained, problem, tuple(places.values())))
    if not found:
        return
    told = [f"{key} ({_told(old)} in training, {_told(new)} here)" for key, old, new in found]
    more = "" if len(told) <= _SHOWN else f" and {len(told) - _SHOWN} more"
    raise InputError(
        f"the network was trained on another problem, which differs in "
        f"{', '.join(told[:_SHOWN])}{more}",
        found[0][0],
    )


def _other(
    trained: Mapping[str, Any], problem: Problem, places: tuple[str, ...]
) -> Iterator[tuple[str, Any, Any]]:
    for key, old, new in differences(trained, dump(problem), "problem"):
        if key in _FREE or any(f"{key}.".startswith(f"{place}.") for place in places):
            continue
        if key == "problem.equation.kind" and old in KINDS and new in KINDS:
            continue
        # A parameter that training did not know is in none of its expressions.
        if (key.startswith(_PARAMETERS) and old is None) or _number(old) == _number(new):
            continue
        yield key, old, new


def _number(value: Any) -> Any:
    """Numbers as such where they are written as text, and other text without blanks."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return "".join(value.split())


def _told(value: Any) -> str:
    text = "nothing" if value is None else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


# Those that go on from a guess.
Polish = CG | FCG | MINRES | BiCGStab | GMRES | Multigrid | AMG
_POINTS = 2**20  # that a network is given at once, over all samples


@dataclass(frozen=True)
class Surrogate:
    """A trained operator's answer to the steady linear problem that it was trained for.

    ``path``: the folder of the operator. ``polish``: an iterative solver that takes the prediction
    to its own tolerance; without one the answer's status is PREDICTED, which is no success.
    ``certify``: bound the answer's error from both sides; multigrid's set-up and about a dozen
    cycles, often more than the solution takes. ``steps`` of multigrid-CG tighten the bounds.
    ``compare``: solve without the prediction too, and note the iterations saved.
    """

    path: str
    polish: Polish | None = None
    steps: int = 0
    certify: bool = True
    compare: bool = False
    kind: Literal["surrogate"] = "surrogate"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"steps must be at least 0; got {self.steps}", "solver.steps")
        if self.polish is not None and not isinstance(self.polish, Polish):
            raise InputError(
                f"{self.polish.kind} makes no use of a first guess; polish by one of "
                f"{', '.join(solver.kind for solver in get_args(Polish))}",
                "solver.polish",
            )
        if self.compare and self.polish is None:
            raise InputError("compare needs polish: a solver to compare", "solver.compare")

    def init(
        self, problem: Problem | LinearSystem, on: Grid | Mesh | None = None
    ) -> SurrogateState:
        """Load the operator, discretise if need be, check that the two go together.

        Raises InputError, naming what differs, for a problem that the operator was not trained on.
        """
        from sciml.operators import load_operator

        if isinstance(problem, Problem):
            problem = _steady(problem)
        system = linear_system(problem, on)
        start = time.perf_counter()
        if system.problem is None or not isinstance(system.on, Grid):
            raise InputError("a surrogate needs a problem on a grid, not a mesh or a bare matrix")
        try:
            operator = load_operator(self.path, system.A.device)
        except InputError as error:
            raise InputError(error.message, "solver.path") from None
        inputs = _inputs(operator, system.problem, system.on, system, self.path)
        polishing = None if self.polish is None else self.polish.init(system, None)
        return SurrogateState(system, operator, inputs, polishing, time.perf_counter() - start)

    def run(
        self,
        state: SurrogateState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Predict, polish, certify."""
        if b is not None or initial is not None:
            raise InputError(
                "a surrogate predicts from the problem alone: change f there, and leave initial out"
            )
        start = time.perf_counter()
        x = _predict(state)
        seconds = time.perf_counter() - start
        predicted = self._predicted(state, x, seconds)
        solution = predicted if self.polish is None else self._polished(state, x, progress)
        notes = [*solution.notes, _said(predicted)]
        if self.polish is not None:
            notes.append(self._saved(state, solution))
            stats = solution.stats
            stats = replace(
                stats,
                setup_seconds=state.setup_seconds,
                solve_seconds=seconds + stats.solve_seconds,
            )
            solution = replace(solution, stats=stats, solver=self)
        if self.certify:
            solution, remark = self._certified(state, predicted, solution)
            notes.append(remark)
        if self.polish is None:
            notes += _unlike(state)
        notes += [Doubt(note) for note in state.operator.notes]
        return replace(solution, notes=tuple(notes))

    def _predicted(self, state: SurrogateState, x: torch.Tensor, seconds: float) -> Solution:
        """The network's answer as it is."""
        system = state.system
        residual = relative_residual(system.A.detach(), x, system.b.detach())
        statuses = tuple(
            Status.PREDICTED if finite else Status.NOT_FINITE
            for finite in residual.isfinite().flatten().tolist()
        )
        none = torch.zeros(residual.shape, dtype=torch.int64)
        stats = Statistics(none, residual.cpu()[None], state.setup_seconds, seconds)
        value = system.value(x).detach()
        return Solution(
            value, residual, statuses, stats, system.on, self, system.notes, fields=system.fields,
            measure=system.measure,
        )  # fmt: skip

    def _polished(
        self, state: SurrogateState, x: torch.Tensor, progress: Progress | None
    ) -> Solution:
        assert self.polish is not None
        guess = state.system.lift(_best_multiple(state.system, x)).detach()
        return self.polish.run(state.polishing, initial=guess, progress=progress)

    def _saved(self, state: SurrogateState, solution: Solution) -> str:
        assert self.polish is not None
        own = solution.stats.iterations.double().mean()
        line = f"polish: {self.polish.kind}, {own:.3g} iterations from the prediction"
        if not self.compare:
            return line
        with torch.no_grad():
            other = self.polish.run(state.polishing).stats.iterations.double().mean()
        saved = 100 * (1 - float(own / other)) if other else 0.0
        effect = f"{saved:.0f} % saved" if saved > 0 else "nothing saved"
        return f"{line}, {other:.3g} without it, {effect}"

    def _certified(
        self, state: SurrogateState, predicted: Solution, solution: Solution
    ) -> tuple[Solution, str]:
        """The solution with the bounds of its value; the remark bounds the prediction too."""
        values = torch.stack([s.value.detach() for s in (predicted, solution)])
        system, known = state.system, torch.stack([predicted.residual, solution.residual])
        finite = spread(known.isfinite(), len(system.on.shape))  # type: ignore[union-attr]
        try:
            found = certify(torch.where(finite, values, 0.0), system, steps=self.steps)
        except InputError as error:
            return solution, f"no certificate: {error.message}"
        both = [_part(found, k, known[k].isfinite()) for k in range(2)]
        remark = f"certificate of the prediction: {both[0]}"
        if self.polish is not None:
            remark += f" Of the answer: {_range(both[1])}."
        return replace(solution, certificate=both[1]), remark


@dataclass(frozen=True)
class SurrogateState:
    """System, operator, its inputs (*batch, C, *grid), and what the polishing solver set up."""

    system: LinearSystem
    operator: Operator
    inputs: torch.Tensor
    polishing: Any
    setup_seconds: float


def _steady(problem: Problem) -> Problem:
    if not problem.linear:
        what = "nonlinear" if problem.time is None else "in time"
        raise InputError(
            f"a surrogate answers steady linear problems; this one is {what}", "solver.kind"
        )
    return problem


def _inputs(
    operator: Operator, problem: Problem, on: Grid, system: LinearSystem, path: str
) -> torch.Tensor:
    """The network's inputs on the grid; InputError where it does not go with the problem."""
    signature, origin = operator.signature, operator.provenance
    places, trained = origin.get("places") or {}, origin.get("spec")
    if not isinstance(trained, Mapping) or not set(signature.inputs) <= set(places):
        raise InputError(
            f"the operator in '{path}' does not say which problem it was trained on, and which "
            "part of it each input is; train it on a dataset of sciml generate",
            "solver.path",
        )
    check_same(trained, problem, places)
    if signature.grid.centring != on.centring:
        raise InputError(
            f"the network was trained on {signature.grid.centring} values; "
            f"got a grid of {on.centring} values",
            "grid.centring",
        )
    wanted = _outputs(system)
    if signature.outputs != wanted:
        raise InputError(
            f"the network gives {', '.join(signature.outputs)}; "
            f"the problem needs {', '.join(wanted)}",
            "solver.path",
        )
    return channels(problem, on, signature.inputs, places).detach()


def _outputs(system: LinearSystem) -> tuple[str, ...]:
    """The names of a solution's real fields."""
    if not system.A.dtype.is_complex:
        return system.fields
    return tuple(f"{name}_{part}" for name in system.fields for part in ("real", "imag"))


@torch.no_grad()
def _predict(state: SurrogateState) -> torch.Tensor:
    """The network's answer as unknowns, (*batch, *A.shape), in the precision of b."""
    system, inputs = state.system, state.inputs
    grid = inputs.shape[inputs.ndim - len(system.A.shape) :]
    batch = inputs.shape[: inputs.ndim - len(grid) - 1]
    samples = inputs.reshape(-1, inputs.shape[-len(grid) - 1], *grid).to(system.A.device)
    chunks = samples.split(max(1, _POINTS // prod(grid)))
    y = torch.cat([state.operator(chunk) for chunk in chunks]).double()
    value = torch.complex(y[:, 0], y[:, 1]) if system.A.dtype.is_complex else y[:, 0]
    x = system.restrict(value.reshape(*batch, *grid)).to(system.b.dtype)
    x = x.expand(torch.broadcast_shapes(x.shape, system.b.shape)).contiguous()
    return without_kernel(system.A, x) if system.A.nullspace else x


def _unlike(state: SurrogateState) -> list[str]:
    """What no training input had, of the first such inputs."""
    from sciml.operators.seen import unlike

    signature, seen = state.operator.signature, state.operator.provenance.get("seen")
    if seen is None:
        return []
    inputs = state.inputs.reshape(-1, *state.inputs.shape[-1 - signature.dimension :])
    strange = [told for told in unlike(seen, inputs.cpu(), signature) if told]
    return [f"the network has seen no such input: {told}" for told in strange[:_SHOWN]]


def _best_multiple(system: LinearSystem, x: torch.Tensor) -> torch.Tensor:
    """t x; zero for the samples that are not finite."""
    A, d = system.A.detach(), len(system.A.shape)
    b = system.b.detach()
    usable = torch.isfinite(x.flatten(-d)).all(-1)
    x = torch.where(spread(usable, d), x, 0.0)
    image = A.apply(x)
    test = x if A.symmetric and A.definite else image
    return spread(ratio(dot(test, b, d), dot(test, image, d), usable), d) * x


def _part(found: Certificate, k: int, finite: torch.Tensor) -> Certificate:
    """The k-th of the certificates found together; no number for a value that is none."""

    def own(bound: torch.Tensor) -> torch.Tensor:
        return torch.where(finite, bound[k], torch.nan).cpu()

    return replace(
        found,
        lower=own(found.lower),
        upper=own(found.upper),
        relative_lower=own(found.relative_lower),
        relative_upper=own(found.relative_upper),
        contraction=found.contraction.cpu(),
        reason=found.reason if bool(torch.isinf(found.upper[k]).any()) else "",
    )


def _said(predicted: Solution) -> str:
    worst = float(predicted.residual.max())
    return f"prediction: true relative residual {worst:.3g}, {predicted.stats.solve_seconds:.3g} s"


def _range(certificate: Certificate) -> str:
    low, high = certificate.relative_lower.min(), certificate.relative_upper.max()
    return f"between {100 * float(low):.3g} and {100 * float(high):.3g} %"
