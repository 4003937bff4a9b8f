"""The error asked for, the bound that is guaranteed, and the true error, on twelve problems.

    python benchmarks/adaptive.py [--only kellogg] [--keep]

Corners, a checkerboard of contrast 161 whose solution is r^0.1 (Kellogg 1975), layers, jumps, all
sides; triangles, tetrahedra and grids. Errors are in the energy norm, relative to the solution's
own. The true one is integrated by rules of degree 12 (9 in space), in elements at the singular
point with the substitution that makes the integrand smooth; where no solution is known it is
between the bounds. The slope is that of the bound against unknowns, over the last half of the
meshes. ``--keep`` writes the table to ``benchmarks/results/adaptive.json``.
"""

from __future__ import annotations

import argparse
import datetime
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import results
import torch

import sciml
from sciml.core.problem.condition import Condition, Robin
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Equation, Problem
from sciml.core.problem.quadrature import whole
from sciml.core.run.solution import Solution
from sciml.solvers.adaptive import Adaptive
from sciml.solvers.linear.equilibrated import multilinear

MACHINE = "2 shared x86-64 cores, 24 GiB, no GPU"
Tensor = torch.Tensor
Field = Callable[..., Tensor]
PI = math.pi


@dataclass(frozen=True)
class Case:
    """A problem, where it begins, the errors asked for, and its solution with K and c.

    ``power``: of r, where the solution is singular at the origin; ``slope``: the best that
    polynomials can.
    """

    name: str
    problem: Problem
    on: Grid | Mesh
    errors: Sequence[float]
    slope: float
    exact: Field | None = None
    K: Field | None = None
    c: float = 0.0
    power: float = 0.0


def source(exact: Field, K: Field, c: float) -> Field:
    """-div(K grad u) + c u, by autograd."""

    def f(*x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = tuple(a.detach().clone().requires_grad_() for a in torch.broadcast_tensors(*x))
            u = exact(*x)
            total = c * u
            slopes = torch.autograd.grad(u.sum(), x, create_graph=True)
            for a, s in zip(x, slopes, strict=True):
                flux = K(*x) * s
                if flux.requires_grad:
                    (steep,) = torch.autograd.grad(
                        flux.sum(), a, retain_graph=True, allow_unused=True
                    )
                    total = total if steep is None else total - steep
        return total.detach()

    return named(f, exact)


def through(exact: Field, K: Field, axis: int, out: float) -> Field:
    """n . K grad u on a side of a box."""

    def h(*x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = tuple(a.detach().clone().requires_grad_() for a in torch.broadcast_tensors(*x))
            slopes = torch.autograd.grad(exact(*x).sum(), x)
        return (out * K(*x) * slopes[axis]).detach()

    return named(h, exact)


def named(of: Field, like: Field) -> Field:
    """With the coordinates that a function takes, by name."""
    count = like.__code__.co_argcount
    if count == 1:
        return lambda x: of(x)
    if count == 2:
        return lambda x, y: of(x, y)
    return lambda x, y, z: of(x, y, z)


# --- Meshes ---------------------------------------------------------------------------------------


def box_mesh(n: int, d: int, low: float, high: float, element: str, keep: Any = None) -> Mesh:
    """A box in simplices, those whose middles are kept; its sides low0, high0, ..., inner."""
    import skfem

    ticks = [np.linspace(low, high, n + 1)] * d
    made = (skfem.MeshTri if d == 2 else skfem.MeshTet).init_tensor(*ticks)
    points, cells = made.p.T.copy(), made.t.T.copy()
    if keep is not None:
        cells = cells[keep(points[cells].mean(1))]
        used, cells = np.unique(cells, return_inverse=True)
        points, cells = points[used], cells.reshape(-1, d + 1)
    outer = Mesh(points, cells).boundaries["boundary"]
    middles, sides, rest = points[outer].mean(1), {}, np.ones(len(outer), dtype=bool)
    for k in range(d):
        for name, end in ((f"low{k}", low), (f"high{k}", high)):
            sides[name] = np.abs(middles[:, k] - end) < 1e-9
            rest &= ~sides[name]
    if rest.any():
        sides["inner"] = rest
    parts = {name: outer[of] for name, of in sides.items()}
    return Mesh(points, cells, {}, parts, element=element)  # type: ignore[arg-type]


def one(*x: Tensor) -> Tensor:
    return torch.ones_like(x[0])


def corner(x: Tensor, y: Tensor) -> Tensor:
    angle = torch.remainder(torch.atan2(y, x), 2 * PI)
    return (x**2 + y**2) ** (1 / 3) * torch.sin(2 / 3 * angle)


RATIO, RHO, SIGMA, GAMMA = 161.4476387975881, PI / 4, -14.92256510455152, 0.1


def checkers(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x * y > 0, RATIO, 1.0)


def kellogg(x: Tensor, y: Tensor) -> Tensor:
    t = torch.remainder(torch.atan2(y, x), 2 * PI)
    g, r, s = GAMMA, RHO, SIGMA
    parts = (
        math.cos((PI / 2 - s) * g) * torch.cos((t - PI / 2 + r) * g),
        math.cos(r * g) * torch.cos((t - PI + s) * g),
        math.cos(s * g) * torch.cos((t - PI - r) * g),
        math.cos((PI / 2 - r) * g) * torch.cos((t - 3 * PI / 2 - s) * g),
    )
    found = parts[3]
    for k in (2, 1, 0):
        found = torch.where(t <= (k + 1) * PI / 2, parts[k], found)
    square = x**2 + y**2
    positive = torch.where(square > 0, square, 1.0)
    return torch.where(square > 0, positive ** (g / 2) * found, 0.0)


def layer(x: Tensor, y: Tensor) -> Tensor:
    return torch.tanh(50 * (x + y / 2 - 0.75))


def jump(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x < 0.5, 100.0 * (x - 0.5), x - 0.5) * torch.exp(y)


def sine(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(PI * x) * torch.sin(PI * y)


def plume(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(x) * torch.cos(2 * y) + x * y


def line(x: Tensor) -> Tensor:
    return torch.sin(5 * x) + x**2


def waves(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(2 * x + y) * torch.cos(3 * y)


def space(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.sin(PI * x) * torch.sin(PI * y) * torch.sin(PI * z)


def cases() -> list[Case]:
    """The twelve."""
    no_fourth = lambda m: ~((m[:, 0] > 0) & (m[:, 1] < 0))  # noqa: E731
    no_octant = lambda m: ~(m > 0).all(1)  # noqa: E731
    found = []

    def add(
        name: str, on: Grid | Mesh, errors: Sequence[float], slope: float, exact: Field | None,
        K: Field = one, c: float = 0.0, power: float = 0.0, free: bool = False,
        domain: Box | None = None,
    ) -> None:  # fmt: skip
        names = list(on.facets) if isinstance(on, Mesh) else []
        if isinstance(on, Grid):
            assert domain is not None
            names = [("left", "right"), ("bottom", "top"), ("back", "front")][: len(on.shape)]
            names = [side for pair in names for side in pair]
        sides: dict[str, Condition] = {}
        for place, side in enumerate(names):
            if exact is None:
                sides[side] = Condition(dirichlet=0.0)
            elif not free or place == 0:
                sides[side] = Condition(dirichlet=exact)
            else:
                h = through(exact, K, place // 2, 1.0 if place % 2 else -1.0)
                both = named(lambda *x, h=h: h(*x) + 2 * exact(*x), exact)
                sides[side] = (
                    Condition(neumann=h) if place % 3 else Condition(robin=Robin(2.0, both))
                )
        f: Any = 1.0 if exact is None else source(exact, K, c) if not power else 0.0
        equation = Equation(K=1.0 if K is one else K, c=c, f=f)
        found.append(
            Case(name, Problem(domain, equation, sides), on, errors, slope,
                 exact, K, c, power)
        )  # fmt: skip

    coarse = box_mesh(4, 2, -1.0, 1.0, "P1", no_fourth)
    add("corner of 270 degrees, P1", coarse, (1e-1, 1e-2), -0.5, corner, power=2 / 3)
    coarse = box_mesh(4, 2, -1.0, 1.0, "P2", no_fourth)
    add("the same, P2", coarse, (1e-1, 1e-2, 1e-3), -1.0, corner, power=2 / 3)
    board = box_mesh(4, 2, -1.0, 1.0, "P1")
    add("kellogg's checkerboard, P1", board, (3e-1, 1e-1), -0.5, kellogg, checkers, power=GAMMA)
    board = box_mesh(4, 2, -1.0, 1.0, "P2")
    add("the same, P2 ", board, (3e-1, 1e-1), -1.0, kellogg, checkers, power=GAMMA)
    cube = box_mesh(2, 3, -1.0, 1.0, "P2", no_octant)
    add("re-entrant cube, P2", cube, (2e-1, 1e-1), -2 / 3, None)
    square = box_mesh(6, 2, 0.0, 1.0, "P2")
    add("layer, c = 1e4, P2", square, (1e-1, 1e-2, 1e-3), -1.0, layer, c=1e4)
    steps = named(lambda x, y: torch.where(x < 0.5, 1.0, 100.0) + 0 * y, sine)
    add("K jumps on facets, P2", square, (1e-1, 1e-2, 1e-3), -1.0, jump, steps)
    square = box_mesh(4, 2, 0.0, 1.0, "P2")
    add("sine, P2", square, (1e-1, 1e-2, 1e-3, 1e-4), -1.0, sine)
    square = box_mesh(4, 2, 0.0, 1.0, "P1")
    vary = named(lambda x, y: 1 + x * y, sine)
    add("mixed sides, c = 3, P1", square, (1e-1, 1e-2), -0.5, plume, vary, c=3.0, free=True)
    wide = named(lambda x: 1 + 0.9 * torch.sin(9 * x), line)
    add("grid of a line, K(x)", Grid((17,)), (1e-1, 1e-2, 1e-3, 1e-4), -1.0, line, wide,
        domain=Box((0.0,), (1.0,)))  # fmt: skip
    rough = named(lambda x, y: 1 + 0.9 * torch.sin(9 * x) * torch.cos(7 * y), sine)
    add("grid, K(x, y), mixed sides", Grid((17, 17)), (1e-1, 1e-2, 3e-3), -0.5, waves, rough,
        c=1.0, free=True, domain=Box((0.0, 0.0), (1.0, 1.0)))  # fmt: skip
    deep = named(lambda x, y, z: 1 + 0.5 * x * y * z, space)
    add("grid in space, K(x, y, z)", Grid((9, 9, 9)), (3e-1, 1e-1), -1 / 3, space, deep,
        domain=Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))  # fmt: skip
    return found


# --- True errors ----------------------------------------------------------------------------------


def slopes_of(case: Case, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """u and its slopes (..., d)."""
    assert case.exact is not None
    with torch.enable_grad():
        x = [a.detach().clone().requires_grad_() for a in torch.broadcast_tensors(*x)]
        u = case.exact(*x)
        steep = torch.autograd.grad(u.sum(), x)
    return u.detach(), torch.stack(steep, -1)


def density(case: Case, x: Sequence[Tensor], v: Tensor, steep: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the energies of u - v and of u."""
    assert case.K is not None
    u, slopes = slopes_of(case, x)
    K = case.K(*x)
    gap = K * (slopes - steep).square().sum(-1) + case.c * (u - v).square()
    return gap, K * slopes.square().sum(-1) + case.c * u.square()


def on_mesh(case: Case, mesh: Mesh, value: Tensor) -> tuple[float, float]:
    """|u - v| and |u| without sides."""
    part = whole(mesh, 12 if mesh.dimension == 2 else 9)
    assert part.inverse is not None
    local = torch.einsum("mn,qnl->mql", value[part.nodes], part.tables.slopes)
    steep = local @ part.inverse[:, 0]
    gap, own = density(case, part.points, part.at_points(value), steep)
    gap, own = ((a * part.measure).sum(-1) for a in (gap, own))
    if case.power:
        touched = (np.abs(mesh.points[mesh.cells]).max(2) == 0).any(1)
        for e in np.flatnonzero(touched):
            gap[e], own[e] = at_singular_point(case, mesh, value, int(e))
    return float(gap.sum().sqrt()), float(own.sum().sqrt())


def at_singular_point(case: Case, mesh: Mesh, value: Tensor, e: int) -> tuple[float, float]:
    """The same of one triangle with a corner at the origin, x = s y, s = t^(1 / (2 power))."""
    from sciml.core.problem.mesh import basis_at, reference

    corners = mesh.points[mesh.cells[e]]
    at = int(np.abs(corners).max(1).argmin())
    a, b = (corners[k] for k in range(3) if k != at)
    t, w = np.polynomial.legendre.leggauss(24)
    t, w = (t + 1) / 2, w / 2
    p = 1 / (2 * case.power)
    s, ds = t**p, p * t ** (p - 1) * w
    y = a + t[:, None] * (b - a)
    x = s[:, None, None] * y
    area = abs(a[0] * b[1] - a[1] * b[0])
    weights = torch.from_numpy((s * ds)[:, None] * w * area)
    J = (corners[1:] - corners[0]).T
    X = np.linalg.solve(J, (x.reshape(-1, 2) - corners[0]).T)
    values, slopes = basis_at(reference(mesh), X)
    own = value[torch.from_numpy(mesh.cell_nodes[e].astype(np.int64))].numpy()
    v = torch.from_numpy(values @ own).reshape(weights.shape)
    steep = np.einsum("qnl,n,lk->qk", slopes, own, np.linalg.inv(J))
    points = torch.from_numpy(x).unbind(-1)
    parts = density(case, points, v, torch.from_numpy(steep).reshape(*weights.shape, 2))
    return float((parts[0] * weights).sum()), float((parts[1] * weights).sum())


def on_grid(case: Case, grid: Grid, value: Tensor) -> tuple[float, float]:
    """The same by five Gauss points along each axis of a cell."""
    assert isinstance(case.problem.domain, Box)
    grid, box = grid.bind(case.problem.domain), case.problem.domain
    t, w = np.polynomial.legendre.leggauss(5)
    t, w = (t + 1) / 2, w / 2
    gap, own = 0.0, 0.0
    edges = [
        a + h * torch.arange(n - 1, dtype=torch.float64)
        for a, h, n in zip(box.lower, grid.spacing, grid.shape, strict=True)
    ]
    for index in np.ndindex(*(5,) * len(edges)):
        place = [float(t[i]) for i in index]
        ticks = [e + q * h for e, q, h in zip(edges, place, grid.spacing, strict=True)]
        v, steep = multilinear(value, place, grid.spacing)
        x = torch.meshgrid(*ticks, indexing="ij")
        parts = density(case, x, v, torch.stack(steep, -1))
        size = math.prod(float(w[i]) for i in index) * math.prod(grid.spacing)
        gap, own = gap + size * float(parts[0].sum()), own + size * float(parts[1].sum())
    return math.sqrt(gap), math.sqrt(own)


def true_error(case: Case, solution: Solution) -> float | None:
    """Relative, without what Robin sides add to both."""
    if case.exact is None:
        return None
    look: Any = on_mesh if isinstance(solution.on, Mesh) else on_grid
    gap, own = look(case, solution.on, solution.value)
    return gap / own


def row(case: Case, error: float) -> list[results.Cell]:
    """One line of the table."""
    told: list[tuple[int, float]] = []
    begun = time.perf_counter()
    solution = sciml.solve(
        case.problem, Adaptive(error), on=case.on, throw=False,
        progress=lambda level, bound: told.append((level, bound)),
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    bounds: Any = solution.certificate
    upper, lower = float(bounds.relative_upper), float(bounds.relative_lower)
    true = true_error(case, solution)
    levels = [note.split() for note in solution.notes if "unknowns: an error" in note]
    seen = [(float(n[0].replace(",", "")), float(n[-1])) for n in levels]
    seen = [pair for pair in seen if math.isfinite(pair[1])]
    slope = None
    if len(seen) > 2:
        slope = float(np.polyfit(*np.log(np.array(seen)).T, 1)[0])
    return [
        case.name, error, upper, lower, true, "yes" if solution.status.success else "no",
        f"{math.prod(solution.value.shape):,}", str(len(told)), slope, case.slope, seconds,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in cases():
        for error in case.errors if chosen.only in case.name else ():
            rows.append(row(case, error))
            print(*rows[-1], sep=" | ", flush=True)
    columns = ("problem", "asked", "bound", "lower bound", "true error", "certified", "unknowns",
               "solves", "slope", "best slope", "seconds")  # fmt: skip
    table = results.Table(
        "The error asked for, guaranteed and true", str(datetime.date.today()), MACHINE,
        "python benchmarks/adaptive.py --keep", columns, rows,
        "Relative, in the energy norm; the true error without what Robin sides add.",
    )  # fmt: skip
    if chosen.keep:
        results.keep("adaptive", table)


if __name__ == "__main__":
    main()
