"""Coefficients over control volumes and their faces: means, where a coefficient may jump.

A coefficient that is smooth stands for its mean by its value at the unknown, or at the middle of
the face: the midpoint rule. One that may jump there has no value to stand for both sides. It is
sampled in the middles of the halves along every axis, 2^d parts of a control volume and 2^(d-1) of
a face, so that a jump at an unknown or on the edge of a part is integrated exactly.

Whether a text jumps can be read off it. A function of Python is watched while it is called: it may
jump where it makes truth values or integers of numbers, or leaves torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import product
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.overrides import TorchFunctionMode

from sciml.core.errors import InputError
from sciml.discretization.volumes.coefficients import Data, evaluate, jumps
from sciml.discretization.volumes.layout import Axis, Points

if TYPE_CHECKING:
    from sciml.discretization.volumes.obstacle import Cut

_MIDDLES = (0.25, 0.75)
_STEPS = frozenset(
    (
        *("sign", "sgn", "floor", "ceil", "round", "trunc", "fix", "frac", "remainder", "fmod"),
        *("floor_divide", "heaviside", "__mod__", "__rmod__", "__floordiv__", "__rfloordiv__"),
        *("numpy", "__array__", "item", "tolist", "__float__"),
    )
)
# By function, then by what it was called for: another grid or place may take another branch.
_watched: WeakKeyDictionary[Callable[..., Any], dict[tuple[Any, ...], bool]] = WeakKeyDictionary()


class _Watch(TorchFunctionMode):
    """Notes whether anything is called whose value may jump."""

    jumped = False

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        value = function(*args, **(kwargs or {}))
        discrete = isinstance(value, torch.Tensor) and not (
            value.is_floating_point() or value.is_complex()
        )
        self.jumped |= discrete or getattr(function, "__name__", "") in _STEPS
        return value


def may_jump(coefficient: Any, info: Data, key: str, points: Points | None = None) -> bool:
    """Whether a coefficient may jump from point to point; a function is called to see.

    At ``points``, by default those of the unknowns.
    """
    found = jumps(coefficient, info, key)
    if found is not None or not callable(coefficient):
        return bool(found)
    place = (info.layout.grid, key, *(tuple(p.shape) for p in points or ()))
    try:
        seen_before = _watched.setdefault(coefficient, {})
    except TypeError:
        return True
    if place in seen_before:
        return seen_before[place]
    watch = _Watch()

    @wraps(coefficient)
    def seen(*args: Any, **named: Any) -> Any:
        with watch:
            return coefficient(*args, **named)

    try:
        evaluate(seen, info.layout.points() if points is None else points, info, key)
    except InputError:
        # Told where the value is used; inside an obstacle it is not.
        return True
    seen_before[place] = watch.jumped
    return watch.jumped


def over_volumes(
    coefficient: Any, info: Data, key: str, cut: Cut | None = None, fill: float = 0.0
) -> torch.Tensor:
    """Means over the control volumes of the unknowns, (*batch, *shape); sizes of 1 stay.

    Of cut volumes those of the open parts; ``fill`` at unknowns without a volume.
    """
    lay = info.layout
    unused = None if cut is None else cut.unused
    sampled = may_jump(coefficient, info, key)
    if cut is not None or not sampled:
        if not info.variables.keys().isdisjoint(info.fields):
            here = None if unused is None else lay.to_unknowns(unused)
            value = evaluate(coefficient, lay.points(), info, key, here, fill)
        else:
            value = lay.to_unknowns(evaluate(coefficient, info.own, info, key, unused, fill))
        if not sampled:
            return value
    total = torch.zeros((), dtype=info.dtype, device=info.device)
    weight = torch.zeros_like(total)
    for shares in product(_MIDDLES, repeat=lay.dimension):
        points = _points(info, {k: _parts(a, s) for k, (a, s) in enumerate(zip(lay.axes, shares))})
        closed = None if cut is None else cut.level(points) < 0
        total = total + evaluate(coefficient, points, info, key, closed)
        weight = weight + (1.0 if closed is None else (~closed).to(info.dtype))
    if cut is None:
        return total / weight
    some = (weight > 0) & ~lay.to_unknowns(cut.unused)
    return torch.where(some, total / weight.clamp(min=1.0), value)


def over_faces(
    coefficient: Any, axis: int, places: torch.Tensor, info: Data, key: str
) -> torch.Tensor:
    """Means over the faces normal to an axis at ``places`` along it; sizes of 1 stay."""
    lay = info.layout
    others = [k for k in range(lay.dimension) if k != axis]
    middles = _points(info, {axis: places})
    if not others or not may_jump(coefficient, info, key, middles):
        return evaluate(coefficient, middles, info, key)
    total = torch.zeros((), dtype=info.dtype, device=info.device)
    for shares in product(_MIDDLES, repeat=len(others)):
        parts = {k: _parts(lay.axes[k], s) for k, s in zip(others, shares, strict=True)}
        total = total + evaluate(coefficient, _points(info, {axis: places, **parts}), info, key)
    mean: torch.Tensor = total / 2 ** len(others)
    return mean


def _parts(axis: Axis, share: float) -> torch.Tensor:
    return axis.edges[:-1] + share * axis.widths


def _points(info: Data, places: dict[int, torch.Tensor]) -> Points:
    """Coordinates at ``places``, which are brought back into the box along periodic axes."""
    lay = info.layout
    for k, place in places.items():
        if lay.periodic[k]:
            low, high = lay.grid.box.lower[k], lay.grid.box.upper[k]
            place = torch.where(place < low, place + (high - low), place)
            places[k] = torch.where(place > high, place - (high - low), place)
    return lay.points(places)
