"""Trained operators as surrogates: other resolutions, certificates, iterations saved, and time.

Every run is a folder that ``sciml train`` wrote. ``--data`` is the dataset of the training, whose
test split is answered at the runs' own resolution; ``--transfer`` holds the same functions at
several resolutions (here of one solve on 449 x 449 nodes: 15, 29, 57, 113 along an axis).

    sciml generate configs/datasets/darcy.yaml --out data/darcy
    sciml generate configs/datasets/darcy.yaml --out data/darcy-transfer \\
        --set grid.shape=[449,449] \\
        --set 'dataset.shapes=[[225,225],[113,113],[57,57],[29,29],[15,15]]'
    OMP_NUM_THREADS=1 python benchmarks/surrogate.py runs/mgno-darcy runs/fno-darcy --out tables.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sciml.app.evaluate import bracket_rows, certified, markdown, polishing_rows, same_error
from sciml.app.figures_learning import plot_transfer
from sciml.core.disk import write_text
from sciml.core.errors import InputError
from sciml.operators import Operator, load_operator
from sciml.training import Bracket, Polishing, ResolutionTransfer, evaluate, resolution_transfer
from sciml.training.data import at_trained_shape

TIMED = 30
Row = Sequence[str]


def in_physical_units(operators: dict[str, Operator]) -> dict[str, Operator]:
    """The same weights, read as kernels of a fixed size in space; equal on the training grid."""
    found = {}
    for name, operator in operators.items():
        if getattr(operator.options, "kernel", None) == "pixels":
            options = replace(operator.options, kernel="physical")  # type: ignore[type-var]
            other = Operator.build(options, operator.signature)
            other.load_state_dict(operator.state_dict())
            found[f"{name}, physical kernels"] = other.eval()
    return found


def transfer_table(found: dict[str, ResolutionTransfer]) -> str:
    """A row per run and resolution."""
    rows: list[Row] = [("run", "grid", "error", "interpolated", "drift")]
    for name, moved in found.items():
        for one in moved.rows:
            grid = "x".join(map(str, one.shape)) + (" (trained)" * (one.shape == moved.trained))
            if one.refused:
                rows.append((name, grid, one.refused, "", ""))
                continue
            parts = (one.error, one.interpolated, one.drift)
            rows.append((name, grid, *(f"{float(part.mean()):.2e}" for part in parts)))
    return markdown(rows)


def certificate_table(found: dict[str, tuple[Bracket, ...]]) -> str:
    """A row per run and number of tightening steps."""
    rows: list[Row] = []
    for name, brackets in found.items():
        head, *own = bracket_rows(brackets)
        rows = rows or [("run", *head)]
        rows += [(name, *row) for row in own]
    return markdown(rows)


def polishing_table(found: dict[str, Polishing]) -> str:
    """A row per run, and one for the truth that they learned from."""
    return markdown(polishing_rows(found))


def time_table(operators: dict[str, Operator], data: Path, split: str) -> str:
    """A row per run, then one per way of multigrid to its error."""
    rows: list[Row] = [
        ("what", "grid", "mean relative L2", "reached", "ms alone", "ms each in a batch")
    ]
    for name, operator in operators.items():
        signature = operator.signature
        own = evaluate(operator, at_trained_shape(signature, data, split))
        errors = own.relative_l2[:TIMED]
        rows.append(
            (
                f"{name}, {own.parameters:,} parameters", "x".join(map(str, own.shape)),
                f"{float(errors.mean()):.2e}", "", f"{1e3 * own.seconds:.2f}",
                f"{1e3 * own.seconds_batched:.2f}",
            )
        )  # fmt: skip
        for reference, one in same_error(signature, data, split, errors):
            there = one.reached
            alone = 1e3 * float(one.seconds[there].mean()) if bool(there.any()) else float("nan")
            rows.append(
                (
                    f"{one.method.replace('_', ' ')}, as near to the {reference}",
                    "x".join(map(str, one.shape)), f"{float(one.floor.mean()):.2e} (its own least)",
                    f"{100 * float(there.double().mean()):.0f} %", f"{alone:.2f}",
                    f"{1e3 * one.seconds_batched:.2f}",
                )
            )  # fmt: skip
    return markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=Path("data/darcy"))
    parser.add_argument("--transfer", type=Path, default=Path("data/darcy-transfer"))
    parser.add_argument("--points", type=int, nargs="+", default=[15, 29, 57, 113])
    parser.add_argument("--split", default="test")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("surrogate.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    operators = {run.name: load_operator(run) for run in options.runs}
    parts = [f"{options.samples} test samples; errors are means of relative L2, in float32."]

    def add(title: str, table: str) -> None:
        parts.append(f"### {title}\n\n{table}")
        write_text(options.out, "\n\n".join(parts) + "\n")
        print(parts[-1], end="\n\n", flush=True)

    if options.transfer.is_dir():
        moved = {
            name: resolution_transfer(
                operator,
                options.transfer,
                [(n,) * operator.signature.dimension for n in options.points],
                split=options.split,
                samples=options.samples,
            )
            for name, operator in (operators | in_physical_units(operators)).items()
        }
        add("Resolution transfer", transfer_table(moved))
        plot_transfer(moved, options.out.with_suffix(".png"))
    brackets: dict[str, tuple[Bracket, ...]] = {}
    polished: dict[str, Polishing] = {}
    truths: dict[str, Polishing] = {}
    for run in options.runs:
        signature = operators[run.name].signature
        try:
            brackets[run.name], polished[run.name], truth = certified(
                run, signature, options.data, options.split, options.samples
            )
            truths[f"the stored truth at {signature.grid.shape[0]}"] = truth
        except InputError as error:
            parts.append(f"{run.name} is not certified: {error}")
    if brackets:
        add("Certificates: relative energy norm", certificate_table(brackets))
        add("Multigrid-CG to 1e-6 from a prediction", polishing_table(polished | truths))
    add("Time on one thread", time_table(operators, options.data, options.split))


if __name__ == "__main__":
    main()
