"""What trained functions reach on problems of the literature: ``python benchmarks/records.py``.

``configs/records`` holds the problems and how they are answered. References are exact or our own
classical solvers' on fine grids; of the cavity Chebyshev collocation. Runs that are done are kept
in ``runs/records.json``, from which the same command goes on; ``--table`` writes the table of what
there is and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import torch
from against import ROOT, Kept, Known
from pinn_cases import cole_hopf
from results import Cell, Table, keep
from torch import Tensor

from sciml.app.read import load_spec
from sciml.app.run import Setting, answer
from sciml.solvers.trained.sampling import sobol

FOLDER = ROOT / "configs" / "records"
KEPT = ROOT / "runs" / "records.json"


@dataclass(frozen=True)
class Case:
    """What was asked, and the changes by which each run differs from its spec, by its name."""

    asked: float
    known: Known
    runs: Mapping[str, tuple[str, ...]]


def _within(seconds: int) -> tuple[str, ...]:
    return (f"solver.seconds={seconds}",)


def _features(more: str = "") -> tuple[str, ...]:
    return (f"solver={{kind: random_features, rtol: 1.0e-9{more}}}",)


def _burgers() -> tuple[Tensor, Tensor]:
    x, t = np.linspace(-1, 1, 401), np.linspace(0, 1, 101)[1:]
    times, places = np.meshgrid(t, x, indexing="ij")
    points = np.stack([places.ravel(), times.ravel()], -1)
    return torch.from_numpy(points), torch.from_numpy(cole_hopf(x, t).reshape(-1, 1))


def _etdrk4(name: str, nodes: int) -> Callable[[], tuple[Tensor, Tensor]]:
    def made() -> tuple[Tensor, Tensor]:
        """Every fourth node at every frame."""
        solver = "solver={kind: etdrk4, rtol: 1.0e-9}"
        spec = load_spec(FOLDER / f"{name}.yaml", [f"grid.shape=[{nodes}]", solver])
        found = answer(spec, Setting()).solution
        assert found.on is not None and found.times is not None
        x, t = found.on.coordinates()[0][::4], found.times
        points = torch.stack([x.repeat(len(t)), t.repeat_interleave(len(x))], -1)
        return points, found.value[:, ::4].reshape(-1, 1)

    return made


def _chebyshev(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes on [0, 1] and the matrix of the first derivative (Trefethen 2000, chapter 6)."""
    s = np.cos(np.pi * np.arange(n + 1) / n)
    c = np.r_[2, np.ones(n - 1), 2] * (-1.0) ** np.arange(n + 1)
    D = np.outer(c, 1 / c) / (s[:, None] - s[None, :] + np.eye(n + 1))
    return 0.5 * (1 + s), 2 * (D - np.diag(D.sum(1)))


def cavity_velocity(n: int = 40, reynolds: float = 100.0) -> tuple[Tensor, Tensor]:
    """Velocity of the cavity at points, by collocation of the stream function on (n + 1)^2 nodes.

    Lap^2 psi / Re = psi_y Lap psi_x - psi_x Lap psi_y with psi = psi_n = 0 around, but for psi_y =
    the lid's speed: psi_n takes the rows of the nodes next to the sides. Newton's method.
    """
    x, D = _chebyshev(n)
    one, m = np.eye(n + 1), n + 1
    dx, dy = np.kron(D, one), np.kron(one, D)  # psi[i m + j] at (x_i, x_j)
    lap = np.kron(D @ D, one) + np.kron(one, D @ D)
    i, j = (a.ravel() for a in np.meshgrid(np.arange(m), np.arange(m), indexing="ij"))
    wall = (i == 0) | (i == n) | (j == 0) | (j == n)
    rows, right = np.eye(m * m)[wall], np.zeros(int(wall.sum()))
    clamped, slopes = [], []
    for k in range(1, n):
        lid = 16 * x[k] ** 2 * (1 - x[k]) ** 2
        clamped += [dx[k], dx[n * m + k], dy[k * m], dy[k * m + n]]
        slopes += [0.0, 0.0, lid, 0.0]
    A = np.vstack([rows, np.array(clamped)])
    b = np.r_[right, slopes]
    inner = (i > 1) & (i < n - 1) & (j > 1) & (j < n - 1)
    psi, biharmonic = np.zeros(m * m), lap @ lap
    for _ in range(30):
        u, v, w = dy @ psi, -(dx @ psi), lap @ psi
        wx, wy = dx @ w, dy @ w
        residual = biharmonic @ psi / reynolds - u * wx - v * wy
        J = biharmonic / reynolds - wx[:, None] * dy + wy[:, None] * dx
        J -= u[:, None] * (dx @ lap) + v[:, None] * (dy @ lap)
        system = np.vstack([J[inner], A])
        known = np.r_[-residual[inner], b - A @ psi]
        step = np.linalg.lstsq(system, known, rcond=None)[0]
        psi = psi + step
        if np.abs(step).max() < 1e-12:
            break
    places = sobol(5000, 2, torch.Generator().manual_seed(11))
    lx, ly = _lagrange(x, places[:, 0].numpy()), _lagrange(x, places[:, 1].numpy())
    u, v = ((f.reshape(m, m)) for f in (dy @ psi, -(dx @ psi)))
    values = [np.einsum("ni,ij,nj->n", lx, f, ly) for f in (u, v)]
    return places, torch.from_numpy(np.stack(values, -1))


def _lagrange(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values of the Lagrange polynomials of Chebyshev nodes at points, (N, n + 1)."""
    weights = np.r_[0.5, np.ones(len(x) - 2), 0.5] * (-1.0) ** np.arange(len(x))
    parts = weights / (at[:, None] - x)
    return parts / parts.sum(1, keepdims=True)


CASES: Mapping[str, Case] = {
    "beam": Case(1e-8, Known(), {"pinn": _within(60), "features": _features()}),
    "helmholtz": Case(1e-6, Known(), {"pinn": _within(120), "features": _features()}),
    "wave": Case(1e-6, Known(), {"pinn": _within(120), "features": _features()}),
    "taylor-green": Case(
        1e-6,
        Known({"u": "-cos(x)*sin(y)*exp(-0.02*t)", "v": "sin(x)*cos(y)*exp(-0.02*t)"}),
        {"pinn": _within(120), "features": _features(", count: 300, bandwidths: [[2, 2, 1]]")},
    ),
    "kovasznay": Case(
        1e-6,
        Known(
            {
                "u": "1 - exp(l*x)*cos(2*pi*y)",
                "v": "l/(2*pi)*exp(l*x)*sin(2*pi*y)",
                "p": "1/2 - exp(2*l*x)/2",
            }
        ),
        {"pinn": _within(120), "features": _features(", count: 500, bandwidths: [8]")},
    ),
    "burgers": Case(
        1e-6,
        Known(reference=_burgers),
        {"pinn": _within(300)},
    ),
    "kdv": Case(
        1e-5,
        Known(reference=_etdrk4("kdv", 1025)),
        {"features": ()},
    ),
    "kuramoto-sivashinsky": Case(
        1e-3,
        Known(reference=_etdrk4("kuramoto-sivashinsky", 513)),
        {"features": ()},
    ),
    "cavity": Case(
        1e-4,
        Known(reference=cavity_velocity, fields=("u", "v")),
        {"pinn": _within(300), "features": _features(", count: 600, bandwidths: [12]")},
    ),
    "beltrami": Case(
        1e-6,
        Known(
            {
                "u": "-(exp(x)*sin(y + z) + exp(z)*cos(x + y))*exp(-t)",
                "v": "-(exp(y)*sin(z + x) + exp(x)*cos(y + z))*exp(-t)",
                "w": "-(exp(z)*sin(x + y) + exp(y)*cos(z + x))*exp(-t)",
            }
        ),
        {"pinn": _within(300), "features": _features(", count: 200, bandwidths: [2]")},
    ),
    "allen-cahn": Case(
        1e-5,
        Known(reference=_etdrk4("allen-cahn", 2049)),
        {"pinn": _within(360)},
    ),
}


def main() -> None:
    """Run what is not yet done, and write the table of what is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--names", default=",".join(CASES))
    parser.add_argument("--runs", default="", help="those whose name begins so")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    kept = Kept(KEPT)
    for seed in [] if asked.table else asked.seeds:
        for name in asked.names.split(","):
            case = CASES[name]
            for run, changes in case.runs.items():
                if run.startswith(asked.runs):
                    path, own = FOLDER / f"{name}.yaml", (*changes, f"solver.seed={seed}")
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        found = kept.run(f"{name}, {run}, {seed}", path, own, case.known)
                    print(name, run, seed, *(found[k] for k in ("error", "seconds", "status")),
                          flush=True)  # fmt: skip
    write()


def write() -> None:
    """The table of what is kept."""
    stored = json.loads(KEPT.read_text("utf-8"))
    rows: list[list[Cell]] = []
    for name, case in CASES.items():
        for run in case.runs:
            found = [v for k, v in stored.items() if k.startswith(f"{name}, {run}, ")]
            if found:
                listed = (("error", ".1e"), ("seconds", ".0f"))
                told = [", ".join(format(each[k], how) for each in found) for k, how in listed]
                states = ", ".join(dict.fromkeys(each["status"] for each in found))
                rows.append([name, found[0]["solver"], f"{case.asked:.0e}", *told, states])
    today = datetime.now(timezone.utc).date().isoformat()
    columns = ("case", "solver", "asked", "relative L2 error", "CPU s", "status")
    note = "Last iterate, points unseen, a number for each seed; one thread beside other programs."
    keep("records", Table("Records", today, platform.machine(), "python benchmarks/records.py",
                          columns, rows, note))  # fmt: skip


if __name__ == "__main__":
    main()
