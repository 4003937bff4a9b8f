"""Published values beside ours, kept as a table: ``python benchmarks/reference.py``."""

from __future__ import annotations

import platform
from datetime import datetime, timezone

from results import Table, keep

from sciml.app.reference import HEAD, reference


def main() -> None:
    """Solve every case of ``configs/reference`` and write the table."""
    rows = list(reference(print))
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
