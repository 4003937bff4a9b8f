"""Meshes of simple shapes from a few numbers, made by Gmsh (Geuzaine and Remacle 2009).

Gmsh is an extra: ``pip install sciml-pde[gmsh]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sciml.core.errors import InputError
from sciml.core.grid import SIDES
from sciml.core.mesh import Element, Mesh

_INSTALL = "geometry: needs gmsh, which is not installed: pip install sciml-pde[gmsh]"


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
    """A rectangle or a box, or a disk or ball, with holes, to be meshed by Gmsh.

    ``rectangle`` and ``box`` reach from ``lower`` to ``upper``, their sides called ``left``,
    ``right``, ``bottom``, ``top``, ``back``, ``front``; ``disk`` and ``ball`` have ``centre`` and
    ``radius``, their rim called ``boundary``. ``size``: the elements' edge length.
    """

    size: float
    shape: Literal["rectangle", "box", "disk", "ball"] = "rectangle"
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    centre: tuple[float, ...] | None = None
    radius: float | None = None
    holes: tuple[Hole, ...] = ()
    element: Element = "P1"

    def __post_init__(self) -> None:
        d = self.dimension
        if not self.size > 0:
            raise InputError(f"size must be positive; got {self.size:g}", "geometry.size")
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
        return 2 if self.shape in ("rectangle", "disk") else 3

    def mesh(self) -> Mesh:
        """The mesh, made anew; raises InputError where gmsh is missing or cannot mesh the shape."""
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
        try:
            gmsh.option.setNumber("General.Terminal", 0)
            gmsh.model.add("sciml")
            self._draw(gmsh)
            gmsh.model.mesh.generate(self.dimension)
            return self._collect(gmsh)
        except Exception as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"gmsh cannot mesh this geometry: {error}", "geometry") from None
        finally:
            gmsh.model.remove() if outer else gmsh.finalize()

    def _draw(self, gmsh: Any) -> None:
        shapes, d = gmsh.model.occ, self.dimension
        if self.shape in ("rectangle", "box"):
            lower, upper = self._corners()
            lengths = [b - a for a, b in zip(lower, upper, strict=True)]
            add = shapes.addRectangle if d == 2 else shapes.addBox
            body = add(*lower, *((0.0,) if d == 2 else ()), *lengths)
        else:
            assert self.centre is not None and self.radius is not None
            body = self._round(shapes, (*self.centre, self.radius))
        holes = [(d, self._round(shapes, hole.circle)) for hole in self.holes]
        if holes:
            shapes.cut([(d, body)], holes)
        shapes.synchronize()
        gmsh.option.setNumber("Mesh.MeshSizeMax", self.size)
        for hole in self.holes:
            if hole.size is not None:
                near = [e for e in gmsh.model.getEntities(d - 1) if _on_rim(gmsh, e, hole.circle)]
                rim = gmsh.model.getBoundary(near, combined=False, recursive=True)
                gmsh.model.mesh.setSize(rim, hole.size)

    def _round(self, shapes: Any, circle: tuple[float, ...]) -> int:
        if self.dimension == 2:
            x, y, r = circle
            return int(shapes.addDisk(x, y, 0.0, r, r))
        return int(shapes.addSphere(*circle))

    def _collect(self, gmsh: Any) -> Mesh:
        d = self.dimension
        tags, flat, _ = gmsh.model.mesh.getNodes()
        where = np.zeros((int(tags.max()) + 1, d))
        where[tags.astype(np.int64)] = np.asarray(flat).reshape(-1, 3)[:, :d]
        kind = {2: (1, 2), 3: (2, 4)}[d]
        _, nodes = gmsh.model.mesh.getElementsByType(kind[1])
        used = np.unique(nodes.astype(np.int64))
        number = np.full(len(where), -1, dtype=np.int64)
        number[used] = np.arange(len(used))
        kept = where[used]
        named: dict[str, list[np.ndarray]] = {}
        for entity in gmsh.model.getEntities(d - 1):
            _, facets = gmsh.model.mesh.getElementsByType(kind[0], entity[1])
            rows = number[facets.astype(np.int64)].reshape(-1, d)
            if len(rows):
                named.setdefault(self._name(kept[rows]), []).append(rows)
        cells = number[nodes.astype(np.int64)].reshape(-1, d + 1)
        boundaries = {name: np.concatenate(rows) for name, rows in named.items()}
        return Mesh(kept, cells, {}, boundaries, self.element)

    def _name(self, corners: np.ndarray) -> str:
        """The boundary that facets with these vertices (k, d, d) lie on."""
        points = corners.reshape(-1, self.dimension)
        for hole in self.holes:
            gap = np.linalg.norm(points - hole.circle[:-1], axis=1) - hole.circle[-1]
            if np.abs(gap).max() < 1e-6 * hole.circle[-1]:
                return hole.name
        if self.shape in ("rectangle", "box"):
            for axis, ends in enumerate(zip(*self._corners(), strict=True)):
                for end, name in zip(ends, SIDES[axis], strict=True):
                    if np.abs(points[:, axis] - end).max() < 1e-9 * max(abs(end), self.size):
                        return name
        return "boundary"


def _on_rim(gmsh: Any, entity: tuple[int, int], circle: tuple[float, ...]) -> bool:
    box = np.asarray(gmsh.model.getBoundingBox(*entity)).reshape(2, 3)[:, : len(circle) - 1]
    middle, r = np.asarray(circle[:-1]), circle[-1]
    return bool(np.abs(box - middle).max() < 1.001 * r and math.isfinite(r))
