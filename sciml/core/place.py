"""Where a problem is solved: on a grid of its box, or on a mesh that is read or made."""

from __future__ import annotations

from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.mesh import Mesh
from sciml.core.mesh_file import MeshFile
from sciml.core.mesh_geometry import Geometry
from sciml.core.problem import Problem


def check_place(
    problem: Problem, grid: Grid | None, mesh: MeshFile | None, geometry: Geometry | None
) -> None:
    """Raise InputError unless exactly one is given, and the problem has a domain for a grid alone.

    Nothing is read or meshed.
    """
    places = {"grid": grid, "mesh": mesh, "geometry": geometry}
    given = [name for name, place in places.items() if place is not None]
    if len(given) != 1:
        raise InputError(
            "a spec has exactly one of grid: (a box), mesh: (a file) and geometry: (a shape to "
            f"mesh); got {' and '.join(given) or 'none'}",
            given[-1] if given else None,
        )
    if grid is not None:
        grid.bind(problem.box)
    elif problem.domain is not None:
        raise InputError(f"leave domain out: the {given[0]} is the domain", "problem.domain")


def placed(
    problem: Problem, grid: Grid | None, mesh: MeshFile | None, geometry: Geometry | None
) -> Grid | Mesh:
    """The grid on the problem's domain, or the mesh, read or made anew."""
    if grid is not None:
        return grid.bind(problem.box)
    source = mesh or geometry
    assert source is not None
    return source.mesh()
