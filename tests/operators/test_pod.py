"""POD-DeepONet: the basis is that of the training outputs, best of its size, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators import Operator, PODDeepONet, Signature
from sciml.operators.deeponet import PODNetwork
from sciml.operators.operator import ticks

BOX = Box((0.0, 0.0), (1.0, 1.0))
ON = Signature(("a",), ("u", "v"), Grid((9, 8), "node", BOX), ("dirichlet", "periodic"))
OPENED = (2, 9, 7)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prepared(outputs: Tensor, **options: object) -> PODNetwork:
    network = PODNetwork(PODDeepONet(branch=(4,), **options), ON).double()  # type: ignore[arg-type]
    network.prepare(outputs)
    return network


def sizes(network: PODNetwork) -> list[float]:
    """The mean square of every basis function."""
    mean_squares: list[float] = (network.basis.flatten(1) ** 2).mean(1).tolist()
    return mean_squares


def test_basis_is_orthonormal_in_the_mean_square_and_coefficients_are_uncorrelated() -> None:
    outputs = drawn(20, *OPENED) + 3.0
    network = prepared(outputs, modes=8)
    basis, points = network.basis.flatten(1), 2 * 9 * 7
    torch.testing.assert_close(basis @ basis.T / points, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(network.mean, outputs.mean(0))
    coefficients = (outputs - network.mean).flatten(1) @ basis.T / points
    covariance = coefficients.T @ coefficients / 20
    torch.testing.assert_close(covariance, torch.diag(covariance.diag()))
    assert covariance.diag().tolist() == sorted(covariance.diag().tolist(), reverse=True)


def test_no_other_basis_of_its_size_carries_more() -> None:
    """Eckart and Young: what the basis leaves out is the sum of the squares of the rest."""
    outputs = drawn(20, *OPENED)
    network = prepared(outputs, modes=5)
    rows = (outputs - network.mean).flatten(1)
    basis = network.basis.flatten(1)
    left = rows - rows @ basis.T @ basis / rows.shape[1]
    expected = (torch.linalg.svdvals(rows)[5:] ** 2).sum()
    torch.testing.assert_close((left**2).sum(), expected)


def test_energy_leaves_modes_out() -> None:
    """Three orthogonal waves with variances in the ratio 90 : 9 : 1."""
    s = torch.arange(7, dtype=torch.float64) * 2 * torch.pi / 7
    waves = torch.stack([torch.cos(s), torch.sin(s), torch.cos(2 * s)])[:, None, None]
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    weights = signs * torch.tensor([90.0, 9.0, 1.0], dtype=torch.float64).sqrt()
    outputs = torch.einsum("nk,kcxy->ncxy", weights, waves.expand(3, *OPENED))
    for energy, kept in ((0.89, 1), (0.98, 2), (1.0, 3)):
        network = prepared(outputs, modes=6, energy=energy)
        assert sizes(network) == pytest.approx([1.0] * kept + [0.0] * (6 - kept))


def test_basis_is_that_of_the_samples_it_was_given_alone() -> None:
    """Answers lie in the span of the training outputs, whatever is asked."""
    operator = Operator.build(PODDeepONet(modes=16, branch=(4,)), ON).double()
    outputs = ON.close(drawn(5, *OPENED))
    operator.prepare(drawn(5, 1, 9, 8), outputs)
    answers = operator(drawn(30, 1, 9, 8, seed=1)).detach().flatten(1)
    rows = outputs.flatten(1)
    fit = torch.linalg.lstsq(rows.T, answers.T).solution
    torch.testing.assert_close(rows.T @ fit, answers.T)
    torch.testing.assert_close(fit.sum(0), torch.ones(30, dtype=torch.float64))  # affine


def test_linear_boundary_data_of_the_training_outputs_hold_for_answers() -> None:
    operator = Operator.build(PODDeepONet(modes=4, branch=(4,)), ON)
    outputs = ON.close(drawn(6, *OPENED))
    outputs[:, :, 0], outputs[:, :, -1] = 0.0, 2.5
    operator.prepare(drawn(6, 1, 9, 8), outputs)
    value = operator(drawn(3, 1, 9, 8, seed=1))
    torch.testing.assert_close(value[:, :, 0], torch.zeros(3, 2, 8), rtol=0, atol=1e-5)
    torch.testing.assert_close(value[:, :, -1], torch.full((3, 2, 8), 2.5), rtol=0, atol=1e-5)


def test_prepared_twice_is_the_same_to_the_bit() -> None:
    outputs = drawn(12, *OPENED)
    first, second = prepared(outputs, modes=6), prepared(outputs, modes=6)
    assert torch.equal(first.basis, second.basis)


def test_mode_that_is_not_there_is_nought() -> None:
    """Four samples, centred, span three dimensions."""
    network = prepared(drawn(4, *OPENED), modes=6)
    assert sizes(network) == pytest.approx([1.0] * 3 + [0.0] * 3)


def test_outputs_on_another_grid_are_no_basis() -> None:
    with pytest.raises(InputError, match=r"training grid, \(2, 9, 7\) each; got \(2, 9, 9\)"):
        prepared(drawn(4, 2, 9, 9), modes=2)


@pytest.mark.parametrize("energy", (0.0, 1.1))
def test_energy_is_a_share(energy: float) -> None:
    with pytest.raises(InputError, match="a share above 0"):
        PODDeepONet(energy=energy)


def test_answers_are_the_sum_of_the_modes_over_the_root_of_their_number() -> None:
    """G = m + sum_k b_k phi_k / sqrt(p), p the modes asked for, on the grid and at its points."""
    network = prepared(drawn(12, *OPENED), modes=6).double()
    coefficients = drawn(3, 6, seed=2)
    network.branch.forward = lambda z: coefficients  # type: ignore[method-assign]
    expected = network.mean + torch.tensordot(coefficients, network.basis, dims=1) / 6**0.5
    z = drawn(3, 1, *OPENED[1:])
    torch.testing.assert_close(network(z), expected)
    nodes = torch.stack(torch.meshgrid(*ticks(ON, OPENED[1:]), indexing="ij"), -1).flatten(0, 1)
    torch.testing.assert_close(network(z, nodes), expected.flatten(2))
