"""The kinds of elements of a mesh: what bounds them, and the nodes that the second order adds.

Corners are numbered as VTK and Gmsh number them: quadrilaterals counterclockwise, hexahedra bottom
before top. Nodes of the second order follow them in VTK's order too: the edges' middles, then
those of quadrilateral facets, then the middle of the element.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Kind:
    """One kind of element in ``dimension`` dimensions.

    ``outward``: the corners of its facets, in the sense that turns out of a positive element.
    ``middles``: for every node of the second order the corners between which it lies.
    ``children``: those into which it is divided, by its nodes of the second order.
    ``simplices``: intervals, triangles or tetrahedra between its corners, which fill it.
    ``files``: meshio's names of the first and the second order. ``order``: where scikit-fem's
    corners stand among these.
    """

    dimension: int
    plural: str
    corners: int
    outward: tuple[tuple[int, ...], ...]
    middles: tuple[tuple[int, ...], ...]
    children: tuple[tuple[int, ...], ...]
    simplices: tuple[tuple[int, ...], ...]
    files: tuple[str, str]
    order: tuple[int, ...]

    @property
    def simplex(self) -> bool:
        """Whether straight edges make its map affine."""
        return self.corners == self.dimension + 1

    @property
    def elements(self) -> tuple[str, str]:
        """P1 and P2, or Q1 and Q2: polynomials of that degree in all, or along each axis."""
        return ("P1", "P2") if self.simplex else ("Q1", "Q2")

    @property
    def counts(self) -> tuple[int, int]:
        """How many nodes an element of the first and of the second order has."""
        return self.corners, self.corners + len(self.middles)

    @cached_property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """The ranges of ``middles`` that lie on edges, on facets and inside."""
        sizes = [len(m) for m in self.middles]
        starts = [k for k, size in enumerate(sizes) if k == 0 or size != sizes[k - 1]]
        return tuple(zip(starts, [*starts[1:], len(sizes)], strict=True))


_TRIANGLE = ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5))
_QUADRILATERAL = ((0, 4, 8, 7), (4, 1, 5, 8), (8, 5, 2, 6), (7, 8, 6, 3))
_HEXAHEDRON = (
    *((0, 1), (1, 2), (2, 3), (0, 3), (4, 5), (5, 6), (6, 7), (4, 7)),
    *((0, 4), (1, 5), (2, 6), (3, 7)),
    *((0, 3, 4, 7), (1, 2, 5, 6), (0, 1, 4, 5), (2, 3, 6, 7), (0, 1, 2, 3), (4, 5, 6, 7)),
    tuple(range(8)),
)


def _octants() -> tuple[tuple[int, ...], ...]:
    """The eight children of a hexahedron: child c has at corner k what lies midway of c and k."""
    across = {0: 6, 1: 7, 2: 4, 3: 5, 4: 2, 5: 3, 6: 0, 7: 1}

    def between(c: int, k: int) -> int:
        if c == k:
            return c
        if across[c] == k:
            return 8 + len(_HEXAHEDRON) - 1
        return 8 + min(
            (n for n, corners in enumerate(_HEXAHEDRON) if {c, k} <= set(corners)),
            key=lambda n: len(_HEXAHEDRON[n]),
        )

    return tuple(tuple(between(c, k) for k in range(8)) for c in range(8))


KINDS = (
    Kind(
        dimension=1,
        plural="intervals",
        corners=2,
        outward=((0,), (1,)),
        middles=((0, 1),),
        children=((0, 2), (2, 1)),
        simplices=((0, 1),),
        files=("line", "line3"),
        order=(0, 1),
    ),
    Kind(
        dimension=2,
        plural="triangles",
        corners=3,
        outward=((0, 1), (1, 2), (2, 0)),
        middles=((0, 1), (1, 2), (0, 2)),
        children=_TRIANGLE,
        simplices=((0, 1, 2),),
        files=("triangle", "triangle6"),
        order=(0, 1, 2),
    ),
    Kind(
        dimension=2,
        plural="quadrilaterals",
        corners=4,
        outward=((0, 1), (1, 2), (2, 3), (3, 0)),
        middles=((0, 1), (1, 2), (2, 3), (0, 3), (0, 1, 2, 3)),
        children=_QUADRILATERAL,
        simplices=((0, 1, 2), (0, 2, 3)),
        files=("quad", "quad9"),
        order=(0, 1, 2, 3),
    ),
    Kind(
        dimension=3,
        plural="tetrahedra",
        corners=4,
        outward=((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)),
        middles=((0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3)),
        children=(
            *((0, 4, 6, 7), (4, 1, 5, 8), (6, 5, 2, 9), (7, 8, 9, 3)),
            *((4, 9, 5, 8), (4, 9, 8, 7), (4, 9, 7, 6), (4, 9, 6, 5)),
        ),
        simplices=((0, 1, 2, 3),),
        files=("tetra", "tetra10"),
        order=(0, 1, 2, 3),
    ),
    Kind(
        dimension=3,
        plural="hexahedra",
        corners=8,
        outward=(
            *((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4)),
            *((1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)),
        ),
        middles=_HEXAHEDRON,
        children=_octants(),
        simplices=(
            *((0, 1, 2, 6), (0, 2, 3, 6), (0, 3, 7, 6)),
            *((0, 7, 4, 6), (0, 4, 5, 6), (0, 5, 1, 6)),
        ),
        files=("hexahedron", "hexahedron27"),
        order=(6, 2, 5, 7, 1, 3, 4, 0),
    ),
)
# The facets of elements in d dimensions are of these kinds too: by their number of corners.
FACETS = {2: KINDS[0], 3: KINDS[1], 4: KINDS[2]}


def kind_of(dimension: int, corners: int) -> Kind | None:
    """The kind with so many corners; None where there is none."""
    return next((k for k in KINDS if (k.dimension, k.corners) == (dimension, corners)), None)


def plurals(dimension: int) -> str:
    """The kinds in so many dimensions: ``triangles or quadrilaterals``."""
    return " or ".join(k.plural for k in KINDS if k.dimension == dimension)
