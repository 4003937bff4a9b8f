"""Quantities of an answer on a mesh: integrals, extrema, values at points, fluxes and forces.

Integrals are taken by quadrature, of the finite element functions themselves; inside elements
slopes and stresses are exact, at nodes and on boundaries recovered. What passes through a part of
the boundary is what is left there of the weak form,

    R_i = int K grad u . grad phi_i + (b . grad u + c u - f) phi_i - int_neumann g phi_i - ...,

the integral of n . K grad u phi_i over the parts where u is given, so that sources and fluxes,
loads and reactions balance to rounding (Carey 1982; Babuska and Miller 1984). At a node on two such
parts it is divided as the integrals of phi_i over them are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import measures
from sciml.core.problem.equation import (
    Elasticity,
    Equation,
    Hyperelasticity,
    NavierStokes,
    Stokes,
    System,
)
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh, sample
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import (
    Quadrature,
    load,
    on_facets,
    pulled_back,
    slopes,
    whole,
)
from sciml.core.problem.reader import (
    NO_TIME,
    NORMAL,
    Compiled,
    Context,
    Normal,
    compile,
    state_names,
)
from sciml.core.run.quantities import Measure, Measurement, Prepare, Quantity
from sciml.discretization.elements import recovery
from sciml.discretization.elements.boundary import Side, facets_of, scatter, sides
from sciml.discretization.elements.data import evaluate, mesh_data
from sciml.discretization.elements.elasticity import (
    STRESSES,
    at_points,
    nodal_stress,
    stress_at,
    stresses,
    traction,
)
from sciml.discretization.elements.general import Galerkin
from sciml.discretization.elements.scalar import streamline

_KEY = "problem.equation"


@measures(Equation, Mesh)
@measures(System, Mesh)
@measures(NavierStokes, Mesh)
@measures(Stokes, Mesh)
@measures(Hyperelasticity, Mesh)
def measures_on_mesh(problem: Problem, mesh: Mesh) -> Prepare:
    """How quantities are measured; raises InputError for one that means nothing here."""
    return partial(_of_form, problem, mesh, Shared(problem, mesh))


@measures(Elasticity, Mesh)
def measures_of_solid(problem: Problem, mesh: Mesh) -> Prepare:
    """The same of an elastic body, which has stresses and forces."""
    return partial(_of_solid, problem, mesh, Shared(problem, mesh))


class Shared:
    """What several quantities of one problem need, made when the first of them does."""

    def __init__(self, problem: Problem, mesh: Mesh) -> None:
        self.problem, self.mesh = problem, mesh

    @cached_property
    def form(self) -> Galerkin:
        """The weak form."""
        return Galerkin(self.problem, self.mesh)


def _of_form(problem: Problem, mesh: Mesh, shared: Shared, quantity: Quantity, key: str) -> Measure:
    if quantity.force is not None:
        return _pushed(shared, quantity.force, quantity.on or "", key)
    if quantity.flux is None:
        return _pointwise(problem, mesh, quantity, key, ())
    made = shared.form
    carried = [b.name for b in made.balances if not b.pushes and not b.floating]
    if quantity.flux not in carried:
        known = f"there is {', '.join(carried)}" if carried else "there is none"
        raise InputError(
            f"there is no field '{quantity.flux}' that flows; {known}; what a flow carries through "
            "a side is {integral: u*nx + v*ny, on: side}",
            f"{key}.flux",
        )
    facets_of(problem, mesh_data(problem, mesh), quantity.on or "", f"{key}.on")
    leaving = leaves(made, quantity.on or "", quantity.flux, _stabilised(problem, mesh))
    return lambda value, t: Measurement(leaving(value, made.instant(t)))


def _pushed(shared: Shared, direction: tuple[float, ...], on: str, key: str) -> Measure:
    """A direction times the force: of a flow on a part, on a solid at a part."""
    made = shared.form
    pushing = [b for b in made.balances if b.pushes]
    if not pushing:
        raise InputError(
            "a force is of a flow, or of a solid; of other fields write flux: u", f"{key}.force"
        )
    if len(direction) != len(pushing):
        raise InputError(f"a direction here has {len(pushing)} components", f"{key}.force")
    if made.mesh.axisymmetric and direction[0] != 0:
        raise InputError(
            "what pushes a body of revolution is along the axis: force: [0, 1]", f"{key}.force"
        )
    facets_of(made.problem, made.data, on, f"{key}.on")
    parts = [
        (share * balance.pushes, leaves(made, on, balance.name))
        for share, balance in zip(direction, pushing, strict=True)
        if share
    ]

    def pushed(value: torch.Tensor, t: float | None) -> Measurement:
        total = torch.zeros((), dtype=torch.float64)
        for share, leaving in parts:
            total = total + share * leaving(value, made.instant(t))
        return Measurement(total)

    return pushed


def _stabilised(problem: Problem, mesh: Mesh) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What SUPG adds to the rest of the weak form, (*batch, nodes), of a value."""
    if not problem.linear or problem.equation.coefficient_form is not problem.equation:
        return None
    form, data, cells = problem.form, mesh_data(problem, mesh), whole(mesh, 2 * mesh.degree)
    stream = streamline(form, cells, data)
    if stream is None:
        return None
    f = evaluate(form.f, cells, data, f"{_KEY}.f")
    return lambda value: scatter(stream.residual(value, cells, f), cells.nodes, mesh.shape[0])


def leaves(
    made: Galerkin,
    on: str,
    name: str,
    added: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """How much of a field leaves through a part, -int n . F, of a value and its time.

    ``added``: what was solved beside the weak form.
    """
    own = next(side for side in made.sides if side.name == on)
    given = [
        side
        for side in made.sides
        if side.condition.kind == "periodic" or made.stated[name, side.name].value is not None
    ]
    if own not in given:
        return lambda value, t: _known(made.passed(own, name, value, t))
    share, j, n = _share(own, given, made.mesh), made.names.index(name), len(made.names)

    def leaving(value: torch.Tensor, t: float) -> torch.Tensor:
        left = made.rest(value, t).unflatten(-1, (-1, n))[..., j]
        left = left if added is None else left + added(value)
        total: torch.Tensor = -(left * share).sum(-1)
        return total

    return leaving


def _known(found: torch.Tensor | None) -> torch.Tensor:
    assert found is not None
    return found


def _of_solid(
    problem: Problem, mesh: Mesh, shared: Shared, quantity: Quantity, key: str
) -> Measure:
    if quantity.flux is not None:
        raise InputError("of an elastic body write force: [1, 0], a direction", f"{key}.flux")
    if quantity.force is not None:
        if len(quantity.force) != mesh.dimension:
            raise InputError(f"a direction here has {mesh.dimension} components", f"{key}.force")
        facets_of(problem, mesh_data(problem, mesh), quantity.on or "", f"{key}.on")
        if problem.time is not None:
            return _pushed(shared, quantity.force, quantity.on or "", key)
        return lambda value, t: _force(problem, mesh, quantity, value)
    return _pointwise(problem, mesh, quantity, key, STRESSES)


def _pointwise(
    problem: Problem, mesh: Mesh, quantity: Quantity, key: str, others: tuple[str, ...]
) -> Measure:
    """Of an expression, which may name ``others`` too."""
    name = "of" if quantity.at is not None else quantity.kind
    fields = problem.equation.fields(mesh.dimension, problem.first)
    what = fields[0] if quantity.what is None else quantity.what
    read = _read(
        what, problem, mesh, f"{key}.{name}", normal=quantity.on is not None, others=others
    )
    if quantity.at is not None:
        return _at(problem, mesh, quantity, read, key)
    part = _part(problem, mesh, quantity, key)
    if quantity.kind in ("max", "min"):
        return lambda value, t: _extremum(quantity.kind, problem, mesh, part, read, value, t)

    def integrated(value: torch.Tensor, t: float | None) -> Measurement:
        values = read.at(part.points, _values(read, problem, mesh, part, value, t))
        total = (values * part.measure).sum((-2, -1))
        return Measurement(total / part.measure.sum() if quantity.kind == "mean" else total)

    return integrated


def _part(problem: Problem, mesh: Mesh, quantity: Quantity, key: str) -> Quadrature:
    """The facets of a boundary, the elements of a subdomain, or all of them."""
    degree = 2 * mesh.degree + 2
    if quantity.on is not None:
        facets = facets_of(problem, mesh_data(problem, mesh), quantity.on, f"{key}.on")
        return on_facets(mesh, facets, degree)
    cells = whole(mesh, degree)
    if quantity.region is None:
        return cells
    known = mesh.subdomains
    if quantity.region not in known:
        tail = did_you_mean(quantity.region, known)
        raise InputError(
            f"the mesh has no subdomain '{quantity.region}'"
            + (
                tail if "did you mean" in tail else f"; it has {', '.join(sorted(known)) or 'none'}"
            ),
            f"{key}.region",
        )
    return cells.of(torch.from_numpy(np.asarray(known[quantity.region], dtype=np.int64)))


# --- Expressions ----------------------------------------------------------------------------------


def _read(
    what: Any, problem: Problem, mesh: Mesh, key: str, normal: bool, others: tuple[str, ...]
) -> Compiled:
    data, d = mesh_data(problem, mesh), mesh.dimension
    refused = {"t": NO_TIME}
    if not normal:
        refused |= dict.fromkeys(NORMAL, "the outward normal is known on a boundary only")
    context = Context(
        AXES[:d],
        timed=data.time is not None,
        state=state_names(problem.equation.fields(d), AXES[:d]),
        parameters=tuple(data.parameters),
        others=(*(NORMAL[:d] if normal else ()), *others),
        tables=tuple(data.tables.items()),
        refused=tuple(refused.items()),
    )
    return compile(what, context, key)


def _fields(problem: Problem, mesh: Mesh, value: torch.Tensor) -> dict[str, torch.Tensor]:
    names = problem.equation.fields(mesh.dimension, problem.first)
    parts = value.unbind(-2) if len(names) > 1 else (value,)
    return dict(zip(names, parts, strict=True))


def _values(
    read: Compiled,
    problem: Problem,
    mesh: Mesh,
    part: Quadrature,
    value: torch.Tensor,
    t: float | None,
) -> dict[str, torch.Tensor]:
    """What an expression may name, at a part's points, (*batch, k, Q)."""
    inside = part.inverse is not None
    data, found = mesh_data(problem, mesh), {}
    for name, nodal in _fields(problem, mesh, value).items():
        found[name] = part.at_points(nodal)
        wanted = [a for a in range(mesh.dimension) if f"{name}{AXES[a]}" in read.names]
        if not wanted:
            continue
        known = (
            slopes(part, nodal) if inside else part.at_points(_nodal_slopes(problem, mesh, nodal))
        )
        for a in wanted:
            found[f"{name}{AXES[a]}"] = known.select(-3, a)
    if read.names & set(STRESSES):
        sigma = (
            stress_at(problem, part, data, value)
            if inside
            else _on_facets(part, nodal_stress(problem, mesh, value))
        )
        found |= stresses(sigma)
    found |= {n: p[..., None, None] if p.ndim else p for n, p in data.parameters.items()}
    found |= _instant(t)
    return {n: v for n, v in {**found, **part.normal}.items() if n in read.names}


def _instant(t: float | None) -> dict[str, torch.Tensor]:
    return {} if t is None else {"t": torch.tensor(t, dtype=torch.float64)}


def _on_facets(part: Quadrature, nodal: torch.Tensor) -> torch.Tensor:
    """Tensors at nodes (*batch, nodes, 3, 3) to the points of facets (*batch, k, Q, 3, 3)."""
    return part.at_points(nodal.movedim(-3, -1)).movedim((-4, -3), (-2, -1))


def _nodal_slopes(problem: Problem, mesh: Mesh, nodal: torch.Tensor) -> torch.Tensor:
    return recovery.nodal_slopes(mesh, nodal, recovery.materials(mesh, problem.equation))


def _at_nodes(
    read: Compiled, problem: Problem, mesh: Mesh, value: torch.Tensor, t: float | None
) -> dict[str, torch.Tensor]:
    """The same at the nodes, (*batch, nodes)."""
    data, found = mesh_data(problem, mesh), {}
    for name, nodal in _fields(problem, mesh, value).items():
        found[name] = nodal
        wanted = [a for a in range(mesh.dimension) if f"{name}{AXES[a]}" in read.names]
        if wanted:
            slope = _nodal_slopes(problem, mesh, nodal)
            found |= {f"{name}{AXES[a]}": slope[..., a, :] for a in wanted}
    if read.names & set(STRESSES):
        found |= stresses(nodal_stress(problem, mesh, value))
    found |= {n: p[..., None] if p.ndim else p for n, p in data.parameters.items()}
    found |= _instant(t)
    return {n: v for n, v in found.items() if n in read.names}


def _extremum(
    kind: str,
    problem: Problem,
    mesh: Mesh,
    part: Quadrature,
    read: Compiled,
    value: torch.Tensor,
    t: float | None,
) -> Measurement:
    index = torch.unique(part.nodes)
    points = tuple(x[index] for x in mesh.coordinates())
    known = _at_nodes(read, problem, mesh, value, t)
    there = {n: v[..., index] if v.ndim and v.shape[-1] > 1 else v for n, v in known.items()}
    if part.normal:
        there |= {n: _mean_normal(part, v, index, mesh) for n, v in part.normal.items()}
    values = read.at(points, {n: v for n, v in there.items() if n in read.names})
    values = values.expand(torch.broadcast_shapes(values.shape, points[0].shape))
    place = values.argmax(-1) if kind == "max" else values.argmin(-1)
    found = values.gather(-1, place[..., None])[..., 0]
    return Measurement(found, torch.stack([x[place] for x in points], -1))


def _mean_normal(
    part: Quadrature, component: torch.Tensor, index: torch.Tensor, mesh: Mesh
) -> torch.Tensor:
    """A component of the facets' normals at their nodes, the mean by area, not of length 1."""
    weights = scatter(load(part, torch.ones(1, 1)), part.nodes, mesh.shape[0])
    total = scatter(load(part, component), part.nodes, mesh.shape[0])
    safe = torch.where(weights.abs() > 0, weights, 1.0)
    return (total / safe)[index]


def _at(problem: Problem, mesh: Mesh, quantity: Quantity, read: Compiled, key: str) -> Measure:
    point = torch.tensor([quantity.at], dtype=torch.float64)
    if point.shape[1] != mesh.dimension:
        raise InputError(
            f"a point here has {mesh.dimension} coordinates; got {point.shape[1]}", f"{key}.at"
        )
    try:
        sample(mesh, torch.zeros(mesh.shape, dtype=torch.float64), point)
    except InputError:
        listed = ", ".join(f"{x:g}" for x in quantity.at or ())
        raise InputError(f"({listed}) lies outside the mesh", f"{key}.at") from None

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        known = {
            name: v if v.ndim == 0 or v.shape[-1] == 1 else sample(mesh, v, point)
            for name, v in _at_nodes(read, problem, mesh, value, t).items()
        }
        found = read.at(tuple(point.T), known)
        return Measurement(found.expand(torch.broadcast_shapes(found.shape, (1,)))[..., 0])

    return measured


# --- What passes through a part -------------------------------------------------------------------


def _tested(cells: Quadrature, carried: torch.Tensor) -> torch.Tensor:
    """int q . grad phi_i for q (*batch, k, Q, d), local: (*batch, k, N)."""
    inner = pulled_back(cells, carried)
    return torch.einsum("...kql,kq,qil->...ki", inner, cells.measure, cells.tables.slopes)


def _share(own: Side, parts: list[Side], mesh: Mesh) -> torch.Tensor:
    """Of every node's rest, what belongs to a part among those, ``parts``, where u is given."""
    one = torch.ones(1, 1, dtype=torch.float64)
    weights = {
        side.name: scatter(load(side.facets, one), side.facets.nodes, mesh.shape[0])
        for side in parts
    }
    touched = {
        name: torch.zeros(mesh.shape, dtype=torch.bool).index_fill(
            0, torch.unique(next(s for s in parts if s.name == name).facets.nodes), True
        )
        for name in weights
    }
    # A P2 vertex has no integral of its own on a facet in 3-D: there parts share alike.
    size = {
        n: torch.where(w.abs() > 1e-14, w.abs(), 1e-14 * touched[n]) for n, w in weights.items()
    }
    total = torch.stack(list(size.values())).sum(0)
    return torch.where(touched[own.name], size[own.name] / total.clamp(min=1e-300), 0.0)


def _force(problem: Problem, mesh: Mesh, quantity: Quantity, value: torch.Tensor) -> Measurement:
    """A direction times the traction that acts on the body at a part."""
    equation, data, d = problem.equation_as(Elasticity), mesh_data(problem, mesh), mesh.dimension
    direction = torch.tensor(quantity.force, dtype=torch.float64)
    parts = sides(problem, data)
    own = next(side for side in parts if side.name == quantity.on)
    tractions = {
        side.name: traction(side, data, value)
        for side in parts
        if side.condition.kind in ("neumann", "robin")
    }
    if own.name in tractions:
        total = (tractions[own.name] * own.facets.measure[..., None]).sum((-3, -2))
        return Measurement(total @ direction)
    cells = whole(mesh, 2 * mesh.degree)
    sigma = stress_at(problem, cells, data, value)
    body = at_points(equation.force or (0.0,) * d, cells, data, f"{_KEY}.force")
    rows = []
    for a in range(d):
        local = _tested(cells, sigma[..., a, :d]) - load(cells, body[..., a])
        if a == 0 and cells.around is not None:
            local = local + load(cells, sigma[..., 2, 2] / cells.points[0])
        left = scatter(local, cells.nodes, mesh.shape[0])
        for side in parts:
            if side.name in tractions:
                pull = load(side.facets, tractions[side.name][..., a])
                left = left - scatter(pull, side.facets.nodes, mesh.shape[0])
        rows.append(left)
    given = [side for side in parts if side.name not in tractions]
    carried = _carried(own, given, mesh) @ torch.stack(rows, -1)[..., None]
    return Measurement((carried[..., 0] @ direction).sum(-1))


def _carried(own: Side, given: list[Side], mesh: Mesh) -> torch.Tensor:
    """What one of the sides that hold a body carries of the force at every node, (nodes, d, d).

    With the projections P_s on the directions in which the sides hold it and their shares w_s of
    the node, w P (sum_s w_s P_s)^+: what only one side can carry is its own.
    """
    d, total, mine = mesh.dimension, torch.zeros(()), torch.zeros(())
    for side in given:
        nodes, value = side.nodes.nodes[:, 0], side.condition.dirichlet
        if isinstance(value, Normal):
            normal = torch.cat(list(side.nodes.normal.values()), -1)
            holds = normal[:, :, None] * normal[:, None, :]
        else:
            free = value if isinstance(value, (list, tuple)) else (0.0,) * d
            held = torch.tensor([entry is not None for entry in free], dtype=torch.float64)
            holds = torch.diag(held).expand(len(nodes), d, d)
        weighted = _share(side, given, mesh)[nodes][:, None, None] * holds
        part = torch.zeros(mesh.shape[0], d, d, dtype=torch.float64).index_add(0, nodes, weighted)
        total, mine = total + part, part if side is own else mine
    found: torch.Tensor = mine @ torch.linalg.pinv(total, hermitian=True)
    return found
