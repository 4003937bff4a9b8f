"""The problems that the inputs of an operator stand for."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem import Problem
from sciml.datasets.distributions import SCALARS
from sciml.datasets.family import Family
from sciml.operators.operator import Signature


def problems_of(family: Family, signature: Signature) -> Callable[[Tensor], Problem]:
    """``problems(x (B, C_in, *grid))``: the batch with these inputs in place of what is random.

    Raises InputError where x does not say all of a steady linear problem with one unknown u.
    """
    if not family.problem.linear or family.problem.time is not None:
        raise InputError("the problem is not steady and linear")
    if family.problem.obstacle is not None:
        raise InputError("the samples have obstacles, each its own domain")
    if signature.outputs != ("u",):
        raise InputError(f"u alone must be the output; got {', '.join(signature.outputs)}")
    missing = [name for name in family.inputs if name not in signature.inputs]
    missing += [place for place in family.places if place not in family.inputs.values()]
    if missing:
        raise InputError(f"the inputs lack {', '.join(missing)}, which is random")
    unknown = [name for name in signature.inputs if name not in family.inputs]
    if unknown:
        raise InputError(f"the input '{unknown[0]}' has no place in the equation")

    def problems(x: Tensor) -> Problem:
        drawn = {}
        for name, channel in zip(signature.inputs, x.double().unbind(1), strict=True):
            place = family.inputs[name]
            number = isinstance(family.places[place], SCALARS)
            drawn[place] = channel.flatten(1)[:, 0] if number else channel
        return family.problems(drawn)

    return problems
