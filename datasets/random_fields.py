"""Gaussian random fields on boxes, by fast transforms.

With the eigenpairs (lambda_k, phi_k) of -Lap under one kind of boundary condition,

    a(x) = sum_k  s^(1/2) (lambda_k + tau^2)^(-alpha/2) xi_k phi_k(x),    xi_k ~ N(0, 1),

has the covariance s (-Lap + tau^2)^-alpha (Lindgren, Rue, Lindstroem 2011; the recipe of Li et al.
2021). phi_k are products of cosines (Neumann), sines (Dirichlet) or both (periodic), of unit norm
in L2. Along one axis of length L, with a_k the coefficients and x_i = (i + c) h,

    sum_k a_k exp(-i theta k (i + c)),    theta = pi h / L  (2 pi h / L if periodic),

is one FFT, whose real part is the sum of cosines and whose imaginary part is minus that of sines.
The mean, k = 0, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from sciml.core.problem.grid import Grid

Kind = Literal["neumann", "dirichlet", "periodic"]


def gaussian_field(
    streams: Sequence[np.random.Generator],
    on: Grid,
    *,
    alpha: float,
    tau: float,
    scale: float,
    kind: Kind,
    terms: int | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """One field per stream at the points of a bound grid, float64 (B, *on.shape).

    ``scale`` is s. ``terms`` keeps that many of the modes with the largest variance, a truncated
    Karhunen-Loeve expansion. A finer grid has all modes of a coarser one, with the same xi.
    """
    counts = tuple(mode_count(n, on.centring, kind) for n in on.shape)
    deviation = mode_deviation(on, counts, alpha=alpha, tau=tau, scale=scale, kind=kind)
    if terms is not None:
        deviation = np.where(_largest(deviation, terms), deviation, 0.0)
    noise = np.stack([shell_noise(stream, counts) for stream in streams])
    modes = torch.from_numpy(noise * deviation).to(device)
    for axis in range(len(counts)):
        modes = synthesise(modes, axis - len(counts), on, axis, kind)
    return modes


def mode_count(points: int, centring: str, kind: Kind) -> int:
    """How many modes, k = 0 included, the points of one axis carry without aliasing."""
    if kind == "periodic":
        cells = points - 1 if centring == "node" else points
        return 2 * ((cells - 1) // 2) + 1
    return points - 1 if kind == "dirichlet" and centring == "node" else points


@lru_cache(maxsize=8)
def mode_deviation(
    on: Grid, counts: tuple[int, ...], *, alpha: float, tau: float, scale: float, kind: Kind
) -> np.ndarray:
    """Standard deviation of every mode's coefficient, of shape ``counts``; 0 for what is left out.

    Periodic modes are ordered 1, cos, sin, cos, sin, ... by frequency.
    """
    box = on.box
    total = np.zeros(counts)
    absent = np.zeros(counts, dtype=bool) if kind == "dirichlet" else np.ones(counts, dtype=bool)
    for axis, n in enumerate(counts):
        length = box.upper[axis] - box.lower[axis]
        k = np.arange(n)
        frequency = (k + 1) // 2 * 2 if kind == "periodic" else k
        shape = [-1 if a == axis else 1 for a in range(len(counts))]
        total = total + ((math.pi * frequency / length) ** 2).reshape(shape)
        zero = (frequency == 0).reshape(shape)
        absent = absent | zero if kind == "dirichlet" else absent & zero
    return np.where(absent, 0.0, math.sqrt(scale) * (total + tau**2) ** (-alpha / 2))


def _largest(deviation: np.ndarray, terms: int) -> np.ndarray:
    """Mask of the ``terms`` largest; equal ones are taken in the order of the shells."""
    order = _shells(max(deviation.shape), deviation.ndim)
    inside = np.all(order < np.array(deviation.shape), axis=1)
    places = tuple(order[inside].T)
    ranked = np.argsort(-deviation[places], kind="stable")[:terms]
    mask = np.zeros(deviation.shape, dtype=bool)
    mask[tuple(axis[ranked] for axis in places)] = True
    return mask


def shell_noise(stream: np.random.Generator, counts: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers for the modes, drawn shell by shell of the largest index.

    Modes that a smaller array has too get the same numbers there.
    """
    noise: np.ndarray = stream.standard_normal(max(counts) ** len(counts))[_turns(counts)]
    return noise


@lru_cache(maxsize=8)
def _turns(counts: tuple[int, ...]) -> np.ndarray:
    """When each mode is drawn, of shape ``counts``."""
    cube = (max(counts),) * len(counts)
    turns = np.empty(cube, dtype=np.int64)
    turns[tuple(_shells(cube[0], len(cube)).T)] = np.arange(turns.size)
    return np.ascontiguousarray(turns[tuple(slice(n) for n in counts)])


@lru_cache(maxsize=8)
def _shells(size: int, dimension: int) -> np.ndarray:
    """Indices of a cube, (size^d, d), ordered by their largest entry."""
    index = np.indices((size,) * dimension).reshape(dimension, -1).T
    return index[np.argsort(index.max(axis=1), kind="stable")]


def synthesise(modes: torch.Tensor, dim: int, on: Grid, axis: int, kind: Kind) -> torch.Tensor:
    """Sum the modes of one axis at the grid's points; ``dim`` is the tensor's axis."""
    points, shift = on.shape[axis], 0.0 if on.centring == "node" else 0.5
    cells = points - 1 if on.centring == "node" else points
    length = on.box.upper[axis] - on.box.lower[axis]
    a = modes.movedim(dim, -1)
    if kind == "periodic":
        value = _periodic_sum(a, cells, shift)
        if on.centring == "node":
            value = torch.cat([value, value[..., :1]], dim=-1)
    else:
        waves = _half_waves(a, cells, shift)[..., :points]
        value = waves.real if kind == "neumann" else -waves.imag
        value = value * math.sqrt(2.0)
        if kind == "neumann":
            value = value - (math.sqrt(2.0) - 1.0) * a[..., :1]
    return (value / math.sqrt(length)).movedim(-1, dim)


def _half_waves(a: torch.Tensor, cells: int, shift: float) -> torch.Tensor:
    """sum_k a_k exp(-i pi k (i + shift) / cells), from i = 0 on."""
    total: torch.Tensor
    if shift == 0:
        total = torch.fft.rfft(a, n=2 * cells)
    else:
        k = torch.arange(a.shape[-1], dtype=torch.float64, device=a.device)
        total = torch.fft.fft(a * torch.exp(-1j * math.pi * k * shift / cells), n=2 * cells)
    return total


def _periodic_sum(a: torch.Tensor, cells: int, shift: float) -> torch.Tensor:
    """sum a_c cos + a_s sin over the frequencies, at ``cells`` points."""
    cosine, sine = a[..., 1::2], a[..., 2::2]
    k = torch.arange(1, cosine.shape[-1] + 1, dtype=torch.float64, device=a.device)
    phase = torch.exp(-2j * math.pi * k * shift / cells)
    wave = (cosine + 1j * sine) * phase * math.sqrt(2.0)
    whole = torch.cat([a[..., :1].to(wave.dtype), wave], dim=-1)
    total: torch.Tensor = torch.fft.fft(whole, n=cells)
    return total.real


def covariance(
    on: Grid,
    first: Sequence[float],
    second: Sequence[float],
    *,
    alpha: float,
    tau: float,
    scale: float,
    kind: Kind,
) -> float:
    """E a(x) a(y) of the field that the grid carries, by its sum over modes; for tests."""
    counts = tuple(mode_count(n, on.centring, kind) for n in on.shape)
    variance = mode_deviation(on, counts, alpha=alpha, tau=tau, scale=scale, kind=kind) ** 2
    for axis, (x, y) in reversed(list(enumerate(zip(first, second, strict=True)))):
        low, high = on.box.lower[axis], on.box.upper[axis]
        pair = [_mode_values(counts[axis], (p - low) / (high - low), kind) for p in (x, y)]
        variance = variance @ (pair[0] * pair[1] / (high - low))
    return float(variance)


def _mode_values(count: int, place: float, kind: Kind) -> np.ndarray:
    """The modes of the unit interval at one place."""
    k = np.arange(count)
    values: np.ndarray
    if kind == "neumann":
        values = np.where(k > 0, math.sqrt(2.0), 1.0) * np.cos(math.pi * k * place)
    elif kind == "dirichlet":
        values = math.sqrt(2.0) * np.sin(math.pi * k * place)
    else:
        angle = 2 * math.pi * ((k + 1) // 2) * place
        wave = np.where(k % 2 == 1, np.cos(angle), np.sin(angle))
        values = np.where(k > 0, math.sqrt(2.0) * wave, 1.0)
    return values
