"""Equations as data: the coefficient form with its presets, systems of it, and three of their own.

The coefficient form is

    m u_tt + d u_t - div(K grad u) + b . grad u + c u + beta u_xxx + gamma Lap^2 u = f,

beta the ``dispersion`` and gamma the ``biharmonic`` coefficient. A coefficient may depend on x, y,
z, t, on u, ux, uy, uz (nonlinear then), and on named parameters. Instead of coefficients an
equation may be given by an energy density e(x, u, grad u), whose integral is made stationary, or in
the general form

    m u_tt + d u_t - div F = s,      n . F the flux that a side's data are about,

by the ``flux`` F and the ``source`` s, which may name u and its slopes. Between the bounds
``lower`` and ``upper`` the equation holds where u touches neither: an obstacle below pushes u up,
one above pushes it down.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar, Literal, get_args

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.expression import linear_parts
from sciml.core.problem.grid import MOST_DIMENSIONS, axis_names
from sciml.core.problem.reader import FieldFile, Regions, free_names, state_names

__all__ = [
    "KINDS",
    "AnyEquation",
    "Coefficient",
    "Elasticity",
    "Equation",
    "FieldFile",
    "Helmholtz",
    "Hyperelasticity",
    "Integral",
    "Kind",
    "Matrix",
    "NavierStokes",
    "Plasticity",
    "Regions",
    "Sponge",
    "Stokes",
    "System",
    "Vector",
    "WrittenOut",
]


# A number, an expression of x, y, z, t, u, ux, uy, uz and the parameters, a table, a file, a tensor
# or array on the grid (batch dimensions lead), or (Python only) a function, which takes by name
# what it needs: sciml.core.problem.reader.
Coefficient = Any
Vector = tuple[Coefficient, ...]
Matrix = tuple[tuple[Coefficient, ...], ...]

Kind = Literal[
    "general",
    "poisson",
    "darcy",
    "diffusion",
    "reaction_diffusion",
    "convection_diffusion",
    "nonlinear_poisson",
    "bratu",
    "p_laplace",
    "minimal_surface",
    "heat",
    "wave",
    "advection",
    "burgers",
    "allen_cahn",
    "klein_gordon",
    "diffusion_reaction",
    "kuramoto_sivashinsky",
    "kdv",
]

COMPONENTS = ("u", "v", "w")  # of a velocity or a displacement
BOUNDS = ("lower", "upper")
_STATE = frozenset(state_names(("u",)))
_SLOPE = "(ux**2 + uy**2 + uz**2)"
# Per preset: the coefficients one may give, and those it brings along.
_PRESETS: dict[str, tuple[frozenset[str], dict[str, Any]]] = {
    kind: (frozenset(given.split()), brought)
    for kind, given, brought in (
        ("general", "m d K b c f dispersion biharmonic energy flux source", {}),
        ("poisson", "f", {}),
        ("darcy", "K f", {}),
        ("diffusion", "K f", {}),
        ("reaction_diffusion", "K c f", {}),
        ("convection_diffusion", "K b f", {}),
        ("nonlinear_poisson", "K c f", {}),
        ("bratu", "K f", {"f": "lam*exp(u)"}),
        ("p_laplace", "f", {"K": f"({_SLOPE} + 1e-12)**(p/2 - 1)"}),
        ("minimal_surface", "f", {"K": f"1/sqrt(1 + {_SLOPE})"}),
        ("heat", "K f", {"d": 1.0}),
        ("wave", "K f", {"m": 1.0}),
        ("advection", "b f", {"d": 1.0, "K": 0.0}),
        ("burgers", "K f", {"d": 1.0, "b": ("u",)}),
        ("allen_cahn", "K f", {"d": 1.0, "f": "u - u**3"}),
        ("klein_gordon", "K c f", {"m": 1.0, "c": 1.0}),
        ("diffusion_reaction", "K c f", {"d": 1.0, "f": "u*(1 - u)"}),
        (
            "kuramoto_sivashinsky",
            "K b biharmonic f",
            {"d": 1.0, "K": -1.0, "b": ("u",), "biharmonic": 1.0},
        ),
        ("kdv", "b dispersion f", {"d": 1.0, "K": 0.0, "b": ("6*u",), "dispersion": 1.0}),
    )
}


class PDE(ABC):
    """What every type of equation says of itself; a leaf is a frozen dataclass with a ``kind``.

    ``title``: what its kinds have in common, for messages. ``complex``: whether its solution is.
    ``always_linear``: whether it is linear whatever its coefficients are. ``element``: which one
    suits it on a mesh. ``touches``: whether its sides may touch something. ``written_out``: whether
    its sides state what vanishes there, since it says nothing of a flux. ``remembers``: whether it
    is about a body to which the way of its loads matters, which begins without any.
    How it is discretised is registered elsewhere: :mod:`sciml.core.problem.dispatch`.
    """

    kind: str
    title: ClassVar[str]
    complex: ClassVar[bool] = False
    always_linear: ClassVar[bool] = False
    element: ClassVar[Literal["P1", "P2"]] = "P1"
    touches: ClassVar[bool] = False
    written_out: ClassVar[bool] = False
    remembers: ClassVar[bool] = False

    @property
    def linear(self) -> bool:
        """Whether without time it is one system of linear equations."""
        return self.linear_with({})

    @property
    def of_second_order_in_time(self) -> bool:
        """Whether a problem in time starts from u and u_t."""
        return False

    @property
    def bounded(self) -> bool:
        """Whether obstacles bound a field."""
        return False

    @property
    def coefficient_form(self) -> Equation | None:
        """The coefficient form that real solutions meet; None where there is none."""
        return None

    @property
    def open_functions(self) -> int:
        """How many functions it has no equation for, which observations must find."""
        return 0

    @property
    def conditioned(self) -> tuple[str, ...]:
        """For what a side may state conditions of their own; nothing where one holds for all."""
        return ()

    def called(self, name: str, dimension: int) -> tuple[str, ...]:
        """Its fields where a system calls it ``name``; of a flow and a solid they are their own."""
        return self.fields(dimension)

    def vectors(self, dimension: int) -> Mapping[str, tuple[str, ...]]:
        """By what it is called the fields that are the components of one vector."""
        return {}

    @abstractmethod
    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """The same with these parameters, among which may be tables of the solution."""

    @abstractmethod
    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """Names of the answer's functions; ``initial``: of those that are given at the start."""


@dataclass(frozen=True)
class Equation(PDE):
    """``m u_tt + d u_t - div(K grad u) + b . grad u + c u = f``, an energy, or the general form.

    ``K`` is a scalar, a list of d entries (diagonal) or d lists of d (full symmetric tensor);
    ``b`` a list of d entries. ``dispersion`` (u_xxx, one dimension) and ``biharmonic`` (the squared
    Laplacian) are numbers or parameters, for spectral solvers. ``energy``: a density such as
    ``0.5*(ux**2 + uy**2) - f*u`` in place of all other coefficients. ``flux``: F, a list of d
    entries, with ``source``: s, in place of K, b, c and f. ``kind`` names a preset,
    which brings its own coefficients along and admits only those that its equation has: ``bratu``
    reads the parameter ``lam``, ``p_laplace`` the parameter ``p``. ``lower``, ``upper``: obstacles
    that u stays above and below, of x and the parameters; of steady problems.
    """

    K: Coefficient | Vector | Matrix = field(
        default=1.0, metadata={"replaced_by": ("energy", "flux")}
    )
    b: Vector | None = None
    c: Coefficient = 0.0
    f: Coefficient = 0.0
    m: Coefficient = 0.0
    d: Coefficient = 0.0
    dispersion: Coefficient = 0.0
    biharmonic: Coefficient = 0.0
    energy: str | None = None
    flux: Vector | None = None
    source: Coefficient = 0.0
    lower: Coefficient | None = None
    upper: Coefficient | None = None
    kind: Kind = "general"
    title: ClassVar[str] = "the coefficient form"

    def __post_init__(self) -> None:
        if self.kind not in _PRESETS:
            raise InputError(
                f"unknown kind '{self.kind}'{did_you_mean(self.kind, _PRESETS)}",
                "problem.equation.kind",
            )
        admitted, brought = _PRESETS[self.kind]
        for entry in fields(self):
            if entry.name in ("kind", *BOUNDS):
                continue
            value = getattr(self, entry.name)
            own = brought.get(entry.name, entry.default)
            # Left out, and not given as a number that happens to be the default.
            if value is entry.default:
                object.__setattr__(self, entry.name, own)
            elif entry.name not in admitted and not _equals(value, own):
                raise InputError(
                    f"equation kind '{self.kind}' has no coefficient '{entry.name}' "
                    f"(it has {', '.join(sorted(admitted))}); use kind: general",
                    f"problem.equation.{entry.name}",
                )
        if self.b is not None and not isinstance(self.b, (list, tuple)):
            raise InputError(
                "b is a list with an entry for each axis, such as [1, 0]", "problem.equation.b"
            )
        if self.flux is not None and not isinstance(self.flux, (list, tuple)):
            raise InputError(
                "flux is a list with an entry for each axis, such as [ux, uy]",
                "problem.equation.flux",
            )
        if self.flux is None and not _equals(self.source, 0.0):
            raise InputError(
                "source goes with flux: [...]; beside K write f", "problem.equation.source"
            )
        if self.energy is not None:
            self._check_alone("an energy", ("m", "d", "energy"), "the energy")
        elif self.flux is not None:
            self._check_alone("a flux", ("m", "d", "flux", "source"), "flux or source")

    @property
    def of_second_order_in_time(self) -> bool:
        """Where m is not zero."""
        return self.m not in (0, 0.0)

    @property
    def coefficient_form(self) -> Equation | None:
        """The equation itself, but for the general form."""
        return self if self.flux is None else None

    def reduced(self) -> Equation:
        """The coefficient form of F = K grad u and s = f - b . grad u - c u; itself if it is one.

        K, b, c and f may name u. Raises InputError where F or s is not of this kind.
        """
        if self.flux is None:
            return self
        d, key = len(self.flux), "problem.equation"
        slopes = [f"u{axis}" for axis in "xyz"[:d]]
        rows = []
        for a, entry in enumerate(self.flux):
            parts = _linear(entry, slopes, f"{key}.flux.{a}")
            if not _zero_text(parts.pop("", "0")):
                raise InputError(
                    f"{_ON_GRIDS}, F = K grad u; this has a part without a slope: write it as b",
                    f"{key}.flux.{a}",
                )
            rows.append([parts.get(name, "0") for name in slopes])
        across = all(_zero_text(row[b]) for a, row in enumerate(rows) for b in range(d) if a != b)
        K: Any = [row[a] for a, row in enumerate(rows)] if across else rows
        K = K[0] if across and len(set(K)) == 1 else K
        source = _linear(self.source, slopes, f"{key}.source")
        rest = source.pop("", "0")
        b = [f"-({source[name]})" if name in source else 0.0 for name in slopes] if source else None
        try:
            of_u = linear_parts(rest, ["u"])
        except InputError:  # what is not linear in u stays a source that names it
            of_u = {"": rest}
        c = f"-({of_u['u']})" if "u" in of_u else 0.0
        given = {"K": K, "b": b, "c": c, "f": of_u.get("", "0"), "m": self.m, "d": self.d}
        return Equation(**given, lower=self.lower, upper=self.upper)

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """Whether no coefficient names the solution or its slope, and nothing else is given."""
        return (
            self.energy is None
            and not self.bounded
            and not any(
                free_names(getattr(self, entry.name), parameters) & _STATE
                for entry in fields(self)
                if entry.name != "kind"
            )
        )

    @property
    def bounded(self) -> bool:
        """Whether an obstacle is given."""
        return self.lower is not None or self.upper is not None

    def called(self, name: str, dimension: int) -> tuple[str, ...]:
        """As the system calls it."""
        return (name,)

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """u alone."""
        return ("u",)

    def _check_alone(self, what: str, beside: tuple[str, ...], into: str) -> None:
        for entry in fields(self):
            if entry.name in ("kind", *BOUNDS, *beside):
                continue
            value = getattr(self, entry.name)
            # A 0 adds nothing; what is given as the default 1 would be ignored.
            if value is not entry.default and not (_equals(value, entry.default) and value == 0):
                raise InputError(
                    f"{what} stands in place of the coefficients; leave {entry.name} out, "
                    f"or write it into {into}",
                    f"problem.equation.{entry.name}",
                )


def _equals(value: Any, default: Any) -> bool:
    if value is default:
        return True
    return isinstance(value, (int, float, str, tuple)) and value == default


_GRAY_SCOTT = {
    "u": Equation(d=1.0, K="Du", f="-u*v**2 + feed*(1 - u)"),
    "v": Equation(d=1.0, K="Dv", f="u*v**2 - (feed + kill)*v"),
}


_ON_GRIDS = "a flux is solved on grids where it is that of the coefficient form"


def _linear(given: Coefficient, slopes: Sequence[str], key: str) -> dict[str, str]:
    if isinstance(given, Real):
        return {"": repr(float(given))}
    if not isinstance(given, str):
        raise InputError(f"{_ON_GRIDS}, of texts; this is none: use a mesh", key)
    try:
        return linear_parts(given, slopes)
    except InputError as error:
        raise InputError(f"{_ON_GRIDS}: {error.message}; use a mesh", key) from None


def _zero_text(text: str) -> bool:
    try:
        return float(text.strip("() ")) == 0
    except ValueError:
        return False


@dataclass(frozen=True)
class System(PDE):
    """Several fields, each with an equation whose coefficients may name all of them.

    ``equations`` maps a field's name to its :class:`Equation`; a boundary condition holds for
    every field unless it is given by field. On a mesh one of them may be a flow or a solid, whose
    fields are then u, v, w (and p) whatever its name is. ``gray_scott`` is du/dt = Du Lap u -
    u v^2 + feed (1 - u), dv/dt = Dv Lap v + u v^2 - (feed + kill) v, and reads these four
    parameters.
    """

    equations: Mapping[str, Part] = field(default_factory=dict)
    kind: Literal["system", "gray_scott"] = "system"
    title: ClassVar[str] = "a system"

    def __post_init__(self) -> None:
        if self.kind == "gray_scott" and not self.equations:
            object.__setattr__(self, "equations", dict(_GRAY_SCOTT))
        if self.kind == "gray_scott" and dict(self.equations) != _GRAY_SCOTT:
            raise InputError(
                "gray_scott brings its own equations; use kind: system",
                "problem.equation.equations",
            )
        if not self.equations:
            raise InputError(
                "a system needs equations: {name: {...}, ...}", "problem.equation.equations"
            )
        names = self.fields(3)
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"two fields of the system are called '{name}'; rename one",
                    "problem.equation.equations",
                )

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """No: it is solved in time."""
        return False

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """As the equations are called; of a flow and a solid their own."""
        found: list[str] = []
        for name, part in self.equations.items():
            found += part.called(name, dimension)
        return tuple(found)

    @property
    def conditioned(self) -> tuple[str, ...]:
        """Every equation."""
        return tuple(self.equations)

    def vectors(self, dimension: int) -> Mapping[str, tuple[str, ...]]:
        """Those of its equations."""
        return {
            k: v for part in self.equations.values() for k, v in part.vectors(dimension).items()
        }

    @property
    def bounded(self) -> bool:
        """Whether one of them has an obstacle."""
        return any(part.bounded for part in self.equations.values())

    @property
    def forms(self) -> Mapping[str, Equation]:
        """The equations where all are of the coefficient form; raises InputError for others."""
        found = {}
        for name, part in self.equations.items():
            form = part.coefficient_form
            if form is None:
                raise InputError(
                    "a system with a flux of its own, a flow or a solid is solved on a mesh",
                    f"problem.equation.equations.{name}",
                )
            found[name] = form
        return found


@dataclass(frozen=True)
class NavierStokes(PDE):
    """Incompressible flow: u_t + (u . grad) u = -grad p + viscosity Lap u + force.

    On a mesh by finite elements, steady too; on grids in 2-D and in time.
    Periodic on all sides it is solved for the vorticity w = v_x - u_y, to which
    ``vorticity_source`` adds curl(force); between walls for velocity and pressure. A wall's
    ``dirichlet`` is the list of velocities there; ``neumann: 0`` is an outlet.
    """

    viscosity: Coefficient
    force: Vector | None = None
    vorticity_source: Coefficient = 0.0
    kind: Literal["navier_stokes"] = "navier_stokes"
    title: ClassVar[str] = "navier_stokes"
    element: ClassVar[Literal["P1", "P2"]] = "P2"

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """No: the flow carries itself."""
        return False

    def vectors(self, dimension: int) -> Mapping[str, tuple[str, ...]]:
        """The velocity."""
        return {"velocity": COMPONENTS[:dimension]}

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """The velocity and p; of a flow that starts from its vorticity, that."""
        if "vorticity" in initial:
            return ("vorticity",)
        return (*COMPONENTS[:dimension], "p")


@dataclass(frozen=True)
class Stokes(PDE):
    """Creeping incompressible flow on a mesh: -viscosity Lap u + grad p = force, div u = 0.

    In time with u_t. Sides as for :class:`NavierStokes`.
    """

    viscosity: Coefficient = 1.0
    force: Vector | None = None
    kind: Literal["stokes"] = "stokes"
    title: ClassVar[str] = "stokes"
    element: ClassVar[Literal["P1", "P2"]] = "P2"

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """Whether viscosity and force name no field."""
        state = frozenset(state_names((*COMPONENTS, "p")))
        return not free_names((self.viscosity, self.force), parameters) & state

    def vectors(self, dimension: int) -> Mapping[str, tuple[str, ...]]:
        """The velocity."""
        return {"velocity": COMPONENTS[:dimension]}

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """The velocity and p."""
        return (*COMPONENTS[:dimension], "p")


@dataclass(frozen=True)
class Sponge:
    """A layer of ``width`` before every absorbing side in which waves are damped.

    The squared wavenumber becomes k^2 (1 + i strength s^2), s from 0 at its inner edge to 1.
    """

    width: float
    strength: float = 1.0


@dataclass(frozen=True)
class Helmholtz(PDE):
    """``-div(K grad u) - wavenumber^2 u = f`` for a complex field u, waves as exp(-i omega t).

    A side with ``absorbing: true`` lets waves out: n . K grad u = i wavenumber sqrt(K) u,
    to first order.
    """

    wavenumber: Coefficient
    f: Coefficient = 0.0
    K: Coefficient = 1.0
    sponge: Sponge | None = None
    kind: Literal["helmholtz"] = "helmholtz"
    title: ClassVar[str] = "helmholtz"
    complex: ClassVar[bool] = True
    always_linear: ClassVar[bool] = True

    @property
    def coefficient_form(self) -> Equation | None:
        """With -wavenumber^2 for c, where that can be written and nothing absorbs."""
        k = self.wavenumber
        if self.sponge is not None or not isinstance(k, (str, Real)):
            return None
        return Equation(K=self.K, c=f"-(({k})**2)", f=self.f)

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """Yes."""
        return True

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """u alone."""
        return ("u",)


@dataclass(frozen=True)
class Elasticity(PDE):
    """Small deformations of a solid on a mesh: -div sigma(u) = force, sigma = C : sym(grad u).

    ``young`` (Pa) and ``poisson_ratio`` may differ by region; in 2-D ``plane`` tells thin plates
    (stress) from long bodies (strain). ``thermal_strain``: alpha (T - T0), the strain that heating
    would give a free body, alike in all directions: sigma = C : (sym(grad u) - thermal_strain 1).
    ``dirichlet`` is a list of displacements, ``neumann`` a list of tractions, ``contact`` the gap
    to a rigid body without friction. ``density`` (kg/m^3),
    which modes of vibration and motions in time ask for, may differ by region too.

    A solid is orthotropic where ``young`` is [E1, E2, E3]: then ``poisson_ratio`` is [nu12, nu13,
    nu23], nu_ij = -e_jj/e_ii under a pull along i, ``shear`` [G12, G13, G23], and
    ``thermal_strain`` may be one for each axis. Of ``plane: stress`` [E1, E2], [nu12] and [G12] are
    enough. ``angle``: degrees from x to axis 1, counterclockwise, axis 3 along z; or ``frame``: the
    directions of axis 1 and, in space, of axis 2.
    """

    young: Coefficient | Vector
    poisson_ratio: Coefficient | Vector = 0.3
    force: Vector | None = None
    plane: Literal["strain", "stress"] = "strain"
    thermal_strain: Coefficient | Vector = 0.0
    density: Coefficient = 1.0
    shear: Vector | None = None
    angle: Coefficient = 0.0
    frame: tuple[Vector, ...] | None = None
    kind: Literal["elasticity"] = "elasticity"
    title: ClassVar[str] = "elasticity"
    always_linear: ClassVar[bool] = True
    element: ClassVar[Literal["P1", "P2"]] = "P2"
    touches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        key = "problem.equation"
        if not self.orthotropic:
            for name in ("poisson_ratio", "shear", "thermal_strain", "frame"):
                if isinstance(getattr(self, name), (list, tuple)):
                    raise InputError(
                        f"{name} is a list where young is one too, [E1, E2, E3]", f"{key}.{name}"
                    )
            if not _equals(self.angle, 0.0):
                raise InputError(
                    "a solid alike in all directions has no angle; give young: [E1, E2, E3]",
                    f"{key}.angle",
                )
            return
        count = len(self.young)
        if count not in (2, 3):
            raise InputError("young is one number, [E1, E2, E3] or [E1, E2]", f"{key}.young")
        for name, told in (("poisson_ratio", "[nu12, nu13, nu23]"), ("shear", "[G12, G13, G23]")):
            value = getattr(self, name)
            wanted = 3 if count == 3 else 1
            if not isinstance(value, (list, tuple)) or len(value) != wanted:
                raise InputError(
                    f"beside young of {count} axes {name} is "
                    f"{told if count == 3 else told.split(',')[0] + ']'}",
                    f"{key}.{name}",
                )
        heat = self.thermal_strain
        if isinstance(heat, (list, tuple)) and len(heat) != count:
            raise InputError(
                f"thermal_strain is one number or {count}, one for each axis of the material",
                f"{key}.thermal_strain",
            )
        if self.frame is not None and not _equals(self.angle, 0.0):
            raise InputError("give angle or frame, not both", f"{key}.frame")

    @property
    def orthotropic(self) -> bool:
        """Whether its axes differ."""
        return isinstance(self.young, (list, tuple))

    @property
    def of_second_order_in_time(self) -> bool:
        """Yes."""
        return True

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """Yes: deformations are small."""
        return True

    def vectors(self, dimension: int) -> Mapping[str, tuple[str, ...]]:
        """The displacement."""
        return {"displacement": COMPONENTS[:dimension]}

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """The displacement's components."""
        return COMPONENTS[:dimension]


@dataclass(frozen=True)
class Hyperelasticity(PDE):
    """Large deformations of a compressible neo-Hookean solid on a mesh: -div P(grad u) = force.

    ``young`` and ``poisson_ratio`` are those of small deformations. Coordinates, ``force`` and the
    tractions of ``neumann`` are per volume and area of the body at rest. In 2-D the body is long
    (plane strain). ``density`` stands before u_tt of a problem in time.
    """

    young: Coefficient
    poisson_ratio: Coefficient = 0.3
    force: Vector | None = None
    density: Coefficient = 1.0
    kind: Literal["neo_hookean"] = "neo_hookean"
    title: ClassVar[str] = "neo_hookean"
    element: ClassVar[Literal["P1", "P2"]] = "P2"

    @property
    def of_second_order_in_time(self) -> bool:
        """Yes."""
        return True

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """No: the body's shape changes."""
        return False

    def vectors(self, dimension: int) -> Mapping[str, tuple[str, ...]]:
        """The displacement."""
        return {"displacement": COMPONENTS[:dimension]}

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """The displacement's components."""
        return COMPONENTS[:dimension]


@dataclass(frozen=True)
class Integral:
    """What a residual may name as a number at every point: an integral along one axis through it.

    Of the expression ``of``, in which s runs along the axis ``along`` from ``lower`` to ``upper``
    while the coordinates stay those of the point; the functions and their derivatives are taken at
    s. The ends may depend on the coordinates: Volterra's equations have ``upper="x"``. By Gauss and
    Legendre's rule of ``points`` points.
    """

    of: Coefficient
    lower: Coefficient
    upper: Coefficient
    along: str = "x"
    points: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.points <= _MOST_NODES:
            raise InputError(
                f"points of an integral are 1 to {_MOST_NODES}; got {self.points}",
                "problem.equation.integrals",
            )


_MOST_NODES = 1000
RUNNING = "s"  # along an integral


@dataclass(frozen=True)
class WrittenOut(PDE):
    """What vanishes, written out: for what no other form covers; at points.

    ``residuals``: one or more sums of terms in the coordinates, t, the parameters, the unknown
    ``functions`` and their derivatives of any order, each called by its function and its axes:
    ``"utt + uxxxx - sin(x)"``, ``"vxy"``. In Python a function may stand for a text: it takes by
    name what it needs and gives its terms, ``lambda uxx, u, x: (uxx, u**2, -x)``; their sizes say
    what of their sum is small. ``integrals``: by the name that residuals call them. A side is
    ``periodic``, has ``dirichlet`` values, or ``residuals`` of its own. Without a ``domain`` the
    functions are of t alone.
    """

    residuals: tuple[Coefficient, ...]
    functions: tuple[str, ...] = ("u",)
    integrals: Mapping[str, Integral] = field(default_factory=dict)
    kind: Literal["residual"] = "residual"
    title: ClassVar[str] = "residual"
    written_out: ClassVar[bool] = True

    def __post_init__(self) -> None:
        key = "problem.equation"
        if not isinstance(self.residuals, (list, tuple)) or not self.residuals:
            raise InputError(
                'residuals is a list of what vanishes, such as ["uxxxx - 1"]', f"{key}.residuals"
            )
        if not self.functions or not all(str(name).isidentifier() for name in self.functions):
            raise InputError("functions is a list of names, such as [u, v]", f"{key}.functions")
        object.__setattr__(self, "residuals", tuple(self.residuals))
        object.__setattr__(self, "functions", tuple(self.functions))
        for k, name in enumerate(self.functions):
            if name in self.functions[:k]:
                raise InputError(f"two functions are called '{name}'", f"{key}.functions[{k}]")
            if derivative(name, self.functions, _ANY_AXES) is not None:
                raise InputError(
                    f"'{name}' would be a derivative of another; rename it", f"{key}.functions[{k}]"
                )
        for name in self.integrals:
            taken = name in self.functions or name in (*_ANY_AXES, RUNNING)
            if taken or derivative(name, self.functions, _ANY_AXES) is not None:
                raise InputError(
                    f"an integral cannot be called '{name}': the name is taken",
                    f"{key}.integrals.{name}",
                )

    @property
    def of_second_order_in_time(self) -> bool:
        """Where a residual names a second derivative by t."""
        last = len(_ANY_AXES) - 1
        found = (
            derivative(n, self.functions, _ANY_AXES) for n in sorted(free_names(self.residuals))
        )
        return any(of is not None and of[1].count(last) == 2 for of in found)

    @property
    def open_functions(self) -> int:
        """How many functions more than residuals there are."""
        return max(len(self.functions) - len(self.residuals), 0)

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """No: nobody can say."""
        return False

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """The functions."""
        return self.functions


_ANY_AXES = (*axis_names(3), *axis_names(MOST_DIMENSIONS), "t")


def derivative(
    name: str, functions: Sequence[str], axes: Sequence[str]
) -> tuple[int, tuple[int, ...]] | None:
    """The function and the axes, in order, of the derivative called ``name``; None if it is none.

    ``axes``: the names of all coordinates, t the last where there is time.
    """
    longest = sorted(axes, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest)))
    for k, function in enumerate(functions):
        tail = name.removeprefix(function)
        found = pattern.findall(tail)
        if tail and tail != name and "".join(found) == tail:
            return k, tuple(sorted(axes.index(axis) for axis in found))
    return None


@dataclass(frozen=True)
class Plasticity(PDE):
    """Small deformations of a metal that yields, on a mesh: -div sigma = force (J2 plasticity).

    sigma = C : (sym(grad u) - e_p), within von Mises' surface sqrt(3/2) |dev sigma - beta| <=
    ``yield_stress`` + ``hardening`` p, p the accumulated plastic strain, beta = 2/3
    ``kinematic_hardening`` e_p; the plastic strain e_p grows along its normal (associated flow).
    Loads are functions of t, which only orders them: the body moves slowly. In 2-D it is long
    (plane strain), or one of revolution. ``dirichlet`` and ``neumann`` as for :class:`Elasticity`.
    """

    young: Coefficient
    yield_stress: Coefficient
    poisson_ratio: Coefficient = 0.3
    hardening: Coefficient = 0.0
    kinematic_hardening: Coefficient = 0.0
    force: Vector | None = None
    plane: Literal["strain", "stress"] = "strain"
    kind: Literal["plasticity"] = "plasticity"
    title: ClassVar[str] = "plasticity"
    element: ClassVar[Literal["P1", "P2"]] = "P2"
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.plane == "stress":
            raise InputError(
                "plasticity is not solved in plane stress: take a thin body in space, with a mesh "
                "in 3 dimensions, or plane: strain for a long one",
                "problem.equation.plane",
            )

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        """No: the body yields."""
        return False

    def vectors(self, dimension: int) -> Mapping[str, tuple[str, ...]]:
        """The displacement."""
        return {"displacement": COMPONENTS[:dimension]}

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        """The displacement's components."""
        return COMPONENTS[:dimension]


# What a system may be made of.
Part = Equation | NavierStokes | Stokes | Elasticity | Hyperelasticity
AnyEquation = (
    Equation
    | System
    | NavierStokes
    | Stokes
    | Helmholtz
    | Elasticity
    | Hyperelasticity
    | Plasticity
    | WrittenOut
)
KINDS: tuple[str, ...] = tuple(get_args(Kind))
COMPLEX_KINDS = frozenset(part.kind for part in get_args(AnyEquation) if part.complex)
