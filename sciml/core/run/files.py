"""Solutions on disk: HDF5 for programs, VTK for ParaView, JSON for the record of a run.

Every file is written whole or not at all, and ``solution.h5`` and ``.vtu``, which are read back,
carry a hash (see :mod:`sciml.core.disk`).

``solution.h5``: dataset ``u`` of shape (*batch, [frames], [fields], *grid), float64, axes in the
order x, y, z, with the grid as attributes (``centring``, ``lower``, ``upper``) and the fields'
names, what they are called (``names``) and their ``units``; ``times`` of the frames; ``history``,
what a body remembers at quadrature points, (*batch, frames, elements, points, c); ``residual`` and
``statuses`` per sample; groups ``stats`` and, where there are bounds of the error,
``certificate``; group ``fields`` for what was plotted beside u, such as K; group ``derived`` for
what follows from u, such as stresses, with ``components``, and of elements under ``NAME_elements``;
group ``mesh`` in place of the grid. Frames go to ParaView as ``solution.pvd``, an index of the
files in ``frames/``. There arrays have the names and units of their labels. A trained function is
kept beside it in ``function.safetensors``.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import meshio
import numpy as np
import torch

from sciml.core.disk import (
    BLOCK,
    as_attribute,
    atomic_write,
    check_room,
    is_sealed,
    refuse_links,
    seal,
    seal_xml,
    write_text,
)
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import read_mesh_group, write_mesh_group, write_vtu
from sciml.core.run.certificate import Certificate, PdeCertificate
from sciml.core.run.derived import Derived
from sciml.core.run.eigenmodes import Eigenmodes
from sciml.core.run.labels import Label, named, unit_of
from sciml.core.run.serialise import dump
from sciml.core.run.status import Status

if TYPE_CHECKING:
    from sciml.core.run.solution import Solution

FORMAT, MODES = "sciml solution 1", "sciml modes 1"
FUNCTION = "function.safetensors"
UNSEALED = "written without a hash by an earlier version, so that damage to it would not be seen"
_HDF5 = b"\x89HDF\r\n\x1a\n"
VTU_POINTS = 1_000_000
BATCH_ARRAYS = 9
_CELLS = {1: "line", 2: "quad", 3: "hexahedron"}
# Corners of one cell in VTK's order.
_CORNERS: dict[int, list[tuple[int, ...]]] = {
    1: [(0,), (1,)],
    2: [(0, 0), (1, 0), (1, 1), (0, 1)],
    3: [(x, y, z) for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))],
}


def save_solution(
    solution: Solution,
    directory: str | Path,
    fields: Mapping[str, torch.Tensor] | None = None,
) -> tuple[Path, ...]:
    """Write ``solution.h5`` and, where there is a grid, a file for ParaView; returns the paths.

    ``fields``: named arrays of the grid's shape that go along, such as the coefficient K.
    """
    fields = fields or {}
    directory = Path(directory)
    paths = [directory / "solution.h5"]
    check_room(paths[0], _size(solution, fields))
    with atomic_write(paths[0]) as temporary:
        _write_h5(temporary, solution, fields)
        seal(temporary)
    paths += _save_function(solution, directory)
    if isinstance(solution.on, Points) and not 1 <= solution.on.box.dimension <= 3:
        return tuple(paths)  # ParaView's points have three coordinates; t alone has no place
    if solution.on is not None and solution.times is None:
        paths.append(_save_paraview(solution, directory / "solution", fields))
    elif solution.on is not None:
        paths.append(_save_series(solution, directory))
    return tuple(paths)


def _save_function(solution: Solution, directory: Path) -> list[Path]:
    """The trained function, where there is one; that of a run before it goes.

    A network of somebody's own may have no form on disk: that is a warning.
    """
    if solution.function is None:
        (directory / FUNCTION).unlink(missing_ok=True)
        return []
    try:
        return [solution.function.save(directory)]
    except InputError as error:
        warnings.warn(error.message, stacklevel=4)
        return []


def save_modes(modes: Eigenmodes, directory: str | Path) -> tuple[Path, ...]:
    """Write ``modes.h5`` and a file for ParaView, which holds a batch's first sample."""
    directory, on = Path(directory), modes.on
    path = directory / "modes.h5"
    check_room(path, 2 * modes.fields.numel() * modes.fields.element_size())
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=BLOCK) as file:
            file.attrs.update(format=MODES, oscillates=modes.oscillates, seconds=modes.seconds)
            for name in _PARTS:
                file[name] = _array(getattr(modes, name))
            file["fields"].attrs["names"] = list(modes.names)
            file["statuses"] = [status.name for status in modes.statuses]
            file["notes"] = np.array(modes.notes, dtype=h5py.string_dtype())
            _write_place(file, file["fields"], on)
        seal(temporary)
    return path, _modes_for_paraview(modes, directory / "modes")


_PARTS = (*("values", "fields", "residuals", "bounds", "multiplicities", "counted", "iterations"),)


def load_modes(path: str | Path) -> Eigenmodes:
    """The modes in ``modes.h5``, or in a folder that holds it.

    Raises InputError for a missing, damaged or foreign file.
    """
    path = Path(path)
    path = path / "modes.h5" if path.is_dir() else path
    with _opened(path, MODES) as (file, notes):
        fields = file["fields"]
        place = _read_place(file, fields, tuple(fields.shape))
        assert isinstance(place, (Grid, Mesh))
        parts: dict[str, Any] = {name: _tensor(file[name]) for name in _PARTS}
        return Eigenmodes(
            **parts,
            statuses=tuple(Status[name.decode()] for name in file["statuses"][()]),
            on=place,
            names=tuple(str(name) for name in fields.attrs["names"]),
            oscillates=bool(file.attrs["oscillates"]),
            notes=(*(note.decode() for note in file["notes"][()]), *notes),
            seconds=float(file.attrs["seconds"]),
        )


def _modes_for_paraview(modes: Eigenmodes, stem: Path) -> Path:
    """``mode_1`` and so on; those of a body as vectors."""
    on, lead = modes.on, modes.values.ndim - 1
    first = _array(modes.fields[(0,) * lead])
    arrays = {f"mode_{k + 1}": field for k, field in enumerate(first)}
    if isinstance(on, Mesh):
        missing = 3 - len(modes.names)
        if len(modes.names) > 1:
            arrays = {k: np.pad(v, ((0, missing), (0, 0))) for k, v in arrays.items()}
        with atomic_write(stem.with_suffix(".vtu")) as temporary:
            write_vtu(temporary, on, arrays, {})
            seal_xml(temporary)
        return stem.with_suffix(".vtu")
    small = int(np.prod(on.shape)) <= VTU_POINTS
    path = stem.with_suffix(".vtu" if small else ".vti")
    with atomic_write(path) as temporary:
        (_write_vtu if small else _write_vti)(temporary, on, arrays)
        if small:
            seal_xml(temporary)
    return path


def _save_paraview(solution: Solution, stem: Path, fields: Mapping[str, torch.Tensor]) -> Path:
    """One file for ParaView, ``stem`` with a suffix."""
    assert solution.on is not None
    if isinstance(solution.on, Mesh):
        with atomic_write(stem.with_suffix(".vtu")) as temporary:
            inner = _derived_arrays(solution, "inner") | _derived_arrays(solution, "peaks")
            write_vtu(temporary, solution.on, _mesh_arrays(solution, solution.on, fields), inner)
            seal_xml(temporary)
        return stem.with_suffix(".vtu")
    if isinstance(solution.on, Points):
        path = stem.with_suffix(".vtu")
        with atomic_write(path) as temporary:
            _write_cloud(temporary, solution.on, _paraview_arrays(solution, fields))
        return path
    small = int(np.prod(solution.on.shape)) <= VTU_POINTS
    path = stem.with_suffix(".vtu" if small else ".vti")
    arrays = _paraview_arrays(solution, fields)
    with atomic_write(path) as temporary:
        (_write_vtu if small else _write_vti)(temporary, solution.on, arrays)
        if small:  # may be read as a mesh
            seal_xml(temporary)
    return path


def _save_series(solution: Solution, directory: Path) -> Path:
    """One file per frame and their index, ``solution.pvd``."""
    assert solution.times is not None
    axis, entries = solution.residual.ndim, []
    for k, instant in enumerate(solution.times.tolist()):
        kept = {n: _at_frame(derived, axis, k) for n, derived in solution.kept.items()}
        frame = replace(solution, value=solution.value.select(axis, k), times=None, kept=kept)
        path = _save_paraview(frame, directory / "frames" / f"{k:04d}", {})
        entries.append(f'<DataSet timestep="{instant!r}" file="frames/{path.name}"/>')
    index = directory / "solution.pvd"
    write_text(
        index,
        '<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1">\n<Collection>\n'
        + "\n".join(entries)
        + "\n</Collection>\n</VTKFile>\n",
    )
    return index


def _at_frame(derived: Derived, axis: int, k: int) -> Derived:
    inner, peaks = (
        None if v is None else v.select(axis, k) for v in (derived.inner, derived.peaks)
    )
    return replace(derived, value=derived.value.select(axis, k), inner=inner, peaks=peaks)


def _size(solution: Solution, fields: Mapping[str, torch.Tensor]) -> int:
    """About how many bytes the file will have."""
    stored = [solution.value, solution.stats.residuals, *fields.values()]
    stored += [] if solution.history is None else [solution.history]
    bytes_ = sum(part.numel() * part.element_size() for part in stored)
    if isinstance(solution.on, Mesh):
        bytes_ += solution.on.points.nbytes + 2 * solution.on.cells.nbytes
    return bytes_


def _write_h5(path: Path, solution: Solution, fields: Mapping[str, torch.Tensor]) -> None:
    with h5py.File(path, "w", userblock_size=BLOCK) as file:
        file.attrs["format"] = FORMAT
        file.attrs["solver"] = repr(solution.solver)
        file["u"] = _array(solution.value)
        labels = solution.labels
        file["u"].attrs["fields"] = list(solution.fields)
        file["u"].attrs["names"] = [named(labels, name) for name in solution.fields]
        file["u"].attrs["units"] = [unit_of(labels, name) for name in solution.fields]
        file.attrs["labels"] = json.dumps(dump(labels))
        if solution.samples:
            file["samples"] = np.array(solution.samples, dtype=h5py.string_dtype())
        if solution.times is not None:
            file["times"] = _array(solution.times)
        if solution.measure is not None:
            file["measure"] = _array(solution.measure)
        if solution.history is not None:
            file["history"] = _array(solution.history)
        file["residual"] = _array(solution.residual)
        file["statuses"] = [status.name for status in solution.statuses]
        file["notes"] = np.array(solution.notes, dtype=h5py.string_dtype())
        if solution.on is not None:
            _write_place(file, file["u"], solution.on)
        stats = file.create_group("stats")
        stats["iterations"] = _array(solution.stats.iterations)
        stats["residuals"] = _array(solution.stats.residuals)
        stats.attrs["setup_seconds"] = solution.stats.setup_seconds
        stats.attrs["solve_seconds"] = solution.stats.solve_seconds
        if solution.stats.work_units is not None:
            stats.attrs["work_units"] = solution.stats.work_units
        if solution.certificate is not None:
            _write_certificate(file.create_group("certificate"), solution.certificate)
        for name, values in fields.items():
            file[f"fields/{name}"] = _array(values)
        for name, field in solution.kept.items():
            for key, part in (
                (name, field.value),
                (f"{name}_elements", field.inner),
                (f"{name}_peaks", field.peaks),
            ):
                if part is not None:
                    file[f"derived/{key}"] = _array(part)
                    file[f"derived/{key}"].attrs.update(
                        components=list(field.components),
                        vector=field.vector,
                        name=named(labels, name),
                        units=unit_of(labels, name),
                    )


def _write_place(file: h5py.File, values: h5py.Dataset, on: Grid | Mesh | Points) -> None:
    """Where values live: attributes of theirs, or a group beside them."""
    if isinstance(on, Mesh):
        write_mesh_group(file.create_group("mesh"), on)
        return
    box = on.box
    if isinstance(on, Points):
        values.attrs.update(points=on.count, seed=on.seed, lower=box.lower, upper=box.upper)
    else:
        values.attrs.update(centring=on.centring, lower=box.lower, upper=box.upper, axes="x,y,z")


def _read_place(
    file: h5py.File, values: h5py.Dataset, shape: tuple[int, ...]
) -> Grid | Mesh | Points | None:
    """What was written so, for values of this shape."""
    grid: Grid | Mesh | Points | None = None
    if "mesh" in file:
        grid = read_mesh_group(file["mesh"])
    if "points" in values.attrs:
        grid = Points(int(values.attrs["points"]), int(values.attrs["seed"]), _box(values))
    if "centring" in values.attrs:
        box = _box(values)
        last = shape[-len(box.lower) :]
        grid = Grid(last, str(values.attrs["centring"]), box)  # type: ignore[arg-type]
    return grid


def read_solution(path: str | Path) -> dict[str, Any]:
    """What ``load_solution`` makes a Solution of, by the names of its parts.

    Raises InputError for a missing, damaged or foreign file.
    """
    with _opened(path) as (file, notes):
        u, stats = file["u"], file["stats"]
        value = torch.from_numpy(u[()])
        residual = _tensor(file["residual"])
        grid = _read_place(file, u, tuple(value.shape))
        statistics = {
            "iterations": _tensor(stats["iterations"]),
            "residuals": _tensor(stats["residuals"]),
            **{name: float(number) for name, number in stats.attrs.items()},
        }
        return dict(
            value=value,
            residual=residual,
            statuses=tuple(Status[name.decode()] for name in file["statuses"][()]),
            stats=statistics,
            on=grid,
            solver=str(file.attrs["solver"]),
            notes=(*(note.decode() for note in file["notes"][()]), *notes),
            times=_tensor(file["times"]) if "times" in file else None,
            fields=tuple(str(name) for name in u.attrs.get("fields", ("u",))),
            measure=_tensor(file["measure"]) if "measure" in file else None,
            history=_tensor(file["history"]) if "history" in file else None,
            certificate=_read_certificate(file["certificate"]) if "certificate" in file else None,
            kept=_read_derived(file["derived"]) if "derived" in file else {},
            labels={k: Label(**v) for k, v in json.loads(file.attrs.get("labels", "{}")).items()},
            samples=tuple(name.decode() for name in file["samples"][()])
            if "samples" in file
            else (),
        )


def _read_derived(group: h5py.Group) -> dict[str, Derived]:
    found = {}
    for name, values in group.items():
        if any(name.endswith(e) and name.removesuffix(e) in group for e in ("_elements", "_peaks")):
            continue
        inner, peaks = (
            None if part is None else _tensor(part)
            for part in (group.get(f"{name}_elements"), group.get(f"{name}_peaks"))
        )
        found[name] = Derived(
            _tensor(values),
            tuple(str(component) for component in values.attrs["components"]),
            inner,
            bool(values.attrs["vector"]),
            peaks,
        )
    return found


def _write_certificate(group: h5py.Group, certificate: Certificate | PdeCertificate) -> None:
    for name, value in vars(certificate).items():
        if isinstance(value, torch.Tensor):
            group[name] = _array(value)
        else:
            group.attrs[name] = list(value) if isinstance(value, tuple) else value


def _read_certificate(group: h5py.Group) -> Certificate | PdeCertificate:
    bounds = {name: _tensor(group[name]) for name in group}
    if "margin" not in group.attrs:
        notes, reason = group.attrs["notes"], str(group.attrs["reason"])
        return PdeCertificate(**bounds, notes=tuple(map(str, notes)), reason=reason)
    margin, probability = float(group.attrs["margin"]), float(group.attrs["probability"])
    return Certificate(
        **bounds,
        margin=margin,
        probability=probability,
        steps=int(group.attrs["steps"]),
        reason=str(group.attrs.get("reason", "")),
    )


def box_of(path: Path) -> Box | None:
    """The box of a saved solution; None of one on a mesh."""
    with _opened(path) as (file, _):
        return _box(file["u"]) if "lower" in file["u"].attrs else None


def _box(u: Any) -> Box:
    return Box(_floats(u.attrs["lower"]), _floats(u.attrs["upper"]))


def load_fields(path: str | Path) -> dict[str, torch.Tensor]:
    """The named arrays saved beside the solution in ``path``."""
    with _opened(path) as (file, _):
        return {name: _tensor(values) for name, values in file.get("fields", {}).items()}


@contextmanager
def _opened(path: str | Path, format_: str = FORMAT) -> Iterator[tuple[h5py.File, tuple[str, ...]]]:
    """A file of solutions or modes, its hash checked, and what is to be noted of it."""
    path = Path(path)
    path = path / "solution.h5" if path.is_dir() else path
    if not path.is_file():
        what = "solution" if format_ == FORMAT else "modes"
        raise InputError(f"no {what} at {path}: give a run's directory or its {what}.h5")
    sealed = is_sealed(path)
    with open(path, "rb") as raw:
        # An earlier version's begins as HDF5 does, so that a damaged seal is not taken for none.
        if not sealed and raw.read(8) != _HDF5:
            raise InputError(f"{path} is not a readable HDF5 file, or damaged")
    notes = () if sealed else (f"{path.name} was {UNSEALED}",)
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != format_:
                what = "solution" if format_ == FORMAT else "modes"
                raise InputError(
                    f"{path} is an HDF5 file but holds no {what} written by this package"
                )
            refuse_links(file, str(path))
            yield file, notes
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is damaged, or no solution: {said}") from None


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _tensor(dataset: h5py.Dataset) -> torch.Tensor:
    return torch.from_numpy(np.asarray(dataset[()]))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _paraview_arrays(
    solution: Solution, fields: Mapping[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """Arrays of the grid's shape by name; of a batch, the first few samples as u_0, u_1, ..."""
    assert solution.on is not None
    shape = solution.on.shape
    names, value = solution.fields, solution.value
    if len(names) > 1:
        parts = value.movedim(-len(shape) - 1, 0)
        found = {**dict(zip(names, parts, strict=True)), **fields}
    else:
        found = {names[0]: value, **fields}
    found = {named(solution.labels, name): values for name, values in found.items()}
    arrays: dict[str, np.ndarray] = {}
    for name, values in _real(found).items():
        samples = _array(values).reshape(-1, *shape)[:BATCH_ARRAYS]
        single = values.ndim == len(shape)
        arrays |= {name if single else f"{name}_{i}": v for i, v in enumerate(samples)}
    return arrays | _derived_arrays(solution)


def _real(arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Complex ones in two parts, ``u_real`` and ``u_imag``, at the end."""
    found = {name: values for name, values in arrays.items() if not values.is_complex()}
    for name, values in arrays.items():
        if values.is_complex():
            found |= {f"{name}_real": values.real, f"{name}_imag": values.imag}
    return found


_OF_ELEMENTS = {"inner": " (elements)", "peaks": " (peaks in elements, not recovered)"}


def _derived_arrays(
    solution: Solution, which: Literal["value", "inner", "peaks"] = "value"
) -> dict[str, np.ndarray]:
    """Derived fields, vectors as (3, *tail), others by their components' names (*tail).

    ``which``: of elements instead, under names that say so.
    """
    assert solution.on is not None
    lead = solution.residual.ndim
    parts: dict[str, torch.Tensor] = {}
    for name, field in solution.kept.items():
        values = getattr(field, which)
        if values is None:
            continue
        each = values.unbind(lead) if len(field.components) > 1 else (values,)
        if field.vector:
            zeros = [torch.zeros_like(each[0])] * (3 - len(each))
            parts[named(solution.labels, name)] = torch.stack([*each, *zeros], lead)
        else:
            own = field.components if len(each) > 1 else (name,)
            heads = [named(solution.labels, component, name) for component in own]
            parts |= dict(zip(heads, each, strict=True))
    arrays: dict[str, np.ndarray] = {}
    for name, values in _real(parts).items():
        head = name + _OF_ELEMENTS.get(which, "")
        if lead == 0:
            arrays[head] = _array(values)
        else:
            samples = _array(values).reshape(-1, *values.shape[lead:])[:BATCH_ARRAYS]
            arrays |= {f"{head}_{i}": v for i, v in enumerate(samples)}
    return arrays


def _mesh_arrays(
    solution: Solution, mesh: Mesh, fields: Mapping[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """Arrays by name; vectors have three components, as ParaView wants them."""
    names, labels, found = solution.fields, solution.labels, {}
    values = _array(solution.value).reshape(-1, len(names), *mesh.shape)
    vectors = {} if solution.problem is None else solution.problem.equation.vectors(mesh.dimension)
    for what, components in vectors.items():
        if set(components) <= set(names):
            rows = values[:, [names.index(name) for name in components]]
            padded = np.pad(rows, ((0, 0), (0, 3 - len(components)), (0, 0)))
            found[named(labels, what, *components)] = padded
    in_vectors = {name for components in vectors.values() for name in components}
    for k, name in enumerate(names):
        if name not in in_vectors:
            found[named(labels, name)] = values[:, k]
    found |= {named(labels, k): _array(v).reshape(-1, v.shape[-1]) for k, v in fields.items()}
    arrays: dict[str, np.ndarray] = {}
    for name, samples in found.items():
        single = len(samples) == 1
        chosen = enumerate(samples[:BATCH_ARRAYS])
        arrays |= {name if single else f"{name}_{i}": v for i, v in chosen}
    return arrays | _derived_arrays(solution)


def _write_vtu(path: Path, grid: Grid, arrays: Mapping[str, np.ndarray]) -> None:
    """The grid as lines, quadrilaterals or hexahedra; cells that touch a NaN are left out."""
    cell_data = grid.centring == "cell"
    nodes = tuple(n + 1 for n in grid.shape) if cell_data else grid.shape
    axes = [
        np.linspace(a, b, n) for a, b, n in zip(grid.box.lower, grid.box.upper, nodes, strict=True)
    ]
    points = np.zeros((int(np.prod(nodes)), 3))
    points[:, : len(nodes)] = np.stack(
        [x.ravel() for x in np.meshgrid(*axes, indexing="ij")], axis=1
    )
    index = np.arange(len(points)).reshape(nodes)
    corners = [
        index[tuple(slice(s, n - 1 + s) for s, n in zip(corner, nodes, strict=True))].ravel()
        for corner in _CORNERS[len(nodes)]
    ]
    cells = np.stack(corners, axis=1)
    # Points first, a vector's components last.
    flat = {
        name: np.ascontiguousarray(v.reshape(-1, int(np.prod(grid.shape))).T)
        for name, v in arrays.items()
    }
    known = np.isfinite(np.concatenate(list(flat.values()), axis=1)).all(axis=1)
    keep = known if cell_data else known[cells].all(axis=1)
    flat = {as_attribute(n): v[:, 0] if v.shape[1] == 1 else v for n, v in flat.items()}
    mesh = meshio.Mesh(
        points,
        [(_CELLS[len(nodes)], cells[keep])],
        point_data={} if cell_data else flat,
        cell_data={name: [v[keep]] for name, v in flat.items()} if cell_data else {},
    )
    meshio.write(path, mesh, file_format="vtu", compression=None)


def _write_cloud(path: Path, on: Points, arrays: Mapping[str, np.ndarray]) -> None:
    """Scattered points, each a vertex of its own."""
    columns = [c.numpy() for c in on.coordinates()]
    points = np.zeros((on.count, 3))
    points[:, : len(columns)] = np.stack(columns, axis=1)
    vertices = np.arange(on.count)[:, None]
    data = {as_attribute(name): np.ascontiguousarray(v) for name, v in arrays.items()}
    mesh = meshio.Mesh(points, [("vertex", vertices)], point_data=data)
    meshio.write(path, mesh, file_format="vtu", compression=None)


def _write_vti(path: Path, grid: Grid, arrays: Mapping[str, np.ndarray]) -> None:
    """VTK image data, raw: no points and no cells, so eight bytes a value and nothing more."""
    pad = (0,) * (3 - len(grid.shape))
    cell_data = grid.centring == "cell"
    last = [n if cell_data else n - 1 for n in grid.shape]
    extent = " ".join(f"0 {n}" for n in (*last, *pad))
    origin = " ".join(repr(float(v)) for v in (*grid.box.lower, *pad))
    spacing = " ".join(repr(float(v)) for v in (*grid.spacing, *(1.0 for _ in pad)))
    kind = "CellData" if cell_data else "PointData"
    header, offset = [], 0
    for name, values in arrays.items():
        parts = 1 if values.ndim == len(grid.shape) else len(values)
        header.append(
            f'<DataArray type="Float64" Name="{as_attribute(name)}" NumberOfComponents="{parts}" '
            f'format="appended" offset="{offset}"/>'
        )
        offset += 8 + 8 * values.size
    with open(path, "wb") as file:
        file.write(
            '<?xml version="1.0"?>\n<VTKFile type="ImageData" version="1.0" '
            'byte_order="LittleEndian" header_type="UInt64">\n'
            f'<ImageData WholeExtent="{extent}" Origin="{origin}" Spacing="{spacing}">'
            f'<Piece Extent="{extent}"><{kind}>{"".join(header)}</{kind}></Piece></ImageData>\n'
            '<AppendedData encoding="raw">_'.encode()
        )
        for values in arrays.values():
            file.write(struct.pack("<Q", 8 * values.size))
            # VTK runs x fastest, after a vector's components, our arrays z.
            file.write(np.asarray(values, dtype="<f8").tobytes(order="F"))
        file.write(b"</AppendedData>\n</VTKFile>\n")
