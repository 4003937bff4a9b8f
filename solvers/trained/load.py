"""Trained functions from disk, whichever network they have."""

from __future__ import annotations

from pathlib import Path

from sciml.core.problem.problem import Problem
from sciml.solvers.trained.function import TrainedFunction, read_function
from sciml.solvers.trained.gaussians import GaussianNetwork
from sciml.solvers.trained.networks import Perceptron
from sciml.solvers.trained.random_features import RandomNetwork

# Their modules register how they are built of what is on disk.
NETWORKS = (Perceptron, GaussianNetwork, RandomNetwork)


def load_function(folder: str | Path, problem: Problem | None = None) -> TrainedFunction:
    """The trained function that ``solution.save`` or ``sciml solve`` kept in a folder.

    ``problem``: needed where data that are built in were Python functions, which no file holds; it
    is the one that was solved. Raises InputError for a folder without a function, and for a file
    that is damaged or another's.
    """
    return read_function(folder, problem)
