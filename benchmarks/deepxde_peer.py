"""An example program of DeepXDE, unedited, for so many CPU seconds: its answer at our points.

    ENV/bin/python -P benchmarks/deepxde_peer.py PROGRAM SECONDS points.npy out.npz

``out.npz``: values at the points (N, fields), and the CPU seconds that training took. Where a
program writes ``tf.sin``, torch's stands for it. It trains in the order in which it says so, until
the seconds are spent; whatever it does after that is left out.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import time
import types
from pathlib import Path
from typing import Any

os.environ.setdefault("DDE_BACKEND", "pytorch")
os.environ.setdefault("MPLBACKEND", "Agg")

import deepxde as dde
import numpy as np
import torch

program, seconds, points, out = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
wanted, target = np.load(points), Path(out).resolve()
torch.set_num_threads(1)
dde.config.set_random_seed(0)
shim: Any = types.SimpleNamespace(sin=torch.sin, cos=torch.cos, exp=torch.exp, tanh=torch.tanh,
                                  concat=torch.cat)  # fmt: skip
dde.backend.tf = shim
models: list[Any] = []
spent = 0.0


class Watch(dde.callbacks.Callback):
    """Ends the training when the seconds are spent."""

    def on_train_begin(self) -> None:
        self.begun = time.process_time()

    def on_epoch_end(self) -> None:
        if spent + time.process_time() - self.begun > seconds:
            self.model.stop_training = True


train = dde.Model.train


def limited(self: Any, *given: Any, **named: Any) -> Any:
    """Train as asked, for what is left of the seconds."""
    global spent
    models.append(self)
    if spent >= seconds:
        return self.losshistory, self.train_state
    begun = time.process_time()
    named["callbacks"] = [*(named.get("callbacks") or []), Watch()]
    try:
        return train(self, *given, **named)
    finally:
        spent += time.process_time() - begun


dde.Model.train = limited
dde.saveplot = lambda *given, **named: None
os.chdir(program.parent)
try:
    with contextlib.redirect_stdout(sys.stderr):
        runpy.run_path(program.name, run_name="__main__")
except Exception:  # of what comes after the training no matter
    if spent < seconds:
        raise
np.savez(target, values=models[-1].predict(wanted.astype(np.float32)), seconds=spent)
