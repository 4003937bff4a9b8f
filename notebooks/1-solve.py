# %% [markdown]
# # 1. Solve, from YAML and from Python
#
# A problem is stated once. One verb, `sciml.solve`, answers it, and says why it stopped and how
# large the true residual is.
#
# The problem of this page: water seeps through sand, around lenses of clay that let ten thousand
# times less of it through. With the permeability $K$ and the pressure $p$,
#
# $$-\nabla \cdot (K \nabla p) = f$$

# %%
import matplotlib.pyplot as plt
import torch

import sciml
from sciml.solvers import CG, Jacobi, Multigrid

# %% [markdown]
# ## From YAML
#
# A spec is a file with a problem, a grid and a solver. This one is in the repository; in a
# terminal, `sciml solve configs/darcy.yaml` solves it and writes pictures, data and a report.

# %%
spec = sciml.load_spec("../configs/darcy.yaml")
print(spec.text)

# %% [markdown]
# What was read are ordinary objects. `spec.problem` knows nothing of grids, `spec.on` is the grid,
# `spec.solver` holds the solver's options. A solution shows itself in one line.

# %%
solution = sciml.solve(spec.problem, spec.solver, on=spec.on)
solution

# %% [markdown]
# The residual is not the solver's own account: it is computed anew from the answer, in float64.
# The status is a sentence.

# %%
print(solution.status)

# %% [markdown]
# A small residual is not yet a small error. The certificate bounds the error itself from both
# sides, in the energy norm, for any field on the grid, whoever made it.

# %%
print(sciml.certify(solution, spec.problem, spec.on))

# %% [markdown]
# ## When it does not converge
#
# Conjugate gradients with the diagonal as preconditioner have a hard time with these jumps. With
# `throw=False` a failure is an answer like any other, with advice; without it, an exception.

# %%
slow = CG(preconditioner=Jacobi(), rtol=1e-8, max_iterations=300)
unfinished = sciml.solve(spec.problem, slow, on=spec.on, throw=False)
print(unfinished)
print(unfinished.status)

# %% [markdown]
# The history of residuals comes with every solution.

# %%
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.semilogy(unfinished.stats.residuals, label="CG, diagonal")
axes.semilogy(solution.stats.residuals, "o-", label="CG, multigrid")
axes.axhline(1e-8, color="grey", ls="--", lw=0.8, label="tolerance")
axes.set(xlabel="iteration", ylabel="relative residual")
axes.legend()
plt.show()

# %% [markdown]
# ## From Python
#
# The same problem as objects. A coefficient may be a number, an expression, a function of the
# coordinates or, as here, a tensor of values on the grid. Leading dimensions make a batch: three
# problems, from no clay at all to the clay of the file, answered by one call.

# %%
domain = sciml.Box((0.0, 0.0), (1.0, 1.0))
grid = sciml.Grid((128, 128), centring="cell", domain=domain)
x, y = grid.coordinates()
lenses = [
    (0.125, 0.75, 0.125, 0.25), (0.25, 0.875, 0.375, 0.5),
    (0.125, 0.5, 0.625, 0.75), (0.625, 0.875, 0.625, 0.875),
]  # fmt: skip
inside = torch.stack([(x > a) & (x < b) & (y > c) & (y < d) for a, b, c, d in lenses]).any(0)
clay = torch.tensor([1.0, 0.05, 1e-4], dtype=torch.float64)
K = torch.where(inside, clay[:, None, None], 1.0)

problem = sciml.Problem(
    domain,
    sciml.Equation(K=K, f=0.0),
    boundary={
        "left": sciml.Condition(dirichlet=1.0),
        "right": sciml.Condition(dirichlet=0.0),
        "bottom": sciml.Condition(neumann=0.0),
        "top": sciml.Condition(neumann=0.0),
    },
)
batch = sciml.solve(problem, CG(preconditioner=Multigrid(), rtol=1e-8), on=grid)
batch

# %% [markdown]
# What goes in on the left is the flow $K \partial p / \partial n$ over that side, half a cell away
# from the centres of the first cells.

# %%
(h, _) = grid.spacing
inflow = ((1 - batch.value[:, 0]) / (h / 2)).sum(-1) * h
for permeability, flow in zip(clay.tolist(), inflow.tolist()):
    print(f"permeability {permeability:g} in the lenses: flow {flow:.3f}")

# %% [markdown]
# The picture: pressure in colour, and the way that the water takes, with thick lines where it is
# fast. Without lenses it goes straight; some of it crosses the lenses of the second column; around
# clay all of it has to wind.

# %%
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.4), sharey=True, layout="constrained")
first, second = (axis.numpy() for axis in grid.axes())
for axes, permeability, k, p in zip(panels, clay.tolist(), K, batch.value):
    image = axes.contourf(first, second, p.T, 16, cmap="Blues", vmin=-0.2, vmax=1.0)
    u, v = ((-k * slope).T.numpy() for slope in torch.gradient(p, spacing=h))
    speed = (u**2 + v**2) ** 0.5
    u[speed < 0.01] = float("nan")  # no line where nothing flows
    axes.streamplot(
        first, second, u, v, color="black", linewidth=speed / 1.5, arrowsize=0.6, density=1.1
    )
    if permeability < 1:
        axes.contour(first, second, inside.T, [0.5], colors="tab:orange", linewidths=1.5)
    axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xlabel="x")
    axes.set_title(f"permeability of the lenses {permeability:g}", fontsize=10)
panels[0].set_ylabel("y")
figure.colorbar(image, ax=panels, label="pressure")
plt.show()
