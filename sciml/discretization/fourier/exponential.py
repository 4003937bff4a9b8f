"""Exponential time differencing Runge-Kutta of order 4 for U' = L U + N(U, t).

With E = exp(h L), E_2 = exp(h L / 2), P = (h / 2) phi_1(h L / 2), one step of length h is (Cox and
Matthews 2002, equations 26 to 29)

    a  = E_2 U + P N(U, t)
    b  = E_2 U + P N(a, t + h/2)
    c  = E_2 a + P (2 N(b, t + h/2) - N(U, t))
    U' = E U + h f_1 N(U, t) + h f_2 (N(a, t + h/2) + N(b, t + h/2)) + h f_3 N(c, t + h)

    f_1 = phi_1 - 3 phi_2 + 4 phi_3,  f_2 = 2 phi_2 - 4 phi_3,  f_3 = 4 phi_3 - phi_2  of h L

with phi_0 = exp and phi_k(z) = (phi_{k-1}(z) - 1/(k-1)!) / z. Near z = 0 that recursion cancels:
there the values are means over a circle about z (Kassam and Trefethen 2005, section 2), of radius
2 and only for |z| < 1, so that no point of a circle comes near 0.

L is diagonal (:class:`Diagonal`), or couples u and u_t by a 2 x 2 matrix per mode (:class:`Pair`).
"""

from __future__ import annotations

import cmath
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

Entire = Callable[[torch.Tensor], torch.Tensor]
Nonlinear = Callable[[torch.Tensor, float], torch.Tensor]
_CIRCLE = tuple(cmath.exp(2j * math.pi * (n + 0.5) / 32) for n in range(32))


def phi(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """phi_1, phi_2 and phi_3 of a complex tensor, to rounding."""
    near = z.abs() < 1
    found = _recursion(torch.where(near, torch.ones_like(z), z))
    if near.any():
        centre = z[near]
        means = [torch.zeros_like(centre) for _ in found]
        for point in _CIRCLE:
            for mean, value in zip(means, _recursion(centre + 2 * point), strict=True):
                mean += value / len(_CIRCLE)
        for whole, mean in zip(found, means, strict=True):
            whole[near] = mean
    return found


def _recursion(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    first = torch.expm1(z) / z
    second = (first - 1) / z
    return first, second, (second - 0.5) / z


def _first(z: torch.Tensor) -> torch.Tensor:
    return phi(z)[0]


def _weight_1(z: torch.Tensor) -> torch.Tensor:
    one, two, three = phi(z)
    return one - 3 * two + 4 * three


def _weight_2(z: torch.Tensor) -> torch.Tensor:
    _, two, three = phi(z)
    return 2 * two - 4 * three


def _weight_3(z: torch.Tensor) -> torch.Tensor:
    _, two, three = phi(z)
    return 4 * three - two


class Function(ABC):
    """f(h L) for one f and one h."""

    @abstractmethod
    def apply(self, U: torch.Tensor) -> torch.Tensor:
        """f(h L) U."""

    @abstractmethod
    def add(self, V: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """V + f(h L) U."""


class Linear(ABC):
    """The linear part L of an evolution: what is needed of it are functions of h L."""

    @abstractmethod
    def function(self, f: Entire, h: float, factor: float = 1.0) -> Function:
        """factor f(h L) for an entire function f."""

    @property
    @abstractmethod
    def growth(self) -> torch.Tensor:
        """The largest real part of the eigenvalues of L, (..., *modes)."""

    @abstractmethod
    def batch(self, dimension: int) -> tuple[int, ...]:
        """Its batch, for modes of so many dimensions."""


@dataclass(frozen=True)
class _Product(Function):
    """A multiplier per mode, (*batch, fields, *modes)."""

    multiplier: torch.Tensor

    def apply(self, U: torch.Tensor) -> torch.Tensor:
        return self.multiplier * U

    def add(self, V: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(V, self.multiplier, U)


@dataclass(frozen=True)
class _Matrix(Function):
    """A 2 x 2 matrix per mode by its columns, each (*batch, 2, *modes); ``field``: their axis."""

    left: torch.Tensor
    right: torch.Tensor
    field: int

    def apply(self, U: torch.Tensor) -> torch.Tensor:
        u, ut = U.split(1, dim=self.field)
        return torch.addcmul(self.left * u, self.right, ut)

    def add(self, V: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        u, ut = U.split(1, dim=self.field)
        return torch.addcmul(torch.addcmul(V, self.left, u), self.right, ut)


@dataclass(frozen=True)
class Diagonal(Linear):
    """L = ``symbol``, complex, of a shape that broadcasts to (*batch, fields, *modes)."""

    symbol: torch.Tensor

    def function(self, f: Entire, h: float, factor: float = 1.0) -> Function:
        """A product per mode."""
        return _Product(factor * f(h * self.symbol))

    @property
    def growth(self) -> torch.Tensor:
        """Re L."""
        return self.symbol.real

    def batch(self, dimension: int) -> tuple[int, ...]:
        """What precedes (fields, *modes)."""
        return tuple(self.symbol.shape[: -dimension - 1])


@dataclass(frozen=True)
class Pair(Linear):
    """L = [[0, 1], [``stiffness``, -``damping``]] on the fields (u, u_t), per mode.

    Both complex, of shapes that broadcast to (*batch, *modes); ``dimension`` of them are modes.
    With z_1, z_2 the eigenvalues of h L, f(h L) = f(z_1) + f[z_1, z_2] (h L - z_1) (Newton's form),
    the divided difference a mean over a circle about both where they are near to one another.
    """

    stiffness: torch.Tensor
    damping: torch.Tensor
    dimension: int

    def function(self, f: Entire, h: float, factor: float = 1.0) -> Function:
        """A 2 x 2 matrix per mode."""
        centre, radius = self._eigenvalues(h)
        low = centre - radius
        slope = factor * _divided_difference(f, centre, radius)
        value = factor * f(low)
        first = (value - slope * low, slope * h)
        second = (slope * h * self.stiffness, value - slope * (h * self.damping + low))
        field = -self.dimension - 1
        left, right = (torch.stack(rows, dim=field) for rows in zip(first, second, strict=True))
        return _Matrix(left, right, field)

    @property
    def growth(self) -> torch.Tensor:
        """The larger real part of the two eigenvalues."""
        centre, radius = self._eigenvalues(1.0)
        return torch.maximum((centre + radius).real, (centre - radius).real)

    def batch(self, dimension: int) -> tuple[int, ...]:
        """What precedes the modes."""
        shape = torch.broadcast_shapes(self.stiffness.shape, self.damping.shape)
        return tuple(shape[:-dimension])

    def _eigenvalues(self, h: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of h L as centre - radius and centre + radius."""
        centre = -0.5 * h * self.damping
        return centre, torch.sqrt(centre.square() + h * h * self.stiffness)


def _divided_difference(f: Entire, centre: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """(f(c + r) - f(c - r)) / 2 r, and its limit f'(c) for r -> 0."""
    centre, radius = torch.broadcast_tensors(centre, radius)
    near = radius.abs() < 0.5
    safe = torch.where(near, torch.ones_like(radius), radius)
    slope = (f(centre + safe) - f(centre - safe)) / (2 * safe)
    if near.any():
        c, r = centre[near], radius[near]
        mean = torch.zeros_like(c)
        for point in _CIRCLE:
            mean += f(c + 2 * point) * (2 * point / len(_CIRCLE)) / (4 * point * point - r * r)
        slope[near] = mean
    return slope


@dataclass(frozen=True)
class Stepper:
    """One step of length h, its coefficients computed once."""

    h: float
    nonlinear: Nonlinear | None
    whole: Function
    half: Function
    inner: Function
    weights: tuple[Function, Function, Function]

    def step(self, U: torch.Tensor, t: float) -> torch.Tensor:
        """U(t + h) from U(t), coefficients (*batch, fields, *modes)."""
        if self.nonlinear is None:
            return self.whole.apply(U)
        N, h, kept = self.nonlinear, self.h, self.half.apply(U)
        at_start = N(U, t)
        a = self.inner.add(kept, at_start)
        at_a = N(a, t + h / 2)
        at_b = N(self.inner.add(kept, at_a), t + h / 2)
        c = self.inner.add(self.half.apply(a), 2 * at_b - at_start)
        first, middle, last = self.weights
        U = first.add(self.whole.apply(U), at_start)
        return last.add(middle.add(U, at_a + at_b), N(c, t + h))


def stepper(linear: Linear, nonlinear: Nonlinear | None, h: float) -> Stepper:
    """The step of length h for U' = L U + N(U, t)."""
    return Stepper(
        h,
        nonlinear,
        whole=linear.function(torch.exp, h),
        half=linear.function(torch.exp, h / 2),
        inner=linear.function(_first, h / 2, h / 2),
        weights=(
            linear.function(_weight_1, h, h),
            linear.function(_weight_2, h, h),
            linear.function(_weight_3, h, h),
        ),
    )
