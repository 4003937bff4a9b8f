"""What the sides of the box add to the diagonal and to the right-hand side.

* Dirichlet, u = g: the end face's entry times g goes to the right.
* Neumann and Robin, alpha u + n . K grad u = g, on a boundary node of face area |f|:
  |f| alpha on the diagonal, |f| g on the right.
* The same on the boundary face of a cell, at distance h / 2, with k = 2 K / h: the face value u_f
  obeys k (u_f - u_i) = g - alpha u_f, so that the flux k (u_f - u_i) and the advection
  b.n (u_f - u_i) add (k - b.n) alpha / (alpha + k) and (k - b.n) g / (alpha + k).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from sciml.core.discretize.coefficients import Data, describe, evaluate
from sciml.core.discretize.faces import Faces
from sciml.core.discretize.layout import Layout, at_end
from sciml.core.errors import InputError
from sciml.core.grid import SIDES
from sciml.core.problem import Condition, Problem, Robin


@dataclass(frozen=True)
class Terms:
    """Additions to the diagonal and the right-hand side.

    Slabs are (axis, end, values): values on the unknowns next to one end of an axis, that axis
    having size 1. ``known`` are the Dirichlet values of node grids, on the whole side.
    ``grounded``: whether any side holds the level of u, so that A is not singular.
    """

    diagonal: list[tuple[int, int, torch.Tensor]] = field(default_factory=list)
    right: list[tuple[int, int, torch.Tensor]] = field(default_factory=list)
    known: list[tuple[int, int, torch.Tensor]] = field(default_factory=list)
    grounded: bool = False


def flux_condition(condition: Condition) -> Robin:
    """A Neumann condition as a Robin condition without alpha; a Robin condition itself."""
    return condition.robin if condition.robin is not None else Robin(0.0, condition.neumann)


def nonnegative_alpha(alpha: torch.Tensor, points: tuple[torch.Tensor, ...], key: str) -> None:
    """Raise InputError where a Robin coefficient is negative."""
    if bool((alpha.detach() < 0).any()):
        where = describe(alpha, alpha < 0, points, key)
        raise InputError(f"{where} (must be zero or positive)", key)


def sides(
    problem: Problem,
    layout: Layout,
    data: Data,
    faces: Sequence[Faces] | None,
    K: Sequence[torch.Tensor] | None,
    openings: Sequence[torch.Tensor] | None,
) -> Terms:
    """Terms of all sides of the box.

    ``faces``: entries per axis, None for a full tensor (whose Dirichlet terms are its own).
    ``K``: diagonal entries at the grid's points, wanted by cell grids. ``openings``: per axis the
    share of each face that an obstacle leaves open.
    """
    terms = Terms()
    grounded = False
    for axis in range(layout.dimension):
        for end, kind in enumerate(layout.axes[axis].ends):
            name = SIDES[axis][end]
            condition = problem.boundary[name]
            if condition.absorbing:
                raise InputError(
                    "absorbing is for the Helmholtz equation; give dirichlet, neumann or robin",
                    f"problem.boundary.{name}.absorbing",
                )
            if kind == "value":
                grounded = True
                _dirichlet(terms, condition, layout, data, axis, end, faces)
            elif kind == "closed":
                area = layout.measure(without=axis)
                if openings is not None:
                    area = area * at_end(openings[axis], axis, layout.dimension, end)
                grounded |= _flux(terms, problem, layout, data, axis, end, K, area)
    return Terms(terms.diagonal, terms.right, terms.known, grounded)


def _dirichlet(
    terms: Terms,
    condition: Condition,
    layout: Layout,
    data: Data,
    axis: int,
    end: int,
    faces: Sequence[Faces] | None,
) -> None:
    line, d = layout.axes[axis], layout.dimension
    key = f"problem.boundary.{SIDES[axis][end]}.dirichlet"
    place = line.extended[[0, -1]][end : end + 1]
    if layout.cells:
        g = evaluate(condition.dirichlet, layout.points({axis: place}), data, key)
    else:
        place = line.points[[0, -1]][end : end + 1]
        points = tuple(p if k != axis else p[_one(k, d, end)] for k, p in enumerate(data.own))
        whole = evaluate(condition.dirichlet, points, data, key)
        terms.known.append((axis, end, whole))
        g = layout.to_unknowns(whole, skip=axis)
    if faces is not None:
        entry = at_end(faces[axis].up if end else faces[axis].down, axis, d, end)
        terms.right.append((axis, end, -entry * g))


def _one(axis: int, dimension: int, end: int) -> tuple[slice, ...]:
    """Index of the first or last point of an axis, as a slice."""
    pick = slice(-1, None) if end else slice(0, 1)
    return tuple(pick if k == axis else slice(None) for k in range(dimension))


def _flux(
    terms: Terms,
    problem: Problem,
    layout: Layout,
    data: Data,
    axis: int,
    end: int,
    K: Sequence[torch.Tensor] | None,
    area: float | torch.Tensor,
) -> bool:
    """Neumann and Robin; returns whether alpha is positive somewhere."""
    name, line, d = SIDES[axis][end], layout.axes[axis], layout.dimension
    condition = problem.boundary[name]
    robin = flux_condition(condition)
    points = layout.points({axis: line.edges[[0, -1]][end : end + 1]})
    key = f"problem.boundary.{name}.{condition.kind}"
    alpha = evaluate(robin.alpha, points, data, f"{key}.alpha")
    nonnegative_alpha(alpha, points, f"{key}.alpha")
    g = evaluate(robin.g, points, data, f"{key}.g" if condition.kind == "robin" else key)
    if layout.cells:
        assert K is not None
        inside = K[axis] if K[axis].shape[axis - d] == 1 else at_end(K[axis], axis, d, end)
        k = 2.0 * inside / line.spacing
        share = (k - _outflow(problem, points, data, axis, end, k)) / (alpha + k) * area
    else:
        share = torch.as_tensor(area, dtype=data.dtype, device=data.device)
    terms.diagonal.append((axis, end, (share * alpha).to(data.dtype)))
    terms.right.append((axis, end, (share * g).to(data.dtype)))
    return bool((alpha.detach() > 0).any())


def _outflow(
    problem: Problem,
    points: tuple[torch.Tensor, ...],
    data: Data,
    axis: int,
    end: int,
    k: torch.Tensor,
) -> torch.Tensor | float:
    """B . n on a boundary face; zero where the flow leaves too fast for a central average."""
    if problem.form.b is None:
        return 0.0
    v = evaluate(problem.form.b[axis], points, data, f"problem.equation.b[{axis}]")
    v = v if end else -v
    return torch.where(v > k, torch.zeros((), dtype=v.dtype, device=v.device), v)
