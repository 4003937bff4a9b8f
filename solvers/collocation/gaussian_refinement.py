"""Gaussians dropped where they count for nothing, and added where the residual is largest.

Those whose weighted rms over the box is below a share of the largest are left out. New ones go to
the largest residuals among many points, one at a time, each keeping others out of its surroundings;
a new one is a copy of the widest-reaching Gaussian there, moved, narrower, of weight zero: the
answer is the same until the next step gives it a weight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from sciml.solvers.collocation.gaussian_layer import GaussianNetwork
from sciml.solvers.collocation.objective import Objective
from sciml.solvers.collocation.sampling import sobol

_CANDIDATES = 20  # points per Gaussian
_NARROWER = 0.7
_APART = 0.7  # distance that a new Gaussian keeps from the next, in its parent's widths


def refined(objective: Objective, drop: float, grow: float, full: bool) -> GaussianNetwork:
    """The objective's network with Gaussians dropped and a share ``grow`` added."""
    network = cast(GaussianNetwork, objective.ansatz.network)
    piece = objective.pieces[0]
    count = max(2000, _CANDIDATES * len(network.bank.means))
    points = piece.place(sobol(count, piece.free, torch.Generator().manual_seed(count)))
    network = pruned(network, points, drop)
    with torch.no_grad():
        residual = objective.pointwise(points)
    network = grown(network, points, residual, round(grow * len(network.bank.means)))
    if full and network.bank.shear is None:
        network = network.replaced(network.bank.shape.sheared(), network.channels.weight.detach())
    return network


@torch.no_grad()
def contribution(network: GaussianNetwork, points: Tensor) -> Tensor:
    """rms of every weighted Gaussian over the points (N, D), (G,)."""
    g = network.bank.evaluate(points, ())[0]
    return network.channels.weight.detach().abs() * g.square().mean(0).sqrt()


def pruned(network: GaussianNetwork, points: Tensor, drop: float) -> GaussianNetwork:
    """Without the Gaussians whose contribution is at most ``drop`` of the largest."""
    size = contribution(network, points)
    keep = size > drop * size.max()
    weights = network.channels.weight.detach()
    return network.replaced(network.bank.shape.select(keep), weights[keep])


@torch.no_grad()
def grown(
    network: GaussianNetwork, points: Tensor, residual: Tensor, count: int
) -> GaussianNetwork:
    """With ``count`` more of weight zero at the largest of the residuals (N,)."""
    shape, weights = network.bank.shape, network.channels.weight.detach()
    parents = network.bank.evaluate(points, ())[0].argmax(1)
    left, chosen = residual.clone(), []
    for _ in range(count):
        k = int(left.argmax())
        if float(left[k]) <= 0:
            break
        chosen.append(k)
        gap = (points - points[k]) * shape.sharpness[parents[k]].exp()
        left[gap.square().sum(1) < _APART**2] = 0.0
    if not chosen:
        return network
    rows = torch.tensor(chosen)
    parent = shape.select(parents[rows])
    # A channel gets its share in turn, whichever the parent's is.
    channel = torch.arange(len(rows)) % network.members
    new = replace(
        parent, means=points[rows], sharpness=parent.sharpness - torch.tensor(_NARROWER).log(),
        channel=channel,
    )  # fmt: skip
    return network.replaced(shape.joined(new), torch.cat([weights, weights.new_zeros(len(rows))]))
