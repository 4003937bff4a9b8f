"""ETDRK4 measured: orders in time, exact solutions, the Allen-Cahn reference, flow in batches.

OMP_NUM_THREADS=1 python benchmarks/spectral.py orders|exact|reference|flow

``reference`` writes benchmarks/references/allen_cahn.npz, float64: x (1025,), t (11,) and u
(11, 1025).
"""

from __future__ import annotations

import math
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml.core.disk import atomic_write
from sciml.core.problem.equation import Equation, NavierStokes, System
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Time
from sciml.core.run.solution import Solution
from sciml.solvers import ETDRK4
from sciml.solvers.solve import solve

CIRCLE = Box((0.0,), (2 * math.pi,))
TORUS = Box((0.0, 0.0), (2 * math.pi, 2 * math.pi))
SQUARE = Box((0.0, 0.0), (1.0, 1.0))
REFERENCE = Path(__file__).parent / "references" / "allen_cahn.npz"


def periodic(box: Box, equation: Any, initial: Any, end: float, **more: Any) -> Problem:
    sides = {side: Condition(periodic=True) for side in box.sides}
    span = Time(end, frames=more.pop("frames", 2))
    return Problem(box, equation, sides, time=span, initial=initial, **more)


def run(problem: Problem, n: int, **options: Any) -> Solution:
    """The answer on n nodes per axis without the repeated last one, as cells shifted to them."""
    return solve(problem, ETDRK4(**options), on=Grid((n + 1,) * problem.box.dimension), throw=False)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def forced(viscosity: float) -> NavierStokes:
    """The flow of the Fourier neural operator's data."""
    source = "0.1*(sin(2*pi*(x + y)) + cos(2*pi*(x + y)))"
    return NavierStokes(viscosity=viscosity, vorticity_source=source)


def orders() -> None:
    """Observed orders in time against a run with very many steps."""
    spots = {"u": "1 - 0.3*cos(x)*cos(y)", "v": "0.2 + 0.1*sin(x)"}
    rates = {"Du": 0.02, "Dv": 0.01, "feed": 0.04, "kill": 0.06}
    cases = {
        "KdV": (periodic(CIRCLE, Equation(kind="kdv"), "0.6*sin(x) + 0.3*cos(2*x)", 0.1), 32),
        "Burgers": (periodic(CIRCLE, Equation(kind="burgers", K=0.1), "sin(x)", 1.0), 64),
        "Allen-Cahn": (periodic(CIRCLE, Equation(kind="allen_cahn", K=0.1), "sin(x)/2", 2.0), 32),
        "Kuramoto-Sivashinsky": (
            periodic(
                Box((0.0,), (32 * math.pi,)),
                Equation(kind="kuramoto_sivashinsky"),
                "cos(x/16)*(1 + sin(x/16))",
                4.0,
            ),
            128,
        ),
        "Klein-Gordon, u^3": (
            periodic(CIRCLE, Equation(kind="klein_gordon", f="-u**3"), "2*sin(x)", 2.0),
            32,
        ),
        "varying K, tensor": (
            periodic(
                TORUS,
                Equation(d=1.0, K=(("0.2 + 0.1*sin(x)", 0.05), (0.05, "0.2 + 0.05*u"))),
                "2*sin(x)*cos(y)",
                4.0,
            ),
            16,
        ),
        "Gray-Scott": (
            periodic(TORUS, System(kind="gray_scott"), spots, 8.0, parameters=rates),
            16,
        ),
        "Navier-Stokes": (
            periodic(TORUS, NavierStokes(0.02), {"vorticity": "sin(x)*cos(2*y) + cos(y)"}, 1.0),
            24,
        ),
    }
    print("| problem | points | 64 steps | 128 | 256 | orders |\n|---|---|---|---|---|---|")
    for name, (problem, n) in cases.items():
        ends = [
            run(problem, n, step=problem.time.end / steps, rtol=0.5).value[-1]
            for steps in (64, 128, 256, 2048)
        ]
        errors = [gap(end, ends[-1]) for end in ends[:-1]]
        found = [math.log2(a / b) for a, b in pairwise(errors)]
        shown = " | ".join(f"{error:.1e}" for error in errors)
        points = f"{n}" if problem.box.dimension == 1 else f"{n}^2"
        print(f"| {name} | {points} | {shown} | {found[0]:.2f}, {found[1]:.2f} |", flush=True)


def solitons(x: torch.Tensor, t: float) -> torch.Tensor:
    """Hirota's two solitons of u_t + 6 u u_x + u_xxx = 0: u = 2 (log F)_xx."""
    k, phase = (2.4, 1.4), (-12.0, -4.0)
    e = [torch.exp(a * (x - c) - a**3 * t) for a, c in zip(k, phase, strict=True)]
    A = ((k[0] - k[1]) / (k[0] + k[1])) ** 2
    powers = [(0.0, torch.ones_like(x)), (k[0], e[0]), (k[1], e[1]), (sum(k), A * e[0] * e[1])]
    F, F_x, F_xx = (sum(a**m * p for a, p in powers) for m in range(3))
    return 2 * (F * F_xx - F_x**2) / F**2


def cole_hopf(x: torch.Tensor, t: float, nu: float) -> torch.Tensor:
    """Burgers from sin(x): -2 nu (log phi)_x, phi solving the heat equation."""
    n = 16 * (len(x) - 1)
    fine = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    phi = torch.fft.rfft(torch.exp((torch.cos(fine) - 1) / (2 * nu))) * torch.exp(-nu * t * k * k)
    u = -2 * nu * torch.fft.irfft(1j * k * phi) / torch.fft.irfft(phi)
    return torch.cat([u[::16], u[:1]])


def exact() -> None:
    """Errors at the end against exact solutions, and against a run on a finer grid."""
    print("| problem | points | rtol | steps | estimate | error at the end |")
    print("|---|---|---|---|---|---|")
    line = Box((-20.0,), (20.0,))
    kdv, burgers = Equation(kind="kdv"), Equation(kind="burgers", K=0.05)

    def row(name: str, problem: Problem, n: int, rtol: float, truth: Any) -> None:
        solution = run(problem, n, rtol=rtol)
        expected = truth(*solution.on.coordinates()) if callable(truth) else truth
        points = f"{n}" if problem.box.dimension == 1 else f"{n}^2"
        print(
            f"| {name} | {points} | {rtol:.0e} | {int(solution.stats.iterations)} "
            f"| {float(solution.residual):.1e} | {gap(solution.value[-1], expected):.1e} |",
            flush=True,
        )

    for n in (128, 256):
        row(
            "KdV, soliton of speed 4, t = 2",
            periodic(line, kdv, "2/cosh(x + 4)**2", 2.0),
            n,
            1e-8,
            lambda x: 2 / torch.cosh(x - 4) ** 2,
        )
    start = lambda x: solitons(x, 0.0)  # noqa: E731
    row(
        "KdV, two solitons, t = 3",
        periodic(line, kdv, start, 3.0),
        384,
        1e-8,
        lambda x: solitons(x, 3.0),
    )
    for n in (128, 256, 512):
        row(
            "Burgers, nu = 0.05, t = 1.5 (Cole-Hopf)",
            periodic(CIRCLE, burgers, "sin(x)", 1.5),
            n,
            1e-9,
            lambda x: cole_hopf(x, 1.5, 0.05),
        )
    frequency = math.sqrt(9 * 0.5 + 2)
    row(
        "Klein-Gordon, linear, t = 50",
        periodic(CIRCLE, Equation(kind="klein_gordon", K=0.5, c=2.0), "cos(3*x)", 50.0),
        32,
        1e-9,
        lambda x: torch.cos(3 * x) * math.cos(50 * frequency),
    )
    row(
        "Taylor-Green with mean flow, nu = 0.05, t = 2",
        periodic(
            TORUS,
            NavierStokes(0.05),
            {"u": "0.5 - sin(x)*cos(y)", "v": "-0.25 + cos(x)*sin(y)"},
            2.0,
        ),
        32,
        1e-9,
        lambda x, y: -2 * math.exp(-0.2) * torch.sin(x - 1) * torch.sin(y + 0.5),
    )
    chaos = periodic(
        Box((0.0,), (32 * math.pi,)),
        Equation(kind="kuramoto_sivashinsky"),
        "cos(x/16)*(1 + sin(x/16))",
        60.0,
        frames=13,
    )
    truth = run(chaos, 512, rtol=1e-9)
    for n in (128, 256):
        row(
            "Kuramoto-Sivashinsky, t = 60 (against 512, rtol 1e-9)",
            chaos,
            n,
            1e-7,
            truth.value[-1, :: 512 // n],
        )


def band_limited(n: int) -> torch.Tensor:
    """x^2 cos(pi x) on n points of [-1, 1), its modes above n / 2 left out.

    The kink at x = 1 makes the coefficients fall off as 1 / k^2 only. They are taken from 2^20
    points, where aliasing is below 1e-12; sampling on n points would alias by 1 / n^2.
    """
    x = -1 + torch.arange(2**20, dtype=torch.float64) * 2.0**-19
    U = torch.fft.rfft(x**2 * torch.cos(math.pi * x), norm="forward")[: n // 2 + 1]
    U[-1] = 0
    return torch.fft.irfft(U, n=n, norm="forward")


def reference() -> None:
    """Allen-Cahn u_t = 1e-4 u_xx - 5 u^3 + 5 u from x^2 cos(pi x), and how far it is converged."""
    equation = Equation(d=1.0, K=1e-4, f="5*u - 5*u**3")
    box = Box((-1.0,), (1.0,))

    def end(n: int, initial: Any, **options: Any) -> Solution:
        return run(periodic(box, equation, initial, 1.0, frames=11), n, **options)

    def closed(n: int) -> torch.Tensor:
        u = band_limited(n)
        return torch.cat([u, u[:1]])

    best = end(8192, closed(8192), rtol=1e-10)
    print(f"{best.status.name}: {best.notes}")
    print("| points | data | rtol | steps | largest relative L2 difference at any t > 0 |")
    print("|---|---|---|---|---|")
    sampled = "x**2*cos(pi*x)"
    for n, data, rtol in [
        (1024, "band-limited", 1e-10),
        (2048, "band-limited", 1e-10),
        (4096, "band-limited", 1e-10),
        (16384, "band-limited", 1e-9),
        (4096, "sampled", 1e-9),
        (8192, "sampled", 1e-9),
        (16384, "sampled", 1e-9),
    ]:
        other = end(n, closed(n) if data == "band-limited" else sampled, rtol=rtol)
        gaps = [
            gap(a[:: n // 1024], b[::8])
            for a, b in zip(other.value[1:], best.value[1:], strict=True)
        ]
        steps = int(other.stats.iterations)
        print(f"| {n} | {data} | {rtol:.0e} | {steps} | {max(gaps):.1e} |", flush=True)
    x = best.on.axes()[0][::8]
    u = best.value[:, ::8].clone()
    u[0] = x**2 * torch.cos(math.pi * x)
    with atomic_write(REFERENCE) as file, open(file, "wb") as stream:
        np.savez_compressed(stream, x=x.numpy(), t=best.times.numpy(), u=u.numpy())
    print(f"{REFERENCE.name}: {REFERENCE.stat().st_size} bytes")


def random_vorticity(count: int, n: int) -> torch.Tensor:
    """Samples of the Gaussian field of covariance 7^3 (-Laplacian + 49)^-2.5 on n + 1 nodes."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, n, n, dtype=torch.float64, generator=generator)
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    squared = 4 * math.pi**2 * (k[:, None] ** 2 + k[None, : n // 2 + 1] ** 2)
    deviation = 7**1.5 * (squared + 49) ** -1.25
    deviation[0, 0] = 0
    w = torch.fft.irfft2(torch.fft.rfft2(noise) * n * deviation, s=(n, n))
    w = torch.cat([w, w[:, :1]], dim=1)
    return torch.cat([w, w[:, :, :1]], dim=2)


def flow() -> None:
    """Trajectories per second of the forced flow at 64^2, in a batch and one by one."""
    w = random_vorticity(64, 64)
    problem = periodic(SQUARE, forced(1e-3), {"vorticity": 0.0}, 50.0, frames=51)
    adaptive = ETDRK4(rtol=1e-4)
    chosen = adaptive.run(adaptive.init(problem, Grid((65, 65))), initial=w)
    print(f"t = 50, 51 frames, 64 trajectories: {chosen.status.name}; {'; '.join(chosen.notes)}")
    print(f"{chosen.stats.solve_seconds:.1f} s in all\n")
    step = 50.0 / float(chosen.stats.iterations[0])
    short = periodic(SQUARE, forced(1e-3), {"vorticity": 0.0}, 1.0)
    solver = ETDRK4(step=step, rtol=1e-4)
    state = solver.init(short, Grid((65, 65)))
    batched, single = [], []
    for _ in range(5):
        begin = time.perf_counter()
        together = solver.run(state, initial=w)
        batched.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        alone = [solver.run(state, initial=one) for one in w]
        single.append(time.perf_counter() - begin)
    differ = max(gap(a, b.value) for a, b in zip(together.value, alone, strict=True))
    print("| 64 trajectories over one unit of time | seconds | trajectories/s |\n|---|---|---|")
    for name, seconds in (("in a batch", min(batched)), ("one by one", min(single))):
        print(f"| {name} | {seconds:.2f} | {64 / seconds:.1f} |")
    print(f"\nstep {step:.3g}, verified by a run with twice the step; they differ by {differ:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    commands = {"orders": orders, "exact": exact, "reference": reference, "flow": flow}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        raise SystemExit(__doc__)
    commands[sys.argv[1]]()
