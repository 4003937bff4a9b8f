"""Orthotropic solids: the stiffness of wood, of a ply, of rolled sheet, in its own axes or turned.

Along the material's axes 1, 2, 3 strains and stresses are related by (Lekhnitskii 1963)

    | e11 |   |  1/E1     -nu12/E1  -nu13/E1 | | s11 |
    | e22 | = | -nu12/E1   1/E2     -nu23/E2 | | s22 |,    2 e12 = s12/G12, 2 e13 = s13/G13, ...
    | e33 |   | -nu13/E1  -nu23/E2   1/E3    | | s33 |

C is its inverse, positive definite if and only if all E and G are positive and so is that matrix.
Turned by R, whose columns are the axes 1, 2, 3, it is C_abcd = R_am R_bn R_co R_dp C_mnop. In a
thin plate s33 = 0, and C_abcd - C_ab33 C_33cd / C_3333 is what the strains in its plane meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.equation import Elasticity
from sciml.core.problem.quadrature import Quadrature, slope_of

# A coefficient by its key at points, (*batch, k, Q) or broadcastable.
Read = Callable[[Any, str], torch.Tensor]
_PAIRS = ((0, 1), (0, 2), (1, 2))
_CHUNK = 1 << 12


def stiffness(equation: Elasticity, read: Read, key: str, d: int) -> torch.Tensor:
    """C in the axes of the mesh, (*batch, k, Q, 3, 3, 3, 3), k and Q 1 where constant.

    Raises InputError where C is not positive definite.
    """
    E = _listed(equation.young, "young", read, key, _full(equation, d))
    G = _listed(equation.shear, "shear", read, key, _full(equation, d))
    nu = _listed(equation.poisson_ratio, "poisson_ratio", read, key, _full(equation, d))
    if len(E) == 2:
        # What lies across the plate is nobody's concern in its plane.
        zero = torch.zeros_like(nu[0])
        E, G, nu = [*E, E[1]], [G[0]] * 3, [nu[0], zero, zero]
    S = _compliance(E, nu)
    _check(E, G, S, key)
    normal = torch.linalg.inv(S)
    entries = [normal[..., a, b] for a in range(3) for b in range(3)] + list(G)
    moduli = torch.stack(list(torch.broadcast_tensors(*entries)), -1)
    C: torch.Tensor = torch.einsum("...m,mabcd->...abcd", moduli, torch.from_numpy(_tables()))
    R = turn(equation, read, key, d)
    # One index at a time: all at once they would make a tensor of 8 indices at every point.
    for _ in range(0 if R is None else 4):
        C = torch.einsum("...am,...mnop->...nopa", R, C)
    return C


def _full(equation: Elasticity, d: int) -> bool:
    """Whether the third axis matters."""
    return d == 3 or equation.plane == "strain"


def _listed(given: Any, name: str, read: Read, key: str, full: bool) -> list[torch.Tensor]:
    assert isinstance(given, (list, tuple))
    if full and len(given) != 3:
        raise InputError(
            f"{name} needs three numbers here; two axes are enough of plane: stress alone",
            f"{key}.{name}",
        )
    return [read(entry, f"{key}.{name}.{n}") for n, entry in enumerate(given)]


def _compliance(E: list[torch.Tensor], nu: list[torch.Tensor]) -> torch.Tensor:
    """Of normal stresses, (*batch, k, Q, 3, 3)."""
    off = [-nu[0] / E[0], -nu[1] / E[0], -nu[2] / E[1]]
    rows = [
        [1 / E[0], off[0], off[1]],
        [off[0], 1 / E[1], off[2]],
        [off[1], off[2], 1 / E[2]],
    ]
    flat = torch.broadcast_tensors(*(entry for row in rows for entry in row))
    found: torch.Tensor = torch.stack(list(flat), -1).unflatten(-1, (3, 3))
    return found


def _check(E: list[torch.Tensor], G: list[torch.Tensor], S: torch.Tensor, key: str) -> None:
    for name, moduli in (("young", E), ("shear", G)):
        if not all(bool((value > 0).all()) for value in moduli):
            raise InputError(f"{name} must be positive", f"{key}.{name}")
    for n, (a, b) in enumerate(_PAIRS):
        minor = S[..., a, a] * S[..., b, b] - S[..., a, b] ** 2
        if not bool((minor > 0).all()):
            most = float((S[..., b, b] / S[..., a, a]).detach().sqrt().min())
            raise InputError(
                f"nu{a + 1}{b + 1} must be below sqrt(E{a + 1}/E{b + 1}) = {most:.4g} in size, or "
                "the solid would give energy away",
                f"{key}.poisson_ratio.{n}",
            )
    if not bool((torch.linalg.det(S) > 0).all()):
        raise InputError(
            "the three Poisson's ratios are too large together: 1 - nu12 nu21 - nu23 nu32 - "
            "nu13 nu31 - 2 nu21 nu32 nu13 must be positive",
            f"{key}.poisson_ratio",
        )


def _tables() -> np.ndarray:
    """What each of the nine normal and three shear moduli is of C, (12, 3, 3, 3, 3)."""
    found = np.zeros((12, 3, 3, 3, 3))
    for a in range(3):
        for b in range(3):
            found[3 * a + b, a, a, b, b] = 1.0
    for n, (a, b) in enumerate(_PAIRS):
        for first, second in ((a, b), (b, a)):
            found[9 + n, first, second, a, b] = found[9 + n, first, second, b, a] = 1.0
    return found


def turn(equation: Elasticity, read: Read, key: str, d: int) -> torch.Tensor | None:
    """R, whose columns are the material's axes, (*batch, k, Q, 3, 3); None where not turned."""
    if equation.frame is not None:
        return _framed(equation.frame, read, key, d)
    angle = equation.angle
    if isinstance(angle, (int, float)) and angle == 0:
        return None
    radians = read(angle, f"{key}.angle") * (math.pi / 180)
    c, s, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    rows = [c, -s, zero, s, c, zero, zero, zero, zero + 1]
    found: torch.Tensor = torch.stack(rows, -1).unflatten(-1, (3, 3))
    return found


def _framed(frame: Any, read: Read, key: str, d: int) -> torch.Tensor:
    """From the directions of axis 1 and, in space, of one in the plane of axes 1 and 2."""
    if len(frame) != d - 1 or any(len(row) != d for row in frame):
        told = "[[1, 0]], axis 1" if d == 2 else "[[1, 0, 0], [0, 1, 0]], axes 1 and 2"
        raise InputError(f"a frame here is {told}", f"{key}.frame")
    rows = []
    for n, row in enumerate(frame):
        entries = [read(entry, f"{key}.frame.{n}.{a}") for a, entry in enumerate(row)]
        entries += [torch.zeros_like(entries[0])] * (3 - d)
        rows.append(torch.stack(list(torch.broadcast_tensors(*entries)), -1))
    if d == 2:
        rows.append(torch.stack([-rows[0][..., 1], rows[0][..., 0], rows[0][..., 2]], -1))
    first, second = torch.broadcast_tensors(*rows)
    third = torch.linalg.cross(first, second)
    size = third.norm(dim=-1)
    if not bool((size > 1e-9 * first.norm(dim=-1) * second.norm(dim=-1)).all()):
        raise InputError("the frame's directions vanish or are parallel somewhere", f"{key}.frame")
    first, third = first / first.norm(dim=-1, keepdim=True), third / size[..., None]
    return torch.stack([first, torch.linalg.cross(third, first), third], -1)


def in_plane(C: torch.Tensor, thin: bool) -> torch.Tensor:
    """What strains in the plane meet, (*batch, k, Q, 2, 2, 2, 2)."""
    if thin:
        C = (
            C
            - C[..., :, :, 2, 2, None, None]
            * C[..., None, None, 2, 2, :, :]
            / C[..., 2, 2, 2, 2, None, None, None, None]
        )
    return C[..., :2, :2, :2, :2]


def reduced(equation: Elasticity, C: torch.Tensor, d: int) -> torch.Tensor:
    """C as the strains of a mesh in d dimensions meet it, (*batch, k, Q, d, d, d, d)."""
    return C if d == 3 else in_plane(C, equation.plane == "stress")


def contracted(C: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """C : e."""
    return torch.einsum("...abcd,...cd->...ab", C, e)


def free_strain(equation: Elasticity, read: Read, key: str, d: int) -> torch.Tensor:
    """The thermal strain in the mesh's axes, (*batch, k, Q, 3, 3)."""
    given = equation.thermal_strain
    if not isinstance(given, (list, tuple)):
        free = read(given, f"{key}.thermal_strain")
        return free[..., None, None] * torch.eye(3, dtype=torch.float64)
    entries = [read(entry, f"{key}.thermal_strain.{n}") for n, entry in enumerate(given)]
    entries += [torch.zeros_like(entries[0])] * (3 - len(entries))
    own = torch.diag_embed(torch.stack(list(torch.broadcast_tensors(*entries)), -1))
    R = turn(equation, read, key, d)
    return own if R is None else R @ own @ R.mT


def local_stiffness(cells: Quadrature, C: torch.Tensor) -> torch.Tensor:
    """int C_abcd (d phi_i / d x_b) (d phi_j / d x_d) at [i, a, j, c]: (*batch, k, N, d, N, d)."""
    done = []
    C = C.expand(*C.shape[:-6], *cells.points[0].shape, *C.shape[-4:])
    for first in range(0, len(cells.nodes), _CHUNK):
        part = cells.of(torch.arange(first, min(first + _CHUNK, len(cells.nodes))))
        slope = slope_of(part)
        weighted = (
            C[..., first : first + _CHUNK, :, :, :, :, :]
            * part.measure[..., None, None, None, None]
        )
        pushed = torch.einsum("...kqabcd,kqjd->...kqabjc", weighted, slope)
        done.append(torch.einsum("...kqabjc,kqib->...kiajc", pushed, slope))
    return torch.cat(done, dim=-5)
