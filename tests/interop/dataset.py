"""Write the datasets that the other projects then open: dataset.py FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from shards import dataset

from sciml.datasets.export import export_pairs

folder = Path(sys.argv[1])
cases = {
    "steady": dataset(folder / "steady", grid=(16, 16)),
    "flow": dataset(folder / "flow", grid=(16, 8), frames=5, vectors=True),
    "line": dataset(folder / "line", grid=(32,), frames=5),
}
export_pairs(folder / "steady", folder / "pairs", "darcy")
# What the others must find, as plain arrays: they have neither our package nor our reader.
for name, (first, second, _) in cases.items():
    arrays = {f: np.concatenate([first.fields[f], second.fields[f]]) for f in first.fields}
    np.savez(
        folder / f"{name}.npz",
        nu=np.concatenate([first.scalars["nu"], second.scalars["nu"]]),
        **arrays,
    )
print(json.dumps({"written": sorted(cases)}))
