"""Attack the certificate of the differential equation on meshes: many guesses of each problem.

    python benchmarks/attack_enclosures_on_meshes.py [--tried 400] [--journal FILE]

Diffusion and reaction on triangles and tetrahedra, P1 and P2: the vertices moved at random, or all
elements thin, K constant in stripes of contrast up to 1e6, a tensor, or one that varies within the
elements, all kinds of sides, Dirichlet data that are no polynomials. The solution is a product of
functions of one coordinate each whose fluxes go on across the stripes; source and fluxes are its
derivatives, by autograd. Each problem is asked with a batch of guesses: the interpolant with and
without an error, with a wrong value at one node, noise, zero, the solution, and iterations that
were stopped.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attack import ANSWERED, REFUSED, WRONG, Journal
from attack_enclosures import Factor

import sciml
from sciml.core.errors import IncompatibleData, InputError
from sciml.core.problem.condition import Condition, Robin
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Equation, Problem
from sciml.core.problem.quadrature import on_facets, whole
from sciml.solvers.linear.krylov import CG

Tensor = torch.Tensor
_ROUNDING = 1e-8
_RULES = 1e-6  # of a lower bound: its integrals are by rules, its data no polynomials
_NAMES = ("x", "y", "z")
KINDS = ("interpolant", "wrong", "node", "noise", "zero", "solved", "stopped once", "stopped")


@dataclass(frozen=True)
class Case:
    """A problem whose solution is a product, its mesh, and the guesses, (guesses, nodes)."""

    problem: Problem
    mesh: Mesh
    factors: tuple[Factor, ...]
    K: Callable[[Tensor], Tensor]
    c: Callable[[Tensor], Tensor]
    alphas: dict[str, Callable[[Tensor], Tensor]]
    guesses: Tensor

    def value(self, points: Tensor) -> Tensor:
        """u at points (..., d)."""
        columns = zip(self.factors, points.unbind(-1), strict=True)
        return torch.stack([f.value(x) for f, x in columns]).prod(0)

    def flux(self, points: Tensor) -> Tensor:
        """K grad u, (..., d)."""
        return (self.K(points) @ self.slope(points)[..., None])[..., 0]

    def slope(self, points: Tensor) -> Tensor:
        """grad u, (..., d), differentiable."""
        x = points.unbind(-1)
        values = [f.value(a) for f, a in zip(self.factors, x, strict=True)]
        found = []
        for k, f in enumerate(self.factors):
            others = [v for j, v in enumerate(values) if j != k]
            found.append(torch.stack([f.gradient(x[k]), *others]).prod(0))
        return torch.stack(found, -1)

    def source(self, points: Tensor) -> Tensor:
        """f, the divergence by autograd: of what jumps between stripes that within them."""
        with torch.enable_grad():
            x = points.detach().clone().requires_grad_()
            flux = self.flux(x)
            total = self.c(x) * self.value(x)
            for k in range(x.shape[-1]):
                if flux[..., k].requires_grad:
                    (steep,) = torch.autograd.grad(flux[..., k].sum(), x, retain_graph=True)
                    total = total - steep[..., k]
        return total.detach()


def moved_square(rng: np.random.Generator, n: int, d: int, thin: float) -> tuple[Any, ...]:
    """Vertices and simplices of the unit box, inner ones moved off the stripes' lines."""
    import skfem

    ticks = [np.linspace(0, 1, n + 1)] * d
    make = skfem.MeshTri if d == 2 else skfem.MeshTet
    mesh = make.init_tensor(*ticks)
    points, cells = mesh.p.T.copy(), mesh.t.T.copy()
    if rng.random() < 0.7:
        inner = (points > 1e-9) & (points < 1 - 1e-9)
        inner[:, 0] = False  # the stripes stay
        points = points + inner * (rng.random(points.shape) - 0.5) * (0.5 if d == 2 else 0.3) / n
    points[:, -1] *= thin
    return points, cells


def random_case(rng: np.random.Generator) -> Case:
    """One of them."""
    d = 2 if rng.random() < 0.75 else 3
    n = int(rng.integers(3, 11)) if d == 2 else int(rng.integers(2, 4))
    thin = float(rng.choice([1.0, 1.0, 10 ** rng.uniform(-2, 1)]))
    points, cells = moved_square(rng, n, d, thin)
    element = str(rng.choice(["P1", "P2"]))
    upper = [1.0] * (d - 1) + [thin]
    style = str(rng.choice(["stripes", "tensor", "varying"]))
    factors = []
    for k in range(d):
        stripes = n if style == "stripes" and k == 0 else 1
        contrast = 10 ** rng.uniform(0, 6)
        k_ = torch.as_tensor(contrast ** rng.random(stripes))
        if stripes == 1:
            k_ = torch.ones(1, dtype=torch.float64)
        elif rng.random() < 0.5:
            k_ = torch.where(torch.as_tensor(rng.random(stripes)) < 0.5, 1.0, contrast).double()
        # Three elements for half a wave, so that rules of degree 6 resolve the data.
        frequency = float(rng.uniform(0.2, n / 3)) * math.pi / upper[k]
        slope, shift = (float(s) for s in rng.uniform(-1, 1, 2))
        factors.append(
            Factor(k_, 0.0, upper[k], float(rng.uniform(0.5, 2)), frequency, slope, shift)
        )
    K = _conductivity(rng, style, factors, d)
    size = float(rng.choice([0.0, 10 ** rng.uniform(-4, 4)]))
    wavy = bool(rng.random() < 0.3)

    def c(x: Tensor) -> Tensor:
        one = torch.ones_like(x[..., 0])
        return size * (1 + 0.7 * torch.sin(3 * x[..., 0] + x[..., 1])) if wavy else size * one

    whole_ = Mesh(points, cells)
    outer = whole_.boundaries["boundary"]
    middles = points[outer].mean(1)
    sides = {}
    for k in range(d):
        sides[f"low{k}"] = middles[:, k] < 1e-9 * upper[k]
        sides[f"high{k}"] = middles[:, k] > (1 - 1e-9) * upper[k]
    mesh = Mesh(points, cells, {}, {s: outer[of] for s, of in sides.items()}, element=element)  # type: ignore[arg-type]
    blank = Problem(None, Equation(f=1.0), {s: Condition(dirichlet=0.0) for s in sides})
    alphas: dict[str, Callable[[Tensor], Tensor]] = {}
    case = Case(blank, mesh, tuple(factors), K, c, alphas, torch.zeros(0))
    weights = {"all": [1, 0, 0], "free": [0, 1, 0]}.get(
        str(rng.choice(["mixed", "mixed", "mixed", "all", "free"])), [0.5, 0.25, 0.25]
    )
    chosen = {s: _condition(rng, case, s, weights, alphas) for s in sides}
    equation = Equation(K=_entries(K, d), c=_scalar(c, d), f=_scalar(case.source, d))
    problem = Problem(None, equation, chosen)
    case = Case(problem, mesh, tuple(factors), K, c, alphas, torch.zeros(0))
    return Case(problem, mesh, tuple(factors), K, c, alphas, _guesses(rng, case))


def _conductivity(
    rng: np.random.Generator, style: str, factors: Sequence[Factor], d: int
) -> Callable[[Tensor], Tensor]:
    unit = torch.eye(d, dtype=torch.float64)
    if style == "stripes":
        return lambda x: factors[0].conductivity(x[..., 0])[..., None, None] * unit
    turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
    strengths = 10 ** rng.uniform(-3, 3, d)
    fixed = torch.as_tensor(turn @ np.diag(strengths) @ turn.T)
    fixed = (fixed + fixed.T) / 2
    if style == "tensor":
        return lambda x: fixed.expand(*x.shape[:-1], d, d)
    waves = torch.as_tensor(rng.uniform(-2, 2, d))
    depth = float(rng.uniform(0.1, 0.9))

    def K(x: Tensor) -> Tensor:
        scale = 1 + depth * torch.sin((x * waves).sum(-1))
        return scale[..., None, None] * unit

    return K


def _scalar(of: Callable[[Tensor], Tensor], d: int) -> Callable[..., Tensor]:
    if d == 2:
        return lambda x, y: of(torch.stack(torch.broadcast_tensors(x, y), -1))
    return lambda x, y, z: of(torch.stack(torch.broadcast_tensors(x, y, z), -1))


def _entries(K: Callable[[Tensor], Tensor], d: int) -> Any:
    return [[_scalar(lambda x, i=i, j=j: K(x)[..., i, j], d) for j in range(d)] for i in range(d)]


def _condition(
    rng: np.random.Generator,
    case: Case,
    side: str,
    weights: Sequence[float],
    alphas: dict[str, Callable[[Tensor], Tensor]],
) -> Condition:
    kind = rng.choice(["dirichlet", "neumann", "robin"], p=weights)
    d, axis, out = len(case.factors), int(side[-1]), 1.0 if side.startswith("high") else -1.0

    def flux(x: Tensor) -> Tensor:
        # On a face of the box K is that of the elements beside it: the stripes lie along x.
        return out * case.flux(x)[..., axis].detach()

    if kind == "dirichlet":
        return Condition(dirichlet=_scalar(case.value, d))
    if kind == "neumann":
        return Condition(neumann=_scalar(flux, d))
    size, wavy = float(10 ** rng.uniform(-3, 3)), bool(rng.random() < 0.3)

    def alpha(x: Tensor) -> Tensor:
        one = torch.ones_like(x[..., 0])
        return size * (1 + 0.9 * torch.sin(5 * x.sum(-1))) if wavy else size * one

    alphas[side] = alpha
    both = _scalar(lambda x: alpha(x) * case.value(x) + flux(x), d)
    return Condition(robin=Robin(_scalar(alpha, d), both))


def _guesses(rng: np.random.Generator, case: Case) -> Tensor:
    nodes = torch.from_numpy(case.mesh.nodes)
    exact = case.value(nodes)
    size = float(10 ** rng.uniform(-6, 0))
    waves = torch.as_tensor(rng.uniform(-3, 3, nodes.shape[1]))
    node = exact.clone()
    node[int(rng.integers(len(node)))] += float(rng.standard_normal()) * 10 ** rng.uniform(-3, 1)
    scale = exact.abs().max()
    noise = exact + size * scale * torch.as_tensor(rng.standard_normal(exact.shape))
    wrong = exact * (1 + size * torch.cos((nodes * waves).sum(-1)))
    found = [exact, wrong, node, noise, torch.zeros_like(exact)]
    try:
        found.append(sciml.solve(case.problem, on=case.mesh, throw=False).value)
        for few in (1, int(rng.integers(2, 9))):
            stopped = sciml.solve(case.problem, CG(max_iterations=few), on=case.mesh, throw=False)
            found.append(stopped.value)
    except InputError:
        pass
    values = torch.stack(found)
    for name, condition in case.problem.boundary.items():
        if condition.kind == "dirichlet":
            held = on_facets(case.mesh, case.mesh.facets[name], 2).nodes.flatten()
            values[:, held] = exact[held]
    return values


def true_errors(case: Case) -> Tensor:
    """|u - v|_E of every guess, by rules of degree 12 (9 in space)."""
    d = len(case.factors)
    part = whole(case.mesh, 12 if d == 2 else 9)
    x = torch.stack(part.points, -1)
    # Points of a stripe's own element: they lie inside it.
    local = torch.einsum("bmn,qnl->bmql", case.guesses[:, part.nodes], part.tables.slopes)
    assert part.inverse is not None
    gap = local @ part.inverse[:, 0] - case.slope(x)
    steep = (gap * (case.K(x) @ gap[..., None])[..., 0]).sum(-1)
    density = steep + case.c(x) * (part.at_points(case.guesses) - case.value(x)).square()
    total = (density * part.measure).sum((-1, -2))
    for name, alpha in case.alphas.items():
        side = on_facets(case.mesh, case.mesh.facets[name], 12 if d == 2 else 9)
        y = torch.stack(side.points, -1)
        off = (side.at_points(case.guesses) - case.value(y)).square()
        total = total + (alpha(y) * off * side.scale * side.tables.weights).sum((-1, -2))
    return total.sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tried", type=int, default=400, help="problems")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--journal", type=Path, default=Path("runs/attack/enclosures_on_meshes.jsonl")
    )
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    journal, family = Journal(chosen.journal), "enclosures on meshes, guesses"
    done = journal.done()
    for number in range(chosen.tried):
        if (family, f"{chosen.seed}-{number}-{KINDS[0]}") in done:
            continue
        rng, begin = np.random.default_rng((chosen.seed, number)), time.perf_counter()
        case = random_case(rng)
        try:
            found = sciml.certify(case.guesses, case.problem, case.mesh, of="pde")
        except (InputError, IncompatibleData) as reason:
            journal.add(family, f"{chosen.seed}-{number}-{KINDS[0]}", REFUSED, why=str(reason),
                        seconds=time.perf_counter() - begin)  # fmt: skip
            continue
        errors = true_errors(case)
        seconds = (time.perf_counter() - begin) / len(errors)
        for kind, v, error, low, high in zip(
            KINDS, case.guesses, errors.tolist(), found.lower.tolist(), found.upper.tolist(),
            strict=False,
        ):  # fmt: skip
            # What rounding leaves of the difference of two functions is of the functions' size.
            tiny = 1e-12 * math.sqrt(float(v.square().mean()))
            good = low <= (1 + _RULES) * error + tiny and high >= (1 - _ROUNDING) * error - tiny
            journal.add(
                family, f"{chosen.seed}-{number}-{kind}", ANSWERED if good else WRONG, kind=kind,
                error=error, below=low / error if error else 1.0,
                above=high / error if error else 1.0, seconds=seconds,
            )  # fmt: skip
            if not good:
                print("WRONG", chosen.seed, number, kind, low, error, high, flush=True)


if __name__ == "__main__":
    main()
