"""What is found of unknown functions from few readings, beside what has fewer and what has more.

    OMP_NUM_THREADS=1 python benchmarks/fit.py

A law: -(K(u) u')' = f on (0, 1), u = 0 at both ends, K = 0.1 + u^2, f = 1, -0.5 and 2 with eleven
readings each, made on 257 nodes with noise of 1 % of their deviation, fitted on 65 nodes. Told are
the largest relative L2 error of u for sources that were not among them (0.5, 1.5, -0.25), and for
another boundary value (f = 0, u(1) = 0.7), and the error of K on the range that was seen. Beside
the network: a constant, a power law, the form that is the right one, and networks from (x, f) to u
that know no equation, trained on the same 33 numbers to their noise.

A field: -div(K grad u) = 10 on the unit square, 200 readings with noise of 1 %, made on 129 x 129
nodes with a smooth K and with one of two values, fitted on 33 x 33. Told is the relative L2 error
of log K, and how much of the square lies within two deviations.

Means of three seeds; CPU seconds of one thread, torch's own first ones left out.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

import sciml
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Unknown
from sciml.core.problem.unknown import Law, Network, UnknownField

sys.path.insert(0, str(Path(__file__).parent))
from results import Table, keep

SEEDS = (0, 1, 2)
LINE, SQUARE = Box((0.0,), (1.0,)), Box((0.0, 0.0), (1.0, 1.0))
TRUTH, SOURCES, UNSEEN = "0.1 + u**2", (1.0, -0.5, 2.0), (0.5, 1.5, -0.25)
FINE, COARSE = Grid((257,)), Grid((65,))
X = torch.linspace(0.08, 0.92, 11, dtype=torch.float64)
POSITIVE = Unknown(0.5, lower=0.0)
LAWS: dict[str, tuple[Any, dict[str, Unknown]]] = {
    "best constant": ("a", {"a": POSITIVE}),
    "power law a (1 + u^2)^p": ("a*(1 + u**2)**p", {"a": POSITIVE, "p": Unknown(0.5)}),
    "network K(u), width 8": (Law(Network(("u",), positive=True)), {}),
    "the right form a + b u^2": ("a + b*u**2", {"a": POSITIVE, "b": POSITIVE}),
}
FIELDS = {
    "smooth": "exp(1.2*exp(-20*((x - 0.35)**2 + (y - 0.6)**2)) - exp(-25*((x - 0.7)**2 + "
    "(y - 0.3)**2)))",
    "two phases": "where((x - 0.4)**2 + (y - 0.55)**2 < 0.06, 4, 1)",
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rod(K: Any, source: Any, right: float = 0.0, **more: Any) -> Problem:
    sides = {"left": Condition(0.0), "right": Condition(right)}
    return Problem(LINE, Equation(kind="diffusion", K=K, f=source), sides, **more)


@dataclass(frozen=True)
class Readings:
    """Of three experiments, with ``noise``."""

    x: Tensor
    s: Tensor
    u: Tensor
    noise: float


def readings(seed: int) -> Readings:
    exact = sciml.solve(rod(TRUTH, "s", parameters={"s": SOURCES}), on=FINE).sample(X[:, None])
    noise = 0.01 * float(exact.std())
    u = exact + noise * torch.randn(exact.shape, generator=generator(seed), dtype=torch.float64)
    s = torch.tensor(SOURCES, dtype=torch.float64)[:, None].expand_as(u)
    return Readings(X.expand_as(u).flatten(), s.flatten(), u.flatten(), noise)


def error(found: Callable[[Tensor, float], Tensor], source: float, right: float = 0.0) -> float:
    """Relative L2 error of an answer u(x, f)."""
    x = torch.linspace(0, 1, 65, dtype=torch.float64)
    truth = sciml.solve(rod(TRUTH, source, right), on=COARSE).value
    return float((found(x, source) - truth).norm() / truth.norm())


@dataclass(frozen=True)
class Row:
    """Errors of u on unseen sources, and for another boundary value; of K; solves; CPU seconds."""

    sources: float
    boundary: float | None
    law: float | None
    solves: int | None
    seconds: float
    status: str


def by_equation(K: Any, unknowns: dict[str, Unknown], seen: Readings) -> Row:
    """A law found through the equation."""
    begun = time.process_time()
    stated = rod(K, "s", parameters={"s": SOURCES} | unknowns, noise=seen.noise,
                 observations={"x": seen.x, "s": seen.s, "u": seen.u})  # fmt: skip
    found = sciml.fit(stated, on=COARSE, throw=False)
    seconds = time.process_time() - begun
    problem = found.problem
    assert problem is not None
    numbers = {n: v for n, v in problem.parameters.items() if n != "s"}

    def answer(source: float, right: float = 0.0) -> Tensor:
        known = rod(problem.form.K, source, right, parameters=numbers)
        return sciml.solve(known, on=COARSE, throw=False).value

    u = torch.linspace(float(found.value.min()), float(found.value.max()), 200).double()
    truth = 0.1 + u**2
    law = problem.form.K
    if isinstance(law, str):
        text, known = law, numbers | {"u": u}
        law = lambda u: eval(text, {}, known) + 0 * u  # noqa: E731
    note = next(n for n in found.notes if n.startswith("fit: "))
    return Row(
        max(error(lambda x, f: answer(f), f) for f in UNSEEN),
        float((answer(0.0, 0.7) - exact_at(0.7)).norm() / exact_at(0.7).norm()),
        float((law(u) - truth).norm() / truth.norm()),
        int(note.split(" steps, ")[1].split()[0]),
        seconds,
        found.status.name.lower(),
    )


def exact_at(right: float) -> Tensor:
    return sciml.solve(rod(TRUTH, 0.0, right), on=COARSE).value


class Dense(nn.Module):
    """(x, f) to u; zero at both ends, as the truth is."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
        )

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        given = torch.stack([2 * x - 1, (f - 0.75) / 1.25], -1)
        u: Tensor = self.net(given)[..., 0]
        return 4 * x * (1 - x) * u


class Product(nn.Module):
    """A DeepONet: a branch of f, a trunk of x."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 8))
        self.trunk = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 8))

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        parts = self.branch((f[..., None] - 0.75) / 1.25) * self.trunk(2 * x[..., None] - 1)
        u: Tensor = parts.sum(-1)
        return 4 * x * (1 - x) * u


def by_network(kind: type[nn.Module], seen: Readings, seed: int) -> Row:
    """Trained to the noise on the numbers alone: the smallest weights that explain them."""
    begun = time.process_time()
    torch.manual_seed(seed)
    net = kind().double()
    for decay in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        optimiser = torch.optim.LBFGS(net.parameters(), max_iter=400, line_search_fn="strong_wolfe",
                                      tolerance_grad=1e-10, tolerance_change=1e-12)  # fmt: skip

        def loss(optimiser: Any = optimiser, decay: float = decay) -> Tensor:
            optimiser.zero_grad()
            misfit = ((net(seen.x, seen.s) - seen.u) / seen.noise).square().sum()
            size = sum((p.square().sum() for p in net.parameters()), torch.zeros(()).double())
            whole = misfit + decay * 33 * size
            whole.backward()  # type: ignore[no-untyped-call]
            return whole

        optimiser.step(loss)
        misfit = ((net(seen.x, seen.s) - seen.u) / seen.noise).square().mean()
        if float(misfit.detach()) <= 1:
            break
    seconds = time.process_time() - begun

    def answer(x: Tensor, f: float) -> Tensor:
        return net(x, torch.full_like(x, f)).detach()  # type: ignore[no-any-return]

    return Row(max(error(answer, f) for f in UNSEEN), None, None, None, seconds, "trained")


def laws() -> Table:
    """The first table."""
    found: dict[str, list[Row]] = {}
    by_equation(*LAWS["the right form a + b u^2"], readings(9))  # what torch loads once
    for seed in SEEDS:
        seen = readings(seed)
        for name, (K, unknowns) in LAWS.items():
            found.setdefault(name, []).append(by_equation(K, unknowns, seen))
        for name, kind in (("dense network (x, f) to u", Dense), ("DeepONet f to u", Product)):
            found.setdefault(name, []).append(by_network(kind, seen, seed))
    rows = []
    for name, each in found.items():
        columns = [[row.sources for row in each], [row.boundary for row in each],
                   [row.law for row in each]]  # fmt: skip
        shown = [f"{100 * fmean(c):.2g} %" if None not in c else "" for c in columns]  # type: ignore[type-var]
        solves = [row.solves for row in each if row.solves is not None]
        rows.append([name, *shown, f"{fmean(solves):.0f}" if solves else "",
                     f"{fmean(row.seconds for row in each):.2g}", each[0].status])  # fmt: skip
        print(rows[-1], flush=True)
    return Table(
        "A law K(u) from 33 readings with 1 % noise",
        date.today().isoformat(),
        f"{platform.machine()}, one thread",
        "OMP_NUM_THREADS=1 python benchmarks/fit.py",
        ["what is fitted", "error of u, unseen sources", "another boundary value", "error of K",
         "solves", "CPU s", "status"],
        rows,
        "Means of three seeds of the largest relative L2 error over three sources that were not "
        "among the experiments; the networks of (x, f) cannot be asked for another boundary value.",
    )  # fmt: skip


def fields() -> Table:
    """The second table."""
    rows = []
    axes = torch.meshgrid(*(torch.linspace(0, 1, 33, dtype=torch.float64),) * 2, indexing="ij")
    for name, text in FIELDS.items():
        stated = Problem(SQUARE, Equation(kind="diffusion", K=text, f=10.0),
                         dict.fromkeys(SQUARE.sides, Condition(0.0)))  # fmt: skip
        exact = sciml.solve(stated, on=Grid((129, 129)))
        x, y = axes
        names = {"exp": torch.exp, "where": torch.where, "x": x, "y": y}
        truth = torch.as_tensor(eval(text, {}, names)).double().log()
        for prior in ("h1", "tv", "gaussian"):
            errors, within, seconds, steps = [], [], [], []
            for seed in SEEDS:
                points = torch.rand(200, 2, generator=generator(seed), dtype=torch.float64)
                u = exact.sample(points)
                noise = 0.01 * float(u.std())
                u = u + noise * torch.randn(200, generator=generator(seed + 50)).double()
                K = Unknown(UnknownField(prior=prior))  # type: ignore[arg-type]
                problem = replace(
                    stated, equation=Equation(kind="diffusion", K=K, f=10.0), noise=noise,
                    observations={"x": points[:, 0], "y": points[:, 1], "u": u},
                )  # fmt: skip
                begun = time.process_time()
                found = sciml.fit(problem, on=Grid((33, 33)), throw=False)
                seconds.append(time.process_time() - begun)
                gap = found.functions["equation.K"](*axes).log() - truth
                errors.append(float(gap.norm() / truth.norm()))
                steps.append(int(found.stats.iterations))
                if found.deviations:
                    near = gap.abs() <= 2 * found.deviations["equation.K"](*axes)
                    within.append(float(near.double().mean()))
            share = f"{100 * fmean(within):.0f} %" if within else ""
            rows.append([f"{name}, {prior}", f"{fmean(errors):.2g}", share,
                         f"{fmean(steps):.0f}", f"{fmean(seconds):.2g}"])  # fmt: skip
            print(rows[-1], flush=True)
    return Table(
        "A conductivity field from 200 readings with 1 % noise",
        date.today().isoformat(),
        f"{platform.machine()}, one thread",
        "OMP_NUM_THREADS=1 python benchmarks/fit.py",
        ["truth, prior", "error of log K", "within two deviations", "steps", "CPU s"],
        rows,
        "Means of three seeds, 33 x 33 nodes, truth on 129 x 129; each step takes 200 linear "
        "solves with one factorisation.",
    )


def main() -> None:
    """Measure, and keep both tables."""
    torch.set_num_threads(1)
    keep("fit", laws())
    keep("fit-fields", fields())


if __name__ == "__main__":
    main()
