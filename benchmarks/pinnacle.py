"""PINNacle's problems, kept as a table: ``python benchmarks/pinnacle.py [--files FOLDER]``.

Seeds that are done are kept in ``runs/pinnacle.json``, from which the same command goes on; remove
it to measure all of them anew. ``--files``: the folder of the benchmark's own answers.
"""

from __future__ import annotations

import argparse
import platform
from datetime import datetime, timezone
from pathlib import Path

from results import Table, keep

from sciml.app.pinnacle import CASES, HEAD, pinnacle

_NOTE = (
    "Relative L2 error pooled over points, instants and fields as the benchmark has it, the worst "
    "of the seeds: against the exact solution at its points, where there is one, else against the "
    "classical answer at its nodes and frames. Published: the least of arXiv 2306.08827."
)


def main() -> None:
    """Answer the problems and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--names", default=",".join(CASES))
    asked = parser.parse_args()
    kept = Path(__file__).resolve().parents[1] / "runs" / "pinnacle.json"
    kept.parent.mkdir(exist_ok=True)
    rows = list(pinnacle(asked.names.split(","), asked.seeds, asked.files, kept, print))
    machine = f"{platform.machine()}, one thread beside other programs"
    today = datetime.now(timezone.utc).date().isoformat()
    keep("pinnacle", Table("PINNacle", today, machine, "sciml bench pinnacle", HEAD, rows, _NOTE))


if __name__ == "__main__":
    main()
