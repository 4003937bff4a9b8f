"""The problems of ``benchmarks/pinn.py``, how each is solved, and what it is compared with.

References are exact or themselves converged: Burgers by the Cole-Hopf transform, Allen-Cahn by
ETDRK4 on 2049 points and with Dirichlet data by Chebyshev collocation, the lid-driven cavity by the
projection method on 256 x 256 cells.

The lid's speed jumps at the corners of the cavity. There the flow tends to Taylor's (1962) between
a plate that slides and one at rest, of angle theta from the lid, in the plane of the corner,

    u_X = B + C cos^2 theta + D (sin theta cos theta + theta),
    u_Y = C (sin theta cos theta - theta) + D sin^2 theta,
    p = 2 nu (C X + D Y) / r^2,       C = U / (1 - pi^2/4), D = pi C / 2, B = -pi D / 2,

which is what the network's extension of the data is made of, as in Botella and Peyret's (1998)
spectral solution; what is left to learn is continuous.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cavity as flow
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.interpolate import BarycentricInterpolator
from torch import Tensor

from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.solution import Solution
from sciml.solvers import ETDRK4
from sciml.solvers.solve import solve
from sciml.solvers.trained import PINN, RAD, GaussNewton
from sciml.solvers.trained.sampling import sobol

VISCOSITY = 0.01 / math.pi
REYNOLDS = 100
FINEST = 256  # cells an axis of the cavity's reference
INSTANTS = 101
WAVE = "sin(pi*x)*sin(pi*y)"
SUM = " + ".join(f"sin(pi*x{i})" for i in range(1, 6))
Array = NDArray[np.float64]
Reference = tuple[Tensor, Tensor]  # points (N, D), time last, and values (N, F)


@dataclass(frozen=True)
class Case:
    """A problem, how it is solved, what is wanted: an error within so many seconds."""

    problem: Problem
    solver: PINN
    reference: Callable[[Path], Reference]
    error: float
    seconds: float


def poisson() -> Problem:
    """u = sin(pi x) sin(pi y) on the unit square."""
    box = Box((0.0, 0.0), (1.0, 1.0))
    walls = {side: Condition(dirichlet=0.0) for side in box.sides}
    return Problem(box, Equation(K=1.0, f=f"2*pi**2*{WAVE}"), walls, exact=WAVE)


def poisson_5d() -> Problem:
    """u = the sum of sin(pi x_i), as in Mueller and Zeinhofer (2023)."""
    box = Box((0.0,) * 5, (1.0,) * 5)
    walls = {side: Condition(dirichlet=SUM) for side in box.sides}
    return Problem(box, Equation(K=1.0, f=f"pi**2*({SUM})"), walls, exact=SUM)


def in_time(equation: Equation, initial: str, condition: Condition) -> Problem:
    """On [-1, 1] x [0, 1], the same condition on both sides."""
    box = Box((-1.0,), (1.0,))
    sides = {side: condition for side in box.sides}
    return Problem(box, equation, sides, initial=initial, time=Time(1.0, frames=INSTANTS))


def burgers(periodic: bool = False) -> Problem:
    """Viscosity 0.01 / pi; an odd start, so that periodic and zero sides have one solution."""
    condition = Condition(periodic=True) if periodic else Condition(dirichlet=0.0)
    return in_time(Equation(d=1.0, K=VISCOSITY, b=("u",)), "-sin(pi*x)", condition)


def allen_cahn(diffusion: float = 1e-4, dirichlet: bool = False) -> Problem:
    """u_t = diffusion u_xx + 5 u - 5 u^3, u = x^2 cos(pi x) at the start."""
    condition = Condition(dirichlet=-1.0) if dirichlet else Condition(periodic=True)
    equation = Equation(d=1.0, K=diffusion, f="5*u - 5*u**3")
    return in_time(equation, "x**2*cos(pi*x)", condition)


def cole_hopf(x: Array, t: Array, nodes: int = 160) -> Array:
    """Burgers' solution, (T, X), by Gauss-Hermite quadrature of the Cole-Hopf formula."""
    z, w = np.polynomial.hermite.hermgauss(nodes)
    found = np.empty((len(t), len(x)))
    for k, now in enumerate(t):
        y = x[:, None] - z * math.sqrt(4 * VISCOSITY * now)
        exponent = -np.cos(np.pi * y) / (2 * np.pi * VISCOSITY)
        weight = np.exp(exponent - exponent.max(1, keepdims=True)) * w
        found[k] = -(np.sin(np.pi * y) * weight).sum(1) / weight.sum(1)
    return found


def chebyshev_allen_cahn(x: Array, t: Array, diffusion: float, nodes: int = 400) -> Array:
    """The Dirichlet problem, (T, X), by Chebyshev collocation (Trefethen 2000, chapter 6)."""
    s = np.cos(np.pi * np.arange(nodes + 1) / nodes)
    c = np.r_[2, np.ones(nodes - 1), 2] * (-1.0) ** np.arange(nodes + 1)
    D = np.outer(c, 1 / c) / (s[:, None] - s[None, :] + np.eye(nodes + 1))
    D -= np.diag(D.sum(1))
    D2 = diffusion * (D @ D)
    inner = D2[1:-1, 1:-1]
    sides = D2[1:-1, [0, -1]] @ np.array([-1.0, -1.0])
    start = (s**2 * np.cos(np.pi * s))[1:-1]
    found = solve_ivp(
        lambda _, u: inner @ u + sides + 5 * u - 5 * u**3, (0.0, 1.0), start, "BDF", t,
        jac=lambda _, u: inner + np.diag(5 - 15 * u**2), rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    whole = np.pad(found.y.T, ((0, 0), (1, 1)), constant_values=-1.0)
    return BarycentricInterpolator(s, whole.T)(x).T


def gridded(x: Array, t: Array, values: Array) -> Reference:
    """Values (T, X) as points of space and time."""
    times, places = np.meshgrid(t, x, indexing="ij")
    points = np.stack([places.ravel(), times.ravel()], -1)
    return torch.from_numpy(points), torch.from_numpy(values.reshape(-1, 1))


def stored(name: str, make: Callable[[], tuple[Array, Array, Array]], out: Path) -> Reference:
    """A reference x, t, u (X, T) in ``out``, as the peers read it, made where it is not there."""
    path = out / f"{name}.npz"
    if not path.exists():
        x, t, u = make()
        out.mkdir(parents=True, exist_ok=True)
        np.savez(path, x=x, t=t, u=u.T)
    held = np.load(path)
    return gridded(held["x"], held["t"], held["u"].T)


def burgers_reference() -> tuple[Array, Array, Array]:
    x, t = np.linspace(-1, 1, 401), np.linspace(0, 1, INSTANTS)
    return x, t, cole_hopf(x, t)


def periodic_reference() -> tuple[Array, Array, Array]:
    on = Grid((2049,))
    found = solve(allen_cahn(), ETDRK4(rtol=1e-8), on=on)
    x = on.bind(allen_cahn().box).coordinates()[0]
    return x[::4].numpy(), np.array(allen_cahn().time.instants), found.value[:, ::4].numpy()


def dirichlet_reference() -> tuple[Array, Array, Array]:
    x, t = np.linspace(-1, 1, 401), np.linspace(0, 1, INSTANTS)
    return x, t, chebyshev_allen_cahn(x, t, 1e-3)


def at_points(problem: Problem, exact: Callable[[Tensor], Tensor], out: Path) -> Reference:
    """A dense grid in 2-D, Sobol points beyond."""
    if problem.box.dimension == 2:
        axis = torch.linspace(0, 1, 201, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis)
    else:
        points = sobol(20_000, problem.box.dimension, torch.Generator().manual_seed(11))
    return points, exact(points)[:, None]


def corner(X: str, lid: float) -> tuple[str, str, str]:
    """Taylor's u_X, u_Y and pressure; ``X``: the distance from the corner along the lid."""
    Y, C = "(1 - y)", lid / (1 - math.pi**2 / 4)
    D = math.pi * C / 2
    r2 = f"({X}**2 + {Y}**2 + 1e-30)"
    theta, mixed = f"atan2({Y}, {X})", f"{X}*{Y}/{r2}"
    return (
        f"({-math.pi * D / 2!r} + {C!r}*{X}**2/{r2} + {D!r}*({mixed} + {theta}))",
        f"({C!r}*({mixed} - {theta}) + {D!r}*{Y}**2/{r2})",
        f"({2 / REYNOLDS!r}*({C!r}*{X} + {D!r}*{Y})/{r2})",
    )


def lid_extension() -> dict[str, str]:
    """Both corners' flows, blended along the lid and down to the floor."""
    near, far = corner("x", 1.0), corner("(1 - x)", -1.0)
    a, b = "((1 - x)**2*(1 + 2*x))", "(x**2*(3 - 2*x))"
    down = "y**2*(3 - 2*y)"
    return {
        "u": f"{down}*({a}*{near[0]} - {b}*{far[0]})",
        "v": f"-{down}*({a}*{near[1]} + {b}*{far[1]})",
        "p": f"{down}*({a}*{near[2]} + {b}*{far[2]})",
    }


def cavity() -> Problem:
    """The steady flow under a lid of speed 1."""
    box, rest = Box((0.0, 0.0), (1.0, 1.0)), Condition(dirichlet=(0.0, 0.0))
    sides = {"all": rest, "top": Condition(dirichlet=(1.0, 0.0))}
    return Problem(box, NavierStokes(1 / REYNOLDS), sides)


def cells(solution: Solution) -> Reference:
    """The velocity at the centres of a grid's cells."""
    columns = [c.flatten() for c in solution.on.coordinates()]
    return torch.stack(columns, -1), solution.last[:2].flatten(1).T


def cavity_reference(out: Path) -> Reference:
    """On 256 x 256 cells, from coarser flows; off by up to 0.2 in the cells next to the corners."""
    found = None
    for count in (64, 128, FINEST):
        found = flow.steady(REYNOLDS, count, found, out)
    return cells(found)


def cases() -> dict[str, Case]:
    """All of them."""
    tail = {"rtol": 1e-10}  # never reached: the iterations are the budget
    return {
        "poisson": Case(
            poisson(),
            PINN(width=32, points=1000, optimiser=GaussNewton(iterations=60), **tail),
            partial(at_points, poisson(), lambda p: (math.pi * p).sin().prod(1)),
            1e-6, 30,
        ),
        "burgers": Case(
            burgers(),
            PINN(
                width=20, depth=3, points=10_000, sampler=RAD(every=10, pool=100_000),
                optimiser=GaussNewton(iterations=500), **tail,
            ),
            partial(stored, "burgers", burgers_reference),
            1e-5, 600,
        ),
        "allen-cahn": Case(
            allen_cahn(),
            PINN(
                width=24, depth=3, points=6000, boundary_points=1000, hard=False,
                weights={"start": 100.0}, sampler=RAD(every=10, pool=60_000),
                optimiser=GaussNewton(iterations=600), **tail,
            ),
            partial(stored, "allen-cahn", periodic_reference),
            1e-4, 1800,
        ),
        "poisson-5d": Case(
            poisson_5d(),
            PINN(
                width=48, depth=1, points=2000, boundary_points=100, hard=False,
                weights=dict.fromkeys(poisson_5d().box.sides, 10.0),
                optimiser=GaussNewton(iterations=100), **tail,
            ),
            partial(at_points, poisson_5d(), lambda p: (math.pi * p).sin().sum(1)),
            1e-5, 600,
        ),
        "allen-cahn-1e-3": Case(
            allen_cahn(1e-3, True),
            PINN(
                width=20, depth=3, points=4000, sampler=RAD(every=10, pool=40_000),
                optimiser=GaussNewton(iterations=300), **tail,
            ),
            partial(stored, "allen-cahn-1e-3", dirichlet_reference),
            1e-4, 600,
        ),
        "cavity": Case(
            cavity(),
            PINN(
                width=24, depth=2, points=2000, extension=lid_extension(),
                weights={"equation": "(x**2 + (1 - y)**2)*((1 - x)**2 + (1 - y)**2)"},
                sampler=RAD(every=20, pool=20_000),
                optimiser=GaussNewton(iterations=250), **tail,
            ),
            cavity_reference,
            1e-2, 1800,
        ),
    }  # fmt: skip
