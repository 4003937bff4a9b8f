"""What probes and quantities cost beside the solve: ``python benchmarks/quantities.py``.

Pairs of runs with and without, in turn, in one process; of the processor time the least of each,
since others on the machine only add to it, and the median of the pairs' ratios.
"""

from __future__ import annotations

import platform
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from results import Cell, Table, keep

from sciml.app.read import read_spec
from sciml.app.run import Setting, answer, write_run
from sciml.app.yaml import parse_yaml

_PAIRS = 7
_ASKED = """
output:
  probes: {a: [0.3, 0.3], b: [0.7, 0.4]}
  quantities:
    out: {flux: u, on: left}
    most: {max: u}
    total: {integral: "u**2"}
    peak: {at: [0.5, 0.5], over_time: max}
"""
_STEADY = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: darcy, K: "1 + 0.5*sin(9*x)*cos(7*y)"}
  boundary: {all: {dirichlet: "x*y"}}
grid: {shape: [513, 513]}
"""
_TIME = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: heat, K: "1 + 0.5*x*y"}
  boundary: {all: {dirichlet: 0}}
  time: {end: 0.1}
  initial: "sin(pi*x)*sin(pi*y)"
grid: {shape: [513, 513]}
solver: {kind: sdirk, rtol: 1.0e-4}
"""
_FLOW = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [2.2, 0.41]}
  equation: {kind: navier_stokes, viscosity: 0.001}
  boundary:
    left: {dirichlet: ["6*y*(0.41 - y)/0.41**2", 0]}
    right: {neumann: 0}
    bottom: {dirichlet: [0, 0]}
    top: {dirichlet: [0, 0]}
  obstacle: {inside: "(x - 0.2)**2 + (y - 0.2)**2 < 0.05**2", boundary: {dirichlet: [0, 0]}}
  time: {end: 0.1}
  initial: {u: "6*y*(0.41 - y)/0.41**2", v: 0}
grid: {shape: [352, 64], centring: cell}
output:
  probes: {wake: [0.4, 0.25]}
  quantities:
    drag: {force: [20, 0], on: obstacle, over_time: max}
    lift: {force: [0, 20], on: obstacle, over_time: max}
"""
_MESH = """
problem:
  equation: {kind: heat, K: 1}
  boundary:
    left: {dirichlet: 1}
    right: {robin: {alpha: 2, g: 0}}
    bottom: {neumann: 0}
    top: {neumann: 0}
    hole: {neumann: 0}
  time: {end: 0.5}
  initial: 0
mesh: {file: %s, element: P2}
output:
  probes: {a: [0.3, 0.3], b: [1.7, 0.4]}
  quantities:
    out: {flux: u, on: right}
    most: {max: u}
    front: {at: [1.5, 0.5], of: qx, over_time: max}
"""
_PLATE = Path(__file__).resolve().parents[1] / "configs" / "meshes" / "plate.msh"
_STILL = ", over_time: max"
_DARCY = (_STEADY + _ASKED).replace(_STILL, "")
_WRITTEN = "the same, with files, pictures and report"
CASES = {
    "Darcy, 513 x 513 nodes": _DARCY,
    _WRITTEN: _DARCY,
    "heat in time, 513 x 513 nodes": _TIME + _ASKED,
    "heat in time, 812 P2 triangles": _MESH % _PLATE,
    "flow around a cylinder, 352 x 64 cells": _FLOW,
}


def main() -> None:
    """Time every case and write the table."""
    rows: list[list[Cell]] = []
    for name, text in CASES.items():
        asked = read_spec(parse_yaml(text, "spec.yaml"))
        bare, seconds = replace(asked, output=None), []
        with tempfile.TemporaryDirectory() as folder:
            for k in range(_PAIRS + 1):  # the first compiles
                pair = []
                for which, spec in enumerate((bare, asked)):
                    place = Path(folder) / f"{k}{which}" / "frames.h5"
                    place.parent.mkdir()
                    begun = time.process_time()
                    found = answer(spec, Setting(), frames=place)
                    if name == _WRITTEN:
                        write_run(found, place.parent)
                    pair.append(time.process_time() - begun)
                seconds.append(pair)
                print(name, pair, flush=True)
        pairs = seconds[1:]
        without, with_ = (min(column) for column in zip(*pairs, strict=True))
        more = median(b / a for a, b in pairs) - 1
        rows.append([name, without, with_, f"{100 * more:+.1f} %"])
    note = f"Processor time, least of {_PAIRS} pairs, and the median of their ratios; two probes"
    keep(
        "quantities",
        Table(
            "What probes and quantities cost",
            datetime.now(timezone.utc).date().isoformat(),
            f"{platform.machine()}, one thread",
            "python benchmarks/quantities.py",
            ("case", "seconds without", "with", "more"),
            rows,
            f"{note}, four quantities, or drag, lift and a probe at every step; a prepared "
            "measurement of the first takes 1.3 ms, the rest is its preparation, which does not "
            "grow with the grid.",
        ),
    )


if __name__ == "__main__":
    main()
