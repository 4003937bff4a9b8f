"""Observations u(x_n) = u_n + noise: how they enter, and whether what is left of them is noise.

Where the ``noise`` is stated, the readings of a field are met if their mean square misfit is
below the point that chi^2 with as many degrees of freedom exceeds once in ten thousand times, the
tolerance asked for added in squares. Where it is not stated, two things are asked of a misfit e
that is above the tolerance:

- Readings side by side do not miss together. With r_n the misfits, the smooth part of the mean
  square is the mean of r_n r_m over pairs of neighbours n, m (Moran 1950); of independent errors it
  is zero, with a deviation of e^2 / sqrt(pairs).
- e is not above what a reading differs from the linear fit through its neighbours by, which is the
  noise, and what of the data is too rough to be told from it (difference-based estimates: Hall,
  Kay, Titterington 1990).

Both say nothing of a handful of readings: these must be met to the tolerance, or have their noise
stated. A field need not be read everywhere: what is asked of its readings is asked where it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.spatial import KDTree
from scipy.stats import chi2
from torch import Tensor

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.problem import Problem
from sciml.core.problem.table import read_columns
from sciml.discretization.points.jet import Jet
from sciml.discretization.points.region import Boxed
from sciml.discretization.points.strong import StrongForm
from sciml.solvers.trained.conditions import Piece, extent

OBSERVED = "observations"
_KEY = "problem.observations"
_CHANCE = 1e-4  # of calling noise a misfit, where its size is stated
_SIGNIFICANT = 3.7  # deviations of the smooth part beyond which it is none of independent errors
_ROUGH = 2.0  # a misfit beyond so many times the data's own roughness is none of noise
_TRIMMED, _TRIMMED_RMS = 0.9, 0.789  # share of the least differences; rms of a normal one's


@dataclass(frozen=True)
class Observations:
    """Readings ``seen`` (N, f) at ``points`` (N, D) of the fields ``which``, called ``names``.

    NaN where a field was not read. ``noise``: standard deviations (f,), None where not stated.
    ``extent``: sizes of the box (D,).
    """

    points: Tensor
    seen: Tensor
    names: tuple[str, ...]
    which: tuple[int, ...]
    noise: Tensor | None
    extent: Tensor

    @property
    def read(self) -> Tensor:
        """Which fields were read at the points, bool (N, f)."""
        return ~self.seen.isnan()

    def of(self, k: int) -> Observations:
        """The readings of one field alone."""
        rows, noise = self.read[:, k], self.noise
        return Observations(
            self.points[rows], self.seen[rows, k : k + 1], self.names[k : k + 1],
            self.which[k : k + 1], None if noise is None else noise[k : k + 1], self.extent,
        )  # fmt: skip

    @property
    def share(self) -> Tensor:
        """What each field's misfit is divided by, (f,): the noise relative to that of all.

        Times the root of the share of the points where it was read, so that the mean over all is
        that over its own.
        """
        part = self.read.double().mean(0).sqrt()
        return part if self.noise is None else part * self.noise / self.noise.log().mean().exp()

    def spread(self, solution: Tensor) -> Tensor:
        """What misfits are relative to, (f,): the deviation of the readings.

        Or that of the ``solution``, (n, F) its values in the box, as far as it is below their size.
        """
        fields = [self.seen[rows, k] for k, rows in enumerate(self.read.T)]
        size = torch.stack([column.square().mean().sqrt() for column in fields])
        own = torch.stack([column.std(correction=0) for column in fields])
        whole = solution[:, list(self.which)].std(0, correction=0)
        return torch.maximum(own, torch.minimum(whole, size)).clamp(min=1e-300)

    def gap(self, jet: Jet) -> Tensor:
        """How the values of a jet at the points miss the readings, (N, f); zero without one."""
        missed = jet.value[:, list(self.which)] - self.seen.nan_to_num(0.0)
        return missed.where(self.read, 0.0)

    def piece(self) -> Piece:
        """The readings as conditions at fixed points."""
        share, corner = self.share, self.points[0]
        return Piece(
            OBSERVED, corner, corner, lambda _, jet: self.gap(jet) / share, fixed=self.points
        )


@dataclass(frozen=True)
class Misfit:
    """What is left of the readings: ``size`` (f,), their rms misfits; ``relative`` to the spread.

    ``deviation`` (f,): the noise of a reading, stated or taken from what is left, zero where
    there are no more readings than unknowns. ``fault``: why
    what is left is more than noise; None where it may be noise.
    """

    size: Tensor
    relative: float
    deviation: Tensor
    fault: str | None


def judge(
    observed: Observations, gap: Tensor, spread: Tensor, rtol: float, unknowns: int
) -> Misfit:
    """Whether the misfits ``gap`` (N, f) are noise, or within ``rtol`` of the ``spread`` (f,).

    ``unknowns``: how many were found from them.
    """
    read = observed.read
    count = read.sum(0).double()
    size = (gap.square().sum(0) / count).sqrt()
    freedom = (count - unknowns / gap.shape[1]).clamp(min=1e-300)
    deviation = size * (count / freedom).sqrt() if float(count.sum()) > unknowns else size * 0
    if observed.noise is not None:
        deviation = observed.noise
    fault = next(
        (
            said
            for k in range(gap.shape[1])
            if (said := _fault(observed.of(k), gap[read[:, k], k], float(spread[k]), rtol))
        ),
        None,
    )
    return Misfit(size, float((size / spread).max()), deviation, fault)


def _fault(observed: Observations, r: Tensor, spread: float, rtol: float) -> str | None:
    """Why the misfit r (N,) of one field is more than noise."""
    count, name = len(r), observed.names[0]
    size, asked = float(r.square().mean().sqrt()), rtol * spread
    said = f"the observations of {name} are missed by {size:.3g} (root mean square), "
    if observed.noise is not None:
        noise = float(observed.noise[0])
        allowed = noise * math.sqrt(float(chi2.isf(_CHANCE, count)) / count)
        above = not size <= math.hypot(allowed, asked)
        return said + f"{size / noise:.3g} times their noise" if above else None
    if size <= asked:
        return None
    rough = _roughness(observed)
    if rough is None:
        return (
            said + f"{size / spread:.1e} of their spread, and are too few to tell noise from misfit"
        )
    if size > _ROUGH * rough:
        return said + f"but differ from their neighbours by {rough:.3g} only"
    smooth, deviations = _smooth(observed, r)
    if deviations > _SIGNIFICANT and smooth > asked:
        return said + f"of which {smooth:.3g} is no noise: neighbours miss together"
    return None


def _roughness(observed: Observations) -> float | None:
    """The noise of one field's readings, and what is too rough to be told from it.

    From the distance of each reading to the linear fit through its neighbours; None where there are
    too few.
    """
    points, seen = observed.points / observed.extent, observed.seen[:, 0]
    near = _near(points)
    if len(points) < 2 * (near + 1):
        return None
    index = _neighbours(points, near)
    offsets = points[index] - points[:, None]
    reach = offsets.norm(dim=-1).amax(-1)[:, None, None].clamp(min=1e-300)
    rows = torch.cat([torch.ones_like(offsets[..., :1]), offsets / reach], -1)
    weights = torch.linalg.pinv(rows, rtol=1e-6)[:, 0]
    gap = (seen - (weights * seen[index]).sum(-1)).abs() / (1 + weights.square().sum(-1)).sqrt()
    least = gap.sort().values[: max(1, int(_TRIMMED * len(gap)))]
    return float(least.square().mean().sqrt()) / _TRIMMED_RMS


def _smooth(observed: Observations, r: Tensor) -> tuple[float, float]:
    """The part of the misfits r (N,) that neighbours share, rms, and in deviations of chance."""
    points = observed.points / observed.extent
    near = _neighbours(points, _near(points))
    own = torch.arange(len(points))[:, None].expand_as(near)
    pairs = torch.unique(torch.stack([own, near], -1).flatten(0, 1).sort(-1).values, dim=0)
    shared = float((r[pairs[:, 0]] * r[pairs[:, 1]]).mean())
    chance = float(r.square().mean()) / len(pairs) ** 0.5
    return max(shared, 0.0) ** 0.5, shared / max(chance, 1e-300)


def _near(points: Tensor) -> int:
    """How many neighbours: enough for a linear fit with something left over."""
    return 2 * points.shape[1] + 1


def _neighbours(points: Tensor, count: int) -> Tensor:
    """Of every point the ``count`` nearest others, (N, count)."""
    _, index = KDTree(points.numpy()).query(points.numpy(), k=count + 1)
    found = torch.from_numpy(index)
    own = found == torch.arange(len(points))[:, None]
    # Of points that lie twice the tree may name the other first.
    own[:, -1] |= ~own.any(-1)
    return found[~own].reshape(len(points), count)


def observations_of(form: StrongForm) -> Observations:
    """The readings of a problem; InputError for columns, places or a noise that say nothing."""
    observed, _ = read_observations(form.problem, form.data.axes, form.fields, extent(form))
    if not isinstance(form.region, Boxed):
        refuse_outside(form.region.contains(observed.points[:, : form.region.box.dimension]))
    return observed


def read_observations(
    problem: Problem,
    axes: Sequence[str],
    fields: Sequence[str],
    corners: tuple[Tensor, Tensor],
    others: Sequence[str] = (),
) -> tuple[Observations, dict[str, Tensor]]:
    """The readings of a problem in a box, and by name the columns among ``others``, (N,) each.

    ``axes``: the coordinates, time last; ``corners``: the least and the largest of each, (D,).
    Raises InputError for columns, places or a noise that say nothing.
    """
    columns = _columns(problem.observations)
    seen = [name for name in fields if name in columns]
    known = (*axes, *fields, *others)
    for name in columns:
        if name not in known:
            raise InputError(f"unknown column '{name}'{did_you_mean(name, known)}", _KEY)
    missing = [name for name in axes if name not in columns] or ([] if seen else ["u"])
    if missing:
        raise InputError(
            f"the observations lack the column '{missing[0]}'; they need {', '.join(axes)} and "
            f"one of {', '.join(fields)}",
            _KEY,
        )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        listed = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(f"columns of observations are equally long, at least 1; {listed}", _KEY)
    points = torch.stack([columns[name] for name in axes], -1)
    values = torch.stack([columns[name] for name in seen], -1)
    _check_gaps(points, values, axes, seen)
    for name in others:
        if name in columns and bool(columns[name].isnan().any()):
            row = int(columns[name].isnan().nonzero()[0])
            raise InputError(f"observation {row + 1} does not say its {name}", _KEY)
    lower, upper = corners
    outside = ((points < lower) | (points > upper)).any(-1)
    if outside.any():
        row = int(outside.nonzero()[0])
        place = ", ".join(f"{a} = {c:.6g}" for a, c in zip(axes, points[row].tolist(), strict=True))
        raise InputError(f"observation {row + 1} at {place} lies outside the domain", _KEY)
    observed = Observations(
        points,
        values,
        tuple(seen),
        tuple(fields.index(name) for name in seen),
        _noise(problem.noise, seen),
        upper - lower,
    )
    return observed, {name: columns[name] for name in others if name in columns}


def refuse_outside(inside: Tensor) -> None:
    """Raise InputError where a reading, of (N,) the first that is not ``inside``, lies outside."""
    if not bool(inside.all()):
        row = int((~inside).nonzero()[0])
        raise InputError(f"observation {row + 1} lies outside the domain", _KEY)


def _check_gaps(points: Tensor, seen: Tensor, axes: Sequence[str], fields: Sequence[str]) -> None:
    """Raise InputError for readings of no place, and places and fields of no reading."""
    unplaced = points.isnan().nonzero()
    if len(unplaced):
        row, axis = unplaced[0].tolist()
        raise InputError(f"observation {row + 1} does not say its {axes[axis]}", _KEY)
    read = ~seen.isnan()
    if not bool(read.any(1).all()):
        row = int((~read.any(1)).nonzero()[0])
        raise InputError(f"observation {row + 1} reads none of {', '.join(fields)}", _KEY)
    if not bool(read.any(0).all()):
        raise InputError(f"{fields[int((~read.any(0)).nonzero()[0])]} is read nowhere", _KEY)


def _columns(observations: str | Mapping[str, Any] | None) -> dict[str, Tensor]:
    """The columns by name, float64 (N,) each, NaN for None and for an empty cell."""
    if isinstance(observations, Mapping):
        found = {}
        for name, values in observations.items():
            gaps = []
            if isinstance(values, (list, tuple)):
                gaps = [k for k, value in enumerate(values) if value is None]
                values = [0.0 if value is None else value for value in values]
            try:
                if isinstance(values, Tensor) and values.is_complex():
                    raise TypeError
                column = torch.as_tensor(values, dtype=torch.float64).flatten()
            except (TypeError, ValueError, RuntimeError):
                raise InputError(f"column {name} must be a list of numbers", _KEY) from None
            bad = (~torch.isfinite(column)).nonzero()
            if len(bad):
                raise InputError(f"observation {int(bad[0]) + 1}: {name} is not finite", _KEY)
            found[name] = column.index_fill(0, torch.tensor(gaps, dtype=torch.long), torch.nan)
        return found
    try:
        columns = read_columns(Path(str(observations)), gaps=True)
    except InputError as error:
        raise InputError(error.message, _KEY) from None
    return {n: torch.tensor(v, dtype=torch.float64) for n, v in columns.items()}


def _noise(stated: float | Mapping[str, float] | None, fields: Sequence[str]) -> Tensor | None:
    """The standard deviation of each field's readings, (f,)."""
    key = "problem.noise"
    if stated is None:
        return None
    named = stated if isinstance(stated, Mapping) else dict.fromkeys(fields, stated)
    for name in named:
        if name not in fields:
            raise InputError(f"no field '{name}' was observed{did_you_mean(name, fields)}", key)
    missing = [name for name in fields if name not in named]
    if missing:
        raise InputError(f"the noise of {missing[0]} is missing", key)
    found = torch.tensor([float(named[name]) for name in fields], dtype=torch.float64)
    if not bool((torch.isfinite(found) & (found > 0)).all()):
        raise InputError("noise is a standard deviation, a positive number", key)
    return found
