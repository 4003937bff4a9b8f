"""Samples of a family: drawn, solved, checked, and cut to the resolutions that are kept."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.run.solution import Solution
from sciml.datasets.distributions import SCALARS
from sciml.datasets.family import Family
from sciml.datasets.store import Shard, Unstructured
from sciml.solvers.auto import Auto
from sciml.solvers.solve import solve

SPLITS = ("train", "valid", "test")
_APART = 1_000_000_000  # sample numbers of the splits lie this far apart
_PATIENCE = 20  # rejects before a family with more of them than samples is given up
_BATCH_UNKNOWNS = 90_000  # on a CPU larger batches leave the cache and gain nothing


@dataclass(frozen=True)
class Samples:
    """What became of some samples: those accepted (None if there are none), rejects and why."""

    accepted: Shard | None
    rejects: Mapping[int, str]


def numbers(split: str, first: int, count: int) -> range:
    """The numbers of ``count`` samples of a split, from its ``first`` on."""
    start = SPLITS.index(split) * _APART + first
    return range(start, start + count)


def attempt(family: Family, seed: int, indices: Sequence[int], device: str = "cpu") -> Samples:
    """Draw and solve the samples ``indices``, and keep those whose residual meets the tolerance.

    They are solved in batches that depend on nothing but the family and the device. Raises
    InputError for a family on a mesh on another device than the CPU.
    """
    if isinstance(family.on, Mesh) and device != "cpu":
        raise InputError(f"problems on meshes are solved on the CPU; got the device {device}")
    parts: list[Shard] = []
    rejects: dict[int, str] = {}
    step = batch_size(family, len(indices), device)
    for start in range(0, len(indices), step):
        batch = list(indices[start : start + step])
        drawn = family.draw(seed, batch, device)
        solution = _solved(family, drawn)
        kept = [k for k, status in enumerate(solution.statuses) if status.success]
        for k, status in enumerate(solution.statuses):
            if not status.success:
                rejects[batch[k]] = status.name.lower()
        if kept:
            parts.append(_shard(family, drawn, solution, batch, kept))
    return Samples(_joined(parts) if parts else None, rejects)


def check_yield(rejects: Mapping[Any, str], kept: int) -> None:
    """Raise InputError where more samples were rejected than kept, and 20 at least."""
    if len(rejects) < _PATIENCE or len(rejects) <= kept:
        return
    reason, count = Counter(rejects.values()).most_common(1)[0]
    raise InputError(
        f"{len(rejects)} of the first {len(rejects) + kept} samples did not converge "
        f"({count} of them: {reason}); change the family or its solver",
        "solver",
    )


def batch_size(family: Family, count: int, device: str) -> int:
    """How many samples are solved at once."""
    if family.problem.obstacle is not None:
        return 1  # each has a domain of its own
    if device != "cpu":
        return count
    return max(1, _BATCH_UNKNOWNS // prod(family.on.shape))


def _solved(family: Family, drawn: Mapping[str, torch.Tensor]) -> Solution:
    if family.problem.obstacle is not None:
        drawn = {place: value[0] for place, value in drawn.items()}
    solver = family.solver or Auto()
    solution = solve(family.problems(drawn), solver, on=family.on, throw=False)
    on, wanted = solution.on, family.on
    if (
        isinstance(on, Grid)
        and isinstance(wanted, Grid)
        and (on.shape, on.centring) != (wanted.shape, wanted.centring)
    ):
        raise InputError(
            "this solver answers on another grid; write "
            f"grid: {{shape: {list(on.shape)}, centring: {on.centring}}}",
            "grid",
        )
    return solution


def _shard(
    family: Family,
    drawn: Mapping[str, torch.Tensor],
    solution: Solution,
    indices: Sequence[int],
    kept: Sequence[int],
) -> Shard:
    """The accepted samples of one batch, where they were solved."""
    on = family.on
    inputs: dict[str, np.ndarray] = {}
    scalars: dict[str, np.ndarray] = {}
    for name, place in family.inputs.items():
        part = drawn[place].cpu().numpy()[list(kept)]
        (scalars if isinstance(family.places[place], SCALARS) else inputs)[name] = part
    outputs = {name: value[list(kept)] for name, value in _outputs(solution, len(on.shape))}
    for name in family.inputs:
        if name in outputs:
            raise InputError(
                f"an output is called '{name}' too; choose another name for the input",
                "dataset.inputs",
            )
    times = torch.zeros(1) if solution.times is None else solution.times.cpu()
    return Shard(
        name=family.dataset.name or family.problem.name,
        fields={**inputs, **outputs},
        constant=tuple(inputs),
        scalars=scalars,
        time=times.numpy(),
        axes=tuple(axis.numpy() for axis in on.axes()) if isinstance(on, Grid) else (),
        boundary={side: c.kind for side, c in family.problem.boundary.items()},
        indices=np.array([indices[k] for k in kept]),
        residuals=solution.residual.reshape(len(indices)).cpu().numpy()[list(kept)],
        inputs=tuple(family.inputs),
        outputs=tuple(outputs),
        mesh=Unstructured.of(on) if isinstance(on, Mesh) else None,
    )


def _outputs(solution: Solution, dimension: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every field of a solution, (sample, time, *grid); a complex one in two parts."""
    value = solution.value.cpu()
    if solution.residual.ndim == 0:
        value = value[None]
    if solution.times is None:
        value = value.unsqueeze(1)
    if len(solution.fields) == 1:
        value = value.unsqueeze(-dimension - 1)
    for k, name in enumerate(solution.fields):
        field = value.select(-dimension - 1, k)
        if field.is_complex():
            yield f"{name}_real", field.real.numpy()
            yield f"{name}_imag", field.imag.numpy()
        else:
            yield name, field.numpy()


def _joined(parts: Sequence[Shard]) -> Shard:
    first = parts[0]
    return dataclasses.replace(
        first,
        fields={n: np.concatenate([p.fields[n] for p in parts]) for n in first.fields},
        scalars={n: np.concatenate([p.scalars[n] for p in parts]) for n in first.scalars},
        indices=np.concatenate([p.indices for p in parts]),
        residuals=np.concatenate([p.residuals for p in parts]),
    )


def shapes(family: Family) -> tuple[tuple[int, ...], ...]:
    """The resolutions to keep, the first of them in the dataset's own folder."""
    return family.dataset.shapes or (family.on.shape,)


def check_shapes(family: Family) -> None:
    """Raise InputError for a resolution that the grid's points do not contain."""
    on = family.on
    if isinstance(on, Mesh):
        if family.dataset.shapes:
            raise InputError("a mesh has one resolution: leave shapes out", "dataset.shapes")
        return
    for position, shape in enumerate(shapes(family)):
        if len(shape) != len(on.shape) or any(
            _stride(n, m, on) is None for n, m in zip(on.shape, shape, strict=True)
        ):
            raise InputError(
                f"{list(shape)} is no resolution within {list(on.shape)}: "
                + (
                    "each number less one must divide the grid's less one"
                    if on.centring == "node"
                    else "the grid must have an odd multiple of its cells"
                ),
                f"dataset.shapes.{position}",
            )


def _stride(points: int, wanted: int, on: Grid) -> int | None:
    if on.centring == "node":
        stride, rest = divmod(points - 1, max(wanted - 1, 1))
        return stride if rest == 0 and stride > 0 and wanted > 1 else None
    stride, rest = divmod(points, max(wanted, 1))
    return stride if rest == 0 and stride % 2 == 1 and wanted > 0 else None


def subsampled(shard: Shard, on: Grid | Mesh, shape: tuple[int, ...]) -> Shard:
    """Every so many points: nodes of the coarse grid, or centres of its cells; on a mesh all."""
    if isinstance(on, Mesh):
        return shard
    strides = [_stride(n, m, on) or 1 for n, m in zip(on.shape, shape, strict=True)]
    first = [0 if on.centring == "node" else s // 2 for s in strides]
    cut = tuple(slice(f, None, s) for f, s in zip(first, strides, strict=True))
    key: Any = (..., *cut)
    return dataclasses.replace(
        shard,
        fields={n: v[key] for n, v in shard.fields.items()},
        axes=tuple(axis[c] for axis, c in zip(shard.axes, cut, strict=True)),
    )
