"""``sciml validate``: which kind a spec is of, what it states, and whether it can be done.

Nothing is solved, trained or written. Of a family the first sample is looked at; data that another
command has still to make is no fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sciml.app import read, run
from sciml.app.run import Setting
from sciml.app.spec import Spec
from sciml.app.train import opened, rounds
from sciml.app.training_spec import Matrices, OneProblem, OperatorSpec, PreconditionerSpec
from sciml.app.yaml import Source, read_yaml
from sciml.core.errors import InputError
from sciml.datasets.family import Family
from sciml.datasets.foreign import is_foreign
from sciml.datasets.store import read_manifest
from sciml.operators.module import Module
from sciml.training import Files

AnySpec = Spec | Family | OperatorSpec | PreconditionerSpec


Checked = tuple[tuple[str, ...], dict[str, str]]  # remarks, and facts by name


def validated(
    path: Path, overrides: Iterable[str], setting: Setting
) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """What a spec states, remarks on it, and facts by name; raises InputError for a faulty one."""
    source = read_yaml(path)
    stated: AnySpec = read.read(source, overrides)
    notes, facts = _checked(stated, source, setting)
    return describe(stated, path), notes, {**facts, "spec": "valid"}


def describe(stated: AnySpec, path: Path) -> str:
    """One line: the kind of a spec, and what it states."""
    if isinstance(stated, Spec):
        return f"{read.PROBLEM.name}: {run.describe(stated)}"
    if isinstance(stated, Family):
        name = stated.dataset.name or " ".join(stated.problem.name.split()) or path.stem
        what = f"{stated.problem.equation.kind} on {run.extent(stated.on)}"
        return f"{read.FAMILY.name}: {name}: {what}, {_samples(stated)}"
    if isinstance(stated, OperatorSpec):
        data = stated.data
        name = Path(data.path).name if isinstance(data, Files) else Path(data.family).stem
        name = " ".join(name.split())
        what = f"{stated.operator.kind} on {name}, {stated.training.epochs} epochs"
        return f"{read.OPERATOR.name}: {what}"
    name = " ".join(Path(_place(stated)).stem.split())
    what = f"{stated.preconditioner.kind} on {name}, {rounds(stated.preconditioner)} epochs"
    return f"{read.PRECONDITIONER.name}: {what}"


def _checked(stated: AnySpec, source: Source, setting: Setting) -> Checked:
    if isinstance(stated, Spec):
        return _problem(stated, setting)
    if isinstance(stated, Family):
        return _family(stated, source, setting)
    if isinstance(stated, OperatorSpec) and isinstance(stated.data, Files):
        return (), _stored(stated, stated.data, source)
    data = stated.data
    assert not isinstance(data, Files)
    if isinstance(data, Matrices):
        missing = {"data": f"'{data.folder}' is not there yet; put matrices there"}
        return (), {} if Path(data.folder).is_dir() else missing
    if isinstance(data, OneProblem):
        inner = read.named_by(source, "data.spec", data.spec)
        return _problem(read.read_spec(inner, data.changes), setting)
    inner = read.named_by(source, "data.family", data.family)
    return _family(read.read_family(inner, data.changes), inner, setting)


def _problem(spec: Spec, setting: Setting) -> Checked:
    """Facts of the linear system where there is one; the solver is set up as if to solve."""
    if spec.modes is not None:
        return _modes(spec, setting)
    try:
        _, told = run.check(spec)
    except InputError as error:
        raise InputError(read.explain(error, spec)) from None
    system = run.reduced(spec, setting)
    try:
        run.begin(spec, setting, system)
    except InputError as error:
        raise InputError(read.explain(error, spec)) from None
    if system is None:
        return told, {}
    tags = [name for name in ("symmetric", "definite", "nullspace") if getattr(system.A, name)]
    return (*system.notes, *told), {
        "unknowns": f"{system.A.size:,}",
        "operator": ", ".join(tags) or "not symmetric",
        "discretisation needs about": f"{run.memory(spec, setting) / 1e6:.3g} MB",
    }


def _modes(spec: Spec, setting: Setting) -> Checked:
    """Facts of the pencil whose eigenvalues are asked for."""
    from sciml.app.modes import checked

    posed, free = checked(spec, setting)
    return posed.notes, {"unknowns": f"{free:,}", "operator": "symmetric, with a mass"}


def _family(family: Family, source: Source, setting: Setting) -> Checked:
    """Those of the first sample."""
    try:
        drawn = family.draw(family.dataset.seed, [0])
        first = family.problems({place: value[0] for place, value in drawn.items()})
        place = (family.grid, family.mesh, family.geometry)
        spec = Spec(first, *place, solver=family.solver, source=source)
    except InputError as error:
        raise InputError(read.explain(error, source)) from None
    notes, facts = _problem(spec, setting)
    return notes, {"random": ", ".join(family.inputs), "samples": _samples(family), **facts}


def _stored(spec: OperatorSpec, data: Files, source: Source) -> dict[str, str]:
    """What goes in and out, and how large the network is, where the data are there."""
    folder = Path(data.path)
    ours = read_manifest(folder) is not None or read_manifest(folder.parent) is not None
    if not ours and not is_foreign(folder):
        return {"data": f"'{folder}' is not there yet; sciml generate makes it"}
    signature = opened(spec).signature
    if isinstance(spec.operator, Module):
        named = f"{', '.join(signature.inputs)} to {', '.join(signature.outputs)}"
        return {"data": named, "code": f"{spec.operator.import_}, which is run with --trust alone"}
    try:
        network = spec.operator.build(signature)
    except InputError as error:
        raise InputError(read.explain(error, source)) from None
    return {
        "data": f"{', '.join(signature.inputs)} to {', '.join(signature.outputs)}",
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
    }


def _place(spec: PreconditionerSpec) -> str:
    data = spec.data
    if isinstance(data, OneProblem):
        return data.spec
    return data.folder if isinstance(data, Matrices) else data.family


def _samples(family: Family) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in family.dataset.splits.items())
