"""Open our exported pairs with neuraloperator's Darcy dataset: with_neuraloperator.py FOLDER."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from neuralop.data.datasets import DarcyDataset
from neuralop.models import FNO

folder = Path(sys.argv[1])
data = DarcyDataset(
    root_dir=folder / "pairs", n_train=5, n_tests=[2], batch_size=5, test_batch_sizes=[2],
    train_resolution=16, test_resolutions=[16], download=False,
)  # fmt: skip
wanted = np.load(folder / "steady.npz")
for i in range(5):
    found = data.train_db[i]
    np.testing.assert_array_equal(found["x"][0], wanted["a"][i].astype(np.float32))
    np.testing.assert_array_equal(found["y"][0], wanted["u"][i, 0].astype(np.float32))
assert len(data.test_dbs[16]) == 2
print(f"neuraloperator {version('neuraloperator')}: DarcyDataset, 5 + 2 samples equal")
model = FNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=4, n_layers=1)
assert model(torch.stack([data.train_db[i]["x"] for i in range(5)])).shape == (5, 1, 16, 16)
print("neuraloperator: FNO takes the batch")
