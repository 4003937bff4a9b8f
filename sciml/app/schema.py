"""Pydantic types read off frozen dataclasses, so that a spec is the dataclass itself.

For each dataclass a typed dictionary with the same fields is made, strict and closed, whose last
step is to call the dataclass. A union of dataclasses is told apart by ``kind``. A field annotated
by an interface (a protocol, an abstract class, Any) takes every class of those given; one that only
Python can fill (a callable, a tensor) is left out.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
)
from typing_extensions import NotRequired, Required, TypeAliasType, TypedDict

from sciml.app.yaml import UnknownKey, describe
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.condition import Condition
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.problem import Problem
from sciml.solvers.linear.preconditioner import Preconditioner, preconditioners

_PLAIN = (int, float, str, bool, type(None))
_HIDDEN = {(Grid, "domain"), (Points, "domain")}
# Required in Python, where one writes None for it.
_ABSENT = {(Problem, "domain")}
_INSTEAD = {
    "on": "; write grid:",
    "dataset": "; a family of problems is for sciml generate",
}


def adapter(
    root: type, choices: Sequence[type], types_of: Mapping[tuple[type, str], Any]
) -> TypeAdapter[Any]:
    """The adapter of the dataclass ``root``; ``choices`` stand wherever an interface does.

    ``types_of``: by class and field, the types whose annotation says too little.
    """
    types_ = _Types(types_of)
    # Pydantic resolves the forward reference that _Types gives an interface to this local.
    AnySolver = TypeAliasType("AnySolver", types_.union(choices))  # type: ignore[valid-type]  # noqa: F841
    stated = types_.dictionary(root)
    if types_.preconditioned:
        inner = types_.union(preconditioners())
        AnyPreconditioner = TypeAliasType("AnyPreconditioner", inner)  # type: ignore[valid-type]  # noqa: F841
    return TypeAdapter(stated)


@cache
def distributions(scalars_only: bool) -> TypeAdapter[Any]:
    """The adapter of what may stand in the place of a coefficient, or of a parameter."""
    from sciml.datasets.distributions import FIELDS, SCALARS

    return TypeAdapter(_Types({}).union(SCALARS if scalars_only else (*FIELDS, *SCALARS)))


class _NotInYaml(Exception):
    """The annotation can only be met in Python."""


class _Types:
    """Translates annotations; each dataclass once."""

    def __init__(self, types_of: Mapping[tuple[type, str], Any]) -> None:
        self.types_of = types_of
        self.made: dict[type, Any] = {}
        self.preconditioned = False

    def dictionary(self, cls: type) -> Any:
        """The typed dictionary of a dataclass, ending in a call of it."""
        if cls not in self.made:
            self.made[cls] = self._make(cls)
        return self.made[cls]

    def union(self, classes: Sequence[type]) -> Any:
        """One of several dataclasses, told apart by ``kind``; but those for Python only."""
        made: dict[type, Any] = {}
        for cls in classes:
            with suppress(_NotInYaml):
                made[cls] = self.dictionary(cls)
        owner = {kind: cls for cls in made for kind in kinds_of(cls)}
        tagged = [Annotated[entry, Tag(cls.__name__)] for cls, entry in made.items()]
        default = next((kind for kind, cls in owner.items() if len(kinds_of(cls)) > 1), None)
        choices: Any = Union[tuple(tagged)]  # noqa: UP007
        if len(classes) == 1:
            return Annotated[choices, BeforeValidator(_check_kind(tuple(owner), default))]
        return Annotated[
            choices,
            Discriminator(lambda value: owner[value.get("kind", default)].__name__),
            BeforeValidator(_check_kind(tuple(owner), default)),
        ]

    def _make(self, cls: type) -> Any:
        hints = _hints(cls)
        entries: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if (cls, field.name) in _HIDDEN or not field.metadata.get("yaml", True):
                continue
            try:
                hint = self.types_of.get((cls, field.name)) or self._translate(hints[field.name])
            except _NotInYaml:
                if _is_required(field):
                    raise
                continue
            # One that Python does not allow its name, import, has PEP 8's underscore.
            entries[field.name.rstrip("_")] = _entry(cls, field, hint)
        made: Any = TypedDict(cls.__name__, entries)  # type: ignore[misc]
        names = {field.name.rstrip("_"): field.name for field in dataclasses.fields(cls)}
        absent = {name: None for owner, name in _ABSENT if owner is cls}
        made.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
        made.__doc__ = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
        return Annotated[
            made,
            BeforeValidator(_check_keys(cls.__name__, tuple(entries))),
            AfterValidator(lambda given: cls(**absent | {names[n]: v for n, v in given.items()})),
        ]

    def _translate(self, hint: Any) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.dictionary(hint)
        if hint in _PLAIN or origin is Literal:
            return hint
        if origin in (Union, types.UnionType):
            return self._union(arguments)
        if origin is tuple:
            series: Any = tuple
            return series[tuple(a if a is ... else self._translate(a) for a in arguments)]
        if origin is Mapping:
            generic: Any = Mapping
            value = self._by_field() if arguments[1] is Condition else self._translate(arguments[1])
            return generic[arguments[0], value]
        if hint is Preconditioner:
            self.preconditioned = True
            return ForwardRef("AnyPreconditioner")
        if hint is Any or _is_interface(hint):
            return ForwardRef("AnySolver")
        raise _NotInYaml

    def _by_field(self) -> Any:
        """A side's condition, or one for each field."""
        one = self.dictionary(Condition)
        generic: Any = Mapping
        known = [f.name for f in dataclasses.fields(Condition)]

        def which(value: Any) -> str:
            several = isinstance(value, dict) and bool(value)
            several = several and all(isinstance(entry, dict) for entry in value.values())
            # A key that is nearly one of a condition's is a slip, and no field.
            near = several and any(get_close_matches(str(key), known, 1, 0.7) for key in value)
            return "several" if several and not near else "one"

        return Annotated[
            Annotated[one, Tag("one")] | Annotated[generic[str, one], Tag("several")],
            Discriminator(which),
        ]

    def _union(self, arguments: tuple[Any, ...]) -> Any:
        kinds = [a for a in arguments if isinstance(a, type) and _has_kind(a)]
        parts: list[Any] = [self.union(kinds)] if kinds else []
        for argument in arguments:
            if argument not in kinds:
                try:
                    parts.append(self._translate(argument))
                except _NotInYaml:
                    continue
        if all(part is type(None) for part in parts):
            raise _NotInYaml
        return Union[tuple(parts)]  # noqa: UP007


def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass, evaluated."""
    # The marker in front of fields by keyword is no type, says Python 3.10.
    return get_type_hints(cls, localns={"KW_ONLY": object}, include_extras=True)


def kinds_of(cls: type) -> tuple[str, ...]:
    """The values of a class's field ``kind: Literal[...]``."""
    return get_args(_hints(cls)["kind"])


def _has_kind(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and bool(get_args(_hints(cls).get("kind")))


def _is_interface(hint: Any) -> bool:
    return isinstance(hint, type) and (
        getattr(hint, "_is_protocol", False) or bool(getattr(hint, "__abstractmethods__", ()))
    )


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _entry(cls: type, field: dataclasses.Field[Any], hint: Any) -> Any:
    if _is_required(field):
        return NotRequired[hint] if (cls, field.name) in _ABSENT else Required[hint]
    if isinstance(field.default, _PLAIN) and field.default is not None:
        hint = Annotated[hint, Field(json_schema_extra={"default": field.default})]
    return NotRequired[hint]


def _check_keys(name: str, known: tuple[str, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise InputError(
                f"expected a mapping with the keys {', '.join(known)}; got {describe(value)}"
            )
        for key in value:
            if key not in known:
                tail = _INSTEAD.get(key) or did_you_mean(key, known)
                raise UnknownKey(f"unknown key '{key[:60]}'{tail}", f".{key}")
        return value

    return check


def _check_kind(known: Sequence[str], default: str | None) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        example = f"{{kind: {known[0]}}}"
        if not isinstance(value, dict):
            raise InputError(f"expected a mapping such as {example}; got {describe(value)}")
        if "kind" not in value and default is None:
            raise InputError(f"kind is missing; one of {', '.join(known)}")
        kind = value.get("kind", default)
        if not isinstance(kind, str) or kind not in known:
            tail = did_you_mean(str(kind)[:60], known)
            raise InputError(f"unknown kind '{str(kind)[:60]}'{tail}", ".kind")
        return value

    return check
