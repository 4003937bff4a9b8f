"""Published values beside ours, kept as a table: ``python benchmarks/reference.py``.

Cases that are done are kept in ``runs/reference.json``, from which the same command goes on; remove
it to measure all of them anew.
"""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from pathlib import Path

from results import Table, keep

from sciml.app.reference import HEAD, cases, reference


def main() -> None:
    """Solve every case of ``configs/reference`` and write the table."""
    kept = Path(__file__).resolve().parents[1] / "runs" / "reference.json"
    kept.parent.mkdir(exist_ok=True)
    rows = list(reference(cases(), kept, print))
    machine = f"{platform.machine()}, one thread"
    note = (
        "The difference is that of the extrapolated value where there is an order, else of the "
        "finest; seconds are those of all three grids or meshes of a case. Of a sweep the largest "
        "value is compared."
    )
    today = datetime.now(timezone.utc).date().isoformat()
    keep(
        "reference",
        Table("Published values", today, machine, "sciml bench reference", HEAD, rows, note),
    )


if __name__ == "__main__":
    main()
