"""Inputs that were once answered wrongly, written in two ways: what is answered now.

    python benchmarks/one_meaning.py

writes benchmarks/results/one-meaning.json. Each row is asked as a user asks it, a spec where the
input is a spec. ``before`` is what commit 93a17a8 answered.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import results
import torch

import sciml
from sciml import Box, Condition, Equation, Grid, Helmholtz, NavierStokes, Problem, System, Time
from sciml.solvers import ETDRK4, SDIRK

LINE, SQUARE = Box((0.0,), (1.0,)), Box((0.0, 0.0), (1.0, 1.0))
TURN = Box((0.0, 0.0), (6.283185307179586, 6.283185307179586))
Row = tuple[str, str, str, str]


def all_round(box: Box, **condition: object) -> dict[str, Condition]:
    return dict.fromkeys(box.sides, Condition(**condition))  # type: ignore[arg-type]


def kdv(f: object) -> float:
    problem = Problem(
        LINE, Equation(kind="kdv", f=f), all_round(LINE, periodic=True),
        time=Time(end=0.01), initial=0.0,
    )  # fmt: skip
    return float(sciml.solve(problem, ETDRK4(), on=Grid((64,))).value[-1].mean())


def flow(**given: object) -> torch.Tensor:
    problem = Problem(
        TURN, NavierStokes(viscosity=0.1, **given), all_round(TURN, periodic=True),  # type: ignore[arg-type]
        time=Time(end=0.1), initial={"vorticity": 0.0},
    )  # fmt: skip
    return sciml.solve(problem, ETDRK4(), on=Grid((32, 32))).value[-1]


def periodic_system(f: object) -> torch.Tensor:
    system = System({"u": Equation(d=1.0, f=f), "v": Equation(d=1.0, f="u")})
    problem = Problem(
        LINE, system, all_round(LINE, periodic=True), time=Time(end=0.1),
        initial={"u": 0.0, "v": 0.0},
    )  # fmt: skip
    return sciml.solve(problem, ETDRK4(), on=Grid((32,))).value[-1]


def transport(K: object) -> float:
    """The relative L2 error in per cent, of the sum of images of the exact spreading Gaussian."""
    problem = Problem(
        LINE, Equation(d=1.0, K=K, b=(1.0,)), all_round(LINE, periodic=True), time=Time(end=1.0),
        initial="exp(-200*(x - 0.5)**2)",
    )  # fmt: skip
    solution = sciml.solve(problem, SDIRK(), on=Grid((401,)))
    x = torch.linspace(0, 1, 401, dtype=torch.float64)
    wide = 1 + 4 * 200 * 1e-3
    exact = sum((-200 * (x - 0.5 - k) ** 2 / wide).exp() for k in range(-3, 4)) / wide**0.5
    return 100 * float((solution.value[-1] - exact).norm() / exact.norm())


def quasilinear(K: object) -> float:
    problem = Problem(SQUARE, Equation(K=K, f=1.0), all_round(SQUARE, dirichlet=0.0))
    return float(sciml.solve(problem, on=Grid((33, 33))).value.max())


def middle(K: object) -> float:
    walls = {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet=1.0)}
    problem = Problem(LINE, Equation(K=K, f=1.0), walls)
    return float(sciml.solve(problem, on=Grid((201,))).value[100])


def waves(f: object) -> torch.Tensor:
    problem = Problem(
        SQUARE, Helmholtz(wavenumber=5.0, f=f), all_round(SQUARE, absorbing=True),
        parameters={"s": 2.0},
    )  # fmt: skip
    return sciml.solve(problem, on=Grid((33, 33))).value


def coupled(f: object) -> torch.Tensor:
    system = System({"u": Equation(d=1.0, f=f), "v": Equation(d=1.0)})
    problem = Problem(
        SQUARE, system, all_round(SQUARE, neumann=0.0), time=Time(end=0.1),
        initial={"u": "x", "v": "y"},
    )  # fmt: skip
    return sciml.solve(problem, on=Grid((17, 17))).value[-1]


def bounds() -> tuple[float, ...]:
    spec = {
        "problem": {
            "domain": {"kind": "box", "lower": ["log(0.1)"], "upper": ["2*pi"]},
            "equation": {"kind": "poisson", "f": 1},
            "boundary": {"all": {"dirichlet": 0}},
        },
        "grid": {"shape": [33]},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_text(json.dumps(spec))  # YAML holds JSON
        box = sciml.load_spec(path).problem.box
    return (*box.lower, *box.upper)


def cells(n: int) -> float:
    """The largest error at 129 nodes of u = x (1 - x) for K = 1 + x given at n cell centres."""
    centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "k.npy"
        np.save(path, (1 + centres).numpy())
        K = sciml.FieldFile(str(path), centring="cell")
        problem = Problem(LINE, Equation(K=K, f="1 + 4*x"), all_round(LINE, dirichlet=0.0))
        found = sciml.solve(problem, on=Grid((129,))).value
    x = torch.linspace(0, 1, 129, dtype=torch.float64)
    return float((found - x * (1 - x)).abs().max())


def jump_flux(points: int, centring: str) -> float:
    walls = {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet=1.0)}
    problem = Problem(LINE, Equation(K="where(x < 0.5, 1, 10)"), walls)
    grid = Grid((points,), centring=centring)  # type: ignore[arg-type]
    value = sciml.solve(problem, on=grid).value
    # Where K is 1 the flux is the slope, which is taken away from the jump.
    return float((value[9] - value[4]) / (5 / (points - (centring == "node"))))


def inclusion(n: int) -> float:
    K = "where(0.25 <= x <= 0.75 and 0.25 <= y <= 0.75, 1e-4, 1)"
    problem = Problem(SQUARE, Equation(K=K, f=1.0), all_round(SQUARE, dirichlet=0.0))
    return float(sciml.solve(problem, on=Grid((n, n))).value.max())


def gap(a: torch.Tensor, b: torch.Tensor) -> str:
    return f"equal to the text's to {float((a - b).abs().max() / b.abs().max()):.0e}"


def rows() -> list[Row]:
    found: list[Row] = [
        ("kdv, `f=lambda x, t: 100*t + 0*x`, ETDRK4, the mean at t = 0.01", "0.0", "0.005",
         f"{kdv(lambda x, t: 100 * t + 0 * x):.6g}"),
        ("periodic flow, `vorticity_source=lambda x, y, t: ...`", "frozen at the start",
         "as the text",
         gap(flow(vorticity_source=lambda x, y, t: 10 * t * torch.sin(x) * torch.cos(y)),
             flow(vorticity_source="10*t*sin(x)*cos(y)"))),
        ("periodic flow, `force=(lambda x, y, t: ..., 0)`", "frozen at the start", "as the text",
         gap(flow(force=(lambda x, y, t: 10 * t * torch.sin(y) + 0 * x, 0.0)),
             flow(force=("10*t*sin(y)", 0.0)))),
        ("periodic system, `f=lambda x, t: 100*t + 0*x`", "frozen at the start", "as the text",
         gap(periodic_system(lambda x, t: 100 * t + 0 * x), periodic_system("100*t"))),
        ("transport, 401 nodes, SDIRK, `K: 1e-3`, error", "18.0 %", "0.35 %",
         f"{transport(1e-3):.2f} %"),
        ("the same, `K: 1e-3 + 0*u`", "0.35 %", "0.35 %", f"{transport('1e-3 + 0*u'):.2f} %"),
        ("`K=lambda x, y, u: 1 + u**2` without a solver, largest u", "refused",
         f"{quasilinear('1 + u**2'):.10g}, the text's",
         f"{quasilinear(lambda x, y, u: 1 + u**2):.10g}"),
        ("`K=lambda u: 0.1 + u**2`, u(1/2)", "1.124", "0.9095",
         f"{middle(lambda u: 0.1 + u**2):.4f}"),
        ("Helmholtz, `f=lambda x, y, s: s + 0*x`", "TypeError", "as the text",
         gap(waves(lambda x, y, s: s + 0 * x), waves("s"))),
        ("system, `f=lambda x, y, u, v: v - u`", "refused", "as the text",
         gap(coupled(lambda x, y, u, v: v - u), coupled("v - u"))),
        ("`lower: [log(0.1)]`, `upper: [2*pi]`", "expected a number", "-2.303, 6.283",
         ", ".join(f"{b:.3f}" for b in bounds())),
        ("K = 1 + x at 64 and 256 cell centres on 129 nodes, error of u", "4.5e-4, 1.1e-4",
         "second order", f"{cells(64):.1e}, {cells(256):.1e}"),
        ("K 1 then 10 at x = 0.5, flux on 41 nodes and on 40 cells", "1.856, 1.818", "1.818, 1.818",
         f"{jump_flux(41, 'node'):.3f}, {jump_flux(40, 'cell'):.3f}"),
        ("inclusion of K = 1e-4, largest u on 33^2, 65^2, 129^2, 257^2",
         "162.6, 173.1, 178.6, 181.4", "184.2",
         ", ".join(f"{inclusion(n):.1f}" for n in (33, 65, 129, 257))),
    ]  # fmt: skip
    return found


def main() -> None:
    torch.set_num_threads(1)
    results.keep(
        "one-meaning",
        results.Table(
            title="Inputs that were answered wrongly",
            date="2026-11-30",
            machine="2 shared x86-64 cores, 24 GiB, no GPU",
            command="python benchmarks/one_meaning.py",
            columns=("input", "before", "right", "now"),
            rows=rows(),
            note="Before: commit 93a17a8.",
        ),
    )


if __name__ == "__main__":
    main()
