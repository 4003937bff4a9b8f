"""What a gradient through a solve costs, beside torch-sla on the same matrix.

-div(K grad u) = 1 on the unit square, u = 0 around, K a random positive field on the nodes;
J = sum(u^2) / 2 is differentiated with respect to K at every node. Both sides discretise by this
package, so that the answers are the same; torch-sla gets the matrix as triplets with a graph.

    OMP_NUM_THREADS=1 python benchmarks/gradient.py

torch-sla's rows need ``pip install torch-sla``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

import sciml
from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.discretization import discretize
from sciml.solvers import CG, Multigrid

try:
    from torch_sla import spsolve
except ImportError:
    spsolve = None

REPEATS = 3
RTOL = 1e-8
BOX = sciml.Box((0.0, 0.0), (1.0, 1.0))
WALLS = {side: sciml.Condition(dirichlet=0.0) for side in BOX.sides}
Answer = Callable[[LinearSystem], torch.Tensor]


def ours(system: LinearSystem) -> torch.Tensor:
    """The answer by CG and multigrid."""
    return sciml.solve(system, CG(preconditioner=Multigrid(), rtol=RTOL)).value


def triplets(A: Stencil) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values (with their graph), rows and columns of a stencil that is not periodic."""
    index = torch.arange(A.size).reshape(A.shape)
    values, rows, columns = [], [], []
    for plane, offset in zip(A.coefficients, A.offsets, strict=True):
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(offset, A.shape, strict=True))
        there = tuple(
            slice(max(0, s), n - max(0, -s)) for s, n in zip(offset, A.shape, strict=True)
        )
        values.append(plane[here].reshape(-1))
        rows.append(index[here].reshape(-1))
        columns.append(index[there].reshape(-1))
    return torch.cat(values), torch.cat(rows), torch.cat(columns)


def torch_sla(backend: str, method: str) -> Answer:
    """The answer by torch-sla; its iterations stop at an absolute tolerance."""

    def answer(system: LinearSystem) -> torch.Tensor:
        values, rows, columns = triplets(system.A)  # type: ignore[arg-type]
        b = system.b.reshape(-1)
        atol = RTOL * float(b.detach().norm())
        x = spsolve(
            values, rows, columns, (len(b), len(b)), b, backend=backend, method=method, atol=atol
        )
        return system.lift(x.reshape(system.b.shape))

    return answer


def one(answer: Answer, K: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Seconds forward (discretisation, set-up, solve), seconds backward, and the gradient."""
    K = K.detach().requires_grad_()
    problem = sciml.Problem(BOX, sciml.Equation(K=K, f=1.0), WALLS)
    start = time.perf_counter()
    value = answer(discretize(problem, sciml.Grid(tuple(K.shape))))
    middle = time.perf_counter()
    (0.5 * value.square().sum()).backward()
    assert K.grad is not None
    return middle - start, time.perf_counter() - middle, K.grad


def main() -> None:
    """Print one Markdown table; medians of three, the methods in turn."""
    torch.set_num_threads(1)
    rows: dict[str, Answer] = {"sciml: CG, multigrid": ours}
    if spsolve is not None:
        rows["torch-sla: scipy, lu"] = torch_sla("scipy", "lu")
        rows["torch-sla: pytorch, cg"] = torch_sla("pytorch", "cg")
    print("| grid | method | solve | gradient | gradient / solve | differs from ours |")
    print("|---|---|---|---|---|---|")
    for n in (129, 257, 513):
        K = torch.exp(torch.randn(n, n, generator=torch.Generator().manual_seed(0)).double())
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
        gradients = {}
        for _ in range(REPEATS + 1):
            for name, answer in rows.items():
                forward, backward, gradients[name] = one(answer, K)
                times[name].append((forward, backward))
        first = gradients["sciml: CG, multigrid"]
        for name, runs in times.items():
            forward, backward = (statistics.median(r[k] for r in runs[1:]) for k in (0, 1))
            gap = float((gradients[name] - first).norm() / first.norm())
            print(
                f"| {n}^2 | {name} | {forward:.3f} s | {backward:.3f} s "
                f"| {backward / forward:.2f} | {gap:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
