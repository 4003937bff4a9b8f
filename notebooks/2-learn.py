# %% [markdown]
# # 2. Learn a family of problems, and check every answer
#
# From a distribution over problems to a network that answers them at once, and then the question
# that matters: how wrong is it? Everything here is tiny, so that it runs in half a minute: a grid
# of 33 x 33 points, 100 samples, seconds of training. What the same networks do at full size is
# said where they are compared.

# %%
import matplotlib.pyplot as plt

import sciml
from sciml.datasets import OperatorData
from sciml.operators import Combined, DeepONet, MgNO, RelativeH1, RelativeL2, Weighted
from sciml.solvers import CG, Multigrid, Surrogate
from sciml.training import Adam, Files, Training, evaluate, fit, open_data

FOLDER = "../runs/notebooks"

# %% [markdown]
# ## A family
#
# A spec with distributions in it is a family. Here the conductivity $K$ of $-\nabla \cdot (K
# \nabla u) = 1$ is 12 where a Gaussian random field is positive, 3 elsewhere. The second argument
# replaces values of the file.

# %%
family = sciml.load_family(
    "../configs/datasets/darcy.yaml",
    ["grid.shape=[33,33]", "dataset.shapes=[]", "dataset.splits={train: 100, test: 20}"],
)
family.places

# %% [markdown]
# Sample $i$ follows from the seed and $i$ alone. A dataset is the samples, solved, each checked by
# its residual, and stored in files that other programs read too.

# %%
sciml.generate(family, f"{FOLDER}/darcy")
test = OperatorData(f"{FOLDER}/darcy", "test")

figure, panels = plt.subplots(2, 4, figsize=(8, 4), layout="constrained")
for index, (above, below) in enumerate(panels.T):
    above.imshow(test[index]["x"][0].T, origin="lower", cmap="cividis")
    below.imshow(test[index]["y"][0].T, origin="lower")
panels[0, 0].set_ylabel("K")
panels[1, 0].set_ylabel("u")
for axes in panels.flat:
    axes.set(xticks=[], yticks=[])

# %% [markdown]
# ## Two networks
#
# MgNO is built like a multigrid cycle. DeepONet sums products of functions of $K$ and functions of
# the place. Options describe a network; `fit` trains it and writes it into a folder. The loss
# weighs the error and its slopes.

# %%
data = open_data(Files(f"{FOLDER}/darcy"))
loss = Combined((Weighted(RelativeL2()), Weighted(RelativeH1())))
networks = {
    "MgNO": fit(
        MgNO(width=12, layers=3, levels=4),
        data,
        Training(epochs=15, batch=5, optimiser=Adam(2e-3), loss=loss),
        f"{FOLDER}/MgNO",
    ),
    "DeepONet": fit(
        DeepONet(modes=64, convolutions=(16, 32, 64), branch=(64,), trunk=(64, 64, 64)),
        data,
        Training(epochs=100, batch=20, optimiser=Adam(2e-3), loss=loss),
        f"{FOLDER}/DeepONet",
    ),
}

# %% [markdown]
# How far they are off on samples that they have not seen:

# %%
for name, network in networks.items():
    errors = evaluate(network, test).relative_l2
    print(f"{name:9s} mean error {100 * errors.mean():.1f} %, worst {100 * errors.max():.1f} %")

# %% [markdown]
# With 1000 samples on 29 x 29 points and ten CPU minutes of training each, MgNO comes to 1.4 % and
# DeepONet to 3.3 % (`benchmarks/RESULTS.md`, two cores).
#
# ## Certified
#
# A trained network is a solver. Its status is `predicted`, which is no success: nothing was held
# to a tolerance. But the answer comes with bounds of its error, from one multigrid cycle, for
# problems whose solution nobody has computed. Eight new samples, as one batch:

# %%
problem = family.sample(seed=1, indices=range(8))
predictions = {
    name: sciml.solve(problem, Surrogate(f"{FOLDER}/{name}"), on=family.on, throw=False)
    for name in networks
}
print(predictions["MgNO"].status)
print(repr(predictions["MgNO"].certificate))

# %% [markdown]
# To see whether the bounds hold, solve the eight problems after all. The energy norm of a field
# $e$ is $\sqrt{e \cdot A e}$, with the matrix $A$ of the discretised problem.

# %%
exact = sciml.solve(problem, CG(preconditioner=Multigrid(), rtol=1e-12), on=family.on)
system = sciml.discretize(problem, family.on)


def energy(field):
    e = system.restrict(field)
    return (e * system.A.apply(e)).sum((-2, -1)).sqrt()


for name, prediction in predictions.items():
    error = energy(prediction.value - exact.value) / energy(exact.value)
    bounds = prediction.certificate
    held = (bounds.relative_lower <= error) & (error <= bounds.relative_upper)
    print(f"{name:9s} error between the bounds in {int(held.sum())} of {len(held)} samples")

# %% [markdown]
# ## Polished
#
# Where an answer must be exact, a classical solver goes on from the prediction. `compare=True`
# counts the iterations without the prediction too. On problems as small as these nothing is saved:
# multigrid makes itself a better first guess, from coarser grids, than a network trained for
# seconds.

# %%
polish = CG(preconditioner=Multigrid(), rtol=1e-8)
for name in networks:
    solver = Surrogate(f"{FOLDER}/{name}", polish=polish, compare=True)
    polished = sciml.solve(problem, solver, on=family.on)
    print(f"{name}:", *(note for note in polished.notes if note.startswith("polish")))

# %% [markdown]
# The picture: a sample and what each network makes of it; below, for every new sample, the true
# error (points) and the certified bounds (bars). The bounds are so close that they look like the
# points.

# %%
figure, panels = plt.subplot_mosaic(
    [["K", "u", "MgNO", "DeepONet"], ["bounds"] * 4],
    figsize=(9, 4.6),
    height_ratios=(5, 4),
    layout="constrained",
)
panels["K"].imshow(problem.equation.K[0].T, origin="lower", cmap="cividis")
panels["u"].imshow(exact.value[0].T, origin="lower")
panels["K"].set_title("K")
panels["u"].set_title("u")
size = float(exact.value[0].max())
for k, (name, prediction) in enumerate(predictions.items()):
    gap = 100 * (prediction.value - exact.value)[0].T / size
    image = panels[name].imshow(gap, origin="lower", cmap="RdBu", vmin=-30, vmax=30)
    panels[name].set_title(f"error of {name}")
    place = [i + 0.2 * k - 0.1 for i in range(8)]
    bounds = prediction.certificate
    error = energy(prediction.value - exact.value) / energy(exact.value)
    panels["bounds"].vlines(
        place, bounds.relative_lower, bounds.relative_upper, color=f"C{k}", lw=9, alpha=0.4
    )
    panels["bounds"].plot(place, error, ".", color=f"C{k}", ms=5, label=name)
figure.colorbar(image, ax=[panels["MgNO"], panels["DeepONet"]], label="% of max u")
for name in ("K", "u", "MgNO", "DeepONet"):
    panels[name].set(xticks=[], yticks=[])
panels["bounds"].set(xlabel="new sample", ylabel="relative error, energy norm", ylim=(0, None))
panels["bounds"].legend()
plt.show()
