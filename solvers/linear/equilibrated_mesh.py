"""How far a finite element function is from the solution of the differential equation.

As on grids (:mod:`sciml.solvers.linear.equilibrated`, whose notation this is), with the fluxes s of
the mixed method on the same mesh, of degree 0 beside P1 and 1 beside P2
(:mod:`sciml.discretization.elements.balance`). The constants: Poincare's of a convex element of
diameter h is h / pi (Payne and Weinberger 1960), C = h / (pi K_min^(1/2)), and on a facet of height
H, since div((x - a) w^2) = d w^2 + 2 w (x - a) . grad w and (x - a) . n is H on it,

    |w|_F^2 <= (d C^2 + 2 h C / K_min^(1/2)) / H  |K^(1/2) grad w|^2     for w without mean.

What v misses of Dirichlet data in the plane, delta on the edge opposite to a corner a, is extended
along the rays from a, psi = s delta(y) at x = a + s (y - a): it vanishes on the other edges where
delta does at the ends, and its energy is that of

    grad psi = (delta - m delta') / H n + delta' tau,    m = (y - a) . tau.

Below, the residual of v is tested with the solution of the next order: P2 on the mesh of v in P1,
P2 on the mesh whose edges are halved of v in P2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sciml.core.algebra.maps import LinearSystem, SparseMatrix
from sciml.core.errors import InputError
from sciml.core.problem.mesh import Mesh, basis_at, reference, refined
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import Quadrature, at_facet_nodes
from sciml.core.problem.reader import Regions, compile
from sciml.core.run.certificate import PdeCertificate, relative
from sciml.core.run.solution import Solution
from sciml.discretization import discretize
from sciml.discretization.elements.balance import (
    Balance,
    Elements,
    Facets,
    elements_of,
    multipliers,
)
from sciml.discretization.elements.data import evaluate
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct, affordable
from sciml.solvers.linear.krylov import CG

_KEY = "problem.equation"
_EPS = 16 * float(np.finfo(np.float64).eps)
_CANDIDATE, _BALANCED = 1e-6, 1e-12  # rtol of the function to test with, and of the fluxes
_MEETS = 1e-9  # of the data's size, by which Dirichlet data of two sides may differ where they meet


@torch.no_grad()
def certify_on_mesh(v: Any, problem: Problem, mesh: Mesh) -> PdeCertificate:
    """Two-sided bounds of |u - v|_E; ``v``: values (*batch, nodes), its Dirichlet values set.

    Raises InputError where the bound is not known: curved or axisymmetric meshes, quadrilaterals
    and hexahedra, point and line sources, sides within the mesh, periodic ones, batches of
    problems.
    """
    here = bounded_elements(problem, mesh)
    values = _values(v, here)
    missed = _missed(values, here)
    trial = _Trial(here, values + missed.at_nodes)
    upper = _upper(trial, _flux(here), missed)
    low = torch.zeros(values.shape[:-1], dtype=torch.float64)
    if not missed.reason:
        low = _tested(trial, *_finer(trial, problem, mesh))
    return _certificate(trial, upper, low, missed)


def bounded_elements(problem: Problem, mesh: Mesh) -> Elements:
    """The elements of a problem that has a bound; raises InputError as :func:`certify_on_mesh`."""
    _refuse(problem, mesh)
    here = elements_of(problem, mesh)
    _check(here)
    return here


def _refuse(problem: Problem, mesh: Mesh) -> None:
    def no(what: str, key: str) -> InputError:
        return InputError(f"the certificate of the differential equation {what}", key)

    if not mesh.kind.simplex or mesh.middles is not None:
        raise no(
            f"is for meshes of straight simplices; these are "
            f"{'curved' if mesh.kind.simplex else mesh.kind.plural}",
            "mesh",
        )
    if mesh.dimension < 2 or mesh.axisymmetric:
        raise no("is for meshes of two and three dimensions that are no half sections", "mesh")
    if mesh.supports and any(name in problem.boundary for name in mesh.supports):
        raise no("knows no sources and supports at points and lines", "problem.boundary")
    for name, condition in problem.boundary.items():
        if condition.kind not in ("dirichlet", "neumann", "robin"):
            raise no(f"has no {condition.kind} sides on meshes", f"problem.boundary.{name}")


def _check(here: Elements) -> None:
    """Raise InputError for what has no energy norm."""
    if bool((here.c < 0).any()):
        raise InputError(
            "the energy norm needs c of at least 0, and it is negative somewhere", f"{_KEY}.c"
        )
    if bool(((here.c > 0).any(-1) & (here.c == 0).any(-1)).any()):
        raise InputError(
            "c must be positive, or zero, in the whole of an element; let it change on facets",
            f"{_KEY}.c",
        )
    outer = here.mesh.topology.boundary_facets()
    for facets in here.facets:
        key = facets.side.place
        if not np.isin(facets.numbers, outer).all():
            raise InputError(
                "the certificate of the differential equation knows no sides within the mesh", key
            )
        if facets.side.condition.kind != "robin":
            continue
        alpha = facets.flux()[0]
        if bool((alpha < 0).any()):
            raise InputError("the energy norm needs alpha of at least 0", f"{key}.robin.alpha")
        if bool(((alpha > 0).any(-1) & (alpha == 0).any(-1)).any()):
            raise InputError(
                "alpha must be positive, or zero, on the whole of a facet; let it change at "
                "vertices", f"{key}.robin.alpha",
            )  # fmt: skip


def _values(v: Any, here: Elements) -> torch.Tensor:
    value = torch.as_tensor(v.value if isinstance(v, Solution) else v).detach().cpu().double()
    count = here.mesh.shape[0]
    if value.shape[-1:] != (count,):
        raise InputError(
            f"v has shape {list(value.shape)}; it needs the mesh's [{count}] nodes, any batch "
            "dimensions first"
        )
    if not bool(torch.isfinite(value).all()):
        raise InputError("v holds a NaN or an infinity")
    return value


# --- The function that is judged ------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """v in the elements: ``values`` (*batch, nodes)."""

    here: Elements
    values: torch.Tensor

    @cached_property
    def inside(self) -> torch.Tensor:
        """At the quadrature points, (*batch, m, Q)."""
        return self.here.part.at_points(self.values)

    @cached_property
    def slopes(self) -> torch.Tensor:
        """(*batch, m, Q, d)."""
        part = self.here.part
        assert part.inverse is not None
        local = torch.einsum("...mn,qnl->...mql", self.values[..., part.nodes], part.tables.slopes)
        return local @ part.inverse[:, 0]

    @cached_property
    def energy(self) -> torch.Tensor:
        """|v|_E^2, (*batch,)."""
        steep = (self.slopes * (self.here.K @ self.slopes[..., None])[..., 0]).sum(-1)
        total = self.here.integral(steep + self.here.c * self.inside.square()).sum(-1)
        for facets in self.here.facets:
            if facets.side.condition.kind == "robin":
                alpha, value = facets.flux()[0], facets.part.at_points(self.values)
                total = total + _over(facets.part, alpha * value.square()).sum(-1)
        return total


def _over(part: Quadrature, inner: torch.Tensor) -> torch.Tensor:
    """Integrals over facets, (*lead, k)."""
    return (inner * part.scale * part.tables.weights).sum(-1)


@dataclass(frozen=True)
class _Missed:
    """What v misses of Dirichlet data: ``at_nodes`` (*batch, nodes), zero elsewhere.

    ``layers``: the energy norm in every element of what is left between the nodes, carried inside,
    (m,). ``reason``: why there is none.
    """

    at_nodes: torch.Tensor
    layers: torch.Tensor
    reason: str = ""


def _missed(values: torch.Tensor, here: Elements) -> _Missed:
    """The Dirichlet values put in at the nodes, and what is left between them."""
    mesh = here.mesh
    wanted = torch.zeros(mesh.shape[0], dtype=torch.float64)
    seen = torch.zeros(mesh.shape[0], dtype=torch.bool)
    held = [f for f in here.facets if f.side.condition.kind == "dirichlet"]
    for facets in held:
        own = at_facet_nodes(mesh, facets.numbers)
        g = evaluate(facets.side.condition.dirichlet, own, facets.data, facets.side.key)
        g, nodes = g.expand(own.nodes.shape).flatten(), own.nodes.flatten()
        size = float(g.abs().max()) if len(g) else 0.0
        known = seen[nodes]
        if bool((known & ((wanted[nodes] - g).abs() > _MEETS * size)).any()):
            return _Missed(
                torch.zeros_like(values), torch.zeros_like(here.volume),
                "the data of two Dirichlet sides differ where they meet: no solution has finite "
                "energy",
            )  # fmt: skip
        wanted[nodes], seen[nodes] = g, True
    change = torch.where(seen, wanted - values, 0.0)
    layers = torch.zeros_like(here.volume)
    for facets in held:
        left = facets.held() - facets.part.at_points(wanted)
        size = float(facets.held().abs().max())
        if float(left.abs().max()) <= _MEETS * size:
            continue
        if here.dimension != 2:
            return _Missed(
                change, layers, "Dirichlet data in space that are no polynomials of the elements "
                "are not carried inside yet",
            )  # fmt: skip
        # Of an element with two such edges the extensions overlap: norms are added, not squares.
        layers = layers.index_add(0, facets.owner, _layer(facets, wanted, here).sqrt())
    return _Missed(change, layers)


def _layer(facets: Facets, wanted: torch.Tensor, here: Elements) -> torch.Tensor:
    """The energies of what is left of the data between the nodes of a side in the plane, (k,)."""
    mesh = here.mesh
    corners = torch.from_numpy(mesh.topology.facets[:, facets.numbers].T.astype(np.int64))
    ends = torch.from_numpy(mesh.points)[corners]
    length = (ends[:, 1] - ends[:, 0]).norm(dim=-1)
    along = (ends[:, 1] - ends[:, 0]) / length[:, None]
    owner = facets.owner
    inside = torch.from_numpy(mesh.points[mesh.cells])[owner].sum(1) - ends.sum(1)
    K = torch.linalg.eigvalsh(here.K)[..., -1].amax(-1)[owner]
    c = here.c.amax(-1)[owner]
    t, weights, slope = _lobatto()
    data, key = facets.data, facets.side.key
    x = ends[:, :1] + t[:, None] * (ends[:, 1:] - ends[:, :1])
    normal = {n: value.expand(-1, 1) for n, value in facets.part.normal.items()}
    place = replace(facets.part, points=tuple(x.unbind(-1)), normal=normal)
    g = evaluate(facets.side.condition.dirichlet, place, data, key).expand(x.shape[:-1])
    nodes = torch.from_numpy(mesh.facet_nodes(facets.numbers).astype(np.int64))
    delta = g - _on_edge(wanted[nodes], t)
    steep = delta @ slope.T / length[:, None]
    away = x - inside[:, None]
    m = (away * along[:, None]).sum(-1)
    height = (away - m[..., None] * along[:, None]).norm(dim=-1)
    square = steep.square() + ((delta - m * steep) / height).square()
    total = height * (K[:, None] * square / 2 + c[:, None] * delta.square() / 4)
    energies: torch.Tensor = (total * weights).sum(-1) * length
    return energies


def _on_edge(values: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A polynomial by its nodes (k, 2 or 3), the ends first, at t of [0, 1], (k, len(t))."""
    if values.shape[1] == 2:
        return values @ torch.stack([1 - t, t])
    return values @ torch.stack([(1 - t) * (1 - 2 * t), t * (2 * t - 1), 4 * t * (1 - t)])


def _lobatto() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points of Gauss and Lobatto of [0, 1], weights, and the matrix of their slopes."""
    near = 0.5 - math.sqrt(3 / 28)
    t = torch.tensor([0.0, near, 0.5, 1 - near, 1.0], dtype=torch.float64)
    weights = torch.tensor([1 / 20, 49 / 180, 16 / 45, 49 / 180, 1 / 20], dtype=torch.float64)
    powers = torch.stack([t**k for k in range(5)], 1)
    steep = torch.stack([k * t ** max(k - 1, 0) for k in range(5)], 1)
    return t, weights, steep @ torch.linalg.inv(powers)


# --- Above ----------------------------------------------------------------------------------------


def _flux(here: Elements) -> Balance:
    system = multipliers(here)
    solver = Direct() if affordable(system.A) else CG(preconditioner=AMG(), rtol=_BALANCED)
    w = _solved(system.A, system.b, solver)
    rest = system.b - system.A.apply(w)
    z = _solved(system.A, rest, solver) if bool((rest != 0).any()) else rest
    return system.balance(w, float((rest * z).sum().abs().sqrt()))


def _solved(A: SparseMatrix, b: torch.Tensor, solver: Any) -> torch.Tensor:
    found: torch.Tensor = solver.run(solver.init(LinearSystem(A, b))).value
    return found


@dataclass(frozen=True)
class _Upper:
    """The parts of the bound, (*batch, m) each; ``rounding`` (*batch,)."""

    flux: torch.Tensor
    oscillation: torch.Tensor
    reaction: torch.Tensor
    rounding: torch.Tensor


def _upper(trial: _Trial, flux: Balance, missed: _Missed) -> _Upper:
    here = trial.here
    least = torch.linalg.eigvalsh(here.K)[..., 0].amin(-1)
    s = flux.inside
    apart = s - (here.K @ trial.slopes[..., None])[..., 0]
    soft = torch.linalg.solve(here.K, apart[..., None])[..., 0]
    gap = here.integral((apart * soft).sum(-1)).clamp(min=0).sqrt()
    R = here.f - here.c * trial.inside + flux.divergence
    mean = here.mean(R)
    swing = here.integral((R - mean[..., None]).square()).clamp(min=0).sqrt()
    C = here.diameters / (math.pi * least.sqrt())
    c_least = here.c.amin(-1)
    by_c = torch.where(c_least > 0, c_least, 1.0).rsqrt()
    oscillation = torch.where(c_least > 0, torch.minimum(C, by_c), C) * swing
    reaction = torch.where(c_least > 0, here.volume * mean.square() * by_c.square(), 0.0)
    for facets in here.facets:
        if facets.side.condition.kind == "dirichlet":
            continue
        owner = facets.owner
        first, second = _on_side(trial, flux, facets, owner, C, least)
        oscillation, reaction = _added(oscillation, owner, first), _added(reaction, owner, second)
    own = here.integral((s * torch.linalg.solve(here.K, s[..., None])[..., 0]).sum(-1)).sum()
    rounding = flux.lost + _unheld(here) + _EPS * float(own.sqrt()) + _EPS * trial.energy.sqrt()
    return _Upper(gap, oscillation, reaction.sqrt(), rounding)


def _unheld(here: Elements) -> float:
    """What quadrature may do to a constant that c and alpha alone hold, however weak they are."""
    if any(f.side.condition.kind == "dirichlet" for f in here.facets):
        return 0.0
    held = _held(here)
    if held == 0:
        return 0.0
    brought = [
        float(e.integral(e.f).sum())
        + sum(float(_over(f.part, f.flux()[1]).sum()) for f in e.facets)
        for e in (here, elements_of(here.problem, here.mesh, better=True))
    ]
    return abs(brought[0] - brought[1]) / math.sqrt(held)


def _added(total: torch.Tensor, owner: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """With what belongs to the elements ``owner``, batches of either broadcast."""
    lead = torch.broadcast_shapes(total.shape[:-1], part.shape[:-1])
    total, part = total.expand(*lead, -1), part.expand(*lead, -1)
    return total.index_add(-1, owner, part)


def _on_side(
    trial: _Trial,
    flux: Balance,
    facets: Facets,
    owner: torch.Tensor,
    C: torch.Tensor,
    least: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a Neumann or Robin side adds to O and to B^2, (*batch, k) each."""
    here, part = trial.here, facets.part
    alpha, h = facets.flux()
    left = h - alpha * part.at_points(trial.values) - flux.through(facets)
    mean = part.mean(left)
    swing = _over(part, (left - mean[..., None]).square()).clamp(min=0).sqrt()
    which = here.mesh.topology.t2f[:, owner.numpy()] == facets.numbers
    height = here.heights[owner, torch.from_numpy(which.argmax(0))]
    K, own = least[owner].sqrt(), C[owner]
    trace = (here.dimension * own.square() + 2 * here.diameters[owner] * own / K) / height
    softest = alpha.amin(-1)
    by_alpha = torch.where(softest > 0, 1 / torch.where(softest > 0, softest, 1.0), 0.0)
    # alpha bears what is left of the mean, and the rest too where that costs less than the trace.
    borne = (by_alpha > 0) & (by_alpha < trace)
    square = facets.area * mean.square() + torch.where(borne, swing.square(), 0.0)
    return torch.where(borne, 0.0, trace.sqrt() * swing), by_alpha * square


# --- Below ----------------------------------------------------------------------------------------


def _finer(trial: _Trial, problem: Problem, mesh: Mesh) -> tuple[Elements, torch.Tensor]:
    """A richer mesh's elements, and v on its nodes."""
    if mesh.degree == 1:
        fine = replace(mesh, element="P2")
        middles = [trial.values[..., torch.from_numpy(p)].mean(-1) for p in fine.parents]
        values = torch.cat([trial.values, *middles], -1)
        return elements_of(problem, fine), values
    fine = refined(mesh)
    values = trial.values.new_zeros(*trial.values.shape[:-1], fine.shape[0])
    coarse = trial.values[..., torch.from_numpy(mesh.cell_nodes.astype(np.int64))]
    inverse = trial.here.part.inverse
    assert inverse is not None
    start, count = mesh.points[mesh.cells[:, 0]], len(mesh.cells)
    for k in range(len(mesh.kind.children)):
        nodes = fine.cell_nodes[k * count : (k + 1) * count]
        away = fine.nodes[nodes] - start[:, None]
        X = np.einsum("mla,mna->lmn", inverse[:, 0].numpy(), away)
        basis = torch.from_numpy(basis_at(reference(mesh), X.reshape(len(X), -1))[0].copy())
        shares = basis.unflatten(0, nodes.shape)
        found = torch.einsum("...mi,mni->...mn", coarse, shares)
        values[..., torch.from_numpy(nodes.astype(np.int64)).flatten()] = found.flatten(-2)
    return elements_of(problem, fine), values


def _tested(trial: _Trial, fine: Elements, v: torch.Tensor) -> torch.Tensor:
    """The residual of v tested with the finer solution less v, over its energy norm."""
    system = discretize(fine.problem, fine.mesh)
    solver = Direct() if affordable(system.A) else CG(preconditioner=AMG(), rtol=_CANDIDATE)
    found = solver.run(solver.init(system)).value
    w = found - v
    for facets in fine.facets:
        if facets.side.condition.kind == "dirichlet":
            w = w.index_fill(-1, facets.part.nodes.flatten(), 0.0)
    finer = elements_of(fine.problem, fine.mesh, better=True)
    trials = [w]
    if _held(fine) > 0 and all(f.side.condition.kind != "dirichlet" for f in fine.facets):
        # Without its mean w says nothing of a constant that is hardly held.
        trials.append(w - _mean(_Trial(fine, w))[..., None])
    return torch.stack([_quotient(_Trial(fine, v), _Trial(fine, u), finer) for u in trials]).amax(0)


def _mean(trial: _Trial) -> torch.Tensor:
    """By the weights c and alpha, (*batch,)."""
    here = trial.here
    total = here.integral(here.c * trial.inside).sum(-1)
    for facets in here.facets:
        if facets.side.condition.kind == "robin":
            alpha = facets.flux()[0]
            total = total + _over(facets.part, alpha * facets.part.at_points(trial.values)).sum(-1)
    return total / _held(here)


def _held(here: Elements) -> float:
    """The integral of c and alpha."""
    return float(here.integral(here.c).sum()) + sum(
        float(_over(f.part, f.flux()[0]).sum())
        for f in here.facets
        if f.side.condition.kind == "robin"
    )


def _quotient(old: _Trial, new: _Trial, finer: Elements) -> torch.Tensor:
    """The residual of ``old`` tested with ``new`` over its norm, less what integration may err.

    ``finer``: the same elements with a better rule.
    """
    along, size = _residual(old, new)
    better, _ = _residual(replace(old, here=finer), replace(new, here=finer))
    wrong = 2 * (along - better).abs() + _EPS * size
    low = (better.abs() - wrong).clamp(min=0) / new.energy.clamp(min=1e-300).sqrt()
    return torch.where(new.energy > 0, low, torch.zeros_like(low))


def _residual(old: _Trial, new: _Trial) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual of ``old`` tested with ``new``, and the sum of the sizes of its parts."""
    fine = old.here
    parts = [
        fine.f * new.inside,
        -fine.c * old.inside * new.inside,
        -(new.slopes * (fine.K @ old.slopes[..., None])[..., 0]).sum(-1),
    ]
    along: Any = sum(fine.integral(p).sum(-1) for p in parts)
    size: Any = sum(fine.integral(p.abs()).sum(-1) for p in parts)
    for facets in fine.facets:
        if facets.side.condition.kind != "dirichlet":
            alpha, h = facets.flux()
            value, tested = (facets.part.at_points(u.values) for u in (old, new))
            left = (h - alpha * value) * tested
            along = along + _over(facets.part, left).sum(-1)
            size = size + _over(facets.part, left.abs()).sum(-1)
    return along, size


# --- Together -------------------------------------------------------------------------------------


def _certificate(
    trial: _Trial, upper: _Upper, low: torch.Tensor, missed: _Missed
) -> PdeCertificate:
    square = (upper.flux + upper.oscillation).square() + upper.reaction.square()
    cells = (square + missed.layers.square()).sqrt()
    high = (cells.square().sum(-1).sqrt() + upper.rounding) * (1 + _EPS)
    if missed.reason:
        high = torch.full_like(high, math.inf)
    own = trial.energy.sqrt()
    notes = _jumping(trial.here)

    def part(values: torch.Tensor) -> torch.Tensor:
        return values.square().sum(-1).sqrt().expand(high.shape)

    return PdeCertificate(
        low.expand(high.shape),
        high,
        *relative(low, high, own),
        part(upper.flux),
        part(upper.oscillation),
        part(upper.reaction),
        part(missed.layers),
        upper.rounding.expand(high.shape),
        cells,
        notes,
        missed.reason,
    )


def _jumping(here: Elements) -> tuple[str, ...]:
    """What is said of coefficients that may jump, and are not constant in the elements."""
    form, notes = here.problem.form, []
    for name, values in (("K", here.K), ("c", here.c), ("f", here.f)):
        if bool((values[:, :1] != values).any()) and _may_jump(getattr(form, name), here, name):
            notes.append(f"{name} may jump, and inside elements, where no bound knows it")
    return tuple(notes)


def _may_jump(given: Any, here: Elements, name: str) -> bool:
    """Whether a text among the entries, or the regions, of a coefficient has a value that jumps."""
    if isinstance(given, Regions):
        return any(_may_jump(entry, here, name) for entry in given.regions.values())
    if isinstance(given, (list, tuple)):
        return any(_may_jump(entry, here, name) for entry in given)
    read = compile(given, here.data.context(here.part), f"{_KEY}.{name}")
    return bool(read.jumps)
