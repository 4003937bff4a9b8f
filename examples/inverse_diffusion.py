"""Find the conductivity of a plate from noisy measurements at 200 points.

-div(K grad u) = f on the unit square, u = 0 around. Four heaters f are switched on in turn and the
temperature is read off at the same 200 points, with 1 % of noise. K = exp(m) is sought on the
whole grid: L-BFGS makes

    J(m) = sum (u_measured - u(m))^2 / (2 sigma^2) + (beta / 2) int |grad m|^2

small; the gradient with respect to all nodes of m costs one adjoint solve, whatever their number.

    python examples/inverse_diffusion.py            (a few seconds; writes inverse.png)
"""

from __future__ import annotations

import math

import torch

import sciml
from sciml.solvers import CG, Multigrid

N, POINTS, NOISE, BETA = 65, 200, 0.01, 4.0
DOMAIN = sciml.Box((0.0, 0.0), (1.0, 1.0))
ON = sciml.Grid((N, N), domain=DOMAIN)
WALLS = {side: sciml.Condition(dirichlet=0.0) for side in DOMAIN.sides}
SOLVER = CG(preconditioner=Multigrid(), rtol=1e-8)


def heaters() -> torch.Tensor:
    """One warm spot in each quarter, (4, N, N)."""
    x, y = ON.coordinates()
    centres = [(0.3, 0.3), (0.7, 0.3), (0.3, 0.7), (0.7, 0.7)]
    return torch.stack([torch.exp(-40 * ((x - a) ** 2 + (y - b) ** 2)) for a, b in centres])


def temperature(K: torch.Tensor) -> sciml.Solution:
    """The four answers to one conductivity."""
    problem = sciml.Problem(DOMAIN, sciml.Equation(K=K, f=heaters()), WALLS)
    return sciml.solve(problem, SOLVER, on=ON)


def roughness(m: torch.Tensor) -> torch.Tensor:
    """int |grad m|^2, in two dimensions independent of the spacing."""
    return m.diff(dim=0).square().sum() + m.diff(dim=1).square().sum()


def main() -> None:
    """Make the measurements, recover K, say how well, and draw it."""
    generator = torch.Generator().manual_seed(0)
    x, y = ON.coordinates()
    truth = torch.exp(torch.sin(2 * math.pi * x) * torch.sin(math.pi * y))
    points = torch.rand(POINTS, 2, generator=generator, dtype=torch.float64)
    exact = temperature(truth).sample(points)
    sigma = NOISE * float(exact.abs().max())
    measured = exact + sigma * torch.randn(exact.shape, generator=generator, dtype=torch.float64)

    m = torch.zeros(N, N, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([m], max_iter=60, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimiser.zero_grad()
        gap = temperature(m.exp()).sample(points) - measured
        loss = gap.square().sum() / (2 * sigma**2) + 0.5 * BETA * roughness(m)
        loss.backward()
        return loss

    optimiser.step(objective)
    found = m.detach().exp()
    misfit = (temperature(found).sample(points) - measured).square().mean().sqrt() / sigma
    error = (found - truth).norm() / truth.norm()
    print(f"misfit {float(misfit):.2f} sigma (1 is the noise itself)")
    print(
        f"relative L2 error of K: {float(error):.3f}; of K = 1: "
        f"{float((1 - truth).norm() / truth.norm()):.3f}"
    )
    draw(truth, found, points)


def draw(truth: torch.Tensor, found: torch.Tensor, points: torch.Tensor) -> None:
    """The true and the recovered conductivity side by side, with the points of measurement."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axes, field, title in zip(panels, (truth, found), ("true K", "recovered K"), strict=True):
        image = axes.imshow(
            field.T, origin="lower", extent=(0, 1, 0, 1), vmin=truth.min(), vmax=truth.max()
        )
        axes.set_title(title)
    panels[1].plot(*points.T, "w.", ms=3)
    figure.colorbar(image, ax=panels)
    figure.savefig("inverse.png", dpi=150)
    print("picture: inverse.png")


if __name__ == "__main__":
    main()
