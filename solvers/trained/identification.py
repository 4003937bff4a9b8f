"""How well observations determine the unknowns: standard errors, and directions left open.

With J = [J_w J_p] the Jacobian of all weighted residuals by the weights of the function and by
the unknowns, at the answer and at fresh points, and Q an orthonormal basis of J_w's columns,
eliminating the weights (a Schur complement of J^T J) leaves

    K = (I - Q Q^T) J_p,        p - p* = -(K^T K)^-1 K^T e,

the error of p for errors e of the rows. Errors of the readings alone, of variance s^2, have

    cov p = (K^T K)^-1 K_o^T S K_o (K^T K)^-1,        S = diag s^2,

K_o the rows of the observations (White 1982: the equation's rows weigh, but are no data). To
this comes what training left undone, the step -(K^T K)^-1 K^T r that it would still take: a
standard error is the root of both squares.

In units of the unknowns themselves the singular vectors of K are directions in the logarithms of
the unknowns. One is not determined where its standard error is above one, or where the equation's
residual alone could move it by a third: along a combination on which nothing depends, K v is no
larger than that residual, since scaling all terms of an equation scales what is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.core.problem.problem import Unknown
from sciml.solvers.trained.objective import Objective, row_scale
from sciml.solvers.trained.observations import OBSERVED
from sciml.solvers.trained.sampling import sobol
from sciml.solvers.trained.unknowns import slope_at, unknowns_of
from sciml.solvers.trained.variable_projection import Basis

_POINTS = 2000  # of the equation at least, and three for each parameter
_LARGEST = 4000  # parameters beyond which the Jacobian is not formed
_OPEN = 1.0  # standard error, in logarithms, beyond which a direction is not determined
_MOVED = 1 / 3  # what the equation's residual may move a direction by
_FLAT = 1e-6  # of the largest singular value, and of a direction, the share that readings must have
_ROUNDING = 1e-9  # of the columns before the weights are eliminated
_NEAR = 3.0  # an unknown within so many of its own errors of zero has no logarithm
_ZERO = 1e-3  # of what its changes are measured in: an unknown that is all but zero
_TAKES_PART = 0.1  # of the largest entry of a direction
_ROUND = 0.05  # an exponent so near to a whole number or a half is that
_SEED = 2**31 - 7


@dataclass(frozen=True)
class Identification:
    """``errors``: standard errors by name, infinite where not determined; ``open`` says so."""

    errors: Mapping[str, float]
    open: tuple[str, ...]
    notes: tuple[str, ...] = ()


def identify(objective: Objective, deviation: Tensor) -> Identification:
    """Of the unknowns as found; ``deviation`` (f,): the noise of the readings of each field.

    Without errors where that is zero: no noise is stated, and no more readings than unknowns are
    there.
    Time 2 R P^2 for P parameters and R = max(2000, 3 P) rows and more.
    """
    size, observed = len(objective.theta), objective.observed
    assert observed is not None
    if size > _LARGEST:
        note = f"no standard errors: {size} parameters are more than {_LARGEST}"
        return Identification({}, (), (note,))
    stated, names = unknowns_of(objective.form.problem), list(objective.unknown)
    r, K, full, noise = _reduced(objective, deviation)
    slope = torch.tensor([slope_at(stated[n], objective.unknown[n]) for n in names]).to(K)
    slope = slope.where(slope != 0, torch.ones_like(slope))
    p = torch.tensor([objective.found[name] for name in names], dtype=K.dtype)
    told = bool(deviation.any())
    ordered = {name: stated[name] for name in names}
    readings = int(observed.read.sum())
    return judged(ordered, p, K / slope, r, noise, full / slope, readings, told=told)


def judged(
    stated: Mapping[str, Unknown],
    p: Tensor,
    K: Tensor,
    r: Tensor,
    noise: Tensor,
    full: Tensor,
    readings: int,
    *,
    told: bool,
) -> Identification:
    """Of the unknowns ``stated``, found to be p (P,), from K (R, P) and what is left, r (R,).

    ``noise`` (R,): of every row, NaN where it is no reading, of which there are ``readings``;
    ``full`` (P,): the lengths of K's columns before anything was eliminated. ``told``: whether
    the noise is known.
    """
    names = list(stated)
    noisy = torch.isfinite(noise)
    noise = noise.nan_to_num(0.0)
    unit = _units([stated[name] for name in names], p, K, r, noise)
    full = (full * unit).norm()
    U, s, Vh = torch.linalg.svd(K * unit, full_matrices=False)
    s = s.clamp(min=max(1e-15 * float(s[0]), 1e-150))
    spread = (U[noisy] * noise[noisy, None]).T / s[:, None]
    covariance = Vh.T @ (spread @ spread.T) @ Vh
    left = Vh.T @ ((U.T @ r) / s)
    errors = unit * (covariance.diagonal() + left.square()).sqrt()
    moved = float(r[~noisy].norm()) / s if bool(noisy.any()) else s * 0
    seen = (Vh @ (K * unit)[noisy].T).norm(dim=1)
    flat = (s <= _FLAT * s[0]) | (s <= _ROUNDING * full) | (seen <= _FLAT * s)
    left_open = (spread.norm(dim=1) > _OPEN) | (moved > _MOVED) | flat
    left_open[readings:] = True
    # Of one that is all but zero a change relative to itself would hide all others' part.
    directions = (Vh * (unit / torch.where(p.abs() > _ZERO * unit, p, unit)))[left_open]
    part = _taking_part(directions)
    errors = torch.where(part, torch.inf, errors)
    notes = [
        _at_a_bound(name, stated[name], float(v))
        for name, v in zip(names, p, strict=True)
        if _bound(stated[name], float(v))
    ]
    found = dict(zip(names, errors.tolist(), strict=True))
    if not told:
        found = {name: error for name, error in found.items() if error == torch.inf}
        notes.append(
            "no standard errors: nothing is left of the readings to tell their noise; state noise:"
        )
    return Identification(found, _left_open(names, directions, part), tuple(notes))


def _reduced(objective: Objective, deviation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weighted residuals r (R,) at fresh points, K (R, p), and the noise of every row (R,).

    Before the noise the lengths of K's columns (p,) as they were with the weights in; the noise of
    rows that are no readings is NaN.
    """
    fresh = replace(objective, batches=[])
    inside = max(_POINTS, 3 * len(objective.theta))
    generator = torch.Generator().manual_seed(_SEED)
    fresh.place(
        [
            piece.place(sobol(inside if k == 0 else max(1, inside // 10), piece.free, generator))
            for k, piece in enumerate(fresh.pieces)
        ]
    )
    r, J = fresh.jacobian()
    found = len(objective.unknown)
    basis, own = Basis(J[:, :-found]), J[:, -found:]
    K = own - basis.Q @ (basis.Q.T @ own)
    rows = []
    for batch in fresh.batches:
        outputs = fresh.residual(batch).shape[1]
        scale = row_scale(batch).flatten().expand(len(batch.own))
        if batch.piece.name == OBSERVED and objective.observed is not None:
            each = deviation / objective.observed.share
            rows.append((each[:, None] * scale).flatten())
        else:
            rows.append(torch.full((outputs * len(scale),), torch.nan, dtype=r.dtype))
    return r, K, own.norm(dim=0), torch.cat(rows)


def _units(stated: Sequence[Unknown], p: Tensor, K: Tensor, r: Tensor, noise: Tensor) -> Tensor:
    """What a change of each unknown is measured in: its distance to its bound, or its own size.

    Of one that is zero within its error, the others held, the first guess's.
    """
    found = []
    for k, unknown in enumerate(stated):
        column = K[:, k]
        square = float(column.square().sum())
        error = float((column * noise).norm() + (column * r).sum().abs()) / max(square, 1e-300)
        own, guess = _distance(unknown, float(p[k])), _distance(unknown, unknown.unknown)
        found.append(own if own > _NEAR * error else max(own, guess) or 1.0)
    return torch.tensor(found, dtype=K.dtype)


def _distance(unknown: Unknown, p: float) -> float:
    """To the nearest bound, to zero where there is none."""
    bounds = [b for b in (unknown.lower, unknown.upper) if b is not None]
    return min(abs(p - b) for b in bounds or [0.0])


def _bound(unknown: Unknown, p: float) -> bool:
    """Whether the value is all but at a bound."""
    return (unknown.lower, unknown.upper) != (None, None) and _distance(unknown, p) < (
        1e-6 * _distance(unknown, unknown.unknown)
    )


def _at_a_bound(name: str, unknown: Unknown, p: float) -> str:
    bounds = [b for b in (unknown.lower, unknown.upper) if b is not None]
    nearest = min(bounds, key=lambda b: abs(p - b))
    return f"{name} ends at its bound {nearest:g}: the observations would have it beyond"


def _taking_part(directions: Tensor) -> Tensor:
    """Which unknowns move along one of the directions (k, p), (p,)."""
    if not len(directions):
        return torch.zeros(directions.shape[1], dtype=torch.bool)
    largest = directions.abs().amax(1, keepdim=True)
    return (directions.abs() > _TAKES_PART * largest).any(0)


def _left_open(names: Sequence[str], directions: Tensor, part: Tensor) -> tuple[str, ...]:
    """A line on the directions (k, p), in logarithms, that are not determined."""
    if not len(directions):
        return ()
    taking = [name for name, takes in zip(names, part.tolist(), strict=True) if takes]
    if len(taking) <= len(directions):
        verb = "is" if len(taking) == 1 else "are"
        return (f"{_listed(taking)} {verb} not determined by the observations",)
    entries = directions[:, part]
    if len(taking) == 2:
        a, b = entries[0].tolist()
        return (
            f"only {_combination(taking, (b, -a))} is determined by the observations, "
            f"not {_listed(taking)} by themselves",
        )
    free = len(taking) - len(directions)
    count = "one combination" if free == 1 else f"{free} combinations"
    if len(directions) > 1:
        return (f"only {count} of {_listed(taking)} are determined by the observations",)
    scaled = (entries[0] / entries[0][entries[0].abs().argmax()]).tolist()
    shown = [f"{n}*c**{_rounded(e)}" for n, e in zip(taking, scaled, strict=True)]
    return (
        f"only {count} of {_listed(taking)} are determined by the observations: "
        f"{_listed(shown)} would do as well for any c",
    )


def _combination(names: Sequence[str], exponents: Sequence[float]) -> str:
    """``a/b`` for exponents in the proportion 1 to -1, and so on."""
    scale = min(abs(e) for e in exponents)
    first = 1 if exponents[0] > 0 else -1
    powers = [first * e / scale for e in exponents]
    above = [_power(n, e) for n, e in zip(names, powers, strict=True) if e > 0]
    below = [_power(n, -e) for n, e in zip(names, powers, strict=True) if e < 0]
    return "*".join(above) + "".join(f"/{each}" for each in below)


def _power(name: str, exponent: float) -> str:
    said = _rounded(exponent)
    return name if said == "1" else f"{name}**{said}"


def _rounded(exponent: float) -> str:
    near = round(2 * exponent) / 2
    return f"{near if abs(near - exponent) < _ROUND else exponent:.3g}"


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
