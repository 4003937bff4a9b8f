# %% [markdown]
# # 3. A learned preconditioner in a SciPy program
#
# You have a sparse matrix and SciPy's `cg`. A preconditioner from this package goes in as `M=`, in
# one line. Two learned ones come with their weights; here they stand beside multigrid, with
# iterations and with the time that they take.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import cg

import sciml
from sciml.solvers import ConjugateDirections, LearnedMultigrid, Multigrid

# %% [markdown]
# ## Diffusion turned against the grid
#
# Heat is conducted a thousand times better along one direction, 30 degrees off the grid's axes.
# This is a SciPy program: the matrix is made of Kronecker products.

# %%
n = 127
c, s, weak = np.cos(np.pi / 6), np.sin(np.pi / 6), 1e-3
second = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n))
first = sp.diags([-0.5, 0.5], [-1, 1], shape=(n, n))
A = (
    (c * c + weak * s * s) * sp.kron(second, sp.identity(n))
    + (s * s + weak * c * c) * sp.kron(sp.identity(n), second)
    - 2 * (1 - weak) * c * s * sp.kron(first, first)
).tocsr() * (n + 1) ** 2
b = np.zeros((n, n))
b[n // 3, n // 3], b[2 * n // 3, 2 * n // 3] = 1.0, -1.0  # a source and a sink
b = b.ravel()

# %% [markdown]
# `as_scipy` reads the matrix as a stencil on an n x n grid and makes the preconditioner. The
# learned one is multigrid whose coarse grids are written by a small network from that stencil
plt.show()
# whatever the network says it is linear, symmetric and positive definite, so plain CG may use it.


# %%
def run(make):
    """The answer, residuals, and the CPU seconds of set-up and solve, the least of three."""
    seconds, residuals = [], [1.0]
    for _ in range(3):
        start = time.process_time()
        M = make()
        ready = time.process_time()
        cg(A, b, M=M, rtol=1e-8, maxiter=5000)
        seconds.append((ready - start, time.process_time() - ready))
    x, failed = cg(
        A, b, M=M, rtol=1e-8, maxiter=5000,
        callback=lambda x: residuals.append(np.linalg.norm(b - A @ x) / np.linalg.norm(b)),
    )  # fmt: skip
    assert not failed
    return x, residuals, *np.min(seconds, axis=0)


turned = {
    "CG alone": run(lambda: None),
    "multigrid": run(lambda: sciml.as_scipy(Multigrid(), A, shape=(n, n))),
    "learned multigrid": run(
        lambda: sciml.as_scipy(LearnedMultigrid("rotated-anisotropy"), A, shape=(n, n))
    ),
}
for name, (_, residuals, setup, solve) in turned.items():
    print(f"{name:18s} {len(residuals) - 1:4d} iterations, "
          f"set-up {1e3 * setup:5.1f} ms, solve {1e3 * solve:6.1f} ms")  # fmt: skip

# %% [markdown]
# Times are those of the machine that made this page, with one thread. The learned one saves
# iterations, each at multigrid's price, and its set-up costs more: it tries the network against
# the formula on a small grid first. For one right-hand side that may eat up the gain
# (`docs/preconditioners.md`).
#
# ## Poisson around obstacles
#
# The second one is of another kind: a network proposes each search direction itself. It is not
# linear. SciPy's `cg` would go wrong with it and not say so, which is why it is refused:

# %%
box = sciml.Box((0.0, 0.0), (1.0, 1.0))
ring = "0.09 < (x - 0.5)**2 + (y - 0.5)**2 < 0.1444 and x > 0.25"
cold = sciml.Condition(dirichlet=0.0)
problem = sciml.Problem(
    box, sciml.Equation(f=1.0), {"all": cold}, obstacle=sciml.Obstacle(ring, cold)
)
grid = sciml.Grid((128, 128), "cell")
system = sciml.discretize(problem, grid)
network = ConjugateDirections("dcdm-poisson-2d")
try:
    sciml.as_scipy(network, system.A)
except ValueError as error:
    print(error)

# %% [markdown]
# `sciml.fcg` is the flexible method that may use it, and watches it.


# %%
def least(solve):
    """The solution and the CPU seconds of all of it, the least of three."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        solution = solve()
        seconds.append(time.process_time() - start)
    return solution, min(seconds)


b2 = system.b
ringed = {
    "CG alone": least(lambda: sciml.cg(system.A, b2)),
    "multigrid": least(lambda: sciml.cg(system.A, b2, M=Multigrid())),
    "learned directions": least(lambda: sciml.fcg(system.A, b2, M=network)),
}
for name, (solution, seconds) in ringed.items():
    print(f"{name:18s} {int(solution.stats.iterations):4d} iterations, {1e3 * seconds:6.1f} ms")

# %% [markdown]
# So a network can replace hundreds of iterations by a few tens, on a grid twice as fine as its own
# and around an obstacle that it has not seen, and still lose, because each of its iterations costs
# several of multigrid's. Where multigrid works, take multigrid. The tables with more sizes and
# rivals are in `docs/preconditioners.md` and `benchmarks/RESULTS.md`.
#
# The picture: the two answers, and how the residuals fall.

# %%
figure, panels = plt.subplots(
    1, 4, figsize=(11, 3.1), layout="constrained", width_ratios=(1, 1.5, 1, 1.5)
)
fields = [turned["multigrid"][0].reshape(n, n), ringed["multigrid"][0].value.reshape(128, 128)]
titles = ["diffusion turned by 30 degrees", "Poisson around an open ring"]
curves = [
    {name: (found[1], found[2] + found[3]) for name, found in turned.items()},
    {name: (found.stats.residuals, seconds) for name, (found, seconds) in ringed.items()},
]
for axes, field, title in zip(panels[::2], fields, titles):
    axes.imshow(field.T, origin="lower", cmap="magma")
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
for axes, methods in zip(panels[1::2], curves):
    for name, (residuals, seconds) in methods.items():
        label = f"{name}: {len(residuals) - 1} iterations, {1e3 * seconds:.0f} ms"
        axes.semilogy(residuals, label=label)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="iteration", ylabel="relative residual", ylim=(1e-9, 1e5), xlim=(0, None))
    axes.legend(loc="upper right", fontsize=7)
plt.show()
