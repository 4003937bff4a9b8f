"""Smooth functions that vanish on sides of shapes and nowhere else in the domain.

    a circle, sphere or ball in up to ten dimensions: | |x - c|^2 - r^2 | / (2 r), an ellipse alike;
    a flat face that has all of the domain on one side of it: the distance from its plane;
    else, in the plane, a segment or an arc on its line or circle f = 0, trimmed by t >= 0:

        phi = sqrt(f^2 + (sqrt(t^2 + f^4) - t)^2 / 4),

t of a segment (L^2 / 4 - |x - m|^2) / L about its middle m, of an arc the distance from its chord
(Rvachev 1963; Sukumar and Srivastava 2022). Several are joined as 1 / sum 1 / phi_i, and data g_i
carried inside with the weights phi / phi_i (transfinite interpolation). Second derivatives are
singular where a trimmed piece ends, in corners above all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sciml.core.problem.geometry import Primitive
from sciml.core.problem.solids import Face, Solids

Vanishing = Callable[[Tensor], Tensor]

_TRIED = 512
_ON = 1e-7  # of the domain's size: so near to it is on it
_TINY = 1e-300


def vanishing(solids: Solids, faces: Sequence[Face]) -> Vanishing | None:
    """Of points (N, d) a number (N,), zero on these faces alone; None where none is known."""
    found = [_of_face(solids, face, faces) for face in faces]
    pieces = [piece for group in found if group is not None for piece in group]
    return None if None in found else lambda x: joined([piece(x) for piece in pieces])


def joined(values: Sequence[Tensor]) -> Tensor:
    """1 / sum 1 / phi_i, zero where one of them is."""
    if len(values) == 1:
        return values[0]
    total, others = values[0], values[1:]
    for value in others:
        total = total * value / (total + value).clamp_min(_TINY)
    return total


def shares(values: Sequence[Tensor]) -> list[Tensor]:
    """Weights of sum one, the i-th of which is one where the i-th value vanishes."""
    products = []
    for k in range(len(values)):
        product = torch.ones_like(values[k])
        for j, value in enumerate(values):
            product = product if j == k else product * value
        products.append(product)
    total = torch.stack(products).sum(0).clamp_min(_TINY)
    return [product / total for product in products]


def _of_face(solids: Solids, face: Face, among: Sequence[Face]) -> list[Vanishing] | None:
    primitive = list(solids.shapes.values())[face.solid]
    plain = _plain(primitive, face)
    if plain is not None and _alone(solids, plain, among):
        return [plain]
    return _trimmed(face) if solids.dimension == 2 else None


def _plain(primitive: Primitive, face: Face) -> Vanishing | None:
    """What vanishes where the whole curve or surface does that the face is of."""
    at = torch.full((1, _dimension(primitive) - 1), 0.5, dtype=torch.float64)
    if primitive.ellipse is not None:
        x, y, a, b = primitive.ellipse
        centre, axes = torch.tensor([x, y]).double(), torch.tensor([a, b]).double()
        return lambda x: min(a, b) * (((x - centre) / axes).square().sum(1) - 1).abs() / 2
    rounded = primitive.circle or primitive.sphere or primitive.ball
    if rounded is not None:
        *place, radius = rounded
        middle = torch.tensor(place, dtype=torch.float64)
        return lambda x: ((x - middle).square().sum(1) - radius**2).abs() / (2 * radius)
    start, n = face.place(at), face.normal(face.place(at))[0]
    corners = torch.rand(8, at.shape[1], dtype=torch.float64,
                         generator=torch.Generator().manual_seed(0))  # fmt: skip
    if bool((((face.place(corners) - start) @ n).abs() > 1e-9 * face.length).any()):
        return None
    return lambda x: ((x - start) @ n).abs()


def _dimension(primitive: Primitive) -> int:
    return primitive.dimension


def _alone(solids: Solids, phi: Vanishing, among: Sequence[Face]) -> bool:
    """Whether it is zero on these faces alone, and smooth: on one side of the domain."""
    d, size = solids.dimension, solids.size
    engine = torch.quasirandom.SobolEngine(d, scramble=True, seed=0)
    inside = solids.inside(engine.draw(_TRIED, dtype=torch.float64))
    cube = torch.quasirandom.SobolEngine(d - 1, scramble=True, seed=0).draw(
        _TRIED, dtype=torch.float64
    )
    rest = [solids.on(f, cube) for f in solids.faces if not any(f is own for own in among)]
    if any(float((phi(x) <= _ON * size).double().mean()) > 0.01 for x in rest):
        return False
    # Inside it keeps away from zero but beside the face: where it is small the face is near.
    near = phi(inside) < 0.02 * size
    gaps = torch.stack([f.gap(inside[near]).abs() for f in among]).amin(0)
    return bool((gaps <= 0.1 * size).all())


def _trimmed(face: Face) -> list[Vanishing] | None:
    """Of every stretch of a curve; None where it is neither a segment nor an arc."""
    spans = face.spans
    if spans is None:
        spans = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    found: list[Vanishing] = []
    for low, high in spans.tolist():
        # An arc of more than half a turn in two.
        count = 1 if _straight(face, low, high) else 4
        ends = torch.linspace(low, high, count + 1, dtype=torch.float64)[:, None]
        for k in range(count):
            middle = (ends[k : k + 1] + ends[k + 1 : k + 2]) / 2
            three = face.place(torch.cat([ends[k : k + 1], middle, ends[k + 1 : k + 2]]))
            piece = _piece(*three)
            check = face.place((middle + ends[k : k + 1]) / 2)
            if float(piece(check)) > 1e-7 * face.length:
                return None
            found.append(piece)
    return found


def _straight(face: Face, low: float, high: float) -> bool:
    ends = face.place(torch.tensor([[low], [(low + high) / 2], [high]], dtype=torch.float64))
    return bool((ends[1] - (ends[0] + ends[2]) / 2).norm() <= 1e-9 * face.length)


def _piece(a: Tensor, b: Tensor, c: Tensor) -> Vanishing:
    """The segment from a to c, or the arc through b."""
    chord, middle = c - a, (a + c) / 2
    length = chord.norm()
    n = torch.stack([-chord[1], chord[0]]) / length
    rise = (b - middle) @ n
    if abs(float(rise)) <= 1e-9 * float(length):

        def segment(x: Tensor) -> Tensor:
            t = (length**2 / 4 - (x - middle).square().sum(1)) / length
            return _trim((x - middle) @ n, t)

        return segment
    # Of sagitta s and chord L the radius is L^2 / (8 s) + s / 2, the centre below the middle.
    radius = length**2 / (8 * rise.abs()) + rise.abs() / 2
    centre = middle + n * rise.sign() * (rise.abs() - radius)

    def arc(x: Tensor) -> Tensor:
        f = ((x - centre).square().sum(1) - radius**2) / (2 * radius)
        return _trim(f, (x - middle) @ n * rise.sign())

    return arc


def _trim(f: Tensor, t: Tensor) -> Tensor:
    bent = (torch.hypot(t, f.square()) - t) / 2
    return torch.hypot(f, bent)
