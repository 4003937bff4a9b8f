"""Functions in a problem that are to be found: fields of the place, and laws of other quantities.

Unknown numbers are parameters (:class:`sciml.core.problem.reader.Unknown`). A function stands where
a coefficient does, and is called by its place: ``equation.K``, ``boundary.left.neumann``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from math import isfinite
from typing import Any, Literal, TypeVar

from sciml.core.errors import InputError

T = TypeVar("T")
_PARTS = ("equation", "boundary", "obstacle")  # of a problem, in which functions stand
_WIDEST = 64


@dataclass(frozen=True)
class UnknownField:
    """A function of the place, by its values at the nodes of a grid over the domain.

    ``field``: ``log``, positive, what is found being its logarithm, or ``plain``. ``start``: the
    constant that it is at first. ``prior``, of what is found: ``h1``, small slopes; ``tv``, few
    jumps; ``gaussian``, one of variance one and covariance like (-Lap + tau^2)^-2, that of the
    distribution ``gaussian_field`` with alpha 2, with ``length`` the distance at which values have
    little to do with each other, by default a third of the domain. ``strength``: what the prior
    weighs beside misfits in units of their noise, by default as much as that noise allows.
    ``shape``: nodes along each axis, by default those of the grid as far as these are few.
    """

    field: Literal["log", "plain"] = "log"
    start: float = 1.0
    prior: Literal["h1", "tv", "gaussian"] = "h1"
    length: float | None = None
    strength: float | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_choice(self.field, ("log", "plain"), ".field")
        _check_choice(self.prior, ("h1", "tv", "gaussian"), ".prior")
        if not isfinite(self.start) or (self.field == "log" and self.start <= 0):
            raise InputError(
                f"start is a finite number, above zero for field: log; got {self.start:g}", ".start"
            )
        for name in ("length", "strength"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise InputError(f"{name} is positive; got {value:g}", f".{name}")
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
            if min(self.shape, default=0) < 2:
                raise InputError(f"shape has 2 nodes or more an axis; got {list(self.shape)}",
                                 ".shape")  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A law of the quantities ``of``, such as u, by a network with one hidden layer.

    ``width`` of that layer. ``start``: the constant that it is at first. ``positive``: whether its
    logarithm is the network; ``monotone``: whether it grows with what it is of. ``strength``: what
    the weights' distance from the start weighs beside misfits in units of their noise, by default
    as much as that noise allows.
    """

    of: tuple[str, ...]
    width: int = 8
    start: float = 1.0
    positive: bool = False
    monotone: bool = False
    strength: float | None = None

    def __post_init__(self) -> None:
        of = (self.of,) if isinstance(self.of, str) else tuple(self.of)
        object.__setattr__(self, "of", of)
        if not of or not all(str(name).isidentifier() for name in of):
            raise InputError("of: [u] names what the law is of", ".of")
        if not 1 <= self.width <= _WIDEST:
            raise InputError(f"width is 1 to {_WIDEST}; got {self.width}", ".width")
        if not isfinite(self.start) or (self.positive and self.start <= 0):
            raise InputError(
                f"start is a finite number, above zero where positive; got {self.start:g}", ".start"
            )
        if self.strength is not None and not (isfinite(self.strength) and self.strength > 0):
            raise InputError(f"strength is positive; got {self.strength:g}", ".strength")


@dataclass(frozen=True)
class Law:
    """A coefficient that is to be found as a ``network``."""

    network: Network


def _check_choice(value: str, known: tuple[str, ...], key: str) -> None:
    if value not in known:
        raise InputError(f"'{value}' is none of {', '.join(known)}", key)


def leaves(problem: Any, kinds: tuple[type, ...]) -> dict[str, Any]:
    """What of ``kinds`` stands in a problem's equation and conditions, by its place."""
    return {
        ".".join(path): leaf
        for part in _PARTS
        for path, leaf in _within(getattr(problem, part), kinds, (part,))
    }


def put(problem: T, found: Mapping[str, Any]) -> T:
    """The problem with other coefficients at these places."""
    changed = {
        part: _changed(getattr(problem, part), found, part)
        for part in _PARTS
        if any(key.startswith(f"{part}.") for key in found)
    }
    known: Any = problem
    return replace(known, **changed) if changed else problem


def _within(
    stated: Any, kinds: tuple[type, ...], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(stated, kinds):
        yield path, stated
        return
    for name, value in _entries(stated):
        yield from _within(value, kinds, (*path, name))


def _changed(stated: Any, found: Mapping[str, Any], path: str) -> Any:
    if path in found:
        return found[path]
    if not any(key.startswith(f"{path}.") for key in found):
        return stated
    new = {name: _changed(value, found, f"{path}.{name}") for name, value in _entries(stated)}
    if isinstance(stated, Mapping):
        return new
    if isinstance(stated, (list, tuple)):
        return tuple(new.values())
    return replace(stated, **{n: v for n, v in new.items() if v is not getattr(stated, n)})


def _entries(stated: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(stated, Mapping):
        yield from ((str(name), value) for name, value in stated.items())
    elif isinstance(stated, (list, tuple)):
        yield from ((str(k), value) for k, value in enumerate(stated))
    elif is_dataclass(stated) and not isinstance(stated, type):
        yield from ((f.name, getattr(stated, f.name)) for f in fields(stated))
