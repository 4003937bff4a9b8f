"""Errors that a user can act on: what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A user's mistake: printed as one line, without a traceback, with exit code 2.

    ``key`` is the dotted path in the spec (``problem.equation.K``) where one is known; the
    spec loader turns it into file:line:column.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.key = key


class IncompatibleData(InputError):
    """Sources and fluxes that do not cancel, where nothing else fixes the level of u."""


class SolveError(RuntimeError):
    """Raised by ``solve(..., throw=True)`` when the answer does not meet its tolerance."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """An error message's tail: ``; did you mean 'x'?``, or the sorted list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(names)}"
