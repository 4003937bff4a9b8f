# %% [markdown]
# # 5. An inverse problem, by a gradient through the solver
#
# How well does a plate conduct heat, and where? Four heaters are switched on in turn; the
# temperature is read at 200 points, with noise. Wanted: the conductivity $K$ at every point of a
# 65 x 65 grid, 4225 unknowns. With $K = e^m$, minimise
#
# $$J(m) = \frac{1}{2 \sigma^2} \sum (u(m) - d)^2 + \frac{\beta}{2} \int |\nabla m|^2$$
#
# with the measurements $d$ and the size $\sigma$ of their noise. The second term prefers a smooth
# $K$.

# %%
import math

import matplotlib.pyplot as plt
import torch

import sciml
from sciml.solvers import CG, Multigrid

# %% [markdown]
# ## The measurements
#
# They are made up here, from a conductivity that the inversion does not get to see. Four heaters
# are four right-hand sides: a batch, solved at once.

# %%
box = sciml.Box((0.0, 0.0), (1.0, 1.0))
grid = sciml.Grid((65, 65), domain=box)
x, y = grid.coordinates()
centres = [(0.3, 0.3), (0.7, 0.3), (0.3, 0.7), (0.7, 0.7)]
heaters = torch.stack([torch.exp(-40 * ((x - a) ** 2 + (y - b) ** 2)) for a, b in centres])
solver = CG(preconditioner=Multigrid(), rtol=1e-8)


def temperature(K):
    equation = sciml.Equation(K=K, f=heaters)
    problem = sciml.Problem(box, equation, {"all": sciml.Condition(dirichlet=0.0)})
    return sciml.solve(problem, solver, on=grid)


generator = torch.Generator().manual_seed(0)
truth = torch.exp(torch.sin(2 * math.pi * x) * torch.sin(math.pi * y))
points = torch.rand(200, 2, generator=generator, dtype=torch.float64)
exact = temperature(truth).sample(points)
sigma = 0.01 * float(exact.max())
measured = exact + sigma * torch.randn(exact.shape, generator=generator, dtype=torch.float64)
measured.shape

# %% [markdown]
# ## The gradient
#
# `solve` is a function that torch can differentiate. The gradient with respect to all 4225 values
# costs one more solve, with the adjoint system, however many unknowns there are. As a check: along
# a random direction it agrees with a difference quotient.


# %%
def objective(m):
    gap = temperature(m.exp()).sample(points) - measured
    rough = m.diff(dim=0).square().sum() + m.diff(dim=1).square().sum()
    return gap.square().sum() / (2 * sigma**2) + 2.0 * rough


m = torch.zeros(65, 65, dtype=torch.float64, requires_grad=True)
objective(m).backward()
direction = torch.randn(m.shape, generator=generator, dtype=torch.float64)
with torch.no_grad():
    quotient = (objective(m + 1e-5 * direction) - objective(m - 1e-5 * direction)) / 2e-5
print(f"gradient {(m.grad * direction).sum():.5f}, difference quotient {quotient:.5f}")

# %% [markdown]
# ## The inversion
#
# Torch's own L-BFGS minimises $J$, from $K = 1$ everywhere.

# %%
optimiser = torch.optim.LBFGS([m], max_iter=40, line_search_fn="strong_wolfe")
values = []


def closure():
    optimiser.zero_grad()
    value = objective(m)
    value.backward()
    values.append(float(value.detach()))
    return value


optimiser.step(closure)
found = m.detach().exp()
misfit = (temperature(found).sample(points) - measured).square().mean().sqrt() / sigma
error = (found - truth).norm() / truth.norm()
print(f"J fell from {values[0]:.0f} to {values[-1]:.0f} in {len(values)} evaluations")
print(f"misfit {misfit:.2f} times the noise, relative error of K {error:.3f}")

# %% [markdown]
# A misfit of one means that the measurements are met as well as their noise allows: more would be
# fitting noise. What error of $K$ is left is what 200 noisy points do not tell.
#
# The picture: the truth, what was found, and how $J$ fell.

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for axes, field, title in zip(panels, (truth, found), ("true K", "K from 200 noisy temperatures")):
    image = axes.imshow(
        field.T, origin="lower", extent=(0, 1, 0, 1), vmin=truth.min(), vmax=truth.max()
    )
    axes.set_title(title)
panels[1].plot(*points.T, "w.", ms=2)
figure.colorbar(image, ax=panels[:2])
panels[2].semilogy(values)
panels[2].axhline(measured.numel() / 2, color="grey", ls="--", lw=0.8, label="the noise alone")
panels[2].set(xlabel="evaluation", title="J")
panels[2].legend()
plt.show()
