# %% [markdown]
# # 6. Bring your own mesh
#
# Where the domain is no box, the same problem and the same verb take a mesh of triangles or
# tetrahedra: from a file (Gmsh's `.msh`, `.vtu`, `.xdmf`) or from two NumPy arrays.

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.tri import Triangulation

import sciml

# %% [markdown]
# ## From a file
#
# A steel plate with a hole, drawn in Gmsh. What was named there are the keys of the boundary
# conditions.

# %%
mesh = sciml.read_mesh("../configs/meshes/plate.msh", element="P2")
print(
    len(mesh.cells), "triangles,", len(mesh.nodes), "nodes, boundaries:", ", ".join(mesh.boundaries)
)

# %% [markdown]
# The plate is held on the left and pulled to the right with 1 MPa. A problem on a mesh has no
# `domain`; the rest is as always.

# %%
free = sciml.Condition(neumann=[0.0, 0.0])
problem = sciml.Problem(
    domain=None,
    equation=sciml.Elasticity(young=210e9, poisson_ratio=0.3, plane="stress"),
    boundary={
        "left": sciml.Condition(dirichlet=[0.0, 0.0]),
        "right": sciml.Condition(neumann=[1e6, 0.0]),
        "bottom": free,
        "top": free,
        "hole": free,
    },
)
plate = sciml.solve(problem, on=mesh)
plate

# %% [markdown]
# The stress at a hole is several times that of the pull. For a strip with a hole of 0.4 of its
# width a handbook's formula (Heywood's) gives $(2 + (1 - 0.4)^3) / (1 - 0.4) = 3.69$ at one point
# of the rim; the mean over an element, which is what `von_mises` gives, stays a little below.

# %%
stress = sciml.von_mises(problem, mesh, plate.value) / 1e6
print(f"largest stress of an element: {stress.max():.2f} times the pull")

# %% [markdown]
# ## From arrays
#
# No program is needed to make a mesh: points of shape (n, 2), triangles as triples of their
# numbers, and the boundaries as pairs, by name. Here a ring is bent into a star, a cooler around a
# hot pipe.

# %%
across, around = 10, 160
r, angle = np.meshgrid(np.linspace(0, 1, across), np.arange(around) * 2 * np.pi / around)
radius = 0.35 + r * (0.4 + 0.25 * np.tanh(3 * np.cos(8 * angle)))
points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(-1, 2)

number = np.arange(across * around).reshape(around, across)
following = np.roll(number, -1, axis=0)
a, b, c, d = (part.ravel() for part in (
    number[:, :-1], number[:, 1:], following[:, 1:], following[:, :-1]))  # fmt: skip
star = sciml.Mesh(
    points,
    cells=np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]),
    boundaries={
        "pipe": np.stack([number[:, 0], following[:, 0]], -1),
        "air": np.stack([number[:, -1], following[:, -1]], -1),
    },
)
star.shape

# %% [markdown]
# The pipe is at 100 degrees. On the outside the heat goes over to air at 20 degrees: $n \cdot K
# \nabla u = 10\,(20 - u)$, a Robin condition. A solution on a mesh is drawn by `plot` too.

# %%
cooling = sciml.Problem(
    domain=None,
    equation=sciml.Equation(K=5.0),
    boundary={
        "pipe": sciml.Condition(dirichlet=100.0),
        "air": sciml.Condition(robin=sciml.Robin(alpha=10.0, g=200.0)),
    },
)
cooler = sciml.solve(cooling, on=star)
print(cooler)
print(f"coldest point: {cooler.value.min():.1f} degrees")

# %% [markdown]
# The picture: both meshes with what was found on them, the displacements of the plate drawn 20,000
# times too large.

# %%
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(6, 4)
)
corners = len(mesh.points)  # of the P2 nodes the first ones are the vertices
moved = mesh.points + 2e4 * plate.value[:, :corners].T.numpy()
image = left.tripcolor(
    Triangulation(*moved.T, mesh.cells), facecolors=stress.numpy(), cmap="inferno"
)
left.triplot(*moved.T, mesh.cells, color="white", lw=0.2)
figure.colorbar(image, ax=left, label="stress / pull", location="bottom", shrink=0.8)
image = right.tripcolor(Triangulation(*star.points.T, star.cells), cooler.value, shading="gouraud",
                        cmap="coolwarm")  # fmt: skip
right.triplot(*star.points.T, star.cells, color="black", lw=0.1)
figure.colorbar(image, ax=right, label="temperature", location="bottom", shrink=0.8)
for axes in (left, right):
    axes.set_aspect("equal")
    axes.set_axis_off()
