"""Distributions that may stand in a spec wherever a coefficient or a parameter does.

Each draws one value per stream of random numbers: a field on a grid, or a number. The stream of a
distribution belongs to a seed, a sample's number and the place in the spec, and to nothing else, so
that sample i is the same whatever the batch, the worker or the order.

On a mesh a field is drawn at the nodes. A Gaussian field is drawn on a grid of the mesh's bounding
box, the same for every mesh of that box, and interpolated linearly; the others are formulas.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Union

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES, Box, Grid
from sciml.core.problem.interpolation import interpolate
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.reader import Context, compile
from sciml.datasets import random_fields

Streams = Sequence[np.random.Generator]
Place = Grid | Mesh

# What the map of a field may name: the field a at a place.
_THROUGH = Context(AXES, others=("a",))
# Nodes along each axis of the grid that a mesh's fields are drawn on, by dimension.
_NODES = {1: 2049, 2: 257, 3: 65}


def stream(seed: int, index: int, path: str) -> np.random.Generator:
    """The random numbers of one distribution in one sample; ``path`` is its place in the spec."""
    key = np.random.SeedSequence((seed, index, zlib.crc32(path.encode())))
    return np.random.Generator(np.random.Philox(key))


def box_of(on: Place) -> Box:
    """The grid's box, or the bounding box of the mesh."""
    if isinstance(on, Grid):
        return on.box
    lower, upper = on.points.min(axis=0), on.points.max(axis=0)
    return Box(tuple(lower.tolist()), tuple(upper.tolist()))


class Distribution(ABC):
    """Interface: ``draw`` gives (B, *on.shape) for a field, (B,) for a number, float64."""

    kind: str

    @abstractmethod
    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """One value per stream."""


def _numbers(values: Sequence[float], device: torch.device | str) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device)


@dataclass(frozen=True)
class Uniform(Distribution):
    """A number between ``low`` and ``high``, all equally likely."""

    low: float
    high: float
    kind: Literal["uniform"] = "uniform"

    def __post_init__(self) -> None:
        _check_order(self.kind, self.low, self.high)

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B,)."""
        return _numbers([s.uniform(self.low, self.high) for s in streams], device)


@dataclass(frozen=True)
class LogUniform(Distribution):
    """A positive number whose logarithm is uniform between those of ``low`` and ``high``."""

    low: float
    high: float
    kind: Literal["log_uniform"] = "log_uniform"

    def __post_init__(self) -> None:
        _check_order(self.kind, self.low, self.high)
        if self.low <= 0:
            raise InputError(f"log_uniform: low must be positive; got {self.low:g}")

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B,)."""
        low, high = math.log(self.low), math.log(self.high)
        return _numbers([math.exp(s.uniform(low, high)) for s in streams], device)


@dataclass(frozen=True)
class Normal(Distribution):
    """A number with the normal distribution."""

    mean: float = 0.0
    deviation: float = 1.0
    kind: Literal["normal"] = "normal"

    def __post_init__(self) -> None:
        if self.deviation <= 0:
            raise InputError(f"normal: deviation must be positive; got {self.deviation:g}")

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B,)."""
        return _numbers([s.normal(self.mean, self.deviation) for s in streams], device)


@dataclass(frozen=True)
class Choice(Distribution):
    """One of several numbers, all equally likely."""

    values: tuple[float, ...]
    kind: Literal["choice"] = "choice"

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("choice: values is empty; give one number or more")

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B,)."""
        return _numbers([self.values[s.integers(len(self.values))] for s in streams], device)


SCALARS = (Uniform, LogUniform, Normal, Choice)
Scalar = Union[Uniform, LogUniform, Normal, Choice]  # noqa: UP007  (read by the schema)


@dataclass(frozen=True)
class GaussianField(Distribution):
    """A Gaussian random field with covariance scale (-Lap + tau^2)^-alpha and zero mean.

    ``boundary`` is the condition that -Lap is taken with. ``scale`` is tau^(2 alpha - d) where it
    is left out, which makes the field of order one. ``terms`` keeps the largest modes only.
    ``through`` is an expression of the field ``a`` and the coordinates: ``where(a > 0, 12, 3)``
    thresholds it, ``exp(a)`` makes it log-normal.
    """

    alpha: float = 2.0
    tau: float = 3.0
    scale: float | None = None
    boundary: Literal["neumann", "dirichlet", "periodic"] = "neumann"
    terms: int | None = None
    through: str | None = None
    kind: Literal["gaussian_field"] = "gaussian_field"

    def __post_init__(self) -> None:
        for name in ("alpha", "tau", "scale", "terms"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"gaussian_field: {name} must be positive; got {value:g}")
        if self.through is not None:
            compile(self.through, _THROUGH, ".through")

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B, *on.shape)."""
        box = box_of(on)
        d = box.dimension
        if 2 * self.alpha <= d:
            raise InputError(
                f"gaussian_field: alpha must be above {d / 2:g} in {d} dimensions, "
                f"for the variance to be finite; got {self.alpha:g}"
            )
        grid = on if isinstance(on, Grid) else Grid((_NODES[d],) * d, domain=box)
        field = random_fields.gaussian_field(
            streams,
            grid,
            alpha=self.alpha,
            tau=self.tau,
            scale=self.tau ** (2 * self.alpha - d) if self.scale is None else self.scale,
            kind=self.boundary,
            terms=self.terms,
            device=device,
        )
        if isinstance(on, Mesh):
            field = interpolate(field, on.coordinates(), grid.axes())
        if self.through is None:
            return field
        return _map(self.through, field, on)


def _map(through: str, field: torch.Tensor, on: Place) -> torch.Tensor:
    places = tuple(p.to(field.device) for p in on.coordinates())
    value = compile(through, _THROUGH, "through").at(places, {"a": field})
    return value.to(torch.float64).expand(field.shape)


@dataclass(frozen=True)
class Blocks(Distribution):
    """A piecewise constant field: ``count`` equal blocks along every axis, each with its own value.

    A point on the face between two blocks belongs to the upper one.
    """

    count: int
    values: Scalar
    kind: Literal["blocks"] = "blocks"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"blocks: count must be at least 1; got {self.count}")

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B, *on.shape)."""
        box = box_of(on)
        cells = self.count**box.dimension
        values = torch.stack([self.values.draw([s] * cells, on) for s in streams])
        block = torch.zeros(on.shape, dtype=torch.long)
        for p, low, high in zip(on.coordinates(), box.lower, box.upper, strict=True):
            along = ((p - low) / (high - low) * self.count + 1e-9).floor().long()
            block = block * self.count + along.clamp(0, self.count - 1)
        return values[:, block].to(device)


@dataclass(frozen=True)
class Inclusions(Distribution):
    """``count`` discs (balls) of value ``inside`` at random places in a ground of ``outside``."""

    count: int
    radius: Scalar
    inside: float
    outside: float
    kind: Literal["inclusions"] = "inclusions"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"inclusions: count must be at least 1; got {self.count}")

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B, *on.shape)."""
        return torch.stack([self._one(s, on) for s in streams]).to(device)

    def _one(self, source: np.random.Generator, on: Place) -> torch.Tensor:
        box = box_of(on)
        inside = torch.zeros(on.shape, dtype=torch.bool)
        for _ in range(self.count):
            centre = source.uniform(box.lower, box.upper)
            radius = float(self.radius.draw([source], on))
            away = sum((p - c) ** 2 for p, c in zip(on.coordinates(), centre, strict=True))
            inside |= away < radius**2
        return torch.where(inside, self.inside, self.outside).double()


@dataclass(frozen=True)
class Multiscale(Distribution):
    """The product over k of (1 + cos(a_k pi (x + y)) / 2) (1 + sin(a_k pi (y - 3 x)) / 2).

    a_k is uniform in [2^(k-1), 1.5 2^(k-1)], k = 1 ... ``scales`` (He, Liu, Xu 2024, the multiscale
    coefficient of MgNO). In two dimensions.
    """

    scales: int = 6
    kind: Literal["multiscale"] = "multiscale"

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B, *on.shape)."""
        d = box_of(on).dimension
        if d != 2:
            raise InputError(f"multiscale is for two dimensions; here are {d}")
        x, y = on.coordinates()
        field = torch.ones(len(streams), *on.shape, dtype=torch.float64)
        for k in range(1, self.scales + 1):
            low = 2.0 ** (k - 1)
            a = _numbers([s.uniform(low, 1.5 * low) for s in streams], "cpu")
            a = math.pi * a.reshape(-1, *(1 for _ in on.shape))
            field *= (1 + torch.cos(a * (x + y)) / 2) * (1 + torch.sin(a * (y - 3 * x)) / 2)
        return field.to(device)


@dataclass(frozen=True)
class SquareWave(Distribution):
    """``height`` over an interval of ``width`` around ``centre`` in x, zero elsewhere."""

    height: Scalar
    width: Scalar
    centre: Scalar
    kind: Literal["square_wave"] = "square_wave"

    def draw(self, streams: Streams, on: Place, device: torch.device | str = "cpu") -> torch.Tensor:
        """(B, *on.shape)."""
        shape = (len(streams), *(1 for _ in on.shape))
        height, width, centre = (
            part.draw(streams, on).reshape(shape) for part in (self.height, self.width, self.centre)
        )
        away = (on.coordinates()[0] - centre).abs()
        return torch.where(away <= width / 2, height, 0.0).double().to(device)


FIELDS = (GaussianField, Blocks, Inclusions, Multiscale, SquareWave)


def _check_order(kind: str, low: float, high: float) -> None:
    if not low < high:
        raise InputError(f"{kind}: low must be below high; got {low:g} and {high:g}")
