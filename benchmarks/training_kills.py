"""Training killed at random: ``kill -9`` so many times, then weights compared bit by bit.

    python benchmarks/training_kills.py [--kills 50] [--seed 0]

A process trains and is killed at a random moment, before its first step or well after, and the
next one goes on in the same folder. Afterwards the weights are compared with those of a run that
nobody stopped. Prints a row of a Markdown table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import tempfile
import time
from pathlib import Path

EPOCHS, CHECKPOINT = 500, 0.02


def train(folder: Path, checkpoint: float) -> None:
    """The run: a small MgNO between random smooth functions in 1-D."""
    import torch

    torch.set_num_threads(1)
    from sciml.core.problem.grid import Box, Grid
    from sciml.operators import MgNO
    from sciml.operators.operator import Signature
    from sciml.training import TensorData, Training, TrainingData, fit

    generator = torch.Generator().manual_seed(0)
    k, points = torch.arange(1, 4), torch.linspace(0, 1, 17)
    modes = torch.sin(torch.pi * k[:, None] * points)
    c = torch.randn(22, 3, generator=generator)
    x, y = ((values @ modes)[:, None] for values in (c, c / k))
    signature = Signature(("a",), ("u",), Grid((17,), "node", Box((0.0,), (1.0,))), ("dirichlet",))
    data = TrainingData(TensorData(x, y), TensorData(x[:4], y[:4]), signature, name="waves")
    training = Training(epochs=EPOCHS, batch=8, checkpoint=checkpoint, validate=100)
    fit(MgNO(width=4, layers=1, levels=2), data, training, folder)


def weights(folder: Path) -> bytes:
    """The bytes of all weights; what describes them tells the seconds too, which differ."""
    from sciml.core.run.weights import FILE, read_file

    tensors = read_file(folder / FILE, "operator").tensors
    return b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))


def steps_done(folder: Path) -> int:
    """Steps in the state on the disk, which must be readable after every kill."""
    from sciml.core.run.weights import read_file

    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return 0
    position = read_file(path, "training run").provenance
    return 3 * position["epoch"] + position["step"]


def kill(folder: Path, moment: random.Random, latest: float) -> bool:
    """One run in a process of its own, killed; False where it had ended before."""
    # Forked, as a new interpreter would spend most of its time on importing torch.
    context = multiprocessing.get_context("fork")
    process = context.Process(target=train, args=(folder, CHECKPOINT))
    before = steps_done(folder)
    process.start()
    # One in five is killed at any moment, the others once they have got further.
    if moment.random() > 0.2:
        while process.is_alive() and steps_done(folder) == before:
            time.sleep(0.005)
    time.sleep(moment.uniform(0, latest))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moment, killed, middle = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory() as home:
        whole, parts = Path(home) / "whole", Path(home) / "parts"
        begin = time.monotonic()
        train(whole, 1e9)
        seconds = time.monotonic() - begin
        done = []
        for _ in range(options.kills):
            killed += kill(parts, moment, seconds / options.kills)
            done.append(steps_done(parts))
            middle += done[-1] % 3 != 0
        train(parts, 1e9)
        equal = weights(whole) == weights(parts)
    moved = sum(b > a for a, b in zip([0, *done], done, strict=False))
    print(
        f"| kills | died by them | runs that got further | states in the middle of an epoch | "
        f"steps at the last kill | uninterrupted run, s | weights bit-equal |\n"
        f"|---|---|---|---|---|---|---|\n"
        f"| {options.kills} | {killed} | {moved} | {middle} | {done[-1]} of {3 * EPOCHS} | "
        f"{seconds:.0f} | {'yes' if equal else 'NO'} |"
    )
    if not equal or not moved:
        raise SystemExit("the weights differ, or no run got further before it was killed")


if __name__ == "__main__":
    main()
