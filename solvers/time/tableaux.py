"""Runge-Kutta methods as tables of numbers.

    Y_i = y + h sum_j a_ij f(t + c_j h, Y_j),      y_new = y + h sum_i b_i f(t + c_i h, Y_i),

and the estimate of the local error h sum_i d_i f_i, d = b - b^ with the weights b^ of the embedded
method. An additive method has a second, explicit table for the part of f that is not stiff.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Tableau:
    """One method: ``rows`` of A, weights ``b``, ``d`` = b - b^; ``order`` and that of b^.

    ``first_same_as_last``: the last stage is taken at y_new itself. An explicit method has zeros on
    the diagonal; the implicit ones here have an explicit first stage and one ``gamma`` after it.
    ``explicit_rows``: the second table of an additive method.
    """

    name: str
    rows: Rows
    b: tuple[float, ...]
    d: tuple[float, ...]
    order: int
    embedded: int
    explicit_rows: Rows = ()

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return len(self.b)

    @property
    def gamma(self) -> float:
        """The diagonal entry of the implicit stages."""
        return self.rows[-1][-1]

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage's derivative serves as the next step's first."""
        last = self.rows[-1]
        return tuple(last) == self.b[: len(last)] and not any(self.b[len(last) :])

    @cached_property
    def c(self) -> tuple[float, ...]:
        """The instants of the stages as fractions of the step."""
        return tuple(sum(row) for row in self.rows)

    @cached_property
    def matrix(self) -> np.ndarray:
        """A as a full matrix."""
        return _square(self.rows, self.stages)

    @cached_property
    def weights(self) -> tuple[torch.Tensor, ...]:
        """The rows of A as tensors, each as long as the stages before it."""
        return tuple(
            torch.tensor(row[:i], dtype=torch.float64) for i, row in enumerate(self.matrix)
        )

    @cached_property
    def explicit_weights(self) -> tuple[torch.Tensor, ...]:
        """The same of the explicit table."""
        full = _square(self.explicit_rows, self.stages)
        return tuple(torch.tensor(row[:i], dtype=torch.float64) for i, row in enumerate(full))

    @cached_property
    def final(self) -> torch.Tensor:
        """b as a tensor."""
        return torch.tensor(self.b, dtype=torch.float64)

    @cached_property
    def estimate(self) -> torch.Tensor:
        """d as a tensor."""
        return torch.tensor(self.d, dtype=torch.float64)

    @cached_property
    def stability(self) -> np.ndarray:
        """Of an explicit method the polynomial R(z) with y_new = R(h lambda) y, lowest first."""
        powers, vector = [1.0], np.ones(self.stages)
        for _ in range(self.stages):
            powers.append(float(np.dot(self.b, vector)))
            vector = self.matrix @ vector
        return np.array(powers)


def _square(rows: Rows, stages: int) -> np.ndarray:
    full = np.zeros((stages, stages))
    for i, row in enumerate(rows):
        full[i, : len(row)] = row
    return full


def _minus(b: tuple[float, ...], embedded: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(p - q for p, q in zip(b, embedded, strict=True))


# Dormand and Prince (1980), 5(4).
_DP_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
DORMAND_PRINCE = Tableau(
    "Dormand-Prince 5(4)",
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _DP_B[:-1],
    ),
    _DP_B,
    _minus(
        _DP_B, (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
    ),
    5,
    4,
)

# Bogacki and Shampine (1989), 3(2).
_BS_B = (2 / 9, 1 / 3, 4 / 9, 0.0)
BOGACKI_SHAMPINE = Tableau(
    "Bogacki-Shampine 3(2)",
    ((), (1 / 2,), (0.0, 3 / 4), _BS_B[:-1]),
    _BS_B,
    _minus(_BS_B, (7 / 24, 1 / 4, 1 / 3, 1 / 8)),
    3,
    2,
)

# Kutta (1901). The estimate h (k_4 - k_5) / 6 compares with a third-order method that has its last
# stage at y_new: sums of b, b c, b c^2 and b A c are the same for both.
_RK4_B = (1 / 6, 1 / 3, 1 / 3, 1 / 6, 0.0)
CLASSICAL = Tableau(
    "classical Runge-Kutta 4(3)",
    ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0), _RK4_B[:-1]),
    _RK4_B,
    (0.0, 0.0, 0.0, 1 / 6, -1 / 6),
    4,
    3,
)

# Shu and Osher (1988): strong-stability-preserving, with Heun's method inside.
STRONG_STABILITY = Tableau(
    "SSP Runge-Kutta 3(2)",
    ((), (1.0,), (1 / 4, 1 / 4)),
    (1 / 6, 1 / 6, 2 / 3),
    (1 / 6 - 1 / 2, 1 / 6 - 1 / 2, 2 / 3),
    3,
    2,
)

# Kennedy and Carpenter (2003): ARK3(2)4L[2]SA and ARK4(3)6L[2]SA. L-stable and stiffly accurate in
# the implicit table, both stages of order two, so that stiff sources and boundary data cost little.
_G3 = 1767732205903 / 4055673282236
_ARK3_B = (
    1471266399579 / 7840856788654,
    -4482444167858 / 7529755066697,
    11266239266428 / 11593286722821,
    _G3,
)
ARK3 = Tableau(
    "ARK3(2)4L[2]SA",
    (
        (0.0,),
        (_G3, _G3),
        (2746238789719 / 10658868560708, -640167445237 / 6845629431997, _G3),
        _ARK3_B,
    ),
    _ARK3_B,
    _minus(
        _ARK3_B,
        (
            2756255671327 / 12835298489170,
            -10771552573575 / 22201958757719,
            9247589265047 / 10645013368117,
            2193209047091 / 5459859503100,
        ),
    ),
    3,
    2,
    (
        (),
        (1767732205903 / 2027836641118,),
        (5535828885825 / 10492691773637, 788022342437 / 10882634858940),
        (
            6485989280629 / 16251701735622,
            -4246266847089 / 9704473918619,
            10755448449292 / 10357097424841,
        ),
    ),
)

_ARK4_B = (82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, 1 / 4)
ARK4 = Tableau(
    "ARK4(3)6L[2]SA",
    (
        (0.0,),
        (1 / 4, 1 / 4),
        (8611 / 62500, -1743 / 31250, 1 / 4),
        (5012029 / 34652500, -654441 / 2922500, 174375 / 388108, 1 / 4),
        (
            15267082809 / 155376265600,
            -71443401 / 120774400,
            730878875 / 902184768,
            2285395 / 8070912,
            1 / 4,
        ),
        _ARK4_B,
    ),
    _ARK4_B,
    _minus(
        _ARK4_B,
        (
            4586570599 / 29645900160,
            0.0,
            178811875 / 945068544,
            814220225 / 1159782912,
            -3700637 / 11593932,
            61727 / 225920,
        ),
    ),
    4,
    3,
    (
        (),
        (1 / 2,),
        (13861 / 62500, 6889 / 62500),
        (
            -116923316275 / 2393684061468,
            -2731218467317 / 15368042101831,
            9408046702089 / 11113171139209,
        ),
        (
            -451086348788 / 2902428689909,
            -2682348792572 / 7519795681897,
            12662868775082 / 11960479115383,
            3355817975965 / 11060851509271,
        ),
        (
            647845179188 / 3216320057751,
            73281519250 / 8382639484533,
            552539513391 / 3454668386233,
            3354512671639 / 8306763924573,
            4040 / 17871,
        ),
    ),
)
