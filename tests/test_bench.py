"""The benchmark's pieces at tiny sizes: what it times is solved, what it calls rough is rough."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sciml.app import bench
from sciml.app.bench import certificate_table
from sciml.core.algebra.maps import LinearSystem

# The methods stop by recursive residuals, which rounding parts from the true one.
REACHED = 1.01 * bench.RTOL
METHODS: dict[str, bench.Method] = {
    bench.OURS: bench.ours,
    **bench.PYAMG,
    "SciPy CG": bench.scipy_cg,
}


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(lambda: bench.poisson(31, 2), id="constant-2d"),
        pytest.param(lambda: bench.poisson(11, 3), id="constant-3d"),
        pytest.param(lambda: bench.contrast(bench.coefficient("blocks", 40, 2)), id="blocks"),
        pytest.param(lambda: bench.contrast(bench.coefficient("field", 31, 2)), id="field"),
        pytest.param(lambda: bench.contrast(bench.coefficient("cells", 31, 2)), id="cells"),
        pytest.param(lambda: bench.contrast(bench.coefficient("cells", 9, 3)), id="cells-3d"),
    ],
)
def test_every_method_timed_reaches_the_same_true_residual(
    system: Callable[[], LinearSystem],
) -> None:
    built = system()
    matrix, b = built.A.to_scipy(), built.b.numpy().ravel()
    timings = bench.measure(built, METHODS, repeats=1)
    assert timings.keys() == METHODS.keys()
    for name, method in METHODS.items():
        x = method(built)[0].numpy().ravel()
        true = np.linalg.norm(b - matrix @ x) / np.linalg.norm(b)
        assert timings[name].residual <= REACHED, name
        assert timings[name].residual == pytest.approx(true, rel=0.9)
        assert timings[name].iterations >= 1


def test_the_fast_transform_solves_the_same_constant_problem() -> None:
    system = bench.poisson(31, 2)
    transformed, iterated = bench.fast_poisson(system)[0], bench.ours(system)[0]
    assert torch.allclose(transformed, iterated, rtol=1e-6, atol=1e-6 * float(iterated.abs().max()))


@pytest.mark.parametrize("n", [63, 127, 255])
@pytest.mark.parametrize("kind", ["blocks", "field", "cells", "checkerboard"])
def test_a_coefficient_jumps_by_the_contrast_it_names(kind: str, n: int) -> None:
    K = bench.coefficient(kind, n, 2, 1e4)
    assert K.shape == (n, n)
    assert K.min() >= 1
    assert K.max() <= 1e4
    # Between a fifth and four fifths lie above the geometric mean: neither phase is a mere fleck.
    assert 0.2 < (K > 100).mean() < 0.8
    if kind in ("field", "checkerboard"):
        assert set(np.unique(K)) == {1.0, 1e4}


@pytest.mark.parametrize("seed", range(8))
def test_every_sample_of_the_batch_has_two_phases(seed: int) -> None:
    K = bench.darcy(63, seed)
    assert set(np.unique(K)) == {3.0, 12.0}
    assert not np.array_equal(K, bench.darcy(63, seed + 1))


def true_residuals(table: str) -> list[float]:
    """The seventh column of every row of a table of timings."""
    rows = [line.split("|") for line in table.splitlines() if line.count("|") == 9]
    return [float(cells[7]) for cells in rows[2:]]


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        pytest.param(lambda: bench.constant_table([(15, 2), (7, 3)], 1, plain=True), 10, id="c"),
        pytest.param(lambda: bench.contrast_table([("cells", 15, 2, 1e6)], 1), 3, id="contrast"),
        pytest.param(lambda: bench.anisotropy_table(31, 1), 6, id="anisotropy"),
    ],
)
def test_the_tables_list_true_residuals_below_the_tolerance(
    table: Callable[[], str], rows: int
) -> None:
    residuals = true_residuals(table())
    assert len(residuals) == rows
    assert max(residuals) <= REACHED


def test_the_batch_is_solved_sample_by_sample() -> None:
    text = bench.batch_table(4, 31, 1)
    assert float(re.findall(r"worst residual ([^)]+)\)", text)[0]) <= REACHED


def test_the_certificate_brackets_the_true_error_in_every_cell() -> None:
    bounds = re.findall(r"([\d.]+) / ([\d.]+)", certificate_table(33))
    assert len(bounds) == 4 * 3 * 3
    for low, high in bounds:
        assert float(low) <= 1 <= float(high)


def test_the_suite_writes_every_part_and_puts_the_threads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_one_pass", lambda add, threads, *_: add(f"pass {threads}"))
    monkeypatch.setattr(bench, "scaling_table", lambda *_: "scaling")
    monkeypatch.setattr(bench, "startup_table", lambda: "start-up")
    monkeypatch.setattr(bench, "certificate_table", lambda size: f"certificate {size}")
    before = torch.get_num_threads()
    bench.elliptic(tmp_path / "results.md", quick=True)
    assert torch.get_num_threads() == before
    written = (tmp_path / "results.md").read_text()
    parts = ["pass 1", "pass 2", "scaling", "start-up", "Certificate", "certificate 63"]
    places = [written.index(part) for part in parts]
    assert places == sorted(places)
