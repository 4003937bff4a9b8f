"""What answers for an equation on a place: a function, looked up by the types of both.

A :class:`Dispatch` is one question. Its answer for two types is registered where it is written,

    @discretises(Helmholtz, Grid)
    def discretize_waves(problem, on, ...): ...

so that a new type of equation or of place is a module of its own, and no other module asks which
type an equation is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.pencil import Pencil
from sciml.core.errors import InputError
from sciml.core.problem.equation import PDE
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh

P = ParamSpec("P")
T = TypeVar("T")

_PLACES: dict[type, str] = {Grid: "on grids", Mesh: "on meshes", Points: "at points"}


class Dispatch(Generic[T]):
    """Functions by (type of equation, type of place); ``done`` is what they do to an equation."""

    def __init__(self, done: str) -> None:
        self.done = done
        self.functions: dict[tuple[type[PDE], type], Callable[..., T]] = {}

    def __call__(
        self, equation: type[PDE], *places: type
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Registers the decorated function for an equation on these places."""

        def register(function: Callable[P, T]) -> Callable[P, T]:
            self.functions.update(dict.fromkeys(((equation, p) for p in places), function))
            return function

        return register

    def knows(self, equation: PDE, place: type) -> bool:
        """Whether there is a function for the two."""
        return (type(equation), place) in self.functions

    def look_up(self, equation: PDE, place: type) -> Callable[..., T]:
        """The function for the two; raises InputError that says what there is instead."""
        if place is type(None):
            raise InputError("a problem needs a grid to be solved on: pass on=Grid((129, 129))")
        if not self.knows(equation, place):
            raise InputError(self._refusal(equation, place), "problem.equation.kind")
        return self.functions[type(equation), place]

    def _refusal(self, equation: PDE, place: type) -> str:
        where = sorted(_named(p) for known, p in self.functions if known is type(equation))
        if where:
            return f"'{equation.kind}' is {self.done} {_either(where)}, not {_named(place)}"
        # In the order of their definitions, whichever module was loaded first.
        who = [known.title for known in PDE.__subclasses__() if (known, place) in self.functions]
        if not who:
            return f"'{equation.kind}' is not {self.done} {_named(place)}; no equation is"
        return (
            f"'{equation.kind}' is not of {_either(who)}; "
            f"only such equations are {self.done} {_named(place)}"
        )


def _named(place: type) -> str:
    return _PLACES.get(place, f"on {place.__name__}")


def _either(names: Iterable[str]) -> str:
    *some, last = dict.fromkeys(names)
    return f"{', '.join(some)} or {last}" if some else last


# (problem, on, *, dtype, device): A x = b.
discretises: Dispatch[LinearSystem] = Dispatch("solved as a linear system")
# (problem, on, *, dtype, device): inertia u'' + mass u' + F(u, t) = 0.
semidiscretises: Dispatch[NonlinearSystem] = Dispatch(
    "stepped in time or solved by Newton's method"
)
# (problem, on, *, device): A u = lambda M u.
poses_modes: Dispatch[Pencil] = Dispatch("solved for modes")
# (problem, on, itemsize): bytes at the peak of the discretisation.
estimates_memory: Dispatch[int] = Dispatch("measured")
# (problem, on, value): named arrays on the place that are written beside an answer.
accompanies: Dispatch[dict[str, torch.Tensor]] = Dispatch("accompanied")
# (problem, parameters): the StrongForm.
states_at_points: Dispatch[Any] = Dispatch("solved")
# (problem, on): how quantities of an answer are measured, a Prepare; what they share is made once.
# At points also (problem, on, function), of a trained function.
measures: Dispatch[Any] = Dispatch("asked for quantities")
# (problem, on, value): the energy that the body stores, shape batch.
stores: Dispatch[torch.Tensor] = Dispatch("asked for its energy")
# (problem, on): by name how fields are derived from an answer, Derivations.
derives: Dispatch[Any] = Dispatch("differentiated")
# As measures, of forces alone, where they are not among them.
forces: Dispatch[Any] = Dispatch("asked for forces")
# (problem, on, points, what, key): values at points between the place's own, a function of a value
# and its time; of an expression ``what``, which errors call ``key``, or of all fields for None.
samples: Dispatch[Any] = Dispatch("sampled")
