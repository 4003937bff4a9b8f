"""Seconds that can be compared: one thread, the fastest of several runs, the device waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """torch, and the compiled kernels that follow it, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fastest(
    work: Callable[[], Result], repeats: int, device: torch.device | None = None
) -> tuple[Result, float]:
    """What ``work`` returns, and the wall seconds of the fastest of ``repeats`` runs."""
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        result = work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return result, best


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
