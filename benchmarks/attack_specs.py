"""Attack the reader of specs, and what stands behind it: mutants of the configs and presets.

    python benchmarks/attack_specs.py [--checked 5000] [--solved 1000] [--journal FILE]

Three kinds of mutants. What *must be refused*: keys misspelled, doubled or unknown, booleans for
numbers, boxes upside down, unknown names, wrong dimensions, counts that are none. What *must change
nothing*: other spellings of the same values, other orders of the keys, a constant as a text, a
parameter, a table or a file, other units, exchanged axes; their answers are compared with those of
the spec they came from. What *may be anything*: values of all kinds in places of all kinds, parts
of one spec in another, text that is damaged. Each must end in an answer with a true status, or in
one line with its place. An answer that calls itself converged must be finite, have the residual
that it says, and, where it is that of a linear system, be near the one by elimination.

The cases run in a process of their own, which is started anew where one takes it along.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import os
import random
import re
import resource
import signal
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attack import ANSWERED, LOST, REFUSED, STOPPED, TRACEBACK, WRONG, Journal

ROOT = Path(__file__).resolve().parents[1]
# Seconds of the processor, so that a busy machine changes nothing; of the clock; memory.
SECONDS, SILENCE, BYTES = 20, 900, 8 << 30
Tree = Any
Path_ = tuple[Any, ...]

_SOLUTION = {"name", "kind", "file", "dataset", "observations", "path", "family", "spec", "folder"}
HOSTILE: list[Any] = [
    None, True, False, [], {}, [[]], [None], [True], 0, -1, 1, 2, 3, 1e308, -1e308, 1e-308, 5e-324,
    1e-300, 1e16, 10**30, -(10**30), 2**31, 2**63, 1.5, -0.0, "", " ", "\u00e9", "\U0001f600",
    "\u202e", "\u043a\u043b\u044e\u0447", "5$ for {10$", "x", "y", "z", "u", "t", "ux", "nx", "ut",
    "1/0", "0/0", "log(-1)", "sqrt(x-2)", "1/x", "1/(x-0.5)", "exp(1000)", "exp(1000*x)", "zeta",
    "sin", "sin()", "sin(x", "sin(x, x)", "x**", "x^2", "2x", "x y", "x == 1", "x < 0.5",
    "where(x < 0.5, 1)", "where(x < 0.5, 1e300, 1e-300)", "where(x < 2, 1, 1/0)", "1e-200",
    "__import__('os')", "x; y", "lambda: 1", "x.real", "1e999", "1_000", "0x10", "1:30", "yes",
    "null", "~", "1e-3", "1,5", "inf", "-inf", "nan", "1j", "pi", "e", "1 +", "(((((1)))))", "t*x",
    "u**2", "1/u", "abs(u)", "-1", "0*x", "x**0.5", "(-x)**0.5", "x/x", "min(x)", "a" * 9000,
    {"file": "nothing.npy"}, {"file": "/etc/passwd"}, {"file": ""}, {"file": "bad.npy"},
    {"table": "no.csv", "of": "x"}, {"of": "x"}, {"columns": {"x": [0, 1], "k": [1, 2]}, "of": "x"},
    {"columns": {"x": [1, 0], "k": [1, 2]}, "of": "x"}, {"columns": {"x": [0, 0], "k": [1, 2]}},
    {"columns": {"t": [0, 1], "k": [1, 2]}, "of": "t", "outside": "hold"}, {"unknown": 1},
    {"unknown": None}, {"kind": "uniform", "low": 0, "high": 1}, {"kind": 3}, {"regions": {"a": 1}},
    {"regions": {}}, [1, 2], [1, 2, 3, 4], ["x", "y"], [[1, 0], [0, 1]], [[1, 2], [2, 1]],
    [[1, 0.5], [0.4, 1]], [1, "x"], [[1], [2, 3]], list(range(60)), {"dirichlet": 0},
    {"neumann": 1}, {"periodic": True}, {"robin": {"alpha": -1, "g": 0}}, {"a": {"b": {"c": 1}}},
    {"kind": "cg"}, {"kind": "direct"}, {"kind": "box", "lower": [0], "upper": [1]},
]  # fmt: skip
TEXT = ["\t", "\ufeff", "&a ", "*a", "<<: *a", "!!python/object:os.system ", "---\n", "...\n", "? ",
        "- ", "%YAML 1.1\n", "\x00", "\x85", "\u2028", "\r", "{", "}", "[", "]", ",", ":", ": ",
        "#", " #", "|", ">", "'", '"', "\\", "`", "@", "%", "\n", "\n\n", "  ", "\U0001f600",
        "!", "~", "=", "\x1b[31m", "\\ud83d\\ude00", "1e400", ".nan", ".inf", "-.inf"]  # fmt: skip


def bases() -> dict[str, Tree]:
    """The specs to be changed, small enough to be solved in a moment, by name."""
    from sciml.app.yaml import read_yaml

    folders = (ROOT / "configs", ROOT / "sciml" / "app" / "templates")
    found = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            data = read_yaml(path).data
            name = path.stem if folder.name == "configs" else f"preset-{path.stem}"
            # What needs a trained operator is refused whatever is changed.
            if not isinstance(data.get("solver"), dict) or "path" not in data["solver"]:
                found[name] = small(data) if "dataset" not in data else data
    for path in sorted((ROOT / "configs" / "datasets").glob("*.yaml")):
        found[f"datasets-{path.stem}"] = read_yaml(path).data
    for path in sorted((ROOT / "configs" / "train").glob("*.yaml")):
        found[f"train-{path.stem}"] = read_yaml(path).data
    return found


def small(data: Tree) -> Tree:
    """The spec on a coarse grid, over a short time, with few iterations of training."""
    data = copy.deepcopy(data)
    if not isinstance(data.get("problem"), dict):
        return data
    if "grid" in data:
        shape = data["grid"]["shape"]
        most = {1: 49, 2: 17, 3: 9}[len(shape)]
        data["grid"]["shape"] = [max(n * most // max(shape), 7) for n in shape]
    if "points" in data:
        data["points"]["count"] = 50
    if "geometry" in data:
        data["geometry"]["size"] = 0.5
    solver = data.get("solver", {})
    if "time" in data["problem"] and "observations" not in data["problem"]:
        span = data["problem"]["time"]
        span["end"], span["frames"] = span["end"] / 20, 3
        if solver.get("kind") == "projection":
            span["end"] = 0.05
    if "continuation" in solver or solver.get("kind") in ("pinn", "deep_ritz"):
        solver.pop("optimiser", None)
    if solver.get("kind") in ("pinn", "gaussians", "random_features", "deep_ritz"):
        solver.update(
            {
                "pinn": {"width": 6, "points": 60},
                "deep_ritz": {"width": 6},
                "gaussians": {"count": 20},
                "random_features": {"count": 60},
            }[solver["kind"]]
        )
    if solver.get("kind") == "pinn":
        solver["optimiser"] = {"kind": "gauss_newton", "iterations": 8}
    return data


@dataclass(frozen=True)
class Mutant:
    """A spec, what was done to it, and how it must end: ``refused``, ``same`` or ``any``.

    ``expected``: what the answer of the spec it came from must be turned into first.
    """

    text: str
    base: str
    change: str
    must: str
    expected: Callable[[Any], Any] | None = None
    trees: Tree = None


def leaves(data: Tree, path: Path_ = ()) -> Iterator[tuple[Path_, Tree]]:
    """Everything in a tree with its path, itself left out."""
    entries = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in entries:
        yield (*path, key), value
        if isinstance(value, (dict, list)):
            yield from leaves(value, (*path, key))


def at(data: Tree, path: Path_) -> Tree:
    for key in path:
        data = data[key]
    return data


def put(data: Tree, path: Path_, value: Tree) -> None:
    at(data, path[:-1])[path[-1]] = value


def known_keys() -> set[str]:
    """All keys that any spec may have."""
    text = (ROOT / "configs" / "schema.json").read_text()
    return set(re.findall(r'"(\w+)": \{', text)) | {"u", "ut", "v", "w", "p", "vorticity", "x", "t"}


def rows_of(data: Tree, depth: int = 0, twice: Path_ = (), path: Path_ = ()) -> str:
    """A tree as JSON over several lines, which is YAML; the key at ``twice`` stands twice."""
    if isinstance(data, dict):
        entries = [(k, rows_of(v, depth + 1, twice, (*path, k))) for k, v in data.items()]
        entries += [entry for entry in entries if twice and (*path, entry[0]) == twice]
        inner = ",\n".join(f"{' ' * depth} {json.dumps(k)}: {v}" for k, v in entries)
        return f"{{\n{inner}}}" if entries else "{}"
    if isinstance(data, list):
        return (
            "["
            + ", ".join(rows_of(v, depth + 1, twice, (*path, k)) for k, v in enumerate(data))
            + "]"
        )
    if isinstance(data, float) and data != data:
        return ".nan"
    return json.dumps(data, ensure_ascii=True) if not isinstance(data, str) else _quoted(data)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_DATA = re.compile(r"equation|boundary|initial|exact|obstacle")


def expressions(data: Tree) -> list[tuple[Path_, str]]:
    """The places of expressions of a problem's data."""
    return [
        (path, value)
        for path, value in leaves(data)
        if isinstance(value, str)
        and len(path) > 1
        and path[0] == "problem"
        and _DATA.match(str(path[1]))
        and str(path[-1]) not in (*_SOLUTION, "plane", "scheme", "table", "of", "through")
    ]


def refused(data: Tree, rng: random.Random) -> tuple[Tree, str, Path_]:
    """A change that must be refused; nothing (None) where the spec has no place for it."""
    whole = list(leaves(data))
    problem = data.get("problem") if isinstance(data.get("problem"), dict) else {}
    free = ("parameters", "inputs", "changes", "provenance")
    kind = rng.choice(["misspelled", "unknown key", "doubled", "boolean", "box", "name", "list",
                       "dimension", "count", "rtol", "word"])  # fmt: skip
    named = [p for p, _ in whole if isinstance(p[-1], str) and "inputs" not in p]
    if kind == "misspelled":
        path = rng.choice(named)
        key = path[-1]
        k = rng.randrange(len(key))
        new = rng.choice(
            [key[:k] + key[k] + key[k:], key[:k] + key[k + 1 :], key + "s", key.title()]
        )
        if not new or new in known_keys() or new in at(data, path[:-1]):
            return None, kind, ()
        holder = at(data, path[:-1])
        items = [(new if k == key else k, v) for k, v in holder.items()]
        holder.clear()
        holder.update(items)
        return data, kind, ()
    if kind == "unknown key":
        holders = [p for p, v in whole if isinstance(v, dict) and p[-1] not in free] + [()]
        at(data, rng.choice(holders))["zzz"] = rng.choice([1, None, "x", [1]])
        return data, kind, ()
    if kind == "doubled":
        return data, kind, rng.choice(named)
    if kind == "boolean":
        places = [p for p, v in whole if isinstance(v, (int, float)) and not isinstance(v, bool)]
        put(data, rng.choice(places), True) if places else None
        return data if places else None, kind, ()
    if kind == "box" and "domain" in problem:
        box = problem["domain"]
        axis = rng.randrange(len(box["lower"]))
        if rng.random() < 0.5:
            box["lower"][axis], box["upper"][axis] = box["upper"][axis], box["lower"][axis]
        else:
            box["upper"][axis] = box["lower"][axis]
        return data, kind, ()
    if kind == "name":
        places = expressions(data)
        if places:
            path, text = rng.choice(places)
            put(data, path, f"{text} + zeta" if "<" not in text else "zeta < 1")
        return data if places else None, kind, ()
    if kind == "list":
        places = [
            p
            for p, v in whole
            if p[-1] in ("f", "c", "exact", "end", "rtol", "viscosity", "frames")
        ]
        put(data, rng.choice(places), [1, 2]) if places else None
        return data if places else None, kind, ()
    if kind == "dimension" and "grid" in data and "domain" in problem:
        shape, box = data["grid"]["shape"], problem["domain"]
        match rng.randrange(3):
            case 0:
                shape.append(5)
            case 1:
                box["lower"].append(0)
            case 2:
                box["lower"].append(0)
                box["upper"].append(1)
        return data, kind, ()
    if kind == "count":
        places = [
            p
            for p, v in whole
            if isinstance(v, int)
            and (
                p[-1]
                in (
                    "frames",
                    "count",
                    "width",
                    "points",
                    "restart",
                    "max_iterations",
                    "epochs",
                    "batch",
                )
                or "shape" in p[-2:-1]
            )
        ]
        put(
            data, rng.choice(places), rng.choice([0, -1, -(10**12), 2.5, "3 5"])
        ) if places else None
        return data if places else None, kind, ()
    if kind == "rtol" and isinstance(data.get("solver"), dict):
        data["solver"]["rtol"] = rng.choice([-1, -1e-8, 1e300, 1e9, "nan", None])
        return data, kind, ()
    if kind == "word":
        places = [p for p, v in whole if isinstance(v, (int, float)) and not isinstance(v, bool)]
        put(
            data, rng.choice(places), rng.choice(["a b", "nan", "inf", "zeta", ""])
        ) if places else None
        return data if places else None, kind, ()
    return None, kind, ()


HOSTILE_KINDS = ["value", "value", "value", "leaf", "leaf", "drop", "move", "swap", "cross",
                 "solver", "wrap", "number", "condition", "option"]  # fmt: skip
PLAUSIBLE = ["number", "number", "condition", "condition", "option", "option", "solver", "cross"]
CONDITIONS: list[Any] = [
    {"dirichlet": 0}, {"dirichlet": 1}, {"dirichlet": "x"}, {"dirichlet": 1e12}, {"neumann": 0},
    {"neumann": 1}, {"neumann": "u"}, {"neumann": "-u**3"}, {"neumann": "nx"},
    {"robin": {"alpha": 1, "g": 1}}, {"robin": {"alpha": -1, "g": 0}}, {"robin": {"alpha": 1e12}},
    {"robin": {"alpha": 0}}, {"robin": {"alpha": "u", "g": 1}}, {"periodic": True},
    {"absorbing": True}, {"dirichlet": "1/x"}, {"dirichlet": [0, 0]}, {"dirichlet": "t"},
]  # fmt: skip
OPTIONS: list[tuple[Path_, Any]] = [
    (("grid", "centring"), "cell"), (("grid", "centring"), "node"), (("grid", "scheme"), "upwind"),
    (("grid", "scheme"), "central"), (("grid", "scheme"), "limited"),
    (("grid", "scheme"), "hybrid"),
    (("grid", "shape"), [3]), (("grid", "shape"), [3, 3]), (("grid", "shape"), [3, 40]),
    (("grid", "shape"), [9, 9, 9]), (("solver", "rtol"), 1e-15), (("solver", "rtol"), 0.5),
    (("solver", "rtol"), 1e-300), (("solver", "max_iterations"), 1), (("solver", "atol"), 1),
    (("problem", "equation", "c"), -50), (("problem", "equation", "c"), 1e12),
    (("problem", "equation", "K"), -1), (("problem", "equation", "K"), 0),
    (("problem", "equation", "K"), "x - 0.5"), (("problem", "equation", "K"), "1 + u**2"),
    (("problem", "equation", "K"), [1, 1e-9]), (("problem", "equation", "b"), [1e6, 0]),
    (("problem", "equation", "b"), ["u", 0]), (("problem", "equation", "b"), [1e3]),
    (("problem", "equation", "f"), "exp(u)"), (("problem", "equation", "f"), "1/(x - 0.5)"),
    (("problem", "equation", "f"), 1e200), (("problem", "equation", "f"), "where(x > 0.3, 1, 0)"),
    (("problem", "equation", "m"), 1), (("problem", "equation", "d"), 1),
    (("problem", "equation", "d"), -1), (("problem", "equation", "d"), "x"),
    (("problem", "time"), {"end": 0.01}), (("problem", "time", "start"), 0.001),
    (("problem", "time", "end"), 1e-300), (("problem", "time", "frames"), 2),
    (("problem", "initial"), 0), (("problem", "initial"), "x"), (("problem", "initial"), 1e30),
    (("problem", "exact"), 0), (("problem", "exact"), "1/x"), (("problem", "exact"), "t"),
    (("problem", "name"), "5$ for {10$ \\frac \n"), (("problem", "name"), "\U0001f600"),
    (("problem", "obstacle"), {"inside": "x < 0.4", "boundary": {"dirichlet": 1}}),
    (("problem", "obstacle"), {"inside": "x < 9", "boundary": {"dirichlet": 1}}),
    (("problem", "obstacle"), {"inside": "0.4 < x < 0.6", "boundary": {"neumann": 0}}),
    (("problem", "obstacle"), {"inside": "x > 9", "boundary": {"neumann": 0}}),
    (("problem", "parameters"), {"q": [1, 2, 3]}),
    (("problem", "parameters"), {"q": {"unknown": 1}}),
    (("problem", "domain", "upper"), [1e-9, 1]), (("problem", "domain", "upper"), [1e9, 1]),
]  # fmt: skip


def hostile(
    data: Tree, rng: random.Random, others: list[Tree], kinds: list[str]
) -> tuple[Tree, str]:
    """One to three changes that may end either way."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        whole = list(leaves(data))
        if not whole:
            break
        kind = rng.choice(kinds)
        path, value = rng.choice(whole)
        if kind == "number":
            places = [e for e in whole if type(e[1]) in (int, float)]
            path, value = rng.choice(places or whole)
            if places:
                by = rng.choice([0, -1, 1e-12, 1e-6, 0.5, 2, 1e6, 1e12])
                put(data, path, type(value)(value * by) if rng.random() < 0.5 else value * by)
        elif kind == "condition":
            places = [p for p, v in whole if isinstance(v, dict) and p[-2:-1] == ("boundary",)]
            if places:
                put(data, rng.choice(places), copy.deepcopy(rng.choice(CONDITIONS)))
        elif kind == "option" and "problem" in data:
            path, new = copy.deepcopy(rng.choice(OPTIONS))
            for depth in range(1, len(path)):
                if not isinstance(at(data, path[: depth - 1]).get(path[depth - 1]), dict):
                    at(data, path[: depth - 1])[path[depth - 1]] = {}
            put(data, path, new)
        if kind == "leaf":
            path, value = rng.choice(
                [e for e in whole if not isinstance(e[1], (dict, list))] or whole
            )
        if kind in ("value", "leaf"):
            new = copy.deepcopy(rng.choice(HOSTILE))
            put(data, path, new)
        elif kind == "drop":
            del at(data, path[:-1])[path[-1]]
        elif kind == "move":
            other = rng.choice([p for p, v in whole if isinstance(v, dict)] or [()])
            if isinstance(at(data, other), dict) and other[: len(path)] != path:
                at(data, other)[str(path[-1])] = copy.deepcopy(value)
        elif kind == "swap":
            other, second = rng.choice(whole)
            if other[: len(path)] != path and path[: len(other)] != other:
                put(data, path, second)
                put(data, other, value)
        elif kind == "cross":
            foreign = rng.choice(others)
            places = [(p, v) for p, v in leaves(foreign) if p[-1] == path[-1]] or list(
                leaves(foreign)
            )
            put(data, path, copy.deepcopy(rng.choice(places)[1]))
        elif kind == "solver" and "problem" in data:
            from sciml.app.read import solver_classes
            from sciml.app.schema import kinds_of

            data["solver"] = {"kind": rng.choice([kinds_of(c)[0] for c in solver_classes()])}
        elif kind == "wrap":
            put(data, path, rng.choice([[value], {"value": value}, {"kind": value}, str(value)]))
        done.append(f"{kind} {'.'.join(map(str, path))}")
    return data, "; ".join(done)


def damaged(text: str, rng: random.Random) -> tuple[str, str]:
    """The text with one to three faults."""
    done = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        k = rng.randrange(len(text) + 1)
        match rng.choice(["insert", "delete", "repeat", "line"]):
            case "insert":
                new = rng.choice(TEXT)
                text = text[:k] + new + text[k:]
                done.append(f"insert {new!r} at {k}")
            case "delete":
                n = rng.randrange(1, 9)
                text = text[:k] + text[k + n :]
                done.append(f"delete {n} at {k}")
            case "repeat":
                n = rng.randrange(1, 30)
                text = text[:k] + text[k : k + n] + text[k:]
                done.append(f"repeat {n} at {k}")
            case "line":
                rows = text.split("\n")
                j = rng.randrange(len(rows))
                rows[j] = rng.choice(["  ", " ", "\t"]) + rows[j]
                text = "\n".join(rows)
                done.append(f"indent line {j + 1}")
    return text, "; ".join(done)


# What changes nothing.

_LINEAR = ("poisson", "diffusion", "darcy", "reaction_diffusion", "convection_diffusion")


def _numeric(data: Tree) -> list[tuple[Path_, float]]:
    """Numbers in the places of coefficients."""
    return [
        (path, value)
        for path, value in leaves(data)
        if path[0] == "problem" and len(path) > 1 and _DATA.match(str(path[1]))
        and isinstance(value, (int, float)) and not isinstance(value, bool)
        and "columns" not in path
        and path[-1] not in ("width", "strength")
    ]  # fmt: skip


def _scaled(value: Tree, by: float) -> Tree:
    if isinstance(value, list):
        return [_scaled(v, by) for v in value]
    if value is None:
        return None
    return f"({value})*{by!r}" if isinstance(value, str) else value * by


def neutral(data: Tree, rng: random.Random, folder: Path) -> tuple[Any, str, Any] | None:
    """The same problem said otherwise: text or tree, what was done, and what turns the answer."""
    kind = rng.choice(["order", "order", "style", "style", "float", "text", "text", "sum",
                       "parameter", "table", "file", "all", "defaults", "units", "units",
                       "lengths", "axes", "shift", "aliases", "batch", "solver",
                       "solver"])  # fmt: skip
    problem = data["problem"]
    equation, boxed = problem["equation"], "domain" in problem
    steady = "time" not in problem and equation.get("kind") in _LINEAR and boxed
    trained = data.get("solver", {}).get("kind") in (
        "pinn",
        "gaussians",
        "random_features",
        "deep_ritz",
    )
    if trained and kind not in ("order", "style", "float", "all", "aliases"):
        return None
    if kind == "order":
        return _shuffled(data, rng), kind, None
    if kind == "style":
        return _styled(data, rng), kind, None
    if kind == "float":
        for path, value in _numeric(data):
            put(data, path, float(value))
        return data, kind, None
    if kind == "solver" and steady and not trained:
        multigrid = {"kind": "multigrid"}
        data["solver"] = rng.choice([
            {"kind": "direct"},
            {"kind": "gmres", "rtol": 1e-10},
            {"kind": "bicgstab", "rtol": 1e-10},
            {"kind": "gmres", "rtol": 1e-10, "preconditioner": {"kind": "amg"}},
            {"kind": "cg", "rtol": 1e-10, "preconditioner": multigrid},
            {"kind": "cg", "rtol": 1e-10},
            {"kind": "minres", "rtol": 1e-10},
            {"kind": "auto"},
            {"kind": "multigrid", "rtol": 1e-10},
            {"kind": "fcg", "rtol": 1e-10, "preconditioner": multigrid},
        ])  # fmt: skip
        return data, f"solver {data['solver']['kind']}", None
    numbers = _numeric(data)
    if kind in ("text", "sum", "parameter", "table", "file"):
        if kind in ("table", "file"):
            numbers = [
                (p, v)
                for p, v in numbers
                if p[1] == "equation" and p[2] in ("f", "c", "K") and len(p) == 3
            ]
            if not steady:
                return None
        if not numbers:
            return None
        path, value = rng.choice(numbers)
        # Nothing may be known of it but its value: m, d and zeros choose the method.
        if path[-1] in ("m", "d", "biharmonic", "dispersion"):
            return None
        if kind == "text":
            new: Tree = rng.choice(
                [
                    repr(float(value)),
                    f" {value!r} ",
                    f"({value!r})",
                    f"+{value!r}" if value >= 0 else f"{value!r}",
                ]
            )
        elif kind == "sum":
            new = f"{value!r} + 2 - 2" if abs(value) < 8 else f"{value!r}*1.0"
        elif kind == "parameter":
            problem["parameters"] = {**problem.get("parameters", {}), "qq": value}
            new = "qq"
        elif kind == "table":
            low, high = problem["domain"]["lower"][0], problem["domain"]["upper"][0]
            new = {"columns": {"x": [low, high], "q": [value, value]}, "of": "x"}
        else:
            import numpy as np

            shape = data["grid"]["shape"]
            name = f"constant-{float(value)!r}-{len(shape)}.npy"
            np.save(folder / name, np.full(shape, float(value)))
            new = {"file": name}
        put(data, path, new)
        return data, f"{kind} {'.'.join(map(str, path))}", None
    if kind == "all" and boxed and "all" not in problem["boundary"]:
        sides = problem["boundary"]
        name = rng.choice(list(sides))
        if sides[name] == {"periodic": True}:
            return None
        same = [s for s, c in sides.items() if c == sides[name]]
        problem["boundary"] = {
            "all": sides[name],
            **{s: c for s, c in sides.items() if s not in same},
        }
        return data, kind, None
    if kind == "defaults":
        if "grid" in data:
            data["grid"].setdefault("centring", "node")
        if "time" in problem:
            problem["time"].setdefault("start", 0)
        if boxed:
            problem["domain"].setdefault("kind", "box")
        problem.setdefault("parameters", {})
        problem.setdefault("name", "")
        return data, kind, None
    if kind == "aliases":
        return _aliased(data), kind, None
    if kind == "batch" and numbers and boxed and equation.get("kind") != "navier_stokes":
        lists = [v for v in problem.get("parameters", {}).values() if isinstance(v, list)]
        path, value = rng.choice(numbers)
        if (
            lists
            or "continuation" in data.get("solver", {})
            or path[-1] in ("m", "d")
            or path[1] == "obstacle"
        ):
            return None
        problem["parameters"] = {**problem.get("parameters", {}), "qq": [value, value]}
        put(data, path, "qq")
        return data, f"batch {'.'.join(map(str, path))}", _twice
    linear = steady or equation.get("kind") in (
        "heat",
        "wave",
        "helmholtz",
        "elasticity",
        "advection",
    )
    if kind == "units" and linear:
        by = rng.choice([1e-200, 1e-30, 1e-12, 1e-6, 1e6, 1e12, 1e30, 1e150])
        for key in ("f", "force"):
            if key in equation:
                equation[key] = _scaled(equation[key], by)
        conditions = [*problem["boundary"].values()]
        if "obstacle" in problem:
            conditions.append(problem["obstacle"]["boundary"])
        for condition in conditions:
            for key in ("dirichlet", "neumann"):
                if key in condition:
                    condition[key] = _scaled(condition[key], by)
            if "robin" in condition:
                condition["robin"]["g"] = _scaled(condition["robin"].get("g", 0), by)
        if "initial" in problem:
            first = problem["initial"]
            problem["initial"] = (
                {k: _scaled(v, by) for k, v in first.items()}
                if isinstance(first, dict)
                else _scaled(first, by)
            )
        if "exact" in problem:
            problem["exact"] = _scaled(problem["exact"], by)
        return data, f"units {by:g}", lambda u: u * by
    if not steady or ("parameters" in problem and kind == "axes"):
        return None
    dimension = len(problem["domain"]["lower"])
    if kind == "lengths":
        by = rng.choice([1e-9, 1e-3, 1e3, 1e9])
        for end in ("lower", "upper"):
            problem["domain"][end] = [value * by for value in problem["domain"][end]]
        for path, text in expressions(data):
            put(data, path, re.sub(r"\b([xyz])\b", rf"(\1/{by!r})", text))
        equation["K"] = _scaled(equation.get("K", 1), by**2)
        if "b" in equation:
            equation["b"] = _scaled(equation["b"], by)
        equation["kind"] = "general"
        conditions = [*problem["boundary"].values()]
        if "obstacle" in problem:
            conditions.append(problem["obstacle"]["boundary"])
        for condition in conditions:
            if "neumann" in condition:
                condition["neumann"] = _scaled(condition["neumann"], by)
            if "robin" in condition:
                robin = condition["robin"]
                condition["robin"] = {k: _scaled(robin.get(k, 0), by) for k in ("alpha", "g")}
        return data, f"lengths {by:g}", None
    if kind == "axes" and dimension == 2:
        for end in ("lower", "upper"):
            problem["domain"][end].reverse()
        data["grid"]["shape"].reverse()
        for path, text in expressions(data):
            turned = re.sub(r"\b([xy])\b", lambda m: {"x": "y", "y": "x"}[m[1]], text)
            put(data, path, turned)
        for key in ("K", "b"):
            if isinstance(equation.get(key), list):
                if isinstance(equation[key][0], list):
                    equation[key] = [row[::-1] for row in equation[key]][::-1]
                else:
                    equation[key].reverse()
        turn = {"left": "bottom", "bottom": "left", "right": "top", "top": "right"}
        problem["boundary"] = {turn.get(s, s): c for s, c in problem["boundary"].items()}
        return data, kind, _transposed
    if kind == "shift" and "where" not in json.dumps(problem):
        for end in ("lower", "upper"):
            problem["domain"][end][0] += 4
        for path, text in expressions(data):
            put(data, path, re.sub(r"\bx\b", "(x - 4)", text))
        return data, kind, None
    return None


def _twice(u: Any) -> Any:
    import torch

    return torch.stack([u, u])


def _transposed(u: Any) -> Any:
    return u.transpose(-1, -2)


def _shuffled(data: Tree, rng: random.Random) -> Tree:
    if isinstance(data, dict):
        keys = list(data)
        # The order of a system's fields, and of the columns of a table, is theirs.
        if not {"x", "t", "u"} & set(keys):
            rng.shuffle(keys)
        return {key: _shuffled(data[key], rng) for key in keys}
    return [_shuffled(v, rng) for v in data] if isinstance(data, list) else data


def _styled(data: Tree, rng: random.Random) -> str:
    """The same tree in other YAML."""
    from sciml.app.yaml import to_yaml

    text = rng.choice([to_yaml, rows_of])(data)
    match rng.randrange(6):
        case 0:
            text = text.replace("\n", "\r\n")
        case 1:
            text = "# a comment\n---\n" + text
        case 2:
            text = "%YAML 1.2\n---\n" + text + "\n...\n"
        case 3:
            text = "\n".join(
                row + "  # \u00fcber" if row.strip() else row for row in text.split("\n")
            )
        case 4:
            text = "\ufeff" + text
        case 5:
            text = "\n\n" + text.replace("\n", "\n\n")
    return text


def _aliased(data: Tree) -> str:
    """Every second condition as an alias of an equal one."""
    text = rows_of(data)
    first = json.dumps({"dirichlet": 0})
    flat = text.replace('{\n    "dirichlet": 0}', first)
    if flat.count(first) < 2:
        return text
    head, _, tail = flat.partition(first)
    return head + "&zero " + first + tail.replace(first, "*zero")


def mutant(stage: str, number: int, seed: int, known: dict[str, Tree], folder: Path) -> Mutant:
    """The mutant of that number; the same for ever."""
    rng = random.Random(f"{seed} {stage} {number}")
    names = [
        n
        for n in known
        if stage == "validate" or ("problem" in known[n] and "dataset" not in known[n])
    ]
    if stage == "solve":
        names = [n for n in names if n != "preset-surrogate"]
    others = [known[n] for n in names]
    weights = {"validate": (50, 15, 25, 10), "solve": (40, 5, 10, 45)}[stage]
    while True:
        base = names[rng.randrange(len(names))]
        data = copy.deepcopy(known[base])
        (kind,) = rng.choices(["hostile", "text", "refused", "neutral"], weights)
        if kind == "hostile":
            kinds = PLAUSIBLE if stage == "solve" and rng.random() < 0.7 else HOSTILE_KINDS
            tree, change = hostile(data, rng, others, kinds)
            return Mutant(rows_of(tree), base, change, "any")
        if kind == "text":
            from sciml.app.yaml import to_yaml

            text, change = damaged(rng.choice([to_yaml, rows_of])(data), rng)
            return Mutant(text, base, change, "any")
        if kind == "refused":
            tree, change, twice = refused(data, rng)
            if tree is not None:
                return Mutant(rows_of(tree, twice=twice), base, change, "refused")
        elif "problem" in data and "dataset" not in data:
            found = neutral(data, rng, folder)
            if found is not None:
                text = found[0] if isinstance(found[0], str) else rows_of(found[0])
                return Mutant(text, base, found[1], "same", found[2])


def _beyond(case: Mutant) -> bool:
    """Whether the data are in units whose squares are no numbers."""
    what, _, unit = case.change.partition(" ")
    return what == "units" and abs(math.log10(float(unit))) > 140


# How a case ends.


class _TooLong(BaseException):
    """An alarm; not an Exception, so that nobody swallows it."""


def _alarm(*_: Any) -> None:
    raise _TooLong


_PLACE = re.compile(r"\.ya?ml:\d+:\d+: |^--")


def verdict(
    stage: str, case: Mutant, path: Path, known: dict[str, Tree], cache: dict[str, Any]
) -> dict[str, Any]:
    """How a mutant ends: a verdict, and what explains it."""
    from sciml.core.errors import InputError

    path.write_bytes(case.text.encode("utf-8", "surrogatepass"))
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            if stage == "validate":
                from sciml.app.run import Setting
                from sciml.app.validate import validated

                title, notes, _ = validated(path, (), Setting())
                fault = "\n" in title and "a title of several lines"
                if any("\n" in note for note in notes):
                    fault = "a note of several lines"
                found = fault or ""
            else:
                found = solved(case, path, known, cache)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except InputError as error:
        text = str(error)
        spared = ("needs gmsh", "so small", "symmetric", "definite")
        if case.must == "same" and not any(word in text for word in spared):
            return {"verdict": WRONG, "why": f"refused though nothing changed: {text[:300]}"}
        if "\n" in text or "\r" in text or not text:
            return {"verdict": TRACEBACK, "why": f"not one line: {text[:300]!r}"}
        return {"verdict": REFUSED, "placed": bool(_PLACE.search(text)), "why": text[:300]}
    except _TooLong:
        found = LOST if case.must == "same" else STOPPED
        return {"verdict": found, "why": f"did not end within {SECONDS} s"}
    except MemoryError:
        return {"verdict": REFUSED, "placed": True, "why": "out of memory"}
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = next(
            (
                f
                for f in reversed(traceback.extract_tb(error.__traceback__))
                if "benchmarks" not in f.filename
                and (
                    "/sciml/" in f.filename
                    or "/solvers/" in f.filename
                    or "/operators/" in f.filename
                    or "/datasets/" in f.filename
                )
            ),
            last,
        )
        return {
            "verdict": TRACEBACK,
            "why": f"{type(error).__name__}: {str(error)[:200]} at {where.filename}:{where.lineno}",
        }
    if case.must == "refused" and not str(found).startswith("status "):
        return {"verdict": WRONG, "why": "accepted"}
    if found.startswith("lost: "):
        return {"verdict": LOST, "why": found}
    if found and not found.startswith("status "):
        return {"verdict": WRONG, "why": found}
    return {"verdict": ANSWERED, "why": found}


def solved(case: Mutant, path: Path, known: dict[str, Tree], cache: dict[str, Any]) -> str:
    """What is wrong with the answer, or ``status ...`` where it says itself that it is none."""
    import torch

    from sciml.app.read import load_spec
    from sciml.app.run import Setting, answer

    spec = load_spec(path)
    result = answer(spec, Setting())
    solution = result.solution
    if case.must == "same":
        if case.base not in cache:
            whole = path.with_name("whole.yaml")
            whole.write_text(rows_of(known[case.base]))
            signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
            cache[case.base] = answer(load_spec(whole), Setting()).solution
        before = cache[case.base]
        wanted, got = before.value, solution.value
        if case.expected is not None:
            wanted = case.expected(wanted)
        if not solution.status.success and (case.change.startswith("solver") or _beyond(case)):
            return f"status {solution.status.name}"
        if not solution.status.success and before.status.success:
            return f"other status: {solution.status.name}, before {before.status.name}"
        if wanted.shape != got.shape:
            return f"other shape: {tuple(got.shape)}, before {tuple(wanted.shape)}"
        scale = wanted.nan_to_num(0.0).abs().max()
        gap = (wanted - got).nan_to_num(0.0).abs().max()
        if (wanted.isnan() != got.isnan()).any():
            return "other points are NaN"
        rtol = getattr(spec.solver, "rtol", 1e-8) or 1e-8
        if gap > max(100 * rtol, 1e-6 if solution.times is None else 1e-4) * scale:
            return f"other answer: by {float(gap / scale):.2e}"
    if not solution.status.success:
        return f"status {solution.status.name}"
    value = solution.value
    # Inside an obstacle there is no value.
    hole = value.isnan() if result.spec.problem.obstacle is not None else torch.tensor(False)
    if (
        not torch.isfinite(torch.view_as_real(value) if value.is_complex() else value)[..., :]
        .logical_or(hole if not value.is_complex() else torch.tensor(False))
        .all()
    ):
        return "converged with values that are not finite"
    if not torch.isfinite(solution.residual).all():
        return f"converged with a residual of {solution.residual.tolist()}"
    if solution.times is not None and len(solution.times) != spec.problem.time.frames:
        return f"{len(solution.times)} frames for {spec.problem.time.frames}"
    if fault := eliminated(result):
        return fault
    return written(result, path.parent)


def written(result: Any, folder: Path) -> str:
    """Nothing where one of eight answers, or one of an odd name, is on the disk as it was."""
    import torch

    from sciml.app.run import write_run
    from sciml.core.run.solution import load_solution

    name = result.spec.problem.name
    if zlib.crc32(result.spec.text.encode()) % 8 and (
        name.isascii() and name.isprintable() and "$" not in name
    ):
        return ""
    signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
    try:
        write_run(result, folder / "run")
    except _TooLong:
        raise
    except Exception as error:
        return f"lost: {type(error).__name__}: {str(error)[:200]}"
    found = load_solution(folder / "run").value
    same = torch.equal(found.nan_to_num(0.5), result.solution.value.nan_to_num(0.5))
    return "" if same else "lost: it reads back as another"


def eliminated(result: Any) -> str:
    """What a small linear system's answer is off from that by elimination."""
    import numpy as np

    from sciml.app.run import Setting, lower
    from sciml.core.problem.grid import Points

    spec, solution = result.spec, result.solution
    if not spec.problem.linear or isinstance(spec.on, Points) or solution.residual.ndim:
        return ""
    if getattr(spec.solver, "reads_problem", False):
        return ""
    system = lower(spec, Setting())
    if system.A.nullspace or system.A.size > 1200:
        return ""
    A, b = system.A.to_scipy().toarray(), system.b.flatten().numpy()
    u = system.restrict(solution.value.nan_to_num(0.0)).flatten().numpy()
    # The answer is not kept inside a hole.
    there = system.restrict(solution.value.isnan().double()).flatten().numpy() == 0
    size = float(np.abs(b).max(initial=0.0))
    with np.errstate(all="ignore"):
        scale = np.sqrt(np.abs(np.diag(A)))
        if not (size > 0 and (scale > 0).all() and np.isfinite(scale).all()):
            return ""
        even = A / scale[:, None] / scale
        if not np.isfinite(even).all() or np.linalg.cond(even) > 1e8:
            return ""
        x = np.linalg.solve(even, b / size / scale) / scale
        u = u / size
        gap = np.abs(scale * (u - x))[there].max(initial=0.0)
        share = gap / max(np.abs(scale * x).max(), 1e-300)
    # Who asks for little gets no more.
    if not share < max(1e-2, 10 * (getattr(spec.solver, "rtol", 0.0) or 0.0)):
        return f"converged and {share:.1e} off from elimination"
    return ""


def furnished(place: Path) -> Path:
    """A folder for specs, with the files beside it that the configs and presets name."""
    folder = place / "configs"
    folder.mkdir()
    for part in ("measurements", "meshes", "datasets"):
        (folder / part).symlink_to(ROOT / "configs" / part)
    (place / "datasets").symlink_to(ROOT / "configs" / "datasets")
    (folder / "families").symlink_to(ROOT / "configs" / "train" / "families")
    (folder / "dataset.yaml").symlink_to(ROOT / "sciml" / "app" / "templates" / "dataset.yaml")
    (folder / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'")
    return folder


def work(stage: str, numbers: list[int], seed: int, journal: Journal) -> None:
    """Try these cases, one after the other, and write each down."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGPROF, _alarm)
    known, cache, parent = bases(), {}, os.getppid()
    with tempfile.TemporaryDirectory() as name:
        folder = furnished(Path(name))
        for number in numbers:
            if os.getppid() != parent:  # which was killed, and another run may go on
                return
            case = mutant(stage, number, seed, known, folder)
            start = time.process_time()
            found = verdict(stage, case, folder / "mutant.yaml", known, cache)
            seconds = round(time.process_time() - start, 3)
            journal.add(f"specs, {stage}d", f"{seed}-{number}", base=case.base,
                        change=case.change, must=case.must, seconds=seconds, **found)  # fmt: skip
            if seconds > SECONDS:
                # What was interrupted anywhere, a switch of gradients say, may not be whole.
                return


def attack(stage: str, tried: int, seed: int, journal: Journal) -> None:
    """All cases of a stage that are not in the journal yet, whatever they do to their process."""
    family = f"specs, {stage}d"
    while True:
        done = journal.done()
        left = [n for n in range(tried) if (family, f"{seed}-{n}") not in done]
        if not left:
            return
        process = multiprocessing.get_context("spawn").Process(
            target=work, args=(stage, left, seed, journal)
        )
        process.start()
        size, since = -1, time.monotonic()
        while process.is_alive():
            process.join(1)
            now = journal.path.stat().st_size if journal.path.is_file() else 0
            if now != size:
                size, since = now, time.monotonic()
            if time.monotonic() - since > SILENCE:
                process.kill()
        done = journal.done()
        left = [n for n in range(tried) if (family, f"{seed}-{n}") not in done]
        if left and process.exitcode:
            why = f"its process ended with {process.exitcode}"
            journal.add(family, f"{seed}-{left[0]}", LOST, why=why)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checked", type=int, default=5000)
    parser.add_argument("--solved", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=ROOT / "runs" / "attack" / "specs.jsonl")
    parser.add_argument("--show", metavar="STAGE:NUMBER", help="print that mutant and how it ends")
    chosen = parser.parse_args()
    if chosen.show:
        stage, _, number = chosen.show.partition(":")
        show(stage, int(number), chosen.seed)
        return
    journal = Journal(chosen.journal)
    attack("validate", chosen.checked, chosen.seed, journal)
    attack("solve", chosen.solved, chosen.seed, journal)
    for family, counts in journal.counts().items():
        print(family, dict(counts))


def show(stage: str, number: int, seed: int) -> None:
    """Print a mutant, and let it end as it does."""
    with tempfile.TemporaryDirectory() as name:
        folder = furnished(Path(name))
        signal.signal(signal.SIGPROF, _alarm)
        case = mutant(stage, number, seed, bases(), folder)
        print(case.text)
        print(f"{case.base}: {case.change}; must be {case.must}")
        print(verdict(stage, case, folder / "mutant.yaml", bases(), {}))


if __name__ == "__main__":
    main()
