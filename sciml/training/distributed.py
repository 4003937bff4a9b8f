"""Several processes that train one operator, started by ``torchrun``.

Every process holds all weights and takes its share of every batch. Losses are summed over the share
and divided by the size of the whole batch; DDP adds the gradients up. So the step is that of one
process on the whole batch, but for the order of the sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sciml.core.errors import InputError

_BATCHED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class World:
    """This process's number among all, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The part of a batch of ``count`` that is this process's."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def wrap(self, module: nn.Module) -> nn.Module:
        """``module`` with gradients that are averaged over all processes.

        Raises InputError for batch normalisation, by which shares would differ from the whole.
        """
        if self.size == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        if any(isinstance(part, _BATCHED) for part in module.modules()):
            raise InputError(
                "this network normalises over the whole batch, of which a process sees its share "
                "alone; train it in one process",
                "operator.kind",
            )
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)

    def sum(self, value: Tensor) -> Tensor:
        """``value`` summed over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value


@contextmanager
def world(device: torch.device | str) -> Iterator[World]:
    """The processes of this run, by the environment that torchrun sets; one where there is none.

    ``cuda`` is the GPU with the process's local number. Joins a group and leaves it again, but for
    one that the caller has made. Raises InputError for a device that is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(device, int(os.environ.get("LOCAL_RANK", "0")) if size > 1 else None)
    if size == 1:
        yield World(0, 1, device)
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if ours:
            dist.destroy_process_group()


def _device(device: torch.device | str, local: int | None) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"'{device}' is no device; cpu or cuda", "device") from None
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError("there is no GPU that torch can use; use cpu", "device")
        if local is not None and chosen.index is None:
            chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    return chosen
