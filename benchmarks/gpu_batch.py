"""A batch of Darcy problems on one device: samples per second and share of the memory roofline.

    python benchmarks/gpu_batch.py --device cuda --count 1024 --size 255

The roofline counts the least bytes that the algorithm must move (each array of a pass once) over
the bandwidth of a plain device copy, measured in the same run. On CUDA the torch kernels run, with
the Chebyshev smoother, whose steps are whole-array products.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from sciml.app.bench import darcy_batch
from sciml.core.algebra.maps import LinearSystem
from sciml.discretization import discretize
from sciml.solvers import CG, Multigrid


def main() -> None:
    """Run once to warm up, then report the median of five runs as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--size", type=int, default=255)
    parser.add_argument("--smoother", default="chebyshev", choices=["chebyshev", "gauss_seidel"])
    options = parser.parse_args()
    problem, grid = darcy_batch(options.count, options.size)
    system = discretize(problem, grid, device=options.device)
    solver = CG(preconditioner=Multigrid(smoother=options.smoother, sweeps=1), rtol=1e-8)
    seconds = []
    for _ in range(6):
        synchronize(options.device)
        start = time.perf_counter()
        solution = solver.run(solver.init(system))
        synchronize(options.device)
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds[1:])[2]
    iterations = int(solution.stats.iterations.max())
    least = iterations * bytes_per_iteration(system)
    bandwidth = copy_bandwidth(options.device)
    record = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else options.device,
        "count": options.count,
        "size": options.size,
        "seconds": median,
        "samples_per_second": options.count / median,
        "iterations": iterations,
        "worst_residual": float(solution.residual.max()),
        "copy_gigabytes_per_second": bandwidth / 1e9,
        "roofline_share": least / bandwidth / median,
    }
    print(json.dumps(record))


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def copy_bandwidth(device: str) -> float:
    """Bytes per second of a copy, reading and writing counted."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() * source.element_size() / best


def bytes_per_iteration(system: LinearSystem) -> float:
    """Least traffic of one CG step with a float32 V(2,2) cycle on 5- and 9-point stencils.

    Per fine unknown in float64: A p (5 coefficients, p, q), updates of x and r (6), p = z + beta p
    (3). In float32: five passes over 5 coefficients and 3 vectors on the finest level, over 9 and 3
    on the coarser ones, which hold a third of its points together.
    """
    float64 = 8 * (7 + 6 + 3)
    float32 = 4 * 5 * (8 + 12 / 3)
    return system.b.numel() * (float64 + float32)


if __name__ == "__main__":
    main()
