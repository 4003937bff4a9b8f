"""The Fourier neural operator against torch.fft, its own definition and its published twin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators.fno import FNO, FourierLayer, Transform, multiply
from sciml.operators.operator import Operator, Side, Signature

SHAPES = [(16,), (9,), (8, 8), (9, 14), (13, 6), (4, 15), (6, 7, 8), (9, 5, 4)]


def signature(shape: tuple[int, ...], side: Side = "dirichlet") -> Signature:
    d = len(shape)
    grid = Grid(shape, domain=Box((0.0,) * d, (1.0,) * d))
    return Signature(("a",), ("u",), grid, (side,) * d)


def frequencies(shape: tuple[int, ...], modes: int) -> list[list[int]]:
    """Per axis, the kept frequencies, by the words of the docstring."""
    first, *others = shape
    kept = [range(min(modes, first) // 2 + 1)]
    kept += [range(-(min(modes, n) // 2), min(modes, n) - min(modes, n) // 2) for n in others]
    return [list(k) for k in kept]


def chosen(spectrum: Tensor, lists: list[list[int]]) -> Tensor:
    """The entries of ``spectrum (*grid, ...)`` at the kept frequencies, negative ones from the
    end."""
    return spectrum[torch.meshgrid(*(torch.tensor(k) for k in lists), indexing="ij")]


def reference_convolution(v: Tensor, weights: Tensor, modes: int) -> Tensor:
    """Re F^-1 (R . F v) by complex torch.fft, ``weights (*modes, in, 2, out)``."""
    shape = tuple(v.shape[:-2])
    axes = tuple(range(len(shape)))
    lists = frequencies(shape, modes)
    matrix = torch.complex(weights[..., 0, :], weights[..., 1, :])
    spectrum = torch.fft.fftn(v, dim=axes, norm="forward")
    found = torch.zeros_like(spectrum[..., :1]).expand(*spectrum.shape[:-1], matrix.shape[-1])
    found = found.clone()
    index = torch.meshgrid(*(torch.tensor(k) for k in lists), indexing="ij")
    offsets = [0, *(modes // 2 for _ in shape[1:])]
    low = torch.meshgrid(
        *(torch.tensor(k) + o for k, o in zip(lists, offsets, strict=True)), indexing="ij"
    )
    product = torch.einsum("...bi,...io->...bo", spectrum[index], matrix[low])
    twice = torch.tensor([1.0 if k == 0 or 2 * k == shape[0] else 2.0 for k in lists[0]])
    found[index] = product * twice.view(-1, *(1,) * (product.ndim - 1))
    return torch.fft.ifftn(found, dim=axes, norm="forward").real


@pytest.mark.parametrize("modes", [4, 5, 12])
@pytest.mark.parametrize("shape", SHAPES)
def test_transform_is_the_discrete_fourier_transform(shape: tuple[int, ...], modes: int) -> None:
    v = torch.randn(*shape, 2, 3, dtype=torch.float64)
    found = Transform(shape, modes, like=v)(v)
    spectrum = torch.fft.fftn(v, dim=tuple(range(len(shape))), norm="forward")
    exact = chosen(spectrum, frequencies(shape, modes)).flatten(0, len(shape) - 1)
    assert torch.allclose(torch.complex(found[:, 0], found[:, 1]), exact, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_all_modes_the_inverse_gives_the_function_back(shape: tuple[int, ...]) -> None:
    v = torch.randn(*shape, 2, 3, dtype=torch.float64)
    transform = Transform(shape, max(shape), like=v)
    assert torch.allclose(transform.inverse(transform(v), torch.ones_like(v)), 1 + v, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("modes", [4, 5, 12])
def test_spectral_convolution_is_the_formula(shape: tuple[int, ...], modes: int) -> None:
    v = torch.randn(*shape, 2, 3, dtype=torch.float64)
    layer = FourierLayer(3, (modes,) * len(shape), last=True).double()
    transform = Transform(shape, modes, like=v)
    low = transform.low(layer.spectrum)
    found = transform.inverse(multiply(transform(v), low), torch.zeros_like(v))
    assert torch.allclose(found, reference_convolution(v, layer.spectrum, modes), atol=1e-12)


def test_layer_is_the_formula() -> None:
    v = torch.randn(9, 8, 2, 4, dtype=torch.float64)
    transform = Transform((9, 8), 6, like=v)
    for last in (False, True):
        layer = FourierLayer(4, (6, 6), last=last).double()
        nn.init.normal_(layer.gate)
        act = (lambda t: t) if last else nn.functional.gelu
        w = act(layer.skip(v) + reference_convolution(v, layer.spectrum, 6))
        assert torch.allclose(
            layer(v, transform), act(layer.mixing(w) + layer.gate * v), atol=1e-12
        )


def test_spectral_convolution_does_not_depend_on_the_grid() -> None:
    weights = FourierLayer(2, (5, 5), last=True).double().spectrum
    values = []
    for n in (11, 22, 44):
        x = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
        v = (torch.sin(x)[:, None] * torch.cos(2 * x) + torch.cos(x)[:, None]).view(n, n, 1, 1)
        v = torch.cat([v, v**2 - v], -1)
        transform = Transform((n, n), 5, like=v)
        u = transform.inverse(multiply(transform(v), transform.low(weights)), torch.zeros_like(v))
        values.append(u[:: n // 11, :: n // 11])
    assert torch.allclose(values[0], values[1], atol=1e-13)
    assert torch.allclose(values[0], values[2], atol=1e-13)


@pytest.mark.parametrize(
    ("dimension", "modes", "width", "count"),
    # Counted on neuraloperator 2.0.0's FNO with its defaults, a complex weight as two numbers.
    [(2, 12, 32, 701_281), (1, 16, 16, 21_905), (3, 6, 8, 74_729)],
)
def test_parameters_are_those_of_neuraloperator(
    dimension: int, modes: int, width: int, count: int
) -> None:
    network = FNO(modes=modes, width=width).build(signature((17,) * dimension))
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("shape", [(13,), (9, 12), (6, 5, 7)])
def test_commutes_with_shifts_where_periodic_and_without_coordinates(
    shape: tuple[int, ...],
) -> None:
    network = FNO(modes=4, width=4, layers=2, coordinates=False, padding=0.5).build(
        signature(shape, "periodic")
    )
    network.double()
    z = torch.randn(2, 1, *shape, dtype=torch.float64)
    axes = tuple(range(2, 2 + len(shape)))
    shift = (2, 3, 1)[: len(shape)]
    assert torch.allclose(network(z.roll(shift, axes)), network(z).roll(shift, axes), atol=1e-12)


def test_padding_parts_opposite_sides() -> None:
    """Far from each other on the line, next to each other on the circle: unless it is padded."""
    z = torch.zeros(1, 1, 32)
    z[0, 0, 0] = 1.0
    influence = []
    for padding in (0.0, 1.0):
        torch.manual_seed(0)
        network = FNO(modes=40, width=4, layers=1, coordinates=False, padding=padding).build(
            signature((32,))
        )
        with torch.no_grad():
            # The spectrum of a kernel that reaches one point to the left, on the circle.
            k = torch.arange(network.layers[0].spectrum.shape[0])
            points = 32 * (1 + padding)
            angle = 2 * math.pi * k / points
            network.layers[0].spectrum.zero_()
            network.layers[0].spectrum[:, :, 0, :] = angle.cos()[:, None, None]
            network.layers[0].spectrum[:, :, 1, :] = angle.sin()[:, None, None]
            influence.append((network(z) - network(0 * z))[0, 0, -1].abs())
    assert influence[0] > 1e-3
    assert influence[1] < 0.2 * influence[0]


def test_coordinates_are_those_of_the_signature() -> None:
    closed, opened = (
        FNO(modes=4, width=4).build(signature((9, 9), side)) for side in ("neumann", "periodic")
    )
    opened.load_state_dict(closed.state_dict())
    z = torch.randn(1, 1, 8, 8)
    assert not torch.allclose(closed(z), opened(z))


@pytest.mark.parametrize("shape", [(7,), (30, 11), (5, 6, 7)])
def test_any_grid_and_a_gradient_for_every_parameter(shape: tuple[int, ...]) -> None:
    operator = Operator.build(FNO(modes=4, width=4, layers=2, padding=0.2), signature(shape))
    for grown in (0, 3):
        x = torch.randn(2, 1, *(n + grown for n in shape))
        assert operator(x).shape == x.shape
    operator(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in operator.parameters())


def test_gradients_are_exact() -> None:
    network = FNO(modes=3, width=2, layers=2).build(signature((5, 4))).double()
    z = torch.randn(1, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (z,))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"modes": 1}, "operator.modes"),
        ({"width": 0}, "operator.width"),
        ({"layers": 0}, "operator.layers"),
        ({"padding": -0.1}, "operator.padding"),
        ({"padding": 1.5}, "operator.padding"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], key: str) -> None:
    with pytest.raises(InputError) as error:
        FNO(**options)
    assert error.value.key == key
