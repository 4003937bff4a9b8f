"""Where shards are made: in this process, in several, under Dask or under MPI.

All are executors of the standard library's kind; nothing here schedules.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process

from sciml.core.errors import InputError


@contextmanager
def executor(engine: str, workers: int) -> Iterator[Executor | None]:
    """``local``, ``dask://host:port`` or ``mpi``; None stands for this process.

    Raises InputError for another engine, or one whose package is missing.
    """
    if engine == "local" and workers == 1:
        yield None
    elif engine == "local":
        others = set(active_children())
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_attend) as pool:
            try:
                yield pool
            except KeyboardInterrupt:
                for worker in set(active_children()) - others:
                    worker.terminate()
                raise
    elif engine.startswith("dask://"):
        with _dask(engine) as pool:
            yield pool
    elif engine == "mpi":
        with _mpi() as pool:
            yield pool
    else:
        raise InputError(f"unknown engine '{engine}'; write local, dask://host:port or mpi")


def _attend() -> None:
    """A worker dies with its parent, which may be killed, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _dask(engine: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--engine dask:// needs pip install distributed") from None
    with Client("tcp://" + engine.removeprefix("dask://")) as client:
        yield client.get_executor()


@contextmanager
def _mpi() -> Iterator[Executor]:
    try:
        from mpi4py.futures import MPIPoolExecutor
    except ImportError:
        raise InputError("--engine mpi needs pip install mpi4py") from None
    with MPIPoolExecutor() as pool:
        yield pool
