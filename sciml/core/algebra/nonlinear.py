"""What discretisation leaves of a nonlinear or time-dependent problem: a system of ODEs.

    inertia u'' + mass u' + F(u, t) = 0,

F the residual integrated over the control volumes, or tested with the elements' basis functions;
``mass`` and ``inertia`` diagonal (the coefficients d and m times the volumes), or sparse matrices.
A steady problem has neither. Solvers of nonlinear equations and integrators in time see only this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh

# A function of the unknowns (*batch, *shape) and the time.
Residual = Callable[[torch.Tensor, float], torch.Tensor]
# What stands before u' or u'': a diagonal, or a matrix.
Inertia = torch.Tensor | LinearMap


def times(mass: Inertia, u: torch.Tensor) -> torch.Tensor:
    """What stands before u', times u (*batch, *shape)."""
    return mass * u if isinstance(mass, torch.Tensor) else mass.apply(u)


@dataclass(frozen=True)
class Storage:
    """What stands before u' where it depends on u, as a heat capacity does: M(u) u'.

    ``matrix(u, t)``: M. ``apply(u, rate, t)``: M(u) u', with what given values that move add.
    ``slope(u, rate, t)``: its derivative by u.
    """

    matrix: Callable[[torch.Tensor, float], LinearMap]
    apply: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    slope: Callable[[torch.Tensor, torch.Tensor, float], LinearMap]


class Moment(float):
    """An instant, and what a body remembers then: internal variables (*batch, k, Q, c).

    Whatever is asked at a time, F(u, t) or a stress, is asked of the body as it is then.
    """

    history: torch.Tensor

    def __new__(cls, t: float, history: torch.Tensor) -> Moment:
        """At t, with what is remembered."""
        made = super().__new__(cls, t)
        made.history = history
        return made


def remembered(t: float) -> torch.Tensor | None:
    """What a body remembers at an instant; None where nothing is known of that."""
    return t.history if isinstance(t, Moment) else None


@dataclass(frozen=True)
class History:
    """Of a body that remembers its loads: its states are x = (u, h), one vector.

    h are internal variables at quadrature points, (*batch, *``shape``), u (*batch, n) the unknowns
    of ``plain``, whose F(u, t) at a :class:`Moment` is that after a step to u from what was
    remembered, and at a bare t that of a body which is elastic. ``advance(u, t, v, s, h, pieces)``:
    what is remembered after the way from u at t to v at s, h before, taken in so many steps.
    ``forces(u, t)``: ||int F . grad phi|| over all nodes, (*batch), beside which F is small;
    ``strain(u, t)``: the strains (*batch, k, Q, n), beside which errors of h are.
    """

    plain: NonlinearSystem
    shape: tuple[int, ...]
    advance: Callable[[torch.Tensor, float, torch.Tensor, float, torch.Tensor, int], torch.Tensor]
    forces: Callable[[torch.Tensor, float], torch.Tensor]
    strain: Callable[[torch.Tensor, float], torch.Tensor]

    def parted(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """u and h of states x."""
        sizes = [x.shape[-1] - math.prod(self.shape), math.prod(self.shape)]
        u, h = x.split(sizes, -1)
        return u, h.unflatten(-1, self.shape)

    def joined(self, u: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """x of u and h."""
        h = h.flatten(-len(self.shape))
        lead = torch.broadcast_shapes(u.shape[:-1], h.shape[:-1])
        return torch.cat([u.expand(*lead, -1), h.expand(*lead, -1)], -1)


@dataclass(frozen=True)
class Inequality:
    """What a residual Phi is made of: ``free``, F(u) without bounds, between two of these.

    ``lower``, ``upper``: (*batch, *shape), infinite where there is none. ``weights`` (*shape): c.
    See :func:`sciml.core.algebra.inequality.between`.
    """

    free: NonlinearSystem
    lower: torch.Tensor
    upper: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class NonlinearSystem:
    """``inertia u'' + mass u' + F(u, t) = 0`` on the unknowns of a grid or a mesh, float64.

    ``residual(u, t)``: F for u of shape (*batch, *shape), differentiable in torch. ``linearise(u,
    t)``: dF/du there, a Stencil on grids. ``diffusion(u, t)``: a symmetric definite map near it,
    the linearised diffusion, for multigrid. ``mass``, ``inertia``: what stands before u' and u'',
    of a shape that broadcasts to (*batch, *shape), or a symmetric matrix, or None. ``storage``: the
    first of these where it depends on u; ``mass`` is then that at the start. ``first``: u,
    and u' where there is inertia, at ``start``. ``potential(u, t)``: the energy per sample whose
    gradient F is, or None. ``level``: where F does not change with the mean of u, which is held at
    zero, the weights of that mean, ``shape``; F itself sums to zero, and dF/du is ``linearise`` on
    arrays of zero mean (constants need not be in its kernel). None elsewhere.
    ``affine``: F is affine in u; ``steady``: dF/du does not depend on t. ``lift(u, t)`` gives the
    value on the whole grid, ``restrict`` the unknowns of a value. ``remarks(u, t)``: one-line notes
    on the scheme at a state, such as where it is upwind. ``outside()``: the ranges of the tables
    that were looked up outside these so far. ``guess``: a linear problem on the same
    unknowns whose solution is a better start than zero, or None. ``freezes``: whether ``diffusion``
    is K as it is at u, with which Picard's iteration goes. ``fields``: their names; of
    several, the last batch dimension runs over them, but where the system is ``joint``: then one
    vector holds the unknowns of all, ``groups`` (n,) the number of each one's equation, or -1 where
    nothing stands before its u'. ``measure``: as of a ``LinearSystem``. ``inequality``: what F is
    made of where bounds hold u. ``history``: of a body that remembers its loads, u being then its
    whole state. ``scale(u, t)``: what ||F|| is small beside, (*batch), where that is not the
    right-hand side of the linear problem frozen at u.
    """

    residual: Residual
    linearise: Callable[[torch.Tensor, float], LinearMap]
    diffusion: Callable[[torch.Tensor, float], LinearMap]
    shape: tuple[int, ...]
    batch: tuple[int, ...]
    on: Grid | Mesh
    lift: Callable[[torch.Tensor, float], torch.Tensor]
    restrict: Callable[[torch.Tensor], torch.Tensor]
    first: tuple[torch.Tensor, ...] = ()
    mass: Inertia | None = None
    inertia: Inertia | None = None
    storage: Storage | None = None
    potential: Residual | None = None
    level: torch.Tensor | None = None
    affine: bool = False
    steady: bool = True
    symmetric: bool = False
    notes: tuple[str, ...] = ()
    remarks: Callable[[torch.Tensor, float], tuple[str, ...]] = lambda u, t: ()
    outside: Callable[[], tuple[str, ...]] = lambda: ()
    guess: LinearSystem | None = None
    freezes: bool = False
    fields: tuple[str, ...] = ("u",)
    joint: bool = False
    groups: torch.Tensor | None = None
    measure: torch.Tensor | None = None
    inequality: Inequality | None = None
    history: History | None = None
    scale: Residual | None = None

    def moment(self, u: torch.Tensor, t: float) -> float:
        """The instant t of a state, with what it remembers."""
        return t if self.history is None else Moment(t, self.history.parted(u)[1])

    @property
    def by_field(self) -> bool:
        """Whether the last batch dimension runs over fields."""
        return len(self.fields) > 1 and not self.joint

    def stencil(self, u: torch.Tensor, t: float) -> Stencil:
        """dF/du at u, without a graph, of a system on a grid."""
        J = self.linearise(u, t)
        assert isinstance(J, Stencil)
        return J.detach()
