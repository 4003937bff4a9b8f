"""The multigrid cycle is a symmetric positive definite inverse whose quality keeps with size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

import sciml
from sciml.core.algebra.kernels import reference
from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem
from sciml.discretization import discretize
from sciml.solvers import CG, FCG, GMRES, Direct, Multigrid
from sciml.solvers.linear.multigrid.hierarchy import build


def diffusion(K, shape, condition="dirichlet", f=1.0, centring="cell", **more) -> LinearSystem:
    box = Box((0.0,) * len(shape), (1.0,) * len(shape))
    one = Condition(periodic=True) if condition == "periodic" else Condition(**{condition: 0.0})
    problem = Problem(box, Equation(K=K, f=f, **more), {side: one for side in box.sides})
    return discretize(problem, Grid(tuple(shape), centring))


def noise(shape, contrast=1e4, seed=0) -> torch.Tensor:
    return torch.as_tensor(contrast ** np.random.default_rng(seed).random(shape))


def blocks(shape, contrast=1e4, cells=16, seed=0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    K = np.where(rng.random([-(-n // cells) for n in shape]) < 0.5, contrast, 1.0)
    for axis in range(len(shape)):
        K = K.repeat(cells, axis=axis)
    return torch.as_tensor(np.ascontiguousarray(K[tuple(slice(0, n) for n in shape)]))


def iterations(system: LinearSystem, **options) -> int:
    solution = sciml.solve(system, CG(preconditioner=Multigrid(**options)))
    return int(solution.stats.iterations.max())


def symmetric_spectrum(system: LinearSystem, M: LinearMap) -> np.ndarray:
    """The spectrum of B A, on vectors of zero mean where A has constants in its kernel."""
    A, B = system.A.to_scipy().toarray(), M.to_scipy().toarray()
    if system.A.nullspace:
        n = len(A)
        Q = np.linalg.qr(np.eye(n) - 1 / n)[0][:, : n - 1]
        A, B = Q.T @ A @ Q, Q.T @ B @ Q
    assert abs(B - B.T).max() < 1e-9 * abs(B).max()
    root = np.linalg.cholesky(A)
    return np.linalg.eigvalsh(root.T @ ((B + B.T) / 2) @ root)


OPTIONS = [
    {"cycle": cycle, "smoother": smoother}
    for cycle in ("V", "W", "alternating")
    for smoother in ("gauss_seidel", "chebyshev")
]
SHAPES = [(97,), (98,), (17, 14), (13, 16), (7, 6, 5), (8, 5, 6)]


@pytest.mark.parametrize("condition", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o['cycle']}-{o['smoother']}")
def test_the_cycle_is_symmetric_positive_definite(monkeypatch, options, shape, condition) -> None:
    monkeypatch.setattr("sciml.solvers.linear.multigrid.hierarchy.COARSEST", 8)
    f = 1.0 if condition == "dirichlet" else "cos(2*pi*x)"
    system = diffusion(noise(shape, 100), shape, condition, f)
    M = Multigrid(dtype="float64", **options).setup(system.A)
    assert M.symmetric and (condition == "periodic" or len(M.hierarchy.levels) >= 2)
    spectrum = symmetric_spectrum(system, M)
    assert spectrum.min() > 0.05
    # Chebyshev may go above one: only adjoint pairs of smoothers keep I - B A semidefinite.
    assert spectrum.max() < (1 + 1e-10 if options["smoother"] == "gauss_seidel" else 1.2)


@pytest.mark.parametrize("sizes", [(31, 63, 127, 255), (32, 64, 128, 256), (30, 61, 126, 251)])
@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("condition", ["dirichlet", "neumann"])
def test_iterations_do_not_depend_on_the_size(sizes, centring, condition) -> None:
    f = 1.0 if condition == "dirichlet" else "cos(pi*x) + y - 0.5"
    counts = [iterations(diffusion(1.0, (n, n), condition, f, centring)) for n in sizes]
    assert max(counts) - min(counts) <= 2 and max(counts) <= 10


def test_iterations_do_not_depend_on_the_size_in_three_dimensions() -> None:
    counts = [iterations(diffusion(1.0, (n, n, n))) for n in (15, 24, 31, 47)]
    assert max(counts) - min(counts) <= 2 and max(counts) <= 10


@pytest.mark.parametrize("shape", [(63, 63), (63, 31), (15, 15, 15), (201,)])
def test_the_constant_path_is_the_assembled_one(shape) -> None:
    """Where the coarse points fit, the set-up on a patch is exact up to the boundary."""
    A = diffusion(1.0, tuple(n + 2 for n in shape), centring="node").A
    assert all(s == 0 for s in A.coefficients.stride()[-A.dimension :])
    assembled = Stencil(A.coefficients.contiguous(), A.offsets, symmetric=True, definite=True)
    r = torch.rand(A.shape, dtype=torch.float64)
    cycles = [Multigrid(dtype="float64").setup(M) for M in (A, assembled)]
    one, other = (cycle.apply(r) for cycle in cycles)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "shape", [(3, 200), (200, 3), (97, 101), (5, 131), (3, 3), (4, 3, 67), (13, 29, 17), (211,)]
)
def test_any_size(shape) -> None:
    system = diffusion(noise(shape, 10), shape)
    solution = sciml.solve(system, CG(preconditioner=Multigrid()))
    truth = sciml.solve(system, Direct())
    torch.testing.assert_close(solution.value, truth.value, rtol=1e-6, atol=1e-9)
    assert int(solution.stats.iterations) <= 12


@pytest.mark.parametrize(
    ("shape", "limit"),
    [((33, 20), 15), ((21, 21), 15), ((9, 8, 7), 15), ((101, 64), 40), ((35, 37), 15)],
)
def test_odd_periodic_axes(shape, limit) -> None:
    """An odd ring is not coarsened: right answers, but more iterations where it is long.

    Where no axis can be (35 x 37), the finest level is the coarsest: a sparse factorisation.
    """
    system = diffusion(noise(shape, 10), shape, "periodic", "cos(2*pi*x)")
    solution = sciml.solve(system, CG(preconditioner=Multigrid()))
    truth = sciml.solve(system, Direct()).value
    gap = solution.value - truth
    assert float(gap.norm() / truth.norm()) < 1e-6
    assert int(solution.stats.iterations) <= limit


@pytest.mark.parametrize("K", [(1.0, 1e-3), (1e-3, 1.0), (1.0, 1e-3, 1.0), (1e-3, 1.0, 1e-3)])
def test_aligned_anisotropy_needs_semi_coarsening_only(K) -> None:
    n = 127 if len(K) == 2 else 31
    system = diffusion(K, (n,) * len(K))
    assert iterations(system) <= 15
    shapes = [level.A.shape for level in build(system.A, torch.float64).levels]
    strong = K.index(1.0)
    assert shapes[1][strong] < n and shapes[1][K.index(1e-3)] == n


def test_rotated_anisotropy_still_converges() -> None:
    c, s, small = 3**0.5 / 2, 0.5, 1e-3
    off = c * s * (1 - small)
    K = ((c * c + small * s * s, off), (off, s * s + small * c * c))
    assert iterations(diffusion(K, (65, 65), centring="node")) <= 120


@pytest.mark.parametrize(("contrast", "rtol", "limit"), [(1e4, 1e-8, 18), (1e6, 1e-6, 25)])
def test_jumping_coefficients(contrast, rtol, limit) -> None:
    """At contrast 1e6 the rounding of A u alone keeps the relative residual above 1e-8."""
    solver = CG(preconditioner=Multigrid(), rtol=rtol)
    for n in (64, 128, 255):
        system = diffusion(blocks((n, n), contrast, n // 8), (n, n))
        assert int(sciml.solve(system, solver).stats.iterations) <= limit


def test_independent_cells_of_high_contrast() -> None:
    assert iterations(diffusion(noise((127, 127)), (127, 127))) <= 45
    assert iterations(diffusion(noise((31, 31, 31)), (31, 31, 31))) <= 30


def test_a_batch_gives_what_its_members_give() -> None:
    shape = (37, 30)
    K = torch.stack([torch.ones(shape, dtype=torch.float64), noise(shape), blocks(shape)])
    together = diffusion(K, shape)
    r = torch.rand(2, 3, *shape, dtype=torch.float64)
    z = Multigrid(dtype="float64").setup(together.A).apply(r)
    for k in range(3):
        alone = Multigrid(dtype="float64").setup(diffusion(K[k], shape).A)
        for sample in range(2):
            torch.testing.assert_close(alone.apply(r[sample, k]), z[sample, k])


@pytest.mark.parametrize("condition", ["dirichlet", "neumann"])
def test_obstacle(condition) -> None:
    hole = Obstacle("(x - 0.4)**2 + (y - 0.5)**2 < 0.04", Condition(**{condition: 0.0}))
    box = Box((0.0, 0.0), (1.0, 1.0))
    sides = {s: Condition(dirichlet=0.0) for s in box.sides}
    problem = Problem(box, Equation(f=1.0), sides, obstacle=hole)
    for n in (65, 128):
        assert iterations(discretize(problem, Grid((n, n)))) <= 15


def test_convection_with_gmres() -> None:
    system = diffusion(0.02, (65, 65), b=("1 + y", "-x"), centring="node")
    assert not system.A.symmetric
    solution = sciml.solve(system, GMRES(preconditioner=Multigrid()))
    assert int(solution.stats.iterations) <= 25
    truth = sciml.solve(system, Direct()).value
    torch.testing.assert_close(solution.value, truth, rtol=1e-5, atol=1e-7)


def test_full_multigrid_starts_near_the_solution() -> None:
    system = diffusion(1.0, (127, 127))
    M = Multigrid(dtype="float64").setup(system.A)
    first = M.first_guess(system.b)
    truth = sciml.solve(system, Direct()).value
    assert float((first - truth).norm() / truth.norm()) < 0.02
    torch.testing.assert_close(M.first_guess(1e-60 * system.b) * 1e60, first)
    full = sciml.solve(system, Multigrid()).stats.iterations
    assert full < sciml.solve(system, Multigrid(full=False)).stats.iterations


@pytest.mark.parametrize("K", ["constant", "noise", "blocks"])
def test_single_precision_cycles_cost_no_iterations(K) -> None:
    """In the median of six: rounding may decide of an island that is nearly none."""
    shape, made = (101, 96), {"noise": noise, "blocks": blocks}
    counts = []
    for seed in range(1 if K == "constant" else 6):
        system = diffusion(made[K](shape, seed=seed) if K in made else 1.0, shape)
        counts.append([iterations(system, dtype=d) for d in ("float32", "float64")])
    single, double = np.array(counts).T
    assert np.median(abs(single - double)) == 0
    assert abs(single - double).max() <= 2


def test_single_precision_is_what_the_check_of_preconditioners_leaves_room_for() -> None:
    """A tenth of its tolerance of 2e-4 would call a sound cycle nonlinear."""
    A = diffusion(noise((63, 63)), (63, 63)).A
    single, double = (
        sciml.check_preconditioner(Multigrid(dtype=dtype), A, probes=4)
        for dtype in ("float32", "float64")
    )
    assert single.suits[0] == double.suits[0] == "cg"
    assert 1e-5 < single.symmetry_defect < 1e-4
    assert double.symmetry_defect < 1e-10


def test_any_magnitude_fits_single_precision() -> None:
    M = Multigrid().setup(diffusion(1.0, (31, 31)).A)
    r = torch.rand(31, 31, dtype=torch.float64)
    torch.testing.assert_close(M.apply(1e-60 * r) * 1e60, M.apply(r), rtol=1e-5, atol=0)
    assert float(M.apply(torch.zeros_like(r)).abs().max()) == 0.0


def test_the_hierarchy_prints_as_a_table() -> None:
    lines = str(build(diffusion(noise((64, 48), 10), (64, 48)).A, torch.float32)).splitlines()
    assert lines[0].split() == ["level", "grid", "unknowns", "stencil"]
    assert lines[1].split() == ["0", "64", "x", "48", "3072", "5-point"]
    assert lines[2].split() == ["1", "32", "x", "24", "768", "9-point"]
    assert "operator complexity" in lines[-1]


@pytest.mark.parametrize("smoother", ["gauss_seidel", "chebyshev"])
def test_the_torch_kernels_solve_alike(monkeypatch, smoother) -> None:
    """What runs on a GPU: the same solver on the reference kernels, here on the CPU."""
    system = diffusion(noise((2, 31, 30), 100), (31, 30))
    solver = CG(preconditioner=Multigrid(smoother=smoother))
    compiled = sciml.solve(system, solver)
    monkeypatch.setattr("sciml.core.algebra.kernels.of", lambda u: reference)
    plain = sciml.solve(system, solver)
    assert (compiled.stats.iterations - plain.stats.iterations).abs().max() <= 1
    torch.testing.assert_close(compiled.value, plain.value, rtol=1e-6, atol=1e-9)


def test_an_f_cycle_is_not_symmetric_on_more_than_three_levels(monkeypatch) -> None:
    monkeypatch.setattr("sciml.solvers.linear.multigrid.hierarchy.COARSEST", 4)
    for n, symmetric in ((7, True), (31, False)):
        system = diffusion(noise((n, n)), (n, n))
        M = Multigrid(cycle="F", dtype="float64").setup(system.A)
        B = M.to_scipy().toarray()
        assert (len(M.hierarchy.levels) <= 3) == M.symmetric == symmetric
        assert (abs(B - B.T).max() < 1e-10 * abs(B).max()) == symmetric
    with pytest.raises(InputError, match="symmetric"):
        sciml.solve(system, CG(preconditioner=Multigrid(cycle="F")))
    assert sciml.solve(system, FCG(preconditioner=Multigrid(cycle="F"))).converged


def rotated(n: int) -> LinearSystem:
    c, s, small = 3**0.5 / 2, 0.5, 1e-3
    off = c * s * (1 - small)
    K = ((c * c + small * s * s, off), (off, s * s + small * c * c))
    return diffusion(K, (n, n), centring="node")


@pytest.mark.parametrize(
    ("make", "cycle"),
    [
        (lambda: diffusion(1.0, (255, 255)), "V"),
        (lambda: diffusion("1 + x*y", (255, 255)), "V"),
        (lambda: diffusion(noise((255, 255)), (255, 255)), "V"),
        (lambda: diffusion(blocks((255, 255), 1e4, 16), (255, 255)), "alternating"),
        (lambda: rotated(257), "alternating"),
    ],
    ids=["constant", "smooth", "noise", "blocks", "rotated"],
)
def test_the_cycle_is_chosen_by_the_operator(make, cycle) -> None:
    A = make().A
    M = Multigrid().setup(A)
    assert M.cycle == cycle and cycle in repr(M)
    assert M.symmetric and Multigrid().setup(A).cycle == cycle


def test_iterations_on_blocks_hardly_depend_on_the_size() -> None:
    """4, 4, 5 and 8: the start from full multigrid saves more where a grid has fewer blocks.

    The finest grid, of 256 blocks, has a few slow modes that neither it nor the cycle sees; from
    zero the counts were 5, 7, 6 and 9.
    """
    counts = [iterations(diffusion(blocks((n, n), 1e4, 32), (n, n))) for n in (63, 127, 255, 511)]
    assert max(counts) - min(counts) <= 4 and max(counts) <= 8


def test_the_work_of_a_cycle_counts_its_visits() -> None:
    A = diffusion(noise((255, 255)), (255, 255)).A
    V, alternating, W = (Multigrid(cycle=c).setup(A).work_units for c in ("V", "alternating", "W"))
    assert 5 < V < alternating < W < 2 * alternating


def test_the_work_of_a_solve_counts_its_start() -> None:
    system = diffusion(noise((127, 127)), (127, 127))
    near = torch.rand(system.A.shape, dtype=torch.float64)
    for solver in (CG(preconditioner=Multigrid()), Multigrid()):
        M = Multigrid().setup(system.A)
        for initial in (None, near):
            stats = sciml.solve(system, solver, initial=initial).stats
            start = stats.work_units - (1 + M.work_units) * int(stats.iterations)
            assert start == pytest.approx(1 + M.first_guess_units)
        there = sciml.solve(system, replace(solver, rtol=1e-10)).value
        assert sciml.solve(system, solver, initial=there).stats.work_units == 0
    # One V-cycle on a grid and on those below it, each with a quarter of the points or so.
    V = Multigrid(cycle="V").setup(system.A)
    assert V.work_units + 1 < V.first_guess_units < 2 * V.work_units
    bare = sciml.solve(diffusion(1.0, (31, 31)), CG()).stats
    assert bare.work_units == int(bare.iterations)


def test_points_linked_along_one_axis_only_are_solved() -> None:
    """A row of cells without links across it: the weights across are 0 / 0, and count as none."""
    n = 33
    planes = torch.zeros(5, n, n, dtype=torch.float64)
    offsets = cross_offsets(2)
    planes[0] = 4.0
    planes[1:] = -1.0
    row = 16
    planes[3, :, row] = planes[4, :, row] = 0.0
    planes[4, :, row - 1] = planes[3, :, row + 1] = 0.0
    planes[0, :, row] = 2.0
    A = Stencil(planes, offsets, symmetric=True, definite=True)
    b = torch.ones(n, n, dtype=torch.float64)
    solution = sciml.solve(A, b, CG(preconditioner=Multigrid()))
    assert solution.converged
    exact = scipy.sparse.linalg.spsolve(A.to_scipy().tocsc(), b.numpy().ravel())
    assert np.abs(solution.value.numpy().ravel() - exact).max() < 1e-6 * np.abs(exact).max()


def test_a_real_cycle_takes_complex_vectors() -> None:
    A = diffusion(noise((33, 33)), (33, 33)).A
    M = Multigrid().setup(A)
    u, v = torch.randn(2, *A.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(M.apply(torch.complex(u, v)), torch.complex(M.apply(u), M.apply(v)))
    b = torch.complex(u, v)
    solution = sciml.solve(A, b, GMRES(preconditioner=Multigrid()))
    gap = b - A.apply(solution.value)
    assert gap.norm() <= 1.01e-8 * b.norm()
