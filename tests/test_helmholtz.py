"""The Helmholtz equation: orders, open sides, complex Krylov methods, the shifted Laplacian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import meshio
import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from manufactured import manufactured, rim

import sciml
from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.equation import Helmholtz, Sponge
from sciml.core.problem.grid import SIDES, Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem, Robin, Time
from sciml.core.run.solution import load_solution
from sciml.discretization import discretize
from sciml.solvers import (
    AMG,
    CG,
    GMRES,
    BiCGStab,
    Direct,
    Jacobi,
    Multigrid,
    ShiftedLaplacian,
    auto,
)
from sciml.solvers.linear import shifted_laplacian as module

Function = Callable[..., torch.Tensor]
SIZES = {1: (65, 129), 2: (33, 65), 3: (13, 25)}
KAPPA = 4.0


def leaving(*x: torch.Tensor) -> torch.Tensor:
    """The phase of exp(i KAPPA phase), which leaves the unit box through all its sides."""
    return KAPPA * sum(p.square() - p for p in x)


def along_y(x, y):
    """The same through the sides of x only, periodic in y."""
    return leaving(x) + 2 * math.pi * y


def bump(*x: torch.Tensor) -> torch.Tensor:
    """Zero on the sides of the unit box."""
    return math.prod(torch.sin(math.pi * p) for p in x)


def k_varying(*x):
    return KAPPA * (1 + 0.3 * bump(*x))


def K_varying(*x):
    return 1 + 0.5 * bump(*x) * torch.exp(-x[0])


def complex_of(real, imaginary):
    """Two coefficients as the parts of one."""
    if real is None:
        return None
    return lambda *x: torch.complex(*torch.broadcast_tensors(
        *(torch.as_tensor(v(*x) if callable(v) else v) for v in (real, imaginary))
    ))  # fmt: skip


def join(a: Condition, b: Condition) -> Condition:
    if a.robin is not None:
        return Condition(robin=Robin(a.robin.alpha, complex_of(a.robin.g, b.robin.g)))
    if a.periodic:
        return a
    return Condition(
        dirichlet=complex_of(a.dirichlet, b.dirichlet), neumann=complex_of(a.neumann, b.neumann)
    )


def waves(
    phase: Function,
    kinds: Sequence[str],
    k: object = KAPPA,
    K: object = 1.0,
    obstacle: tuple[str, str] | None = None,
) -> Problem:
    """The problem that exp(i phase) solves; it must satisfy absorbing and periodic sides itself."""

    def c(*x):
        return -(torch.as_tensor(k(*x) if callable(k) else k) ** 2)

    parts = []
    for u in (lambda *x: torch.cos(phase(*x)), lambda *x: torch.sin(phase(*x))):
        hole = None
        if obstacle is not None:
            hole = Obstacle(obstacle[0], rim(obstacle[1], u, K, (0.5, 0.5)))
        known = ["dirichlet" if kind == "absorbing" else kind for kind in kinds]
        parts.append(manufactured(u, known, K=K, c=c, obstacle=hole))
    a, b = parts
    boundary = {
        side: Condition(absorbing=True)
        if kind == "absorbing"
        else join(*(p.boundary[side] for p in parts))
        for side, kind in zip(a.boundary, kinds, strict=True)
    }
    hole = None
    if a.obstacle is not None and b.obstacle is not None:
        hole = Obstacle(a.obstacle.inside, join(a.obstacle.boundary, b.obstacle.boundary))
    equation = Helmholtz(wavenumber=k, K=K, f=complex_of(a.equation.f, b.equation.f))
    return Problem(a.domain, equation, boundary, hole, exact=complex_of(a.exact, b.exact))


def direct_value(system: LinearSystem) -> torch.Tensor:
    matrix = system.A.to_scipy().tocsc()
    x = scipy.sparse.linalg.spsolve(matrix, system.b.numpy().ravel())
    return system.lift(torch.from_numpy(x).reshape(system.A.shape))


def order(problem: Problem, sizes: tuple[int, int], centring: str) -> float:
    errors, spacings = [], []
    for n in sizes:
        grid = Grid((n,) * problem.box.dimension, centring=centring).bind(problem.box)
        system = discretize(problem, grid)
        if len(grid.shape) == 3:
            solver = GMRES(preconditioner=ShiftedLaplacian(), rtol=1e-9)
            value = sciml.solve(system, solver).value
        else:
            value = direct_value(system)
        gap = value - problem.exact(*grid.coordinates())
        errors.append(float(gap[torch.isfinite(gap)].abs().square().mean().sqrt()))
        spacings.append(grid.spacing[0])
    return math.log(errors[0] / errors[1]) / math.log(spacings[0] / spacings[1])


@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize("d", (1, 2, 3))
def test_second_order_where_waves_leave_through_every_side(d, centring):
    problem = waves(leaving, ["absorbing"] * 2 * d, k_varying, K_varying)
    assert order(problem, SIZES[d], centring) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize(
    "kinds",
    (
        ("dirichlet", "neumann", "robin", "dirichlet"),
        ("dirichlet", "absorbing", "robin", "neumann"),
        ("neumann", "dirichlet", "absorbing", "absorbing"),
    ),
    ids=" ".join,
)
def test_second_order_with_complex_data(kinds, centring):
    problem = waves(leaving, kinds, k_varying, K_varying)
    assert order(problem, SIZES[2], centring) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("centring", ("node", "cell"))
def test_second_order_on_a_periodic_pair(centring):
    problem = waves(along_y, ("absorbing", "absorbing", "periodic", "periodic"))
    assert order(problem, SIZES[2], centring) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("kind", ("dirichlet", "neumann"))
def test_second_order_around_obstacles_soft_and_hard(kind):
    inside = ("(x - 0.5)**2 + (y - 0.5)**2 < 0.04", kind)
    problem = waves(leaving, ["absorbing"] * 4, obstacle=inside)
    # Cut cells come and go with the grid, so that one step is no clean order.
    assert order(problem, (33, 129), "node") == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("centring", ("node", "cell"))
def test_a_wave_sent_in_by_a_complex_robin_side_leaves_undisturbed(centring):
    """In a medium of K = 4, whose waves are half as short: alpha = -i k sqrt(K)."""
    k, K = 12.0, 4.0
    sent = Condition(robin=Robin(-1j * k * math.sqrt(K), -2j * k * math.sqrt(K)))
    sides = {"left": sent, "right": Condition(absorbing=True)}
    problem = Problem(
        Box((0.0,), (1.0,)), Helmholtz(k, K=K), sides, exact=lambda x: torch.exp(6j * x)
    )
    assert order(problem, (65, 129), centring) == pytest.approx(2, abs=0.1)


def open_square(k: object = 15.0, d: int = 2, upper: float = 1.0, **more) -> Problem:
    """A source away from the middle of a box that is open on all sides."""
    box = Box((0.0,) * d, (upper,) * d)
    f = (
        "200*exp(-80*("
        + " + ".join(f"({x} - {0.3 + 0.1 * i})**2" for i, x in enumerate("xyz"[:d]))
        + "))"
    )
    sides = {side: Condition(absorbing=True) for side in box.sides}
    return Problem(box, Helmholtz(k, f=f, **more), sides)


def guide(k: float, mode: int, **more) -> Problem:
    """A mode of a waveguide with hard walls, sent in at the left, leaving at the right."""
    hard = Condition(neumann=0.0)
    sides = {"left": Condition(dirichlet=f"cos({mode}*pi*y)"), "right": Condition(absorbing=True)}
    box = Box((0.0, 0.0), (2.0, 1.0))
    return Problem(box, Helmholtz(k, **more), {**sides, "bottom": hard, "top": hard})


def reflection(problem: Problem, k: float, mode: int) -> float:
    """|b / a| of the mode's a exp(i l x) + b exp(-i l x), fitted before the sponge."""
    grid = Grid((257, 129)).bind(problem.box)
    x, y = (axis.numpy() for axis in grid.axes())
    u = direct_value(discretize(problem, grid)).numpy() @ np.cos(mode * np.pi * y)
    # The mode's own wavenumber l on the grid: its second difference sees (2 / h) sin(l h / 2).
    h = x[1] - x[0]
    across = 4 / h**2 * np.sin(mode * np.pi * h / 2) ** 2
    along = 2 / h * np.arcsin(h / 2 * np.sqrt(k**2 - across))
    before = x < 1.2
    both = np.stack([np.exp(1j * along * x), np.exp(-1j * along * x)], 1)[before]
    a, b = np.linalg.lstsq(both, u[before], rcond=None)[0]
    return float(abs(b / a))


def test_an_absorbing_side_reflects_slanted_waves_as_theory_says_and_a_sponge_damps_that():
    k, mode = 20.0, 5
    slant = math.sqrt(1 - (mode * math.pi / k) ** 2)
    bare = reflection(guide(k, mode), k, mode)
    assert bare == pytest.approx((1 - slant) / (1 + slant), rel=0.02)
    damped = [
        reflection(guide(k, mode, sponge=Sponge(0.7, strength)), k, mode) for strength in (0.2, 0.6)
    ]
    assert damped[0] < 0.5 * bare
    assert damped[1] < 0.2 * bare


@pytest.mark.parametrize("sides", (("absorbing", "absorbing"), ("periodic", "periodic")), ids=str)
def test_the_stencil_equals_its_matrix_and_its_adjoint_is_the_conjugate_transpose(sides):
    problem = waves(along_y, ("absorbing", "dirichlet", *sides))
    A = discretize(problem, Grid((9, 12))).A
    assert isinstance(A, Stencil) and A.dtype == torch.complex128
    u, v = (torch.randn(2, *A.shape, dtype=torch.complex128) for _ in range(2))
    matrix = A.to_scipy()
    flat = u.reshape(2, -1).numpy()
    assert np.allclose(A.apply(u).reshape(2, -1).numpy(), flat @ matrix.T.toarray())
    assert np.allclose(A.adjoint(u).reshape(2, -1).numpy(), flat @ matrix.conj().toarray())
    assert np.allclose(A.apply(u.real).reshape(2, -1).numpy(), flat.real @ matrix.T.toarray())
    left, right = (
        torch.vdot(v.flatten(), A.apply(u).flatten()),
        torch.vdot(A.adjoint(v).flatten(), u.flatten()),
    )
    assert torch.allclose(left, right)
    assert not A.symmetric and not A.definite


@pytest.mark.parametrize(
    "solver",
    (
        Direct(rtol=1e-10),
        GMRES(rtol=1e-10, restart=60),
        GMRES(preconditioner=ShiftedLaplacian(), rtol=1e-10),
        GMRES(preconditioner=Jacobi(), rtol=1e-10, restart=200),
        GMRES(preconditioner=Direct(), rtol=1e-10),
        BiCGStab(preconditioner=ShiftedLaplacian(dtype="complex128"), rtol=1e-10),
    ),
    ids=repr,
)
def test_complex_solvers_agree_with_scipy(solver):
    system = discretize(open_square(10.0), Grid((21, 23)))
    truth = direct_value(system)
    solution = sciml.solve(system, solver)
    assert solution.value.dtype == torch.complex128
    assert solution.residual.dtype == torch.float64 and solution.residual <= 1.01e-10
    assert torch.allclose(solution.value, truth, rtol=0, atol=1e-7 * float(truth.abs().max()))


def test_gmres_takes_the_steps_of_scipy_gmres():
    system = discretize(open_square(10.0), Grid((21, 23)))
    solution = sciml.solve(system, GMRES(rtol=1e-6, restart=400))
    norms: list[float] = []
    x, failed = scipy.sparse.linalg.gmres(
        system.A.to_scipy(), system.b.numpy().ravel(), rtol=1e-6, atol=0.0, restart=400,
        callback=norms.append, callback_type="pr_norm",
    )  # fmt: skip
    assert not failed
    assert abs(int(solution.stats.iterations) - len(norms)) <= 1
    ours = solution.stats.residuals[1 : len(norms)].numpy()
    assert np.allclose(ours, norms[: len(ours)], rtol=1e-4)
    assert np.allclose(solution.value.numpy().ravel(), x, atol=1e-5 * abs(x).max())


def test_scipy_takes_the_shifted_laplacian():
    system = discretize(open_square(15.0), Grid((33, 33)))
    matrix, b = system.A.to_scipy(), system.b.numpy().ravel()
    M = sciml.as_scipy(ShiftedLaplacian(), system.A)
    x, failed = scipy.sparse.linalg.gmres(matrix, b, M=M, rtol=1e-8, restart=30, maxiter=3)
    assert not failed
    assert np.linalg.norm(b - matrix @ x) <= 1e-6 * np.linalg.norm(b)
    with pytest.raises(InputError, match="complex"):
        sciml.check_preconditioner(ShiftedLaplacian(), system.A)


@pytest.fixture
def deep(monkeypatch):
    """Hierarchies of more than one level on small grids."""
    monkeypatch.setattr(module, "_COARSEST", {1: 20, 2: 150, 3: 200})
    monkeypatch.setattr(module, "_SMALL", 20)


@pytest.mark.parametrize(
    ("problem", "grid"),
    (
        (open_square(15.0), Grid((33, 33))),
        (open_square(15.0), Grid((30, 41))),
        (open_square(15.0, sponge=Sponge(0.2)), Grid((32, 32), centring="cell")),
        (guide(8.0, 1), Grid((49, 25))),
        (waves(along_y, ["absorbing"] * 2 + ["periodic"] * 2), Grid((25, 25))),
        (open_square(8.0, d=3), Grid((13, 13, 13))),
        (open_square(8.0, d=1), Grid((97,))),
    ),
    ids=lambda value: "x".join(map(str, value.shape)) if isinstance(value, Grid) else "",
)  # fmt: skip
def test_the_shifted_laplacian_needs_few_iterations_on_several_levels(deep, problem, grid):
    system = discretize(problem, grid)
    solution = sciml.solve(system, GMRES(preconditioner=ShiftedLaplacian(), rtol=1e-9))
    truth = direct_value(system)
    assert int(solution.stats.iterations) <= 40
    assert torch.allclose(solution.value, truth, rtol=0, atol=1e-6 * float(truth.abs().max()))


def test_refining_the_grid_at_fixed_k_costs_no_iterations(deep):
    counts = []
    for n in (17, 33, 65):
        solver = GMRES(preconditioner=ShiftedLaplacian())
        counts.append(int(sciml.solve(open_square(10.0), solver, on=Grid((n, n))).stats.iterations))
    assert max(counts) <= 1.2 * counts[0]


@pytest.mark.parametrize("cycle", ("V", "W"))
def test_the_cycle_is_linear_and_its_adjoint_exact(deep, cycle):
    A = discretize(open_square(15.0), Grid((33, 29))).A
    B = ShiftedLaplacian(cycle=cycle, sweeps=2, dtype="complex128").setup(A)
    u, v = (torch.randn(A.shape, dtype=torch.complex128) for _ in range(2))
    assert torch.allclose(B.apply(u + 2j * v), B.apply(u) + 2j * B.apply(v))
    assert torch.allclose(
        torch.vdot(v.flatten(), B.apply(u).flatten()),
        torch.vdot(B.adjoint(v).flatten(), u.flatten()),
    )


def test_the_stencil_is_split_into_its_diffusion_and_its_mass():
    k, n = 7.0, 17
    A = discretize(open_square(k), Grid((n, n))).A
    diffusion, mass = module.split(A)
    widths = torch.full((n,), 1 / (n - 1), dtype=torch.float64)
    widths[[0, -1]] /= 2
    assert torch.allclose(mass, k**2 * widths[:, None] * widths)
    walls = {side: Condition(neumann=0.0) for side in ("left", "right", "bottom", "top")}
    plain = discretize(Problem(Box((0.0, 0.0), (1.0, 1.0)), Equation(), walls), Grid((n, n))).A
    assert torch.allclose(diffusion.coefficients, plain.coefficients)


@pytest.mark.parametrize("solver", (Direct(), GMRES(preconditioner=ShiftedLaplacian())), ids=repr)
def test_a_batch_of_wavenumbers_equals_one_by_one(deep, solver):
    ks = (6.0, 9.0, 12.0)
    grid = Grid((25, 25))
    base = open_square("w", sponge=Sponge(0.2))
    together = sciml.solve(
        Problem(base.domain, base.equation, base.boundary, parameters={"w": ks}), solver, on=grid
    )
    assert together.value.shape == (3, 25, 25)
    for k, value in zip(ks, together.value, strict=True):
        alone = sciml.solve(open_square(k, sponge=Sponge(0.2)), solver, on=grid)
        assert torch.allclose(value, alone.value, rtol=0, atol=1e-6 * float(value.abs().max()))


def test_gradients_with_respect_to_the_source_and_the_wavenumber():
    grid = Grid((11, 12))
    base = open_square()
    f, k = (
        torch.rand(grid.shape, dtype=torch.float64),
        3 + torch.rand(grid.shape, dtype=torch.float64),
    )

    def loss(f, k):
        problem = Problem(base.domain, Helmholtz(k, f=f, sponge=Sponge(0.3)), base.boundary)
        return sciml.solve(problem, Direct(), on=grid).value.abs().square().sum()

    f.requires_grad_()
    k.requires_grad_()
    found = torch.autograd.grad(loss(f, k), (f, k))
    with torch.no_grad():
        for which, gradient in enumerate(found):
            way = torch.randn(grid.shape, dtype=torch.float64)
            ends = [
                loss(*(v + s * (i == which) * way for i, v in enumerate((f, k))))
                for s in (-1e-5, 1e-5)
            ]
            assert torch.allclose((gradient * way).sum(), (ends[1] - ends[0]) / 2e-5, rtol=1e-6)


def test_auto_factorises_small_systems_and_iterates_on_large_ones(monkeypatch):
    problem, grid = open_square(), Grid((65, 65))
    small = sciml.solve(problem, on=grid)
    monkeypatch.setattr(auto, "_FACTORISED", {2: 100, 3: 100})
    large = sciml.solve(problem, on=grid)
    assert any("auto: direct" in note for note in small.notes)
    assert any("gmres with shifted_laplacian" in note for note in large.notes)
    assert torch.allclose(
        small.value, large.value, rtol=0, atol=1e-6 * float(small.value.abs().max())
    )


@pytest.mark.parametrize(
    ("k", "K", "n"), ((10.0, 1.0, 65), ("10 + 10*x", 4.0, 65), (40.0, 1.0, 41))
)
def test_the_notes_say_how_many_points_a_wavelength_has(k, K, n):
    notes = discretize(open_square(k, K=K), Grid((n, n))).notes
    most = 20.0 if isinstance(k, str) else k
    points = 2 * math.pi * math.sqrt(K) / most * (n - 1)
    assert f"{points:.3g} points per wavelength" in notes[-1]
    assert ("too few" in notes[-1]) == (points < 10)


def test_the_drift_in_the_notes_is_the_error_of_a_plane_wave():
    k, n = 30.0, 201
    sides = {"left": Condition(dirichlet=1.0), "right": Condition(absorbing=True)}
    system = discretize(Problem(Box((0.0,), (1.0,)), Helmholtz(k), sides), Grid((n,)))
    stated = float(system.notes[-1].split("about ")[1].split()[0])
    last = complex(direct_value(system)[-1])
    assert abs(np.angle(last / np.exp(1j * k))) == pytest.approx(stated, rel=0.1)


def test_a_saved_complex_solution_comes_back_equal_and_paraview_sees_both_parts(tmp_path):
    solution = sciml.solve(open_square(10.0), on=Grid((17, 17)))
    solution.save(str(tmp_path))
    again = load_solution(tmp_path)
    assert again.value.dtype == torch.complex128
    assert torch.equal(again.value, solution.value) and again.notes == solution.notes
    data = meshio.read(tmp_path / "solution.vtu").point_data
    assert np.allclose(data["u_real"], solution.value.real.numpy().ravel())
    assert np.allclose(data["u_imag"], solution.value.imag.numpy().ravel())


@pytest.mark.parametrize("d", (1, 2, 3))
def test_the_figure_shows_the_real_part_and_the_modulus(d, tmp_path):
    solution = sciml.solve(open_square(8.0, d=d), on=Grid((9,) * d))
    figure = sciml.plot(solution, tmp_path / "u.png")
    assert (tmp_path / "u.png").stat().st_size > 0
    names = [
        text.get_text()
        for axes in figure.axes
        for text in (axes.title, *(axes.get_legend().texts if axes.get_legend() else ()))
    ]
    assert any("Re" in name for name in names) and any("|u|" in name for name in names)


def test_the_error_of_a_complex_solution_counts_both_parts():
    solution = sciml.solve(open_square(10.0), on=Grid((17, 17)))
    assert float(solution.error(solution.value * (1 + 0.1j))) == pytest.approx(0.1 / abs(1 + 0.1j))


def altered(**changes) -> Problem:
    base = open_square()
    given = {"equation": base.equation, "boundary": base.boundary, **changes}
    return Problem(base.domain, **given)


def sides(**changes) -> dict[str, Condition]:
    return {**open_square().boundary, **changes}


def damped(*sponge: float, k: object = 2.0, **changes) -> Problem:
    return altered(equation=Helmholtz(k, sponge=Sponge(*sponge)), **changes)


OPEN_RIM = Obstacle("x < 0.2", Condition(absorbing=True))
ONE_SIDED = sides(left=Condition(periodic=True))
WALLS = dict.fromkeys(sides(), Condition(dirichlet=0.0))
REFUSED = {
    "k": (lambda: altered(equation=Helmholtz("x - 0.5")), "wavenumber", "positive"),
    "k not a number": (lambda: altered(equation=Helmholtz("1/x")), "wavenumber", "finite"),
    "complex k": (lambda: altered(equation=Helmholtz(2 + 1j)), "wavenumber", "sponge"),
    "K": (lambda: altered(equation=Helmholtz(2.0, K="x - 2")), "K", "positive"),
    "one-sided": (lambda: altered(boundary=ONE_SIDED), "left", "both sides"),
    "time": (lambda: altered(time=Time(1.0), initial=0.0), "time", "frequency"),
    "no open side": (lambda: damped(0.1, boundary=WALLS), "sponge", "absorbing"),
    "wide": (lambda: damped(0.6), "sponge.width", "0.5"),
    "negative": (lambda: damped(0.1, -1.0), "sponge.strength", "positive"),
    "rim": (lambda: altered(obstacle=OPEN_RIM), "obstacle.boundary", "sound-soft"),
    "other": (lambda: altered(equation=Equation(f=1.0)), "left.absorbing", "Helmholtz"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_in_one_line_what_is_wrong_and_where(case):
    make, key, word = REFUSED[case]
    with pytest.raises(InputError) as caught:
        discretize(make(), Grid((9, 9)))
    assert word in caught.value.message and "\n" not in caught.value.message
    assert caught.value.key.endswith(key)
    assert caught.value.key.startswith("problem.")


@pytest.mark.parametrize(
    "solver", (CG(), Multigrid(), AMG(), GMRES(preconditioner=Multigrid())), ids=repr
)
def test_solvers_for_real_operators_refuse_complex_ones(solver):
    with pytest.raises(InputError, match="gmres"):
        sciml.solve(open_square(), solver, on=Grid((9, 9)))


@pytest.mark.parametrize("options", ({"beta": -1.0}, {"sweeps": 0}), ids=str)
def test_the_shifted_laplacian_checks_its_options_and_its_operator(options):
    with pytest.raises(InputError, match="at least"):
        ShiftedLaplacian(**options)
    walls = dict.fromkeys(SIDES[0], Condition(dirichlet=0.0))
    real = Problem(Box((0.0,), (1.0,)), Equation(f=1.0), walls)
    with pytest.raises(InputError, match="complex stencil"):
        sciml.solve(real, GMRES(preconditioner=ShiftedLaplacian()), on=Grid((9,)))
