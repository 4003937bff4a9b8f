"""What probes and quantities cost beside the solve: ``python benchmarks/quantities.py``.

Pairs of runs with and without, in turn, in one process; processor time, the least of each, since
others on the machine only add to it.
"""

from __future__ import annotations

import platform
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from results import Cell, Table, keep

from sciml.app.read import read_spec
from sciml.app.run import Setting, answer
from sciml.app.yaml import parse_yaml

_PAIRS = 4
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
grid: {shape: [129, 129]}
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
_STILL = ", over_time: max"
CASES = {
    "Darcy, 513 x 513 nodes": (_STEADY + _ASKED).replace(_STILL, ""),
    "heat in time, 129 x 129 nodes": _TIME + _ASKED,
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
                    answer(spec, Setting(), frames=place)
                    pair.append(time.process_time() - begun)
                seconds.append(pair)
                print(name, pair, flush=True)
        pairs = seconds[1:]
        without, with_ = (min(column) for column in zip(*pairs, strict=True))
        rows.append([name, without, with_, f"{100 * (with_ / without - 1):+.1f} %"])
    note = f"Processor time, least of {_PAIRS} pairs; two probes, four quantities, or drag, lift"
    keep(
        "quantities",
        Table(
            "What probes and quantities cost",
            datetime.now(timezone.utc).date().isoformat(),
            f"{platform.machine()}, one thread",
            "python benchmarks/quantities.py",
            ("case", "seconds without", "with", "more"),
            rows,
            f"{note} and a probe at every step.",
        ),
    )


if __name__ == "__main__":
    main()
