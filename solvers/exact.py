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

Where nothing is known a note says that it was not looked at: beside data given as arrays or naming
parameters that are to be found, and of functions without derivatives what needs them. Nothing is
said of jumps of K, which lie between the points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import combinations_with_replacement
from numbers import Real
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.condition import Condition, data_of, flux_data
from sciml.core.problem.expression import level_set
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import Quadrature, at_facet_nodes, whole
from sciml.core.problem.reader import (
    FieldFile,
    Regions,
    Unknown,
    expression,
    free_names,
    is_array,
)
from sciml.core.problem.table import Table
from sciml.discretization.elements.boundary import Side, sides
from sciml.discretization.elements.data import MeshData, evaluate, mesh_data
from sciml.discretization.elements.scalar import conductivity
from sciml.discretization.fields import exact_on_mesh
from sciml.discretization.points.jet import Jet, closed, jet_of
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters
from sciml.discretization.points.region import region_of
from sciml.discretization.points.strong import (
    StrongForm,
    check_time,
    higher_derivatives,
    strong_form,
    sum_of,
)
from sciml.solvers.trained.conditions import Piece, pieces
from sciml.solvers.trained.sampling import sobol

KEY = "problem.exact"
_NOTED, _REFUSED = 1e-6, 1e-3
_INSIDE, _BESIDE = 1000, 100  # points
_BISECTIONS = 50
_STRAIGHT = 0.9  # cosine between a facet's normal and the mean one, below which there is a corner
_FLAT = 1e-8  # angle that is rounding
_SAMPLES = 3  # of a batch
_RIGID = "exact has no derivatives"


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


@dataclass(frozen=True)
class _Unseen:
    """A line of the problem that nothing can be said of, and why."""

    what: str
    why: str


def check_exact(problem: Problem, on: Grid | Mesh | Points | None) -> tuple[str, ...]:
    """Notes on an exact solution that is nearly one, and on what it was not checked against.

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
    unseen: dict[str, list[str]] = {}
    for sample in _samples(problem):
        for gap in _known(sample, on):
            if isinstance(gap, _Unseen):
                lines = unseen.setdefault(gap.why, [])
                lines += [] if gap.what in lines else [gap.what]
                continue
            if gap.share >= _REFUSED + gap.allowed:
                raise InputError(
                    f"exact does not meet {gap.what}: {gap.share:.2g} of its size is left, most at "
                    f"({gap.worst}), so that no error against it says anything; correct one of the "
                    "two, or leave exact out",
                    KEY,
                )
            if gap.share >= _NOTED + gap.allowed:
                worst[gap.what] = max(worst.get(gap.what, 0.0), gap.share)
    nearly = tuple(
        f"exact meets {what} only to {share:.1e}: an error about that small says nothing"
        for what, share in worst.items()
    )
    return nearly + tuple(
        f"exact was not checked against {', '.join(lines)}: {why}" for why, lines in unseen.items()
    )


def _known(problem: Problem, on: Grid | Mesh | Points | None) -> list[_Gap | _Unseen]:
    """The gaps of a single problem, none where its data cannot be evaluated."""
    free = problem.equation.written_out
    if problem.equation.coefficient_form is None and not free:
        return [_Unseen("the problem", f"'{problem.equation.kind}' has no coefficient form")]
    if problem.bounded:
        return [_Unseen("the problem", "an inequality leaves what an obstacle pushes with")]
    why = _hidden(problem.exact, _sought(problem))
    if why:
        return [_Unseen("the problem", why)]
    try:
        if free:
            return list(_written_out(problem))
        return list(_on_mesh(problem, on) if isinstance(on, Mesh) else _in_box(problem))
    except InputError as error:
        if (error.key or "").startswith(KEY):
            raise
    except (RuntimeError, TypeError, ValueError, ArithmeticError):
        pass
    # What is wrong is complained of where it is used.
    return [_Unseen("the problem", "its data cannot be evaluated point by point")]


def _sought(problem: Problem) -> frozenset[str]:
    """The parameters that are to be found."""
    return frozenset(name for name, p in problem.parameters.items() if isinstance(p, Unknown))


def _samples(problem: Problem) -> Iterator[Problem]:
    """Single problems of a batch, the first and the last among them."""
    given = problem.parameters
    try:
        numbers = {
            name: torch.as_tensor(p, dtype=torch.float64)
            for name, p in given.items()
            if not isinstance(p, (Table, Unknown))
        }
        shape = torch.broadcast_shapes(*(p.shape for p in numbers.values()))
    except (TypeError, ValueError, RuntimeError):
        return  # they are read again, and complained of, where they are used
    flat = {name: p.expand(shape).flatten() for name, p in numbers.items()}
    count = int(np.prod(shape))
    for index in sorted({round(k) for k in np.linspace(0, count - 1, _SAMPLES)}):
        single = {name: float(p[index]) for name, p in flat.items()}
        yield replace(problem, parameters={**given, **single})


def _hidden(value: Any, sought: frozenset[str]) -> str:
    """Why nothing can be said of a datum, or of what holds data; nothing where something can."""
    if isinstance(value, FieldFile) or is_array(value):
        return "data are given as an array"
    if isinstance(value, (str, FunctionType)):
        named = free_names(value) & sought
        return f"data name {', '.join(sorted(named))}, which is to be found" if named else ""
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    elif is_dataclass(value) and not isinstance(value, (type, Table)):
        inner = (getattr(value, entry.name) for entry in fields(value))
    return next((why for entry in inner if (why := _hidden(entry, sought))), "")


def _in_box(problem: Problem) -> Iterator[_Gap | _Unseen]:
    """On a grid or at points."""
    equation, sought = problem.equation.coefficient_form, _sought(problem)
    assert equation is not None
    hidden = {
        side: why
        for side, condition in problem.boundary.items()
        if (why := _hidden(condition, sought))
    }
    waves = [side for side, c in problem.boundary.items() if c.kind == "absorbing"]
    unknown = dict.fromkeys((*hidden, *waves), Condition(neumann=0.0))
    plain = replace(
        problem, equation=equation, boundary={**problem.boundary, **unknown}, obstacle=None
    )
    data = Pointwise(plain, ("u",), numeric_parameters(plain))
    d = data.box.dimension
    wanted = {*combinations_with_replacement(range(d), 2), *higher_derivatives(equation, d)}
    if not (isinstance(equation.m, Real) and equation.m == 0):
        wanted.add((d, d))
    pairs = closed(wanted)
    check_time(plain, {"u": equation})
    form = StrongForm(data, pairs, (equation,), region_of(data))
    exact = _function(data, problem)
    moves = plain.time is None or "t" in free_names(problem.exact)
    end = None if moves or plain.time is None else plain.time.end
    generator = torch.Generator().manual_seed(0)
    parts = pieces(form, hard=False, periodic_built_in=False)
    inside = _placed(problem, data, parts[0], _INSIDE, generator, end)
    if len(inside) < 2:
        return  # the obstacle covers all
    jet = jet_of(exact, inside, pairs)
    rigid = bool(jet.gradient.abs().sum() == 0) and float(jet.value.std()) > 0
    value = jet.value.square().mean().sqrt()
    within = _hidden(equation, sought)
    moving = _hidden((equation.K, equation.b), sought)  # what a flux is made of
    flux = value.new_zeros(())
    if not moving:
        flux = form.flux(inside, jet).square().sum(0).mean().sqrt()
    for piece in parts:
        starts = piece.name == "start"
        if piece.name == "equation":
            what, why = "the equation", within
        elif starts:
            what, why = "the initial data", _hidden(problem.first, sought)
        else:
            what, why = f"the condition on {piece.name}", hidden.get(piece.name, "")
        if not moves and (starts or piece.name == "equation"):
            continue
        derives = piece.flux or piece.blocks > 1 or piece.name == "equation"
        derives |= starts and (d, d) in pairs
        if piece.flux and not why and moving:
            why = moving
        if why or (rigid and derives):
            yield _Unseen(what, why or _RIGID)
            continue
        if piece.name == "equation":
            yield _equation(form, inside, jet)
            continue
        x = _placed(problem, data, piece, _BESIDE, generator, end)
        if not len(x):
            continue
        seen = piece.seen(x)
        jets = jet_of(exact, seen, pairs)
        left = piece.residual(seen, jets).detach()
        if piece.name in waves:
            # n . K grad u = i k sqrt(K) u, c being -k^2: of a real u no part balances another.
            speed = -data(equation.c, "problem.equation.c", x) * _scalar(equation.K, data, x)
            left = torch.hypot(left, (speed.clamp_min(0).sqrt() * jets.value[:, 0])[:, None])
        left = left.reshape(len(x), -1)
        size = value + (flux if piece.flux or piece.blocks > 1 else 0.0)
        if starts:
            size = value + (jet.gradient[d].square().mean().sqrt() if left.shape[1] > 1 else 0.0)
        yield _Gap(what, left.abs().amax(1), size.expand(len(x)), x)
    yield from _rim(problem, form, exact, (value, flux), rigid, end)


def _written_out(problem: Problem) -> Iterator[_Gap | _Unseen]:
    """Of residuals that are written out, as what is trained on them meets them."""
    why = _hidden((problem.equation, problem.boundary, problem.first), _sought(problem))
    if why:
        yield _Unseen("the problem", why)
        return
    form = strong_form(problem)
    exact = _function(form.data, problem)
    moves = problem.time is None or "t" in free_names(problem.exact)
    end = None if moves or problem.time is None else problem.time.end
    generator = torch.Generator().manual_seed(0)
    parts = pieces(form, hard=False, periodic_built_in=False)
    inside = parts[0].place(sobol(_INSIDE, parts[0].free, generator))
    for piece in parts:
        alone = piece.name == "equation"
        if not moves and (alone or piece.name == "start"):
            continue
        x = inside if alone else piece.place(sobol(_BESIDE, piece.free, generator))
        if end is not None:
            x[:, -1] = end
        terms = form.terms if alone else piece.terms
        if terms is None:
            size = exact(inside).square().mean().sqrt().expand(len(x))
        elif alone:
            seen = piece.seen(x)
            size = _sum_of_sizes(terms(seen, jet_of(exact, seen, piece.pairs)))
        else:
            there = _sum_of_sizes(terms(inside, jet_of(exact, inside, piece.pairs)))
            size = there.square().mean().sqrt().expand(len(x))
        seen = piece.seen(x)
        left = piece.residual(seen, jet_of(exact, seen, piece.pairs)).detach()
        what = {"equation": "the equation", "start": "the initial data"}.get(
            piece.name, f"the condition on {piece.name}"
        )
        yield _Gap(what, left.abs().amax(1), size.detach(), x)


def _sum_of_sizes(terms: Iterable[Tensor]) -> Tensor:
    """(N,), the largest over the equations."""
    return torch.stack([term.abs() for term in terms]).sum(0).amax(1)


def _scalar(K: Any, data: Pointwise, points: Tensor) -> Tensor:
    return data(K, "problem.equation.K", points).expand(len(points))


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


def _equation(form: StrongForm, points: Tensor, jet: Jet) -> _Gap:
    terms = [t.detach()[:, 0] for t in form.terms(points, jet)]
    size = torch.stack([t.abs().expand(len(points)) for t in terms]).sum(0)
    left = sum_of(terms).expand(len(points))
    return _Gap("the equation", left.detach(), size.detach(), points)


def _rim(
    problem: Problem,
    form: StrongForm,
    exact: Callable[[Tensor], Tensor],
    sizes: tuple[Tensor, Tensor],
    rigid: bool,
    end: float | None,
) -> Iterator[_Gap | _Unseen]:
    """The condition on an obstacle's rim, at points found between those inside and out.

    ``sizes``: rms of u and of its flux. ``rigid``: whether it has none.
    """
    hole, data, what = problem.obstacle, form.data, "the condition on the obstacle"
    if hole is None:
        return
    why, given = _hidden(hole.boundary, _sought(problem)), hole.boundary
    if not why and isinstance(given.dirichlet, (list, tuple)):
        why = "data are a list"
    flux = given.kind in ("neumann", "robin")
    if not why and flux:
        why = _hidden((form.equations[0].K, form.equations[0].b), _sought(problem))
    if not why and not flux and given.kind != "dirichlet":
        why = f"it is {given.kind}"
    if not why and any(free_names(v) & {"nx", "ny", "nz"} for v, _ in data_of(given, "")):
        why = "data name the normal"
    if why or (flux and rigid):
        yield _Unseen(what, why or _RIGID)
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
    key = f"problem.obstacle.boundary.{given.kind}"
    if not flux:
        with torch.no_grad():
            left = exact(b)[:, 0] - data(given.dirichlet, key, b)
        yield _Gap(what, left.abs(), sizes[0].expand(len(b)), b)
        return
    jet = jet_of(exact, b, form.pairs)

    def read(coefficient: Any, where: str) -> Tensor:
        return data(coefficient, where, b, jet.value).expand(len(b))

    alpha, g = flux_data(given, key, read)
    carried = form.flux(b, jet)[: box.dimension, :, 0]
    left = (_into(problem, data, b) * carried).sum(0) + alpha * jet.value[:, 0] - g
    yield _Gap(what, left.detach().abs(), (sizes[0] + sizes[1]).expand(len(b)), b)


def _into(problem: Problem, data: Pointwise, points: Tensor) -> Tensor:
    """The unit normals (d, N) into the obstacle, against the slope of its level set."""
    assert problem.obstacle is not None
    signed = level_set(expression(problem.obstacle.inside, data.context(solved=False)))
    with torch.enable_grad():
        x = points.detach().requires_grad_()
        known = {**data.parameters, **dict(zip(data.axes, x.unbind(1), strict=True))}
        value = signed(**known)
        (slope,) = torch.autograd.grad(value.sum(), x)
    slope = slope[:, : problem.box.dimension].T
    normal: Tensor = -slope / torch.linalg.vector_norm(slope, dim=0)
    return normal


def _on_mesh(problem: Problem, mesh: Mesh) -> Iterator[_Gap | _Unseen]:
    sought = _sought(problem)
    given = {n: p.unknown if isinstance(p, Unknown) else p for n, p in problem.parameters.items()}
    problem = replace(problem, parameters=given)
    data, exact = mesh_data(problem, mesh), exact_on_mesh(problem, mesh)
    part = whole(mesh, 1)
    x = tuple(p.requires_grad_() for p in part.points)
    part = replace(part, points=x)
    place = torch.stack([p.detach().flatten() for p in x], -1)
    with torch.enable_grad():
        u = exact(*x)
        if not u.requires_grad and float(u.std()) > 0:
            yield _Unseen("the problem", _RIGID)
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
    if why := _hidden(problem.equation, sought):
        yield _Unseen("the equation", why)
    else:
        flat = [t.detach().expand(u.shape).flatten() for t in terms]
        size = torch.stack([t.abs() for t in flat]).sum(0)
        yield _Gap("the equation", sum_of(flat), size, place)
    sizes = u.detach().square().mean(), q.detach().square().sum(-1).mean()
    for side in sides(problem, data):
        why = _hidden(side.condition, sought)
        if not why and side.condition.kind != "dirichlet":
            why = _hidden(problem.form.K, sought)
            why = "K is given by regions" if isinstance(problem.form.K, Regions) else why
        if why:
            yield _Unseen(f"the condition on {side.name}", why)
        else:
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
