"""Whether the exact solution that a problem states is one.

An answer's error is measured against it; beside a function that solves another problem it says
nothing. So the exact u is put into the equation at points inside, and into the condition of every
side, and what is left is compared with what adds up to it,

    share = rms(r) / rms(sum of the sizes of its terms),    of a condition of u, or of u and n . q,

derivatives being taken automatically. In time the equation is looked at all the way, beside the
start; an exact solution that does not name t is that of the end, where it meets the sides alone.
A thousandth or more is refused; a share above rounding is noted, since no error falls below it.

Of a curved side that is meshed by straight facets only the corners lie on it, and their normals are
means of the facets', and as far from the true ones as these are from each other.

Nothing is said where nothing is known: beside data given as arrays, with unknown parameters, of
functions without derivatives, and of several fields. Jumps of K lie between the points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import combinations_with_replacement
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.condition import Condition, flux_data
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import Quadrature, at_facet_nodes, whole
from sciml.core.problem.reader import FieldFile, Regions, Unknown, free_names, is_array
from sciml.core.problem.table import Table
from sciml.discretization.elements.boundary import Side, sides
from sciml.discretization.elements.data import MeshData, evaluate, mesh_data
from sciml.discretization.elements.scalar import conductivity
from sciml.discretization.fields import exact_on_mesh
from sciml.discretization.points.jet import Jet, jet_of
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters
from sciml.discretization.points.strong import StrongForm, check_time, sum_of
from sciml.solvers.trained.conditions import Piece, pieces
from sciml.solvers.trained.sampling import sobol

KEY = "problem.exact"
_NOTED, _REFUSED = 1e-6, 1e-3
_INSIDE, _BESIDE = 1000, 100  # points
_BISECTIONS = 50
_STRAIGHT = 0.9  # cosine between a facet's normal and the mean one, below which there is a corner
_FLAT = 1e-8  # angle that is rounding
_SAMPLES = 3  # of a batch


@dataclass(frozen=True)
class _Gap:
    """What an exact solution leaves of one line of the problem, at points.

    ``left`` and ``size`` (N,): the residual, and what it is compared with. ``place`` (N, D).
    ``allowed``: the share that the geometry explains.
    """

    what: str
    left: Tensor
    size: Tensor
    place: Tensor
    allowed: float = 0.0

    @property
    def share(self) -> float:
        """rms(left) / rms(size), of the points where both are known."""
        known = torch.isfinite(self.left) & torch.isfinite(self.size)
        left, size = (v[known].square().mean().sqrt() for v in (self.left, self.size))
        return float(left / size.clamp_min(1e-300)) if known.any() else 0.0

    @property
    def worst(self) -> str:
        """Where most is left."""
        at = int(self.left.abs().nan_to_num(0.0).argmax())
        return ", ".join(f"{c:.3g}" for c in self.place[at].tolist())


def check_exact(problem: Problem, on: Grid | Mesh | Points | None) -> tuple[str, ...]:
    """Notes on an exact solution that is nearly one.

    Raises InputError with the key ``problem.exact`` for one that is none, or that stands beside
    several fields.
    """
    if problem.exact is None:
        return ()
    if len(problem.unknowns) > 1 and isinstance(problem.exact, (str, Real)):
        raise InputError(
            f"exact is one function, and '{problem.equation.kind}' has the fields "
            f"{', '.join(problem.unknowns)}; leave it out",
            KEY,
        )
    worst: dict[str, float] = {}
    for sample in _samples(problem):
        for gap in _known(sample, on):
            if gap.share >= _REFUSED + gap.allowed:
                raise InputError(
                    f"exact does not meet {gap.what}: {gap.share:.2g} of its size is left, most at "
                    f"({gap.worst}), so that no error against it says anything; correct one of the "
                    "two, or leave exact out",
                    KEY,
                )
            if gap.share >= _NOTED + gap.allowed:
                worst[gap.what] = max(worst.get(gap.what, 0.0), gap.share)
    return tuple(
        f"exact meets {what} only to {share:.1e}: an error about that small says nothing"
        for what, share in worst.items()
    )


def _known(problem: Problem, on: Grid | Mesh | Points | None) -> list[_Gap]:
    """The gaps of a single problem, none where its data cannot be evaluated or differentiated."""
    try:
        return list(_on_mesh(problem, on) if isinstance(on, Mesh) else _in_box(problem))
    except InputError as error:
        if (error.key or "").startswith(KEY):
            raise
    except (RuntimeError, TypeError, ValueError, ArithmeticError):
        pass
    return []  # what is wrong is complained of where it is used


def _samples(problem: Problem) -> Iterator[Problem]:
    """Single problems of a batch, the first and the last among them; none with unknowns."""
    given = problem.parameters
    if any(isinstance(p, Unknown) for p in given.values()):
        return
    try:
        numbers = {
            name: torch.as_tensor(p, dtype=torch.float64)
            for name, p in given.items()
            if not isinstance(p, Table)
        }
        shape = torch.broadcast_shapes(*(p.shape for p in numbers.values()))
    except (TypeError, ValueError, RuntimeError):
        return  # they are read again, and complained of, where they are used
    flat = {name: p.expand(shape).flatten() for name, p in numbers.items()}
    count = int(np.prod(shape))
    for index in sorted({round(k) for k in np.linspace(0, count - 1, _SAMPLES)}):
        single = {name: float(p[index]) for name, p in flat.items()}
        yield replace(problem, parameters={**given, **single})


def _has_arrays(value: Any) -> bool:
    if isinstance(value, FieldFile) or is_array(value):
        return True
    if isinstance(value, Mapping):
        return any(_has_arrays(entry) for entry in value.values())
    if isinstance(value, (list, tuple)):
        return any(_has_arrays(entry) for entry in value)
    if is_dataclass(value) and not isinstance(value, (type, Table)):
        return any(_has_arrays(getattr(value, entry.name)) for entry in fields(value))
    return False


def _in_box(problem: Problem) -> Iterator[_Gap]:
    """On a grid or at points."""
    equation = problem.equation.coefficient_form
    if equation is None:
        return
    open_sides = [
        side
        for side, condition in problem.boundary.items()
        if condition.kind == "absorbing" or _has_arrays(condition)
    ]
    closed = {**problem.boundary, **dict.fromkeys(open_sides, Condition(neumann=0.0))}
    plain = replace(problem, equation=equation, boundary=closed, obstacle=None)
    d = plain.box.dimension
    pairs = tuple(combinations_with_replacement(range(d), 2))
    if not (isinstance(equation.m, Real) and equation.m == 0):
        pairs = (*pairs, (d, d))
    data = Pointwise(plain, ("u",), numeric_parameters(plain))
    check_time(plain, {"u": equation})
    form = StrongForm(data, pairs, (equation,))
    exact = _function(data, problem)
    moves = plain.time is None or "t" in free_names(problem.exact)
    end = None if moves or plain.time is None else plain.time.end
    generator = torch.Generator().manual_seed(0)
    parts = pieces(form, hard=False, periodic_built_in=False)
    inside = _placed(problem, data, parts[0], _INSIDE, generator, end)
    if len(inside) < 2:
        return  # the obstacle covers all
    jet = jet_of(exact, inside, pairs)
    if bool(jet.gradient.abs().sum() == 0) and float(jet.value.std()) > 0:
        return  # no derivatives
    value = jet.value.square().mean().sqrt()
    flux = form.flux(inside, jet).square().sum(0).mean().sqrt()
    for piece in parts:
        starts = piece.name == "start"
        if piece.name in open_sides or (starts and (not moves or _has_arrays(problem.initial))):
            continue
        if piece.name == "equation":
            if moves and not _has_arrays(equation):
                yield _equation(form, exact, inside, jet)
            continue
        x = _placed(problem, data, piece, _BESIDE, generator, end)
        if not len(x):
            continue
        twins = x if piece.twins is None else torch.cat([x, x + piece.twins])
        jets = jet_of(exact, twins, pairs)
        left = piece.residual(twins, jets).detach()
        left = left.reshape(len(x), -1) if piece.twins is None else left.T.reshape(-1, len(x)).T
        size = value + (flux if piece.flux or piece.twins is not None else 0.0)
        if starts:
            size = value + (jet.gradient[d].square().mean().sqrt() if left.shape[1] > 1 else 0.0)
        what = "the initial data" if starts else f"the condition on {piece.name}"
        yield _Gap(what, left.abs().amax(1), size.expand(len(x)), x)
    yield from _rim(problem, data, exact, value, end)


def _function(data: Pointwise, problem: Problem) -> Callable[[Tensor], Tensor]:
    def exact(points: Tensor) -> Tensor:
        return data(problem.exact, KEY, points).expand(len(points))[:, None]

    return exact


def _placed(
    problem: Problem,
    data: Pointwise,
    piece: Piece,
    count: int,
    generator: torch.Generator,
    end: float | None,
) -> Tensor:
    """Points of a part, at ``end`` where that is given, outside the obstacle."""
    x = piece.place(sobol(count, piece.free, generator))
    if end is not None:
        x[:, -1] = end
    if problem.obstacle is None:
        return x
    return x[~_in_hole(problem, data, x)]


def _in_hole(problem: Problem, data: Pointwise, x: Tensor) -> Tensor:
    assert problem.obstacle is not None
    return data(problem.obstacle.inside, "problem.obstacle.inside", x).expand(len(x)) != 0


def _equation(
    form: StrongForm, exact: Callable[[Tensor], Tensor], points: Tensor, jet: Jet
) -> _Gap:
    terms = [t.detach()[:, 0] for t in form.terms(points, jet)]
    equation = form.equations[0]
    for name, order in (("dispersion", 3), ("biharmonic", 4)):
        coefficient = getattr(equation, name)
        if not (isinstance(coefficient, Real) and coefficient == 0):
            factor = form.data(coefficient, f"problem.equation.{name}", points)
            terms += [factor * part for part in _higher(exact, points, form, order)]
    size = torch.stack([t.abs().expand(len(points)) for t in terms]).sum(0)
    left = sum_of(terms).expand(len(points))
    return _Gap("the equation", left.detach(), size.detach(), points)


def _higher(
    exact: Callable[[Tensor], Tensor], points: Tensor, form: StrongForm, order: int
) -> list[Tensor]:
    """u_xxx, or the terms u_iijj of the squared Laplacian."""
    d = form.problem.box.dimension
    chains = [(0, 0, 0)] if order == 3 else [(i, i, j, j) for i in range(d) for j in range(d)]
    found = []
    with torch.enable_grad():
        x = points.detach().requires_grad_()
        for chain in chains:
            u = exact(x)[:, 0]
            for axis in chain:
                u = _along(u, x, axis)
            found.append(u.detach())
    return found


def _along(u: Tensor, x: Tensor, axis: int) -> Tensor:
    if not u.requires_grad:
        return torch.zeros_like(u)
    (slopes,) = torch.autograd.grad(
        u.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return slopes[:, axis]


def _rim(
    problem: Problem,
    data: Pointwise,
    exact: Callable[[Tensor], Tensor],
    value: Tensor,
    end: float | None,
) -> Iterator[_Gap]:
    """The Dirichlet value on an obstacle's rim, at points found between those inside and out."""
    hole = problem.obstacle
    if hole is None or hole.boundary.kind != "dirichlet" or _has_arrays(hole.boundary):
        return
    if isinstance(hole.boundary.dirichlet, (list, tuple)):
        return
    key = "problem.obstacle.boundary.dirichlet"
    if free_names(hole.boundary.dirichlet) & {"nx", "ny", "nz"}:
        return
    box = problem.box
    lower, upper = list(box.lower), list(box.upper)
    if problem.time is not None:
        lower, upper = [*lower, problem.time.start], [*upper, problem.time.end]
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (lower, upper))
    pool = low + (high - low) * sobol(20 * _BESIDE, len(low), torch.Generator().manual_seed(1))
    within = _in_hole(problem, data, pool)
    count = min(int(within.sum()), int((~within).sum()), _BESIDE)
    if not count:
        return
    a, b = pool[within][:count], pool[~within][:count]
    for _ in range(_BISECTIONS):
        middle = (a + b) / 2
        inside = _in_hole(problem, data, middle)[:, None]
        a, b = torch.where(inside, middle, a), torch.where(inside, b, middle)
    if end is not None:
        b[:, -1] = end
    with torch.no_grad():
        left = exact(b)[:, 0] - data(hole.boundary.dirichlet, key, b)
    yield _Gap("the condition on the obstacle", left.abs(), value.expand(len(b)), b)


def _on_mesh(problem: Problem, mesh: Mesh) -> Iterator[_Gap]:
    if problem.equation.coefficient_form is None:
        return
    data, exact = mesh_data(problem, mesh), exact_on_mesh(problem, mesh)
    part = whole(mesh, 1)
    x = tuple(p.requires_grad_() for p in part.points)
    part = replace(part, points=x)
    place = torch.stack([p.detach().flatten() for p in x], -1)
    with torch.enable_grad():
        u = exact(*x)
        if not u.requires_grad and float(u.std()) > 0:
            return
        slopes = _gradient(u, x)
        q = _carried(problem.form.K, part, data, slopes)
        terms = [-_gradient(q[..., a], x)[..., a] for a in range(len(x))]
        if mesh.axisymmetric:
            terms.append(-q[..., 0] / x[0])
    form = problem.form
    for a, speed in enumerate(form.b or ()):
        terms.append(evaluate(speed, part, data, f"problem.equation.b.{a}") * slopes[..., a])
    terms.append(evaluate(form.c, part, data, "problem.equation.c") * u)
    terms.append(-evaluate(form.f, part, data, "problem.equation.f"))
    if not _has_arrays(problem.equation):
        flat = [t.detach().expand(u.shape).flatten() for t in terms]
        size = torch.stack([t.abs() for t in flat]).sum(0)
        yield _Gap("the equation", sum_of(flat), size, place)
    sizes = u.detach().square().mean(), q.detach().square().sum(-1).mean()
    for side in sides(problem, data):
        if not _has_arrays(side.condition):
            yield from _on_side(exact, problem, data, side, torch.stack(sizes).sqrt())


def _on_side(
    exact: Callable[..., Tensor], problem: Problem, data: MeshData, side: Side, rms: Tensor
) -> Iterator[_Gap]:
    """``rms``: of u, and of its flux."""
    mesh, what = data.mesh, f"the condition on {side.name}"
    corner = side.nodes.nodes[:, 0] < len(mesh.points)
    turn = torch.zeros(len(corner), dtype=torch.float64)
    if side.nodes.normal:
        cosine = _turns(mesh, side)
        turn = cosine.clamp(-1.0, 1.0).arccos()
        if side.condition.kind != "dirichlet":
            corner &= cosine > _STRAIGHT
    if not corner.any():
        return
    x = tuple(p[corner].requires_grad_() for p in side.nodes.points)
    part = replace(
        side.nodes,
        nodes=side.nodes.nodes[corner],
        scale=side.nodes.scale[corner],
        points=x,
        normal={name: n[corner] for name, n in side.nodes.normal.items()},
    )
    place = torch.cat([p.detach() for p in x], -1)
    with torch.enable_grad():
        u = exact(*x)
        slopes = _gradient(u, x).detach()
    u = u.detach()

    def read(coefficient: Any, key: str) -> Tensor:
        return evaluate(coefficient, part, data, key, state={"u": u})

    if side.condition.kind == "dirichlet":
        left = u - evaluate(side.condition.dirichlet, part, data, side.key)
        yield _Gap(what, left[:, 0].detach(), rms[0].expand(len(left)), place)
        return
    if isinstance(problem.form.K, Regions):
        return
    alpha, g = flux_data(side.condition, side.key, read)
    normal = torch.stack(list(part.normal.values()), -1)
    q = _carried(problem.form.K, part, data, slopes)
    left = ((normal * q).sum(-1) + alpha * u - g)[:, 0].detach()
    angle = float(turn[corner].max())
    yield _Gap(what, left, rms.sum().expand(len(left)), place, angle if angle > _FLAT else 0.0)


def _turns(mesh: Mesh, side: Side) -> Tensor:
    """The smallest cosine between a node's normal and those of the facets around it."""
    nodes, around = side.nodes.nodes[:, 0], at_facet_nodes(mesh, side.numbers)
    place = torch.searchsorted(nodes, around.nodes)
    means = torch.stack([n[:, 0] for n in side.nodes.normal.values()], -1)
    cosine = (means[place] * torch.stack(list(around.normal.values()), -1)).sum(-1)
    return torch.ones(len(nodes), dtype=torch.float64).scatter_reduce(
        0, place.flatten(), cosine.flatten(), "amin"
    )


def _carried(K: Any, part: Quadrature, data: MeshData, slopes: Tensor) -> Tensor:
    """q = K grad u, (k, Q, d)."""
    tensor = conductivity(K, part, data)
    if tensor.shape[-1] == 1:
        return tensor[..., 0] * slopes
    return (tensor @ slopes[..., None])[..., 0]


def _gradient(u: Tensor, x: tuple[Tensor, ...]) -> Tensor:
    """(k, Q, d), with a graph."""
    if not u.requires_grad:
        return torch.zeros(*x[0].shape, len(x), dtype=torch.float64)
    found = torch.autograd.grad(
        u.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.stack(found, -1)
