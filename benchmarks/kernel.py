"""Kernel and POD regression: error against the number of target solves, and what it costs.

    sciml generate configs/datasets/darcy.yaml --out data/darcy --set "dataset.shapes=[[29,29]]"
    sciml generate configs/datasets/burgers.yaml --out data/burgers \
        --set "grid.shape=[2049]" --set "dataset.shapes=[[513]]"
    sciml generate configs/datasets/advection.yaml --out data/advection
    python benchmarks/kernel.py [--keep]

The first so many training samples, and the error on the test samples. Seconds are the processor's,
of one thread, of the regression alone.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path

import results

from sciml.core.errors import InputError
from sciml.operators import Kernel
from sciml.operators.kernel import Form
from sciml.training import Files, Training, evaluate, fit, open_data
from sciml.training.data import open_split

COUNTS = (10, 20, 50, 100, 200, 500, 1000)
SETS: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "Darcy {3, 12}, 29 x 29": ("data/darcy", (29, 29)),
    "Burgers": ("data/burgers", None),
    "advection of a square wave": ("data/advection", None),
}
FORMS: tuple[Form, ...] = ("linear", "auto")


def measured(
    folder: str, shape: tuple[int, ...] | None, form: Form, count: int
) -> tuple[float, float, float, str]:
    """Test error, what leaving one out says, seconds, and the form that was chosen."""
    data = open_data(Files(folder, shape=shape, train=count))
    start = time.process_time()
    operator = fit(Kernel(form=form), data, Training())
    spent = time.process_time() - start
    place = Path(folder) / f"at-{'x'.join(map(str, shape))}" if shape else folder
    test = open_split(operator.signature, place, "test")
    error = evaluate(operator, test).relative_l2.mean()
    assert operator.left_out is not None
    forms = ("linear", "quadratic", "matern", "gaussian")
    return float(error), operator.left_out, spent, forms[int(operator.network.chosen[0])]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    rows: list[list[results.Cell]] = []
    for name, (folder, shape) in SETS.items():
        if not Path(folder).is_dir():
            print(f"{name}: no {folder}")
            continue
        for form in FORMS:
            for count in COUNTS:
                try:
                    error, left_out, spent, chosen = measured(folder, shape, form, count)
                except InputError as problem:
                    print(f"{name}, {count}: {problem}")
                    break
                rows.append([name, form, count, 100 * error, 100 * left_out, chosen, spent])
                print(rows[-1], flush=True)
    table = results.Table(
        "Kernel regression: error against samples",
        str(datetime.date.today()),
        "2 shared x86-64 cores beside other programs, one thread, no GPU",
        "python benchmarks/kernel.py --keep",
        ("data", "form", "samples", "test error %", "left one out %", "chosen", "CPU seconds"),
        rows,
        "Relative L2, means. Linear is POD regression.",
    )
    if given.keep:
        results.keep("kernel", table)


if __name__ == "__main__":
    main()
