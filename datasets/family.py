"""A family: a problem with distributions in the place of coefficients, data or parameters."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.geometry import Geometry
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import MeshFile
from sciml.core.problem.place import check_place, discrete, placed
from sciml.core.problem.problem import Problem
from sciml.datasets.distributions import SCALARS, Distribution, stream

_PARAMETERS = "problem.parameters."


@dataclass(frozen=True)
class DatasetOptions:
    """What is stored of a family.

    ``inputs``: names of the random inputs and their places in the spec, such as
    ``{a: problem.equation.K}``; left out, every distribution under its own key. ``shapes``: the
    resolutions kept, the grid's own if left out; each must divide it. ``splits``: samples per
    split, in this order. ``seed``: with a sample's number it decides the sample. ``shard``: samples
    tried per file.
    """

    name: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ()
    splits: Mapping[str, int] = field(
        default_factory=lambda: {"train": 1000, "valid": 100, "test": 100}
    )
    seed: int = 0
    shard: int = 50

    def __post_init__(self) -> None:
        known = ("train", "valid", "test")
        for split, count in self.splits.items():
            if split not in known:
                raise InputError(
                    f"unknown split '{split}'{did_you_mean(split, known)}",
                    f"dataset.splits.{split}",
                )
            if count < 1:
                raise InputError(
                    f"a split needs at least one sample; got {count}", f"dataset.splits.{split}"
                )
        if self.shard < 1:
            raise InputError(f"shard must be at least 1; got {self.shard}", "dataset.shard")


@dataclass(frozen=True)
class Family:
    """A distribution over problems on one grid or mesh: ``sample`` gives any of them again.

    ``problem`` holds a :class:`Distribution` wherever something is random. Exactly one of ``grid``,
    ``mesh`` and ``geometry`` is given.
    """

    problem: Problem
    grid: Grid | None = None
    solver: Any = None
    dataset: DatasetOptions = field(default_factory=DatasetOptions)
    mesh: MeshFile | None = None
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        check_place(self.problem, self.grid, self.mesh, self.geometry)
        if not self.places:
            raise InputError(
                "nothing is random here; put a distribution such as {kind: gaussian_field} in the "
                "place of a coefficient or a parameter",
                "problem",
            )
        for name, place in self.dataset.inputs.items():
            if not name.isidentifier():
                raise InputError(
                    f"'{name}' is no name: letters, digits and _", f"dataset.inputs.{name}"
                )
            if place not in self.places:
                raise InputError(
                    f"no distribution stands at '{place}'{did_you_mean(place, self.places)}",
                    f"dataset.inputs.{name}",
                )

    @cached_property
    def on(self) -> Grid | Mesh:
        """The grid on the problem's domain, or the mesh, which travels to workers with it."""
        return discrete(placed(self.problem, self.grid, self.mesh, self.geometry))

    @property
    def on_grid(self) -> Grid:
        """The grid on the problem's domain; raises InputError for a family on a mesh."""
        if self.grid is None:
            raise InputError(
                "this needs a family on a grid; it is on a mesh",
                "mesh" if self.mesh else "geometry",
            )
        return self.grid.bind(self.problem.box)

    @property
    def places(self) -> dict[str, Distribution]:
        """The distributions by their place, a dotted key of the spec."""
        return dict(_distributions(self.problem, "problem"))

    @property
    def inputs(self) -> dict[str, str]:
        """The places of the stored inputs by name."""
        if self.dataset.inputs:
            return dict(self.dataset.inputs)
        ends = Counter(place.rpartition(".")[2] for place in self.places)
        return {_name(place, ends): place for place in self.places}

    def with_count(self, count: int) -> Family:
        """The same family with ``count`` samples in all, shared out as its splits are."""
        splits = self.dataset.splits
        total, left = sum(splits.values()), count
        shares: dict[str, int] = {}
        for split, size in reversed(list(splits.items())):
            shares[split] = left if len(shares) == len(splits) - 1 else count * size // total
            left -= shares[split]
        shares = {split: shares[split] for split in splits if shares[split]}
        return dataclasses.replace(self, dataset=dataclasses.replace(self.dataset, splits=shares))

    def draw(
        self, seed: int, indices: Sequence[int], device: torch.device | str = "cpu"
    ) -> dict[str, torch.Tensor]:
        """What is random in the samples ``indices``, by place: (B, *on.shape) or (B,), float64."""
        drawn = {}
        for place, distribution in self.places.items():
            streams = [stream(seed, i, place) for i in indices]
            try:
                drawn[place] = distribution.draw(streams, self.on, device)
            except InputError as error:
                raise InputError(error.message, place + (error.key or "")) from None
        return drawn

    def problems(self, drawn: Mapping[str, torch.Tensor]) -> Problem:
        """The batch of problems with these values in the place of the distributions.

        A number in the place of a coefficient becomes a parameter.
        """
        parameters: dict[str, Any] = {}

        def value(place: str, distribution: Distribution) -> Any:
            if not isinstance(distribution, SCALARS) or place.startswith(_PARAMETERS):
                return drawn[place]
            name = place.replace(".", "_")
            parameters[name] = drawn[place]
            return name

        problem: Problem = _replaced(self.problem, "problem", value)
        return dataclasses.replace(problem, parameters={**problem.parameters, **parameters})

    def sample(
        self, seed: int, indices: Sequence[int], device: torch.device | str = "cpu"
    ) -> Problem:
        """The problems with these numbers, as one batch; the same for ever."""
        return self.problems(self.draw(seed, indices, device))


def _name(place: str, ends: Mapping[str, int]) -> str:
    """The last part of a place, or more of it where that tells too little."""
    end = place.rpartition(".")[2]
    if end.isidentifier() and ends[end] == 1 and not place.startswith("problem.initial."):
        return end
    return place.removeprefix("problem.").replace(".", "_")


def _distributions(value: Any, place: str) -> Iterator[tuple[str, Distribution]]:
    if isinstance(value, Distribution):
        yield place, value
        return
    for key, entry in _entries(value):
        yield from _distributions(entry, f"{place}.{key}")


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield entry.name, getattr(value, entry.name)
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (tuple, list)):
        yield from enumerate(value)


def _replaced(value: Any, place: str, new: Callable[[str, Distribution], Any]) -> Any:
    """``value`` with every distribution in it replaced by ``new(place, distribution)``."""
    if isinstance(value, Distribution):
        return new(place, value)
    changed = {key: _replaced(entry, f"{place}.{key}", new) for key, entry in _entries(value)}
    if all(changed[key] is entry for key, entry in _entries(value)):
        return value
    if isinstance(value, Mapping):
        return changed
    if isinstance(value, (tuple, list)):
        return tuple(changed.values())
    return dataclasses.replace(value, **changed)
