from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

torch.set_num_threads(1)
_compile = Dispatcher.compile


def _compiled_once(self: Dispatcher, signature: Any) -> Any:
    """Machine code from the cache, where another process of these tests has just made it.

    In a fresh clone two processes need the same loops at the same time.
    """
    if self._cache.cache_path is None:
        return _compile(self, signature)
    folder = Path(self._cache.cache_path)
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(f"{self.py_func.__qualname__} {signature}".encode()).hexdigest()
    with global_compiler_lock, open(folder / f"{name[:16]}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return _compile(self, signature)


Dispatcher.compile = _compiled_once


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
