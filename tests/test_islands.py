"""Island corrections: exact projections that cure what islands do to the cycle."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.csgraph
import torch
from test_multigrid import blocks, diffusion, iterations, noise, symmetric_spectrum

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.solvers import Multigrid
from sciml.solvers.linear.multigrid import hierarchy, islands

CONDITIONS = ["dirichlet", "neumann", "periodic"]


def thresholded(shape, contrast=1e4, seed=0) -> torch.Tensor:
    """High above a Gaussian field's median, low below: both phases fill half, islands included."""
    waves = np.meshgrid(*[np.fft.fftfreq(n, 1 / n) ** 2 for n in shape], indexing="ij")
    noise = np.fft.fftn(np.random.default_rng(seed).standard_normal(shape))
    values = np.fft.ifftn(noise / (4 * np.pi**2 * sum(waves) + 9)).real
    return torch.as_tensor(np.where(values > np.median(values), contrast, 1.0))


def sprinkled(shape, contrast=1e4, seed=0) -> torch.Tensor:
    """Low, with high patches of 2 x 2 (x 1) cells here and there, some of them touching."""
    K = np.ones(shape)
    rng = np.random.default_rng(seed)
    for _ in range(max(2, K.size // 60)):
        corner = [rng.integers(0, n - 1) for n in shape]
        K[tuple(slice(c, c + 2) for c in corner[:2]) + tuple(corner[2:])] = contrast
    return torch.as_tensor(K)


def problem(K: torch.Tensor, shape, condition: str) -> LinearSystem:
    return diffusion(K, shape, condition, 1.0 if condition == "dirichlet" else "cos(2*pi*x)")


def indicators(found: islands.Islands) -> np.ndarray:
    """R as a dense matrix."""
    R = np.zeros((len(found), found.unknowns))
    for k, (start, end) in enumerate(
        zip(found.point_starts[:-1], found.point_starts[1:], strict=True)
    ):
        R[k, found.points[start:end]] = 1
    return R


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("shape", [(19, 16), (8, 7, 6)])
def test_the_correction_is_the_projection_off_the_islands(shape, condition) -> None:
    A = problem(sprinkled(shape), shape, condition).A
    found = islands.find(A, torch.float64)
    assert found is not None
    R, matrix = indicators(found), A.to_scipy().toarray()
    energies = R @ matrix @ R.T
    assert abs(energies - np.diag(np.diag(energies))).max() == 0
    x, b = torch.rand(2, 3, *shape, dtype=torch.float64)
    expected = [
        u + R.T @ ((R @ (v - matrix @ u)) / np.diag(energies))
        for u, v in zip(x.reshape(3, -1).numpy(), b.reshape(3, -1).numpy(), strict=True)
    ]
    other = x.clone()
    found.correct(x, b)
    np.testing.assert_allclose(x.reshape(3, -1), np.stack(expected), rtol=1e-9, atol=1e-9)
    found.correct_by_index(other.view(3, -1), b.view(3, -1))
    torch.testing.assert_close(other, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("shape", [(49, 45), (14, 13, 12)])
def test_islands_are_strongly_connected_components(shape, condition) -> None:
    A = problem(thresholded(shape, seed=1), shape, condition).A
    found = islands.find(A, torch.float64)
    assert found is not None
    matrix = A.to_scipy().tocoo()
    root = np.sqrt(matrix.diagonal())
    strong = matrix.data < -islands.BOUND * root[matrix.row] * root[matrix.col]
    graph = scipy.sparse.coo_matrix(
        (strong[strong], (matrix.row[strong], matrix.col[strong])), matrix.shape
    )
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(labels)
    D, dense = matrix.diagonal(), matrix.toarray()
    expected = set()
    for component in np.flatnonzero((sizes >= 2) & (sizes <= islands.LARGEST)):
        e = (labels == component).astype(float)
        if 1e-10 * (e @ D) < e @ dense @ e < islands.SLOW * (e @ D):
            expected.add(tuple(np.flatnonzero(e)))
    mine = {tuple(np.flatnonzero(row)) for row in indicators(found)}
    assert mine and mine <= expected
    for missing in expected - mine:  # each touches one that is there
        assert any((dense[np.ix_(missing, there)] != 0).any() for there in mine)


@pytest.mark.parametrize("K", [1.0, "1 + x*y", (1.0, 1e-3)])
def test_smooth_and_anisotropic_operators_have_none(K) -> None:
    A = diffusion(K, (65, 65)).A
    for one in (A, Stencil(A.coefficients.contiguous(), A.offsets, symmetric=True, definite=True)):
        assert all(level.islands is None for level in hierarchy.build(one, torch.float32).levels)


def test_the_whole_domain_is_no_island() -> None:
    """Nor is a part that nothing binds to the rest: its energy is rounding."""
    A = problem(torch.ones(8, 8, dtype=torch.float64), (8, 8), "neumann").A
    planes = A.coefficients.clone().contiguous()
    right = A.offsets.index((0, 1)), A.offsets.index((0, -1)), A.offsets.index((0, 0))
    cut = planes[right[0], :, 3].clone()
    planes[right[2], :, 3:5] += cut[:, None]
    planes[right[0], :, 3] = planes[right[1], :, 4] = 0
    halves = Stencil(planes, A.offsets, symmetric=True, definite=True)
    matrix = halves.to_scipy()
    assert abs(matrix @ np.ones(64)).max() < 1e-9 and abs(matrix - matrix.T).max() < 1e-12
    assert islands.find(halves, torch.float64) is None
    assert islands.find(A, torch.float64) is None


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("cycle", ["V", "alternating"])
@pytest.mark.parametrize("shape", [(23, 20), (9, 8, 7)])
def test_the_spectrum_stays_in_the_unit_interval_and_its_floor_rises(
    monkeypatch, shape, cycle, condition
) -> None:
    monkeypatch.setattr(hierarchy, "COARSEST", 8)
    system = problem(sprinkled(shape, 1e4), shape, condition)
    solver = Multigrid(cycle=cycle, dtype="float64")
    M = solver.setup(system.A)
    assert any(level.islands for level in M.hierarchy.levels)
    spectrum = symmetric_spectrum(system, M)
    monkeypatch.setattr(hierarchy, "find", lambda A, dtype: None)
    without = symmetric_spectrum(system, solver.setup(system.A))
    assert spectrum.max() <= 1 + 1e-9
    assert spectrum.min() >= min(0.2, 2 * without.min())


@pytest.mark.parametrize(
    ("shape", "seed", "limit"),
    [((255, 255), 0, 10), ((255, 255), 2, 17)] + [((31, 31, 31), seed, 13) for seed in range(3)],
)
def test_thresholded_fields(monkeypatch, shape, seed, limit) -> None:
    system = diffusion(thresholded(shape, seed=seed), shape)
    count = iterations(system)
    monkeypatch.setattr(hierarchy, "find", lambda A, dtype: None)
    assert count <= min(limit, iterations(system))


def test_high_patches_cost_few_iterations(monkeypatch) -> None:
    system = diffusion(sprinkled((31, 31, 31)), (31, 31, 31))
    assert iterations(system) <= 13
    monkeypatch.setattr(hierarchy, "find", lambda A, dtype: None)
    assert iterations(system) >= 18


def test_a_batch_gives_what_its_members_give() -> None:
    shape = (37, 30)
    fields = [sprinkled(shape), noise(shape), blocks(shape), thresholded(shape)]
    K = torch.stack([*fields, torch.ones(shape, dtype=torch.float64)])
    together = Multigrid(dtype="float64").setup(diffusion(K, shape).A)
    r = torch.rand(2, 5, *shape, dtype=torch.float64)
    z = together.apply(r)
    count = 0
    for k in range(5):
        alone = Multigrid(dtype="float64").setup(diffusion(K[k], shape).A)
        count += sum(len(level.islands) for level in alone.hierarchy.levels if level.islands)
        torch.testing.assert_close(alone.apply(r[:, k]), z[:, k])
    assert count == sum(len(level.islands) for level in together.hierarchy.levels if level.islands)


def test_the_table_and_the_map_name_them() -> None:
    M = Multigrid().setup(diffusion(sprinkled((40, 40)), (40, 40)).A)
    found = M.hierarchy.levels[0].islands
    assert found is not None and len(found) > 1
    assert f"5-point, {len(found)} islands" in str(M.hierarchy)
    assert "islands" in repr(M)
