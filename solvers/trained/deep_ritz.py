"""Deep Ritz: a network that makes the problem's energy least.

E and Yu (2018, arXiv 1710.00211), with Dirichlet data built in, Gauss' quadrature in place of
random points in up to three dimensions, and the energy natural gradient in place of Adam. The
energy needs first derivatives alone, and its Neumann and Robin conditions are met of themselves;
its precision limits the answer: an error of 1e-8 in the energy norm changes the energy by 1e-16.

*The energy* as a function of an ansatz, with its gradient and its Gram matrix.

    E(u) = int e(x, u, grad u) dx + sum over sides int alpha u^2 / 2 - g u ds,

e the problem's own density, or of a linear equation with symmetric K

    e = grad u . K grad u / 2 + c u^2 / 2 - f u,

alpha and g those of Robin and Neumann sides. Where E is stationary, -div(de/dp) + de/du = 0 and
n . de/dp = g - alpha u: Dirichlet data alone need be built in. With z = (u, grad u), weights w_n of
the quadrature and z_i = dz/dtheta_i,

    dE/dtheta_i = sum_n w_n e_z . z_i,        G_ij = sum_n w_n z_i . H z_j,

H the second derivatives e_zz, its negative part left out: the Hessian of the energy on the tangent
space of the ansatz, the metric of the energy natural gradient (Mueller and Zeinhofer 2023, arXiv
2302.13163).

*The energy natural gradient*: Newton's method for an energy, on the tangent space of an ansatz.

    (G + mu I) s = -dE/dtheta,       theta <- theta + s,

G the Gram matrix of the ansatz's derivatives in the energy's own second derivative: up
to mu the step in function space is the projection of Newton's onto the tangent space (Mueller and
Zeinhofer, ICML 2023, arXiv 2302.13163). mu by the gain ratio of what the energy fell to what the
quadratic model promised (Nielsen 1999).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.core.problem.condition import BESIDE_ENERGY, flux_data, names_state
from sciml.core.problem.grid import Box
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.discretization.points.jet import Jet
from sciml.discretization.points.strong import StrongForm
from sciml.solvers.trained.conditions import Piece, outward
from sciml.solvers.trained.gradient_methods import AdamDescent
from sciml.solvers.trained.minimisation import Budget, Minimisation, OptimiserResult, train
from sciml.solvers.trained.networks import Activation, Perceptron, Tape, derivatives, perceptron
from sciml.solvers.trained.objective import Objective, objective_of
from sciml.solvers.trained.sampling import gauss_legendre, sobol
from sciml.solvers.trained.solver import TrainedSolver, at_least

_KEY = "problem.equation"
_TENSOR = 3  # dimensions up to which a tensor product of Gauss' rule is taken

# Of points (N, D) and z = (u, slopes), (1 + D, N), to (N,).
Density = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """Where the energy is integrated; a sampler whose points carry their weights.

    In up to three dimensions a tensor product of Gauss-Legendre rules of about ``count`` points,
    two to an axis, which meet at a random place; beyond, Sobol points of equal weight. Both are
    drawn anew at every iteration: between fixed points a network finds functions whose energy the
    rule does not see, and which it takes for lower than the least.
    """

    count: int
    side_count: int
    every: int = 1

    def points(
        self, objective: EnergyObjective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """Per part a tensor (N, D + 1): the points, and in the last column their weights."""
        found = []
        for part, count in zip(objective.parts, counts, strict=True):
            piece = part.piece
            if piece.free > _TENSOR:
                cube = sobol(count, piece.free, generator)
                weights = torch.full((count,), 1 / count, dtype=torch.float64)
            else:
                breaks = (1 + torch.rand(piece.free, dtype=torch.float64, generator=generator)) / 3
                cube, weights = gauss_legendre(count, breaks)
            extent = piece.upper - piece.lower
            volume = float(extent[extent > 0].prod())
            found.append(torch.cat([piece.place(cube), volume * weights[:, None]], 1))
        return found

    def counts(self, objective: EnergyObjective) -> list[int]:
        """Points per part: inside, then on every side with a flux."""
        return [self.count, *[self.side_count] * (len(objective.parts) - 1)]


@dataclass(frozen=True)
class EnergyPart:
    """A piece of the box or its sides with the density that is integrated there."""

    piece: Piece
    density: Density


@dataclass(frozen=True)
class PlacedPart:
    """A part with its points, weights (N,) and the jets of what is built in there."""

    part: EnergyPart
    piece: Piece
    points: Tensor
    weights: Tensor
    known: tuple[Jet, Jet] | None


@dataclass
class EnergyObjective:
    """The energy of an ansatz; ``residuals``: the strong form of the same ansatz.

    Raises InputError for a problem that has no energy.
    """

    residuals: Objective
    batches: list[PlacedPart] = field(default_factory=list)
    parts: tuple[EnergyPart, ...] = ()

    def __post_init__(self) -> None:
        self.parts = tuple(_parts(self.residuals))

    @property
    def columns(self) -> list[nn.Parameter]:
        """All parameters, in the order of the Gram matrix."""
        return self.residuals.columns

    @property
    def theta(self) -> Tensor:
        """The parameters as one vector (P,)."""
        return self.residuals.theta

    def assign(self, theta: Tensor) -> None:
        """Set the parameters from one vector."""
        self.residuals.assign(theta)

    def place(self, points: Sequence[Tensor]) -> None:
        """Take these points with their weights, (N, D + 1) per part."""
        ansatz = self.residuals.ansatz
        self.batches = [
            PlacedPart(part, part.piece, x[:, :-1], x[:, -1], ansatz.known(x[:, :-1], ()))
            for part, x in zip(self.parts, points, strict=True)
        ]

    def residual(self, batch: PlacedPart) -> Tensor:
        """The energy density at the points of one part, (N, 1)."""
        jet = self.residuals.ansatz.jet(batch.points, (), batch.known)
        return batch.part.density(batch.points, jet.data[..., 0])[:, None]

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """E, with a graph, and its share by part."""
        total, shares = torch.zeros((), dtype=torch.float64), {}
        for batch in self.batches:
            own = batch.weights @ self.residual(batch)[:, 0]
            shares[batch.piece.name] = float(own.detach())
            total = total + own
        return total, shares

    @torch.no_grad()
    def value(self) -> float:
        """E."""
        return float(self.loss()[0])

    def derivatives(self) -> tuple[float, Tensor, Tensor]:
        """E, dE/dtheta (P,) and a square root S of the Gram matrix G = S^T S, (R, P)."""
        total, gradient, roots = 0.0, torch.zeros_like(self.theta), []
        for batch in self.batches:
            z, J = self.tangent(batch)
            e, slope, H = _expanded(batch.part.density, batch.points, z)
            total += float(batch.weights @ e)
            gradient += torch.einsum("n,an,anp->p", batch.weights, slope, J)
            root = _root(H) * batch.weights.sqrt()[:, None, None]
            roots.append(torch.einsum("nab,bnp->anp", root, J).flatten(0, 1))
        return total, gradient, torch.cat(roots)

    def tangent(self, batch: PlacedPart) -> tuple[Tensor, Tensor]:
        """z (1 + D, N) and dz/dtheta (1 + D, N, P); on sides the value alone."""
        tape: Tape = []
        ansatz = self.residuals.ansatz
        with torch.enable_grad():
            jet = ansatz.jet(batch.points, (), batch.known, tape)
        count = len(jet.data) if batch.piece.name == "equation" else 1
        rows = []
        for a in range(count):
            deltas = torch.autograd.grad(
                jet.data[a].sum(), [out for _, _, out in tape], retain_graph=True,
                materialize_grads=True, allow_unused=True,
            )  # fmt: skip
            with torch.no_grad():
                rows.append(derivatives(tape, deltas, ansatz.network.blocks()))
        return jet.data[:count, :, 0].detach(), torch.stack(rows)


def _expanded(density: Density, points: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """e (N,), e_z (A, N) and e_zz (N, A, A)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        e = density(points, z)
        (slope,) = torch.autograd.grad(e.sum(), z, create_graph=True)
        rows = [
            torch.autograd.grad(row.sum(), z, retain_graph=True)[0]
            if row.requires_grad
            else torch.zeros_like(z)
            for row in slope
        ]
    return e.detach(), slope.detach(), torch.stack(rows).detach().permute(2, 0, 1)


def _root(H: Tensor) -> Tensor:
    """The symmetric square root of the positive part of symmetric matrices (N, A, A).

    NaN where an entry is not finite: LAPACK would raise.
    """
    if not bool(torch.isfinite(H).all()):
        return torch.full_like(H, torch.nan)
    values, vectors = torch.linalg.eigh(0.5 * (H + H.mT))
    root: Tensor = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
    return root


def _parts(residuals: Objective) -> list[EnergyPart]:
    form = residuals.form
    found = []
    for piece in residuals.pieces:
        if piece.name == "equation":
            found.append(EnergyPart(piece, density(form)))
        else:
            found.append(EnergyPart(piece, _side(form, piece)))
    return found


def density(form: StrongForm) -> Density:
    """e of a problem's equation at points; raises InputError where there is none."""
    problem = form.problem
    equation = problem.form
    if problem.time is not None:
        raise InputError(
            "an energy is of a steady problem; use pinn, or leave time and initial out",
            "solver.kind",
        )
    if equation.energy is None:
        _require_symmetric(form)
        return lambda x, z: _quadratic(form, x, z)

    def own(x: Tensor, z: Tensor) -> Tensor:
        e = form.data(equation.energy, f"{_KEY}.energy", x, z[0, :, None], z[1:, :, None])
        return e.expand(len(x))

    return own


def _require_symmetric(form: StrongForm) -> None:
    equation = form.problem.form
    if not equation.linear_with(form.problem.parameters):
        raise InputError(
            "a nonlinear equation is minimised as an energy; give energy: such as "
            "'0.5*(ux**2 + uy**2) + 0.25*u**4 - f*u' in place of its coefficients",
            _KEY,
        )
    if any(not (isinstance(b, Real) and b == 0) for b in equation.b or ()):
        raise InputError("an equation with advection has no energy; use pinn", f"{_KEY}.b")
    K: Any = equation.K
    if not (isinstance(K, (list, tuple)) and isinstance(K[0], (list, tuple))):
        return
    for i in range(len(K)):
        for j in range(i):
            if K[i][j] is not K[j][i] and K[i][j] != K[j][i]:
                raise InputError(
                    f"an energy needs a symmetric K; K[{i}][{j}] is {K[i][j]!r}, "
                    f"K[{j}][{i}] is {K[j][i]!r}",
                    f"{_KEY}.K",
                )


def _quadratic(form: StrongForm, x: Tensor, z: Tensor) -> Tensor:
    equation, u = form.problem.form, z[0]
    flux = form.flux(x, Jet(z[..., None], len(z) - 1, ()))[..., 0]
    c = form.data(equation.c, f"{_KEY}.c", x)
    f = form.data(equation.f, f"{_KEY}.f", x)
    return 0.5 * (z[1:] * flux).sum(0) + 0.5 * c * u * u - f * u


def _side(form: StrongForm, piece: Piece) -> Density:
    """alpha u^2 / 2 - g u of a Robin or Neumann side."""
    condition, key = form.problem.boundary[piece.name], f"problem.boundary.{piece.name}"
    normal = outward(form, piece.name)
    if names_state(condition, form.fields, form.problem.parameters):
        raise InputError(BESIDE_ENERGY, f"{key}.{condition.kind}")

    def density(x: Tensor, z: Tensor) -> Tensor:
        a, g = flux_data(
            condition,
            f"{key}.{condition.kind}",
            lambda value, where: form.data(value, where, x, normal=normal),
        )
        return (0.5 * a * z[0] - g) * z[0]

    return density


_LARGEST, _LEAST = 1e12, 1e-16
# A promised fall of the energy below this share of its size is lost in its rounding.
_ROUNDING = 1e-15


@dataclass(frozen=True)
class NaturalGradient:
    """Damped natural gradient steps; ``damping``: the first mu over the largest diagonal of G.

    Time 2 R P^2 + P^3 / 3 a step for P parameters and R = (1 + D) N rows.
    """

    iterations: int = 200
    damping: float = 1e-3
    kind: Literal["natural_gradient"] = "natural_gradient"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"iterations must be at least 1; got {self.iterations}")
        if not 0 < self.damping < math.inf:
            raise InputError(
                f"damping must be positive; got {self.damping:g}", "solver.optimiser.damping"
            )

    def minimise(self, objective: EnergyObjective, minimisation: Minimisation) -> OptimiserResult:
        """Lower the energy until the minimisation ends it, or its rounding is reached."""
        theta, mu, growth = objective.theta, None, 2.0
        for _ in range(self.iterations):
            minimisation.exchange(objective)  # type: ignore[arg-type]
            before, gradient, root = objective.derivatives()
            if minimisation.ended(before, objective):  # type: ignore[arg-type]
                break
            G = root.T @ root
            if not bool(torch.isfinite(G).all() & torch.isfinite(gradient).all()):
                return minimisation.overflowed("the energy's second derivatives")
            scale = float(G.diagonal().max())
            mu = self.damping * scale if mu is None else mu
            while (taken := _try(objective, theta, G, gradient, mu, before)) is None:
                mu, growth = mu * growth, 2 * growth
                if mu > _LARGEST * scale:
                    objective.assign(theta)
                    return minimisation.stalled()
            step, fall, promised = taken
            if promised <= _ROUNDING * abs(before):
                objective.assign(theta)
                return minimisation.stalled()
            theta = theta + step
            mu = max(mu * max(1 / 3, 1 - (2 * fall / promised - 1) ** 3), _LEAST * scale)
            growth = 2.0
        return minimisation.result()


def _try(
    objective: EnergyObjective,
    theta: Tensor,
    G: Tensor,
    gradient: Tensor,
    mu: float,
    before: float,
) -> tuple[Tensor, float, float] | None:
    """A step that lowers the energy, by how much, and what was promised; None if it does not.

    Where so little is promised that rounding hides it, the step stands whatever it does.
    """
    step = _step(G, gradient, mu)
    if step is None:
        return None
    promised = 0.5 * float(mu * step @ step - gradient @ step)
    objective.assign(theta + step)
    fall = before - objective.value()
    return (step, fall, promised) if fall > 0 or promised <= _ROUNDING * abs(before) else None


def _step(G: Tensor, gradient: Tensor, mu: float) -> Tensor | None:
    """-(G + mu I)^-1 gradient, or None where mu is too small for the precision."""
    damped = G.clone()
    damped.diagonal().add_(mu)
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info):
        return None
    found = -torch.cholesky_solve(gradient[:, None], factor)[:, 0]
    return found if bool(torch.isfinite(found).all()) else None


RitzOptimiser = NaturalGradient | AdamDescent


@dataclass(frozen=True)
class DeepRitz(TrainedSolver):
    """A network trained on the problem's energy; float64.

    For a steady problem of one field with an ``energy``, or with a linear equation with symmetric K
    and no advection; energies without a lower bound are not recognised. ``points`` inside and
    ``boundary_points`` on every Neumann or Robin side, rounded up to a tensor product of Gauss'
    rule in up to three dimensions, Sobol points beyond; they are drawn anew at every iteration.
    ``optimiser``: one, or several that follow one another. ``rtol``: of the residual of the
    *strong* equation: the energy is made as small as it gets in any case. The others: see
    ``TrainedSolver``.
    """

    width: int = 24
    depth: int = 2
    activation: Activation = "tanh"
    optimiser: RitzOptimiser | tuple[RitzOptimiser, ...] = field(default_factory=NaturalGradient)
    kind: Literal["deep_ritz"] = "deep_ritz"
    _: KW_ONLY
    points: int = 1600
    boundary_points: int = 100
    rtol: float = 1e-3

    def check(self) -> None:
        """Raise InputError for an option that is out of range."""
        at_least(self, 1, "width", "depth", "points")

    def pose(self, problem: Problem, mesh: Mesh | None = None) -> Objective:
        """The strong residuals of the network; raises InputError where there is no energy."""
        if problem.observations is not None:
            raise InputError(
                "an energy knows nothing of observations; use pinn", "problem.observations"
            )
        if problem.obstacle is not None:
            raise InputError(
                "an energy is integrated over a box here; with an obstacle use pinn",
                "problem.obstacle",
            )
        if mesh is not None or not isinstance(problem.domain, Box):
            raise InputError(
                "an energy is integrated over a box here; elsewhere use pinn",
                "solver.kind",
            )
        objective = objective_of(problem, self._network, True, {})
        EnergyObjective(objective)
        return objective

    def train(self, objective: Objective, budget: Budget) -> tuple[Objective, OptimiserResult]:
        """Lower the energy."""
        energy = EnergyObjective(objective)
        rule = Rule(self.points, self.boundary_points)
        minimisation = Minimisation(
            rule,  # type: ignore[arg-type]
            rule.counts(energy),
            torch.Generator().manual_seed(self.seed),
            tolerance=-float("inf"),
            seconds=budget.seconds,
            progress=budget.progress,
        )
        minimisation.relative = lambda _: _distance(*minimisation.losses[-2:])
        optimisers = self.optimiser if isinstance(self.optimiser, tuple) else (self.optimiser,)
        result = train(optimisers, energy, minimisation)  # type: ignore[arg-type]
        note = f"energy {energy.value():.10g}"
        return objective, replace(_heights(result), notes=(*result.notes, note))

    @property
    def trainings(self) -> int:
        """One: there is no time."""
        return 1

    def _network(self, form: StrongForm) -> Perceptron:
        return perceptron(form, self.seed, self.width, self.depth, self.activation)


def _distance(before: float, after: float | None = None) -> float:
    """About how far apart the two functions are in the energy norm, relative."""
    return 1.0 if after is None else (abs(after - before) / max(abs(after), 1e-300)) ** 0.5


def _heights(course: OptimiserResult) -> OptimiserResult:
    """Energies as their heights above the last, relative: the squares of relative distances."""
    last = course.losses[-1]
    return replace(course, losses=tuple(_distance(e, last) ** 2 for e in course.losses))
