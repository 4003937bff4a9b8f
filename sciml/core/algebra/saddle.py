"""What is known of a saddle point beside its entries.

    A = [F  B^T]      B F^-1 B^T  ~  S,
        [B  0  ]

F acts on fields such as the components of a velocity, B gives the rows of a multiplier, as a
pressure is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse


@dataclass(frozen=True)
class Schur:
    """Matrices between the multiplier's functions, that without an unknown first if there is one.

    ``mass``: with the density 1 / viscosity. ``carried``: -int p w . grad q with that density, w
    what carries the constrained fields, or None.
    """

    mass: scipy.sparse.csr_matrix
    carried: scipy.sparse.csr_matrix | None


@dataclass(frozen=True)
class Saddle:
    """How the unknowns (n,) of a saddle point fall apart, and what S is made of.

    ``field`` (n,): the number of each one's scalar field. ``multiplier``: that of the one whose
    equation does not name it; ``constrained``: of those that it names. ``weights`` (n,): the
    diagonal of their mass matrix of density 1; ``inertia()`` (n,): that of what stands before these
    fields themselves, or None where there is nothing. ``anchored``: whether one of the multiplier's
    functions has no unknown, its level being free. ``schur()``: the matrices. ``turned``: A^T is
    meant.
    """

    field: np.ndarray
    multiplier: int
    constrained: tuple[int, ...]
    weights: np.ndarray
    inertia: Callable[[], np.ndarray] | None
    anchored: bool
    schur: Callable[[], Schur]
    turned: bool = False

    def with_mass(self, diagonal: Callable[[], np.ndarray]) -> Saddle:
        """The same where a mass matrix of this diagonal (n,) is added to A."""
        before = self.inertia
        whole = diagonal if before is None else lambda: before() + diagonal()
        return replace(self, inertia=whole)

    def transpose(self) -> Saddle:
        """That of A^T."""
        return replace(self, turned=not self.turned)
