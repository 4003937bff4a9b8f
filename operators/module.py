"""Networks from elsewhere: anybody's ``nn.Module``, as an operator like those of this package.

Two ways. A frozen dataclass of options that builds a network is an architecture like ours once it
is registered, and may then stand in a spec and in a file:

    @architecture
    @dataclass(frozen=True)
    class Pointwise:
        width: int = 32
        kind: Literal["pointwise"] = "pointwise"

        def build(self, signature: Signature) -> nn.Module: ...

Or a class or function that makes a network is named, ``Module("my_package.Net", {"width": 32})``,
and called with these options; a parameter ``signature`` of it is given the :class:`Signature`. The
network maps (B, C_in, *opened grid) to (B, C_out, *opened grid), scaled; see :class:`Operator`.

To import what a text names is to run code. In Python the text is the user's own; that of a spec or
of a file of weights is somebody's, and is followed inside :func:`trusted` alone, which is
``--trust`` on the command line. A run keeps the hash of the source file, so that a file of weights
whose code has changed since is told.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from torch import nn

from sciml.core.errors import InputError, did_you_mean
from sciml.operators.operator import Options, Signature, architectures

Plain = bool | int | float | str | None
_Kind = TypeVar("_Kind", bound=type[Any])
_REGISTERED: dict[str, type[Any]] = {}
_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)


@dataclass(frozen=True)
class Module:
    """A network from elsewhere.

    import_: where the class or function that makes it is, ``my_package.Net``; ``import`` in a spec.
    options: what it is called with: numbers, texts, and lists of these.
    """

    import_: str
    options: Mapping[str, Plain | tuple[Plain, ...]] = field(default_factory=dict)
    kind: Literal["module"] = "module"

    def build(self, signature: Signature) -> nn.Module:
        """What the class or function makes.

        Raises InputError where there is none of this name, it does not take these options, or what
        it makes is no network.
        """
        make = _named(self.import_)
        known = inspect.signature(make).parameters
        options = {n: list(v) if isinstance(v, tuple) else v for n, v in self.options.items()}
        given = {"signature": signature, **options} if "signature" in known else options
        free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
        for name in given:
            if name not in known and not free:
                raise InputError(
                    f"'{self.import_}' takes no option '{name}'{did_you_mean(name, known)}",
                    "operator.options",
                )
        try:
            made = make(**given)
        except TypeError as error:
            raise InputError(f"'{self.import_}': {error}", "operator.options") from None
        if not isinstance(made, nn.Module):
            raise InputError(
                f"'{self.import_}' makes a {type(made).__name__}, not a torch.nn.Module",
                "operator.import",
            )
        return made


def architecture(cls: _Kind) -> _Kind:
    """Register a frozen dataclass of options, whose ``kind`` is then known to specs and files.

    Raises InputError where it has no ``kind: Literal[...]`` of its own, or no ``build``.
    """
    kinds = get_args(get_type_hints(cls).get("kind"))
    wanted = list(inspect.signature(Options.build).parameters)
    build = getattr(cls, "build", None)
    if len(kinds) != 1 or build is None or list(inspect.signature(build).parameters) != wanted:
        raise InputError(
            f'{cls.__name__} is no architecture: it needs kind: Literal["..."] and build(signature)'
        )
    taken: dict[str, type[Any]] = {Module.kind: Module, **_REGISTERED}
    taken |= {own.kind: own for own in architectures()}
    other = taken.get(kinds[0])
    if other is not None and _path(other) != _path(cls):
        raise InputError(f"the kind '{kinds[0]}' of {cls.__name__} is that of {_path(other)}")
    _REGISTERED[kinds[0]] = cls
    return cls


def choices() -> list[type[Any]]:
    """What may stand as ``operator:``: our architectures, those registered, and any module."""
    return [*architectures(), *_REGISTERED.values(), Module]


@contextmanager
def trusted(wanted: bool = True) -> Iterator[None]:
    """Inside, code that specs and files of weights name is imported and run.

    It is looked for where Python looks, and in the current directory.
    """
    before, path = _TRUSTED.set(wanted or _TRUSTED.get()), str(Path.cwd())
    added = wanted and path not in sys.path
    if added:
        sys.path.insert(0, path)
    try:
        yield
    finally:
        _TRUSTED.reset(before)
        if added and path in sys.path:
            sys.path.remove(path)


def check_trusted(what: str, key: str | None = None) -> None:
    """Raise InputError, saying why, unless code named by texts may be run."""
    if not _TRUSTED.get():
        raise InputError(
            f"'{what}' is code that is not sciml's, and importing it runs it; if you trust who "
            "wrote it: --trust, or in Python: with sciml.operators.module.trusted()",
            key,
        )


def code_of(options: Options) -> dict[str, str]:
    """Where the code of a network from elsewhere is, and the hash of its file; {} of ours."""
    if isinstance(options, Module):
        made, path = _named(options.import_), options.import_
    elif type(options) in _REGISTERED.values():
        made, path = type(options), _path(type(options))
    else:
        return {}
    found = {"import": path}
    try:
        file = inspect.getsourcefile(inspect.unwrap(made))
    except (TypeError, OSError):  # built in, or typed into an interpreter
        file = None
    if file is not None and Path(file).is_file():
        found["file"] = Path(file).name
        found["sha256"] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


def registered(kind: str, code: Mapping[str, str]) -> type[Any] | None:
    """The registered options of a kind; its module is imported first where it may be."""
    if kind not in _REGISTERED and "import" in code:
        check_trusted(code["import"])
        _named(code["import"])
    return _REGISTERED.get(kind)


def changed(options: Options, code: Mapping[str, str]) -> tuple[str, ...]:
    """What to say where the code is not that of the training any more."""
    own = code_of(options)
    if not code or own.get("sha256") == code.get("sha256"):
        return ()
    return (
        f"the code of '{code['import']}', in {code.get('file', 'no file')}, has changed since the "
        "weights were trained with it",
    )


def _path(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _named(path: str) -> Any:
    """What an import path names; raises InputError where nothing is there."""
    home, _, name = path.rpartition(".")
    if not home or not all(part.isidentifier() for part in path.split(".")):
        raise InputError(
            f"'{path}' is no import path; write my_package.Net or my_package.nets.Net",
            "operator.import",
        )
    try:
        module = importlib.import_module(home)
    except ImportError as error:
        raise InputError(f"cannot import '{path}': {error}", "operator.import") from None
    found = vars(module).get(name)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v)]
        raise InputError(f"'{home}' has no '{name}'{did_you_mean(name, known)}", "operator.import")
    return found
