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

from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import measures, samples
from sciml.core.problem.equation import (
    Elasticity,
    Equation,
    Helmholtz,
    Hyperelasticity,
    NavierStokes,
    Plasticity,
    Stokes,
    System,
)
from sciml.core.problem.expression import CONSTANTS
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh, located, sample
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import (
    Quadrature,
    load,
    on_facets,
    pulled_back,
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
from sciml.core.run.derived import Derivation, components
from sciml.core.run.quantities import Measure, Measurement, Prepare, Quantity
from sciml.discretization.elements.boundary import Side, facets_of, scatter, sides
from sciml.discretization.elements.data import MeshData, mesh_data
from sciml.discretization.elements.derived import Inside, derive_on_mesh, gradient, insides
from sciml.discretization.elements.elasticity import at_points, stress_at, traction
from sciml.discretization.elements.galerkin import Galerkin
from sciml.discretization.elements.recovery import Recovery, around, materials

_KEY = "problem.equation"


@measures(Equation, Mesh)
@measures(System, Mesh)
@measures(NavierStokes, Mesh)
@measures(Stokes, Mesh)
@measures(Hyperelasticity, Mesh)
@measures(Plasticity, Mesh)
def measures_on_mesh(problem: Problem, mesh: Mesh) -> Prepare:
    """How quantities are measured; raises InputError for one that means nothing here."""
    return partial(_of_form, Shared(problem, mesh))


@measures(Elasticity, Mesh)
def measures_of_solid(problem: Problem, mesh: Mesh) -> Prepare:
    """The same of an elastic body, which has forces."""
    return partial(_of_solid, Shared(problem, mesh))


class Shared:
    """What several quantities of one problem need, made when the first of them does."""

    def __init__(self, problem: Problem, mesh: Mesh) -> None:
        self.problem, self.mesh = problem, mesh
        self.fields = problem.equation.fields(mesh.dimension, problem.first)

    @cached_property
    def form(self) -> Galerkin:
        """The weak form."""
        return Galerkin(self.problem, self.mesh)

    @cached_property
    def data(self) -> MeshData:
        """The evaluation context."""
        return mesh_data(self.problem, self.mesh)

    @cached_property
    def material(self) -> np.ndarray:
        """Between which elements coefficients jump."""
        return materials(self.mesh, self.problem.equation)

    @cached_property
    def recovery(self) -> Recovery:
        """How what is known inside the elements comes to the nodes."""
        return Recovery(self.mesh, self.material)

    @cached_property
    def insides(self) -> tuple[Inside, ...]:
        """What follows from the fields inside the elements, slopes of one field each first."""
        found = dict(insides(self.problem, self.mesh, lambda: self.form))
        d = self.mesh.dimension
        del found["gradient"]
        several = len(self.fields) > 1
        each = [gradient((name,), d, k if several else None) for k, name in enumerate(self.fields)]
        if "stress" in found and d == 2:
            found["across"] = Inside(("syz", "sxz"), _zeros)
        return (*each, *found.values())

    @cached_property
    def several(self) -> dict[str, str]:
        """By the names of derived fields with components, which are no numbers, what to write."""
        own = {*self.fields, *self.data.parameters, *self.data.tables}
        found = insides(self.problem, self.mesh)
        return components({k: how.components for k, how in found.items() if k not in own})

    @cached_property
    def derived(self) -> tuple[str, ...]:
        """The names of its components, as far as they mean nothing else."""
        taken = {*AXES, "t", *self.data.parameters, *self.data.tables}
        taken |= {*CONSTANTS, *state_names(self.fields, AXES)}
        names = [name for inside in self.insides for name in inside.components]
        names += self.nodal
        return tuple(dict.fromkeys(name for name in names if name not in taken))

    @cached_property
    def nodal(self) -> Mapping[str, Derivation]:
        """What is derived at the nodes themselves, one number each."""
        inside = insides(self.problem, self.mesh)
        found = derive_on_mesh(self.problem, self.mesh)
        return {name: how for name, how in found.items() if name not in inside}

    def known(
        self,
        read: Compiled,
        tail: int,
        of_field: Callable[[torch.Tensor], torch.Tensor],
        of_inside: Callable[[Inside], torch.Tensor],
        value: torch.Tensor,
        t: float | None,
    ) -> dict[str, torch.Tensor]:
        """What an expression may name, where points have ``tail`` dimensions.

        ``of_field``: nodal values (*batch, nodes) there; ``of_inside``: the entries (*batch, c,
        *points).
        """
        parts = value.unbind(-2) if len(self.fields) > 1 else (value,)
        found = {
            name: of_field(nodal)
            for name, nodal in zip(self.fields, parts, strict=True)
            if name in read.names
        }
        for inside in self.insides:
            if not read.names.isdisjoint(inside.components):
                own = inside.among(read.names)
                parts = own.reduced(of_inside(own), -1 - tail).unbind(-1 - tail)
                found |= dict(zip(own.components, parts, strict=True))
        found |= {
            name: of_field(self.nodal[name].value(value, t))
            for name in read.names.intersection(self.nodal)
        }
        found |= {
            name: p.reshape(*p.shape, *(1,) * tail) if p.ndim else p
            for name, p in self.data.parameters.items()
        }
        if t is not None:
            found["t"] = torch.tensor(t, dtype=torch.float64)
        return {name: v for name, v in found.items() if name in read.names}


def _zeros(part: Quadrature, value: torch.Tensor, t: float | None) -> torch.Tensor:
    """What a plane body has of stresses out of its plane."""
    return value.new_zeros(2, *part.points[0].shape, dtype=torch.float64)


def _of_form(shared: Shared, quantity: Quantity, key: str) -> Measure:
    problem = shared.problem
    if quantity.force is not None:
        return _pushed(shared, quantity.force, quantity.on or "", key)
    if quantity.flux is None:
        return pointwise(shared, quantity, key)
    made = shared.form
    carried = [b.name for b in made.balances if not b.pushes and not b.level_of]
    if quantity.flux not in carried:
        known = f"there is {', '.join(carried)}" if carried else "there is none"
        raise InputError(
            f"there is no field '{quantity.flux}' that flows; {known}; what a flow carries through "
            "a side is {integral: u*nx + v*ny, on: side}",
            f"{key}.flux",
        )
    facets_of(problem, shared.data, quantity.on or "", f"{key}.on")
    leaving = leaves(made, quantity.on or "", quantity.flux)
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


def leaves(
    made: Galerkin,
    on: str,
    name: str,
) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """How much of a field leaves through a part, -int n . F, of a value and its time."""
    own = next(side for side in made.sides if side.name == on)
    given = [
        side
        for side in made.sides
        if side.condition.kind == "periodic" or made.stated[name, side.name].held
    ]
    if own not in given:
        return lambda value, t: _known(made.passed(own, name, value, t))
    share, j, n = _share(own, given, made.mesh), made.names.index(name), len(made.names)
    corners = Corners(made.mesh, given, materials(made.mesh, made.problem.equation))

    def leaving(value: torch.Tensor, t: float) -> torch.Tensor:
        left = made.rest(value, t).unflatten(-1, (-1, n))[..., j]
        if corners.part is not None:
            flux = -made.flux(name, corners.part, value, t)
            left = left - sum(corners.tested(side, flux) for side in given)
            left = left * share + corners.tested(own, flux)
        else:
            left = left * share
        total: torch.Tensor = -left.sum(-1)
        return total

    return leaving


def _known(found: torch.Tensor | None) -> torch.Tensor:
    assert found is not None
    return found


def _of_solid(shared: Shared, quantity: Quantity, key: str) -> Measure:
    problem, mesh = shared.problem, shared.mesh
    if quantity.flux is not None:
        raise InputError("of an elastic body write force: [1, 0], a direction", f"{key}.flux")
    if quantity.force is not None:
        if len(quantity.force) != mesh.dimension:
            raise InputError(f"a direction here has {mesh.dimension} components", f"{key}.force")
        facets_of(problem, shared.data, quantity.on or "", f"{key}.on")
        if problem.time is not None:
            return _pushed(shared, quantity.force, quantity.on or "", key)
        return lambda value, t: _force(problem, mesh, quantity, value)
    return pointwise(shared, quantity, key)


def pointwise(shared: Shared, quantity: Quantity, key: str) -> Measure:
    """Of an expression."""
    name = "of" if quantity.at is not None else quantity.kind
    what = shared.fields[0] if quantity.what is None else quantity.what
    read = _read(what, shared, f"{key}.{name}", normal=quantity.on is not None)
    if quantity.at is not None:
        return _at(shared, quantity, read, key)
    part = _part(shared, quantity, key)
    if quantity.kind in ("max", "min"):
        if shared.problem.equation.complex and what in shared.fields:
            raise InputError(
                f"{what} is complex and has no {quantity.kind}; write abs({what})",
                f"{key}.{quantity.kind}",
            )
        if quantity.raw:
            return lambda value, t: _raw(quantity.kind, shared, part, read, value, t)
        return lambda value, t: _extremum(quantity.kind, shared, part, read, value, t)

    def integrated(value: torch.Tensor, t: float | None) -> Measurement:
        values = read.at(part.points, _values(read, shared, part, value, t))
        total = (values * part.measure).sum((-2, -1))
        return Measurement(total / part.measure.sum() if quantity.kind == "mean" else total)

    return integrated


def _part(shared: Shared, quantity: Quantity, key: str) -> Quadrature:
    """The facets of a boundary, the elements of a subdomain, or all of them."""
    # Unrecovered stresses are told at the points of the stiffness itself.
    mesh = shared.mesh
    degree = 2 * mesh.degree + (0 if quantity.raw else 2)
    if quantity.on is not None:
        facets = facets_of(shared.problem, shared.data, quantity.on, f"{key}.on")
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


def _read(what: Any, shared: Shared, key: str, normal: bool = False) -> Compiled:
    data, axes = shared.data, AXES[: shared.mesh.dimension]
    refused = {"t": NO_TIME, **shared.several}
    if not normal:
        refused |= dict.fromkeys(NORMAL, "the outward normal is known on a boundary only")
    context = Context(
        axes,
        timed=data.time is not None,
        state=state_names(shared.fields, axes),
        parameters=tuple(data.parameters),
        others=(*(NORMAL[: len(axes)] if normal else ()), *shared.derived),
        tables=tuple(data.tables.items()),
        refused=tuple(refused.items()),
    )
    return compile(what, context, key)


def _values(
    read: Compiled, shared: Shared, part: Quadrature, value: torch.Tensor, t: float | None
) -> dict[str, torch.Tensor]:
    """What an expression may name, at a part's points, (*batch, k, Q); on facets recovered."""

    def of_inside(inside: Inside) -> torch.Tensor:
        if part.inverse is not None:
            return inside.entries(part, value, t)
        return part.at_points(_nodal(shared, inside, value, t))

    known = shared.known(read, 2, part.at_points, of_inside, value, t)
    return known | {n: v for n, v in part.normal.items() if n in read.names}


def _nodal(shared: Shared, inside: Inside, value: torch.Tensor, t: float | None) -> torch.Tensor:
    """Its entries at the nodes, recovered, (*batch, c, nodes)."""
    return shared.recovery.at_nodes(inside.entries(shared.recovery.part, value, t))


def _raw(
    kind: str,
    shared: Shared,
    part: Quadrature,
    read: Compiled,
    value: torch.Tensor,
    t: float | None,
) -> Measurement:
    """The extreme at the quadrature points inside the elements."""
    values = read.at(part.points, _values(read, shared, part, value, t))
    flat = values.expand(np.broadcast_shapes(values.shape, part.points[0].shape)).flatten(-2)
    return _extreme(kind, flat, tuple(x.flatten() for x in part.points))


def _extreme(kind: str, values: torch.Tensor, points: tuple[torch.Tensor, ...]) -> Measurement:
    place = values.argmax(-1) if kind == "max" else values.argmin(-1)
    found = values.gather(-1, place[..., None])[..., 0]
    return Measurement(found, torch.stack([x[place] for x in points], -1))


def _extremum(
    kind: str,
    shared: Shared,
    part: Quadrature,
    read: Compiled,
    value: torch.Tensor,
    t: float | None,
) -> Measurement:
    index = torch.unique(part.nodes)
    points = tuple(x[index] for x in shared.mesh.coordinates())
    known = shared.known(
        read,
        1,
        lambda nodal: nodal[..., index],
        lambda inside: _nodal(shared, inside, value, t)[..., index],
        value,
        t,
    )
    if part.normal:
        known |= {n: _mean_normal(part, v, index, shared.mesh) for n, v in part.normal.items()}
    values = read.at(points, {n: v for n, v in known.items() if n in read.names})
    return _extreme(kind, values.expand(np.broadcast_shapes(values.shape, index.shape)), points)


def _mean_normal(
    part: Quadrature, component: torch.Tensor, index: torch.Tensor, mesh: Mesh
) -> torch.Tensor:
    """A component of the facets' normals at their nodes, the mean by area, not of length 1."""
    weights = scatter(load(part, torch.ones(1, 1)), part.nodes, mesh.shape[0])
    total = scatter(load(part, component), part.nodes, mesh.shape[0])
    safe = torch.where(weights.abs() > 0, weights, 1.0)
    return (total / safe)[index]


def _at(shared: Shared, quantity: Quantity, read: Compiled, key: str) -> Measure:
    point, d = torch.tensor([quantity.at], dtype=torch.float64), shared.mesh.dimension
    if point.shape[1] != d:
        raise InputError(
            f"the mesh lies in {d} dimensions, and this point has {point.shape[1]} coordinates",
            f"{key}.at",
        )
    try:
        look = _looking(shared, read, point)
    except InputError:
        listed = ", ".join(f"{x:g}" for x in quantity.at or ())
        raise InputError(f"({listed}) lies outside the mesh", f"{key}.at") from None
    return lambda value, t: Measurement(look(value, t)[..., 0])


# A value (*batch, [fields], nodes) and its time to values at some points, (*batch, n).
Look = Callable[[torch.Tensor, float | None], torch.Tensor]


def _looking(shared: Shared, read: Compiled, points: torch.Tensor) -> Look:
    """An expression at points (n, d): fields themselves, what jumps between elements recovered.

    Raises InputError for a point outside the mesh.
    """
    mesh = shared.mesh
    owners, basis = located(mesh, points)
    nodes = torch.from_numpy(mesh.cell_nodes[owners].astype(np.int64))
    shares, x = torch.from_numpy(basis), tuple(points.T)
    near = cache(lambda: around(mesh, owners, basis, shared.material))

    def look(value: torch.Tensor, t: float | None) -> torch.Tensor:
        known = shared.known(
            read,
            1,
            lambda nodal: (nodal[..., nodes] * shares).sum(-1),
            lambda inside: near().of(inside.entries(near().part, value, t)),
            value,
            t,
        )
        found = read.at(x, known)
        return found.expand(np.broadcast_shapes(found.shape, x[0].shape))

    return look


@samples(Equation, Mesh)
@samples(Helmholtz, Mesh)
@samples(System, Mesh)
@samples(NavierStokes, Mesh)
@samples(Stokes, Mesh)
@samples(Elasticity, Mesh)
@samples(Hyperelasticity, Mesh)
@samples(Plasticity, Mesh)
def sample_on_mesh(problem: Problem, mesh: Mesh, points: torch.Tensor, what: Any, key: str) -> Look:
    """How fields (*batch, [fields], n), or an expression (*batch, n), are found at points (n, d).

    Raises InputError for a point outside the mesh.
    """
    if what is None:
        return lambda value, t: sample(mesh, value, points)
    shared = Shared(problem, mesh)
    return _looking(shared, _read(what, shared, key), points)


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


class Corners:
    """What each of several parts takes of the rest at nodes where they meet.

    The rest at a node is the sum of int phi n . F over the parts, and that of one of them is known
    from F itself as it is recovered there. The share of its area divides only what is then left,
    nothing where F is a polynomial of the elements' degree: by itself it is of first order where
    the fluxes of the parts differ, whatever the elements. The sum stays as it was, so that the
    forces balance. Measured: second order with elements of degree 1, third with 2. (Of rests as
    fluxes Carey, Chow and Seager 1985; Melbo and Kvamsdal 2003, of parts without an end.)

    ``part``: the elements where F is asked for, None where no parts meet. Parts within the mesh,
    points and lines take shares.
    """

    def __init__(self, mesh: Mesh, given: list[Side], material: np.ndarray) -> None:
        self.mesh, self.part, self._facets = mesh, None, dict[str, np.ndarray]()
        meet = np.zeros(mesh.shape[0], dtype=np.int64)
        for side in given:
            meet[np.unique(side.facets.nodes)] += 1 if side.facets.normal else len(given) + 1
        shared = (meet > 1) & (meet <= len(given))
        self._shared = torch.from_numpy(shared)
        for side in given:
            if side.facets.normal:
                own = np.flatnonzero(shared[side.facets.nodes.numpy()].any(1))
                self._facets[side.name] = own
        sought = [s.facets.nodes[self._facets[s.name]] for s in given if s.name in self._facets]
        nodes = np.unique(torch.cat([s.flatten() for s in sought])) if sought else np.empty(0)
        if not shared.any():
            return
        owner, place = np.zeros((2, mesh.shape[0]), dtype=np.int64)
        for k in range(mesh.cell_nodes.shape[1]):
            owner[mesh.cell_nodes[:, k]], place[mesh.cell_nodes[:, k]] = (
                np.arange(len(mesh.cells)),
                k,
            )
        ones = np.eye(mesh.cell_nodes.shape[1])[place[nodes]]
        self._around = around(mesh, owner[nodes], ones, material)
        self.part = self._around.part
        self._number = torch.zeros(mesh.shape[0], dtype=torch.int64)
        self._number[torch.from_numpy(nodes)] = torch.arange(len(nodes))

    def tested(self, side: Side, flux: torch.Tensor) -> torch.Tensor:
        """int phi n . F over a part at the nodes it shares, of F (*lead, d, k, Q) at ``part``."""
        lead = flux.shape[:-3]
        if not len(self._facets.get(side.name, ())):
            return torch.zeros(*lead, self.mesh.shape[0], dtype=torch.float64)
        part = side.facets.of(torch.from_numpy(self._facets[side.name]))
        nodal = self._around.of(flux)[..., self._number[part.nodes]]
        inner = nodal @ part.tables.values.T
        normal = torch.stack([n.expand(part.points[0].shape) for n in part.normal.values()])
        found = scatter(load(part, (inner * normal).sum(-3)), part.nodes, self.mesh.shape[0])
        return torch.where(self._shared, found, 0.0)


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
    left, mine = torch.stack(rows, -1), torch.zeros(())
    holds, corners = _holds(given, mesh), Corners(mesh, given, materials(mesh, equation))
    if corners.part is not None:
        inner = stress_at(problem, corners.part, data, value)
        stresses = [inner[..., a, :d].movedim(-1, -3) for a in range(d)]
        for side in given:
            pull = torch.stack([corners.tested(side, stress) for stress in stresses], -1)
            pull = (holds[side.name] @ pull[..., None])[..., 0]
            left, mine = left - pull, pull if side is own else mine
    carried = (_carried(own, given, holds, mesh) @ left[..., None])[..., 0] + mine
    return Measurement((carried @ direction).sum(-1))


def _holds(given: list[Side], mesh: Mesh) -> dict[str, torch.Tensor]:
    """By side the projections on the directions in which it holds a body, (nodes, d, d)."""
    d, found = mesh.dimension, {}
    for side in given:
        nodes, value = side.nodes.nodes[:, 0], side.condition.dirichlet
        if isinstance(value, Normal) or side.condition.contact is not None:
            normal = torch.cat(list(side.nodes.normal.values()), -1)
            holds = normal[:, :, None] * normal[:, None, :]
        else:
            free = value if isinstance(value, (list, tuple)) else (0.0,) * d
            held = torch.tensor([entry is not None for entry in free], dtype=torch.float64)
            holds = torch.diag(held).expand(len(nodes), d, d)
        whole_one = torch.zeros(mesh.shape[0], d, d, dtype=torch.float64)
        found[side.name] = whole_one.index_add(0, nodes, holds)
    return found


def _carried(
    own: Side, given: list[Side], holds: Mapping[str, torch.Tensor], mesh: Mesh
) -> torch.Tensor:
    """What one of the sides that hold a body carries of the force at every node, (nodes, d, d).

    With the projections P_s on the directions in which the sides hold it and their shares w_s of
    the node, w P (sum_s w_s P_s)^+: what only one side can carry is its own.
    """
    total, mine = torch.zeros(()), torch.zeros(())
    for side in given:
        part = _share(side, given, mesh)[:, None, None] * holds[side.name]
        total, mine = total + part, part if side is own else mine
    found: torch.Tensor = mine @ torch.linalg.pinv(total, hermitian=True)
    return found
