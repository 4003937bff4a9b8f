"""How far any v is from the solution of the differential equation: two-sided energy bounds.

Let -div(K grad u) + c u = f, u = g on Dirichlet sides, alpha u + n . K grad u = h on the others,
and |e|_E^2 = int K |grad e|^2 + c e^2, and alpha e^2 over Robin sides. For any flux s in H(div) and
any v that is g on the Dirichlet sides, with e = u - v,

    |e|_E^2 = int (s - K grad v) . grad e + int R e + sum over sides of r e,
    R = f - c v + div s,        r = h - alpha v - n . s

(Prager and Synge 1947; Ern and Vohralik 2015). s is the lowest-order Raviart-Thomas function of a
solution by finite volumes on the grid's cells, made to balance exactly
(:mod:`sciml.discretization.volumes.equilibrium`), so that where c = 0 R has no mean over a cell and
r none over a face of a Neumann side. In each cell P let R_0 be R less its mean R_1, and r_0, r_1
the same of r. Then, K being at least K_min there, with h_n a side's normal width,

    F_P = |K^{-1/2} (s - K grad v)|_P,
    O_P = min(C / K_min^{1/2}, c_min^{-1/2}) |R_0|_P + sum over faces of T |r_0|,
    B_P^2 = |R_1|_P^2 / c_min + sum over faces of |r_1|^2 / alpha_min,
    |e|_E^2 <= sum over cells of (F_P + O_P)^2 + B_P^2

with C = max_a h_a / (pi K_a^{1/2}) the exact constant of Poincare's inequality on a box and
T^2 = C^2 / h_n + 2 C / K_n^{1/2}, since w(0)^2 = int_0^h (w^2 / h - 2 (1 - s/h) w w') ds.

Where v misses g by delta, let z be delta on the Dirichlet sides and orthogonal, in the energy, to
all w that vanish there. Then e - z is such a w, the bound above is that of a(e, w) / |w|_E, so of
|e - z|_E, and |e|_E^2 = |e - z|_E^2 + |z|_E^2, where |z|_E is at most |psi|_E of any extension
psi of delta, here into the cells beside the side.

v of nodal values is the piecewise multilinear function with the boundary values set. For a smooth
function v, such as a network, K grad v is in H(div) itself, and s = K grad v + t with
div t = -(f + div K grad v - c v) on the mean of each cell: t is the flux of the error's own
equation, and the bound falls with the residual and not with the grid.

Below, for any w in H1 that vanishes on the Dirichlet sides, a(e, w) / |w|_E <= |e|_E, and a(e, w)
is the residual of v tested with w. For w the multilinear function of a solution on twice as many
nodes is taken, less v; for a smooth v the solution of the error's equation.

All integrals are by three Gauss points along each axis of a cell: exact for coefficients that are
polynomials there, and beyond that accurate as long as they do not jump inside cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from sciml.core.errors import IncompatibleData, InputError
from sciml.core.problem.condition import Condition, Robin, flux_data
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import SIDES, Grid
from sciml.core.problem.interpolation import on_box
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.certificate import PdeCertificate, relative
from sciml.core.run.solution import Solution
from sciml.discretization.points.jet import jet_of
from sciml.discretization.points.strong import StrongForm, strong_form
from sciml.discretization.volumes.equilibrium import Cells, End, cells_of, equilibrium
from sciml.discretization.volumes.fluxes import diagonal_entries
from sciml.discretization.volumes.layout import at_end
from sciml.solvers.linear.equilibrated_mesh import bounded_elements, certify_on_mesh
from sciml.solvers.linear.krylov import CG
from sciml.solvers.linear.multigrid import Multigrid

Function = Callable[[torch.Tensor], torch.Tensor]

_KEY = "problem.equation"
_GAUSS = tuple(
    ((1 + float(x)) / 2, float(w) / 2)
    for x, w in zip(*np.polynomial.legendre.leggauss(3), strict=True)
)
# Points of Gauss and Lobatto in [0, 1]: deltas are polynomials of degree 4 along an edge.
_LOBATTO = (0.0, 0.5 - math.sqrt(3 / 28), 0.5, 0.5 + math.sqrt(3 / 28), 1.0)
_LOBATTO_WEIGHTS = (1 / 20, 49 / 180, 16 / 45, 49 / 180, 1 / 20)
_BALANCED, _CANDIDATE = 1e-10, 1e-5  # rtol of the fluxes, and of the function to test with
_EPS = 16 * float(np.finfo(np.float64).eps)
_MEETS = 1e-9  # of the data's size: Dirichlet data of two sides that differ more jump at a corner
_BESIDE = 1e-9  # of a cell's widths, inside its faces
_CHUNK = 2**16  # points at which a function is evaluated at once


@torch.no_grad()
def certify_pde(
    v: torch.Tensor | np.ndarray | Solution | Function, problem: Problem, on: Grid | Mesh
) -> PdeCertificate:
    """Two-sided bounds of |u - v|_E, u the solution of the differential equation.

    ``v``: values (*batch, *grid), the multilinear function of the nodes; of a grid of cells they
    are carried to the nodes first. Or a differentiable function of points (N, d), or a Solution
    that holds one. Raises InputError where the bound does not exist: advection, an off-diagonal K,
    negative c or alpha, obstacles, time, complex or nonlinear problems, and what
    :mod:`sciml.solvers.linear.equilibrated_mesh` cannot.
    """
    if isinstance(on, Mesh):
        _refuse(problem, tensor=True)
        return certify_on_mesh(v, problem, on)
    here = _bounded_cells(problem, on)
    function = v.function if isinstance(v, Solution) else v if callable(v) else None
    trial: _Trial = _Smooth.of(function, here) if function is not None else _Nodal.of(v, here, on)
    upper = _upper(trial, here)
    torn = _torn(trial, here)
    low = torch.zeros((), dtype=torch.float64) if torn else _tested(*trial.candidate())
    return _certificate(trial, replace(upper, reason=torn or upper.reason), low, here)


@torch.no_grad()
def check_bounded(problem: Problem, on: Grid | Mesh) -> None:
    """Raise InputError where no bound exists, as :func:`certify_pde` does; nothing is solved."""
    if isinstance(on, Mesh):
        _refuse(problem, tensor=True)
        bounded_elements(problem, on)
        return
    _bounded_cells(problem, on)


def _bounded_cells(problem: Problem, on: Grid) -> Cells:
    _refuse(problem, tensor=False)
    here = cells_of(problem, on.cells.bind(problem.box))
    _check_signs(here)
    return here


def _refuse(problem: Problem, tensor: bool) -> None:
    def no(what: str, key: str) -> InputError:
        return InputError(f"the certificate of the differential equation {what}", key)

    form = problem.form
    if problem.time is not None:
        raise no("is for steady problems", "problem.time")
    if problem.obstacle is not None:
        raise no("is for boxes without an obstacle", "problem.obstacle")
    if not problem.linear:
        raise no("is for linear problems", _KEY)
    if form.b is not None and not all(isinstance(b, (int, float)) and b == 0 for b in form.b):
        raise no("needs a symmetric equation, without advection b", f"{_KEY}.b")
    if form.energy is not None:
        raise no("is for equations given by their coefficients", f"{_KEY}.energy")
    if (
        not tensor
        and isinstance(form.K, (list, tuple))
        and any(
            isinstance(row, (list, tuple))
            and any(i != j and not _zero(entry) for j, entry in enumerate(row))
            for i, row in enumerate(form.K)
        )
    ):
        raise no("needs a scalar or a diagonal K", f"{_KEY}.K")
    for name, condition in problem.boundary.items():
        if condition.kind not in ("dirichlet", "neumann", "robin", "periodic"):
            raise no(f"has no {condition.kind} sides", f"problem.boundary.{name}")


def _zero(entry: Any) -> bool:
    return isinstance(entry, (int, float)) and entry == 0


def _check_signs(here: Cells) -> None:
    middle = [0.5] * here.layout.dimension
    if bool((here.inside(here.problem.form.c, f"{_KEY}.c", middle) < 0).any()):
        raise InputError(
            "the energy norm needs c of at least 0, and it is negative somewhere", f"{_KEY}.c"
        )
    for end, condition, key in _flux_sides(here):
        places = _points(here.layout.dimension, end[0])
        alphas = [_side(condition, key, here, end, place)[0] for place, _ in places]
        least, most = reduce(torch.minimum, alphas), reduce(torch.maximum, alphas)
        if bool((least < 0).any()):
            raise InputError("the energy norm needs alpha of at least 0", f"{key}.alpha")
        # Where alpha ends within a face nothing bears the mean of what v misses there.
        if bool(((least == 0) & (most > 0)).any()):
            raise InputError(
                "alpha must be positive, or zero, on the whole of a face of a cell; let it change "
                "between cells",
                f"{key}.alpha",
            )
    if any(c.kind == "dirichlet" for _, c, _ in _sides(here)):
        return
    places = _points(here.layout.dimension)
    cs = [here.inside(here.problem.form.c, f"{_KEY}.c", place) for place, _ in places]
    least, most = reduce(torch.minimum, cs), reduce(torch.maximum, cs)
    if bool(((least == 0) & (most > 0)).any()):
        raise InputError(
            "c must be positive, or zero, in the whole of a cell where no side has Dirichlet "
            "values; let it change between cells",
            f"{_KEY}.c",
        )


# --- The function that is judged ------------------------------------------------------------------


class _Trial(Protocol):
    """v in the cells; ``of_error``: whether the flux to be found is that of v's error alone."""

    of_error: ClassVar[bool]

    def at(self, place: Sequence[float]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The value and the slopes at the same place of every cell."""

    def on_side(self, end: End, place: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
        """The value on a side, and of n . K grad v what is no part of the flux to be found."""

    def remainder(self, place: Sequence[float]) -> torch.Tensor:
        """What the flux to be found must balance: f - c v, or with div K grad v, besides."""

    def gap(self, flux: torch.Tensor, K: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """s - K grad v along one axis, from the flux that was found."""

    def at_nodes(self, end: End) -> torch.Tensor:
        """The values at the nodes of a side, its axis of size 1."""

    def candidate(self) -> tuple[_Trial, Cells, torch.Tensor]:
        """v and nodal values near its error, on the same cells, to test the residual with."""


@dataclass(frozen=True)
class _Nodal:
    """The multilinear function of ``values`` (*batch, *nodes), Dirichlet values set."""

    values: torch.Tensor
    here: Cells
    of_error: ClassVar[bool] = False

    @classmethod
    def of(cls, v: Any, here: Cells, on: Grid) -> _Nodal:
        """From values on the grid."""
        value = torch.as_tensor(v.value if isinstance(v, Solution) else v).detach().cpu().double()
        d = here.layout.dimension
        shape = tuple(on.shape)
        if tuple(value.shape[value.ndim - d :]) != shape:
            raise InputError(
                f"v has shape {list(value.shape)}; it needs {list(shape)}, any batch dimensions "
                "first"
            )
        if not bool(torch.isfinite(value).all()):
            raise InputError("v holds a NaN or an infinity")
        if on.centring == "cell":
            box, nodes = here.layout.grid.box, [axis.edges for axis in here.layout.axes]
            mesh = [e.reshape([-1 if j == k else 1 for j in range(d)]) for k, e in enumerate(nodes)]
            value = on_box(value, mesh, box.lower, box.upper, "cell", here.problem.periodic)
        return cls(_with_boundary(value, here), here)

    def at(self, place: Sequence[float]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Of the multilinear function."""
        return multilinear(self.values, place, self.here.layout.grid.spacing)

    def on_side(self, end: End, place: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
        """The flux of v is no part of the balance."""
        axis, which = end
        value, _ = self.at([float(which) if k == axis else p for k, p in enumerate(place)])
        value = at_end(value, axis, self.here.layout.dimension, which)
        return value, torch.zeros_like(value)

    def remainder(self, place: Sequence[float]) -> torch.Tensor:
        """f - c v."""
        form = self.here.problem.form
        c = self.here.inside(form.c, f"{_KEY}.c", place)
        return self.here.inside(form.f, f"{_KEY}.f", place) - c * self.at(place)[0]

    def gap(self, flux: torch.Tensor, K: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """The flux that was found is s."""
        return flux - K * slope

    def at_nodes(self, end: End) -> torch.Tensor:
        """Those that are given."""
        return at_end(self.values, end[0], self.here.layout.dimension, end[1])

    def candidate(self) -> tuple[_Trial, Cells, torch.Tensor]:
        """The solution on twice as many nodes, less v."""
        lay, d = self.here.layout, self.here.layout.dimension
        twice = Grid(tuple(2 * n + 1 for n in lay.shape), domain=lay.grid.box)
        problem = _halved_cells(self.here)
        fine = cells_of(problem, twice.cells)
        values = self.values
        for k in range(d):
            values = _halved(values, values.ndim - d + k)
        solver = CG(preconditioner=Multigrid(), rtol=_CANDIDATE)
        found = solver.run(solver.init(problem, twice), initial=None).value.double()
        return _Nodal(values, fine), fine, _vanishing(found - values, fine)


@dataclass(frozen=True)
class _Smooth:
    """A function whose flux K grad v is in H(div) by itself; ``form`` is the equation at points."""

    function: Function
    here: Cells
    form: StrongForm
    known: dict[tuple[float, ...], tuple[torch.Tensor, ...]]
    of_error: ClassVar[bool] = True

    @classmethod
    def of(cls, function: Function, here: Cells) -> _Smooth:
        """A function of points (N, d) to (N, 1) or (N,)."""

        def column(points: torch.Tensor) -> torch.Tensor:
            value = function(points)
            return value if value.ndim == 2 else value[:, None]

        return cls(column, here, strong_form(here.problem), {})

    def _jets(self, place: Sequence[float]) -> tuple[torch.Tensor, ...]:
        """Value, slopes and residual in every cell, kept: they are asked for several times."""
        key = tuple(place)
        if key not in self.known:
            points = torch.stack(torch.broadcast_tensors(*self.here.points(place)), -1)
            rows = [self._look(part) for part in points.reshape(-1, points.shape[-1]).split(_CHUNK)]
            shape = self.here.layout.shape
            self.known[key] = tuple(
                torch.cat(column).reshape(shape) for column in zip(*rows, strict=True)
            )
        return self.known[key]

    def _look(self, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        jet = jet_of(self.function, points, self.form.pairs)
        residual = self.form.residual(points, jet)[:, 0].detach()
        slopes = jet.gradient[:, :, 0].unbind(0)
        return (jet.value[:, 0], *slopes, -residual)

    def at(self, place: Sequence[float]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Of the function itself."""
        value, *slopes, _ = self._jets(place)
        return value, slopes

    def on_side(self, end: End, place: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
        """With its own flux."""
        axis, which = end
        d, lay = self.here.layout.dimension, self.here.layout
        points = [
            at_end(p, axis, d, which) if k == axis else p
            for k, p in enumerate(
                self.here.points([float(which) if k == axis else p for k, p in enumerate(place)])
            )
        ]
        grid = torch.stack(torch.broadcast_tensors(*points), -1)
        shape = tuple(1 if k == axis else n for k, n in enumerate(lay.shape))
        jet = jet_of(self.function, grid.reshape(-1, d), ())
        K = _conductivities(self.here, place, end)[axis]
        slope = jet.gradient[axis, :, 0].reshape(shape)
        return jet.value[:, 0].reshape(shape), K * slope * (1.0 if which else -1.0)

    def remainder(self, place: Sequence[float]) -> torch.Tensor:
        """f + div K grad v - c v."""
        return self._jets(place)[-1]

    def gap(self, flux: torch.Tensor, K: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """The flux that was found is t alone."""
        return flux

    def at_nodes(self, end: End) -> torch.Tensor:
        """Of the function itself."""
        axis, which = end
        lines = [
            line.edges if k != axis else line.edges[[0, -1]][which : which + 1]
            for k, line in enumerate(self.here.layout.axes)
        ]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
        found = self.function(grid.reshape(-1, len(lines)))[:, 0].detach()
        return found.reshape(grid.shape[:-1])

    def candidate(self) -> tuple[_Trial, Cells, torch.Tensor]:
        """The solution of the error's own equation at the nodes."""
        lay, d = self.here.layout, self.here.layout.dimension
        nodes = Grid(tuple(n + 1 for n in lay.shape), domain=lay.grid.box)
        points = torch.stack(torch.meshgrid(*nodes.axes(), indexing="ij"), -1).reshape(-1, d)
        left = torch.cat([self._look(part)[-1] for part in points.split(_CHUNK)])
        problem = _asked(
            self,
            self.here,
            left.reshape(nodes.shape),
            lambda means, axis: _to_nodes(means, axis, d),
        )
        solver = CG(preconditioner=Multigrid(), rtol=_CANDIDATE)
        try:
            found = solver.run(solver.init(problem, nodes), initial=None).value.double()
        except IncompatibleData:
            # With no level given the residual's mean has to vanish; by quadrature it may not.
            found = torch.zeros(nodes.shape, dtype=torch.float64)
        return self, self.here, _vanishing(found, self.here)


def multilinear(
    values: torch.Tensor, place: Sequence[float], spacing: Sequence[float]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Value and slopes of nodal values (*batch, *nodes) at the same place of every cell."""
    d = len(place)
    value, slopes = values, list[torch.Tensor]()
    for k, (share, h) in enumerate(zip(place, spacing, strict=True)):
        slopes = [_between(part, k - d, share) for part in slopes]
        slopes.append(value.diff(dim=k - d) / h)
        value = _between(value, k - d, share)
    return value, slopes


def _between(values: torch.Tensor, dim: int, share: float) -> torch.Tensor:
    n = values.shape[dim]
    return values.narrow(dim, 0, n - 1) * (1 - share) + values.narrow(dim, 1, n - 1) * share


def _with_boundary(values: torch.Tensor, here: Cells) -> torch.Tensor:
    """Nodal values with those of Dirichlet sides set, and equal where an axis wraps."""
    lay, d = here.layout, here.layout.dimension
    given = [
        (end, _nodes_of_side(condition.dirichlet, key, here, end))
        for end, condition, key in _sides(here)
        if condition.kind == "dirichlet"
    ]
    lead = torch.broadcast_shapes(values.shape[:-d], *(g.shape[:-d] for _, g in given))
    values = values.expand(*lead, *values.shape[-d:]).clone()
    for (axis, end), g in reversed(given):
        at_end(values, axis, d, end).copy_(g)
    for k, wraps in enumerate(lay.periodic):
        if wraps:
            at_end(values, k, d, 1).copy_(at_end(values, k, d, 0).clone())
    return values


def _nodes_of_side(coefficient: Any, key: str, here: Cells, end: End) -> torch.Tensor:
    """Data at the nodes of a side, (*batch, *nodes), its axis of size 1; from the ends of faces."""
    axis, _ = end
    d = here.layout.dimension
    parts = {
        corner: here.on_side(coefficient, key, end, [float(c) for c in corner])
        for corner in product((0, 1), repeat=d)
        if not corner[axis]
    }
    for k in range(d):
        if k == axis:
            continue
        n = here.layout.shape[k]
        merged = {}
        for corner, low in parts.items():
            if corner[k]:
                continue
            high = parts[tuple(1 if j == k else c for j, c in enumerate(corner))]
            wide = low.expand(*low.shape[: low.ndim - d + k], n, *low.shape[low.ndim - d + k + 1 :])
            last = at_end(high, k, d, 1)
            shape = torch.broadcast_shapes(at_end(wide, k, d, 1).shape, last.shape)
            wide = wide.expand(*shape[: len(shape) - d + k], n, *shape[len(shape) - d + k + 1 :])
            merged[corner] = torch.cat([wide, last.expand(shape)], k - d)
        parts = merged
    return next(iter(parts.values()))


# --- The problem's data in cells ------------------------------------------------------------------


def _sides(here: Cells) -> Iterator[tuple[End, Condition, str]]:
    for axis in range(here.layout.dimension):
        for end in (0, 1):
            name = SIDES[axis][end]
            condition = here.problem.boundary[name]
            if condition.kind != "periodic":
                yield (axis, end), condition, f"problem.boundary.{name}.{condition.kind}"


def _flux_sides(here: Cells) -> Iterator[tuple[End, Condition, str]]:
    return ((e, c, key) for e, c, key in _sides(here) if c.kind != "dirichlet")


def _side(
    condition: Condition, key: str, here: Cells, end: End, place: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(alpha, h) on the faces of a side."""
    return flux_data(condition, key, lambda value, name: here.on_side(value, name, end, place))


def _conductivities(
    here: Cells, place: Sequence[float], end: End | None = None
) -> list[torch.Tensor]:
    """K per axis in cells, or on the faces of a side."""
    d = here.layout.dimension
    found = []
    for entry, tail in diagonal_entries(here.problem.form.K, d):
        key = f"{_KEY}.K{tail}"
        K = here.inside(entry, key, place) if end is None else here.on_side(entry, key, end, place)
        if bool((K <= 0).any()):
            raise InputError("K must be positive", key)
        found.append(K)
    return found


def _points(d: int, without: int | None = None) -> Iterator[tuple[list[float], float]]:
    """Gauss points of the unit cell and their weights; of a face, the axis ``without`` is at 0."""
    axes = [_GAUSS if k != without else ((0.0, 1.0),) for k in range(d)]
    for chosen in product(*axes):
        yield [x for x, _ in chosen], math.prod(w for _, w in chosen)


def _mean(here: Cells, value: Callable[[Sequence[float]], torch.Tensor]) -> torch.Tensor:
    d = here.layout.dimension
    total = sum(weight * value(place) for place, weight in _points(d))
    assert isinstance(total, torch.Tensor)
    return total.expand(*total.shape[:-d], *here.layout.shape).contiguous()


def _face_mean(
    here: Cells, end: End, value: Callable[[Sequence[float]], torch.Tensor]
) -> torch.Tensor:
    d, axis = here.layout.dimension, end[0]
    total = sum(weight * value(place) for place, weight in _points(d, axis))
    assert isinstance(total, torch.Tensor)
    shape = [1 if k == axis else n for k, n in enumerate(here.layout.shape)]
    return total.expand(*total.shape[:-d], *shape).contiguous()


def _torn(trial: _Trial, here: Cells) -> str:
    """Why a function is none on the torus; "" where it and its flux go on across every seam."""
    d = here.layout.dimension
    for axis, wraps in enumerate(here.layout.periodic):
        if not wraps:
            continue
        for place, _ in _points(d, axis):
            (v, q), (w, p) = (trial.on_side((axis, end), place) for end in (0, 1))
            for one, other in ((v, w), (-q, p)):
                gap = float((one - other).abs().max())
                if gap > _MEETS * float(one.abs().max() + other.abs().max()):
                    sides = " and ".join(SIDES[axis])
                    return f"v or its flux jumps by {gap:.1e} between {sides}, which are one"
    return ""


# --- Above ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Upper:
    """The parts of the bound per cell, (*batch, *cells), and what else it holds."""

    flux: torch.Tensor
    oscillation: torch.Tensor
    reaction: torch.Tensor
    boundary: torch.Tensor
    rounding: torch.Tensor
    energy: torch.Tensor
    reason: str = ""


def _upper(trial: _Trial, here: Cells) -> _Upper:
    balanced = equilibrium(_by_means(trial, here), here.layout.grid)
    solver = CG(preconditioner=Multigrid(), rtol=_BALANCED)
    found = solver.run(solver.init(balanced.system), initial=None)
    q = balanced.fluxes(balanced.system.restrict(found.value.double()))
    lay, d = here.layout, here.layout.dimension
    spacing = lay.grid.spacing
    volume = math.prod(spacing)
    density = [flux / (volume / h) for flux, h in zip(q, spacing, strict=True)]
    divergence = sum(
        flux.diff(dim=k - d) / h for k, (flux, h) in enumerate(zip(density, spacing, strict=True))
    )
    assert isinstance(divergence, torch.Tensor)
    zero = torch.zeros((), dtype=torch.float64)
    gap, first, second, energy, size = zero, zero, zero, zero, zero
    least, largest, c_least = [zero + math.inf] * d, [zero] * d, zero + math.inf
    for place, weight in _points(d):
        value, slopes = trial.at(place)
        K = _conductivities(here, place)
        c = here.inside(here.problem.form.c, f"{_KEY}.c", place)
        for k in range(d):
            flux = _between(density[k], k - d, place[k])
            gap = gap + weight * trial.gap(flux, K[k], slopes[k]).square() / K[k]
            energy = energy + weight * K[k] * slopes[k].square()
            size = size + weight * (flux.square() / K[k] + K[k] * slopes[k].square())
            least[k], largest[k] = torch.minimum(least[k], K[k]), torch.maximum(largest[k], K[k])
        energy = energy + weight * c * value.square()
        left = trial.remainder(place) + divergence
        first, second = first + weight * left, second + weight * left.square()
        c_least = torch.minimum(c_least, c)
    poincare = reduce(
        torch.maximum, [h / (math.pi * K.sqrt()) for h, K in zip(spacing, least, strict=True)]
    )
    swing = (volume * (second - first.square()).clamp(min=0)).sqrt()
    oscillation = torch.minimum(poincare, c_least.rsqrt()) * swing
    mean = volume * first.square()
    reaction = torch.where(c_least > 0, mean / c_least, zero)
    # Without c a cell's mean is rounding; a length of the box serves any constant of Friedrichs.
    reach = sum(b - a for a, b in zip(lay.grid.box.lower, lay.grid.box.upper, strict=True))
    thin = reduce(torch.minimum, [K.min() for K in least]).sqrt()
    lost = torch.where(c_least > 0, zero, mean).expand_as(gap)
    lost = lost.flatten(-d).sum(-1).sqrt() * 2 * reach / thin
    for end, condition, key in _flux_sides(here):
        swung, meant, heat = _on_face(trial, here, end, condition, key, density, poincare, least)
        oscillation = oscillation + swung
        reaction, energy = reaction + meant, energy + heat / volume
    boundary, reason = _boundary(trial, here, least, largest, c_least)
    rounding = lost + _EPS * (volume * size).flatten(-d).sum(-1).sqrt()
    shape = torch.broadcast_shapes(gap.shape, oscillation.shape, reaction.shape)
    return _Upper(
        (volume * gap).sqrt().expand(shape),
        oscillation.expand(shape),
        reaction.sqrt().expand(shape),
        boundary,
        rounding,
        (volume * energy).expand(shape).flatten(-d).sum(-1),
        reason,
    )


def _by_means(trial: _Trial, here: Cells) -> Problem:
    """The problem on cells whose solution has the flux that is to be found.

    Its sources are means over cells and faces, so that the balance is that of the integrals.
    """

    def source(place: Sequence[float]) -> torch.Tensor:
        if trial.of_error:
            return trial.remainder(place)
        return here.inside(here.problem.form.f, f"{_KEY}.f", place)

    return _asked(trial, here, _mean(here, source), lambda means, axis: means)


def _asked(
    trial: _Trial,
    here: Cells,
    source: torch.Tensor,
    carry: Callable[[torch.Tensor, int], torch.Tensor],
) -> Problem:
    """The problem with another source; of a smooth function that of its error.

    ``carry`` takes the means over the faces of a side to where the side's data are wanted.
    """
    problem, d = here.problem, here.layout.dimension
    sides = dict(problem.boundary)
    for end, condition, key in _sides(here):
        name = SIDES[end[0]][end[1]]
        if condition.kind == "dirichlet":
            sides[name] = Condition(dirichlet=0.0) if trial.of_error else condition
            continue

        def through(
            place: Sequence[float], condition: Condition = condition, key: str = key, end: End = end
        ) -> torch.Tensor:
            alpha, g = _side(condition, key, here, end, place)
            if not trial.of_error:
                return g
            value, own = trial.on_side(end, place)
            return g - alpha * value - own

        given: Any = carry(_face_mean(here, end, through), end[0]).squeeze(end[0] - d)
        given = float(given) if given.ndim == 0 else given
        robin = condition.robin
        sides[name] = (
            Condition(neumann=given)
            if robin is None
            else Condition(robin=Robin(robin.alpha, given))
        )
    form = problem.form
    equation = Equation(K=form.K, c=form.c, f=source)
    return replace(problem, equation=equation, boundary=sides, exact=None)


def _on_face(
    trial: _Trial,
    here: Cells,
    end: End,
    condition: Condition,
    key: str,
    density: Sequence[torch.Tensor],
    poincare: torch.Tensor,
    least: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What one side adds to O, to B^2 and to the energy of v, on the cells beside it."""
    axis, which = end
    lay, d = here.layout, here.layout.dimension
    spacing = lay.grid.spacing
    area = math.prod(spacing) / spacing[axis]
    out = at_end(density[axis], axis, d, which) * (1.0 if which else -1.0)
    zero = torch.zeros((), dtype=torch.float64)
    first, second, heat, softest = zero, zero, zero, zero + math.inf
    for place, weight in _points(d, axis):
        alpha, g = _side(condition, key, here, end, place)
        value, own = trial.on_side(end, place)
        left = g - alpha * value - own - out
        first, second = first + weight * left, second + weight * left.square()
        heat = heat + weight * alpha * value.square()
        softest = torch.minimum(softest, alpha)
    beside = at_end(poincare.expand(*poincare.shape[:-d], *lay.shape), axis, d, which)
    own_K = least[axis].expand(*least[axis].shape[: least[axis].ndim - d], *lay.shape)
    K = at_end(own_K, axis, d, which)
    trace = (beside.square() / spacing[axis] + 2 * beside / K.sqrt()).sqrt()
    swing = (area * (second - first.square()).clamp(min=0)).sqrt()
    meant = torch.where(softest > 0, area * first.square() / softest, zero)
    found = [_beside(part, end, here) for part in (trace * swing, meant, area * heat)]
    return found[0], found[1], found[2]


def _beside(value: torch.Tensor, end: End, here: Cells) -> torch.Tensor:
    """A slab beside a side as values of all cells, zero elsewhere."""
    axis, which = end
    lay, d = here.layout, here.layout.dimension
    slab = [1 if k == axis else n for k, n in enumerate(lay.shape)]
    lead = value.shape[: max(value.ndim - d, 0)]
    whole = torch.zeros(*lead, *lay.shape, dtype=torch.float64)
    at_end(whole, axis, d, which).copy_(value.expand(*lead, *slab))
    return whole


def _boundary(
    trial: _Trial,
    here: Cells,
    least: Sequence[torch.Tensor],
    largest: Sequence[torch.Tensor],
    c_least: torch.Tensor,
) -> tuple[torch.Tensor, str]:
    """The energy of an extension of what v misses on Dirichlet sides, and why it has none."""
    d, lay = here.layout.dimension, here.layout
    spacing = lay.grid.spacing
    held = [(end, c, key) for end, c, key in _sides(here) if c.kind == "dirichlet"]
    corner, given = _corner_values(trial, here, held)
    if not given:
        return torch.zeros((), dtype=torch.float64), (
            "the data of two Dirichlet sides differ at a corner: no solution has finite energy"
        )
    nodal = torch.zeros((), dtype=torch.float64)
    c_most = 0.0
    for place, weight in _points(d):
        value, slopes = multilinear(corner, place, spacing)
        c = here.inside(here.problem.form.c, f"{_KEY}.c", place)
        parts = [K * s.square() for K, s in zip(_conductivities(here, place), slopes, strict=True)]
        nodal = nodal + weight * (sum(parts) + c * value.square())
        c_most = max(c_most, float(c.max()))
    energy = (math.prod(spacing) * nodal).flatten(-d).sum(-1)
    for end, condition, key in _flux_sides(here):
        axis, which = end
        for place, weight in _points(d, axis):
            there = [float(which) if k == axis else p for k, p in enumerate(place)]
            value = at_end(multilinear(corner, there, spacing)[0], axis, d, which)
            heat = _side(condition, key, here, end, place)[0] * value.square()
            area = math.prod(spacing) / spacing[axis]
            energy = energy + (area * weight * heat).flatten(-d).sum(-1)
    total = energy.sqrt()
    for end, condition, key in held:
        axis, which = end
        others = [k for k in range(d) if k != axis]
        gaps = {}
        for index in product(range(len(_LOBATTO)), repeat=len(others)):
            place = [float(which)] * d
            for k, i in zip(others, index, strict=True):
                place[k] = _LOBATTO[i]
            g = here.on_side(condition.dirichlet, key, end, place)
            v, _ = trial.on_side(end, place)
            on_side, _ = multilinear(corner, place, spacing)
            gaps[index] = g - v - at_end(on_side, axis, d, which)
        K = [at_end(k.expand(*k.shape[: k.ndim - d], *lay.shape), axis, d, which) for k in largest]
        energy = _layer(gaps, others, axis, K, spacing, c_most).flatten(-d).sum(-1)
        for k in others:
            energy = energy + _beside_layer(gaps, others, axis, k, here)
        total = total + energy.sqrt()
    return total, ""


def _layer(
    gaps: dict[tuple[int, ...], torch.Tensor],
    others: Sequence[int],
    axis: int,
    K: Sequence[torch.Tensor],
    spacing: Sequence[float],
    c: float,
) -> torch.Tensor:
    """Energy of delta(x) (1 - s / h) in the cells beside a side, delta at Lobatto's points."""
    h = spacing[axis]
    area = math.prod(spacing) / h
    slope = _lobatto_slopes()
    total: Any = 0.0
    for index, delta in gaps.items():
        weight = math.prod((_LOBATTO_WEIGHTS[i] for i in index), start=area)
        total = total + weight * (K[axis] / h + c * h / 3) * delta.square()
        for place, k in enumerate(others):
            along: Any = 0.0
            for i in range(len(_LOBATTO)):
                near = (*index[:place], i, *index[place + 1 :])
                along = along + slope[index[place]][i] * gaps[near]
            total = total + weight * h / 3 * K[k] * (along / spacing[k]).square()
    assert isinstance(total, torch.Tensor)
    return total


def _beside_layer(
    gaps: dict[tuple[int, ...], torch.Tensor],
    others: Sequence[int],
    axis: int,
    k: int,
    here: Cells,
) -> torch.Tensor:
    """What alpha of the sides along axis k adds to the energy of such a layer."""
    lay, d = here.layout, here.layout.dimension
    spacing, place = lay.grid.spacing, others.index(k)
    total = torch.zeros((), dtype=torch.float64)
    for end, condition, key in _flux_sides(here):
        if end[0] != k or condition.robin is None:
            continue
        alpha = max(
            float(_side(condition, key, here, end, there)[0].max()) for there, _ in _points(d, k)
        )
        area = math.prod(spacing) / spacing[k] / 3
        for index, delta in gaps.items():
            if index[place] != (len(_LOBATTO) - 1) * end[1]:
                continue
            others_weight = math.prod(
                _LOBATTO_WEIGHTS[i] for j, i in enumerate(index) if j != place
            )
            wide = delta.expand(*delta.shape[: delta.ndim - d], *_slab(lay.shape, axis))
            square = at_end(wide, k, d, end[1]).square()
            total = total + alpha * area * others_weight * square.flatten(-d).sum(-1)
    return total


def _slab(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """A grid's shape with size 1 along one axis."""
    return tuple(1 if k == axis else n for k, n in enumerate(shape))


def _lobatto_slopes() -> list[list[float]]:
    """Derivatives on [0, 1] of the polynomials that are 1 at one of Lobatto's points."""
    x = np.array(_LOBATTO)
    powers = np.vander(x, increasing=True)
    slopes = np.zeros_like(powers)
    for k in range(1, len(x)):
        slopes[:, k] = k * x ** (k - 1)
    found: list[list[float]] = (slopes @ np.linalg.inv(powers)).tolist()
    return found


def _corner_values(
    trial: _Trial, here: Cells, held: Sequence[tuple[End, Condition, str]]
) -> tuple[torch.Tensor, bool]:
    """What v misses at Dirichlet nodes, zero at others, and whether the sides' data agree there."""
    lay, d = here.layout, here.layout.dimension
    nodes = [n + 1 for n in lay.shape]
    missed = torch.zeros(nodes, dtype=torch.float64)
    seen = torch.zeros(nodes, dtype=torch.bool)
    values = torch.zeros(nodes, dtype=torch.float64)
    agree = True
    for end, condition, key in held:
        axis, which = end
        g = _nodes_of_side(condition.dirichlet, key, here, end)
        own = trial.at_nodes(end)
        lead = torch.broadcast_shapes(g.shape[:-d], own.shape[:-d], missed.shape[:-d])
        missed = missed.expand(*lead, *nodes).clone()
        values = values.expand(*lead, *nodes).clone()
        was, there = at_end(seen, axis, d, which), at_end(values, axis, d, which)
        size = float(g.abs().max()) + float(there.abs().max())
        agree &= not bool((was & ((g - there).abs() > _MEETS * size)).any())
        there.copy_(g.expand_as(there))
        at_end(missed, axis, d, which).copy_((g - own).expand_as(there))
        was.fill_(True)
    return missed, agree


# --- Below ----------------------------------------------------------------------------------------


def _halved_cells(here: Cells) -> Problem:
    """The problem, with what is given by a value for each cell given for its halves."""
    form, d = here.problem.form, here.layout.dimension

    def halved(coefficient: Any) -> Any:
        if isinstance(coefficient, (list, tuple)):
            return [halved(entry) for entry in coefficient]
        if not here.by_cell(coefficient):
            return coefficient
        values = torch.as_tensor(coefficient)
        for k in range(d):
            values = values.repeat_interleave(2, dim=k - d)
        return values

    equation = Equation(K=halved(form.K), c=halved(form.c), f=halved(form.f))
    return replace(here.problem, equation=equation)


def _halved(values: torch.Tensor, dim: int) -> torch.Tensor:
    """With the means between neighbours along one axis put between them."""
    n = values.shape[dim]
    pairs = torch.stack([values.narrow(dim, 0, n - 1), _between(values, dim, 0.5)], dim + 1)
    return torch.cat([pairs.flatten(dim, dim + 1), values.narrow(dim, n - 1, 1)], dim)


def _to_nodes(faces: torch.Tensor, axis: int, d: int) -> torch.Tensor:
    """Values of a side's faces carried to its nodes, the means of their neighbours."""
    for k in range(d):
        if k == axis:
            continue
        n = faces.shape[k - d]
        first, last = faces.narrow(k - d, 0, 1), faces.narrow(k - d, n - 1, 1)
        middle = (faces.narrow(k - d, 0, n - 1) + faces.narrow(k - d, 1, n - 1)) / 2
        faces = torch.cat([first, middle, last], k - d)
    return faces


def _vanishing(w: torch.Tensor, here: Cells) -> torch.Tensor:
    """Nodal values that are zero on Dirichlet sides."""
    w, d = w.clone(), here.layout.dimension
    for (axis, end), condition, _ in _sides(here):
        if condition.kind == "dirichlet":
            at_end(w, axis, d, end).zero_()
    return w


def _tested(trial: _Trial, here: Cells, w: torch.Tensor) -> torch.Tensor:
    """The residual of v tested with the multilinear function of ``w``, over its energy norm."""
    lay, d = here.layout, here.layout.dimension
    spacing = lay.grid.spacing
    along: Any = 0.0
    energy: Any = 0.0
    size: Any = 0.0
    for place, weight in _points(d):
        tested, slopes = multilinear(w, place, spacing)
        K, c = _conductivities(here, place), here.inside(here.problem.form.c, f"{_KEY}.c", place)
        terms = [trial.remainder(place) * tested]
        if not trial.of_error:
            _, steep = trial.at(place)
            terms += [-K[k] * steep[k] * slopes[k] for k in range(d)]
        along = along + weight * sum(terms)
        size = size + weight * sum(t.abs() for t in terms)
        energy = energy + weight * (
            sum(K[k] * slopes[k].square() for k in range(d)) + c * tested.square()
        )
    volume = math.prod(spacing)
    along, size, energy = (
        (volume * t.expand(torch.broadcast_shapes(t.shape, lay.shape))).flatten(-d).sum(-1)
        for t in (along, size, energy)
    )
    for end, condition, key in _flux_sides(here):
        axis, which = end
        area = volume / spacing[axis]
        for place, weight in _points(d, axis):
            alpha, g = _side(condition, key, here, end, place)
            value, own = trial.on_side(end, place)
            there = [float(which) if k == axis else p for k, p in enumerate(place)]
            W = at_end(multilinear(w, there, spacing)[0], axis, d, which)
            left = (g - alpha * value - own) * W
            along = along + area * weight * left.flatten(-d).sum(-1)
            size = size + area * weight * left.abs().flatten(-d).sum(-1)
            energy = energy + area * weight * (alpha * W.square()).flatten(-d).sum(-1)
    found = (along.abs() - _EPS * size).clamp(min=0) / energy.clamp(min=1e-300).sqrt()
    return torch.where(energy > 0, found, torch.zeros_like(found))


def _varies(here: Cells, entry: Any, key: str) -> bool:
    """Whether a coefficient has other values beside the corners of a cell than in its middle."""
    d = here.layout.dimension
    middle = here.inside(entry, key, [0.5] * d)
    corners = product((_BESIDE, 1 - _BESIDE), repeat=d)
    return any(bool((here.inside(entry, key, place) != middle).any()) for place in corners)


# --- Together -------------------------------------------------------------------------------------


def _certificate(trial: _Trial, upper: _Upper, low: torch.Tensor, here: Cells) -> PdeCertificate:
    d = here.layout.dimension
    cells = ((upper.flux + upper.oscillation).square() + upper.reaction.square()).sqrt()
    norm = cells.square().flatten(-d).sum(-1).sqrt()
    high = (torch.hypot(norm, upper.boundary) + upper.rounding) * (1 + _EPS)
    low = torch.broadcast_to(low, torch.broadcast_shapes(low.shape, high.shape))
    if upper.reason:
        high = torch.full_like(high, math.inf)
    own = upper.energy.sqrt()
    reason = upper.reason

    def part(values: torch.Tensor) -> torch.Tensor:
        return values.square().flatten(-d).sum(-1).sqrt()

    form, notes = here.problem.form, []
    for name in ("K", "c", "f"):
        entries = getattr(form, name)
        for entry in entries if isinstance(entries, (list, tuple)) else (entries,):
            key = f"{_KEY}.{name}"
            if isinstance(entry, (list, tuple)) or not here.jumps(entry, key):
                continue
            if _varies(here, entry, key):
                notes.append(f"{name} may jump, and inside cells, where no bound knows it")
                break
    return PdeCertificate(
        low,
        high,
        *relative(low, high, own),
        part(upper.flux),
        part(upper.oscillation),
        part(upper.reaction),
        upper.boundary,
        upper.rounding,
        cells,
        tuple(notes),
        reason,
    )
