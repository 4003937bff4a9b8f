"""Open our datasets with The Well's reader, xarray and netCDF4, unchanged: with_the_well.py FOLDER.

Runs in an environment without our package. Prints one line per check; fails at the first mismatch.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import netCDF4
import numpy as np
import xarray
from the_well.data import WellDataset
from the_well.data.normalization import ZScoreNormalization

folder = Path(sys.argv[1])


def equal(found: object, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(found), wanted.astype(np.float32))


def open_with_the_well(name: str, **options: object) -> WellDataset:
    return WellDataset(path=str(folder / name), well_split_name="train", **options)


wanted = {name: np.load(folder / f"{name}.npz") for name in ("steady", "flow", "line")}

data = open_with_the_well("steady", n_steps_input=0, n_steps_output=1)
assert len(data) == 5 and data.metadata.boundary_condition_types == ["WALL"]
for i in range(5):
    equal(data[i]["output_fields"][0, ..., 0], wanted["steady"]["u"][i, 0])
    equal(data[i]["constant_fields"][..., 0], wanted["steady"]["a"][i])
    equal(data[i]["constant_scalars"][0], wanted["steady"]["nu"][i])
assert (data[0]["boundary_conditions"] == 0).all()
print(f"the_well {version('the_well')}: steady, 5 samples, fields, scalars and boundary equal")

data = open_with_the_well("flow", n_steps_input=2, n_steps_output=1)
assert len(data) == 5 * 3
for i in range(15):
    sample, start = divmod(i, 3)
    flow = wanted["flow"]
    frames = np.concatenate([flow["u"][sample, ..., None], flow["velocity"][sample]], axis=-1)
    equal(data[i]["input_fields"], frames[start : start + 2])
    equal(data[i]["output_fields"], frames[start + 2 : start + 3])
print("the_well: flow in time with a vector field, 15 windows equal")

scaled = open_with_the_well(
    "flow", n_steps_input=5, n_steps_output=0, use_normalization=True,
    normalization_type=ZScoreNormalization,
)  # fmt: skip
every = np.stack([scaled[i]["input_fields"].numpy() for i in range(5)]).reshape(-1, 3)
np.testing.assert_allclose(every.mean(0), 0, atol=1e-5)
np.testing.assert_allclose(every.std(0), 1, atol=1e-5)
print("the_well: normalised with our stats.yaml, mean 0 and deviation 1")

data = open_with_the_well("line", n_steps_input=1, n_steps_output=4)
equal(data[3]["output_fields"][..., 0], wanted["line"]["u"][3, 1:])
print("the_well: one dimension in time equal")

# Its default, dask, reads from a file that it has closed.
tree = open_with_the_well("flow").to_xarray(backend="numpy")
equal(tree["u"], wanted["flow"]["u"])
print("the_well: to_xarray equal")

path = sorted((folder / "flow" / "data" / "train").glob("*.hdf5"))[0]
for engine in ("h5netcdf", "netcdf4"):
    with xarray.open_dataset(path, engine=engine, group="t1_fields") as found:
        equal(found["velocity"], wanted["flow"]["velocity"][:3])
    with xarray.open_dataset(path, engine=engine) as found:
        equal(found["tensor"], wanted["flow"]["u"][:3])
        assert found["tensor"].dims == ("sample", "time", "x", "y")
    print(f"xarray {xarray.__version__} with {engine}: equal")
with netCDF4.Dataset(path) as found:
    equal(found["t0_fields/u"][:], wanted["flow"]["u"][:3])
print(f"netCDF4 {netCDF4.__version__}: equal")
