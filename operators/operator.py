"""A neural operator: a network between scaled functions, with what is needed to use it elsewhere.

    x  ->  open  ->  (x - mean_x) / std_x  ->  network  ->  mean_y + std_y z  ->  close  ->  y

``open`` drops the last point of a periodic axis of a node grid, which repeats the first, so that a
network sees every point once; ``close`` puts it back. Means and deviations are one number per
channel over all training samples and points, so that one operator takes any resolution.

At other places functions on these grids are interpolated multilinearly, round periodic axes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.core.lazy import exported
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.interpolation import interpolate

Side = Literal["dirichlet", "neumann", "periodic"]
SIDES = ("dirichlet", "neumann", "periodic")


@dataclass(frozen=True)
class Signature:
    """Which functions an operator takes and gives, and on what domain.

    inputs, outputs: the names of the channels; coordinates are not among them.
    grid: bound to its box, with the shape and the centring of the training functions.
    boundary: one per axis, how the outputs behave at both ends (Robin and mixed: "neumann").
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    grid: Grid
    boundary: tuple[Side, ...]

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise InputError("an operator needs at least one input and one output channel")
        if len(self.boundary) != self.grid.box.dimension:
            raise InputError(
                f"a signature needs one boundary per axis: the grid has {self.grid.box.dimension} "
                f"axes, got {list(self.boundary)}"
            )
        for side in self.boundary:
            if side not in SIDES:
                raise InputError(f"a boundary is one of {', '.join(SIDES)}; got '{side}'")

    @property
    def dimension(self) -> int:
        """Number of space dimensions, 1 to 3."""
        return len(self.boundary)

    @property
    def repeated(self) -> tuple[bool, ...]:
        """Per axis, whether the grid's last point repeats its first."""
        node = self.grid.centring == "node"
        return tuple(node and side == "periodic" for side in self.boundary)

    @property
    def opened(self) -> tuple[int, ...]:
        """The grid's shape without repeated points."""
        return tuple(n - r for n, r in zip(self.grid.shape, self.repeated, strict=True))

    def open(self, x: Tensor) -> Tensor:
        """``x (..., *grid)`` of any resolution without the repeated last points; a view."""
        for axis, repeated in enumerate(self.repeated, -self.dimension):
            if repeated:
                x = x.narrow(axis, 0, x.shape[axis] - 1)
        return x

    def close(self, y: Tensor) -> Tensor:
        """``y (..., *opened grid)`` with the first point of periodic axes repeated at the end."""
        for axis, repeated in enumerate(self.repeated, -self.dimension):
            if repeated:
                y = torch.cat([y, y.narrow(axis, 0, 1)], axis)
        return y

    def coordinates(self, shape: tuple[int, ...]) -> Tensor:
        """Positions in [0, 1] per axis of an opened grid of ``shape``; (d, *shape), float32."""
        axes = [
            (torch.arange(n, dtype=torch.float64) + self._shift) / self._gaps(n, axis)
            for axis, n in enumerate(shape)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()

    def spacing(self, shape: tuple[int, ...]) -> tuple[float, ...]:
        """Distance h between neighbouring points of an opened grid of ``shape``, per axis."""
        box = self.grid.box
        return tuple(
            (b - a) / self._gaps(n, axis)
            for axis, (a, b, n) in enumerate(zip(box.lower, box.upper, shape, strict=True))
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data from which ``from_json`` makes an equal signature."""
        box = self.grid.box
        return {
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "shape": list(self.grid.shape),
            "centring": self.grid.centring,
            "lower": list(box.lower),
            "upper": list(box.upper),
            "boundary": list(self.boundary),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Signature:
        """The signature that ``to_json`` wrote.

        Raises InputError where a key is missing, TypeError or ValueError where the data are others.
        """
        keys = ("inputs", "outputs", "shape", "centring", "lower", "upper", "boundary")
        if not isinstance(data, Mapping):
            raise TypeError(f"it must have {', '.join(keys)}; it is {data!r}")
        missing = [key for key in keys if key not in data]
        if missing:
            raise InputError(f"a signature needs {', '.join(keys)}; {', '.join(missing)} missing")
        for key in keys:
            if key != "centring" and not isinstance(data[key], (list, tuple)):
                raise TypeError(f"{key} must be a list; it is {data[key]!r}")
        box = Box(tuple(map(float, data["lower"])), tuple(map(float, data["upper"])))
        grid = Grid(tuple(map(int, data["shape"])), data["centring"], box)
        return Signature(
            tuple(data["inputs"]), tuple(data["outputs"]), grid, tuple(data["boundary"])
        )

    @property
    def _shift(self) -> float:
        return 0.5 if self.grid.centring == "cell" else 0.0

    def _gaps(self, n: int, axis: int) -> int:
        ends = self.grid.centring == "node" and self.boundary[axis] != "periodic"
        return n - 1 if ends else n


class Options(Protocol):
    """The options of one architecture: a frozen dataclass that builds its network."""

    @property
    def kind(self) -> str:
        """The architecture's name in a spec and in a checkpoint."""
        ...

    def build(self, signature: Signature) -> nn.Module:
        """The network: (B, C_in, *opened grid)[, points (P or B P, d)] -> (B, C_out, ...)."""
        ...


def architectures() -> list[type[Any]]:
    """The options of every architecture that the package exports, as :class:`Options` describes."""
    import sciml.operators

    wanted = list(inspect.signature(Options.build).parameters)
    return [
        entry
        for entry in exported(sciml.operators, "build")
        if list(inspect.signature(entry.build).parameters) == wanted
    ]


class Operator(nn.Module):
    """A neural operator: options, signature, scaling, network; float32 unless converted.

    ``provenance``: plain JSON data on where the weights come from, kept in checkpoints. ``notes``:
    what makes what was loaded doubtful. ``solved``: whether it has no weights to train.
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(self, options: Options, signature: Signature, network: nn.Module) -> None:
        super().__init__()
        self.options = options
        self.signature = signature
        self.network = network
        self.provenance: dict[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        self.left_out: float | None = None
        for name, channels in (("input", signature.inputs), ("output", signature.outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(len(channels)))
            self.register_buffer(f"{name}_std", torch.ones(len(channels)))

    @property
    def solved(self) -> bool:
        """Whether :meth:`prepare` finds all of its weights, and descent has none to change."""
        return not any(p.requires_grad for p in self.parameters())

    @classmethod
    def build(cls, options: Options, signature: Signature, *, seed: int = 0) -> Operator:
        """A new operator on the CPU; its weights depend on ``seed`` alone.

        The global generator is left as it was. Raises InputError for options that the signature
        does not allow.
        """
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            return cls(options, signature, options.build(signature))

    def prepare(self, x: Tensor, y: Tensor) -> None:
        """Set the scaling from training samples ``x (N, C_in, *grid)``, ``y (N, C_out, *grid)``.

        A constant channel keeps the deviation 1. Where the options say ``hard_boundary``, the mean
        of the outputs is left 0, so that zero boundary values stay zero. A network with a method
        ``prepare`` is given the opened and scaled outputs; one with ``regress`` inputs and outputs,
        to be solved for, and ``left_out`` is then the mean relative L2 error of every sample by the
        others.
        """
        self._check(x, self.signature.inputs, "input")
        self._check(y, self.signature.outputs, "output")
        opened = self.signature.open(y)
        hard = getattr(self.options, "hard_boundary", False)
        _set_scaling(self.input_mean, self.input_std, self.signature.open(x), centred=True)
        _set_scaling(self.output_mean, self.output_std, opened, centred=not hard)
        prepare: Callable[[Tensor], None] | None = getattr(self.network, "prepare", None)
        regress: Callable[[Tensor, Tensor], Tensor] | None = getattr(self.network, "regress", None)
        if prepare is None and regress is None:
            return
        mean, std = self._column(self.output_mean), self._column(self.output_std)
        z = (opened.to(self.output_mean) - mean) / std
        if prepare is not None:
            prepare(z)
        if regress is not None:
            a = self.signature.open(x).to(self.input_mean)
            a = (a - self._column(self.input_mean)) / self._column(self.input_std)
            missed = ((regress(a, z) - z) * std).double().flatten(1).norm(dim=1)
            size = opened.double().flatten(1).norm(dim=1)
            self.left_out = float((missed / size.clamp_min(1e-300)).mean())

    def forward(self, x: Tensor, points: Tensor | None = None) -> Tensor:
        """``x (B, C_in, *grid)`` to ``(B, C_out, *grid)``, both in physical units.

        With ``points``, (P, d) for all samples or (B, P, d), physical coordinates: to
        ``(B, C_out, P)``. ``x`` is converted to the operator's own precision, which the values
        returned have. Raises InputError for channels or axes that do not fit and for points given
        to a network that answers on grids only.
        """
        self._check(x, self.signature.inputs, "input")
        z = self.signature.open(x).to(self.input_mean.dtype)
        z = (z - self._column(self.input_mean)) / self._column(self.input_std)
        if points is None:
            y: Tensor = self.network(z)
            self._check_answer(y, z)
            y = y * self._column(self.output_std) + self._column(self.output_mean)
            return self.signature.close(y)
        y = self.network(z, self._scaled(points))
        return y * self.output_std[:, None] + self.output_mean[:, None]

    def _column(self, channels: Tensor) -> Tensor:
        return channels.view(-1, *(1,) * self.signature.dimension)

    def _scaled(self, points: Tensor) -> Tensor:
        if not getattr(self.network, "takes_points", False):
            raise InputError(
                f"{self.options.kind} answers on grids only, not at points; use a deeponet for that"
            )
        if points.shape[-1] != self.signature.dimension:
            raise InputError(
                f"points need {self.signature.dimension} coordinates each; got shape "
                f"{tuple(points.shape)}"
            )
        box = self.signature.grid.box
        lower, upper = points.new_tensor(box.lower), points.new_tensor(box.upper)
        return ((points - lower) / (upper - lower)).to(self.input_mean.dtype)

    def _check_answer(self, y: Any, z: Tensor) -> None:
        """A network from elsewhere may answer in another shape, which would be spread out."""
        wanted = (len(z), len(self.signature.outputs), *z.shape[2:])
        got = y.shape if isinstance(y, Tensor) else None
        if got != wanted:
            told = f"a tensor of shape {list(got)}" if got else f"a {type(y).__name__}"
            raise InputError(
                f"the network of '{self.options.kind}' gives {told} for an input of shape "
                f"{list(z.shape)}; it must give {list(wanted)}",
                "operator",
            )

    def _check(self, x: Tensor, names: tuple[str, ...], what: str) -> None:
        axes = self.signature.dimension
        if x.ndim != 2 + axes or x.shape[1] != len(names):
            raise InputError(
                f"the {what} needs shape (samples, {len(names)} for {', '.join(names)}, and "
                f"{axes} axes of the grid); got {tuple(x.shape)}"
            )


def _set_scaling(mean: Tensor, std: Tensor, x: Tensor, *, centred: bool) -> None:
    for channel in range(x.shape[1]):
        values = x[:, channel].double()
        centre, spread = values.mean(), values.std(correction=0)
        constant = spread <= 1e-6 * centre.abs()
        std[channel] = torch.where(constant, 1.0, spread)
        mean[channel] = centre if centred else 0.0


def ticks(signature: Signature, shape: Sequence[int]) -> list[Tensor]:
    """Positions in [0, 1] along each axis of an opened grid, float64; a lone point is at 0."""
    cell = signature.grid.centring == "cell"
    ends = [not cell and side != "periodic" for side in signature.boundary]
    return [
        (torch.arange(n, dtype=torch.float64) + 0.5 * cell) / max(n - end, 1)
        for n, end in zip(shape, ends, strict=True)
    ]


def resample(values: Tensor, signature: Signature, shape: Sequence[int]) -> Tensor:
    """``values`` (..., *opened grid) on the opened grid of another shape, multilinearly."""
    places = torch.meshgrid(*ticks(signature, shape), indexing="ij")
    return at_places(values, signature, [s.to(values.device) for s in places])


def at_places(values: Tensor, signature: Signature, places: Sequence[Tensor]) -> Tensor:
    """``values`` (..., *opened grid) at places in [0, 1] per axis, multilinearly, wrapped round."""
    grid = values.shape[values.ndim - signature.dimension :]
    axes = [s.to(values.device) for s in ticks(signature, grid)]
    for axis, side in enumerate(signature.boundary):
        if side == "periodic":
            dim, s = axis - signature.dimension, axes[axis]
            first, last = values.narrow(dim, 0, 1), values.narrow(dim, -1, 1)
            values = torch.cat([last, values, first], dim)
            axes[axis] = torch.cat([s[-1:] - 1, s, s[:1] + 1])
    return interpolate(values, places, axes)
