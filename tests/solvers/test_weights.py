"""Weights on disk: what was written comes back, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from sciml.core.errors import InputError
from sciml.core.run.weights import FILE, load_into, write_weights
from sciml.solvers.learned import weights
from sciml.solvers.learned.weights import read_stored, read_weights

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor([1, -2], dtype=torch.int64),
    "c": torch.tensor(0.1, dtype=torch.float64),
    "none": torch.zeros(0, 4),
}
OPTIONS = {"width": 3, "levels": [1, 2], "name": "é"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_weights(tmp_path / FILE, "some", OPTIONS, TENSORS, {"seed": 1})
    return tmp_path / FILE


def test_what_was_written_comes_back(file: Path) -> None:
    for path in (file, str(file), file.parent):
        options, tensors = read_weights(path, "some")
        assert options == OPTIONS
        assert set(tensors) == set(TENSORS)
        for name, value in TENSORS.items():
            assert tensors[name].dtype == value.dtype
            assert torch.equal(tensors[name], value)
    assert read_stored(file, "some").provenance == {"seed": 1}
    assert list(file.parent.iterdir()) == [file]


def test_no_length_of_the_header_looks_like_a_pickle(tmp_path: Path) -> None:
    # A file begins with that length; 640 = 0x0280, say, is how a pickle of protocol 2 begins.
    for length in range(0, 264, 8):
        options = {"text": "x" * length}
        write_weights(tmp_path / FILE, "some", options, TENSORS, {})
        if (tmp_path / FILE).read_bytes()[:1] == b"\x80":
            break
    assert (tmp_path / FILE).read_bytes()[1] in range(1, 6)
    assert read_weights(tmp_path / FILE, "some")[0] == options


def test_strided_tensors_are_written_as_they_look(tmp_path: Path) -> None:
    value = torch.arange(12.0).reshape(3, 4)
    views = {"turned": value.T, "part": value[:, 1], "whole": value}
    write_weights(tmp_path / "x.safetensors", "some", {}, views, {})
    _, tensors = read_weights(tmp_path / "x.safetensors", "some")
    assert all(torch.equal(tensors[name], views[name]) for name in views)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_never_read_as_weights(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("weights") / FILE
    write_weights(file, "some", OPTIONS, TENSORS, {"seed": 1})
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    with pytest.raises(InputError):
        options, tensors = read_weights(file, "some")
        # A change that the reader of the format does not see at all is no change.
        same = options == OPTIONS and all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)
        raise InputError("equal") if same else AssertionError("damaged weights were read")


@pytest.mark.parametrize("length", [0, 1, 8, 100, -1])
def test_a_cut_file_is_refused(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(InputError, match="holds no weights"):
        read_weights(file, "some")


def test_other_kinds_other_formats_and_nothing_at_all(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kind 'some', not 'other'"):
        read_weights(file, "other")
    save_file(TENSORS, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="no header of ours"):
        read_weights(tmp_path / "bare.safetensors", "some")
    with pytest.raises(InputError, match="there is no such file or folder"):
        read_weights(tmp_path / "absent", "some")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"there is no {FILE}"):
        read_weights(tmp_path / "empty", "some")


def test_a_pickle_is_refused_by_any_name(tmp_path: Path) -> None:
    for name in ("model.pt", "weights.safetensors"):
        torch.save({"a": torch.zeros(2)}, tmp_path / name)
        with pytest.raises(InputError, match="is a pickle"):
            read_weights(tmp_path / name, "some")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    broken = {"a": torch.zeros(2), "b": torch.tensor([0.0, bad])}
    write_weights(tmp_path / FILE, "some", {}, broken, {})
    with pytest.raises(InputError, match="b holds a NaN or an infinity"):
        read_weights(tmp_path / FILE, "some")


def test_a_failed_write_leaves_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError):
        write_weights(file, "some", {"bad": object()}, TENSORS, {})
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_module_takes_what_fits_and_says_what_does_not() -> None:
    module, other = nn.Linear(3, 2), nn.Linear(3, 2)
    load_into(module, other.state_dict(), "x")
    assert torch.equal(module.weight, other.weight)
    own = other.state_dict()
    cases = {
        "bias is missing": {"weight": own["weight"]},
        r"weight is \[3, 2\], not \[2, 3\]": {**own, "weight": own["weight"].T},
        "extra has no place": {**own, "extra": torch.zeros(1)},
    }
    for said, tensors in cases.items():
        with pytest.raises(InputError, match=said):
            load_into(module, tensors, "x")


def test_shipped_weights_go_by_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "shipped", lambda: {"poisson-2d": file})
    assert read_stored("poisson-2d", "some").path == file
    with pytest.raises(InputError, match="did you mean 'poisson-2d'"):
        read_stored("poisson-2", "some")
