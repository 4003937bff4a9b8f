"""What ``sciml solve`` takes: a problem, where to solve it, and the solver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isfinite
from typing import Any, Literal, get_args

from sciml.app.yaml import Source, SpecError, path_of
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.geometry import Geometry
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import MeshFile
from sciml.core.problem.place import check_place, placed
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import Unknown
from sciml.core.problem.unknown import Law, leaves
from sciml.core.run.labels import Label
from sciml.core.run.quantities import Output


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, evenly, or with ``log`` evenly in the logarithm.

    Raises InputError where it is empty, or a logarithm has none above zero.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high) and self.low < self.high):
            raise InputError(f"{self.low:g} is not below {self.high:g}")
        if self.log and not self.low > 0:
            raise InputError("a logarithm needs a range above zero")


@dataclass(frozen=True)
class Sweep:
    """What ``sciml sweep`` sweeps: parameters of the problem, each over its range.

    ``tolerance``: of the quantities, relative to the largest value of each. ``published``: of
    quantities by name the largest value over the sweep, as others report it.
    """

    over: Mapping[str, Range]
    tolerance: float = 1e-3
    published: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1e-12 < self.tolerance < 1:
            raise InputError(
                f"tolerance {self.tolerance:g}: give one between 1e-12 and 1", ".tolerance"
            )
        if not self.over:
            raise InputError("give over: {k: {low: 1, high: 100}}, parameters to sweep", ".over")


@dataclass(frozen=True)
class Modes:
    """What ``sciml modes`` finds: the ``count`` lowest, to ``rtol`` of their eigenvalues.

    ``published``: in the order of the modes what others report, null where nobody does: frequencies
    where the table has frequencies, else eigenvalues. ``buckling``: of an elastic body the factors
    of its load under which it buckles, in place of its vibrations.
    """

    count: int = 6
    rtol: float = 1e-8
    published: tuple[float | None, ...] = ()
    buckling: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"count must be 1 or more; got {self.count}", ".count")
        if not 1e-14 <= self.rtol < 1:
            raise InputError(f"rtol {self.rtol:g}: give one between 1e-14 and 1", ".rtol")
        if len(self.published) > self.count:
            raise InputError(
                f"{len(self.published)} values are published of {self.count} modes: raise count",
                ".published",
            )


@dataclass(frozen=True)
class Accuracy:
    """What is asked for in place of a grid: an ``error``, guaranteed.

    The distance to the solution of the differential equation in the energy norm, relative to the
    solution's own; see the solver ``adaptive``. ``most``: unknowns.
    """

    error: float
    most: int = 1_000_000

    def __post_init__(self) -> None:
        if not 0 < self.error < inf:
            raise InputError(f"error must be positive; got {self.error:g}", ".error")
        if self.most < 1:
            raise InputError(f"most must be at least 1; got {self.most}", ".most")


_COARSE = 17  # points along an axis to begin with


@dataclass(frozen=True)
class Spec:
    """A problem, the grid or mesh to solve it on, and the solver.

    Exactly one of ``grid``, ``mesh``, ``geometry`` and ``points`` is given; in a box ``accuracy``
    may stand in the place of a grid, and beside a mesh it says how far that is refined. ``solver``
    is one of
    ``sciml.solvers``; ``Auto()`` where the file gives none. ``output``: the numbers to report.
    ``labels``: what fields, coordinates, parameters and these numbers are called, and their units.
    ``certify``: bound the distance to the solution of the discrete problem, or of the differential
    equation. ``sweep``: what the numbers are followed over. ``modes``: how many are found.
    ``source`` is the text it was read from.
    """

    problem: Problem
    grid: Grid | None = None
    mesh: MeshFile | None = None
    geometry: Geometry | None = None
    points: Points | None = None
    solver: Any = None
    output: Output | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    sweep: Sweep | None = None
    modes: Modes | None = None
    accuracy: Accuracy | None = None
    certify: Literal["discrete", "pde"] | None = None
    source: Source | None = field(default=None, repr=False, compare=False, metadata={"yaml": False})

    def __post_init__(self) -> None:
        if self.accuracy is not None:
            if self.modes is not None:
                raise InputError("accuracy is not for modes, which have an rtol", "accuracy")
            self._ask(self.accuracy)
        check_place(self.problem, self.grid, self.mesh, self.geometry, self.points)
        if self.points is not None and not getattr(self.solver, "reads_problem", False):
            raise InputError(
                "points are for solvers that train a function, such as pinn; give grid: instead",
                "points",
            )
        if self.solver is not None and not hasattr(self.solver, "run"):
            raise InputError(
                f"{self.solver.kind} is a preconditioner, not a solver; "
                f"write {{kind: cg, preconditioner: {{kind: {self.solver.kind}}}}}",
                "solver.kind",
            )

        self._find()
        for name in () if self.sweep is None else self.sweep.over:
            self.check_swept(name, f"sweep.over.{name}")

    def _ask(self, accuracy: Accuracy) -> None:
        """Begin with a coarse grid where none is given, with a solver that refines it."""
        places = (self.grid, self.mesh, self.geometry, self.points)
        if all(place is None for place in places):
            coarse = Grid((_COARSE,) * self.problem.box.dimension)
            object.__setattr__(self, "grid", coarse)
        if self.solver is None:
            return
        from sciml.solvers.adaptive import Adaptive, Inner

        if isinstance(self.solver, get_args(Inner)):
            refines = Adaptive(accuracy.error, solver=self.solver, most=accuracy.most)
            object.__setattr__(self, "solver", refines)
        asked = isinstance(self.solver, Adaptive) and (self.solver.error, self.solver.most)
        if asked and asked != (accuracy.error, accuracy.most):
            raise InputError(
                "solver adaptive asks for another error or most than accuracy does: leave one out",
                "accuracy",
            )
        if not asked:
            kinds = ", ".join(each.kind for each in get_args(Inner))
            raise InputError(
                f"accuracy is for linear problems and their solvers: {kinds}", "accuracy"
            )

    def _find(self) -> None:
        """Let a solver of problems without unknowns answer at every guess at them."""
        if self.solver is None or not self.unknown:
            return
        from sciml.solvers.fit.fit import Fit, Inner

        if isinstance(self.solver, get_args(Inner)) and not self.problem.equation.written_out:
            object.__setattr__(self, "solver", Fit(solver=self.solver))

    @property
    def unknown(self) -> bool:
        """Whether a number or a function of the problem is to be found."""
        numbers = any(isinstance(p, Unknown) for p in self.problem.parameters.values())
        return numbers or bool(leaves(self.problem, (Unknown, Law)))

    def check_swept(self, name: str, key: str | None = None) -> None:
        """Raise InputError for what is no parameter that is a number."""
        known = self.problem.parameters
        if name not in known:
            tail = did_you_mean(name, known) if known else ": the problem has no parameters"
            tail += "" if key is None else "; --set sweep= leaves the sweep out"
            raise InputError(f"there is no parameter '{name}'{tail}", key)
        if not isinstance(known[name], (int, float)):
            tail = "" if key is None else "; --set sweep= leaves the sweep out"
            raise InputError(f"'{name}' is not a number that could be swept{tail}", key)

    @cached_property
    def on(self) -> Grid | Mesh | Points:
        """The grid, points or mesh: ``solve(spec.problem, spec.solver, on=spec.on)``."""
        try:
            return placed(self.problem, self.grid, self.mesh, self.geometry, self.points)
        except InputError as error:
            if self.source is None:
                raise
            key = error.key or "mesh"
            raise SpecError(error.message, self.source.place(path_of(key)), key) from None

    def moved(self, on: Grid | Mesh | Points) -> Spec:
        """The same where the answer came to live on another place."""
        found = replace(self)
        vars(found)["on"] = on
        return found

    @property
    def path(self) -> str:
        """The file it was read from."""
        return self.source.name if self.source else "spec"

    @property
    def text(self) -> str:
        """The YAML text it was read from, without overrides."""
        return self.source.text if self.source else ""

    def locate(self, key: str) -> str:
        """``file:line:column`` of a dotted key, or of the nearest key above it."""
        return self.source.locate(key) if self.source else self.path
