"""The problems that an operator's inputs state, and the discrete residual of its predictions.

For the system ``A u = b`` that the discretisation makes of the inputs x of one sample,

    r(p) = sqrt( |b - A p|^2 + sum_k (a (p_k - g_k))^2 ) / |b|,

where the second sum goes over the points that are no unknowns, since the boundary conditions give
their values g_k; a, the mean of A's diagonal, scales their rows. Where the prediction has these
values, this is the relative residual of the solvers.

It measures the distance to the discrete solution on the prediction's own grid, so that the truth
of a finer grid has a residual of its own, the error of the discretisation. Inputs are used as they
are stored, in float32: for a solution stored so the residual is of the order of 1e-7 |A| |u| / |b|,
which grows like h^-2. As a loss it learns an equation without its solutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sciml.core.algebra.maps import LinearSystem
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.datasets.distributions import SCALARS
from sciml.datasets.family import Family
from sciml.discretization import discretize
from sciml.operators.operator import Signature
from sciml.solvers.linear.iteration import norm

_KEY = "training.loss"


def problems_of(family: Family, signature: Signature) -> Callable[[Tensor], Problem]:
    """``problems(x (B, C_in, *grid))``: the batch with these inputs in place of what is random.

    Raises InputError where x does not say all of a steady linear problem with one real unknown u.
    """
    _check(family, signature)
    if family.problem.obstacle is not None:
        raise InputError("the samples have obstacles, each its own domain")
    if signature.outputs != ("u",):
        raise InputError(f"u alone must be the output; got {', '.join(signature.outputs)}")
    return lambda x: family.problems(_drawn(family, signature, x))


def residual_of(family: Family, signature: Signature) -> Callable[[Tensor, Tensor], Tensor]:
    """``residual(prediction (B, C_out, *grid), x (B, C_in, *grid))`` -> (B,), float64.

    Differentiable in the prediction, on its device, on a grid of any resolution. Raises InputError
    for a problem that is not steady and linear, and for channels that are not all of its random
    inputs or not its unknown.
    """
    try:
        _check(family, signature)
    except InputError as error:
        raise InputError(f"no residual loss: {error.message}", _KEY) from None

    def residual(prediction: Tensor, x: Tensor) -> Tensor:
        u = _field(prediction)
        grid = Grid(tuple(u.shape[1:]), signature.grid.centring, signature.grid.domain)
        drawn = _drawn(family, signature, x)
        if family.problem.obstacle is None:
            return _relative(_system(family, drawn, grid, u), u)
        # Every sample has a domain of its own.
        samples = [{place: value[k] for place, value in drawn.items()} for k in range(len(u))]
        parts = [_relative(_system(family, s, grid, u), v) for s, v in zip(samples, u, strict=True)]
        return torch.stack(parts)

    return residual


def _check(family: Family, signature: Signature) -> None:
    """Raise InputError unless the inputs say all of a steady linear problem for the outputs."""
    if not family.problem.linear:
        raise InputError("the problem is not steady and linear")
    missing = [name for name, place in family.inputs.items() if name not in signature.inputs]
    missing += [place for place in family.places if place not in family.inputs.values()]
    if missing:
        raise InputError(f"the inputs lack {', '.join(missing)}, which is random")
    unknown = [name for name in signature.inputs if name not in family.inputs]
    if unknown:
        raise InputError(f"the input '{unknown[0]}' has no place in the equation")
    if signature.outputs not in (("u",), ("u_real", "u_imag")):
        raise InputError(f"u alone must be the output; got {', '.join(signature.outputs)}")


def _field(prediction: Tensor) -> Tensor:
    """u (B, *grid) in float64; complex of two channels."""
    parts = prediction.double().unbind(1)
    return torch.complex(*parts) if len(parts) == 2 else parts[0]


def _drawn(family: Family, signature: Signature, x: Tensor) -> Mapping[str, Tensor]:
    """The random inputs by place: (B, *grid), a number (B,)."""
    drawn = {}
    for name, channel in zip(signature.inputs, x.detach().double().unbind(1), strict=True):
        place = family.inputs[name]
        number = isinstance(family.places[place], SCALARS)
        drawn[place] = channel.flatten(1)[:, 0] if number else channel
    return drawn


def _system(family: Family, drawn: Mapping[str, Tensor], grid: Grid, u: Tensor) -> LinearSystem:
    with torch.no_grad():
        return discretize(family.problems(drawn), grid, device=u.device)


def _relative(system: LinearSystem, u: Tensor) -> Tensor:
    """The residual of u (*batch, *grid), (*batch,)."""
    d = len(system.A.shape)
    with torch.no_grad():
        scale = system.A.diagonal().abs().flatten(-d).mean(-1)[(..., *(None,) * d)]
        size = norm(system.b, d)
    x = system.restrict(u)
    known, unknowns = system.lift(x), system.b - system.A.apply(x)
    # Inside an obstacle there is no value, and on the unknowns the difference is zero.
    values = torch.where(known.isfinite(), scale * (u - known), 0.0)
    parts = [unknowns.flatten(-d), values.flatten(-d)]
    return norm(torch.cat(parts, -1), 1) / torch.where(size > 0, size, 1.0)
