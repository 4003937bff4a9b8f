"""The example specs: they load, come back equal, and their exact solutions are solutions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml.app.spec import dump, json_schema, load_spec, read_spec
from sciml.app.yaml_source import parse_yaml
from sciml.core.expression import parse
from sciml.core.grid import AXES
from sciml.core.problem import Problem

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


def evaluate(problem: Problem, coefficient: Any, x: tuple[torch.Tensor, ...]) -> torch.Tensor:
    names = dict(zip(AXES, x, strict=False))
    values = {**names, **{k: torch.tensor(v).double() for k, v in problem.parameters.items()}}
    text = coefficient if isinstance(coefficient, str) else repr(coefficient)
    return parse(text, values)(**values).expand_as(x[0])


def gradient(u: torch.Tensor, x: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    if not u.requires_grad:
        return [torch.zeros_like(axis) for axis in x]
    found = torch.autograd.grad(u.sum(), x, create_graph=True, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for g, a in zip(found, x, strict=True)]


def flux(problem: Problem, x: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """K grad u of the exact solution."""
    d, K = len(x), problem.equation.K
    slope = gradient(evaluate(problem, problem.exact, x), x)
    if not isinstance(K, tuple):
        K = (K,) * d
    if not isinstance(K[0], tuple):
        K = tuple(tuple(K[i] if i == j else 0.0 for j in range(d)) for i in range(d))
    rows = [[evaluate(problem, K[i][j], x) * slope[j] for j in range(d)] for i in range(d)]
    return [torch.stack(row).sum(0) for row in rows]


WITH_EXACT = [path for path in CONFIGS if load_spec(path).problem.exact is not None]


@pytest.mark.parametrize("path", WITH_EXACT, ids=lambda p: p.stem)
def test_exact_solutions_solve_their_problems(path: Path) -> None:
    problem = load_spec(path).problem
    box, equation = problem.domain, problem.equation
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(box.dimension, 20, generator=generator, dtype=torch.float64)
    points = [a + (b - a) * s for a, b, s in zip(box.lower, box.upper, unit, strict=True)]

    x = tuple(p.clone().requires_grad_() for p in points)
    u = evaluate(problem, problem.exact, x)
    slope, carried = gradient(u, x), flux(problem, x)
    residual = evaluate(problem, equation.c, x) * u - evaluate(problem, equation.f, x)
    residual = residual - sum(gradient(q, x)[i] for i, q in enumerate(carried))
    if equation.b is not None:
        residual = residual + sum(
            evaluate(problem, b, x) * s for b, s in zip(equation.b, slope, strict=True)
        )
    assert residual.abs().max() < 1e-9

    for index, side in enumerate(box.sides):
        axis, outward = index // 2, 1 if index % 2 else -1
        edge = (box.upper if outward > 0 else box.lower)[axis]
        x = tuple(
            (torch.full_like(p, edge) if i == axis else p.clone()).requires_grad_()
            for i, p in enumerate(points)
        )
        condition = problem.boundary[side]
        u, normal = evaluate(problem, problem.exact, x), outward * flux(problem, x)[axis]
        if condition.robin is not None:
            gap = evaluate(problem, condition.robin.alpha, x) * u + normal
            gap = gap - evaluate(problem, condition.robin.g, x)
        elif condition.neumann is not None:
            gap = normal - evaluate(problem, condition.neumann, x)
        else:
            gap = u - evaluate(problem, condition.dirichlet, x)
        assert gap.abs().max() < 1e-9, side
