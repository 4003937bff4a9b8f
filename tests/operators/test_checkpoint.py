"""Operators on disk: equal when read again, never damaged in silence, never a pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import safetensors.torch
import torch

from sciml.core.disk import write_record
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.run.weights import FILE, read_file, refuse_pickle, write_weights
from sciml.operators import MgNO, Operator, PODDeepONet, Signature, checkpoint
from sciml.operators.checkpoint import KIND, OLDER, _read_options, load_operator, save_operator
from sciml.solvers.learned.weights import read_stored

GRID = Grid((9, 10), domain=Box((0.0, -1.0), (1.0, 2.5)))
SIGNATURE = Signature(("a", "f"), ("u",), GRID, ("dirichlet", "neumann"))
ROOT = Path(__file__).resolve().parents[2]


def samples(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(5, 2, 9, 10, generator=torch.Generator().manual_seed(3))
    return x.to(dtype), (1 + 2 * x[:, :1]).to(dtype)


def small(seed: int = 0) -> Operator:
    operator = Operator.build(MgNO(width=4, layers=1, levels=2), SIGNATURE, seed=seed)
    operator.prepare(*samples())
    operator.provenance = {"dataset": "darcy", "seed": seed, "numbers": {2: 0.1, 10: (1, 2)}}
    return operator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_operator(small(), tmp_path)
    return tmp_path


def rewrite(folder: Path, **changes: Any) -> None:
    """Change what describes the tensors, and the hash with it, as another version may."""
    stored = read_file(folder / FILE, KIND)
    described = {**stored.options, **changes}
    write_weights(folder / FILE, KIND, described, stored.tensors, stored.provenance)


def save_older(operator: Operator, folder: Path) -> Path:
    """The two files that older versions wrote; returns that of the weights."""
    data = safetensors.torch.save(operator.state_dict())
    value = hashlib.sha256(data).hexdigest()
    weights = folder / f"operator-{value[:16]}.safetensors"
    weights.write_bytes(data)
    record = {
        "format": "sciml operator 1",
        "options": dataclasses.asdict(operator.options),  # type: ignore[call-overload]
        "signature": operator.signature.to_json(),
        "provenance": operator.provenance,
        "weights": weights.name,
        "weights_sha256": value,
    }
    write_record(folder / OLDER, record)
    return weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [MgNO(width=4, layers=1, levels=2), PODDeepONet(modes=3, branch=(6,), sensors=(4, 4))],
    ids=lambda options: options.kind,
)
def test_loaded_is_equal(options: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    operator = Operator.build(options, SIGNATURE, seed=1).to(dtype)
    x, y = samples(dtype)
    operator.prepare(x, y)
    operator.provenance = {"why": ["a", 1, None, 0.1]}
    save_operator(operator, tmp_path)
    again = load_operator(tmp_path)
    assert again.options == options
    assert again.signature == SIGNATURE
    assert again.provenance == operator.provenance
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    for (name, value), (other, copy) in zip(
        operator.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other
        assert value.dtype == copy.dtype
        assert torch.equal(value, copy), name
    assert torch.equal(operator(x), again(x))


def test_the_file_stands_for_the_folder_by_any_name(folder: Path) -> None:
    x, _ = samples()
    expected = small()(x)
    for name in ("other.safetensors", "operator-other.safetensors"):
        (folder / name).write_bytes((folder / FILE).read_bytes())
    for path in (folder, str(folder), *folder.iterdir()):
        assert torch.equal(load_operator(path)(x), expected)


def test_loading_leaves_the_global_generator(folder: Path) -> None:
    before = torch.get_rng_state()
    load_operator(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_saving_replaces_and_leaves_one_file(folder: Path) -> None:
    for _ in range(2):
        save_operator(small(seed=7), folder)
        assert list(folder.iterdir()) == [folder / FILE]
        assert load_operator(folder).provenance["seed"] == 7


def test_every_byte_counts(folder: Path) -> None:
    path = folder / FILE
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for position in (*range(0, header, 7), *range(header, len(whole), 61)):
        path.write_bytes(whole[:position] + bytes((whole[position] ^ 1,)) + whole[position + 1 :])
        told = "holds no weights" if position < header else "damaged or changed"
        with pytest.raises(InputError, match=told):
            load_operator(folder)
    for size in (0, 3, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="holds no weights"):
            load_operator(folder)


def test_a_file_written_over_does_not_change_what_was_loaded(folder: Path) -> None:
    operator, path = load_operator(folder), folder / FILE
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    x, _ = samples()
    assert torch.equal(operator(x), small()(x))


@pytest.mark.parametrize("described", [{}, {"options": {}}, {"a": 1}, [], 3, "a"])
def test_what_describes_no_operator_is_refused(described: Any, folder: Path) -> None:
    write_weights(folder / FILE, KIND, described, {}, {})
    with pytest.raises(InputError, match="describes no operator"):
        load_operator(folder)


def test_weights_of_another_kind_are_refused(folder: Path) -> None:
    write_weights(folder / FILE, "multigrid", {}, {}, {})
    with pytest.raises(InputError, match="holds weights of kind 'multigrid', not 'operator'"):
        load_operator(folder)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "last.ckpt", "weights.safetensors"])
@pytest.mark.parametrize("writer", ["torch", "torch, old format", "pickle 2", "pickle 5"])
def test_pickle_is_refused(name: str, writer: str, tmp_path: Path) -> None:
    path, sign = tmp_path / name, tmp_path / "sign"
    if writer.startswith("torch"):
        new = writer == "torch"
        torch.save({"a": Bomb(sign)}, path, _use_new_zipfile_serialization=new)
    else:
        path.write_bytes(pickle.dumps(Bomb(sign), protocol=int(writer[-1])))
    with pytest.raises(InputError, match=r"^refused: .* is a pickle"):
        load_operator(path)
    assert not sign.exists()


def test_pickle_in_the_place_of_the_weights_is_refused(folder: Path) -> None:
    torch.save(small().state_dict(), folder / FILE)
    with pytest.raises(InputError, match=r"^refused: .* is a pickle"):
        load_operator(folder)


def test_pickle_in_a_folder_without_operator_is_named(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"weights\.safetensors' is missing; model\.pt is refused"):
        load_operator(tmp_path)


def test_missing_files(folder: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or folder"):
        load_operator(folder / "typo")  # although an operator lies beside it
    other = folder / "history.csv"
    other.write_text("epoch\n")
    with pytest.raises(InputError, match="is no operator; give its folder"):
        load_operator(other)
    (folder / FILE).unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors' is missing"):
        load_operator(folder)


@pytest.mark.parametrize(
    ("options", "message", "key"),
    [
        ({"kind": "mgnoo"}, "unknown kind 'mgnoo'; did you mean 'mgno'", "operator.kind"),
        ({"width": 4}, "unknown kind 'None'", "operator.kind"),
        ("mgno", "unknown kind 'None'", "operator.kind"),
        ({"kind": "mgno", "widht": 4}, "'widht'; did you mean 'width'", "operator.widht"),
        ({"kind": "mgno", "width": "4"}, "operator.width cannot be '4'", "operator.width"),
        ({"kind": "mgno", "width": True}, "operator.width cannot be True", "operator.width"),
        ({"kind": "mgno", "width": 4.5}, "operator.width cannot be 4.5", "operator.width"),
        ({"kind": "mgno", "width": 0}, "width must be at least 1; got 0", "operator.width"),
        ({"kind": "mgno", "levels": [2]}, r"operator.levels cannot be \[2\]", "operator.levels"),
        ({"kind": "mgno", "kernel": "no"}, "operator.kernel cannot be 'no'", "operator.kernel"),
    ],
)
def test_options_are_checked(options: Any, message: str, key: str, folder: Path) -> None:
    rewrite(folder, options=options)
    with pytest.raises(InputError, match=message) as caught:
        load_operator(folder)
    assert caught.value.key == key
    assert "\n" not in caught.value.message


@dataclass(frozen=True)
class Part:
    sizes: tuple[int, ...]
    pair: tuple[float, str] = (1.0, "a")


@dataclass(frozen=True)
class Whole:
    part: Part
    other: Part | None = None
    kind: Literal["whole"] = "whole"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"part": {"sizes": [1, 2]}}, Whole(Part((1, 2)))),
        ({"part": {"sizes": []}, "other": None}, Whole(Part(()))),
        (
            {"part": {"sizes": [], "pair": [3, "b"]}, "other": {"sizes": [1]}},
            Whole(Part((), (3.0, "b")), Part((1,))),
        ),
        ({}, "operator.part is missing"),
        ({"part": {}}, "operator.part.sizes is missing"),
        ({"part": 3}, "operator.part must be a mapping"),
        ({"part": {"sizes": [1, "2"]}}, "operator.part.sizes cannot be '2'"),
        ({"part": {"sizes": [], "pair": [1.0]}}, "operator.part.pair needs 2 values"),
        ({"part": {"sizes": []}, "other": 3}, "operator.other cannot be 3"),
    ],
)
def test_nested_options(data: Any, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "architectures", lambda: [Whole])
    data = {**data, "kind": "whole"}
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            _read_options(data, Path(FILE))
    else:
        assert _read_options(data, Path(FILE)) == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"width": 5}, r"cycles\.0\.\S* is \[.*\], not \["),
        ({"layers": 2}, r"cycles\.1\.\S* is missing"),
        ({"levels": 1}, r"cycles\.0\.\S* has no place"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    changed: dict[str, int], message: str, folder: Path
) -> None:
    options = read_file(folder / FILE, KIND).options["options"]
    rewrite(folder, options={**options, **changed})
    with pytest.raises(InputError, match=f"the weights do not fit these options: .*{message}"):
        load_operator(folder)


def test_signature_that_is_none_is_refused(folder: Path) -> None:
    signature = read_file(folder / FILE, KIND).options["signature"]
    rewrite(folder, signature={**signature, "boundary": ["dirichlet"]})
    with pytest.raises(InputError, match="a signature needs one boundary per axis"):
        load_operator(folder)
    del signature["lower"]
    rewrite(folder, signature=signature)
    with pytest.raises(InputError, match="lower missing"):
        load_operator(folder)
    whole = {**signature, "lower": [0.0, -1.0]}
    for other in (3, None, {**whole, "lower": ["a", 0]}, {**whole, "lower": 0},
                  {**whole, "inputs": "af"}, {**whole, "boundary": None}):  # fmt: skip
        rewrite(folder, signature=other)
        with pytest.raises(InputError, match="describes no operator: its signature"):
            load_operator(folder)
    rewrite(folder, signature=None)
    with pytest.raises(InputError, match=r"it must have inputs, outputs, .*; it is None"):
        load_operator(folder)


def test_a_header_of_other_kinds_is_refused(folder: Path) -> None:
    stored = read_file(folder / FILE, KIND)
    nothing: Any = None
    write_weights(folder / FILE, KIND, stored.options, stored.tensors, nothing)
    with pytest.raises(InputError, match="its provenance is no mapping but None"):
        load_operator(folder)
    write_weights(folder / FILE, "a preconditioner", nothing, stored.tensors, {})
    with pytest.raises(InputError, match="its options are no mapping but None"):
        read_stored(folder / FILE, "a preconditioner")


def test_shared_and_strided_weights_are_saved(tmp_path: Path) -> None:
    operator = small()
    mean = torch.tensor([1.0, 2.0, 3.0])
    operator.input_mean, operator.input_std = mean[::2], mean[1:]  # overlapping, not contiguous
    save_operator(operator, tmp_path)
    again = load_operator(tmp_path)
    assert again.input_mean.tolist() == [1.0, 3.0]
    assert again.input_std.tolist() == [2.0, 3.0]


def numbered(number: int) -> Operator:
    """An operator whose weights tell its number, which its provenance tells too."""
    operator = small()
    operator.provenance = {"seed": number}
    operator.input_mean.fill_(number)
    return operator


class Death(BaseException):
    """The process ends here; nothing may catch it."""


@pytest.mark.parametrize("last", range(7))
@pytest.mark.parametrize("save", [save_operator, save_older])
def test_death_at_any_step_leaves_the_old_or_the_new(
    save: Any, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are the system calls that change or flush what is on the disk."""
    save(numbered(1), tmp_path)
    done: list[str] = []

    def mortal(call: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            if len(done) == last:
                raise Death
            done.append(call.__name__)
            return call(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, mortal(getattr(os, name)))
        with suppress(Death):
            save_operator(numbered(2), tmp_path)
    found = load_operator(tmp_path)
    number = found.provenance["seed"]
    assert found.input_mean.tolist() == [number, number]
    assert number == (2 if "replace" in done else 1)
    save_operator(numbered(3), tmp_path)
    assert load_operator(tmp_path).provenance["seed"] == 3
    assert [path for path in tmp_path.iterdir() if path.name[0] != "."] == [tmp_path / FILE]


# One process forks others, each of which saves again and again. It is killed during its second save
# or soon after, at a moment drawn from the time that the first one took.
KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from test_checkpoint import load_operator, numbered, save_operator

folder = Path(sys.argv[1])
random.seed(0)
number = 0
for _ in range(12):
    ready, told = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        while True:
            number += 1
            save_operator(numbered(number), folder)
            os.write(told, b"1")
    os.read(ready, 1)
    time.sleep(random.uniform(0, 1.5) * (time.monotonic() - start))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = load_operator(folder)
    last = found.provenance["seed"]
    assert found.input_mean.tolist() == [last, last]
    assert last > number
    number = last
    os.close(ready), os.close(told)
print("survived")
"""


def test_killed_while_saving(tmp_path: Path) -> None:
    paths = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "survived" in done.stdout


@pytest.mark.parametrize("size", [384, 640, 896, 1152])
def test_a_header_whose_length_looks_like_a_pickle_is_none(tmp_path: Path, size: int) -> None:
    file = tmp_path / "w.safetensors"
    header = b"{}".ljust(size)
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    assert file.read_bytes()[0] == 0x80
    refuse_pickle(file)


def test_options_larger_than_memory_and_weights_that_are_no_numbers_are_refused(
    tmp_path: Path,
) -> None:
    """A network of 10^13 weights is refused by its shapes, of which no byte is taken."""
    operator = small()
    save_operator(operator, tmp_path)
    options = read_file(tmp_path / FILE, KIND).options["options"]
    rewrite(tmp_path, options={**options, "width": 1_000_000})
    with pytest.raises(InputError, match="the weights do not fit these options"):
        load_operator(tmp_path)
    with torch.no_grad():
        next(operator.parameters()).view(-1)[0] = math.nan
    save_operator(operator, tmp_path)
    with pytest.raises(InputError, match="holds a NaN or an infinity"):
        load_operator(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_older_versions_wrote_is_read_and_replaced(dtype: torch.dtype, tmp_path: Path) -> None:
    operator = numbered(3).to(dtype)
    weights = save_older(operator, tmp_path)
    for path in (tmp_path, tmp_path / OLDER, weights):
        again = load_operator(path)
        assert (again.options, again.signature) == (operator.options, SIGNATURE)
        assert again.provenance == {"seed": 3}
        for name, value in operator.state_dict().items():
            assert again.state_dict()[name].dtype == value.dtype
            assert torch.equal(again.state_dict()[name], value), name
    save_operator(numbered(4), tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]
    assert load_operator(tmp_path).provenance == {"seed": 4}


def test_what_older_versions_wrote_is_refused_where_it_is_not_whole(tmp_path: Path) -> None:
    weights = save_older(small(), tmp_path)
    files = {weights: "damaged or changed", tmp_path / OLDER: "describes no operator"}
    for path, told in files.items():
        whole = path.read_bytes()
        for position in range(20, len(whole), len(whole) // 40):
            flip = bytes((whole[position] ^ 1,))
            path.write_bytes(whole[:position] + flip + whole[position + 1 :])
            with pytest.raises(InputError, match=told):
                load_operator(tmp_path)
        path.write_bytes(whole)
    other = tmp_path / "operator-other.safetensors"
    other.write_bytes(weights.read_bytes())
    with pytest.raises(InputError, match="is no operator; give its folder"):
        load_operator(other)
    torch.save({}, weights)
    with pytest.raises(InputError, match=r"^refused: .* is a pickle"):
        load_operator(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match=f"{weights.name}' is missing"):
        load_operator(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "{}", "[" * 100_000, '{"format": 1}', "\xff"])
def test_other_json_in_the_place_of_an_older_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / OLDER).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="describes no operator"):
        load_operator(tmp_path)


def test_older_weights_are_never_sought_elsewhere(tmp_path: Path) -> None:
    weights = save_older(small(), tmp_path)
    record = json.loads((tmp_path / OLDER).read_text())
    del record["sha256"]
    write_record(tmp_path / OLDER, {**record, "weights": f"../{tmp_path.name}/{weights.name}"})
    with pytest.raises(InputError, match="it has not the keys of one"):
        load_operator(tmp_path)
