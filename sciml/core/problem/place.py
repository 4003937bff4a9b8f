"""Where a problem is solved: on a grid of its box, at points of it, or on a mesh read or made."""

from __future__ import annotations

from sciml.core.errors import InputError
from sciml.core.problem.geometry import Geometry
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import MeshFile
from sciml.core.problem.problem import Problem


def check_place(
    problem: Problem,
    grid: Grid | None,
    mesh: MeshFile | None,
    geometry: Geometry | None,
    points: Points | None = None,
) -> None:
    """Raise InputError unless exactly one is given, with a domain for a grid or points alone.

    None is for functions of t alone.

    Nothing is read or meshed.
    """
    places = {"grid": grid, "mesh": mesh, "geometry": geometry, "points": points}
    given = [name for name, place in places.items() if place is not None]
    if problem.of_time_alone and given:
        raise InputError(f"functions of t alone have no place: leave {given[0]} out", given[0])
    if problem.of_time_alone:
        return
    if len(given) != 1:
        raise InputError(
            "a spec has exactly one of grid: (a box), mesh: (a file), geometry: (a shape to mesh) "
            f"and points: (scattered in a box); got {' and '.join(given) or 'none'}",
            given[-1] if given else None,
        )
    if grid is not None or points is not None:
        _bind(problem, grid, points)
    elif problem.domain is not None:
        raise InputError(f"leave domain out: the {given[0]} is the domain", "problem.domain")


def placed(
    problem: Problem,
    grid: Grid | None,
    mesh: MeshFile | None,
    geometry: Geometry | None,
    points: Points | None = None,
) -> Grid | Mesh | Points:
    """The grid or points on the problem's domain, or the mesh, read or made anew.

    Functions of t alone live at one point.
    """
    if problem.of_time_alone:
        points = Points(1)
    if grid is not None or points is not None:
        return _bind(problem, grid, points)
    source = mesh or geometry
    assert source is not None
    return source.mesh(problem.equation.element)


def _bind(problem: Problem, grid: Grid | None, points: Points | None) -> Grid | Points:
    if points is None:
        assert grid is not None
        return grid.bind(problem.box)
    return points.bind(problem.box if problem.domain is None else problem.domain)


def discrete(on: Grid | Mesh | Points) -> Grid | Mesh:
    """The grid or mesh; raises InputError for scattered points, which hold no discretisation."""
    if isinstance(on, Points):
        raise InputError(
            "this needs grid: {shape: [...]}; points are for trained solvers such as pinn", "points"
        )
    return on
