"""Deep conjugate directions: the method is the paper's, whatever the network says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sciml import Status
from sciml.core.algebra.maps import LinearMap, LinearSystem, SparseMatrix
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem
from sciml.core.run.weights import FILE, write_weights
from sciml.discretization import discretize
from sciml.solvers import CG, FCG
from sciml.solvers.learned.conjugate_directions import (
    KIND,
    Cells,
    ConjugateDirections,
    ConjugateInverse,
    Convolution3d,
    DirectionModule,
    DirectionNetwork,
    linked,
    plain,
)
from sciml.solvers.linear.interop import as_scipy

BOXES = {2: Box((0.0,) * 2, (1.0,) * 2), 3: Box((0.0,) * 3, (1.0,) * 3)}
DISC = {2: "(x - 0.4)**2 + (y - 0.6)**2 < 0.04", 3: "(x-0.4)**2 + (y-0.6)**2 + (z-0.5)**2 < 0.06"}


def system(
    n: int = 12, dimension: int = 2, hole: bool = True, rim: Condition | None = None
) -> LinearSystem:
    """Poisson's equation in a box, with a round hole of temperature 1."""
    box = BOXES[dimension]
    boundary = {side: Condition(dirichlet=0.0) for side in box.sides}
    obstacle = Obstacle(DISC[dimension], rim or Condition(dirichlet=1.0)) if hole else None
    problem = Problem(
        domain=box, equation=Equation(K=1.0, f=1.0), boundary=boundary, obstacle=obstacle
    )
    return discretize(problem, Grid((n,) * dimension, "cell"))


def network(dimension: int = 2, seed: int = 0, mask: bool = False) -> DirectionModule:
    """A small network with random weights, biases too."""
    torch.manual_seed(seed)
    module = DirectionModule(DirectionNetwork(dimension, 4, (2, 2, 2), mask))
    for name, value in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(value, std=0.05)
    return module.requires_grad_(False)


def inverse(A: LinearMap, module: Any = None, active: Tensor | None = None) -> ConjugateInverse:
    cells = Cells(A, active)
    return ConjugateInverse(A, module or network(len(cells.shape)), cells)


def residuals(A: LinearMap, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *A.shape, generator=generator, dtype=torch.float64)


class Exact(nn.Module):
    """Stands in for a network: the inverse of the scaled operator off the holes."""

    def __init__(self, A: Stencil) -> None:
        super().__init__()
        root = A.diagonal().sqrt().flatten().numpy()
        self.matrix = np.linalg.inv(A.to_scipy().toarray() / root[:, None] / root)

    def forward(self, r: Tensor, cells: Tensor) -> Tensor:
        found = self.matrix @ r.double().flatten(1).numpy().T
        return torch.from_numpy(found.T.copy()).reshape(r.shape).float() * cells


@pytest.mark.parametrize("dimension", [2, 3])
def test_with_the_inverse_for_a_network_one_iteration_is_enough(dimension: int) -> None:
    given = system(8, dimension)
    solver = FCG(preconditioner=inverse(given.A, Exact(given.A)), rtol=1e-5)
    solution = solver.run(solver.init(given))
    assert solution.status is Status.CONVERGED
    assert int(solution.stats.iterations) == 1
    assert bool((~linked(given.A)).any())
    assert given.b[~linked(given.A)].abs().min() > 0


def deep_conjugate_directions(
    A: np.ndarray, b: np.ndarray, predict: Any, steps: int
) -> list[float]:
    """The paper's Algorithm 1, with its own lengths and signs of q."""
    x, r = np.zeros_like(b), b.copy()
    history, previous = [np.linalg.norm(r)], []
    for _ in range(steps):
        q = predict(r / np.linalg.norm(r))
        p = q - sum((q @ A @ d) / (d @ A @ d) * d for d in previous[-2:])
        x = x + (p @ r) / (p @ A @ p) * p
        r = b - A @ x
        previous.append(p)
        history.append(np.linalg.norm(r))
    return history


def test_flexible_cg_with_two_directions_is_the_method_of_the_paper() -> None:
    A = system(10, hole=False).A
    # The paper's matrix has one number on its diagonal, and the scaling is then a number as well.
    planes = torch.tensor([4.0, -1, -1, -1, -1], dtype=torch.float64)
    assert isinstance(A, Stencil)
    A = Stencil(planes[:, None, None].expand(5, 10, 10), A.offsets, symmetric=True, definite=True)
    b, module = residuals(A, 1)[0], network(seed=3)

    def predict(r: np.ndarray) -> np.ndarray:
        grid = torch.from_numpy(r).reshape(1, 10, 10).float()
        return module(grid, torch.ones_like(grid)).double().flatten().numpy()

    wanted = deep_conjugate_directions(A.to_scipy().toarray(), b.flatten().numpy(), predict, 12)
    solver = FCG(preconditioner=inverse(A, module), rtol=1e-10, max_iterations=12)
    found = solver.run(solver.init(LinearSystem(A, b))).stats.residuals
    assert np.allclose(found, np.array(wanted) / wanted[0], rtol=1e-4)
    assert found[-1] < found[0]


@settings(max_examples=15, deadline=None)
@given(exponent=st.floats(-12, 12), seed=st.integers(0, 99), hole=st.booleans())
def test_the_map_is_positively_homogeneous(exponent: float, seed: int, hole: bool) -> None:
    A = system(hole=hole).A
    M, r, factor = inverse(A), residuals(A, 1, seed)[0], 10.0**exponent
    once, scaled = M.apply(r), M.apply(factor * r)
    assert (scaled / factor - once).norm() < 1e-4 * once.norm()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), dimension=st.sampled_from([2, 3]))
def test_every_network_gives_a_direction_of_descent(seed: int, dimension: int) -> None:
    A = system(6, dimension).A
    M = inverse(A, network(dimension, seed))
    r = residuals(A, 3, seed)
    slope = (r * M.apply(r)).flatten(1).sum(1)
    curvature = (M.apply(r) * A.apply(M.apply(r))).flatten(1).sum(1)
    assert bool((slope > 0).all())
    # The length is that of the best step.
    assert torch.allclose(slope, curvature, rtol=1e-6)


def test_zero_stays_zero_and_what_is_no_number_is_told() -> None:
    A = system().A
    M = inverse(A)
    r = residuals(A, 3)
    r[1] = 0
    r[2, 0, 0] = torch.nan
    z = M.apply(r)
    assert bool(z[0].isfinite().all())
    assert z[1].abs().max() == 0
    assert bool(z[2].isnan().any())
    b = system().b.clone()
    b[3, 3] = torch.nan
    solver = FCG(preconditioner=M)
    assert solver.run(solver.init(LinearSystem(A, b))).status is Status.NOT_FINITE


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_answer_does_not_depend_on_the_batch(dimension: int) -> None:
    A = system(7, dimension).A
    M = inverse(A)
    r = residuals(A, 6)
    together = M.apply(r.reshape(2, 3, *A.shape)).reshape(r.shape)
    alone = torch.stack([M.apply(one) for one in r])
    assert (together - alone).abs().max() < 1e-5 * alone.abs().max()


def test_a_batch_of_operators_is_a_loop() -> None:
    parts = [system(9, hole=hole).A for hole in (True, False)]
    planes = torch.stack([p.coefficients.expand(5, 9, 9) for p in parts])
    A = Stencil(planes, parts[0].offsets, symmetric=True, definite=True)
    r = residuals(parts[0], 2)
    module = network(mask=True)
    together = inverse(A, module).apply(r)
    for one, own, found in zip(parts, r, together, strict=True):
        alone = inverse(one, module).apply(own)
        assert (found - alone).abs().max() < 1e-5 * alone.abs().max()


def test_many_samples_go_through_the_network_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from sciml.solvers.learned import conjugate_directions

    A = system(6).A
    r = residuals(A, 7)
    whole = inverse(A).apply(r)
    monkeypatch.setattr(conjugate_directions, "_CELLS", 80)
    assert torch.allclose(inverse(A).apply(r), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rim", [Condition(dirichlet=1.0), Condition(neumann=0.0)])
def test_holes_are_none_of_the_networks(rim: Condition) -> None:
    A = system(rim=rim).A
    assert isinstance(A, Stencil)
    hole = ~linked(A)
    assert 5 < int(hole.sum()) < 40
    # By the matrix: rows of holes hold their diagonal alone.
    matrix = A.to_scipy()
    assert np.array_equal(np.diff(matrix.indptr) == 1, hole.flatten().numpy())
    seen: list[Tensor] = []

    class Witness(nn.Module):
        def forward(self, r: Tensor, cells: Tensor) -> Tensor:
            seen.extend([r, cells])
            return r * cells

    r = residuals(A, 2)
    r[1, ~hole] = r[0, ~hole]
    z = inverse(A, Witness()).apply(r)
    assert seen[0][:, hole].abs().max() == 0
    assert torch.equal(seen[1][0], (~hole).float())
    assert torch.allclose(seen[0].flatten(1).norm(dim=1), torch.ones(2))
    assert torch.allclose(z[:, hole], r[:, hole] / A.diagonal()[hole])
    assert torch.allclose(z[0, ~hole], z[1, ~hole])


def test_a_matrix_with_its_cells_is_as_good_as_the_stencil() -> None:
    given = system()
    A, r = given.A, residuals(given.A, 3)
    assert isinstance(A, Stencil)
    active = linked(A)
    module = network(mask=True)
    wanted = inverse(A, module).apply(r)
    whole = inverse(SparseMatrix(A.to_scipy()), module, active).apply(r.flatten(1))
    assert torch.allclose(whole.reshape(r.shape), wanted, rtol=1e-5, atol=1e-9)
    kept = active.flatten().numpy()
    part = SparseMatrix(A.to_scipy()[kept][:, kept])
    found = inverse(part, module, active).apply(r[:, active])
    assert torch.allclose(found, wanted[:, active], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("counts", "weights"), [((4, 6, 4), 97_457), ((6, 10, 6), 152_881)])
def test_the_network_has_as_many_weights_as_the_papers(
    counts: tuple[int, ...], weights: int
) -> None:
    module = DirectionModule(DirectionNetwork(3, convolutions=counts))
    assert sum(p.numel() for p in module.parameters()) == weights


@pytest.mark.parametrize("shape", [(5, 8), (7, 7), (3, 4, 5), (2, 1)])
@pytest.mark.parametrize("counts", [(2, 4, 2), (2, 2, 4, 2, 2)])
def test_any_size_goes_through_the_network(shape: tuple[int, ...], counts: tuple[int, ...]) -> None:
    module = DirectionModule(DirectionNetwork(len(shape), 3, counts))
    r = torch.randn(2, *shape)
    cells = (torch.rand(2, *shape) > 0.3).float()
    q = module(r, cells)
    assert q.shape == r.shape
    assert q[cells == 0].abs().sum() == 0
    assert torch.equal(module(0 * r, cells), 0 * r)  # no bias yet


def test_the_mask_is_an_input_where_asked_for() -> None:
    r, cells = torch.randn(1, 8, 8), torch.ones(1, 8, 8)
    other = cells.clone()
    other[0, 4, 4] = 0
    for mask in (False, True):
        module = network(mask=mask)
        # The same values in the network, which makes their mean square 1 over the cells.
        whole, holed = (r / given.sum().sqrt() for given in (cells, other))
        near = (module(whole, cells) - module(holed, other))[0, 3, 3].abs()
        assert bool(near > 1e-5) is mask


@pytest.mark.parametrize(("cells", "levels"), [(4, 1), (5, 1), (8, 1), (9, 2), (33, 4), (64, 4)])
def test_a_repeated_level_takes_any_grid_down_to_four_cells(cells: int, levels: int) -> None:
    options = DirectionNetwork(2, 3, (2, 2, 2), repeat=True)
    module = DirectionModule(options)
    shapes: list[tuple[int, ...]] = []
    for convolution in module.levels[0].children():
        convolution.register_forward_hook(lambda _m, _x, y: shapes.append(tuple(y.shape[2:])))
    for convolution in module.levels[1].children():
        convolution.register_forward_hook(lambda _m, _x, y: shapes.append(tuple(y.shape[2:])))
    r = torch.randn(1, cells, cells - 2)
    assert module(r, torch.ones_like(r)).shape == r.shape
    assert len(shapes) == 2 * (levels + 1)
    assert max(shapes[-1]) <= 4
    # Repeated no more often than it need be.
    assert levels == 1 or max(shapes[-3]) > 4


@settings(max_examples=15, deadline=None)
@given(exponent=st.floats(-8, 8), mask=st.booleans(), seed=st.integers(0, 99))
def test_without_biases_the_amplitude_means_nothing(exponent: float, mask: bool, seed: int) -> None:
    torch.manual_seed(seed)
    module = DirectionModule(DirectionNetwork(2, 3, (2, 2, 2), mask, repeat=True))
    r, cells = torch.randn(1, 9, 11), (torch.rand(1, 9, 11) > 0.2).float()
    once, scaled = module(r, cells), module(10.0**exponent * r, cells)
    assert (scaled / 10.0**exponent - once).abs().max() < 1e-4 * once.abs().max()


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("repeat", [False, True])
def test_holes_are_as_what_lies_beyond_the_walls(dimension: int, repeat: bool) -> None:
    torch.manual_seed(1)
    small, large = (8,) * dimension, (16,) * dimension
    # Both grids go down to the same cells: on the small one to two or one of them.
    counts = (2, 2, 4, 2, 2) if repeat else (2, 4, 2)
    module = DirectionModule(DirectionNetwork(dimension, 3, counts, mask=True, repeat=repeat))
    for name, value in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(value, std=0.05)
    cells = (torch.rand(1, *small) > 0.2).float()
    r = torch.randn(1, *small) * cells
    corner = (0, *(slice(0, 8) for _ in small))
    wide, wide_cells = torch.zeros(1, *large), torch.zeros(1, *large)
    wide[corner], wide_cells[corner] = r[0], cells[0]
    found, wanted = module(wide, wide_cells), module(r, cells)
    assert (found[corner] - wanted[0]).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("n", [6, 24])
def test_the_network_sees_values_of_size_one_on_every_grid(n: int) -> None:
    given, module = system(n), network(mask=True)
    seen: list[Tensor] = []
    module.first.register_forward_hook(lambda _m, x, _y: seen.append(x[0]))
    inverse(given.A, module).apply(residuals(given.A, 2))
    assert isinstance(given.A, Stencil)
    share = linked(given.A).double().mean()
    assert 0 < share < 1
    mean_squares = seen[0].double().square().mean((1, 2, 3)) / share
    assert torch.allclose(mean_squares, torch.ones(2, dtype=torch.float64), rtol=1e-5)


@pytest.mark.parametrize("n", [5, 40])
def test_a_sample_alone_is_convolved_as_among_others(n: int) -> None:
    torch.manual_seed(0)
    module = Convolution3d(16, 2, 3, padding=1)
    x = torch.randn(2, 16, n, n, 3)
    alone = torch.cat([module(one[None]) for one in x])
    assert alone.shape == (2, 2, n, n, 3)
    assert (alone - module(x)).abs().max() < 1e-5


def saved(folder: Path, module: DirectionModule) -> str:
    write_weights(folder / FILE, KIND, plain(module.options), module.state_dict(), {})
    return str(folder)


def test_from_a_file_in_our_solvers_and_in_scipy(tmp_path: Path) -> None:
    given = system()
    path = saved(tmp_path, network())
    solver = FCG(preconditioner=ConjugateDirections(path), rtol=1e-6)
    solution = solver.run(solver.init(given))
    assert solution.status is Status.CONVERGED
    with pytest.raises(InputError, match="not linear"):
        as_scipy(ConjugateDirections(path), given.A)
    M = as_scipy(ConjugateDirections(path), given.A, flexible=True)
    r = residuals(given.A, 1)[0]
    wanted = inverse(given.A).apply(r).flatten().numpy()
    # A network in single precision: entries that cancel are rounded like the large ones.
    assert np.abs(M @ r.flatten().numpy() - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_the_shipped_network_of_three_dimensions() -> None:
    given = system(32, 3, rim=Condition(dirichlet=0.0))
    plain_cg = CG(rtol=1e-6)
    learned = FCG(preconditioner=ConjugateDirections("dcdm-poisson-3d"), rtol=1e-6)
    slow, fast = (solver.run(solver.init(given)) for solver in (plain_cg, learned))
    assert fast.status is Status.CONVERGED
    assert not fast.notes  # nothing took over
    assert 5 * int(fast.stats.iterations) <= int(slow.stats.iterations)


@pytest.mark.parametrize("n", [24, 48, 96])
def test_the_shipped_network_takes_few_iterations_on_grids_it_never_saw(n: int) -> None:
    given = system(n, rim=Condition(dirichlet=0.0))
    plain_cg = CG(rtol=1e-6)
    learned = FCG(preconditioner=ConjugateDirections("dcdm-poisson-2d"), rtol=1e-6)
    slow, fast = (solver.run(solver.init(given)) for solver in (plain_cg, learned))
    assert fast.status is Status.CONVERGED
    assert not fast.notes  # nothing took over
    assert int(fast.stats.iterations) <= 26
    assert 3 * int(fast.stats.iterations) < int(slow.stats.iterations)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    path, A = saved(tmp_path, network()), system().A
    assert isinstance(A, Stencil)
    options = ConjugateDirections(path)
    with pytest.raises(InputError, match=r"linear preconditioner.*use fcg"):
        CG(preconditioner=options).setup(A)
    with pytest.raises(InputError, match="no adjoint"):
        options.setup(A).adjoint(A.diagonal())
    indefinite = Stencil(A.coefficients, A.offsets, symmetric=True)
    with pytest.raises(InputError, match="positive definite"):
        options.setup(indefinite)
    negative = Stencil(-A.coefficients, A.offsets, symmetric=True, definite=True)
    with pytest.raises(InputError, match="positive diagonal"):
        options.setup(negative)
    with pytest.raises(InputError, match="in 2 dimensions; the unknowns have 3"):
        options.setup(system(4, 3).A)
    matrix = SparseMatrix(A.to_scipy())
    with pytest.raises(InputError, match="needs a grid"):
        options.setup(matrix)
    with pytest.raises(InputError, match="active has 9 cells, 9 of them True"):
        ConjugateDirections(path, torch.ones(3, 3, dtype=torch.bool)).setup(matrix)
    with pytest.raises(InputError, match="no weights at"):
        ConjugateDirections(str(tmp_path / "absent")).setup(A)


@pytest.mark.parametrize(
    "wrong",
    [{"dimension": 4}, {"convolutions": [4, 6]}, {"convolutions": [4, 5, 4]}, {"channels": 0},
     {"colour": 1}, {"convolutions": 3}],
)  # fmt: skip
def test_options_that_describe_no_network_are_refused(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    module = network()
    write_weights(tmp_path / FILE, KIND, {**plain(module.options), **wrong}, {}, {})
    with pytest.raises(InputError, match="describes no such network"):
        ConjugateDirections(str(tmp_path)).setup(system().A)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    module = network()
    options = {**plain(module.options), "channels": 5}
    write_weights(tmp_path / FILE, KIND, options, module.state_dict(), {})
    with pytest.raises(InputError, match="does not fit its own options"):
        ConjugateDirections(str(tmp_path)).setup(system().A)
