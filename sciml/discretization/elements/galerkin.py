"""The general form on a mesh, by finite elements (Galerkin): nonlinear, coupled, in time.

For every scalar field  m u_tt + d u_t - div F = s,  with the laws of
:mod:`sciml.discretization.elements.laws`,

    int (m u_tt + d u_t) v + int F . grad v - int s v + int_robin alpha u v = int_sides g v

for all v that vanish where u is given. The Jacobian is exact: at the quadrature points F and s
are differentiated forwards by each field and slope that they name, and the rest is linear. A field
of degree 1 on a mesh of P2 has the three basis functions of the vertices, and zero for the rest
(Taylor and Hood 1973); its value at an edge's middle is the mean of the ends.

Where advection dominates a field in the coefficient form, tau b (d u_t - div F - s) stands beside
F: SUPG of the whole equation (:mod:`sciml.discretization.elements.scalar`), of which its solution
is still one. Where b is sought as well nobody knows beforehand, and it is ``scheme: supg`` that
asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.nonlinear import History, Moment, NonlinearSystem, Storage, remembered
from sciml.core.algebra.saddle import Saddle, Schur
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.condition import SENDS_WAVES
from sciml.core.problem.dispatch import discretises, semidiscretises
from sciml.core.problem.equation import Equation, NavierStokes, Stokes, System
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh, basis_at, reference
from sciml.core.problem.problem import Coefficient, Problem
from sciml.core.problem.quadrature import (
    Quadrature,
    Tables,
    along,
    at_nodes,
    divergence,
    load,
    mass,
    pulled_back,
    slope_of,
    slopes,
    tested,
    whole,
)
from sciml.core.problem.reader import free_names, state_names
from sciml.core.run.differentiate import attach, local_graph
from sciml.core.run.status import Doubt
from sciml.discretization.elements.boundary import (
    Embedding,
    Fixed,
    Folding,
    Pattern,
    Side,
    along_normal,
    beside,
    owners,
    parts_of,
    pattern,
    scatter,
    sides,
    straightened,
    tied,
)
from sciml.discretization.elements.contact import bounded, pressures
from sciml.discretization.elements.data import evaluate, mesh_data
from sciml.discretization.elements.elasticity import rigid_motions
from sciml.discretization.elements.laws import (
    Balance,
    CoefficientLaw,
    Point,
    Recall,
    Stated,
    balances,
    is_zero,
)
from sciml.discretization.elements.scalar import (
    conductivity,
    dominates,
    placed,
    stabilised,
    stream_time,
)
from sciml.discretization.volumes.affine import AtTime
from sciml.discretization.volumes.coefficients import describe

_KEY = "problem.equation"
_RESISTS = 0.25  # the mean of a resistance in all components beside that of their slopes
_SMALL_STRAIN = 0.1  # beyond which a theory of small strains is off by as much
_UNBALANCED = 1e-2  # of all that passes through sides, more than interpolation leaves
_ALONG = 1e-9  # a component of a unit normal that is none
_TINY = 1e-300  # so that no diffusion beside advection is no error


@semidiscretises(Equation, Mesh)
@semidiscretises(System, Mesh)
@semidiscretises(NavierStokes, Mesh)
@semidiscretises(Stokes, Mesh)
def semidiscretize_on_mesh(
    problem: Problem, mesh: Mesh, *, dtype: torch.dtype, device: torch.device
) -> NonlinearSystem:
    """Lower a problem on a mesh to ``inertia u'' + mass u' + F(u, t) = 0``, float64 on the CPU.

    Several fields are one vector (``joint``), node by node. Raises InputError for data that make
    no well-posed system.
    """
    made = Galerkin(problem, mesh)
    if not problem.bounded:
        return made.system()
    if made.links is not None:
        tied_side = next(side for side in made.sides if made.ties_of(side))
        raise InputError(
            "obstacles and contact are not solved beside periodic sides, or walls that are given "
            "along their normal; of a wall along an axis give a list, null for what is free",
            tied_side.place,
        )
    return bounded(
        made.system(),
        mesh,
        made.data,
        fields=len(made.balances),
        given=made.obstacles,
        sides=made.touching,
        fixed=made.fixed_mask,
        known=made.known(made.start),
    )


@discretises(Stokes, Mesh)
def linear_on_mesh(
    problem: Problem, mesh: Mesh, *, dtype: torch.dtype, device: torch.device
) -> LinearSystem:
    """``A x = b`` of a steady problem whose balances are affine in their fields."""
    made = Galerkin(problem, mesh)
    made.check_posed()
    if not made.affine:
        raise InputError("the equation is nonlinear; use newton or auto", _KEY)
    zero = torch.zeros(made.count, dtype=torch.float64)
    A, b = made.linearise(zero, 0.0), -made.residual(zero, 0.0)
    lead = torch.broadcast_shapes(b.shape[:-1], A.batch)
    system = LinearSystem(
        A,
        b.expand(*lead, b.shape[-1]).contiguous(),
        mesh,
        lambda x: made.lift(x, 0.0),
        made.restrict,
        tuple(made.data.notes),
        fields=made.names,
    )
    return placed(system, dtype, device)


class Galerkin:
    """A problem on a mesh, tested with the basis functions of its elements."""

    def __init__(self, problem: Problem, mesh: Mesh) -> None:
        self.problem, self.mesh = problem, mesh
        equation = problem.equation
        fields = equation.fields(mesh.dimension, problem.first)
        look = balances.look_up(equation, Mesh)
        self.balances = look(problem, mesh, equation, fields[0], fields, _KEY)
        self.names = tuple(b.name for b in self.balances)
        self.axes = AXES[: mesh.dimension]
        self.data = mesh_data(problem, mesh)
        self.sides = sides(problem, self.data, open_too=True)
        self.data.notes.extend(straightened(mesh))
        self.stated = {
            (b.name, side.name): b.stated(side) for b in self.balances for side in self.sides
        }
        self._check_time()
        affine = all(b.law.affine for b in self.balances)
        self.cells = whole(mesh, 2 * mesh.degree + (not affine))
        self.tables = tuple(_tables(self.cells.tables, mesh, b.degree) for b in self.balances)
        # The names in F and s, in an order that does not depend on hashing.
        of_d = [free_names(b.d, problem.parameters) & frozenset(self.names) for b in self.balances]
        used = frozenset().union(
            *(b.law.flux_names | b.law.source_names for b in self.balances), *of_d
        )
        self.stores = any(of_d)
        self.used = tuple(n for n in state_names(self.names, self.axes) if n in used)
        self.of_state = tuple(
            (side, balance, stated)
            for side, balance, stated in self._natural()
            if free_names((stated.alpha, stated.g), problem.parameters) & frozenset(self.names)
        )
        self.affine = affine and not self.of_state
        for law in (b.law for b in self.balances):
            if isinstance(law, CoefficientLaw) and not law.quasilinear:
                conductivity(law.form.K, self.cells, self.data, f"{law.key}.K")
        self.start = 0.0 if problem.time is None else problem.time.start
        self._read: AtTime[dict[str, torch.Tensor]] = AtTime()
        self.streams = self._streams()
        self.stores |= problem.time is not None and any(
            self._changes(self.balances[i]) for i in self.streams
        )
        moving = [c for b in self.balances for c, _ in b.law.coefficients]
        alphas = [s.alpha for _, _, s in self._natural()]
        self.steady = not self._timed([*moving, *alphas]) or (
            self.affine and not self._timed([*self._operator(), *alphas])
        )
        self.floating = tuple(self._floats(b) for b in self.balances)
        given, self._fixed_sides = self._fixed_nodes()
        self.walls = self._walls()
        starts = [(side, j) for side, j, _ in self.walls]
        self.links = tied(self.sides, mesh, given, len(self.balances), starts)
        self.fixed_mask = given if self.links is None else self.links.mask
        self.free = torch.from_numpy(np.flatnonzero(~self.fixed_mask))
        self.count = len(self.free)
        if not self.count:
            raise InputError(
                "every node lies on a dirichlet boundary: refine the mesh", "problem.boundary"
            )
        self._known: AtTime[torch.Tensor] = AtTime()
        self._load: AtTime[torch.Tensor] = AtTime()
        self._pulled: AtTime[torch.Tensor] = AtTime()
        self._matrix: AtTime[PatternMatrix] = AtTime()
        self._left: tuple[torch.Tensor, float, torch.Tensor] | None = None
        self._built: tuple[torch.Tensor, PatternMatrix] | None = None

    @property
    def still(self) -> bool:
        """Whether nothing stands before a time derivative."""
        return all(is_zero(b.d) and is_zero(b.m) for b in self.balances)

    # What depends on time.

    def _timed(self, coefficients: Iterable[Any]) -> bool:
        return "t" in free_names(tuple(coefficients), self.problem.parameters)

    def _operator(self) -> list[Any]:
        """Of affine balances what multiplies a field or a slope."""
        found: list[Any] = []
        for balance in self.balances:
            law = balance.law
            if isinstance(law, CoefficientLaw):
                found += [law.form.K, law.form.b, law.form.c]
            else:
                found += [c for c, _ in law.coefficients]
        return found

    def _check_time(self) -> None:
        for balance in self.balances:
            for name, value in (("d", balance.d), ("m", balance.m)):
                key = f"{balance.key}.{name}"
                if self.problem.time is None and not is_zero(value):
                    raise InputError(
                        "the equation depends on time: give time: and initial:, or leave "
                        f"{name} out",
                        key,
                    )
                named = free_names(value, self.problem.parameters)
                allowed = frozenset(self.names) if name == "d" else frozenset()
                if named & ({"t", *state_names(self.names)} - allowed):
                    raise InputError(
                        f"{name} may depend on the coordinates and the fields"
                        if allowed
                        else f"{name} may depend on the coordinates only",
                        key,
                    )

    def _natural(self) -> list[tuple[Side, Balance, Stated]]:
        """What holds on sides where a field is not given."""
        return [
            (side, balance, stated)
            for side in self.sides
            for balance in self.balances
            if (stated := self.stated[balance.name, side.name]).value is None
        ]

    # What bounds the fields.

    @property
    def obstacles(self) -> dict[int, tuple[Mapping[str, Coefficient | None], str]]:
        """By the field's number its bounds and the key of its equation, where it has any."""
        return {
            j: ({"lower": b.lower, "upper": b.upper}, b.key)
            for j, b in enumerate(self.balances)
            if b.lower is not None or b.upper is not None
        }

    @property
    def touching(self) -> list[Side]:
        """The sides that may touch something."""
        return [side for side in self.sides if side.condition.kind == "contact"]

    @property
    def pushing(self) -> tuple[str, ...]:
        """What obstacles and contact push with is called."""
        several = len(self.names) > 1
        found = [f"{self.names[j]}_contact" if several else "contact" for j in self.obstacles]
        return (*found, *(("contact",) if self.touching else ()))

    def pressures(self, full: torch.Tensor) -> dict[str, torch.Tensor]:
        """What obstacles and contact push with at a value: (*batch, nodes) by name."""
        return pressures(
            self.mesh,
            self.rest(full, self.start),
            fields=self.names,
            given=tuple(self.obstacles),
            sides=self.touching,
            fixed=self.fixed_mask,
        )

    # What is carried along.

    def _changes(self, balance: Balance) -> bool:
        """Whether what SUPG weighs a field with depends on the state or on time."""
        assert isinstance(balance.law, CoefficientLaw)
        form = balance.law.form
        named = free_names((form.K, form.b, form.c), self.problem.parameters)
        return bool(named & {*state_names(self.names, self.axes), "t"})

    def _streams(self) -> frozenset[int]:
        """The numbers of the fields that SUPG is for.

        Of a speed that is known, where advection dominates; of one that is not, as of a flow that
        is sought as well, where the mesh asks for it.
        """
        found = set()
        for i, balance in enumerate(self.balances):
            law = balance.law
            if not isinstance(law, CoefficientLaw) or law.form.b is None or not is_zero(balance.m):
                continue
            if all(is_zero(v) for v in law.form.b):
                continue
            if self._changes(balance):
                if self.mesh.scheme == "supg":
                    found.add(i)
                continue
            K, b, _ = law.advected(self._point(self.cells, {}, self.start))
            if stabilised(K, b, self.cells, self.data, balance.name * (len(self.names) > 1)):
                found.add(i)
        return frozenset(found)

    def _told(self, balance: Balance) -> bool:
        """Whether it was said before there was an answer that advection dominates a field."""
        law = balance.law
        known = isinstance(law, CoefficientLaw) and law.form.b is not None and is_zero(balance.m)
        return known and not self._changes(balance)

    def _tested_along(self, i: int, point: Point) -> torch.Tensor:
        """tau b of a field at the points, (*batch, k, Q, d)."""
        law = self.balances[i].law
        assert isinstance(law, CoefficientLaw)
        K, b, c = law.advected(point)
        return stream_time(self.mesh, self.cells, K, b, c)[..., None] * b

    def _diverging(self, flux: Sequence[torch.Tensor]) -> torch.Tensor:
        """div F at the points, (*batch, k, Q), of F there."""
        carried = torch.stack(list(torch.broadcast_tensors(*flux)), -1)
        shape = (*self.cells.points[0].shape, len(self.axes))
        shape = torch.broadcast_shapes(carried.shape, shape)
        return divergence(self.mesh, self.cells, carried.expand(shape))

    # Nodes and unknowns: number (node i, field j) is i n + j.

    def ties_of(self, side: Side) -> bool:
        """Whether a side makes values depend on one another."""
        return side.condition.kind == "periodic" or any(side is own for own, *_ in self.walls)

    def _walls(self) -> list[tuple[Side, int, Stated]]:
        """Sides that give a vector along their normal, with the number of its first component."""
        found, d = [], self.mesh.dimension
        for side in self.sides:
            rows = [self.stated[name, side.name].normal is not None for name in self.names]
            j = 0
            while j < len(rows):
                if rows[j]:
                    found.append((side, j, self.stated[self.names[j], side.name]))
                j += d if rows[j] else 1
        return found

    def _floats(self, balance: Balance) -> bool:
        """Whether every side gives what passes through it of the vector of this multiplier."""
        outer = self.mesh.topology.boundary_facets()
        named = np.concatenate([np.empty(0, np.int64), *(side.numbers for side in self.sides)])
        if not balance.level_of or not np.isin(outer, named).all():
            return False
        for side in self.sides:
            if side.condition.kind == "periodic" or not side.facets.normal:
                continue
            for name, axis in zip(balance.level_of, self.axes, strict=True):
                along = side.facets.normal[f"n{axis}"]
                if not self.stated[name, side.name].held and bool((along.abs() > _ALONG).any()):
                    return False
        return True

    def check_posed(self) -> None:
        """InputError where more comes in than may, or nothing holds a vector on a torus."""
        times = [self.start]
        if self.problem.time is not None and self._moving_values:
            times.append(self.problem.time.end)
        for floats, balance in zip(self.floating, self.balances, strict=True):
            for t in times if floats else ():
                self._check_passed(balance.level_of, t)
        if self.problem.time is None and any(s.condition.kind == "periodic" for s in self.sides):
            self._check_translations()

    def _check_passed(self, vector: tuple[str, ...], t: float) -> None:
        rows = self.known(t).detach().unflatten(-1, (-1, len(self.names)))
        net, size = torch.zeros(()), torch.zeros(())
        for side in self.sides:
            for name, n in zip(vector, side.facets.normal.values(), strict=False):
                u = side.facets.at_points(rows[..., self.names.index(name)])
                passed = (u * n * side.facets.measure).sum(-1)
                net, size = net + passed.sum(-1), size + passed.abs().sum(-1)
        if bool((net.abs() > _UNBALANCED * size).any()):
            raise InputError(
                f"every side gives what passes through it, and {float(-net.flatten()[0]):.3g} more "
                "comes in than goes out: leave a side open (neumann: 0), or balance them",
                "problem.boundary",
            )

    def _check_translations(self) -> None:
        derived = None
        for i, balance in enumerate(self.balances):
            said = [self.stated[balance.name, side.name] for side in self.sides]
            if not balance.pushes or any(s.held or not is_zero(s.alpha) for s in said):
                continue
            if derived is None:
                full = self.lift(torch.zeros(self.count, dtype=torch.float64), self.start)
                derived, _ = self._derivatives(full, self.start)
            resists = derived.get((i, 0, i, 0))
            if resists is None or not bool((resists != 0).any()):
                raise InputError(
                    f"nothing holds {balance.name} between periodic sides: it may be moved as a "
                    "whole; give it on a side or at a point",
                    "problem.boundary",
                )

    def _fixed_nodes(self) -> tuple[np.ndarray, list[tuple[Side, int, Stated, torch.Tensor]]]:
        n, nodes = len(self.balances), self.mesh.shape[0]
        mask = np.zeros((nodes, n), dtype=bool)
        found = []
        for j, balance in enumerate(self.balances):
            for side in self.sides:
                stated = self.stated[balance.name, side.name]
                if stated.value is None:
                    continue
                own = side.nodes.nodes[:, 0].numpy()
                new = ~mask[own, j]
                mask[own, j] = True
                found.append((side, j, stated, torch.from_numpy(new)))
            if balance.degree is not None and balance.degree < self.mesh.degree:
                mask[len(self.mesh.points) :, j] = True
            if self.floating[j]:
                mask[0, j] = True
        return mask.ravel(), found

    def _values_at(self, t: float, order: int = 0) -> torch.Tensor:
        """What is known of the values, (*batch, nodes n), or of a derivative of these by t."""
        n, total = len(self.balances), torch.zeros(len(self.fixed_mask), dtype=torch.float64)
        data = self.data.at_time(t)
        for side, j, stated, new in self._fixed_sides:
            if order and not self._timed([stated.value]):
                continue
            g = evaluate(stated.value, side.nodes, data, stated.key)[..., 0]
            if order:
                g = self._slope_in_time(side, stated, t, g, order)
            index = side.nodes.nodes[:, 0]
            g = g.expand(*g.shape[:-1], len(index))[..., new]
            where = index[new] * n + j
            batch = torch.broadcast_shapes(total.shape[:-1], g.shape[:-1])
            total = total.expand(*batch, -1).index_copy(
                -1, where, g.expand(*batch, len(where)).to(torch.float64)
            )
        if self.links is None:
            return total
        of_walls = []
        for side, _, stated in self.walls:
            g = along_normal(side, stated.normal, stated.key, data)
            if order and not self._timed([stated.normal]):
                g = torch.zeros_like(g)
            elif order:
                g = self._slope_in_time(side, stated, t, g, order)
            of_walls.append(g)
        return self.links.ties.lift(self.links.known(total, of_walls))

    def _slope_in_time(
        self, side: Side, stated: Stated, t: float, g: torch.Tensor, order: int
    ) -> torch.Tensor:
        """Of a given value at the nodes of a side, each with a time of its own."""
        given = stated.value if stated.normal is None else stated.normal
        if g.requires_grad:
            derive: Callable[[torch.Tensor], torch.Tensor] = lambda t: evaluate(  # noqa: E731
                given, side.nodes, self.data.at_time(t), stated.key
            )[..., 0]
            for _ in range(order):
                derive = _derivative(derive)
            return derive(torch.tensor(t, dtype=torch.float64))
        with local_graph():
            times = torch.full((*g.shape, 1), t, dtype=torch.float64, requires_grad=True)
            shape = g.shape
            g = evaluate(given, side.nodes, self.data.at_time(times), stated.key)
            for k in range(order):
                if not g.requires_grad:
                    return torch.zeros(shape, dtype=torch.float64)
                (g,) = torch.autograd.grad(g.sum(), times, create_graph=k + 1 < order)
        return g[..., 0].detach()

    @cached_property
    def _moving_values(self) -> bool:
        return self._timed(self._prescribed)

    @cached_property
    def _prescribed(self) -> list[Any]:
        return [s.value for _, _, s, _ in self._fixed_sides] + [s.normal for *_, s in self.walls]

    def known(self, t: float) -> torch.Tensor:
        """The given values at time t, and what follows from them; zero elsewhere."""
        if not self._moving_values:
            t = self.start
        return self._known.get(t, lambda: self._values_at(t))

    def _rates(self, t: float, order: int) -> torch.Tensor:
        """The derivative of that order of the given values, by t."""
        if all(isinstance(v, (str, Real)) for v in self._prescribed):
            return self._values_at(t, order)
        # A function need not be torch's: its graph may end in the middle, unseen.
        assert self.problem.time is not None
        step = (1e-5, 1e-4)[order - 1] * (self.problem.time.end - self.problem.time.start)
        low, here, high = (self._values_at(t + k * step) for k in (-1, 0, 1))
        return (high - low) / (2 * step) if order == 1 else (high - 2 * here + low) / step**2

    @cached_property
    def embedding(self) -> Embedding:
        """Between unknowns and nodal values."""
        n, nodes = len(self.balances), self.mesh.shape[0]
        values = torch.zeros(len(self.fixed_mask), dtype=torch.float64)
        ties = None if self.links is None else self.links.ties
        return Embedding(Fixed(self.fixed_mask, values, ties), (nodes,) if n == 1 else (n, nodes))

    def spread(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Unknowns (*batch, count) beside what is known, (*batch, nodes n)."""
        batch = torch.broadcast_shapes(x.shape[:-1], known.shape[:-1])
        x = x.expand(*batch, x.shape[-1])
        if self.links is None:
            return known.expand(*batch, -1).clone().index_copy(-1, self.free, x)
        own = x.new_zeros(*batch, len(self.fixed_mask)).index_copy(-1, self.free, x)
        return known + self.links.ties.lift(own)

    def gather(self, b: torch.Tensor) -> torch.Tensor:
        """What is tested with all functions, (*batch, nodes n), with those of the unknowns."""
        b = b if self.links is None else self.links.ties.gather(b)
        return b[..., self.free]

    def lift(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """Unknowns (*batch, count) to values (*batch, [fields,] nodes)."""
        full = self.spread(x, self.known(t).to(x))
        if len(self.names) > 1:
            full = full.unflatten(-1, self.embedding.shape[::-1]).mT.contiguous()
        lower = any(b.degree not in (None, self.mesh.degree) for b in self.balances)
        if not lower and not any(self.floating):
            return full
        rows = list(full.unbind(-2))
        for j, balance in enumerate(self.balances):
            if self.floating[j]:
                rows[j] = rows[j] - (self._means[j] * rows[j]).sum(-1, keepdim=True)
            if balance.degree is not None and balance.degree < self.mesh.degree:
                corners, shares = self._between
                rows[j] = (rows[j][..., corners] * shares).sum(-1)
        return torch.stack(rows, -2)

    @cached_property
    def _between(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every node the vertices of an element that has it, and their functions there."""
        mesh = self.mesh
        own = reference(mesh)
        shares = basis_at(reference(mesh, 1), own.doflocs.T)[0]
        corners = np.zeros((mesh.shape[0], shares.shape[1]), dtype=np.int64)
        weights = np.zeros(corners.shape)
        for place, row in enumerate(shares):
            corners[mesh.cell_nodes[:, place]] = mesh.cell_nodes[:, : shares.shape[1]]
            weights[mesh.cell_nodes[:, place]] = row
        return torch.from_numpy(corners), torch.from_numpy(weights)

    @cached_property
    def _means(self) -> dict[int, torch.Tensor]:
        """Weights (nodes,) of the means of floating fields."""
        found = {}
        for j, floats in enumerate(self.floating):
            if floats:
                share = self.cells.measure @ self.tables[j].values
                total = scatter(share, self.cells.nodes, self.mesh.shape[0])
                found[j] = total / total.sum()
        return found

    def restrict(self, value: torch.Tensor) -> torch.Tensor:
        """Values to unknowns; floating fields counted from where they are zero."""
        if any(self.floating):
            rows = list(value.unbind(-2))
            rows = [
                row - row[..., :1] if floats else row
                for row, floats in zip(rows, self.floating, strict=True)
            ]
            value = torch.stack(rows, -2)
        return self.embedding.restrict(value)

    # F and s.

    def _state(self, full: torch.Tensor, part: Quadrature | None = None) -> dict[str, torch.Tensor]:
        """Of (*batch, [n,] nodes) the fields and slopes that are used, at the quadrature points."""
        several = len(self.names) > 1
        part, found = self.cells if part is None else part, {}
        for j, name in enumerate(self.names):
            nodal = full[..., j, :] if several else full
            if name in self.used:
                found[name] = part.at_points(nodal)
            if any(f"{name}{axis}" in self.used for axis in self.axes):
                slope = slopes(part, nodal)
                for a, axis in enumerate(self.axes):
                    if f"{name}{axis}" in self.used:
                        found[f"{name}{axis}"] = slope[..., a, :, :]
        return {name: found[name] for name in self.used}

    def _point(self, part: Quadrature, state: Mapping[str, torch.Tensor], t: float) -> Point:
        """Slopes along axes that the mesh has not are zero: presets name them all."""
        zero = torch.zeros(1, 1, dtype=torch.float64)
        beyond = {f"{name}{axis}": zero for name in self.names for axis in AXES[len(self.axes) :]}
        known = self._read.get(t, dict) if part is self.cells else {}
        given = {**beyond, **state}
        history = remembered(t)
        return Point(
            part, self.data.at_time(t), given, self.problem.parameters, known, history=history
        )

    def _laws(
        self, state: Mapping[str, torch.Tensor], t: float
    ) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
        point, found = self._point(self.cells, state, t), []
        for i, balance in enumerate(self.balances):
            flux, source = balance.law.at(point)
            if i in self.streams:
                left = -source - self._diverging(flux)
                added = (self._tested_along(i, point) * left[..., None]).unbind(-1)
                flux = tuple(f + g for f, g in zip(flux, added, strict=True))
            found.append((flux, source))
        return found

    def instant(self, t: float | None) -> float:
        """The time itself, or the start; InputError where what a body remembers is not known."""
        if self.balances[0].recall is not None and (t is None or remembered(t) is None):
            raise InputError(
                "stresses and forces of this body depend on what it remembers, which is not kept "
                "with this answer: solve it anew",
                _KEY,
            )
        return self.start if t is None else t

    def point(self, part: Quadrature, full: torch.Tensor, t: float) -> Point:
        """Points of elements with the fields and slopes there that the laws name."""
        return self._point(part, self._state(full, part), t)

    def flux(self, name: str, part: Quadrature, full: torch.Tensor, t: float) -> torch.Tensor:
        """-F of a field at points of elements, (*batch, d, k, Q)."""
        point, shape = self.point(part, full, t), part.points[0].shape
        found = self.balances[self.names.index(name)].law.at(point)[0]
        flux = [-f.expand(np.broadcast_shapes(f.shape, shape)) for f in found]
        return torch.stack(list(torch.broadcast_tensors(*flux)), -3)

    def rest(self, full: torch.Tensor, t: float) -> torch.Tensor:
        """What the weak form leaves where fields are given, (*batch, nodes n), zero elsewhere.

        In time with d u_t or m u_tt, which are what the free nodes' own balance makes them. Several
        quantities ask for the same.
        """
        if torch.is_grad_enabled() or full.requires_grad:
            return self._rest(full, t)
        last = self._left
        same = last is not None and last[1] == t and remembered(last[1]) is remembered(t)
        if last is None or not same or not torch.equal(last[0], full):
            last = self._left = (full, t, self._rest(full, t))
        return last[2]

    def _rest(self, full: torch.Tensor, t: float) -> torch.Tensor:
        left = self.whole(full, t)
        if self.problem.time is None or self.still:
            return left
        damped, inertia = self._masses
        if self.stores:
            damped = self._mass_of("d", full, t)
        if damped is not None and inertia is not None:
            raise InputError(
                "what passes where u is given is not known of an equation with both m and d"
            )
        entries, order = (damped, 1) if inertia is None else (inertia, 2)
        assert entries is not None
        mass, rates = self._mass_matrix(entries, True), self._rates(t, order)
        held = self._product(entries, rates)
        right = -self.gather(left + held)
        moving = attach(
            _divided(mass, right.detach()),
            lambda k: right - mass.apply(k),
            lambda g: _divided(mass, g, adjoint=True),
        )
        rates = self.spread(moving, rates)
        return left + self._product(entries, rates)

    def passed(self, own: Side, name: str, full: torch.Tensor, t: float) -> torch.Tensor | None:
        """int alpha u - g over a side, -n . F; None where the side holds the field."""
        stated = self.stated[name, own.name]
        if stated.held:
            return None
        j = self.names.index(name)
        terms = [v for side, i, v in self._side_terms(full, t) if side is own and i == j]
        measure = own.facets.measure
        return sum(
            ((value * measure).sum((-2, -1)) for value in terms),
            torch.zeros(full.shape[: full.ndim - 1 - (len(self.names) > 1)], dtype=torch.float64),
        )

    def whole(self, full: torch.Tensor, t: float) -> torch.Tensor:
        """int F . grad v - s v and the sides' share, (*batch, nodes n)."""
        nodes, rows = self.mesh.shape[0], []
        for (flux, source), tables in zip(
            self._laws(self._state(full), t), self.tables, strict=True
        ):
            local = -((source * self.cells.measure) @ tables.values)
            if not all(f.numel() == 1 and not f.requires_grad and f.item() == 0 for f in flux):
                local = local + tested(self.cells, flux, tables.slopes)
            rows.append(scatter(local, self.cells.nodes, nodes))
        for side, j, value in self._side_terms(full, t):
            passing = load(side.facets, value)
            rows[j] = rows[j] + scatter(passing, side.facets.nodes, nodes)
        return torch.stack(list(torch.broadcast_tensors(*rows)), -1).flatten(-2)

    def _side_terms(self, full: torch.Tensor, t: float) -> list[tuple[Side, int, torch.Tensor]]:
        """alpha u - g at the points of every side."""
        data, found = self.data.at_time(t), []
        for side, balance, stated in self._natural():
            if is_zero(stated.alpha) and is_zero(stated.g):
                continue
            j = self.names.index(balance.name)
            state = self._on_side(side, full)
            named = any(side is s and balance is b for s, b, _ in self.of_state)
            g = evaluate(stated.g, side.facets, data, stated.g_key, state=state if named else None)
            value = -g
            if not is_zero(stated.alpha):
                alpha = evaluate(
                    stated.alpha,
                    side.facets,
                    data,
                    stated.alpha_key,
                    state=state if named else None,
                )
                value = alpha * state[balance.name] - g
            found.append((side, j, value))
        return found

    def _on_side(self, side: Side, full: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = full.unbind(-2) if len(self.names) > 1 else (full,)
        return {
            name: side.facets.at_points(nodal) for name, nodal in zip(self.names, rows, strict=True)
        }

    def _force(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """F on the unknowns, without what moving sides add."""
        return self.gather(self.whole(self.lift(x, t), t))

    def residual(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """F(x, t), (*batch, count), with what the given values' own change adds."""
        if not self.affine:
            force = self._force(x, t)
            return force if self._moved is None else force + self._moved_by(t)
        return self.linearise(x, t).apply(x) - self._right(t)

    def _right(self, t: float) -> torch.Tensor:
        """Of affine balances b(t)."""
        still = not self._timed(
            [
                *(c for b in self.balances for c, _ in b.law.coefficients),
                *(v for _, _, s in self._natural() for v in (s.alpha, s.g)),
            ]
        )
        still &= not self._moving_values
        t = self.start if still else t

        def made() -> torch.Tensor:
            b = -self._force(torch.zeros(self.count, dtype=torch.float64), t)
            return b if self._moved is None else b - self._moved_by(t)

        return self._load.get(t, made)

    @cached_property
    def _moved(self) -> tuple[torch.Tensor | None, torch.Tensor | None] | None:
        """Entries of mass and inertia, where given values change in time."""
        moving = self.problem.time is not None and self._moving_values and not self.stores
        return self._masses if moving else None

    def _moved_by(self, t: float) -> torch.Tensor:
        moved = self._moved
        assert moved is not None

        def made() -> torch.Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for entries, order in zip(moved, (1, 2), strict=True):
                if entries is not None:
                    total = total + self.gather(self._product(entries, self._rates(t, order)))
            return total

        return self._pulled.get(t, made)

    # Matrices.

    @cached_property
    def places(self) -> Pattern:
        """Which nodes share an element."""
        return pattern(self.mesh)

    @cached_property
    def _entries(self) -> torch.Tensor:
        """Where the entries of a scalar local matrix go among the pattern's, (k, N, N)."""
        return self.places.entries(self.cells.nodes)

    @cached_property
    def _blocks(self) -> scipy.sparse.csr_matrix:
        """The pattern over (node, field), its data the numbers of (entry, i, j)."""
        n, ids = len(self.balances), self.places.ids
        numbers = np.arange(ids.nnz * n * n, dtype=np.int64).reshape(-1, n, n)
        return scipy.sparse.bsr_matrix((numbers, ids.indices, ids.indptr)).tocsr()

    @cached_property
    def _folding(self) -> Folding | None:
        return None if self.links is None else self.links.ties.folding(self._blocks)

    @cached_property
    def _free_blocks(self) -> scipy.sparse.csr_matrix:
        """That of the unknowns, its data the numbers of their entries."""
        ids = self._blocks if self._folding is None else self._folding.ids
        inner = ids[~self.fixed_mask][:, ~self.fixed_mask]
        inner.sort_indices()
        return inner

    def _product(self, values: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
        """The matrix of entries (*batch, entries) over all nodes times (*batch, nodes n)."""
        if self._built is None or self._built[0] is not values:
            ids = self._blocks
            entries = values[..., torch.from_numpy(ids.data)]
            made = PatternMatrix(ids.indptr, ids.indices, entries, symmetric=False, definite=False)
            self._built = (values, made)
        return self._built[1].apply(full)

    def _matrix_of(
        self,
        values: torch.Tensor,
        symmetric: bool,
        definite: bool,
        nullspace: bool = False,
        saddle: Saddle | None = None,
    ) -> PatternMatrix:
        """On the unknowns, of entries (*batch, entries of the blocks)."""
        inner, folding = self._free_blocks, self._folding
        values = values if folding is None else folding.values(values)
        return PatternMatrix(
            inner.indptr,
            inner.indices,
            values[..., torch.from_numpy(inner.data)],
            symmetric=symmetric,
            definite=definite,
            nullspace=nullspace,
            near_nullspace=self._near if symmetric else None,
            coarse=self._coarse,
            saddle=saddle,
        )

    @cached_property
    def _near(self) -> np.ndarray | None:
        """What a symmetric matrix makes small: constants of one field, a solid's rigid motions."""
        if len(self.names) == 1:
            return np.ones((self.count, 1))
        solid = len(self.names) == self.mesh.dimension and all(b.pushes < 0 for b in self.balances)
        if solid and self._folding is None:
            motions: np.ndarray = rigid_motions(self.mesh)[~self.fixed_mask]
            return motions
        return None

    @cached_property
    def _coarse(self) -> scipy.sparse.csr_matrix | None:
        """The unknowns that those of a mesh of the first degree give, fields by themselves."""
        mesh, n = self.mesh, len(self.names)
        if mesh.degree == 1:
            return None
        corners, shares = self._between
        rows = np.repeat(np.arange(mesh.shape[0]), shares.shape[1])
        size = (mesh.shape[0], mesh.shape[0])
        given = (shares.flatten().numpy(), (rows, corners.flatten().numpy()))
        nodal = scipy.sparse.csr_matrix(given, size)
        nodal.eliminate_zeros()
        kept = np.flatnonzero(~self.fixed_mask[: len(mesh.points) * n])
        found = scipy.sparse.kron(nodal, scipy.sparse.eye(n), format="csr")
        if self.links is not None:
            T = self.links.ties.matrix
            weight = np.asarray(T.power(2).sum(axis=0)).ravel()
            # A vertex is tied to vertices alone.
            corners = T[: found.shape[1]][:, : found.shape[1]]
            found = (
                scipy.sparse.diags(1 / np.where(weight > 0, weight, 1)) @ T.T @ found @ corners
            ).tocsr()
        return found[~self.fixed_mask][:, kept].tocsr()

    @cached_property
    def _masses(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Entries of the matrices of d and m, None where there are none."""
        return self._mass_of("d"), self._mass_of("m")

    def _mass_matrix(self, values: torch.Tensor, definite: bool) -> PatternMatrix:
        return self._matrix_of(values, not self.streams, definite and not self.streams)

    def _mass_of(
        self, name: str, full: torch.Tensor | None = None, t: float | None = None
    ) -> torch.Tensor | None:
        """Of d or m, at the state ``full`` where they depend on it, by default the first."""
        n, found, state = len(self.balances), {}, None
        if self.stores and name == "d":
            start = self._first()[0] if self.problem.time is not None else None
            full = self.lift(start, self.start) if full is None and start is not None else full
            state = None if full is None else self._state(full)
        for j, balance in enumerate(self.balances):
            value, key = getattr(balance, name), f"{balance.key}.{name}"
            if is_zero(value):
                continue
            d = evaluate(value, self.cells, self.data, key, positive=True, state=state)
            if state is not None and not bool((d > 0).all()):
                raise InputError(f"{name} must be positive everywhere, at every state", key)
            tables = self.tables[j]
            found[j, j] = _paired(self.cells, tables.values, tables.values, d)
            if j in self.streams:
                point = self._point(self.cells, state or {}, self.instant(t))
                tested = along(self.cells, self._tested_along(j, point) * d[..., None])
                weighed = self.cells.measure[..., None] * tested
                found[j, j] = found[j, j] + weighed.mT @ tables.values
        if self.problem.time is None:
            return None
        total = self._scattered(found, n) if found else None
        for j, side, a in self._admittances() if name == "d" else ():
            size, places = self.places.ids.nnz, self.places.entries(side.facets.nodes)
            own = scatter(mass(side.facets, a), places, size)
            rows = torch.zeros(*own.shape[:-1], size, n * n, dtype=torch.float64)
            rows[..., j * n + j] = own
            total = rows.flatten(-2) if total is None else total + rows.flatten(-2)
        return total

    def _admittances(self) -> list[tuple[int, Side, torch.Tensor]]:
        """By field and side beta sqrt(m K), where waves leave."""
        found = []
        for side, balance, stated in self._natural():
            if stated.absorbing is False:
                continue
            assert isinstance(balance.law, CoefficientLaw)
            m = beside(balance.m, side, self.data, f"{balance.key}.m")
            K = beside(balance.law.form.K, side, self.data, f"{balance.key}.K")
            share = 1.0 if stated.absorbing is True else stated.absorbing
            beta = evaluate(share, side.facets, self.data, stated.key)
            if bool((beta < 0).any()):
                raise InputError(SENDS_WAVES, stated.key)
            found.append((self.names.index(balance.name), side, beta * (m * K).sqrt()))
        return found

    def _scattered(self, found: Mapping[tuple[int, int], torch.Tensor], n: int) -> torch.Tensor:
        """Local matrices by block (i, j), summed into the entries of all blocks."""
        size = self.places.ids.nnz
        rows = {(i, j): scatter(local, self._entries, size) for (i, j), local in found.items()}
        batch = torch.broadcast_shapes(*(r.shape[:-1] for r in rows.values()))
        zero = torch.zeros(*batch, size, dtype=torch.float64)
        columns = [rows[i, j].expand(*batch, size) if (i, j) in rows else zero
                   for i in range(n) for j in range(n)]  # fmt: skip
        return torch.stack(columns, -1).flatten(-2)

    def _storage(self) -> Storage | None:
        """M(u) u' where d depends on a field."""
        if not self.stores or self.problem.time is None:
            return None

        def rates(rate: torch.Tensor, t: float) -> torch.Tensor:
            given = self._rates(t, 1) if self._moving_values else torch.zeros_like(self.known(t))
            lead = torch.broadcast_shapes(given.shape[:-1], rate.shape[:-1])
            return self.spread(rate.expand(*lead, -1), given)

        def entries(x: torch.Tensor, t: float) -> torch.Tensor:
            found = self._mass_of("d", self.lift(x, t), t)
            assert found is not None
            return found

        def apply(x: torch.Tensor, rate: torch.Tensor, t: float) -> torch.Tensor:
            return self.gather(self._product(entries(x, t), rates(rate, t)))

        def slope(x: torch.Tensor, rate: torch.Tensor, t: float) -> PatternMatrix:
            return self._matrix_of(self._storage_slope(x, rates(rate, t), t), False, False)

        return Storage(lambda x, t: self._mass_matrix(entries(x, t), True), apply, slope)

    def _storage_slope(self, x: torch.Tensor, rates: torch.Tensor, t: float) -> torch.Tensor:
        """Entries of the derivative of M(u) u' by u, of rates (*batch, nodes n)."""
        n, state = len(self.balances), self._state(self.lift(x, t))
        speeds = [self.cells.at_points(row) for row in rates.unflatten(-1, (-1, n)).unbind(-1)]
        point, names = self._point(self.cells, state, t), tuple(state)
        rows: list[tuple[int, int]] = []
        wanted: list[list[bool]] = []
        for i, balance in enumerate(self.balances):
            if is_zero(balance.d):
                continue
            of_d, streams = free_names(balance.d, self.problem.parameters), i in self.streams
            rows += [(i, a) for a in range(1 + len(self.axes) * streams)]
            wanted.append([name in of_d for name in names])
            if streams:
                law = balance.law
                assert isinstance(law, CoefficientLaw)
                weighs = of_d | free_names((law.form.K, law.form.b, law.form.c),
                                           self.problem.parameters)  # fmt: skip
                wanted += [[name in weighs for name in names] for _ in self.axes]

        def stored(*given: torch.Tensor) -> list[torch.Tensor]:
            mine, found = dict(zip(names, given, strict=True)), []
            here = replace(point, state={**point.state, **mine})
            for i, balance in enumerate(self.balances):
                if is_zero(balance.d):
                    continue
                key = f"{balance.key}.d"
                own = evaluate(balance.d, self.cells, self.data, key, state=mine) * speeds[i]
                found.append(own)
                if i in self.streams:
                    found += (self._tested_along(i, here) * own[..., None]).unbind(-1)
            return found

        derived = {}
        for (i, a), row in zip(rows, pointwise(stored, tuple(state.values()), wanted), strict=True):
            for name, slope in zip(names, row, strict=True):
                if slope is not None:
                    derived[(i, a, *self._slots[name])] = slope
        return self._scattered(self._local(derived), n)

    def linearise(self, x: torch.Tensor, t: float) -> PatternMatrix:
        """dF/dx."""
        if self.affine:
            t = self.start if self.steady else t
            return self._matrix.get(
                t, lambda: self._jacobian(torch.zeros(self.count, dtype=torch.float64), t)
            )
        return self._jacobian(x, t)

    def _jacobian(self, x: torch.Tensor, t: float) -> PatternMatrix:
        return self._tagged(*self._entries_of(self.lift(x, t), t))

    def _entries_of(
        self, full: torch.Tensor, t: float
    ) -> tuple[
        torch.Tensor, Mapping[tuple[int, int, int, int], torch.Tensor], list[torch.Tensor], bool
    ]:
        """The Jacobian over all nodes: its entries, the derivatives in it, if sides hold it."""
        slopes, streamed = self._derivatives(full, t)
        found = self._local(_summed_up(slopes, streamed))
        for i in self.streams:
            for j, local in self._diverged(i, slopes, full, t).items():
                found[i, j] = found[i, j] + local if (i, j) in found else local
        of_sides = self._of_sides(full, t)
        n = len(self.balances)
        values = self._scattered(found, n)
        held = False
        for side, i, j, slope in of_sides:
            place = self.places.entries(side.facets.nodes) * (n * n) + i * n + j
            entries = _paired(
                side.facets, side.facets.tables.values, side.facets.tables.values, slope
            )
            values = values + scatter(entries, place, values.shape[-1])
            held |= i == j and bool((slope > 0).any())
        return values, slopes, [s for *_, s in of_sides], held

    def _tagged(
        self,
        values: torch.Tensor,
        slopes: Mapping[tuple[int, int, int, int], torch.Tensor],
        of_sides: Sequence[torch.Tensor],
        held: bool,
    ) -> PatternMatrix:
        """With what is known of its symmetry and definiteness."""
        ids = self._blocks
        flat = values.detach()[..., torch.from_numpy(ids.data)]
        turned = self._turned
        size = flat.abs().max()
        symmetric = bool((flat - flat[..., turned]).abs().max() <= 1e-13 * size)
        if len(self.names) > 1 or not symmetric:
            return self._matrix_of(values, symmetric, False, saddle=self._saddle(slopes))
        d = self.mesh.dimension
        mixed = any((a == 0) != (b == 0) for _, a, _, b in slopes)
        rise = slopes.get((0, 0, 0, 0))
        convex = not mixed and _positive(slopes, d)
        convex &= rise is None or bool((rise >= 0).all())
        convex &= all(bool((s >= 0).all()) for s in of_sides)
        anchored = held or self._any_given or bool(rise is not None and (rise > 0).any())
        if not anchored and rise is None:
            self._check_parts()
        return self._matrix_of(values, True, convex and anchored, nullspace=convex and not anchored)

    # What block preconditioners of a saddle point are made of.

    @property
    def _any_given(self) -> bool:
        mask = self.fixed_mask
        return bool(mask.any() if self.links is None else (mask & ~self.links.ties.gone).any())

    def _saddle(self, slopes: Mapping[tuple[int, int, int, int], torch.Tensor]) -> Saddle | None:
        """Of the derivatives at the points; None where no single field is a multiplier."""
        n, d = len(self.names), self.mesh.dimension
        own = {i for i, _, j, _ in slopes if i == j}
        held = [j for j in range(n) if j not in own and any(q == j for _, _, q, _ in slopes)]
        if len(held) != 1 or any(v.ndim > 2 for v in slopes.values()):
            return None
        (p,) = held
        inner = tuple(sorted({j for i, _, j, _ in slopes if i == p}))
        gradients = [slopes.get((i, a, i, a)) for i in inner for a in range(1, d + 1)]
        if not inner or any(v is None for v in gradients):
            return None
        viscosity = _mean(gradients)
        if not bool((viscosity > 0).all()):
            return None
        # What the convection of Newton's method adds to the diagonal sums to div u.
        held_back = _vector([slopes.get((i, 0, i, 0)) for i in inner]).detach()
        rest = held_back.amin(-1).clamp(min=0)
        resists = bool(rest.mean() > _RESISTS * held_back.abs().mean())
        extent = float(np.ptp(self.mesh.points, axis=0).max())
        resists &= bool(rest.max() * extent**2 > viscosity.min())
        speed = [_mean([slopes.get((i, 0, i, b)) for i in inner]) for b in range(1, d + 1)]
        anchored = self.floating[p]
        rests = partial(self._diagonal, inner, rest) if resists else None
        return Saddle(
            np.tile(np.arange(n), self.mesh.shape[0])[~self.fixed_mask],
            p,
            inner,
            self._diagonal(inner, torch.ones(1, 1, dtype=torch.float64)),
            rests,
            anchored,
            lambda: self._schur(p, viscosity, speed),
        )

    def _diagonal(self, inner: tuple[int, ...], density: torch.Tensor) -> np.ndarray:
        """Of these fields' mass matrix, (count,); zero for the others."""
        found = torch.zeros(self.mesh.shape[0], len(self.names), dtype=torch.float64)
        for j in inner:
            squares = (density * self.cells.measure) @ self.tables[j].values.square()
            found[:, j] = scatter(squares, self.cells.nodes, self.mesh.shape[0])
        whole = found.flatten()
        if self.links is not None:
            whole = torch.from_numpy(self.links.ties.matrix.power(2).T @ whole.numpy())
        return whole[self.free].numpy()

    def _schur(self, p: int, viscosity: torch.Tensor, speed: Sequence[torch.Tensor]) -> Schur:
        tables, ids = self.tables[p], self.places.ids
        n = len(self.names)
        free = np.flatnonzero(~self.fixed_mask.reshape(-1, n)[:, p])
        places = np.concatenate([[0], free]) if self.floating[p] else free
        T = None if self.links is None else self.links.ties.matrix[p::n][:, p::n]

        def assembled(local: torch.Tensor) -> scipy.sparse.csr_matrix:
            values = scatter(local, self._entries, ids.nnz).detach().numpy()
            whole = scipy.sparse.csr_matrix((values, ids.indices, ids.indptr), ids.shape)
            whole = whole if T is None else (T.T @ whole @ T).tocsr()
            return whole[places][:, places].tocsr()

        mass = assembled(_paired(self.cells, tables.values, tables.values, 1 / viscosity))
        if not any(bool((v != 0).any()) for v in speed):
            return Schur(mass, None)
        w = torch.stack(list(torch.broadcast_tensors(*speed)), -1) / viscosity[..., None]
        return Schur(mass, assembled(-_carried(self.cells, tables.values, tables.slopes, w).mT))

    def _check_parts(self) -> None:
        if parts_of(self.mesh, owners(self.sides, self.mesh)).max() > 0:
            raise InputError(
                "the mesh has separate parts and nothing fixes u on them: give a dirichlet or "
                "robin condition on each",
                "problem.boundary",
            )

    @cached_property
    def _turned(self) -> torch.Tensor:
        """For every entry of the block pattern the place of its mirror image."""
        ids = self._blocks
        places = scipy.sparse.csr_matrix(
            (np.arange(ids.nnz), ids.indices, ids.indptr), shape=ids.shape
        )
        mirrored = places.T.tocsr()
        mirrored.sort_indices()
        return torch.from_numpy(np.asarray(mirrored.data, dtype=np.int64))

    @cached_property
    def _slots(self) -> dict[str, tuple[int, int]]:
        """By the name of a value or slope its field's number, and 0 or the axis."""
        return {
            f"{name}{axis}": (j, b)
            for j, name in enumerate(self.names)
            for b, axis in enumerate(("", *self.axes))
        }

    def _diverged(
        self,
        i: int,
        slopes: Mapping[tuple[int, int, int, int], torch.Tensor],
        full: torch.Tensor,
        t: float,
    ) -> dict[int, torch.Tensor]:
        """Local matrices of -int (tau b . grad v) div dF of field i, by the fields it changes with.

        What the derivatives at points do not see: div F at a point is of F at all of an element.
        """
        cells, d, found = self.cells, len(self.axes), {}
        point = self._point(cells, self._state(full), t)
        tested = cells.measure[..., None] * along(cells, self._tested_along(i, point))
        for j in sorted({q for p, a, q, _ in slopes if p == i and a}):
            own, flux = replace(cells, tables=self.tables[j]), []
            slope = slope_of(own)
            for a in range(1, d + 1):
                terms = [
                    v[..., None] * (own.tables.values if b == 0 else slope[..., b - 1])
                    for b in range(d + 1)
                    if (v := slopes.get((i, a, j, b))) is not None
                ]
                flux.append(sum(terms[1:], terms[0]) if terms else torch.zeros_like(slope[..., 0]))
            carried = torch.stack(list(torch.broadcast_tensors(*flux)), -1).movedim(-2, -4)
            strong = divergence(self.mesh, cells, carried).movedim(-3, -1)
            found[j] = -(tested.mT @ strong)
        return found

    def _derivatives(
        self, full: torch.Tensor, t: float
    ) -> tuple[
        dict[tuple[int, int, int, int], torch.Tensor], dict[tuple[int, int, int, int], torch.Tensor]
    ]:
        """The derivatives of every -s and F at the quadrature points, and of what SUPG adds to F.

        By (i, a, j, b): of field i's -s (a = 0) or F_a, by field j's value (b = 0) or slope b.
        """
        state = self._state(full)
        names, values = tuple(state), tuple(state.values())
        point = self._point(self.cells, state, t)
        given_by = {i: self._diverging(self.balances[i].law.at(point)[0]) for i in self.streams}

        def outputs(*given: torch.Tensor) -> list[torch.Tensor]:
            mine = {**point.state, **dict(zip(names, given, strict=True))}
            traced = any(v.is_leaf and v.requires_grad for v in given)
            here = replace(point, state=mine, traced=traced, shared={})
            found, sources = [], []
            for balance in self.balances:
                flux, source = balance.law.at(here)
                found += [-source, *flux]
                sources.append(source)
            for i in sorted(self.streams):
                left = -sources[i] - given_by[i]
                found += (self._tested_along(i, here) * left[..., None]).unbind(-1)
            return found

        derived: dict[tuple[int, int, int, int], torch.Tensor] = {}
        width = len(self.axes) + 1
        wanted = [
            [name in (b.law.flux_names if a else b.law.source_names) for name in names]
            for b in self.balances
            for a in range(width)
        ]
        for i in sorted(self.streams):
            law = self.balances[i].law
            own = law.flux_names | law.source_names
            wanted += [[name in own for name in names] for _ in self.axes]
        streamed: dict[tuple[int, int, int, int], torch.Tensor] = {}
        places = [(i, a) for i in range(len(self.balances)) for a in range(width)]
        places += [(i, a) for i in sorted(self.streams) for a in range(1, width)]
        for k, (place, row) in enumerate(
            zip(places, pointwise(outputs, values, wanted), strict=True)
        ):
            into = derived if k < width * len(self.balances) else streamed
            for name, slope in zip(names, row, strict=True):
                if slope is not None:
                    into[(*place, *self._slots[name])] = slope
        return derived, streamed

    def _local(
        self, derived: Mapping[tuple[int, int, int, int], torch.Tensor]
    ) -> dict[tuple[int, int], torch.Tensor]:
        """Local matrices (*batch, k, N, N) by block, of pointwise derivatives."""
        inverse, found = self.cells.inverse, {}
        assert inverse is not None
        d = len(self.axes)
        for i, j in sorted({(i, j) for i, _, j, _ in derived}):
            own = {(a, b): v for (p, a, q, b), v in derived.items() if (p, q) == (i, j)}
            test, trial = self.tables[i], self.tables[j]
            parts: list[torch.Tensor] = []
            if (0, 0) in own:
                parts.append(_paired(self.cells, test.values, trial.values, own[0, 0]))
            row = [own.get((0, b)) for b in range(1, d + 1)]
            if any(v is not None for v in row):
                parts.append(_carried(self.cells, test.values, trial.slopes, _vector(row)))
            column = [own.get((a, 0)) for a in range(1, d + 1)]
            if any(v is not None for v in column):
                parts.append(_carried(self.cells, trial.values, test.slopes, _vector(column)).mT)
            square = [[own.get((a, b)) for b in range(1, d + 1)] for a in range(1, d + 1)]
            if any(v is not None for line in square for v in line):
                parts.append(_diffused(self.cells, test.slopes, trial.slopes, _matrix(square)))
            if parts:
                found[i, j] = sum(parts[1:], parts[0])
        return found

    def _of_sides(self, full: torch.Tensor, t: float) -> list[tuple[Side, int, int, torch.Tensor]]:
        """The derivatives of alpha u - g of field i by field j at the sides' points."""
        data, found = self.data.at_time(t), []
        for side, balance, stated in self._natural():
            i = self.names.index(balance.name)
            named = any(side is s and balance is b for s, b, _ in self.of_state)
            if not named:
                if not is_zero(stated.alpha):
                    alpha = evaluate(stated.alpha, side.facets, data, stated.alpha_key)
                    found.append((side, i, i, alpha))
                continue
            state = self._on_side(side, full)
            part = side.facets

            def gap(*values: torch.Tensor, stated: Stated = stated, part: Quadrature = part,
                    own: str = balance.name) -> torch.Tensor:  # fmt: skip
                here = dict(zip(self.names, values, strict=True))
                alpha = evaluate(stated.alpha, part, data, stated.alpha_key, state=here)
                return alpha * here[own] - evaluate(stated.g, part, data, stated.g_key, state=here)

            values = tuple(state.values())
            used = free_names((stated.alpha, stated.g), self.problem.parameters) | {balance.name}
            (row,) = pointwise(lambda *v: [gap(*v)], values, [[n in used for n in self.names]])
            found += [(side, i, j, slope) for j, slope in enumerate(row) if slope is not None]
        return found

    # All of it.

    def potential(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """The energy, where the only field has one."""
        full = self.lift(x, t)
        point = self._point(self.cells, self._state(full), t)
        energy = self.balances[0].energy
        assert energy is not None
        total = (energy(point) * self.cells.measure).sum((-2, -1))
        for side, _, stated in self._natural():
            u = side.facets.at_points(full)
            data = self.data.at_time(t)
            alpha = evaluate(stated.alpha, side.facets, data, stated.alpha_key)
            g = evaluate(stated.g, side.facets, data, stated.g_key)
            total = total + ((alpha * u * u / 2 - g * u) * side.facets.measure).sum((-2, -1))
        return total

    @torch.no_grad()
    def remarks(self, x: torch.Tensor, t: float) -> tuple[str, ...]:
        """Where the equation is not elliptic at a state, and where advection dominates."""
        (derived, _), found = self._derivatives(self.lift(x, t), t), list[str]()
        d = self.mesh.dimension
        for i, balance in enumerate(self.balances):
            own = {(0, a, 0, b): v for (p, a, q, b), v in derived.items() if p == q == i}
            if any(a and b for _, a, _, b in own):
                least = torch.linalg.eigvalsh(_slope_matrix(own, d)).amin(-1)
                carried = [derived.get((i, 0, i, b)) for b in range(1, d + 1)]
                if not balance.pushes and any(v is not None for v in carried):
                    speed = torch.linalg.vector_norm(_vector(carried), dim=-1)
                    size = self.cells.scale ** (1 / d)
                    peclet = float((size * speed / (2 * least.clamp(min=_TINY))).max())
                    # Of a speed that is known it was said before.
                    if peclet > 1 and not self._told(balance):
                        able = isinstance(balance.law, CoefficientLaw) and is_zero(balance.m)
                        found.append(dominates(peclet, i in self.streams, balance.name, able))
                if bool((least < 0).any()):
                    place = describe(least, least < 0, self.cells.points, "the least")
                    found.append(
                        Doubt(
                            f"{balance.name}: not elliptic at the answer, which may be no solution "
                            f"of a well-posed problem: of dF/d(grad {balance.name}) {place}"
                        )
                    )
        return tuple(found)

    def _first(self) -> tuple[torch.Tensor, ...]:
        problem, rows = self.problem, []
        if problem.time is None:
            return ()
        if self.balances[0].recall is not None:
            return (torch.zeros(self.count, dtype=torch.float64),)
        several = len(self.names) > 1
        orders = 2 if any(not is_zero(b.m) for b in self.balances) else 1
        known = [b.name for b in self.balances if not (is_zero(b.d) and is_zero(b.m))]
        known += [f"{b.name}t" for b in self.balances if not is_zero(b.m)]
        if not known:
            raise InputError(
                "the equation has no time derivative: give d (before u_t) or m (before u_tt)", _KEY
            )
        for name in () if is_zero(problem.initial) else problem.first:
            if name not in known:
                raise InputError(
                    f"the equation has no initial '{name}'{did_you_mean(name, known)}",
                    f"problem.initial.{name}",
                )
        missing = [b.name for b in self.balances if b.name in known and b.name not in problem.first]
        at_rest = is_zero(problem.initial)
        if missing and not at_rest:
            stated = ", ".join(f"{b.name}: ..." for b in self.balances if b.name in known)
            raise InputError(
                f"give {', '.join(missing)} at the start: initial: {{{stated}}}", "problem.initial"
            )
        everywhere = at_nodes(self.mesh, np.arange(self.mesh.shape[0]))
        data = self.data.at_time(self.start)
        for order in range(orders):
            values = [
                evaluate(
                    problem.first.get(b.name + "t" * order, 0.0),
                    everywhere,
                    data,
                    f"problem.initial.{b.name}{'t' * order}",
                )[..., 0]
                for b in self.balances
            ]
            values = [v.expand(*v.shape[:-1], self.mesh.shape[0]) for v in values]
            row = torch.stack(list(torch.broadcast_tensors(*values)), -2) if several else values[0]
            rows.append(self.restrict(row).contiguous())
        return tuple(rows)

    def _guess(self) -> LinearSystem | None:
        """The problem linearised about zero, given values aside, which may be far from it."""
        if self.affine or self.problem.time is not None:
            return None
        rest = torch.zeros(self.embedding.shape, dtype=torch.float64)
        values, slopes, *_ = self._entries_of(rest, self.start)
        known, pushed = self.known(self.start), self.whole(rest, self.start)
        if len(self.names) == 1 and not _positive(slopes, self.mesh.dimension):
            # What conducts nothing at zero, as u grad u, begins with what is harmonic instead.
            if not self._any_given:
                return None
            one = torch.ones(1, 1, dtype=torch.float64)
            along = range(1, self.mesh.dimension + 1)
            values = self._scattered(self._local({(0, a, 0, a): one for a in along}), 1)
            pushed = torch.zeros_like(pushed)
        b = -self.gather(pushed + self._product(values, known))
        if not bool(torch.isfinite(values).all()) or not bool(torch.isfinite(b).all()):
            return None
        A = self._matrix_of(values, False, False, saddle=self._saddle(slopes))
        return LinearSystem(A, b, self.mesh, lambda x: self.lift(x, self.start), self.restrict)

    def system(self) -> NonlinearSystem:
        """As solvers take it."""
        self.check_posed()
        first, zero = self._first(), torch.zeros(self.count, dtype=torch.float64)
        everywhere = not any(is_zero(b.d) and is_zero(b.m) for b in self.balances)
        masses = [None if v is None else self._mass_matrix(v, everywhere) for v in self._masses]
        lead: list[tuple[int, ...]] = [self.residual(zero, self.start).shape[:-1]]
        lead += [v.shape[:-1] for v in first]
        lead += [m.batch for m in masses if m is not None]
        alone = len(self.names) == 1
        # The components of one vector are judged together: one of them may be at rest.
        keys = [b.key for b in self.balances]
        moving = np.array(
            [-1 if is_zero(b.d) and is_zero(b.m) else keys.index(b.key) for b in self.balances]
        )
        numbers = np.tile(moving, self.mesh.shape[0])[~self.fixed_mask]

        made = NonlinearSystem(
            residual=self.residual,
            linearise=self.linearise,
            diffusion=self.linearise,
            shape=(self.count,),
            batch=tuple(torch.broadcast_shapes(*lead)),
            on=self.mesh,
            lift=self.lift,
            restrict=self.restrict,
            first=first,
            mass=masses[0],
            inertia=masses[1],
            storage=self._storage(),
            potential=self.potential if alone and self.balances[0].energy is not None else None,
            affine=self.affine,
            steady=self.steady,
            guess=self._guess(),
            symmetric=False,
            notes=tuple(self.data.notes),
            remarks=self.remarks,
            outside=lambda: tuple(sorted(self.data.left)),
            fields=self.names,
            joint=not alone,
            groups=None if alone else torch.from_numpy(numbers),
        )
        recall = self.balances[0].recall
        return made if recall is None else self._remembering(made, recall)

    # Bodies that remember their loads.

    def _remembering(self, plain: NonlinearSystem, recall: Recall) -> NonlinearSystem:
        """The system of the states x = (u, h); u and h are judged apart."""
        shape = (*self.cells.points[0].shape, recall.count)
        h = torch.zeros(shape, dtype=torch.float64)
        known = self.residual(plain.first[0], Moment(self.start, h))
        plain = replace(plain, batch=tuple(known.shape[:-1]))
        history = History(
            plain, shape, partial(self._advance, recall), self.forces, partial(self._strain, recall)
        )
        groups = torch.arange(self.count + h.numel()) >= self.count

        def force(x: torch.Tensor, t: float) -> torch.Tensor:
            u, h = history.parted(x)
            left = plain.residual(u, Moment(t, h))
            return history.joined(left, torch.zeros_like(h))

        def linearise(x: torch.Tensor, t: float) -> PatternMatrix:
            u, h = history.parted(x)
            return self.linearise(u, Moment(t, h))

        return replace(
            plain,
            residual=force,
            linearise=linearise,
            diffusion=linearise,
            shape=(self.count + h.numel(),),
            lift=lambda x, t: self.lift(history.parted(x)[0], t),
            restrict=lambda value: history.joined(self.restrict(value), h),
            first=tuple(history.joined(u, h) for u in plain.first),
            guess=None,
            remarks=lambda x, t: _strained(history.strain(history.parted(x)[0], t)),
            groups=groups.to(torch.int64),
            history=history,
        )

    def _advance(
        self,
        recall: Recall,
        u: torch.Tensor,
        t: float,
        v: torch.Tensor,
        s: float,
        h: torch.Tensor,
        pieces: int,
    ) -> torch.Tensor:
        """What is remembered after the straight way from u at t to v at s, h before it."""
        start, end = self.lift(u, t), self.lift(v, s)
        for k in range(1, pieces + 1):
            full = end if k == pieces else torch.lerp(start, end, k / pieces)
            now = Moment(s if k == pieces else t + k / pieces * (s - t), h)
            h = recall.after(self._point(self.cells, self._state(full), now))
        return h

    def _strain(self, recall: Recall, u: torch.Tensor, t: float) -> torch.Tensor:
        return recall.strain(self._point(self.cells, self._state(self.lift(u, t)), t))

    def forces(self, u: torch.Tensor, t: float) -> torch.Tensor:
        """||int F . grad phi|| over all nodes, (*batch)."""
        laws = self._laws(self._state(self.lift(u, t)), t)
        total = torch.zeros((), dtype=torch.float64)
        for (flux, _), tables in zip(laws, self.tables, strict=True):
            local = scatter(
                tested(self.cells, flux, tables.slopes), self.cells.nodes, self.mesh.shape[0]
            )
            total = total + local.square().sum(-1)
        return total.sqrt()


def _strained(strain: torch.Tensor) -> tuple[str, ...]:
    """A doubt where strains are not small, as the theory takes them to be."""
    most = float(strain.abs().max())
    if not most > _SMALL_STRAIN:
        return ()
    return (
        Doubt(
            f"strains reach {most:.2g}: the theory is of small ones, and beyond {_SMALL_STRAIN:g} "
            "the change of shape counts"
        ),
    )


def pointwise(
    function: Callable[..., list[torch.Tensor]],
    values: Sequence[torch.Tensor],
    wanted: Sequence[Sequence[bool]],
) -> list[list[torch.Tensor | None]]:
    """Of every output of a function of each point alone the derivatives by ``values`` there.

    Backwards, one sweep an output, all points at once; forwards, one for each value, where a graph
    is kept. ``wanted``: by output and value; None for the rest. Values (*batch, k, Q); the
    derivatives have the batch of what is read as well.
    """
    if torch.is_grad_enabled():
        known = (*values, *function(*values))
        if any(v.requires_grad for v in known):
            return _forwards(function, tuple(values), wanted)
    rows: list[list[torch.Tensor | None]] = []
    with local_graph():
        given = [v.detach().requires_grad_() for v in values]
        found = function(*given)
        shape = torch.broadcast_shapes(*(v.shape for v in given))
        if any(out.shape[:-2] not in ((), shape[:-2]) for out in found):
            # A sum over what is read would add up the derivatives of samples.
            shape = torch.broadcast_shapes(shape, *(out.shape for out in found))
            given = [v.detach().expand(shape).clone().requires_grad_() for v in values]
            found = function(*given)
        for out, needs in zip(found, wanted, strict=True):
            row: list[torch.Tensor | None] = [None] * len(given)
            asked = [k for k, need in enumerate(needs) if need]
            slopes: Sequence[torch.Tensor | None] = [None] * len(asked)
            if asked and out.requires_grad:
                own = [given[k] for k in asked]
                slopes = torch.autograd.grad(out.sum(), own, retain_graph=True, allow_unused=True)
            for k, slope in zip(asked, slopes, strict=True):
                row[k] = torch.zeros(1, 1, dtype=torch.float64) if slope is None else slope
            rows.append(row)
    return rows


def _forwards(
    function: Callable[..., list[torch.Tensor]],
    values: tuple[torch.Tensor, ...],
    wanted: Sequence[Sequence[bool]],
) -> list[list[torch.Tensor | None]]:
    rows: list[list[torch.Tensor | None]] = [[None] * len(values) for _ in wanted]
    for k in range(len(values)):
        if not any(needs[k] for needs in wanted):
            continue
        tangents = tuple(
            torch.ones_like(v) if q == k else torch.zeros_like(v) for q, v in enumerate(values)
        )
        along = torch.func.jvp(function, values, tangents)[1]
        for row, needs, slope in zip(rows, wanted, along, strict=True):
            if needs[k]:
                row[k] = slope.expand(torch.broadcast_shapes(slope.shape, (1, 1)))
    return rows


def _tables(tables: Tables, mesh: Mesh, degree: int | None) -> Tables:
    """Of a field of lower degree: the functions of the vertices, and zero for the others."""
    if degree is None or degree == mesh.degree:
        return tables
    values, slopes = torch.zeros_like(tables.values), torch.zeros_like(tables.slopes)
    low = basis_at(reference(mesh, degree), tables.points.numpy().T)
    count = low[0].shape[-1]
    values[:, :count], slopes[:, :count] = (torch.from_numpy(v.copy()) for v in low)
    return Tables(tables.points, tables.weights, values, slopes)


def _derivative(function: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
    def derived(t: torch.Tensor) -> torch.Tensor:
        along: torch.Tensor = torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]
        return along

    return derived


def _paired(
    part: Quadrature, test: torch.Tensor, trial: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """int c phi_i psi_j, local: (*batch, k, N, N)."""
    return _summed(c * part.measure, torch.einsum("qi,qj->qij", test, trial))


def _carried(
    part: Quadrature, test: torch.Tensor, slopes: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """int (b . grad psi_j) phi_i for b (*batch, k, Q, d)."""
    speed = pulled_back(part, b) * part.measure[..., None]
    return _summed(speed, torch.einsum("qi,qjl->qlij", test, slopes))


def _diffused(
    part: Quadrature, test: torch.Tensor, trial: torch.Tensor, K: torch.Tensor
) -> torch.Tensor:
    """int (K grad psi_j) . grad phi_i for K (*batch, k, Q, d, d), which need not be symmetric."""
    assert part.inverse is not None
    inverse = part.inverse
    metric = (inverse @ K @ inverse.mT) * part.measure[..., None, None]
    return _summed(metric, torch.einsum("qik,qjl->qklij", test, trial))


def _summed(varying: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """sum over (q, ...) of (*batch, k, Q, ...) and (Q, ..., N, N)."""
    inner = table.ndim - 2
    count = table.shape[-1]
    flat = varying.flatten(-inner) @ table.reshape(-1, count * count)
    found: torch.Tensor = flat.unflatten(-1, (count, count))
    return found


def _divided(mass: PatternMatrix, right: torch.Tensor, adjoint: bool = False) -> torch.Tensor:
    """mass^-1 right, of a mass matrix that is positive where it has rows."""
    matrices, flat = mass.detach().matrices(), right.detach().reshape(-1, right.shape[-1]).numpy()
    rows = []
    for k, row in enumerate(flat):
        matrix = matrices[k % len(matrices)]
        diagonal = matrix.diagonal()
        alive = np.flatnonzero(diagonal > 0)
        inner, x = matrix[alive][:, alive], np.zeros_like(row)
        if mass.symmetric:
            M = scipy.sparse.diags(1 / diagonal[alive])
            x[alive] = scipy.sparse.linalg.cg(inner, row[alive], rtol=1e-13, atol=0.0, M=M)[0]
        else:
            factors = scipy.sparse.linalg.splu(inner.tocsc())
            x[alive] = factors.solve(row[alive], "T" if adjoint else "N")
        rows.append(x)
    return torch.from_numpy(np.stack(rows)).reshape(right.shape)


def _summed_up(
    first: Mapping[tuple[int, int, int, int], torch.Tensor],
    second: Mapping[tuple[int, int, int, int], torch.Tensor],
) -> dict[tuple[int, int, int, int], torch.Tensor]:
    found = dict(first)
    for place, value in second.items():
        found[place] = found[place] + value if place in found else value
    return found


def _mean(entries: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Of entries that are known, zero for the others."""
    return _vector(entries).mean(-1).detach()


def _vector(entries: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Entries that are known, zero for the others, on a new last axis."""
    zero = torch.zeros(1, 1, dtype=torch.float64)
    rows = [zero if v is None else v for v in entries]
    return torch.stack(list(torch.broadcast_tensors(*rows)), -1)


def _matrix(rows: Sequence[Sequence[torch.Tensor | None]]) -> torch.Tensor:
    return torch.stack(list(torch.broadcast_tensors(*(_vector(row) for row in rows))), -2)


def _slope_matrix(slopes: Mapping[tuple[int, int, int, int], torch.Tensor], d: int) -> torch.Tensor:
    """dF/d(grad u) of the only field, its symmetric part, (*batch, k, Q, d, d)."""
    K = _matrix([[slopes.get((0, a, 0, b)) for b in range(1, d + 1)] for a in range(1, d + 1)])
    return (K + K.mT) / 2


def _positive(slopes: Mapping[tuple[int, int, int, int], torch.Tensor], d: int) -> bool:
    """Whether dF/d(grad u) of the only field is positive definite at all points."""
    K = _slope_matrix(slopes, d)
    minors = [torch.linalg.det(K[..., :n, :n]) for n in range(1, d + 1)]
    return all(bool((minor > 0).all()) for minor in minors)
