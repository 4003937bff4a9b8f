"""DeepXDE's 70 example programs, as specs: ``python benchmarks/deepxde.py``.

``configs/deepxde`` has a spec for each that can be stated. What they reach is measured against the
program's own exact solution, or one of ours where it has none; runs that are done are kept in
``runs/deepxde.json``, from which the same command goes on. ``--programs``: a checkout of DeepXDE,
whose data some programs are compared with; with ``--python``, of an environment that has it, those
``BESIDE`` run beside ours, unedited, for as many CPU seconds. ``--table`` runs nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from against import ROOT, Kept, Known, wanted
from pinn_cases import chebyshev_allen_cahn, cole_hopf, gridded
from results import Cell, Table, keep
from scipy.integrate import solve_ivp
from torch import Tensor

from sciml.app.read import load_spec, load_training, read_spec
from sciml.app.run import Setting, answer
from sciml.app.spec import Spec
from sciml.app.train import read_history, train
from sciml.app.yaml import parse_yaml
from sciml.core.disk import digest, write_json
from sciml.core.run.solution import Solution

FOLDER = ROOT / "configs" / "deepxde"
KEPT = ROOT / "runs" / "deepxde.json"
_LEAST = 10.0  # CPU seconds that a program of DeepXDE has, where ours took fewer
Reference = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Program:
    """An example: its folder, what is right, and why it has no spec where it has none."""

    folder: str
    known: Known | None = None
    missing: str = ""


def _ode(f: Any, start: list[float], end: float) -> Reference:
    t = np.linspace(0, end, 1001)
    found = solve_ivp(f, (0, end), start, "DOP853", t, rtol=1e-12, atol=1e-12)
    return torch.from_numpy(t)[:, None], torch.from_numpy(found.y.T)


def _lorenz(t: float, y: Any, force: float = 0.0) -> list[float]:
    a, b, c = y
    return [10 * (b - a), a * (15 - c) - b, a * b - 8 / 3 * c + force * np.sin(2 * np.pi * t)]


def _allen_cahn() -> Reference:
    x, t = np.linspace(-1, 1, 201), np.linspace(0, 1, 101)
    return gridded(x, t, chebyshev_allen_cahn(x, t, 1e-3))


def _burgers() -> Reference:
    x, t = np.linspace(-1, 1, 401), np.linspace(0, 0.99, 100)[1:]
    return gridded(x, t, cole_hopf(x, t))


def _schroedinger(n: int = 512, steps: int = 20_000) -> Reference:
    """By splitting (Strang) on a ring, at eleven instants."""
    x, h = -5 + 10 * np.arange(n) / n, np.pi / 2 / steps
    drift = np.exp(-0.5j * h * (2 * np.pi * np.fft.fftfreq(n, 10 / n)) ** 2)
    u, found = (2 / np.cosh(x)).astype(complex), []
    for k in range(steps + 1):
        if k % (steps // 10) == 0:
            found.append(np.stack([u.real, u.imag], -1))
        u = u * np.exp(0.5j * h * abs(u) ** 2)
        u = np.fft.ifft(drift * np.fft.fft(u))
        u = u * np.exp(0.5j * h * abs(u) ** 2)
    t = np.linspace(0, np.pi / 2, 11)
    points = np.stack([np.tile(x, 11), np.repeat(t, n)], -1)
    return torch.from_numpy(points), torch.from_numpy(np.concatenate(found))


def _put(steps: int = 4000) -> Reference:
    """The binomial tree of the program, one year before the end, mean of two step numbers."""
    s = np.linspace(0.1, 2.0, 100)

    def tree(spot: float, n: int) -> float:
        up, r = np.exp(0.2 / np.sqrt(n)), np.exp(-0.05 / n)
        p = (1 / r - 1 / up) / (up - 1 / up)
        powers = spot * up ** (2 * np.arange(n + 1) - n)
        v = np.maximum(1 - powers, 0)
        for i in range(n - 1, -1, -1):
            v = r * (p * v[1:] + (1 - p) * v[:-1])
            v = np.maximum(v, 1 - spot * up ** (2 * np.arange(i + 1) - i))
        return float(v[0])

    v = [0.5 * (tree(spot, steps) + tree(spot, steps + 1)) for spot in s]
    points = np.stack([s, np.ones_like(s)], -1)
    return torch.from_numpy(points), torch.tensor(v, dtype=torch.float64)[:, None]


def _by_elements(text: str) -> tuple[Tensor, Tensor]:
    """Two thousand nodes, and values there, of a problem on a mesh."""
    found = answer(read_spec(parse_yaml(text, "reference")), Setting()).solution
    nodes = torch.as_tensor(found.on.nodes)
    some = torch.randperm(len(nodes), generator=torch.Generator().manual_seed(0))[:2000]
    return nodes[some], found.value.reshape(len(nodes), -1)[some]


def _l_shape() -> Reference:
    """Not the program's own file, which is ten per cent off inside and NaN at the corner."""
    return _by_elements("""
problem:
  equation: {kind: poisson, f: 1}
  boundary: {l: {dirichlet: 0}}
geometry:
  size: 0.02
  element: P2
  shapes: {l: {polygon: [[0, 0], [1, 0], [1, -1], [-1, -1], [-1, 1], [0, 1]]}}
""")


def _sound() -> Reference:
    points, u = _by_elements("""
problem:
  equation: {kind: helmholtz, wavenumber: 2}
  boundary: {outer: {absorbing: true}, disk: {neumann: "-2*i*nx*exp(2*i*x)"}}
geometry:
  size: 0.1
  element: P2
  shapes:
    outer: {rectangle: [[-3.141592653589793, -3.141592653589793],
                        [3.141592653589793, 3.141592653589793]]}
    disk: {circle: [0, 0, 0.7853981633974483]}
  regions: {domain: outer - disk}
""")
    return points, torch.cat([u.real, u.imag], -1)


def _reaction(programs: Path) -> Reference:
    held = np.load(programs / "examples" / "dataset" / "reaction.npz")
    x, t = np.meshgrid(held["x"].ravel(), held["t"].ravel())
    points = np.stack([x.ravel(), t.ravel()], -1)
    return torch.from_numpy(points), torch.from_numpy(
        np.stack([held["Ca"].ravel(), held["Cb"].ravel()], -1)
    )


def _table(programs: Path, name: str) -> Reference:
    held = torch.from_numpy(np.loadtxt(programs / "examples" / "dataset" / name))
    return held[:, :1], held[:, 1:2]


_OWN = Known()
_NONE = Known(reference=None, fields=())  # what is right is not at hand
_FINE = "(6*x - 2)**2*sin(12*x - 4)"
_FRACTIONAL = "a fractional derivative"
_VORTICES = {
    "u": "0.5 - cos(x - 0.5*z)*sin(y)*exp(-0.02*z)",
    "v": "sin(x - 0.5*z)*cos(y)*exp(-0.02*z)",
}
_BELTRAMI = {
    "u": "-(exp(x)*sin(y + z) + exp(z)*cos(x + y))*exp(-t)",
    "v": "-(exp(y)*sin(z + x) + exp(x)*cos(y + z))*exp(-t)",
    "w": "-(exp(z)*sin(x + y) + exp(y)*cos(z + x))*exp(-t)",
}
_KOVASZNAY = {
    "u": "1 - exp(l*x)*cos(2*pi*y)",
    "v": "l/(2*pi)*exp(l*x)*sin(2*pi*y)",
    "p": "1/2 - exp(2*l*x)/2",
}
_PLATE = {
    "u": "cos(2*pi*x)*sin(pi*y)",
    "v": "sin(pi*x)*y**4",
    "a": "-4*pi*sin(2*pi*x)*sin(pi*y) + 4*sin(pi*x)*y**3",
    "b": "8*sin(pi*x)*y**3 - 2*pi*sin(2*pi*x)*sin(pi*y)",
    "c": "(pi*cos(2*pi*x)*cos(pi*y) + pi*cos(pi*x)*y**4)/2",
}
_CALL = (
    "x*(1 + erf((log(x/50) + 0.07*t)/(0.2*sqrt(2*t))))/2"
    " - 25*exp(-0.05*t)*(1 + erf((log(x/50) + 0.03*t)/(0.2*sqrt(2*t))))"
)


def programs_of(checkout: Path | None) -> dict[str, Program]:
    """All 70, by their names; ``checkout``: where DeepXDE's data lie."""

    def data(made: Any, *more: Any, fields: tuple[str, ...] = ("u",)) -> Known:
        if checkout is None:
            return _NONE
        return Known(reference=partial(made, checkout, *more), fields=fields)

    forward = {
        "Allen_Cahn": Known(reference=_allen_cahn),
        "Beltrami_flow": Known(_BELTRAMI),
        "Burgers": Known(reference=_burgers),
        "Burgers_RAR": Known(reference=_burgers),
        "Euler_beam": _OWN,
        "Helmholtz_Dirichlet_2d": _OWN,
        "Helmholtz_Dirichlet_2d_HPO": _OWN,
        "Helmholtz_Neumann_2d_hole": _OWN,
        "Helmholtz_Sound_hard_ABC_2d": Known(reference=_sound, fields=("u", "v")),
        "Klein_Gordon": _OWN,
        "Kovasznay_flow": Known(_KOVASZNAY),
        "Laplace_disk": _OWN,
        "Lotka_Volterra": Known(
            reference=partial(
                _ode,
                lambda t, y: [
                    20 * (2 * y[0] - 8 * y[0] * y[1]),
                    20 * (4 * y[0] * y[1] - 1.06 * y[1]),
                ],
                [0.5, 0.075],
                1.0,
            ),
            fields=("r", "p"),
        ),
        "Poisson_Dirichlet_1d": _OWN,
        "Poisson_Dirichlet_1d_exactBC": _OWN,
        "Poisson_Lshape": Known(reference=_l_shape),
        "Poisson_Neumann_1d": _OWN,
        "Poisson_PointSetOperator_1d": _OWN,
        "Poisson_Robin_1d": _OWN,
        "Poisson_multiscale_1d": _OWN,
        "Poisson_periodic_1d": _OWN,
        "Volterra_IDE": _OWN,
        "american_put": Known(reference=_put, fields=("v",)),
        "black_scholes_call": Known({"u": _CALL}),
        "diffusion_1d": _OWN,
        "diffusion_1d_exactBC": _OWN,
        "diffusion_1d_resample": _OWN,
        "diffusion_reaction": _OWN,
        "elasticity_plate": Known(_PLATE),
        "fractional_Poisson_1d": _FRACTIONAL,
        "fractional_Poisson_2d": _FRACTIONAL,
        "fractional_Poisson_3d": _FRACTIONAL,
        "fractional_diffusion_1d": _FRACTIONAL,
        "heat": _OWN,
        "heat_resample": _OWN,
        "ide": _OWN,
        "ode_2nd": Known({"u": "50/81 + 5*t/9 - 2*exp(t) + 31/81*exp(9*t)"}),
        "ode_system": Known({"u": "sin(t)", "v": "cos(t)"}),
        "wave_1d": _OWN,
        "Schrodinger": Known(reference=_schroedinger, fields=("u", "v")),
    }
    inverse = {
        "Lorenz_inverse": Known(
            reference=partial(_ode, _lorenz, [-8, 7, 27], 3.0), fields=("a", "b", "c")
        ),
        "Lorenz_inverse_forced": Known(
            reference=partial(_ode, partial(_lorenz, force=10.0), [-8, 7, 27], 3.0),
            fields=("a", "b", "c"),
        ),
        "Navier_Stokes_inverse": Known(_VORTICES),
        "brinkman_forchheimer": Known({"u": "1 - cosh(20*(x - 0.5))/cosh(10)"}),
        "diffusion_1d_inverse": Known({"u": "exp(-t)*sin(pi*x)"}),
        "diffusion_reaction_rate": Known({"k": "0.1 + exp(-0.5*(x - 0.5)**2/0.15**2)"}),
        "elliptic_inverse_field": Known({"q": "-pi**2*sin(pi*x)"}),
        "elliptic_inverse_field_batch": Known({"q": "-pi**2*sin(pi*x)"}),
        "fractional_Poisson_1d_inverse": _FRACTIONAL,
        "fractional_Poisson_2d_inverse": _FRACTIONAL,
        "reaction_inverse": data(_reaction, fields=("a", "b")),
    }
    function = {
        "dataset": data(_table, "dataset.test"),
        "func": _OWN,
        "func_uncertainty": "dropout",
        "mf_dataset": Known({"u": _FINE}),
        "mf_func": Known({"u": _FINE}),
    }
    lid = "a side whose data are a random function"
    operator: dict[str, Known | str] = {
        "ADR_solver": _OWN,
        **dict.fromkeys(TRAINED, _NONE),
        "stokes_aligned_pideeponet": lid,
        "stokes_aligned_zcs_pideeponet": lid,
    }
    found = {}
    for folder, listed in (
        ("pinn_forward", forward), ("pinn_inverse", inverse), ("operator", operator),
        ("function", function),
    ):  # fmt: skip
        for name, known in listed.items():
            stated = isinstance(known, Known)
            found[name] = Program(folder, known if stated else None, "" if stated else str(known))
    return found


# Operators, learnt from problems that are solved meanwhile; the first of those that state the same.
TRAINED = {
    "advection_aligned_pideeponet": "",
    "advection_aligned_pideeponet_2d": "advection_aligned_pideeponet",
    "advection_unaligned_pideeponet": "advection_aligned_pideeponet",
    "advection_unaligned_pideeponet_2d": "advection_aligned_pideeponet",
    "antiderivative_aligned": "",
    "antiderivative_aligned_pideeponet": "antiderivative_aligned",
    "antiderivative_unaligned": "antiderivative_aligned",
    "antiderivative_unaligned_pideeponet": "antiderivative_aligned",
    "diff_rec_aligned_pideeponet": "",
    "diff_rec_aligned_zcs_pideeponet": "diff_rec_aligned_pideeponet",
    "diff_rec_unaligned_pideeponet": "diff_rec_aligned_pideeponet",
    "poisson_1d_pideeponet": "",
}


def learnt(name: str) -> dict[str, Any]:
    """The relative L2 error of samples that were not trained on, their mean."""
    out, begun = ROOT / "runs" / "deepxde" / name, time.process_time()
    train(load_training(FOLDER / f"{name}.yaml"), out)
    last = [row["valid_l2"] for row in read_history(out) if "valid_l2" in row][-1]
    seconds = time.process_time() - begun
    return {"solver": "deeponet", "error": last, "seconds": seconds, "status": ""}


# Programs that the PyTorch back end runs, and that ask for the fields that ours have.
BESIDE = (
    "Allen_Cahn", "Burgers", "Euler_beam", "Helmholtz_Dirichlet_2d", "Helmholtz_Neumann_2d_hole",
    "Kovasznay_flow", "Laplace_disk", "Poisson_Dirichlet_1d",
    "Poisson_Dirichlet_1d_exactBC", "Poisson_Neumann_1d", "Poisson_PointSetOperator_1d",
    "Poisson_Robin_1d", "Poisson_periodic_1d", "diffusion_1d",
    "diffusion_1d_exactBC", "diffusion_1d_resample", "diffusion_reaction", "elasticity_plate",
    "heat", "ode_2nd", "ode_system", "diffusion_1d_inverse", "brinkman_forchheimer",
)  # fmt: skip


def beside(
    name: str, program: Program, checkout: Path, python: str, seconds: float
) -> dict[str, float]:
    """The error of DeepXDE's program after so many CPU seconds, at the points of ours."""
    assert program.known is not None
    _, points, values = wanted(load_spec(FOLDER / f"{name}.yaml"), program.known)
    path = checkout / "examples" / program.folder / f"{name}.py"
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "points.npy", Path(folder) / "out.npz"
        np.save(given, points.numpy())
        script = str(Path(__file__).with_name("deepxde_peer.py"))
        given_to = [python, "-P", script, str(path), str(seconds), str(given), str(out)]
        subprocess.run(given_to, check=True, capture_output=True)
        held = np.load(out)
        theirs, spent = torch.from_numpy(held["values"]).double(), float(held["seconds"])
    return {
        "error": float((theirs[:, : values.shape[1]] - values).norm() / values.norm()),
        "seconds": spent,
    }


def _numbers(spec: Spec, solution: Solution) -> Mapping[str, Any]:
    found = dict(solution.parameters or {})
    return {"numbers": {k: float(v) for k, v in found.items()}} if found else {}


def main() -> None:
    """Run what is not yet done, and write the table of what is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--names", default="")
    parser.add_argument("--programs", type=Path, help="a checkout of DeepXDE")
    parser.add_argument("--python", help="of an environment that has DeepXDE")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    listed, kept = programs_of(asked.programs), Kept(KEPT)
    for name in [] if asked.table else (asked.names.split(",") if asked.names else listed):
        program = listed[name]
        if TRAINED.get(name) == "":
            stored = json.loads(KEPT.read_text("utf-8"))
            mark = digest(FOLDER / f"{name}.yaml")
            if stored.get(name, {}).get("spec") != mark:
                write_json(KEPT, {**stored, name: {"spec": mark, **learnt(name)}})
            continue
        if program.known in (None, _NONE):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = kept.run(name, FOLDER / f"{name}.yaml", (), program.known, _numbers)
        except Exception as error:
            print(name, "FAILED", repr(error)[:300], flush=True)
            continue
        if asked.python and asked.programs and name in BESIDE and "theirs" not in found:
            seconds = max(found["seconds"], _LEAST)
            try:
                found["theirs"] = beside(
                    name, program, asked.programs.resolve(), asked.python, seconds
                )
            except subprocess.CalledProcessError as error:
                print(name, "does not run there", error.stderr.decode()[-300:], flush=True)
                continue
            stored = json.loads(KEPT.read_text("utf-8"))
            write_json(KEPT, {**stored, name: found})
        print(name, *(found.get(k) for k in ("error", "seconds", "status", "numbers", "theirs")),
              flush=True)  # fmt: skip
    write()


def write() -> None:
    """The table of what is kept."""
    stored = json.loads(KEPT.read_text("utf-8"))
    rows: list[list[Cell]] = []
    for name, program in programs_of(None).items():
        file = f"{name} (notebook)" if name == "Schrodinger" else f"{program.folder}/{name}"
        if program.missing:
            rows.append([file, f"no: {program.missing}", "", "", "", "", ""])
            continue
        found = stored.get(TRAINED.get(name) or name)
        if found is None:
            rows.append([file, "stated", "", "", "not measured", "", ""])
            continue
        theirs = found.get("theirs")
        rows.append([file, found["solver"], f"{found['error']:.1e}", f"{found['seconds']:.1f}",
                     found["status"],
                     f"{theirs['error']:.1e}" if theirs else "",
                     f"{theirs['seconds']:.0f}" if theirs else ""])  # fmt: skip
    today = datetime.now(timezone.utc).date().isoformat()
    columns = ("program", "stated, and answered by", "relative L2 error", "CPU s", "status",
               "DeepXDE's", "its CPU s")  # fmt: skip
    note = (
        "Errors at points unseen, of unknown functions where there are any. DeepXDE 1.15.0 by "
        "PyTorch in float32, its programs unedited, for the CPU seconds that ours took or 10; "
        "one thread beside other programs."
    )
    keep("deepxde", Table("DeepXDE's examples", today, platform.machine(),
                          "python benchmarks/deepxde.py --programs CHECKOUT --python PYTHON",
                          columns, rows, note))  # fmt: skip


if __name__ == "__main__":
    main()
