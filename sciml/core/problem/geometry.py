"""Geometries: shapes, regions made of them by unions, differences and intersections, their mesh.

A :class:`Primitive` is a rectangle, circle, ellipse or polygon (with arcs), in space a box, sphere
or cylinder. A *region* is said by primitives' names, ``+`` for the union, ``-`` for the difference
and ``*`` for the intersection, as in constructive solid geometry (Requicha 1980):

    plate - hole + lug*half

Regions that meet share their facets, so that the mesh conforms, and are the mesh's subdomains.
What is left of a primitive's rim is a boundary by its name: of the domain, or, where nothing of it
is, between regions. OpenCASCADE does the operations and Gmsh (Geuzaine and Remacle 2009) the mesh,
on one thread, so that it is the same every time. Gmsh is an extra:
``pip install 'sciml-pde[gmsh]'``.
"""

from __future__ import annotations

import ast
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import SIDES, Box
from sciml.core.problem.mesh import Element, Mesh, Scheme
from sciml.core.problem.mesh_file import read_mesh

_INSTALL = "a geometry needs gmsh, which is not installed: pip install 'sciml-pde[gmsh]'"
_BOX_SIDES = tuple(name for pair in SIDES for name in pair)
_CYLINDER_SIDES = ("start", "end", "wall")
KINDS = 9  # of a primitive, its first fields
# Away from a part with a size of its own the elements' size grows by this share of the distance.
_GROWTH = 0.3
# A round side has at least so many edges in a full turn.
_PER_TURN = 12
# How far off a side, by its primitive's size, a node of it may lie by rounding.
_NEAR = 1e-6
# OpenCASCADE's tolerance is 1e-7, whatever is drawn: geometries of other sizes than these are drawn
# in a unit of their own.
_DRAWN = (0.1, 1e4)
# An arc is looked at as so many chords where only the distance from its inside matters.
_CHORDS = 24

Place = tuple[float, float, float]
Distance = Callable[[Place], float]


@dataclass(frozen=True)
class Arc:
    """A side of a polygon: from the corner before to the point ``to`` on a circle.

    The circle is given by a third point ``through`` which the side passes, or by its ``centre``;
    of the two ways round it then takes the shorter one.
    """

    to: tuple[float, float]
    through: tuple[float, float] | None = None
    centre: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.through is None) == (self.centre is None):
            raise InputError("an arc is {to: [x, y]} with either through: or centre:", ".to")


@dataclass(frozen=True)
class Cylinder:
    """From the middle ``start`` of one end to the middle ``end`` of the other."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float


@dataclass(frozen=True)
class Primitive:
    """One shape; exactly one of the first nine is given.

    ``rectangle``, ``box``: [lower, upper], two corners. ``circle``: [x, y, r]. ``ellipse``:
    [x, y, a, b], the half axes along x and y. ``polygon``: its corners in order, each a point or an
    :class:`Arc` that leads there. ``sphere``: [x, y, z, r]. ``cylinder``: see :class:`Cylinder`.
    ``ball``: [x1, x2, ..., r] and ``block``: two corners, in up to ten dimensions, of a domain
    (``kind: shapes``) without a mesh.
    ``size``: of the elements in it and at its rim, from where they grow; what no region names
    refines the mesh alone. ``sides``: names of its sides, in the place of its own name followed by
    ``_left, _right, _bottom, _top`` (and ``_back, _front``) for a rectangle and a box, by ``_1``,
    ``_2`` and so on for a polygon, from its first corner on, and by ``_start, _end, _wall``.
    """

    rectangle: tuple[tuple[float, float], tuple[float, float]] | None = None
    circle: tuple[float, float, float] | None = None
    ellipse: tuple[float, float, float, float] | None = None
    polygon: tuple[tuple[float, float] | Arc, ...] | None = None
    box: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    sphere: tuple[float, float, float, float] | None = None
    cylinder: Cylinder | None = None
    ball: tuple[float, ...] | None = None
    block: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    size: float | None = None
    sides: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not (self.size is None or (self.size > 0 and math.isfinite(self.size))):
            raise InputError(f"size must be positive; got {self.size:g}", ".size")
        given = [f.name for f in fields(self)[:KINDS] if getattr(self, f.name) is not None]
        if len(given) != 1:
            known = ", ".join(f.name for f in fields(self)[:KINDS])
            raise InputError(
                f"a shape is exactly one of {known}; got {' and '.join(given) or 'none'}"
            )
        numbers = list(_numbers(getattr(self, given[0])))
        if not all(math.isfinite(n) for n in numbers):
            raise InputError("coordinates must be finite", f".{given[0]}")
        if self.kind in ("rectangle", "box", "block"):
            lower, upper = self.corners
            if len(lower) != len(upper):
                raise InputError("its corners have as many coordinates each", f".{self.kind}")
            if not all(a < b for a, b in zip(lower, upper, strict=True)):
                raise InputError("each lower must be below its upper", f".{self.kind}")
        elif self.polygon is not None:
            self._check_polygon()
        elif self.cylinder is not None:
            if not self.cylinder.radius > 0 or self.cylinder.start == self.cylinder.end:
                raise InputError("a cylinder needs a radius > 0 and two ends", ".cylinder")
        elif not all(n > 0 for n in numbers[self.dimension :]):
            raise InputError("radii must be positive", f".{self.kind}")
        if self.sides is not None and len(self.sides) != len(self.own_sides):
            raise InputError(
                f"a {self.kind} has {len(self.own_sides)} sides; sides: names {len(self.sides)}",
                ".sides",
            )

    @property
    def kind(self) -> str:
        """Which of the nine it is."""
        return next(f.name for f in fields(self) if getattr(self, f.name) is not None)

    @property
    def dimension(self) -> int:
        """2 or 3; of a ball or a block 2 to 10."""
        if self.ball is not None:
            return len(self.ball) - 1
        if self.block is not None:
            return len(self.block[0])
        return 3 if self.kind in ("box", "sphere", "cylinder") else 2

    @property
    def corners(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lower and upper, of a rectangle, a box or a block."""
        found = self.rectangle or self.box or self.block
        assert found is not None
        return found

    @property
    def curved(self) -> bool:
        """Whether any of its sides is."""
        if self.polygon is not None:
            return any(isinstance(entry, Arc) for entry in self.polygon)
        return self.kind not in ("rectangle", "box", "block")

    @property
    def own_sides(self) -> tuple[str, ...]:
        """What its sides are called behind its name; none where it has one side."""
        if self.polygon is not None:
            return tuple(str(k + 1) for k in range(len(self.polygon)))
        if self.block is not None:
            return Box(*self.block).sides
        return {
            "rectangle": _BOX_SIDES[:4],
            "box": _BOX_SIDES,
            "cylinder": _CYLINDER_SIDES,
        }.get(self.kind, ())

    def _check_polygon(self) -> None:
        assert self.polygon is not None
        if len(self.polygon) < 2 or (len(self.polygon) == 2 and not self.curved):
            raise InputError("a polygon needs three corners, or two and an arc", ".polygon")
        chords = [
            (n, a, b) for n, side in enumerate(stretches(self.polygon)) for a, b in side.chords
        ]
        for n, a, b in chords:
            if math.dist(a, b) == 0:
                raise InputError(f"corner {n + 1} lies on the one before it", f".polygon.{n}")
        for k, (n, a, b) in enumerate(chords):
            for m, c, d in chords[k + 2 :]:
                if (a, b) != (c, d) and b != c and a != d and _cross(a, b, c, d):
                    raise InputError(
                        f"its sides {n + 1} and {m + 1} cross: give the corners in order",
                        f".polygon.{m}",
                    )


@dataclass(frozen=True)
class Hole:
    """A disk (in 3-D a ball) cut out of the shape; its rim is the boundary ``name``.

    ``circle``: [x, y, r], or [x, y, z, r] in a box. ``size``: the elements' size at the rim.
    """

    circle: tuple[float, ...]
    name: str = "hole"
    size: float | None = None


@dataclass(frozen=True)
class Geometry:
    """Regions made of shapes, or one shape with round holes, to be meshed by Gmsh.

    ``size``: the elements' edge length, at most. ``shapes``: primitives by name. ``regions``: by
    name what each is made of, such as ``plate - hole``; of one shape it may be left out.
    ``points``: by name points that are to be nodes, for loads and sources. ``element``: P1 or P2,
    by default what suits the equation: P2 for elasticity, else P1; in the plane Q1 and Q2 give
    quadrilaterals. Of P2 and Q2 curved sides stay curved. ``axisymmetric``, ``scheme``: see
    :class:`Mesh`.

    One shape with round ``holes`` needs no names: ``shape: rectangle`` and ``box`` reach from
    ``lower`` to ``upper``, their sides called ``left``, ``right``, ``bottom``, ``top``, ``back``,
    ``front``; ``disk`` and ``ball`` have ``centre`` and ``radius``, their rim called ``boundary``.
    """

    size: float
    shape: Literal["rectangle", "box", "disk", "ball"] = "rectangle"
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    centre: tuple[float, ...] | None = None
    radius: float | None = None
    holes: tuple[Hole, ...] = ()
    shapes: Mapping[str, Primitive] = field(default_factory=dict)
    regions: Mapping[str, str] = field(default_factory=dict)
    points: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    element: Element | None = None
    axisymmetric: bool = False
    scheme: Scheme | None = None

    def __post_init__(self) -> None:
        if not (self.size > 0 and math.isfinite(self.size)):
            raise InputError(f"size must be positive; got {self.size:g}", "geometry.size")
        if self.shapes:
            self._check_shapes()
        else:
            self._check_plain()
        for name, point in self.points.items():
            if len(point) != self.dimension or not all(math.isfinite(c) for c in point):
                raise InputError(
                    f"a point of this geometry has {self.dimension} finite coordinates",
                    f"geometry.points.{name}",
                )
        if self.dimension == 3 and self.element in ("Q1", "Q2"):
            raise InputError(
                f"{self.element} in space needs a mesh file of hexahedra; a geometry gives "
                "tetrahedra, P1 or P2",
                "geometry.element",
            )

    def _check_shapes(self) -> None:
        plain = ("lower", "upper", "centre", "radius", "holes")
        for name in plain:
            if getattr(self, name) not in (None, ()):
                raise InputError(
                    f"{name} is of a geometry of one shape; beside shapes: leave it out",
                    f"geometry.{name}",
                )
        first = next(iter(self.shapes.values()))
        for name, primitive in self.shapes.items():
            if not name.isidentifier():
                raise InputError(
                    f"a shape's name is one word, letters first; got '{name}'",
                    f"geometry.shapes.{name}",
                )
            if primitive.kind in ("ball", "block"):
                raise InputError(
                    f"a {primitive.kind} is of a domain without a mesh (kind: shapes); a geometry "
                    "has circle and rectangle, sphere and box",
                    f"geometry.shapes.{name}",
                )
            if primitive.dimension != first.dimension:
                raise InputError(
                    f"a {first.kind} and a {primitive.kind} are in one geometry: one is plane, "
                    "the other is not",
                    f"geometry.shapes.{name}",
                )
        if not self.regions and len(self.shapes) > 1:
            raise InputError(
                "with several shapes say what the domain is made of, regions: {plate: "
                f"{' - '.join(list(self.shapes)[:2])}}}",
                "geometry.regions",
            )
        for name, text in self.regions.items():
            tree_of(text, self.shapes, f"geometry.regions.{name}")

    def _check_plain(self) -> None:
        d = self.dimension
        if self.regions:
            raise InputError("regions are made of shapes: give shapes: too", "geometry.regions")
        needed, unused = ("lower", "upper"), ("centre", "radius")
        if self.shape in ("disk", "ball"):
            needed, unused = unused, needed
        for name in needed:
            value = getattr(self, name)
            if value is None:
                raise InputError(f"a {self.shape} needs {name}", f"geometry.{name}")
            if name != "radius" and len(value) != d:
                raise InputError(
                    f"{name} needs {d} numbers for a {self.shape}; got {len(value)}",
                    f"geometry.{name}",
                )
        for name in unused:
            if getattr(self, name) is not None:
                raise InputError(f"a {self.shape} has no {name}", f"geometry.{name}")
        if self.lower and self.upper and not all(map(float.__lt__, *self._corners())):
            raise InputError("each lower must be below its upper", "geometry.lower")
        if self.radius is not None and not self.radius > 0:
            raise InputError("radius must be positive", "geometry.radius")
        for number, hole in enumerate(self.holes):
            if len(hole.circle) != d + 1 or not hole.circle[-1] > 0:
                raise InputError(
                    f"a hole in a {self.shape} is circle: [{', '.join('xyz'[:d])}, r] with r > 0",
                    f"geometry.holes.{number}.circle",
                )

    def _corners(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(map(float, self.lower or ())), tuple(map(float, self.upper or ()))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        if self.shapes:
            return next(iter(self.shapes.values())).dimension
        return 2 if self.shape in ("rectangle", "disk") else 3

    def mesh(self, suited: Element = "P1") -> Mesh:
        """The mesh; ``suited``: its element unless one is stated.

        Raises InputError where gmsh is missing or cannot mesh the geometry, and for an empty
        region.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "geometry.msh"
            self.write(path)
            try:
                mesh = read_mesh(path, self.element or suited)
            except InputError as error:
                raise InputError(f"{error.message}; give a smaller size", "geometry") from None
        for name in self.points:
            if name not in mesh.supports:
                raise InputError("this point lies outside the domain", f"geometry.points.{name}")
        # Of one shape nothing else could be a region.
        subdomains = mesh.subdomains if self.shapes else {}
        return replace(
            mesh,
            subdomains=subdomains,
            axisymmetric=self.axisymmetric,
            scheme=self.scheme,
            geometry=self,
        )

    def write(self, path: Path) -> None:
        """Its mesh as a file of Gmsh's, MSH 4.1, of the second order where sides are curved."""
        path.write_bytes(self._file)

    @cached_property
    def _file(self) -> bytes:
        try:
            import gmsh
        except (ImportError, OSError) as error:
            raise InputError(
                _INSTALL if isinstance(error, ImportError) else f"gmsh cannot be loaded: {error}",
                "geometry",
            ) from None
        # Gmsh has one global state: what an outer user had open stays as it was.
        outer = gmsh.isInitialized()
        if not outer:
            gmsh.initialize(interruptible=False)
        recombined = float(self.element in ("Q1", "Q2"))
        options = {
            "General.Terminal": 0.0,
            "General.NumThreads": 1.0,
            "Geometry.OCCParallel": 0.0,
            "Mesh.MeshSizeMax": 1.0,
            "Mesh.MeshSizeFromCurvature": float(_PER_TURN),
            "Mesh.RecombineAll": recombined,
            "Mesh.SubdivisionAlgorithm": recombined,
            "Mesh.MshFileVersion": 4.1,
            "Mesh.Binary": 1.0,
            "Mesh.SaveAll": 0.0,
        }
        before = {name: gmsh.option.getNumber(name) for name in options}
        before_model = gmsh.model.getCurrent() if outer else ""
        try:
            for name, value in options.items():
                gmsh.option.setNumber(name, value)
            gmsh.model.add("sciml")
            unit = self._unit
            drawn = self if unit == 1.0 else _divided(self, unit)
            gmsh.option.setNumber("Mesh.MeshSizeMax", drawn.size)
            drawn._mesh_it(gmsh)
            if unit != 1.0:
                rows = [unit, 0, 0, 0, 0, unit, 0, 0, 0, 0, unit, 0]
                gmsh.model.mesh.affineTransform(rows)
            return _written(gmsh)
        except Exception as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"gmsh cannot mesh this geometry: {error}", "geometry") from None
        finally:
            if outer:
                gmsh.model.mesh.removeSizeCallback()
                gmsh.model.remove()
                gmsh.model.setCurrent(before_model)
                for name, value in before.items():
                    gmsh.option.setNumber(name, value)
            else:
                gmsh.finalize()

    def parts(self) -> dict[str, tuple[Primitive, tuple[tuple[str, ...], ...]]]:
        """Primitives by the name in regions, each with the boundaries that its sides are."""
        if self.shapes:
            return {
                name: (
                    primitive,
                    tuple(
                        (name, own)
                        for own in primitive.sides
                        or [f"{name}_{side}" for side in primitive.own_sides]
                    )
                    or ((name,),),
                )
                for name, primitive in self.shapes.items()
            }
        if self.shape in ("rectangle", "box"):
            lower, upper = self._corners()
            (x, y, *z), (u, v, *w) = lower, upper
            body = (
                Primitive(box=((x, y, z[0]), (u, v, w[0])))
                if z and w
                else Primitive(rectangle=((x, y), (u, v)))
            )
            names = tuple((side,) for side in body.own_sides)
        else:
            assert self.centre is not None and self.radius is not None
            body = _round((*self.centre, self.radius))
            names = (("boundary",),)
        holes = {
            f"hole_{n}": (_round(hole.circle, hole.size), ((hole.name,),))
            for n, hole in enumerate(self.holes)
        }
        return {"body": (body, names), **holes}

    def domain(self) -> Mapping[str, str]:
        """What every region is made of."""
        if self.regions:
            return self.regions
        first, *rest = self.parts()
        return {first: " - ".join([first, *rest])}

    @property
    def _unit(self) -> float:
        """In which it is drawn, a power of 2 so that nothing is rounded."""
        extent = max(_extent(primitive) for primitive, _ in self.parts().values())
        if _DRAWN[0] <= extent <= _DRAWN[1]:
            return 1.0
        return float(2.0 ** round(math.log2(extent)))

    def _mesh_it(self, gmsh: Any) -> None:
        d, parts = self.dimension, self.parts()
        primitives = {name: primitive for name, (primitive, _) in parts.items()}
        pieces: list[tuple[int, int]] = []
        owners: list[str] = []
        for name, text in self.domain().items():
            key = f"geometry.regions.{name}"
            found = _combined(tree_of(text, primitives, key), primitives, gmsh)
            if not found:
                raise InputError(f"region '{name}' is empty: nothing is left of {text}", key)
            pieces += found
            owners += [name] * len(found)
        spots = [(0, gmsh.model.occ.addPoint(*_place(p))) for p in self.points.values()]
        children = [[piece] for piece in (*pieces, *spots)]
        if len(children) > 1:
            _, children = gmsh.model.occ.fragment(pieces[:1], [*pieces[1:], *spots])
        gmsh.model.occ.synchronize()
        regions: dict[str, set[int]] = {name: set() for name in owners}
        for name, inner in zip(owners, children, strict=False):
            regions[name] |= {tag for dim, tag in inner if dim == d}
        self._set_sizes(gmsh, list(primitives.values()))
        gmsh.model.mesh.generate(d)
        if any(primitive.curved for primitive in primitives.values()):
            gmsh.model.mesh.setOrder(2)
        for name, bodies in regions.items():
            gmsh.model.addPhysicalGroup(d, sorted(bodies), name=name)
        for name, tags in _boundaries(gmsh, d, regions, parts).items():
            gmsh.model.addPhysicalGroup(d - 1, sorted(tags), name=name)
        for name, inner in zip(self.points, children[len(pieces) :], strict=True):
            gmsh.model.addPhysicalGroup(0, [tag for _, tag in inner], name=name)

    def _set_sizes(self, gmsh: Any, primitives: Sequence[Primitive]) -> None:
        wanted = [(_outside(p), p.size) for p in primitives if p.size is not None]
        if not wanted:
            return

        def size(dim: int, tag: int, x: float, y: float, z: float, given: float) -> float:
            return min(given, *(own + _GROWTH * gap((x, y, z)) for gap, own in wanted))

        gmsh.model.mesh.setSizeCallback(size)


def _round(numbers: Sequence[float], size: float | None = None) -> Primitive:
    """A circle or a sphere."""
    values = tuple(float(n) for n in numbers)
    if len(values) == 3:
        return Primitive(circle=values, size=size)
    x, y, z, r = values
    return Primitive(sphere=(x, y, z, r), size=size)


def _written(gmsh: Any) -> bytes:
    """The mesh of the current model, as a file."""
    handle, path = tempfile.mkstemp(suffix=".msh")
    os.close(handle)
    try:
        gmsh.write(path)
        return Path(path).read_bytes()
    finally:
        Path(path).unlink()


def _divided(value: Any, unit: float) -> Any:
    """All lengths in it over the unit."""
    if isinstance(value, (Geometry, Primitive, Hole, Arc, Cylinder)):
        changed = {f.name: _divided(getattr(value, f.name), unit) for f in fields(value)}
        return type(value)(**changed)
    if isinstance(value, Mapping):
        return {name: _divided(entry, unit) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_divided(entry, unit) for entry in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value / unit if number else value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (tuple, list)):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, (Arc, Cylinder)):
        yield from _numbers([getattr(value, f.name) for f in fields(value)])
    elif value is not None:
        yield float(value)


def _place(point: Sequence[float]) -> Place:
    x, y, z = (*point, 0.0)[:3]
    return float(x), float(y), float(z)


# What a region is made of.


def tree_of(text: str, shapes: Mapping[str, Any], key: str) -> ast.expr:
    """A region as it is written; InputError where anything but shapes and operations is in it."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(
            f"'{text[:60]}' is no region: write shapes with + (union), - (difference) and "
            "* (intersection), such as plate - hole",
            key,
        ) from None
    _check_operands(tree, shapes, key)
    return tree


def _check_operands(tree: ast.expr, shapes: Mapping[str, Any], key: str) -> None:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Add, ast.Sub, ast.Mult)):
        _check_operands(tree.left, shapes, key)
        _check_operands(tree.right, shapes, key)
    elif isinstance(tree, ast.Name):
        if tree.id not in shapes:
            raise InputError(f"there is no shape '{tree.id}'{did_you_mean(tree.id, shapes)}", key)
    else:
        raise InputError(
            "a region is made of shapes by + (union), - (difference) and * (intersection); "
            f"got '{ast.unparse(tree)[:60]}'",
            key,
        )


def _combined(tree: ast.expr, shapes: Mapping[str, Primitive], gmsh: Any) -> list[tuple[int, int]]:
    """The pieces that a region is made of; those of a union may overlap."""
    if isinstance(tree, ast.Name):
        return [_drawn(shapes[tree.id], gmsh.model.occ)]
    assert isinstance(tree, ast.BinOp)
    one, other = _combined(tree.left, shapes, gmsh), _combined(tree.right, shapes, gmsh)
    if isinstance(tree.op, ast.Add):
        return one + other
    if isinstance(tree.op, ast.Mult):
        found: list[tuple[int, int]] = []
        for tool in other:
            pieces = gmsh.model.occ.copy(one)
            found += gmsh.model.occ.intersect(pieces, [tool])[0] if pieces else []
        gmsh.model.occ.remove(one, recursive=True)
        return found
    if not one or not other:
        return one
    left: list[tuple[int, int]] = gmsh.model.occ.cut(one, other)[0]
    return left


def _drawn(primitive: Primitive, occ: Any) -> tuple[int, int]:
    """The primitive in OpenCASCADE."""
    if primitive.rectangle is not None or primitive.box is not None:
        lower, upper = primitive.corners
        lengths = [b - a for a, b in zip(lower, upper, strict=True)]
        if primitive.dimension == 2:
            return 2, occ.addRectangle(*lower, 0.0, *lengths)
        return 3, occ.addBox(*lower, *lengths)
    if primitive.circle is not None:
        x, y, r = primitive.circle
        return 2, occ.addDisk(x, y, 0.0, r, r)
    if primitive.ellipse is not None:
        x, y, a, b = primitive.ellipse
        tag = occ.addDisk(x, y, 0.0, max(a, b), min(a, b))
        if b > a:
            occ.rotate([(2, tag)], x, y, 0.0, 0.0, 0.0, 1.0, math.pi / 2)
        return 2, tag
    if primitive.sphere is not None:
        return 3, occ.addSphere(*primitive.sphere)
    if primitive.cylinder is not None:
        body = primitive.cylinder
        axis = [b - a for a, b in zip(body.start, body.end, strict=True)]
        return 3, occ.addCylinder(*body.start, *axis, body.radius)
    assert primitive.polygon is not None
    sides = stretches(primitive.polygon)
    tags = [occ.addPoint(*side.start, 0.0) for side in sides]
    curves = [
        curve
        for side, first, last in zip(sides, tags, [*tags[1:], tags[0]], strict=True)
        for curve in side.draw(occ, first, last)
    ]
    return 2, occ.addPlaneSurface([occ.addCurveLoop(curves)])


# Sides: how far points lie from them, and what they are called.


Point = tuple[float, float]


@dataclass(frozen=True)
class Stretch:
    """A side of a polygon; of an arc ``centre`` and by how much it ``turns``, counterclockwise."""

    start: Point
    end: Point
    centre: Point | None = None
    turns: float = 0.0

    def at(self, share: float) -> Point:
        """The point after this share of its length."""
        if self.centre is None:
            return (
                self.start[0] + share * (self.end[0] - self.start[0]),
                self.start[1] + share * (self.end[1] - self.start[1]),
            )
        x, y = self.start[0] - self.centre[0], self.start[1] - self.centre[1]
        c, s = math.cos(share * self.turns), math.sin(share * self.turns)
        return self.centre[0] + c * x - s * y, self.centre[1] + s * x + c * y

    @property
    def chords(self) -> list[tuple[Point, Point]]:
        """Straight pieces between points of it."""
        if self.centre is None:
            return [(self.start, self.end)]
        inner = [self.at(k / _CHORDS) for k in range(1, _CHORDS)]
        ends = [self.start, *inner, self.end]
        return list(pairwise(ends))

    def draw(self, occ: Any, first: int, last: int) -> list[int]:
        """Its curves between two points in OpenCASCADE, whose arcs are shorter than half a turn."""
        if self.centre is None:
            return [occ.addLine(first, last)]
        count = 1 + int(abs(self.turns) / 3.0)
        middle = occ.addPoint(*self.centre, 0.0)
        inner = [occ.addPoint(*self.at(k / count), 0.0) for k in range(1, count)]
        ends = [first, *inner, last]
        return [occ.addCircleArc(a, middle, b) for a, b in pairwise(ends)]

    def distance(self, place: Place) -> float:
        """From a point in the plane."""
        point = place[:2]
        if self.centre is None:
            return _to_chord(point, self.start, self.end)
        sense = math.copysign(1.0, self.turns)
        angle = sense * (_angle(self.centre, point) - _angle(self.centre, self.start))
        if angle % (2 * math.pi) <= abs(self.turns):
            radius = math.dist(self.centre, self.start)
            return abs(math.dist(self.centre, point) - radius)
        return min(math.dist(point, self.start), math.dist(point, self.end))


def stretches(polygon: Sequence[Point | Arc]) -> list[Stretch]:
    """From every corner to the next, round to the first; an arc leads to the corner it names."""
    corners = [entry.to if isinstance(entry, Arc) else entry for entry in polygon]
    found = []
    for n, start in enumerate(corners):
        after = (n + 1) % len(polygon)
        entry, end = polygon[after], corners[after]
        if isinstance(entry, Arc):
            found.append(_arc(start, entry, f".polygon.{after}"))
        else:
            found.append(Stretch(start, end))
    return found


def _arc(start: Point, arc: Arc, key: str) -> Stretch:
    end, centre = arc.to, arc.centre
    if arc.through is not None:
        centre = _circumcentre(start, arc.through, end)
        if centre is None:
            raise InputError("the arc's three points lie on a line", key)
    assert centre is not None
    first, last = math.dist(centre, start), math.dist(centre, end)
    if start == end or not first > 0 or abs(first - last) > _NEAR * first:
        raise InputError(
            f"the arc's ends are {first:.9g} and {last:.9g} away from its centre: they must differ "
            "and be equally far",
            key,
        )
    turns = (_angle(centre, end) - _angle(centre, start)) % (2 * math.pi)
    if arc.through is not None:
        passed = (_angle(centre, arc.through) - _angle(centre, start)) % (2 * math.pi)
        turns = turns if passed < turns else turns - 2 * math.pi
    elif turns > math.pi:
        turns -= 2 * math.pi
    return Stretch(start, end, centre, turns)


def _circumcentre(a: Point, b: Point, c: Point) -> Point | None:
    x, y = b[0] - a[0], b[1] - a[1]
    u, v = c[0] - a[0], c[1] - a[1]
    twice = 2 * (x * v - y * u)
    if abs(twice) <= 1e-12 * (math.hypot(x, y) * math.hypot(u, v)):
        return None
    p, q = x * x + y * y, u * u + v * v
    return a[0] + (v * p - y * q) / twice, a[1] + (x * q - u * p) / twice


def _angle(centre: Point, point: Sequence[float]) -> float:
    return math.atan2(point[1] - centre[1], point[0] - centre[0])


def _to_chord(point: Sequence[float], a: Point, b: Point) -> float:
    x, y = b[0] - a[0], b[1] - a[1]
    share = ((point[0] - a[0]) * x + (point[1] - a[1]) * y) / (x * x + y * y)
    share = min(max(share, 0.0), 1.0)
    return math.dist(point, (a[0] + share * x, a[1] + share * y))


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the chords from a to b and from c to d meet."""

    def turn(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return turn(a, b, c) * turn(a, b, d) <= 0 and turn(c, d, a) * turn(c, d, b) < 0


def _distances(primitive: Primitive) -> list[Distance]:
    """How far points lie from each of its sides."""
    if primitive.polygon is not None:
        return [side.distance for side in stretches(primitive.polygon)]
    if primitive.kind in ("rectangle", "box"):
        lower, upper = (_place(corner) for corner in primitive.corners)
        return [
            _to_face(axis, at[axis], lower, upper)
            for axis in range(primitive.dimension)
            for at in (lower, upper)
        ]
    if primitive.cylinder is not None:
        body = primitive.cylinder
        length = math.dist(body.start, body.end)

        def split(p: Place) -> tuple[float, float]:
            return _along(p, body)

        return [
            lambda p: math.hypot(split(p)[0], max(split(p)[1] - body.radius, 0.0)),
            lambda p: math.hypot(split(p)[0] - length, max(split(p)[1] - body.radius, 0.0)),
            lambda p: math.hypot(_beyond(split(p)[0], 0.0, length), split(p)[1] - body.radius),
        ]
    if primitive.ellipse is not None:
        return [lambda p: abs(_to_ellipse(p, primitive))]
    centre, radius = _ball(primitive)
    return [lambda p: abs(math.dist(p, centre) - radius)]


def _ball(primitive: Primitive) -> tuple[Place, float]:
    """Centre and radius of a circle or a sphere."""
    if primitive.circle is not None:
        x, y, r = primitive.circle
        return (x, y, 0.0), r
    assert primitive.sphere is not None
    x, y, z, r = primitive.sphere
    return (x, y, z), r


def _to_face(axis: int, at: float, lower: Place, upper: Place) -> Distance:
    """From the part of the plane x_axis = at between the other coordinates of two corners."""

    def distance(p: Place) -> float:
        gaps = [p[a] - at if a == axis else _beyond(p[a], lower[a], upper[a]) for a in range(3)]
        return math.hypot(*gaps)

    return distance


def _beyond(value: float, low: float, high: float) -> float:
    return max(low - value, value - high, 0.0)


def _along(p: Place, body: Cylinder) -> tuple[float, float]:
    """How far along a cylinder's axis a point lies, and how far from it."""
    length = math.dist(body.start, body.end)
    axis = [(b - a) / length for a, b in zip(body.start, body.end, strict=True)]
    gap = [x - a for x, a in zip(p, body.start, strict=True)]
    height = sum(x * e for x, e in zip(gap, axis, strict=True))
    return height, math.hypot(*(x - height * e for x, e in zip(gap, axis, strict=True)))


def _to_ellipse(p: Place, primitive: Primitive) -> float:
    """To first order, exact on the rim; negative inside."""
    assert primitive.ellipse is not None
    x, y, a, b = primitive.ellipse
    u, v = (p[0] - x) / a, (p[1] - y) / b
    size = math.hypot(u, v)
    steep = math.hypot(u / a, v / b)
    return size * (size - 1) / steep if steep > 0 else -min(a, b)


def _outside(primitive: Primitive) -> Distance:
    """How far points lie outside of the primitive, 0 in it."""
    if primitive.kind in ("rectangle", "box"):
        lower, upper = (_place(corner) for corner in primitive.corners)
        return lambda p: math.hypot(*(_beyond(p[a], lower[a], upper[a]) for a in range(3)))
    if primitive.ellipse is not None:
        return lambda p: max(_to_ellipse(p, primitive), 0.0)
    if primitive.cylinder is not None:
        body = primitive.cylinder
        length = math.dist(body.start, body.end)

        def gap(p: Place) -> float:
            height, off = _along(p, body)
            return math.hypot(_beyond(height, 0.0, length), max(off - body.radius, 0.0))

        return gap
    if primitive.polygon is not None:
        chords = [chord for side in stretches(primitive.polygon) for chord in side.chords]
        return lambda p: 0.0 if _within(p, chords) else min(_to_chord(p[:2], *c) for c in chords)
    centre, radius = _ball(primitive)
    return lambda p: max(math.dist(p, centre) - radius, 0.0)


def _within(p: Place, chords: Sequence[tuple[Point, Point]]) -> bool:
    """Whether a ray from the point meets an odd number of chords."""
    x, y = p[:2]
    met = False
    for a, b in chords:
        if (a[1] > y) != (b[1] > y):
            met ^= x < a[0] + (y - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
    return met


def _extent(primitive: Primitive) -> float:
    """The largest of its coordinates and lengths."""
    return max(abs(n) for n in _numbers(getattr(primitive, primitive.kind)))


def _boundaries(
    gmsh: Any,
    d: int,
    regions: Mapping[str, set[int]],
    parts: Mapping[str, tuple[Primitive, tuple[tuple[str, ...], ...]]],
) -> dict[str, list[int]]:
    """By name the curves or surfaces of the rims, of the domain or else between regions."""
    known = [
        (names, distance, _NEAR * _extent(primitive))
        for primitive, sides in parts.values()
        for names, distance in zip(sides, _distances(primitive), strict=True)
    ]
    outer: dict[str, list[int]] = {}
    inner: dict[str, list[int]] = {}
    for _, tag in gmsh.model.getEntities(d - 1):
        beside, _ = gmsh.model.getAdjacencies(d - 1, tag)
        owners = [{r for r, tags in regions.items() if int(body) in tags} for body in beside]
        if not owners or (len(owners) > 1 and owners[0] == owners[1]):
            continue
        _, flat, _ = gmsh.model.mesh.getNodes(d - 1, tag, includeBoundary=True)
        places = [_place(flat[k : k + 3]) for k in range(0, len(flat), 3)]
        found = [
            name
            for names, distance, near in known
            if all(distance(place) <= near for place in places)
            for name in names
        ]
        into = outer if len(owners) == 1 else inner
        for name in dict.fromkeys(found or ["boundary"]):
            into.setdefault(name, []).append(tag)
    within = {f"{name}_inner" if name in outer else name: tags for name, tags in inner.items()}
    return {**outer, **within}
