"""Networks from points to values that carry their derivatives along, for collocation.

A layer takes and gives jets (``discretization.points.jet``). Rows of the Jacobian by the parameters
follow from one backward sweep: the residual of a point depends on that point's jet alone, so that
with delta = d(sum of residuals)/d(output of a layer), (C, N, out),

    d r_n / d W = sum_c delta_cn  x  h_cn,       d r_n / d bias = delta_0n,

h (C, N, in) the layer's input. No per-sample differentiation, no second network.

Random weight factorisation: W = diag(exp s) V (Wang et al. 2022, arXiv 2210.01274). The modified
network mixes two encodings of the input into every layer (Wang, Teng, Perdikaris 2021, eq. 43-46).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, did_you_mean
from sciml.discretization.points.jet import Jet, Pairs, coordinates
from sciml.discretization.points.strong import StrongForm
from sciml.solvers.trained.conditions import extent

Activation = Literal["tanh", "sin"]
Tape = list[tuple[Any, Any, Tensor]]  # a block, its input, its output
# From the options of a network and its tensors, of which the sizes alone count, to one like it.
Rebuild = Callable[[Mapping[str, Any], Mapping[str, Tensor]], nn.Module]
_REBUILT: dict[str, Rebuild] = {}


def rebuilds(kind: str) -> Callable[[Rebuild], Rebuild]:
    """Register what makes a network of this ``kind`` of what is on disk."""

    def register(rebuild: Rebuild) -> Rebuild:
        _REBUILT[kind] = rebuild
        return rebuild

    return register


def rebuilt(options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network of these ``options``, float64, its weights still to be loaded.

    Raises InputError for a kind that nothing was registered for.
    """
    kind = options.get("kind", "")
    if kind not in _REBUILT:
        raise InputError(f"the kind of network '{kind}' is unknown{did_you_mean(kind, _REBUILT)}")
    return _REBUILT[kind](options, tensors).double()


class JetLayer(Protocol):
    """A layer with parameters of its own, each an ``nn.Parameter``."""

    def parameters(self) -> object:
        """In the order of the columns of ``jacobian``."""

    def jacobian(self, given: Tensor, delta: Tensor) -> Tensor:
        """(N, P) from the input's jet (C, N, in) and delta (C, N, out)."""


@torch.no_grad()
def derivatives(tape: Tape, deltas: Sequence[Tensor], blocks: Sequence[Any]) -> Tensor:
    """The rows (N, P) by the parameters of ``blocks``, from the deltas at a tape's outputs."""
    found = {
        id(block): block.jacobian(given, delta)
        for (block, given, _), delta in zip(tape, deltas, strict=True)
    }
    return torch.cat([found[id(block)] for block in blocks], 1)


class Dense(nn.Module):
    """An affine layer on jets; ``factorised``: W = diag(exp s) V."""

    def __init__(self, inputs: int, outputs: int, factorised: bool = False) -> None:
        super().__init__()
        weight = torch.empty(outputs, inputs)
        nn.init.xavier_normal_(weight)
        self.scale: nn.Parameter | None = None
        if factorised:
            scale = 1.0 + 0.1 * torch.randn(outputs)
            self.scale = nn.Parameter(scale)
            weight = weight / scale.exp()[:, None]
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def matrix(self) -> Tensor:
        """W, (out, in)."""
        return self.weight if self.scale is None else self.scale.exp()[:, None] * self.weight

    def forward(self, jet: Jet, tape: Tape | None) -> Jet:
        """The outputs' jet."""
        data = jet.data @ self.matrix().T
        value, others = data.split([1, len(data) - 1])
        data = torch.cat([value + self.bias, others])
        if tape is not None:
            tape.append((self, jet.data, data))
        return jet.like(data)

    def columns(self) -> list[nn.Parameter]:
        """The parameters in the order of the Jacobian's columns."""
        return [self.weight, self.bias, *(() if self.scale is None else (self.scale,))]

    def jacobian(self, given: Tensor, delta: Tensor) -> Tensor:
        """(N, P); see the module."""
        outer = torch.einsum("cno,cni->noi", delta, given)
        parts = [outer.flatten(1), delta[0]]
        if self.scale is not None:
            parts[0] = (outer * self.scale.exp()[:, None]).flatten(1)
            parts.append((outer * self.matrix()).sum(-1))
        return torch.cat(parts, 1)


class InputScaling(nn.Module):
    """Inputs of a network: each axis on [-1, 1], or (cos, sin) of its angle where periodic.

    ``frequencies`` (D', m), if any, replace these by sines and cosines of random combinations
    (Tancik et al. 2020).
    """

    frequencies: Tensor | None

    def __init__(
        self,
        lower: Iterable[float] | Tensor,
        upper: Iterable[float] | Tensor,
        periodic: Sequence[bool],
        frequencies: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.lower, self.upper = (tuple(map(float, corner)) for corner in (lower, upper))
        self.periodic = tuple(periodic)
        self.register_buffer("frequencies", frequencies)

    @property
    def size(self) -> int:
        """Number of inputs."""
        plain = sum(2 if p else 1 for p in self.periodic)
        return plain if self.frequencies is None else 2 * self.frequencies.shape[1]

    @property
    def options(self) -> dict[str, Any]:
        """What :func:`scaling_of` makes it of, but for its tensors."""
        features = 0 if self.frequencies is None else self.frequencies.shape[1]
        return {
            "lower": self.lower, "upper": self.upper, "periodic": self.periodic,
            "features": features,
        }  # fmt: skip

    def forward(self, points: Tensor, pairs: Pairs) -> Jet:
        """(N, D) to the jet of the inputs."""
        jet = coordinates(points, pairs)
        parts = []
        for i, periodic in enumerate(self.periodic):
            low, high = self.lower[i], self.upper[i]
            rate = (2 * math.pi if periodic else 2.0) / (high - low)
            axis = jet.data[..., i : i + 1] * rate
            axis[0] = (points[:, i : i + 1] - low) * rate - (0.0 if periodic else 1.0)
            parts += _circle(jet.like(axis)) if periodic else [axis]
        data = torch.cat(parts, -1)
        if self.frequencies is None:
            return jet.like(data)
        waves = jet.like(data @ self.frequencies.to(data))
        return jet.like(torch.cat(_circle(waves), -1))


def scaling_of(options: Mapping[str, Any]) -> InputScaling:
    """That of these ``options``, its frequencies zero."""
    lower, upper, periodic = options["lower"], options["upper"], options["periodic"]
    if not options["features"]:
        return InputScaling(lower, upper, periodic)
    inputs = InputScaling(lower, upper, periodic).size
    return InputScaling(lower, upper, periodic, torch.zeros(inputs, options["features"]))


def _circle(angle: Jet) -> list[Tensor]:
    c, s = angle.value.cos(), angle.value.sin()
    return [
        angle.through(c, -s, -c, s, c).data,
        angle.through(s, c, -s, -c, s).data,
    ]


def _tanh(jet: Jet) -> Jet:
    return jet.through(*tanh_derivatives(jet.value, jet.order))


def tanh_derivatives(x: Tensor, order: int) -> tuple[Tensor, ...]:
    """tanh and its derivatives, two or, where the ``order`` is above, four."""
    t = x.tanh()
    slope = 1 - t * t
    bend = -2 * t * slope
    if order < 3:
        return t, slope, bend
    square = t * t
    return t, slope, bend, slope * (6 * square - 2), 4 * bend * (3 * square - 2)


def _sin(jet: Jet) -> Jet:
    s, c = jet.value.sin(), jet.value.cos()
    return jet.through(s, c, -s, -c, s)


ACTIVATIONS: dict[str, Callable[[Jet], Jet]] = {"tanh": _tanh, "sin": _sin}


class Perceptron(nn.Module):
    """A fully connected network on jets; ``modified``: see the module."""

    def __init__(
        self,
        embedding: InputScaling,
        width: int,
        depth: int,
        outputs: int,
        activation: Activation = "tanh",
        modified: bool = False,
        factorised: bool = False,
    ) -> None:
        super().__init__()
        self.options = {
            "kind": "perceptron", "embedding": embedding.options, "width": width, "depth": depth,
            "outputs": outputs, "activation": activation, "modified": modified,
            "factorised": factorised,
        }  # fmt: skip
        self.embedding = embedding
        self.activation = ACTIVATIONS[activation]
        sizes = [embedding.size, *[width] * depth]
        self.hidden = nn.ModuleList(Dense(a, b, factorised) for a, b in pairwise(sizes))
        self.last = Dense(width, outputs, factorised)
        self.encoders = nn.ModuleList(
            Dense(embedding.size, width, factorised) for _ in range(2 if modified else 0)
        )

    @torch.no_grad()
    def begin(self, waves: Tensor, shifts: Tensor) -> None:
        """Let the first layer be W z + b with W ``waves`` (width, inputs) and b ``shifts``."""
        first: Any = self.hidden[0]
        first.weight.copy_(waves if first.scale is None else waves / first.scale.exp()[:, None])
        first.bias.copy_(shifts)

    def forward(self, points: Tensor, pairs: Pairs, tape: Tape | None = None) -> Jet:
        """The jet of the outputs at the points (N, D)."""
        jet = self.embedding(points, pairs)
        codes = [self.activation(encoder(jet, tape)) for encoder in self.encoders]
        for layer in self.hidden:
            jet = self.activation(layer(jet, tape))
            if codes:
                first, second = codes
                jet = first + jet * jet.like(second.data - first.data)
        last: Jet = self.last(jet, tape)
        return last

    def blocks(self) -> list[Dense]:
        """Every layer with parameters, each once."""
        return [*self.encoders, *self.hidden, self.last]


@rebuilds("perceptron")
def _perceptron(options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Perceptron:
    plain = {name: value for name, value in options.items() if name not in ("kind", "embedding")}
    return Perceptron(scaling_of(options["embedding"]), **plain)


def perceptron(
    form: StrongForm,
    seed: int,
    width: int,
    depth: int,
    activation: Activation = "tanh",
    features: int = 0,
    feature_scale: float = 1.0,
    modified: bool = False,
    factorised: bool = False,
) -> Perceptron:
    """A float64 network on the box of a problem, one output a field, its weights drawn."""
    problem, (lower, upper) = form.problem, extent(form)
    axes = (*form.data.periodic, *(() if problem.time is None else (False,)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        embedding = InputScaling(lower, upper, axes)
        if features:
            drawn = feature_scale * torch.randn(embedding.size, features)
            embedding = InputScaling(lower, upper, axes, drawn)
        network = Perceptron(
            embedding, width, depth, len(form.fields), activation, modified, factorised
        )
    return network.double()
