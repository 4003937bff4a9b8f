"""``sciml bench elliptic``: our solvers beside SciPy's and PyAMG's, in one run on this machine.

Every method solves the same matrix and right-hand side (standard normal) to a relative residual of
1e-8 that is recomputed here; set-up and solve are apart, seconds are medians. BLAS is pinned to
one thread throughout; the number of threads is that of the methods' own loops. The methods take
turns within a repetition, so that a slow minute of the machine hits all of them alike. Systems have
constant, jumping and random coefficients. The certificate's bounds are set beside the true error,
for smooth, rough and random guesses.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before NumPy is imported: BLAS reads them once.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("BLIS_NUM_THREADS", "1")

import numpy as np
import scipy.sparse.linalg
import torch

import sciml
from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.disk import atomic_write
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.discretization import discretize
from sciml.solvers import CG, FastPoisson, Multigrid
from sciml.solvers.linear.certify import certify
from sciml.solvers.linear.iteration import relative_residual
from sciml.solvers.solve import solve

RTOL = 1e-8
OURS = "sciml CG + multigrid"

Method = Callable[[LinearSystem], tuple[torch.Tensor, float, float, int]]


@dataclass(frozen=True)
class Timing:
    """Medians of one method on one system: seconds, iterations and the true residual."""

    setup: float
    solve: float
    iterations: int
    residual: float

    @property
    def total(self) -> float:
        """Set-up and solve."""
        return self.setup + self.solve


def ours(system: LinearSystem) -> tuple[torch.Tensor, float, float, int]:
    """CG with one float32 multigrid cycle per step."""
    return _answer(solve(system, CG(preconditioner=Multigrid(), rtol=RTOL), throw=False))


def fast_poisson(system: LinearSystem) -> tuple[torch.Tensor, float, float, int]:
    """Fast sine transforms: the floor for constant coefficients on a box."""
    return _answer(solve(system, FastPoisson(rtol=RTOL), throw=False))


def _answer(solution: Any) -> tuple[torch.Tensor, float, float, int]:
    stats = solution.stats
    return solution.value, stats.setup_seconds, stats.solve_seconds, int(stats.iterations)


def scipy_cg(system: LinearSystem) -> tuple[torch.Tensor, float, float, int]:
    """SciPy's CG without a preconditioner."""
    matrix, right, count = system.A.to_scipy(), system.b.numpy().ravel(), [0]
    start = time.perf_counter()
    x, _ = scipy.sparse.linalg.cg(
        matrix,
        right,
        rtol=RTOL,
        maxiter=20_000,
        callback=lambda _: count.__setitem__(0, count[0] + 1),
    )
    return torch.from_numpy(x), 0.0, time.perf_counter() - start, count[0]


def pyamg(kind: str) -> Method:
    """PyAMG's ``ruge_stuben_solver`` or ``smoothed_aggregation_solver``, accelerated by CG."""

    def method(system: LinearSystem) -> tuple[torch.Tensor, float, float, int]:
        import pyamg

        matrix, right = system.A.to_scipy(), system.b.numpy().ravel()
        residuals: list[float] = []
        start = time.perf_counter()
        hierarchy = getattr(pyamg, kind)(matrix)
        ready = time.perf_counter()
        x = hierarchy.solve(right, tol=RTOL, accel="cg", maxiter=1000, residuals=residuals)
        return torch.from_numpy(x), ready - start, time.perf_counter() - ready, len(residuals) - 1

    return method


PYAMG = {
    "PyAMG RS + CG": pyamg("ruge_stuben_solver"),
    "PyAMG SA + CG": pyamg("smoothed_aggregation_solver"),
}


def measure(system: LinearSystem, methods: dict[str, Method], repeats: int) -> dict[str, Timing]:
    """Medians over ``repeats`` rounds in which each method takes its turn; one warms up ours."""
    for name, method in methods.items():
        if name.startswith("sciml"):
            method(system)
    rows: dict[str, list[tuple[float, float, int, float]]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            x, setup, seconds, iterations = method(system)
            residual = float(relative_residual(system.A, x.reshape(system.b.shape), system.b))
            rows[name].append((setup, seconds, iterations, residual))
    return {
        name: Timing(*(statistics.median(column) for column in zip(*runs, strict=True)))
        for name, runs in rows.items()
    }


def table(title: str, results: list[tuple[str, dict[str, Timing]]]) -> str:
    """A Markdown table; the last column is the total over ours."""
    lines = [
        f"### {title}",
        "",
        "| system | method | iterations | set-up s | solve s | total s | true residual | "
        "over ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for system, timings in results:
        for name, t in timings.items():
            lines.append(
                f"| {system} | {name} | {t.iterations:.0f} | {t.setup:.4f} | {t.solve:.4f} | "
                f"{t.total:.4f} | {t.residual:.1e} | {t.total / timings[OURS].total:.2f} |"
            )
    return "\n".join(lines) + "\n"


def constant_table(sizes: list[tuple[int, int]], repeats: int, plain: bool) -> str:
    """Constant coefficients against SciPy CG, PyAMG and the fast sine transform."""
    results = []
    for n, dimension in sizes:
        methods: dict[str, Method] = {OURS: ours, "sciml FastPoisson": fast_poisson, **PYAMG}
        if plain:
            methods["SciPy CG"] = scipy_cg
        _log(f"constant {n}^{dimension}")
        results.append((f"{n}^{dimension}", measure(poisson(n, dimension), methods, repeats)))
    return table(f"Constant coefficient, {torch.get_num_threads()} thread(s)", results)


def contrast_table(cases: list[tuple[str, int, int, float]], repeats: int) -> str:
    """Jumping coefficients against PyAMG."""
    results = []
    for kind, n, dimension, ratio in cases:
        _log(f"{kind} {ratio:g} {n}^{dimension}")
        system = contrast(coefficient(kind, n, dimension, ratio))
        methods: dict[str, Method] = {OURS: ours, **PYAMG}
        results.append((f"{kind} {ratio:g}, {n}^{dimension}", measure(system, methods, repeats)))
    return table(f"Jumping coefficient, {torch.get_num_threads()} thread(s)", results)


def anisotropy_table(n: int, repeats: int) -> str:
    """Anisotropy 1:1000 along an axis, and rotated by 30 degrees."""
    domain = Box((0.0, 0.0), (1.0, 1.0))
    walls = {side: Condition(dirichlet=0.0) for side in domain.sides}
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turned = (
        (float(1000 * c * c + s * s), float(999 * c * s)),
        (float(999 * c * s), float(1000 * s * s + c * c)),
    )
    results = []
    for name, K in (("aligned", (1000.0, 1.0)), ("rotated 30 degrees", turned)):
        _log(f"anisotropy 1:1000 {name}")
        system = discretize(Problem(domain, Equation(K=K, f=1.0), walls), Grid((n + 2, n + 2)))
        b = torch.randn(system.b.shape, generator=torch.Generator().manual_seed(0)).double()
        methods: dict[str, Method] = {OURS: ours, **PYAMG}
        timings = measure(LinearSystem(system.A, b), methods, repeats)
        results.append((f"1:1000 {name}, {n}^2", timings))
    return table(f"Anisotropy, {torch.get_num_threads()} thread(s)", results)


def scaling_table(sizes: list[int], repeats: int) -> str:
    """Iterations, nanoseconds and float64 words per unknown as the grid is refined."""
    lines = [
        "### Scaling, random 32-cell blocks at contrast 1e4 and constant coefficient, 1 thread",
        "",
        "| system | iterations | total ns per unknown | peak float64 words per unknown |",
        "|---|---|---|---|",
    ]
    for kind in ("constant", "blocks"):
        for n in sizes:
            _log(f"scaling {kind} {n}^2")
            system = poisson(n, 2) if kind == "constant" else contrast(coefficient("blocks", n, 2))
            timing = measure(system, {OURS: ours}, repeats)[OURS]
            words = f"{_peak_words(kind, n):.1f}" if n == sizes[-1] else ""
            lines.append(
                f"| {kind} {n}^2 | {timing.iterations:.0f} | {timing.total / n**2 * 1e9:.0f} | "
                f"{words} |"
            )
    return "\n".join(lines) + "\n"


def _peak_words(kind: str, n: int) -> float:
    """Growth of the peak resident memory over a solve in a fresh process, with matrix and b."""
    code = f"""
import resource, torch
torch.set_num_threads(1)
from sciml.app.bench import contrast, coefficient, ours, poisson
make = poisson if {kind!r} == "constant" else lambda n, d: contrast(coefficient("blocks", n, d))
ours(make(63, 2))
system = make({n}, 2)
from pathlib import Path
Path("/proc/self/clear_refs").write_text("5")
status = lambda key: int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])
held = (sum(c.untyped_storage().nbytes() for c in (system.A.coefficients, system.b))) / 1024
before = status("VmRSS")
ours(system)
print((status("VmHWM") - before + held) * 1024 / 8 / {n}**2)
"""
    return float(_python(code))


def batch_table(count: int, n: int, repeats: int) -> str:
    """A batch of different Darcy problems at once, against a loop over PyAMG."""
    batch = discretize(*darcy_batch(count, n))
    one = [_sample(batch, index) for index in range(min(4, count))]
    solver = CG(preconditioner=Multigrid(), rtol=RTOL)
    solve(batch, solver)
    mine, theirs = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        solution = solve(batch, solver)
        mine.append((time.perf_counter() - start) / count)
        start = time.perf_counter()
        for system in one:
            PYAMG["PyAMG RS + CG"](system)
        theirs.append((time.perf_counter() - start) / len(one))
    a, b = statistics.median(mine), statistics.median(theirs)
    worst = float(solution.residual.max())
    iterations = solution.stats.iterations
    return (
        f"### {count} Darcy problems (K in 3, 12) at {n}^2, {torch.get_num_threads()} thread(s)\n\n"
        "| method | samples per second | iterations | ratio |\n|---|---|---|---|\n"
        f"| {OURS}, one batch | {1 / a:.1f} | {int(iterations.min())}-{int(iterations.max())} "
        f"(worst residual {worst:.1e}) | {b / a:.1f} |\n"
        f"| PyAMG RS + CG, loop | {1 / b:.2f} | | 1 |\n"
    )


def darcy_batch(count: int, n: int) -> tuple[Problem, Grid]:
    """``count`` Darcy problems with f = 1 and zero Dirichlet data on n^2 cells, as one batch."""
    domain = Box((0.0, 0.0), (1.0, 1.0))
    walls = {side: Condition(dirichlet=0.0) for side in domain.sides}
    fields = torch.from_numpy(np.stack([darcy(n, seed) for seed in range(count)]))
    return Problem(domain, Equation(K=fields, f=1.0), walls), Grid((n, n), "cell")


def _sample(batch: LinearSystem, index: int) -> LinearSystem:
    assert isinstance(batch.A, Stencil)
    A = batch.A
    one = Stencil(A.coefficients[index], A.offsets, symmetric=A.symmetric, definite=A.definite)
    return LinearSystem(one, batch.b.expand(*A.batch, *A.shape)[index])


def startup_table() -> str:
    """Whole commands, and the just-in-time compilation cold and cached."""
    cli = [sys.executable, "-c", "from sciml.app.cli import main; main()"]
    configs = Path(__file__).resolve().parents[2] / "configs"
    if not configs.is_dir():
        return "### Start-up\n\nNot measured: it times specs of `configs/`, in a clone.\n"
    rows = []
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as out:
        for name in ("poisson", "darcy"):
            command = [*cli, "solve", str(configs / f"{name}.yaml"), "--out", out]
            first, again = (
                _seconds(command, {"NUMBA_CACHE_DIR": f"{cache}/{name}"}) for _ in range(2)
            )
            rows.append(f"| `sciml solve configs/{name}.yaml`, kernels to compile | {first:.1f} |")
            rows.append(f"| the same again | {again:.1f} |")
        code = "from sciml.app.bench import contrast, coefficient, ours; import time; "
        code += "s = contrast(coefficient('blocks', 63, 2)); t = time.perf_counter(); ours(s); "
        code += "a = time.perf_counter() - t; t = time.perf_counter(); ours(s); "
        code += "print(a - (time.perf_counter() - t))"
        jit = [float(_python(code, {"NUMBA_CACHE_DIR": f"{cache}/again"})) for _ in range(2)]
    help_seconds = statistics.median(_seconds([*cli, "--help"], {}) for _ in range(5))
    return (
        "### Start-up\n\n| what | seconds |\n|---|---|\n"
        f"| `sciml --help`, median of 5 | {help_seconds:.2f} |\n"
        f"| compiling the multigrid's kernels, cold | {jit[0]:.1f} |\n"
        f"| loading them from the cache | {jit[1]:.2f} |\n" + "\n".join(rows) + "\n"
    )


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    return time.perf_counter() - start


def _python(code: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    return done.stdout.strip().splitlines()[-1]


def _log(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def header() -> str:
    """What was measured, on which machine, with which versions."""
    import pyamg as peer

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"`sciml bench elliptic`, {time.strftime('%Y-%m-%d')}, {platform.machine()} with "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, torch "
        f"{torch.__version__}, SciPy {scipy.__version__}, PyAMG {peer.__version__}; relative "
        f"residual {RTOL:g}.\n"
    )


def elliptic(out: Path | None, quick: bool) -> None:
    """Print every table of the suite; write them to ``out`` as each is done."""
    repeats = 3 if quick else 5
    parts = [header()]

    def add(part: str) -> None:
        print(part, flush=True)
        parts.append(part)
        if out is not None:
            with atomic_write(out) as file:
                file.write_text("\n".join(parts), encoding="utf-8")

    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            _one_pass(add, threads, repeats, quick)
        torch.set_num_threads(1)
        add(scaling_table([63, 127, 255] if quick else [63, 127, 255, 511, 1023, 2047], repeats))
        add(startup_table())
        size = 63 if quick else 255
        add(f"### Certificate: lower / upper bound over the true energy error, {size}^2\n")
        add(certificate_table(size))
    finally:
        torch.set_num_threads(before)
    _log_peak()


def _log_peak() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    _log(f"peak memory of this process {peak} MiB")


def _one_pass(add: Callable[[str], None], threads: int, repeats: int, quick: bool) -> None:
    flat, deep = ([127], [47]) if quick else ([511, 1023], [63, 127])
    sizes = [(n, 2) for n in flat] + [(n, 3) for n in deep]
    # The peers do not use threads: with two, the long runs of plain CG would say nothing new.
    add(constant_table(sizes, repeats, plain=threads == 1))
    kinds = ("blocks", "field", "cells")
    cases = [(kind, n, 2, 1e4) for n in flat[: 3 - threads] for kind in kinds]
    cases += [(kind, deep[0], 3, 1e4) for kind in kinds]
    if threads == 1:
        cases += [("blocks", flat[0], 2, 1e6), ("checkerboard", flat[0], 2, 1e4)]
        add(anisotropy_table(flat[0], repeats))
    add(contrast_table(cases, repeats))
    add(batch_table(8 if quick else 64, 63 if quick else 255, repeats))


def poisson(n: int, dimension: int) -> LinearSystem:
    """-Lap u = f with n^d unknowns on the nodes of the unit box, normal right-hand side."""
    return _system(1.0, Grid((n + 2,) * dimension), dimension)


def contrast(field: np.ndarray) -> LinearSystem:
    """-div(K grad u) = f on cells, zero Dirichlet data, normal right-hand side."""
    return _system(torch.from_numpy(field), Grid(field.shape, "cell"), field.ndim)


def _system(K: Any, grid: Grid, dimension: int) -> LinearSystem:
    domain = Box((0.0,) * dimension, (1.0,) * dimension)
    walls = {side: Condition(dirichlet=0.0) for side in domain.sides}
    system = discretize(Problem(domain, Equation(K=K, f=1.0), walls), grid)
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(system.b.shape, generator=generator, dtype=torch.float64)
    return LinearSystem(system.A, b)


def coefficient(kind: str, n: int, dimension: int, ratio: float = 1e4) -> np.ndarray:
    """A field of contrast ``ratio``: blocks, field, cells or checkerboard."""
    random = np.random.default_rng(0)
    shape = (n,) * dimension
    if kind == "cells":
        return ratio ** random.random(shape)
    if kind == "blocks":
        blocks = ratio ** random.random((-(-n // 32),) * dimension)
        for axis in range(dimension):
            blocks = np.repeat(blocks, 32, axis)
        return np.ascontiguousarray(blocks[(slice(0, n),) * dimension])
    if kind == "checkerboard":
        parity = sum(np.meshgrid(*[np.arange(n) // 32] * dimension, indexing="ij"))
        return np.where(np.asarray(parity) % 2, ratio, 1.0)
    waves = [np.fft.fftfreq(n, 1 / n) ** 2] * dimension
    squares = sum(np.meshgrid(*waves, indexing="ij"))
    spectrum = np.fft.fftn(random.standard_normal(shape)) / (4 * np.pi**2 * np.asarray(squares) + 9)
    values = np.fft.ifftn(spectrum).real
    # The mean dominates this field: a threshold at zero may leave a single phase.
    return np.where(values > np.median(values), ratio, 1.0)


def darcy(n: int, seed: int) -> np.ndarray:
    """3 or 12 by the sign of a Gaussian field of zero mean with covariance (-Lap + 9)^-2."""
    random = np.random.default_rng(seed)
    k = np.fft.fftfreq(n, 1 / n) ** 2
    decay = 1 / (4 * np.pi**2 * (k[:, None] + k[None, :]) + 9)
    decay[0, 0] = 0.0
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal((n, n))) * decay).real
    return np.where(field > 0, 12.0, 3.0)


_STEPS = (0, 2, 5)
_CONTRAST = 1e4
_BLOCK = 32


def certificate_table(size: int = 255, seed: int = 0) -> str:
    """A markdown table: lower and upper bound over the true energy error on a ``size``^2 grid.

    Coefficients: constant, random blocks of 32 cells a side, a Gaussian field cut at its median,
    and independent log-uniform cells, at contrast 1e4; -div(K grad u) = 1, u = 0 on the rim.
    """
    lines = [
        "| coefficient | u | " + " | ".join(f"{k} steps" for k in _STEPS) + " | rho |",
        "|---|---|" + "---|" * (len(_STEPS) + 1),
    ]
    rng = np.random.default_rng(seed)
    for name, K in _certified_coefficients(size, rng):
        system = _cell_system(K)
        exact = sciml.solve(system, sciml.solvers.Direct()).value
        for kind, error in _errors(exact, rng):
            true = (error * system.A.apply(error)).sum().sqrt()
            certificates = [certify(exact + error, system, steps=k) for k in _STEPS]
            cells = [f"{c.lower / true:.4f} / {c.upper / true:.4f}" for c in certificates]
            rho = float(certificates[0].contraction)
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} | {rho:.3f} |")
    return "\n".join(lines) + "\n"


def _cell_system(K: np.ndarray) -> LinearSystem:
    box = Box((0.0, 0.0), (1.0, 1.0))
    boundary = {side: Condition(dirichlet=0.0) for side in box.sides}
    problem = Problem(box, Equation(K=torch.as_tensor(K), f=1.0), boundary)
    return discretize(problem, Grid(K.shape, "cell"))


def _certified_coefficients(n: int, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    yield "constant", np.ones((n, n))
    many = -(-n // _BLOCK)
    high = rng.random((many, many)) < 0.5
    blocks = np.kron(high, np.ones((_BLOCK, _BLOCK), dtype=bool))[:n, :n]
    yield "blocks", np.where(blocks, _CONTRAST, 1.0)
    k = np.fft.fftfreq(n, 1 / n)
    spectrum = 1 / (4 * np.pi**2 * (k[:, None] ** 2 + k**2) + 9)
    noise = np.fft.fft2(rng.standard_normal((n, n)))
    values = np.fft.ifft2(spectrum * noise).real
    # The mean dominates this field: a threshold at zero may leave a single phase.
    yield "Gaussian field", np.where(values > np.median(values), _CONTRAST, 1.0)
    yield "log-uniform cells", _CONTRAST ** rng.random((n, n))


def _errors(exact: torch.Tensor, rng: np.random.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Errors of a tenth of the solution's size: one wave, a checkerboard of waves, white noise."""
    n, size = exact.shape[0], 0.1 * exact.abs().max()
    t = torch.linspace(0, torch.pi, n, dtype=exact.dtype)
    for kind, waves in (("smooth", 1), ("rough", n // 3)):
        wave = torch.sin(waves * t)
        yield kind, size * wave[:, None] * wave
    yield "random", size * torch.as_tensor(rng.standard_normal(exact.shape))
