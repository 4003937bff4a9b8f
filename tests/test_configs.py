"""The example specs: they load, come back equal, and their exact solutions are solutions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml.app.read import json_schema, load_spec, read_spec
from sciml.app.yaml import parse_yaml
from sciml.core.problem.equation import Equation
from sciml.core.problem.expression import parse
from sciml.core.problem.problem import Problem
from sciml.core.run.serialise import dump

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads_and_comes_back(path: Path) -> None:
    spec = load_spec(path)
    assert spec == read_spec(parse_yaml(json.dumps(dump(spec)), str(path)))
    assert spec.grid is None or spec.on.domain == spec.problem.domain


def test_the_schema_that_the_configs_point_at_is_up_to_date() -> None:
    for path in CONFIGS:
        assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
    schema = CONFIGS[0].with_name("schema.json")
    assert json.loads(schema.read_text()) == json_schema(), "sciml schema > configs/schema.json"


def test_the_configs_cover_what_is_promised() -> None:
    promised = {"poisson", "darcy", "anisotropic", "convection_diffusion", "obstacle", "poisson3d",
                "neumann", "periodic", "batch", "full_tensor"}  # fmt: skip
    assert promised <= {path.stem for path in CONFIGS}


Values = dict[str, torch.Tensor]
SLOPES = ("ux", "uy", "uz")


def evaluate(coefficient: Any, values: Values) -> torch.Tensor:
    text = coefficient if isinstance(coefficient, str) else repr(coefficient)
    return parse(text, values)(**values).expand_as(values["t"])


def derivative(u: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if not u.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(u.sum(), x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def at(problem: Problem, points: list[torch.Tensor], t: torch.Tensor) -> Values:
    """Coordinates, time and parameters, the exact solution and its slopes."""
    known = {**dict(zip(problem.box.axes, points, strict=True)), "t": t}
    values = {name: p.clone().requires_grad_() for name, p in known.items()}
    values |= {name: torch.tensor(v).double() for name, v in problem.parameters.items()}
    u = evaluate(problem.exact, values)
    slopes = {f"u{a}": derivative(u, values[a]) for a in problem.box.axes}
    return {**values, **dict.fromkeys(SLOPES, torch.zeros_like(t)), "u": u, **slopes}


def slopes_of(problem: Problem) -> list[str]:
    return [f"u{axis}" for axis in problem.box.axes]


def flux(problem: Problem, values: Values) -> list[torch.Tensor]:
    """K grad u of the exact solution, or the derivatives of an energy by the slopes."""
    equation, d, names = problem.form, problem.box.dimension, slopes_of(problem)
    slope = [values[name] for name in names]
    if equation.energy is not None:
        free = [s.clone() for s in slope]
        e = evaluate(equation.energy, {**values, **dict(zip(names, free, strict=True))})
        return [derivative(e, s) for s in free]
    K = equation.K if isinstance(equation.K, tuple) else (equation.K,) * d
    if not isinstance(K[0], tuple):
        K = tuple(tuple(K[i] if i == j else 0.0 for j in range(d)) for i in range(d))
    rows = [[evaluate(K[i][j], values) * slope[j] for j in range(d)] for i in range(d)]
    return [torch.stack(row).sum(0) for row in rows]


def residual(problem: Problem, values: Values) -> torch.Tensor:
    """The equation's left side less its right one."""
    equation, u = problem.form, values["u"]
    carried = flux(problem, values)
    total = -torch.stack(
        [derivative(q, values[a]) for q, a in zip(carried, problem.box.axes, strict=True)]
    ).sum(0)
    rate = derivative(u, values["t"])
    total = total + evaluate(equation.d, values) * rate
    total = total + evaluate(equation.m, values) * derivative(rate, values["t"])
    if equation.energy is not None:
        free = u.clone()
        return total + derivative(evaluate(equation.energy, {**values, "u": free}), free)
    for b, slope in zip(equation.b or (), slopes_of(problem), strict=False):
        total = total + evaluate(b, values) * values[slope]
    return total + evaluate(equation.c, values) * u - evaluate(equation.f, values)


def on_boxes(path: Path) -> bool:
    """Whether the exact solution is of one real equation of second order on a box."""
    problem = load_spec(path).problem
    if problem.exact is None or problem.domain is None:
        return False
    equation = problem.equation
    return isinstance(equation, Equation) and equation.dispersion == equation.biharmonic == 0


@pytest.mark.parametrize("path", [p for p in CONFIGS if on_boxes(p)], ids=lambda p: p.stem)
def test_exact_solutions_solve_their_problems(path: Path) -> None:
    problem = load_spec(path).problem
    box = problem.box
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(box.dimension + 1, 20, generator=generator, dtype=torch.float64)
    points = [a + (b - a) * s for a, b, s in zip(box.lower, box.upper, unit, strict=False)]
    end = 0.0 if problem.time is None else problem.time.end
    t = end * unit[-1]
    assert residual(problem, at(problem, points, t)).abs().max() < 1e-9

    for index, side in enumerate(box.sides):
        axis, outward = index // 2, 1 if index % 2 else -1
        condition = problem.boundary[side]
        edge = (box.upper if outward > 0 else box.lower)[axis]
        there = [torch.full_like(p, edge) if i == axis else p for i, p in enumerate(points)]
        values = at(problem, there, t)
        u, normal = values["u"], outward * flux(problem, values)[axis]
        if condition.robin is not None:
            gap = evaluate(condition.robin.alpha, values) * u + normal
            gap = gap - evaluate(condition.robin.g, values)
        elif condition.neumann is not None:
            gap = normal - evaluate(condition.neumann, values)
        elif condition.periodic:
            other = (box.lower if outward > 0 else box.upper)[axis]
            beyond = [torch.full_like(p, other) if i == axis else p for i, p in enumerate(points)]
            gap = u - at(problem, beyond, t)["u"]
        else:
            gap = u - evaluate(condition.dirichlet, values)
        assert gap.abs().max() < 1e-9, side
