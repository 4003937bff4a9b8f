# %% [markdown]
# # 4. One problem, five solvers
#
# The same problem object by multigrid on a grid, by physics-informed networks with fixed and with
# adversarial points, by Gaussians and by the deep Ritz method. Which solver it is, is an option;
# what comes back is the same kind of `Solution`, checked in the same way.

# %%
import time

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LogNorm

import sciml
from sciml.solvers import CG, PINN, DeepRitz, Gaussians, Multigrid
from sciml.solvers.trained import (
    AdversarialSampling,
    GaussNewton,
    NaturalGradient,
    VariableProjection,
)

# %% [markdown]
# ## The problem
#
# A steep front along a circle, of Poisson's equation, after Mitchell's collection of tests: with
# $r$ the distance from $(-0.05, -0.05)$,
#
# $$-\Delta u = f, \qquad u = \arctan(20 (r - 0.7))$$
#
# Coefficients may be Python functions of tensors. `exact` is for comparison only.


# %%
def front(x, y):
    return torch.atan(20 * (torch.hypot(x + 0.05, y + 0.05) - 0.7))


def source(x, y):
    r = torch.hypot(x + 0.05, y + 0.05)
    s = 20 * (r - 0.7)
    return 800 * s / (1 + s**2) ** 2 - 20 / (r * (1 + s**2))


problem = sciml.Problem(
    domain=sciml.Box((0.0, 0.0), (1.0, 1.0)),
    equation=sciml.Equation(f=source),
    boundary={"all": sciml.Condition(dirichlet=front)},
    exact=front,
)
grid = sciml.Grid((129, 129), domain=problem.domain)

# %% [markdown]
# ## The solvers
#
# Small ones, so that the page is made in a minute. The two networks differ in one option: where
# the equation is asked to hold. `AdversarialSampling` trains a density that seeks large residuals,
# and draws the points from it.

# %%
network = {"width": 20, "depth": 2, "points": 800, "optimiser": GaussNewton(iterations=40)}
solvers = {
    "multigrid": CG(preconditioner=Multigrid(), rtol=1e-8),
    "PINN": PINN(**network),
    "PINN, adversarial": PINN(**network, sampler=AdversarialSampling(every=20)),
    "Gaussians": Gaussians(count=100, optimiser=VariableProjection(iterations=40)),
    "deep Ritz": DeepRitz(width=20, optimiser=NaturalGradient(iterations=40)),
}

# %% [markdown]
# With `throw=False` an answer that has not met its tolerance is returned all the same, and says
# so. The first multigrid solve compiles its loops or loads them, so it is not timed.

# %%
sciml.solve(problem, solvers["multigrid"], on=sciml.Grid((33, 33)))
solutions, errors, seconds = {}, {}, {}
for name, solver in solvers.items():
    start = time.process_time()
    solutions[name] = sciml.solve(problem, solver, on=grid, throw=False)
    seconds[name] = time.process_time() - start
    errors[name] = float(solutions[name].error(front))
    print(f"{name:18s} error {errors[name]:.1e}, {seconds[name]:6.2f} CPU s, "
          f"{solutions[name].status.name}")  # fmt: skip

# %% [markdown]
# ## The picture
#
# The solution; the error of each trained function, with the points at which the two networks met
# the equation last; and what each error cost. Times are those of the machine that made this page
plt.show()
# the order of the methods is the same in `benchmarks/RESULTS.md`.

# %%
resolutions = [17, 33, 65, 129, 257]
curve = []
for n in resolutions:
    on = sciml.Grid((n, n), domain=problem.domain)
    start = time.process_time()
    answer = sciml.solve(problem, solvers["multigrid"], on=on)
    spent = time.process_time() - start
    curve.append((spent, float(answer.error(front))))

figure, panels = plt.subplots(2, 3, figsize=(9, 5.4), layout="constrained")
x, y = grid.axes()
exact = front(*grid.coordinates())
levels = torch.logspace(-5, -1, 13)
panels[0, 0].contourf(x, y, exact.T, 20)
panels[0, 0].set_title("u")
for axes, name in zip(panels.flat[1:5], list(solvers)[1:]):
    gap = (solutions[name].value - exact).abs().clamp(min=1e-9).T  # zero on the sides
    image = axes.contourf(x, y, gap, levels, cmap="magma", norm=LogNorm(), extend="both")
    axes.set_title(f"error of {name}")
    if name.startswith("PINN"):
        points = solutions[name].trained.batches[0].points
        axes.plot(*points.T, ".", color="white", ms=1.2)
figure.colorbar(image, ax=list(panels[0]), label="|error|", ticks=[1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
for axes in panels.flat[:5]:
    axes.set(xticks=[], yticks=[], aspect="equal")
last = panels[1, 2]
last.loglog(*zip(*curve), "o-", color="black", ms=4, label="multigrid, 17² to 257²")
for name in list(solvers)[1:]:
    last.loglog(seconds[name], errors[name], "s", label=name)
last.set(xlabel="CPU seconds", ylabel="relative error")
last.legend(fontsize=7)
plt.show()
