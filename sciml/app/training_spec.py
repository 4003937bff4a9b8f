"""What ``sciml train`` takes: data, an operator to fit to it, and how; or a preconditioner.

A folder of data is one that ``sciml generate`` wrote, relative to the current directory as its
``--out`` was; the family of a stream is a spec, relative to the file that names it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sciml.app.yaml import Source
from sciml.datasets.loader import Times
from sciml.training import Files, Training


@dataclass(frozen=True)
class Solved:
    """Problems of a family that are solved while the network trains; no files.

    family: its spec, relative to this one.
    changes: values of it to replace, such as ``"grid.shape=[33,33]"``.
    batches: batches in an epoch.
    seed: of the training samples; the validation samples are other ones.
    valid: how many validation samples, solved once.
    times: which frames of a trajectory are input and which output.
    """

    family: str
    batches: int
    changes: tuple[str, ...] = ()
    seed: int = 0
    valid: int = 100
    times: Times | None = None
    kind: Literal["stream"] = "stream"


@dataclass(frozen=True)
class OperatorSpec:
    """Data, an operator to fit to it, and how.

    ``operator``: the options of an architecture of ``sciml.operators``, or of one from elsewhere.
    ``start``: the folder of a run whose weights this one begins with. ``source`` is the text it was
    read from.
    """

    data: Files | Solved
    operator: Any
    training: Training = field(default_factory=Training)
    start: str | None = None
    name: str = ""
    source: Source | None = field(default=None, repr=False, compare=False, metadata={"yaml": False})

    @property
    def title(self) -> str:
        """Its name, or that of its file."""
        return self.name or (Path(self.source.name).stem if self.source else self.operator.kind)


@dataclass(frozen=True)
class OneProblem:
    """The matrix of a problem: ``spec``, relative to this file; ``changes`` replace its values."""

    spec: str
    changes: tuple[str, ...] = ()
    kind: Literal["problem"] = "problem"


@dataclass(frozen=True)
class FamilySamples:
    """The matrices of the first ``count`` samples of a family, relative to this file."""

    family: str
    count: int
    changes: tuple[str, ...] = ()
    seed: int = 0
    kind: Literal["family"] = "family"


@dataclass(frozen=True)
class Matrices:
    """The Matrix Market (.mtx, .mtx.gz) and SciPy (.npz) files in a folder, in order of name."""

    folder: str
    kind: Literal["matrices"] = "matrices"


@dataclass(frozen=True)
class PreconditionerSpec:
    """Matrices, and what is trained on them.

    ``preconditioner``: a training of ``sciml.solvers``, such as ConjugateTraining. ``source`` is
    the text it was read from.
    """

    data: OneProblem | FamilySamples | Matrices
    preconditioner: Any
    name: str = ""
    source: Source | None = field(default=None, repr=False, compare=False, metadata={"yaml": False})

    @property
    def title(self) -> str:
        """Its name, or that of its file."""
        return self.name or (
            Path(self.source.name).stem if self.source else self.preconditioner.kind
        )
