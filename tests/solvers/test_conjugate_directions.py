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
from sciml.core.discretize import discretize
from sciml.core.errors import InputError
from sciml.core.grid import Box, Grid
from sciml.core.linear import LinearMap, LinearSystem, SparseMatrix
from sciml.core.problem import Condition, Equation, Obstacle, Problem
from sciml.core.stencil import Stencil
from sciml.solvers import CG, FCG
from sciml.solvers.interop import as_scipy
from sciml.solvers.learned.conjugate_directions import (
    KIND,
    Cells,
    ConjugateDirections,
    ConjugateInverse,
    DirectionModule,
    DirectionNetwork,
    linked,
    plain,
)
from sciml.solvers.learned.weights import FILE, write_weights

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
        near = (module(r, cells) - module(r, other))[0, 3, 3].abs()
        assert bool(near > 0) is mask


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
    assert np.allclose(M @ r.flatten().numpy(), wanted, rtol=1e-5, atol=1e-9)


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
