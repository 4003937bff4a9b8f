"""Meshes from files: Gmsh's ``.msh`` (2.2, 4.0 and 4.1), and what meshio reads.

Cells of the highest dimension are the elements, those of one dimension less the boundaries, named
points, and lines in space, are supports. Groups of each have names, and a cell may belong to
several:

* ``.msh``: the physical groups' own names; a group without one is called ``tag_7`` by its number;
* ``.inp``, ``.med`` and the like: their named sets;
* ``.vtu``, ``.xdmf`` and ``.vtk`` know no names, so integer cell arrays make the groups: cells
  where the array ``hole`` is 1 are the group ``hole`` if it holds 0 and 1 only, else those where
  the array ``part`` is 3 are ``part_3``; 0 means none. Gmsh's groups that meshio wrote there are
  ``tag_7``.

Where elements of several kinds stand in one file, or prisms and pyramids, all become triangles or
tetrahedra: a quadrilateral is cut along its shorter diagonal; in space each facet along that of its
first vertex, and each element into what its first vertex sees (Dompierre et al. 1999), so that
neighbours fit. Points that no element uses are left out. Cells of the second order give their
corners, and where they are curved the places of their other nodes too.
A solution's mesh is a group of its HDF5 file, and VTK's unstructured grid for ParaView.
A file that names data elsewhere is refused where they lie outside its folder.
"""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sciml.core.disk import as_attribute, check_xml, refuse_links
from sciml.core.errors import InputError
from sciml.core.problem.cells import KINDS, Kind
from sciml.core.problem.mesh import MIDWAY, Element, Mesh, Scheme, joined, turned_round, vtk_order

if TYPE_CHECKING:
    import h5py

SUFFIXES = (
    ".msh",
    ".vtu",
    ".xdmf",
    ".vtk",
    ".inp",
    ".bdf",
    ".nas",
    ".fem",
    ".med",
    ".cgns",
    ".mesh",
    ".su2",
)
# Cells by meshio's name: dimension and number of corners. Vertices are read and left alone.
_KINDS = {"vertex": (0, 1), "wedge": (3, 6), "pyramid": (3, 5)} | {
    name: (kind.dimension, kind.corners) for kind in KINDS for name in kind.files
}
# Of the second order without the nodes inside their facets and themselves.
_INCOMPLETE = ("quad8", "hexahedron20")
# Gmsh's numbers of element types: meshio's name, and the number of nodes.
_GMSH = {
    15: ("vertex", 1),
    1: ("line", 2),
    8: ("line3", 3),
    2: ("triangle", 3),
    9: ("triangle6", 6),
    4: ("tetra", 4),
    11: ("tetra10", 10),
    3: ("quad", 4),
    10: ("quad9", 9),
    16: ("quad8", 8),
    5: ("hexahedron", 8),
    12: ("hexahedron27", 27),
    17: ("hexahedron20", 20),
    6: ("wedge", 6),
    7: ("pyramid", 5),
}
# Where VTK's nodes stand among Gmsh's.
_ORDERS = {
    "tetra10": [0, 1, 2, 3, 4, 5, 6, 7, 9, 8],
    "hexahedron27": [
        *range(9),
        *(11, 13, 9, 16, 18, 19, 17, 10, 12, 14, 15),
        *(22, 23, 21, 24, 20, 25, 26),
    ],
}
# Arrays that meshio or Gmsh write beside the groups.
_IGNORED = (
    "gmsh:geometrical",
    "gmsh:dim_tags",
    "CellEntityIds",
    "GlobalCellId",
)
# Coordinates that should not vary may, by this share of the mesh's size.
_NOISE = 1e-6
_TETRAHEDRA = 10  # CGNS's number
_HDF5 = (".h5", ".hdf5", ".hdf", ".med", ".cgns")
_STATEMENTS = {
    1: 'of the surface: add Physical Surface("domain") = {1}; for every surface',
    2: 'of the volume: add Physical Volume("domain") = {1}; for every volume',
}


@dataclass(frozen=True)
class MeshFile:
    """A mesh in a file.

    ``element``: P1 or P2, on quadrilaterals and hexahedra Q1 or Q2; by default P2 where the file
    has curved elements, else what suits the equation: P2 for elasticity, else P1.
    ``merge``: points nearer to each other than this length are made one, so that parts that were
    meshed apart hang together. ``axisymmetric``: the mesh is revolved about x = 0; ``scheme``: of
    advection; both see :class:`Mesh`.
    """

    file: str
    element: Element | None = None
    merge: float | None = None
    axisymmetric: bool = False
    scheme: Scheme | None = None

    def __post_init__(self) -> None:
        if self.merge is not None and not 0 < self.merge < float("inf"):
            raise InputError(f"merge is a positive length; got {self.merge:g}", "mesh.merge")

    def mesh(self, suited: Element = "P1") -> Mesh:
        """The mesh, read anew; ``suited``: the element of a straight one unless one is stated."""
        mesh = read_mesh(self.file, self.element or suited, self.merge)
        mesh = _of_second_order(mesh) if self.element is None else mesh
        if not self.axisymmetric and self.scheme is None:
            return mesh
        return replace(mesh, axisymmetric=self.axisymmetric, scheme=self.scheme)


@dataclass(frozen=True)
class _Content:
    """Points (n, 2 or 3), blocks of cells, and by group's name the members' numbers per block."""

    points: np.ndarray
    blocks: list[tuple[str, np.ndarray]]
    groups: dict[str, list[np.ndarray]]


def _of_second_order(mesh: Mesh) -> Mesh:
    """With the second order's polynomials where its elements are curved."""
    return mesh if mesh.middles is None or mesh.degree == 2 else replace(mesh, element="P2")


def read_mesh(path: str | Path, element: Element | None = None, merge: float | None = None) -> Mesh:
    """The mesh in a file of one of ``SUFFIXES``, with its named groups.

    A mesh of triangles in a plane z = const is two-dimensional, one of lines along x
    one-dimensional. ``element``, ``merge``: see :class:`MeshFile`. Raises InputError for a missing
    or unreadable file, elements of other kinds or of several, cells of points that do not exist,
    and for what :class:`Mesh` refuses.
    """
    if element is None:
        return _of_second_order(read_mesh(path, "P1", merge))
    path = Path(path)
    check_suffix(path, "mesh.file")
    if not path.is_file():
        raise InputError(f"mesh file not found: {path}", "mesh.file")
    content = _guarded(_read_gmsh if _is_gmsh(path) else _read_meshio, path)
    _check_numbers(content.points, content.blocks, path)
    content, notes = _alike(content)
    blocks = content.blocks
    unknown = sorted({kind for kind, data in blocks if kind not in _KINDS and len(data)})
    if unknown:
        raise InputError(
            f"{path.name} has elements that are not supported: {', '.join(unknown)}; "
            + (
                "write all nodes of the second order: Mesh.SecondOrderIncomplete = 0 in Gmsh"
                if set(unknown) <= set(_INCOMPLETE)
                else "use intervals, triangles, quadrilaterals, tetrahedra or hexahedra"
            ),
            "mesh.file",
        )
    d = max((_KINDS[kind][0] for kind, data in blocks if len(data)), default=0)
    if d == 0:
        raise InputError(f"{path.name} has no elements", "mesh.file")
    points = content.points
    kind = _one_kind(blocks, d)
    dimensions = [_KINDS[kind][0] if kind in _KINDS else -1 for kind, _ in blocks]
    corners = [data[:, : _KINDS.get(kind, (0, 0))[1]] for kind, data in blocks]
    whole = np.concatenate([c for c, n in zip(corners, dimensions, strict=True) if n == d])
    used = np.zeros(len(points), dtype=bool)
    used[whole] = True
    renumber = np.where(used, np.cumsum(used) - 1, -1)
    facets = {
        name: renumber[found]
        for name, members in content.groups.items()
        if len(found := _gather(corners, dimensions, members, d - 1))
    }
    boundaries = {name: np.unique(np.sort(found, axis=1), axis=0) for name, found in facets.items()}
    for name, found in boundaries.items():
        if found.size and found.min() < 0:
            raise InputError(
                f"{path.name}: group '{name}' has a facet at a point that no element uses",
                "mesh.file",
            )
    supports = {
        name: kept
        for name, members in content.groups.items()
        for n in range(d - 1)
        if name not in boundaries and len(kept := _used(renumber, corners, dimensions, members, n))
    }
    subdomains = {
        name: found
        for name, members in content.groups.items()
        if len(found := _numbers(dimensions, corners, members, d))
    }
    cells, subdomains, kept = _once(renumber[whole], subdomains)
    middles = [
        data[:, kind.corners :]
        if data.shape[1] == kind.counts[1]
        else np.full((len(data), len(kind.middles)), -1)
        for (_, data), n in zip(blocks, dimensions, strict=True)
        if n == d
    ]
    numbers = np.concatenate(middles)[kept]
    every = used.copy()
    every[numbers[numbers >= 0]] = True
    flat = _flat(points[every], d, path)[used[every]]
    if merge is not None:
        flat, cells, named = joined(flat, cells, {**boundaries, **supports}, merge)
        boundaries, supports = ({k: named[k] for k in kind} for kind in (boundaries, supports))
    if notes and element in ("Q1", "Q2"):
        element = "P1" if element == "Q1" else "P2"
    mesh = Mesh(flat, cells, subdomains, boundaries, element, supports=supports, notes=notes)
    # Where an element was turned round its middles stand between other corners.
    round_ = turned_round(kind)
    sets = [frozenset(middle) for middle in kind.middles]
    order = [sets.index(frozenset(round_[c] for c in middle)) for middle in kind.middles]
    turned = (mesh.cells != cells).any(axis=1)
    numbers[turned] = numbers[turned][:, order]
    places = np.where(numbers[..., None] < 0, np.nan, points[numbers][..., :d])
    return mesh.curved(places) if _bent(mesh, places) else mesh


def check_suffix(path: Path, key: str | None = None) -> None:
    """Raise InputError for a file of another format, by its name."""
    suffix = path.suffix.lower()
    if suffix == ".unv":
        raise InputError(
            f"meshio does not read {path.name}: convert it, gmsh {path.name} -o {path.stem}.msh -0",
            key,
        )
    if suffix not in SUFFIXES:
        raise InputError(f"a mesh file ends in {', '.join(SUFFIXES)}; got '{path.name}'", key)


def _once(
    cells: np.ndarray, subdomains: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Cells that MSH 2.2 repeats for each of their groups, once; what has one group stays.

    Last the numbers of the cells that are kept.
    """
    order = np.sort(cells, axis=1)
    _, first, inverse = np.unique(order, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.ravel()
    every = np.arange(len(cells))
    if len(first) == len(cells):
        return cells, subdomains, every
    groups = np.zeros((len(cells), len(subdomains)), dtype=bool)
    for column, members in enumerate(subdomains.values()):
        groups[members, column] = True
    # The same cell twice in one group, or in none, is a fault of the mesh.
    totals = np.zeros((len(first), groups.shape[1]), dtype=np.int64)
    np.add.at(totals, inverse, groups)
    copies = np.bincount(inverse)
    if (totals > 1).any() or (copies > np.maximum(totals.sum(axis=1), 1)).any():
        return cells, subdomains, every
    kept = np.sort(first)
    place = np.empty(len(cells), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    number = place[first[inverse]]
    named = {name: np.unique(number[found]) for name, found in subdomains.items()}
    return cells[kept], named, kept


def _guarded(read: Callable[[Path], _Content], path: Path) -> _Content:
    """What ``read`` finds; whatever it raises as one line."""
    try:
        # meshio prints, and exits the process, where it cannot read a file.
        with (
            warnings.catch_warnings(),
            np.errstate(all="ignore"),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):
            warnings.simplefilter("ignore")
            return read(path)
    except InputError:
        raise
    except MemoryError:
        reason = ["a size in it is larger than memory"]
    except (SystemExit, Exception) as error:
        reason = str(error).splitlines()
    raise InputError(
        f"cannot read {path.name}" + (f": {reason[0]}" if reason and reason[0] else ""),
        "mesh.file",
    )


def _is_gmsh(path: Path) -> bool:
    """Whether this is Gmsh's own format: ANSYS uses the same suffix."""
    with path.open("rb") as file:
        return path.suffix.lower() == ".msh" and file.read(200).lstrip()[:1] == b"$"


# Gmsh's own formats, https://gmsh.info/doc/texinfo/gmsh.html#File-formats


class _Numbers:
    """The numbers of a section, in text or binary."""

    def __init__(self, data: bytes, binary: bool, order: str, wide: int) -> None:
        self.data, self.binary, self.at = data, binary, 0
        self.types = {"i": f"{order}i4", "n": f"{order}u{wide}", "d": f"{order}f8"}
        if not binary:
            self.values = _parsed(data)

    def take(self, kind: str, count: int) -> np.ndarray:
        """The next numbers: ``i`` and ``n`` as int64, ``d`` as float64."""
        if count < 0:
            raise ValueError("a count is negative")
        if self.binary:
            dtype = np.dtype(self.types[kind])
            end = self.at + count * dtype.itemsize
            if end > len(self.data):
                raise ValueError("it ends too early")
            found = np.frombuffer(self.data, dtype, count, self.at)
        else:
            end = self.at + count
            if end > len(self.values):
                raise ValueError("it ends too early")
            found = self.values[self.at : end]
            if kind != "d" and (found != np.rint(found)).any():
                raise ValueError("a whole number is expected")
        self.at = end
        return found.astype(np.float64 if kind == "d" else np.int64)

    def counts(self, kind: str, count: int) -> list[int]:
        """The same as Python's integers."""
        return [int(value) for value in self.take(kind, count)]


def _parsed(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(data.decode("ascii"), dtype=np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            raise ValueError("there is something that is no number") from None


def _sections(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    at = 0
    while (begin := data.find(b"$", at)) >= 0:
        end = data.find(b"\n", begin)
        name = data[begin + 1 : end if end >= 0 else len(data)].strip()
        close = re.compile(rb"\n?\s*\$End" + re.escape(name) + rb"\s*(?=\n|$)").search(data, end)
        if end < 0 or close is None:
            raise ValueError(f"section ${name[:30].decode('ascii', 'replace')} does not end")
        key = name.decode("ascii", "replace")
        if key in found and key in ("Nodes", "Elements", "Entities"):
            raise ValueError(f"section ${key} stands twice")
        found.setdefault(key, data[end + 1 : close.start()])
        at = close.end()
    return found


def _read_gmsh(path: Path) -> _Content:
    sections = _sections(path.read_bytes())
    head = sections["MeshFormat"].split(b"\n")[0].split()
    version, binary, wide = head[0].decode(), head[1] == b"1", int(head[2])
    major = version.split(".")[0]
    version = {"2": "2.2", "4": "4.1"}.get(version, version)
    if version not in ("2.0", "2.1", "2.2", "4.0", "4.1") or wide not in (4, 8):
        raise ValueError(
            f"its format is MSH {version[:10]}; save it as 4.1: gmsh -format msh41, or "
            "Mesh.MshFileVersion = 4.1;"
        )
    order = "<"
    if binary:
        one = sections["MeshFormat"].split(b"\n", 1)[1][:4]
        order = ">" if one == b"\0\0\0\1" else "<"
    if "Nodes" not in sections or "Elements" not in sections:
        raise ValueError("it has no nodes and elements")

    def numbers(name: str) -> _Numbers:
        data = sections[name]
        if binary and major == "2":
            # One line of text, the count, stands before the binary part.
            data = data.split(b"\n", 1)[1]
        return _Numbers(data, binary, order, wide)

    if major == "2":
        count = {k: int(sections[k].split(b"\n", 1)[0]) for k in ("Nodes", "Elements")}
        tags, points = _nodes_2(numbers("Nodes"), count["Nodes"])
        rows = _elements_2(numbers("Elements"), count["Elements"])
    else:
        old = version == "4.0"
        physical = _entities(numbers("Entities"), old) if "Entities" in sections else {}
        tags, points = _nodes_4(numbers("Nodes"), old)
        rows = [
            (
                type_,
                nodes,
                np.tile(np.array(physical.get(entity, []), dtype=np.int64), (len(nodes), 1)),
            )
            for type_, entity, nodes in _elements_4(numbers("Elements"), old)
        ]
    names = _names(sections.get("PhysicalNames", b"0"))
    return _assembled(tags, points, rows, names)


def _tiled(groups: list[int], count: int) -> np.ndarray:
    return np.tile(np.array(groups, dtype=np.int64), (count, 1))


def _names(section: bytes) -> dict[tuple[int, int], str]:
    """By dimension and tag, whatever the order; one name may stand for several."""
    lines = section.decode("utf-8", "replace").splitlines()[1:]
    found = (re.fullmatch(r'\s*(\d+)\s+(-?\d+)\s+"(.*)"\s*', line) for line in lines)
    return {(int(m[1]), int(m[2])): m[3] for m in found if m}


def _nodes_2(numbers: _Numbers, count: int) -> tuple[np.ndarray, np.ndarray]:
    if numbers.binary:
        dtype = np.dtype([("tag", numbers.types["i"]), ("x", numbers.types["d"], 3)])
        if count * dtype.itemsize > len(numbers.data):
            raise ValueError("it ends too early")
        table = np.frombuffer(numbers.data, dtype, count)
        return table["tag"].astype(np.int64), table["x"].astype(np.float64)
    if numbers.counts("i", 1) != [count]:
        raise ValueError("the number of nodes is no number")
    flat = numbers.take("d", 4 * count).reshape(-1, 4)
    return _whole(flat[:, 0]), flat[:, 1:]


def _whole(values: np.ndarray) -> np.ndarray:
    if (values != np.rint(values)).any() or (np.abs(values) > 2**53).any():
        raise ValueError("a whole number is expected")
    return values.astype(np.int64)


# Type, nodes (n, k), physical groups (n, groups of each); group 0 is none.
_Rows = list[tuple[int, np.ndarray, np.ndarray]]


def _elements_2(numbers: _Numbers, count: int) -> _Rows:
    """In runs of the same type; the first tag of an element is its physical group."""
    rows: _Rows = []
    if numbers.binary:
        while count > 0:
            type_, many, tags = numbers.counts("i", 3)
            nodes = _type(type_)[1]
            if many <= 0 or tags < 0:
                raise ValueError("a count is not positive")
            table = numbers.take("i", many * (1 + tags + nodes)).reshape(many, -1)
            rows.append((type_, table[:, 1 + tags :], np.abs(table[:, 1 : 1 + min(tags, 1)])))
            count -= many
        return rows
    if numbers.counts("i", 1) != [count]:
        raise ValueError("the number of elements is no number")
    values = _whole(numbers.values[numbers.at :])
    at = 0
    while count > 0:
        if at + 3 > len(values):
            raise ValueError("it ends too early")
        type_, tags = int(values[at + 1]), int(values[at + 2])
        width = 3 + tags + _type(type_)[1]
        many = min(count, (len(values) - at) // width) if tags >= 0 else 0
        if many < 1:
            raise ValueError("it ends too early")
        chunk, same = 64, 0
        while same < many:
            part = values[at + same * width :][: min(chunk, many - same) * width]
            table = part.reshape(-1, width)
            alike = (table[:, 1] == type_) & (table[:, 2] == tags)
            same += len(alike) if alike.all() else int(np.argmin(alike))
            if not alike.all():
                break
            chunk *= 4
        table = values[at : at + same * width].reshape(same, width)
        rows.append((type_, table[:, 3 + tags :], np.abs(table[:, 3 : 3 + min(tags, 1)])))
        at, count = at + same * width, count - same
    if at != len(values):
        raise ValueError("there are more elements than it says")
    return rows


def _type(number: int) -> tuple[str, int]:
    if number not in _GMSH:
        raise ValueError(f"elements of Gmsh's type {number} are not supported")
    return _GMSH[number]


def _entities(numbers: _Numbers, old: bool) -> dict[tuple[int, int], list[int]]:
    """The physical groups of every entity (dimension, tag)."""
    found = {}
    for d, many in enumerate(numbers.counts("n", 4)):
        for _ in range(many):
            (tag,) = numbers.counts("i", 1)
            numbers.take("d", 6 if d or old else 3)
            # A group that turns the entity round is negative.
            found[d, tag] = [abs(t) for t in numbers.counts("i", numbers.counts("n", 1)[0])]
            if d:
                numbers.take("i", numbers.counts("n", 1)[0])
    return found


def _nodes_4(numbers: _Numbers, old: bool) -> tuple[np.ndarray, np.ndarray]:
    blocks, total = numbers.counts("n", 2 if old else 4)[:2]
    tags, points = [np.empty(0, dtype=np.int64)], [np.empty((0, 3))]
    for _ in range(blocks):
        first, second, parametric = numbers.counts("i", 3)
        (many,) = numbers.counts("n", 1)
        if not old:
            tags.append(numbers.take("n", many))
            width = 3 + (first if parametric else 0)
            points.append(numbers.take("d", many * width).reshape(many, width)[:, :3])
        elif numbers.binary:
            dtype = np.dtype([("tag", numbers.types["i"]), ("x", numbers.types["d"], 3)])
            raw = numbers.data[numbers.at : numbers.at + many * dtype.itemsize]
            table = np.frombuffer(raw, dtype)
            numbers.at += many * dtype.itemsize
            tags.append(table["tag"].astype(np.int64))
            points.append(table["x"].astype(np.float64))
        else:
            width = 4 + (second if parametric else 0)
            flat = numbers.take("d", many * width).reshape(many, width)
            tags.append(_whole(flat[:, 0]))
            points.append(flat[:, 1:4])
    if sum(map(len, tags)) != total:
        raise ValueError("there are not as many nodes as it says")
    return np.concatenate(tags), np.concatenate(points)


def _elements_4(numbers: _Numbers, old: bool) -> list[tuple[int, tuple[int, int], np.ndarray]]:
    blocks, total = numbers.counts("n", 2 if old else 4)[:2]
    found = []
    for _ in range(blocks):
        first, second, type_ = numbers.counts("i", 3)
        (many,) = numbers.counts("n", 1)
        nodes = _type(type_)[1]
        table = numbers.take("i" if old else "n", many * (1 + nodes)).reshape(many, 1 + nodes)
        found.append((type_, (second, first) if old else (first, second), table[:, 1:]))
    if sum(len(nodes) for _, _, nodes in found) != total:
        raise ValueError("there are not as many elements as it says")
    return found


def _assembled(
    tags: np.ndarray, points: np.ndarray, rows: _Rows, names: dict[tuple[int, int], str]
) -> _Content:
    order = np.argsort(tags, kind="stable")
    ranked = tags[order]
    if len(ranked) > 1 and (ranked[1:] == ranked[:-1]).any():
        raise ValueError(f"node {ranked[:-1][ranked[1:] == ranked[:-1]][0]} stands twice")
    if not len(tags):
        raise ValueError("it has no nodes")
    blocks: list[tuple[str, np.ndarray]] = []
    groups: dict[str, list[np.ndarray]] = {}
    for number, (type_, nodes, physical) in enumerate(rows):
        kind = _type(type_)[0]
        place = np.minimum(np.searchsorted(ranked, nodes), len(ranked) - 1)
        if (ranked[place] != nodes).any():
            missing = nodes[ranked[place] != nodes][0]
            raise ValueError(f"an element names node {missing}, which does not exist")
        cells = order[place]
        if kind in _ORDERS:
            cells = cells[:, _ORDERS[kind]]
        blocks.append((kind, cells))
        for tag in np.unique(physical[physical != 0]).tolist():
            d = _KINDS[kind][0] if kind in _KINDS else -1
            name = names.get((d, tag), f"tag_{tag}")
            entry = groups.setdefault(name, [np.array([], dtype=np.int64)] * len(rows))
            members = np.flatnonzero((physical == tag).any(axis=1))
            entry[number] = np.union1d(entry[number], members)
    return _Content(points, blocks, groups)


# What meshio reads.

# Formats whose readers look for a bracket or a card for ever where the file ends before it.
_ENDLESS = {".msh": ("ansys", "rb"), **dict.fromkeys((".bdf", ".nas", ".fem"), ("nastran", "r"))}
_PAST = 100  # readings at the end of a file


class _Ending:
    """A file that raises EOFError where its end is read again and again."""

    def __init__(self, file: IO[Any]) -> None:
        self.file, self.past, self.name = file, 0, file.name

    def read(self, size: int = -1) -> Any:
        """As a file's."""
        return self._told(self.file.read(size))

    def readline(self) -> Any:
        """As a file's."""
        return self._told(self.file.readline())

    def _told(self, found: Any) -> Any:
        self.past += not found
        if self.past > _PAST:
            raise EOFError("it ends within a part that it began")
        return found

    # By these NumPy reads binary parts.

    def fileno(self) -> int:
        """As a file's."""
        return self.file.fileno()

    def tell(self) -> int:
        """As a file's."""
        return self.file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's."""
        return self.file.seek(offset, whence)

    def flush(self) -> None:
        """As a file's."""
        self.file.flush()


def _read_meshio(path: Path) -> _Content:
    import meshio

    _check_references(path)
    suffix = path.suffix.lower()
    if suffix == ".vtu":
        check_xml(path)
    if suffix == ".cgns":
        _check_cgns(path)
    if suffix in _ENDLESS:
        name, mode = _ENDLESS[suffix]
        with open(path, mode) as file:
            raw = meshio.read(_Ending(file), name)
    else:
        raw = meshio.read(path)
    blocks = [(b.type, _rows_of(b.type, b.data)) for b in raw.cells]
    groups = _groups(raw)
    if suffix == ".su2":
        names = _markers(path)
        groups = {names.get(name, name): members for name, members in groups.items()}
    return _Content(np.asarray(raw.points, dtype=np.float64), blocks, groups)


def _rows_of(kind: str, data: Any) -> np.ndarray:
    """The points of every cell of a block, (cells, points), also of one that has none."""
    rows = np.asarray(data, dtype=np.int64)
    return np.atleast_2d(rows) if rows.size else rows.reshape(0, _KINDS.get(kind, (0, 1))[1])


def _markers(path: Path) -> dict[str, str]:
    """The names of SU2's markers by the names that meshio's numbers for them give."""
    found: dict[str, str] = {}
    number = 0
    for tag in re.findall(r"^\s*MARKER_TAG\s*=\s*(\S+)", path.read_text("utf-8", "replace"), re.M):
        number = int(tag) if re.fullmatch(r"-?\d+", tag) else number + 1
        if found.setdefault(f"su2:tag_{number}", tag) != tag:
            raise ValueError(f"meshio takes '{tag}' for another marker: let all be words")
    # One array with one marker goes by the array's own name.
    return {**found, "su2:tag": next(iter(found.values()))} if len(found) == 1 else found


def _check_cgns(path: Path) -> None:
    """Refuse what meshio would not see: it takes one section of tetrahedra and no names."""
    import h5py

    with h5py.File(path, "r") as file:
        zone = file["Base/Zone1"]
        sections = [name for name in zone if "ElementConnectivity" in zone[name]]
        more = [name for name in zone if name == "ZoneBC"] + [
            s for s in sections if s != "GridElements"
        ]
        kind = zone["GridElements"].get(" data")
        if more or (kind is not None and int(kind[0]) != _TETRAHEDRA):
            raise ValueError(
                f"of CGNS one section of tetrahedra is read, without boundary conditions: "
                f"convert it, gmsh {path.name} -o {path.stem}.msh -0"
            )


def _check_references(path: Path) -> None:
    """Refuse data outside the file's folder: in XDMF, in HDF5, and what Abaqus includes."""
    if path.suffix.lower() == ".inp":
        _check_included(path)
    files = [path] if path.suffix.lower() in _HDF5 else []
    if path.suffix.lower() == ".xdmf":
        text = path.read_text("utf-8", "replace")
        if "<!ENTITY" in text or "XInclude" in text:
            raise InputError(f"{path.name} includes other files: write them into it", "mesh.file")
        folder = path.parent.resolve()
        for item in xml.etree.ElementTree.fromstring(text).iter("DataItem"):
            if item.get("Format", "XML").upper() == "XML":
                continue
            name = (item.text or "").strip().split(":")[0]
            target = (folder / name).resolve()
            if not target.is_relative_to(folder):
                raise InputError(
                    f"{path.name} names '{name}', outside its folder: put it beside it",
                    "mesh.file",
                )
            files.append(target)
    for file in dict.fromkeys(files):
        if file.is_file() and file.suffix.lower() != ".bin":
            _check_hdf5(file)


def _check_included(path: Path) -> None:
    folder, known, left = path.parent.resolve(), {path.resolve()}, [path.resolve()]
    while left:
        text = left.pop().read_text("utf-8", "replace")
        for line in re.findall(r"^[ *]*INCLUDE[^,\n]*,.*$", text, re.I | re.M):
            name = line.split("=")[-1].strip()
            # meshio looks in the directory that the program runs in first.
            target = (Path(name) if Path(name).exists() else folder / name).resolve()
            if not target.is_relative_to(folder):
                raise InputError(
                    f"{path.name} includes '{name}', outside its folder: put it beside it",
                    "mesh.file",
                )
            if target in known:
                raise InputError(f"{path.name}: '{name}' is included twice", "mesh.file")
            if target.is_file():
                known.add(target)
                left.append(target)


def _check_hdf5(path: Path) -> None:
    import h5py

    if not h5py.is_hdf5(path):
        return

    with h5py.File(path, "r") as file:
        refuse_links(file, path.name, "mesh.file")


def _check_numbers(points: np.ndarray, blocks: list[tuple[str, np.ndarray]], path: Path) -> None:
    if points.ndim != 2 or not 1 <= points.shape[1] <= 3:
        raise InputError(f"{path.name}: points must be (n, d), d up to 3", "mesh.file")
    for kind, data in blocks:
        if data.size and not 0 <= data.min() <= data.max() < len(points):
            wrong = data.min() if data.min() < 0 else data.max()
            raise InputError(
                f"{path.name}: a {kind} names point {wrong}; there are {len(points)}, from 0 on",
                "mesh.file",
            )


def _one_kind(blocks: list[tuple[str, np.ndarray]], d: int) -> Kind:
    """Of which kind the elements in ``d`` dimensions are, of which there is one."""
    found = [k for k in KINDS if any(name in k.files and len(data) for name, data in blocks)]
    return next(kind for kind in found if kind.dimension == d)


# By meshio's name the facets of what is divided, by corners in VTK's order.
_FACETS = {name: kind.outward for kind in KINDS if kind.dimension == 3 for name in kind.files} | {
    "wedge": ((0, 1, 2), (3, 4, 5), (0, 1, 4, 3), (1, 2, 5, 4), (2, 0, 3, 5)),
    "pyramid": ((0, 1, 2, 3), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)),
}
_PRISMS = {"wedge": "prisms", "pyramid": "pyramids"}
_QUADRILATERALS = KINDS[2].files


def _alike(content: _Content) -> tuple[_Content, tuple[str, ...]]:
    """Elements of several kinds, or of none that is solved on, as triangles or tetrahedra."""
    d = max((_KINDS[k][0] for k, data in content.blocks if len(data) and k in _KINDS), default=0)
    if d < 2:
        return content, ()
    highest = {
        (k.plural if (k := _kind_named(name)) is not None else _PRISMS[name])
        for name, data in content.blocks
        if len(data) and name in _KINDS and _KINDS[name][0] == d
    }
    if len(highest) < 2 and not highest & {*_PRISMS.values()}:
        return content, ()
    blocks: list[tuple[str, np.ndarray]] = []
    times: list[int] = []
    for name, data in content.blocks:
        n = _KINDS.get(name, (0, 0))[0]
        kind = _kind_named(name)
        if not len(data) or n < 2 or (kind is not None and kind.simplex):
            blocks.append((name, data))
            times.append(1)
            continue
        rows = _halved(content.points, data, d) if n == 2 else _coned(name, data)
        made = KINDS[1] if n == 2 else KINDS[3]
        middles = rows.shape[2] > made.corners
        blocks.append((made.files[middles], rows.reshape(-1, rows.shape[2])))
        times.append(rows.shape[1])
    groups = {
        name: [
            (np.asarray(m)[:, None] * k + np.arange(k)).ravel()
            for m, k in zip(members, times, strict=True)
        ]
        for name, members in content.groups.items()
    }
    made = KINDS[1] if d == 2 else KINDS[3]
    note = (
        f"the file has {' and '.join(sorted(highest))}: a mesh has elements of one kind, so that "
        f"all became {made.plural}"
    )
    return _Content(content.points, blocks, groups), (note,)


def _kind_named(name: str) -> Kind | None:
    return next((kind for kind in KINDS if name in kind.files), None)


def _halved(points: np.ndarray, data: np.ndarray, d: int) -> np.ndarray:
    """Two triangles of every quadrilateral, (k, 2, nodes).

    In the plane by its shorter diagonal; in space by that of its first vertex, as its elements are.
    """
    corners = data[:, :4]
    if d == 2:
        across = points[corners[:, [2, 3]]] - points[corners[:, [0, 1]]]
        first = np.linalg.norm(across[:, 0], axis=1) <= np.linalg.norm(across[:, 1], axis=1)
    else:
        first = corners.argmin(axis=1) % 2 == 0
    patterns = {True: ((0, 1, 2), (0, 2, 3)), False: ((1, 2, 3), (1, 3, 0))}
    name = _QUADRILATERALS[data.shape[1] > 4]
    both = [_children(name, data, patterns[way], KINDS[1]) for way in (True, False)]
    return np.where(first[:, None, None], *both)


def _coned(name: str, data: np.ndarray) -> np.ndarray:
    """The tetrahedra of every element between its first vertex and the facets without it."""
    facets, count = _FACETS[name], _KINDS[name][1]
    corners = data[:, :count]
    first = corners.argmin(axis=1)
    found: np.ndarray | None = None
    for apex in range(count):
        own = np.flatnonzero(first == apex)
        if not len(own):
            continue
        pieces = []
        for facet in (f for f in facets if apex not in f):
            if len(facet) == 3:
                pieces.append(_children(name, data[own], ((*facet, apex),), KINDS[3]))
                continue
            a, b, c, e = facet
            first_way = ((a, b, c, apex), (a, c, e, apex))
            other_way = ((b, c, e, apex), (b, e, a, apex))
            ways = [_children(name, data[own], w, KINDS[3]) for w in (first_way, other_way)]
            even = corners[own][:, list(facet)].argmin(axis=1) % 2 == 0
            pieces.append(np.where(even[:, None, None], *ways))
        rows = np.concatenate(pieces, axis=1)
        found = np.empty((len(data), *rows.shape[1:]), dtype=np.int64) if found is None else found
        found[own] = rows
    assert found is not None
    return found


def _children(
    name: str, data: np.ndarray, patterns: tuple[tuple[int, ...], ...], kind: Kind
) -> np.ndarray:
    """Children between these corners, (k, children, nodes); -1 where a middle is not known."""
    corners = [data[:, pattern] for pattern in patterns]
    parent = _kind_named(name)
    if parent is None or data.shape[1] == parent.corners:
        return np.stack(corners, axis=1)
    places = {frozenset(m): parent.corners + n for n, m in enumerate(parent.middles)}
    rows = []
    for pattern in patterns:
        row = [data[:, place] for place in pattern]
        for middle in kind.middles:
            place = places.get(frozenset(pattern[c] for c in middle))
            row.append(np.full(len(data), -1) if place is None else data[:, place])
        rows.append(np.stack(row, axis=1))
    return np.stack(rows, axis=1)


def _bent(mesh: Mesh, places: np.ndarray) -> bool:
    """Whether any of the second order's nodes does not lie midway between its corners."""
    for column, corners in enumerate(mesh.kind.middles):
        ends = mesh.points[mesh.cells[:, corners]]
        gap = np.abs(places[:, column] - ends.mean(axis=1)).max(axis=1)
        if (gap > MIDWAY * np.ptp(ends, axis=1).max(axis=1)).any():
            return True
    return False


def _groups(raw: Any) -> dict[str, list[np.ndarray]]:
    """By name, for every block of cells the numbers of the members."""
    found: dict[str, list[np.ndarray]] = {}
    names = {
        (int(value[0]), int(value[1])): name
        for name, value in raw.field_data.items()
        if np.size(value) == 2
    }
    # MED numbers the sets of groups that occur; each number has a list of names.
    families = {int(tag): list(given) for tag, given in vars(raw).get("cell_tags", {}).items()}
    for array, blocks in raw.cell_data.items():
        values = [np.asarray(block) for block in blocks]
        if array in _IGNORED or any(v.dtype.kind not in "iu" or v.ndim != 1 for v in values):
            continue
        tags = np.unique(np.concatenate(values)) if values else np.array([], dtype=int)
        tags = tags[tags != 0]
        for tag in tags.tolist():
            for number, block in enumerate(raw.cells):
                if array == "cell_tags" and families:
                    given = families.get(tag, [])
                elif array == "gmsh:physical":
                    d = _KINDS[block.type][0] if block.type in _KINDS else -1
                    given = [names.get((tag, d), f"tag_{tag}")]
                else:
                    given = [array if tags.tolist() == [1] else f"{array}_{tag}"]
                members = np.flatnonzero(values[number] == tag)
                for name in given:
                    entry = found.setdefault(name, [np.array([], dtype=np.int64)] * len(blocks))
                    entry[number] = np.union1d(entry[number], members)
    for name, sets in raw.cell_sets.items():
        if not name.startswith("gmsh:") and len(sets) == len(raw.cells) and name not in found:
            found[name] = [np.asarray([] if s is None else s, dtype=np.int64) for s in sets]
    return found


def _gather(
    corners: list[np.ndarray], dimensions: list[int], members: list[np.ndarray], d: int
) -> np.ndarray:
    rows = [c[m] for c, n, m in zip(corners, dimensions, members, strict=True) if n == d and len(m)]
    return np.concatenate(rows) if rows else np.empty((0, d + 1), dtype=np.int64)


def _used(
    renumber: np.ndarray,
    corners: list[np.ndarray],
    dimensions: list[int],
    members: list[np.ndarray],
    d: int,
) -> np.ndarray:
    """The vertices of a group's cells in ``d`` dimensions, once each, where elements use them."""
    found = np.sort(renumber[_gather(corners, dimensions, members, d)], axis=1)
    kept: np.ndarray = np.unique(found[(found >= 0).all(axis=1)], axis=0)
    return kept


def _numbers(
    dimensions: list[int], corners: list[np.ndarray], members: list[np.ndarray], d: int
) -> np.ndarray:
    """The members' numbers among all cells of dimension d."""
    found, before = [], 0
    for n, block, chosen in zip(dimensions, corners, members, strict=True):
        if n == d:
            found.append(chosen.astype(np.int64) + before)
            before += len(block)
    return np.concatenate(found) if found else np.array([], dtype=np.int64)


def _flat(points: np.ndarray, d: int, path: Path) -> np.ndarray:
    """The first d coordinates, where the others do not vary but for noise."""
    rest = points[:, d:]
    noise = _NOISE * max(np.ptp(points, axis=0).max(), 1e-300)
    if not np.isfinite(points).all():
        raise InputError(f"{path.name} has a point that is not finite", "mesh.file")
    if rest.size and (np.ptp(rest, axis=0) > noise).any():
        kind = "triangles must lie in a plane z = const" if d == 2 else "lines must lie along x"
        hint = ""
        if path.suffix.lower() == ".msh":
            hint = f". If it is the boundary alone, Gmsh saved no elements {_STATEMENTS[d]}"
        raise InputError(f"{path.name}: {kind}{hint}", "mesh.file")
    return np.ascontiguousarray(points[:, :d])


def write_mesh_group(group: h5py.Group, mesh: Mesh) -> None:
    """``points``, ``cells``, ``subdomains``, ``boundaries`` with their names, and ``element``.

    Of curved elements ``middles`` too.
    """
    group.attrs["element"] = mesh.element
    group["points"], group["cells"] = mesh.points, mesh.cells
    if mesh.middles is not None:
        group["middles"] = mesh.middles
    if mesh.axisymmetric:
        group.attrs["axisymmetric"] = True
    if mesh.scheme is not None:
        group.attrs["scheme"] = mesh.scheme
    if mesh.notes:
        group.attrs["notes"] = list(mesh.notes)
    kinds = {
        "subdomains": mesh.subdomains,
        "boundaries": mesh.boundaries,
        "supports": mesh.supports,
    }
    for kind, named in kinds.items():
        inner = group.create_group(kind)
        # Links would split a name at its slashes.
        inner.attrs["names"] = list(named)
        for number, members in enumerate(named.values()):
            inner[str(number)] = np.asarray(members, dtype=np.int64)


def read_mesh_group(group: h5py.Group) -> Mesh:
    """The mesh that :func:`write_mesh_group` wrote."""
    named = {
        kind: {
            str(name): group[f"{kind}/{number}"][()]
            for number, name in enumerate(group[kind].attrs["names"])
        }
        for kind in ("subdomains", "boundaries", "supports")
        if kind in group
    }
    middles = group["middles"][()] if "middles" in group else None
    return Mesh(
        group["points"][()],
        group["cells"][()],
        named["subdomains"],
        named["boundaries"],
        supports=named.get("supports", {}),
        element=group.attrs["element"],
        middles=middles,
        axisymmetric=bool(group.attrs.get("axisymmetric", False)),
        scheme=group.attrs.get("scheme"),
        notes=tuple(str(note) for note in group.attrs.get("notes", ())),
    )


def write_vtu(
    path: Path,
    mesh: Mesh,
    arrays: Mapping[str, np.ndarray],
    of_elements: Mapping[str, np.ndarray] | None = None,
) -> None:
    """The mesh with ``arrays`` of a value per node or per element; (3, nodes) is a vector.

    ``of_elements``: those that are of elements for certain.

    Named subdomains go along as cell arrays of 0 and 1, as ``read_mesh`` takes them.
    """
    import meshio

    points = np.zeros((len(mesh.nodes), 3))
    points[:, : mesh.dimension] = mesh.nodes
    at_nodes = {k: v.T.copy() for k, v in arrays.items() if v.shape[-1] == len(points)}
    cell_arrays = {k: v for k, v in arrays.items() if k not in at_nodes} | dict(of_elements or {})
    at_cells = {k: [v.T.copy()] for k, v in cell_arrays.items()}
    for name, members in mesh.subdomains.items():
        mask = np.zeros(len(mesh.cells), dtype=np.int32)
        mask[members] = 1
        at_cells.setdefault(name, [mask])
    out = meshio.Mesh(
        points,
        [(mesh.kind.files[mesh.degree - 1], mesh.cell_nodes[:, vtk_order(mesh)])],
        point_data={as_attribute(name): values for name, values in at_nodes.items()},
        cell_data={as_attribute(name): values for name, values in at_cells.items()},
    )
    meshio.write(path, out, file_format="vtu", compression=None)
