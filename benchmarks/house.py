"""The house before and after: sizes, circles, import times, and four solves timed in turn.

    python benchmarks/house.py OTHER_CHECKOUT [--rounds 7] [--keep]

Both checkouts, the other one first, are measured with this interpreter. Sizes count the library's
modules, tests left out; a circle is a strongly connected set of modules by their imports, wherever
these stand, but for those of type checkers. Import times are medians of nine processes. The solves
take turns, A B B A ..., each in a process of its own, which solves once to compile and then for two
seconds again and again; of all CPU seconds of a solve the least counts, since all that disturbs a
solve makes it longer.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import results

HERE = Path(__file__).resolve().parents[1]
FOLDERS = ("sciml", "solvers", "operators", "datasets")
THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
CASES = {
    "Poisson, 513^2, CG and multigrid": """
walls = {s: sciml.Condition(dirichlet=0.0) for s in box.sides}
problem = sciml.Problem(box, sciml.Equation(f=1.0), walls)
answer = lambda: sciml.solve(problem, CG, on=sciml.Grid((513, 513)))
""",
    "Darcy, contrast 1e4, 512^2 cells, CG and multigrid": """
walls = {s: sciml.Condition(neumann=0.0) for s in box.sides}
walls |= {"left": sciml.Condition(dirichlet=1.0), "right": sciml.Condition(dirichlet=0.0)}
K = torch.where(torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.5, 1.0, 1e-4)
K = K.repeat_interleave(16, 0).repeat_interleave(16, 1).double()
problem = sciml.Problem(box, sciml.Equation(K=K), walls)
answer = lambda: sciml.solve(problem, CG, on=sciml.Grid((512, 512), centring="cell"))
""",
    "heat in time, 129^2, SDIRK": """
walls = {s: sciml.Condition(dirichlet="exp(-2*t)*sin(x)*cos(y)") for s in box.sides}
problem = sciml.Problem(box, sciml.Equation(kind="heat"), walls,
                        time=sciml.Time(end=1.0), initial="sin(x)*cos(y)")
answer = lambda: sciml.solve(problem, sciml.solvers.SDIRK(rtol=1e-6), on=sciml.Grid((129, 129)))
""",
    "Poisson, PINN": """
walls = {s: sciml.Condition(dirichlet=0.0) for s in box.sides}
problem = sciml.Problem(box, sciml.Equation(f="2*pi**2*sin(pi*x)*sin(pi*y)"), walls)
solver = sciml.solvers.PINN(width=16, points=600, rtol=1e-4)
answer = lambda: sciml.solve(problem, solver, on=sciml.Grid((33, 33)), throw=False)
""",
}
SOLVE = """
import time, torch, sciml
torch.set_num_threads(1)
box = sciml.Box((0.0, 0.0), (1.0, 1.0))
CG = sciml.solvers.CG(preconditioner=sciml.solvers.Multigrid())
{case}
answer()
found = []
while len(found) < 3 or sum(found) < 2:
    start = time.process_time()
    answer()
    found.append(time.process_time() - start)
print(min(found))
"""


def modules(root: Path) -> dict[str, Path]:
    """Every module of a checkout, by its dotted name."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            inner = path.relative_to(root)
            if folder == "sciml" and inner.parts[1] in FOLDERS:
                continue  # a link to one of the other folders
            parts = inner.with_suffix("").parts
            parts = parts if folder == "sciml" else ("sciml", *parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def links(name: str, tree: ast.AST, known: set[str]) -> set[str]:
    """The modules that one imports, not counting what only type checkers read."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {id(inner) for part in node.body for inner in ast.walk(part)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            each = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in known else node.module for full in each}
    return (found & known) - {name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach one another (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in graph:
        if name not in order:
            visit(name)
    return found


def sizes(root: Path) -> dict[str, int]:
    """Files, lines, public classes and circles of a checkout."""
    every = modules(root)
    trees = {name: ast.parse(path.read_text()) for name, path in every.items()}
    known = set(every)
    graph = {name: links(name, tree, known) for name, tree in trees.items()}
    classes = [n for t in trees.values() for n in ast.walk(t) if isinstance(n, ast.ClassDef)]
    return {
        "files": len(every),
        "lines": sum(len(path.read_text().splitlines()) for path in every.values()),
        "public classes": sum(not c.name.startswith("_") for c in classes),
        "circles of imports": len(circles(graph)),
    }


def run(root: Path, code: str) -> str:
    """What ``code`` prints in a process that imports the checkout."""
    environment = os.environ | THREADS | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def import_seconds(root: Path, code: str) -> float:
    """The median of nine processes, wall seconds."""
    found = []
    for _ in range(9):
        start = time.perf_counter()
        run(root, code)
        found.append(time.perf_counter() - start)
    return round(statistics.median(found), 3)


def solves(before: Path, after: Path, rounds: int) -> dict[str, tuple[float, float, float]]:
    """The least CPU seconds before and after, and the ratio after : before."""
    result = {}
    for name, case in CASES.items():
        code = SOLVE.format(case=case)
        pairs = []
        for round_number in range(rounds):
            order = (before, after) if round_number % 2 == 0 else (after, before)
            seconds = {root: float(run(root, code)) for root in order}
            pairs.append((seconds[before], seconds[after]))
            print(f"{name}: {seconds[before]:.4f} {seconds[after]:.4f}", file=sys.stderr)
        first, second = (min(column) for column in zip(*pairs, strict=True))
        result[name] = (round(first, 4), round(second, 4), round(second / first, 3))
    return result


def main() -> None:
    """Measure both checkouts and print, or write, the rows."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("other", type=Path, help="the checkout that counts as before")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--keep", action="store_true", help="write benchmarks/results/house.json")
    given = options.parse_args()
    before = given.other.resolve()
    old, new = sizes(before), sizes(HERE)
    rows: list[tuple[results.Cell, ...]] = [
        (name, str(old[name]), str(new[name]), None) for name in old
    ]
    start = "import sciml"
    shown = "from sciml.app import cli\ntry: cli.app(['--help'])\nexcept SystemExit: pass"
    for name, code in (("import sciml, s", start), ("sciml --help, s", shown)):
        a, b = (import_seconds(root, code) for root in (before, HERE))
        rows.append((name, a, b, round(b / a, 3)))
    for name, (a, b, ratio) in solves(before, HERE, given.rounds).items():
        rows.append((f"{name}, s", a, b, ratio))
    for row in rows:
        print(*row, sep="\t")
    if given.keep:
        results.keep(
            "house",
            results.Table(
                title="The house before and after",
                date=date.today().isoformat(),
                machine="2 shared x86-64 cores, 24 GiB, no GPU",
                command="python benchmarks/house.py OTHER_CHECKOUT --keep",
                columns=("", "before", "after", "after : before"),
                rows=rows,
                note="CPU seconds of one thread, the least of all solves of all rounds.",
            ),
        )


if __name__ == "__main__":
    main()
