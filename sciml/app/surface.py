"""The surface of a solid mesh as small triangles with a value at every corner.

A mesh is cut through its middle y by a plane, so that the inside is seen: triangles of the boundary
are clipped there, the tetrahedra that fill it leave their sections, and a value on an edge is
interpolated between its ends. Where triangles are few they are halved along every side, so that
colours pass from one to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sciml.core.problem.cells import FACETS
from sciml.core.problem.mesh import Mesh

_SMALL = 4000  # triangles that are enough for colours to look smooth
_HALVINGS = 3
# The four triangles between the six nodes of a P2 facet: corners, then middles of 01, 12, 02.
_PARTS = ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5))


def surface(
    mesh: Mesh, values: np.ndarray, points: np.ndarray | None = None, cut: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Corners (T, 3, 3) of the surface's triangles, turned outwards, and the values there (T, 3).

    ``values``: of nodes, or of elements, which fill them. ``points`` (nodes, 3): where the nodes
    are, by default the mesh's. ``cut``: whether the half in front of the middle y is taken away.
    """
    places = mesh.nodes if points is None else points
    facets = mesh.topology.boundary_facets()
    nodes, kind = mesh.facet_nodes(facets), FACETS[len(mesh.topology.facets)]
    for parts in (kind.children if mesh.degree == 2 else (), kind.simplices):
        nodes = np.concatenate([nodes[:, part] for part in parts]) if parts else nodes
    nodal = len(values) == len(mesh.nodes)
    if nodal:
        shown = values[nodes]
    else:
        owners = np.tile(mesh.topology.f2t[0, facets], len(nodes) // len(facets))
        shown = np.repeat(values[owners, None], 3, axis=1)
    corners, own = places[nodes], mesh.topology.f2t[0, facets]
    inner = places[mesh.cells[np.tile(own, len(nodes) // len(facets))]].mean(axis=1)
    corners, shown = _turned(corners, shown, corners.mean(axis=1) - inner)
    if cut:
        height = (places[:, 1].min() + places[:, 1].max()) / 2
        within = mesh.kind.simplices
        solid = np.concatenate([mesh.cells[:, part] for part in within])
        filled = np.repeat(np.tile(values[: len(mesh.cells)], len(within))[:, None], 4, axis=1)
        inside = values[solid] if nodal else filled
        section = _section(places[solid], inside, height)
        ahead = np.broadcast_to([0.0, -1.0, 0.0], (len(section[0]), 3))
        halves = [_clipped(corners, shown, height), _turned(*section, ahead)]
        corners, shown = _joined(halves)
    for _ in range(_HALVINGS):
        if len(corners) >= _SMALL:
            break
        corners, shown = _halved(corners), _halved(shown)
    return corners, shown


# The light comes from above, over the left shoulder of who looks along (1, 1.6, -0.9).
_LIGHT = np.array([-0.7, -0.4, 0.6]) / np.sqrt(1.01)
_DARK = 0.72  # what is turned away from it keeps of its colour
_SHARP = 0.8  # the cosine of the angle from which on an edge is seen


def _turned(
    corners: np.ndarray, values: np.ndarray, ahead: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same, numbered so that their normals point ``ahead`` (T, 3)."""
    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    back = (sides * ahead).sum(axis=1) < 0
    corners, values = corners.copy(), values.copy()
    corners[back], values[back] = corners[back][:, ::-1], values[back][:, ::-1]
    return corners, values


def brightness(corners: np.ndarray) -> np.ndarray:
    """How bright triangles (T, 3, 3) are, (T,), lit by normals that are smooth but at edges."""
    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(sides, axis=1, keepdims=True)
    own = sides / np.where(length > 0, length, 1.0)
    size = max(float(np.ptp(corners.reshape(-1, 3), axis=0).max()), 1e-300)
    places = np.round(corners.reshape(-1, 3) / size, 7)
    vertex = np.unique(places, axis=0, return_inverse=True)[1].reshape(-1, 3)
    total = np.zeros((vertex.max() + 1, 3))
    np.add.at(total, vertex.ravel(), np.repeat(own * length, 3, axis=0))
    smooth = total[vertex].sum(axis=1)
    norm = np.linalg.norm(smooth, axis=1, keepdims=True)
    smooth = smooth / np.where(norm > 0, norm, 1.0)
    sharp = (smooth * own).sum(axis=1) < _SHARP
    normal = np.where(sharp[:, None], own, smooth)
    lit: np.ndarray = _DARK + (1 - _DARK) * np.clip(normal @ _LIGHT, 0.0, 1.0)
    return lit


def _clipped(
    corners: np.ndarray, values: np.ndarray, height: float
) -> tuple[np.ndarray, np.ndarray]:
    """What lies beyond the height of triangles (T, 3, 3) with values (T, 3), in triangles."""
    above = corners[:, :, 1] >= height
    kept = above.sum(axis=1)
    whole = [(corners[kept == 3], values[kept == 3])]
    for count, odd in ((1, True), (2, False)):
        chosen = kept == count
        # The corner that is alone on its side comes first.
        first = np.argmax(above[chosen] == odd, axis=1)
        turn = (first[:, None] + np.arange(3)) % 3
        p = np.take_along_axis(corners[chosen], turn[:, :, None], axis=1)
        v = np.take_along_axis(values[chosen], turn, axis=1)
        to_second, to_third = (_between(p, v, 0, k, height) for k in (1, 2))
        if odd:
            pieces = [((p[:, 0], v[:, 0]), to_second, to_third)]
        else:
            second, third = (p[:, 1], v[:, 1]), (p[:, 2], v[:, 2])
            pieces = [(to_second, second, third), (to_second, third, to_third)]
        whole += [_triangles(piece) for piece in pieces]
    return _joined(whole)


def _section(
    corners: np.ndarray, values: np.ndarray, height: float
) -> tuple[np.ndarray, np.ndarray]:
    """The sections of tetrahedra (m, 4, 3) with values (m, 4) at the height, in triangles."""
    above = corners[:, :, 1] >= height
    count = above.sum(axis=1)
    found = []
    for alone, odd in ((1, True), (3, False)):
        chosen = count == alone
        first = np.argmax(above[chosen] == odd, axis=1)
        turn = (first[:, None] + np.arange(4)) % 4
        p = np.take_along_axis(corners[chosen], turn[:, :, None], axis=1)
        v = np.take_along_axis(values[chosen], turn, axis=1)
        found.append(_triangles([_between(p, v, 0, k, height) for k in (1, 2, 3)]))
    chosen = count == 2
    order = np.argsort(~above[chosen], axis=1, kind="stable")
    p = np.take_along_axis(corners[chosen], order[:, :, None], axis=1)
    v = np.take_along_axis(values[chosen], order, axis=1)
    round_ = [_between(p, v, a, b, height) for a, b in ((0, 2), (0, 3), (1, 3), (1, 2))]
    found += [_triangles(round_[:3]), _triangles([round_[0], round_[2], round_[3]])]
    return _joined(found)


Corners = tuple[np.ndarray, np.ndarray]  # places (k, 3) and values (k,)


def _between(p: np.ndarray, v: np.ndarray, a: int, b: int, height: float) -> Corners:
    """Where the edges from corner a to b pass the height."""
    share = (height - p[:, a, 1]) / (p[:, b, 1] - p[:, a, 1])
    place = p[:, a] + share[:, None] * (p[:, b] - p[:, a])
    return place, v[:, a] + share * (v[:, b] - v[:, a])


def _triangles(corners: Sequence[Corners]) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of three corners each."""
    return np.stack([p for p, _ in corners], axis=1), np.stack([v for _, v in corners], axis=1)


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    places, values = zip(*parts, strict=True)
    return np.concatenate(places), np.concatenate(values)


def _halved(corners: np.ndarray) -> np.ndarray:
    """Each triangle (T, 3, ...) as the four between its corners and the middles of its sides."""
    middles = (corners + np.roll(corners, -1, axis=1)) / 2
    six = np.concatenate([corners, middles], axis=1)
    return np.concatenate([six[:, part] for part in _PARTS])
