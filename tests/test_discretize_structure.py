"""The algebra of the discrete operator: symmetry, kernels, adjoints, batches, lifting."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.linalg
import torch
from manufactured import solve_directly

from sciml.core.algebra.stencil import Stencil
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, FieldFile, Obstacle, Problem, Robin
from sciml.discretization import discretize, memory_estimate

SQUARE = Box((0.0, 0.0), (1.0, 1.5))
DIRICHLET = Condition(dirichlet="1 + x*y")
INSULATED = Condition(neumann=0)
LEAKING = Condition(robin=Robin("1 + x", "y"))
PERIODIC = Condition(periodic=True)
K = "1 + 0.9*sin(5*x)*cos(7*y)"
TENSOR = (("2 + x", "0.5*y"), ("0.5*y", "1.5"))
DISK = "(x - 0.52)**2 + (y - 0.7)**2 < 0.06"


def sides(*conditions):
    return dict(zip(("left", "right", "bottom", "top"), conditions, strict=True))


BOUNDARY = {
    "dirichlet": sides(*[DIRICHLET] * 4),
    "mixed": sides(DIRICHLET, INSULATED, LEAKING, DIRICHLET),
    "neumann": sides(*[INSULATED] * 4),
    "periodic": sides(PERIODIC, PERIODIC, INSULATED, LEAKING),
}
EQUATION = {
    "scalar": Equation(K=K, f="x"),
    "constant": Equation(K=2.0, f="x"),
    "diagonal": Equation(K=(K, "2 + y"), f="x"),
    "reaction": Equation(K=K, c="1 + x", f="x"),
    "tensor": Equation(K=TENSOR, f="x"),
    "advection": Equation(K=K, b=("y", -1.0), c=1.0, f="x"),
    "tensor-advection": Equation(K=TENSOR, b=("y", -1.0), c=1.0, f="x"),
}


def problem(equation, boundary, obstacle=None):
    if boundary is BOUNDARY["neumann"] and isinstance(equation.c, float):
        equation = Equation(K=equation.K, b=equation.b, c=equation.c, f="x - 0.5")
    return Problem(SQUARE, equation, boundary, obstacle)


def cases():
    for centring in ("node", "cell"):
        for e in EQUATION:
            if centring == "cell" and "tensor" in e:
                continue
            for b in BOUNDARY:
                yield centring, e, b, None
    for centring in ("node", "cell"):
        for rim in (Condition(dirichlet="x"), Condition(neumann=0), LEAKING):
            for b in ("dirichlet", "mixed", "periodic"):
                yield centring, "scalar", b, Obstacle(DISK, rim)


CASES = list(cases())
IDS = [f"{c}-{e}-{b}-{o.boundary.kind if o else 'box'}" for c, e, b, o in CASES]


def lowered(centring, equation, boundary, obstacle):
    stated = problem(EQUATION[equation], BOUNDARY[boundary], obstacle)
    return discretize(stated, Grid((9, 12), centring=centring))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_tags_tell_the_truth_about_the_matrix(case):
    A = lowered(*case).A
    matrix = A.to_scipy().toarray()
    scale = abs(matrix).max()
    assert A.symmetric == (abs(matrix - matrix.T).max() < 1e-13 * scale)
    assert A.symmetric == ("advection" not in case[1])
    assert A.nullspace == (case[2] == "neumann" and case[1] not in _WITH_REACTION)
    if A.symmetric:
        values = scipy.linalg.eigvalsh(matrix) / scale
        positive = values[1:] if A.nullspace else values
        assert A.definite
        assert positive.min() > 1e-4
    if A.nullspace:
        assert abs(matrix.sum(1)).max() < 1e-12 * scale


_WITH_REACTION = ("reaction", "advection", "tensor-advection")


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_apply_and_adjoint_agree_with_scipy(case):
    A = lowered(*case).A
    matrix = A.to_scipy()
    generator = torch.Generator().manual_seed(1)
    u, v = torch.randn(2, *A.shape, generator=generator, dtype=torch.float64)
    expected = torch.from_numpy(matrix @ u.numpy().ravel()).reshape(A.shape)
    torch.testing.assert_close(A.apply(u), expected, rtol=1e-12, atol=1e-10)
    left, right = (A.apply(u) * v).sum(), (u * A.adjoint(v)).sum()
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_restrict_is_a_left_inverse_of_lift(case):
    system = lowered(*case)
    u = torch.randn(2, *system.A.shape, dtype=torch.float64)
    hole = torch.isnan(system.restrict(system.lift(u) * 0))
    value = system.lift(u)
    assert value.shape == (2, 9, 12)
    gone = system.restrict(torch.where(torch.isnan(value), 1.0, 0.0)) > 0
    assert not hole.any()
    back = system.restrict(value)
    solid = torch.isnan(value).any() if case[3] else False
    assert bool(solid) == (case[3] is not None and case[3].boundary.kind != "dirichlet")
    kept = torch.isclose(back, u)
    assert (kept | (back == 0)).all()
    assert kept.sum() >= u.numel() - 2 * torch.isnan(value[0]).sum()
    assert not gone.any() or solid


def test_holes_with_constants_in_the_kernel_keep_that_kernel():
    stated = Problem(
        SQUARE, Equation(K=K), sides(*[INSULATED] * 4), Obstacle(DISK, Condition(neumann=0))
    )
    A = discretize(stated, Grid((15, 21))).A
    values = scipy.linalg.eigvalsh(A.to_scipy().toarray())
    assert A.nullspace
    assert abs(A.apply(torch.ones(A.shape, dtype=torch.float64))).max() < 1e-12
    assert values[0] > -1e-12
    assert values[1] > 1e-10


@pytest.mark.parametrize(
    "boundary", (sides(*[DIRICHLET] * 4), sides(PERIODIC, PERIODIC, DIRICHLET, DIRICHLET))
)
@pytest.mark.parametrize(
    "equation",
    (
        Equation(K=2.0, f="x"),
        Equation(K=(2.0, 3.0), c=0.5, f=1),
        Equation(K=2.0, b=(1.0, -40.0), f=1),
        Equation(K=((2.0, 0.5), (0.5, 1.0)), f=1),
        Equation(K=((2.0, 0.5), (0.5, 1.0)), b=(1.0, 2.0), c=1, f=1),
    ),
    ids=("scalar", "diagonal", "upwind", "tensor", "tensor-advection"),
)
def test_one_row_serves_constant_coefficients_and_equals_the_assembled_one(equation, boundary):
    grid = Grid((9, 12))
    fast = discretize(Problem(SQUARE, equation, boundary), grid)

    def spread(value):
        return lambda x, y: value + 0 * x * y

    def spread_all(value):
        if isinstance(value, tuple):
            return tuple(spread_all(v) for v in value)
        return spread(value)

    whole = Equation(K=spread_all(equation.K), b=equation.b, c=spread(equation.c), f=equation.f)
    slow = discretize(Problem(SQUARE, whole, boundary), grid)
    assert fast.A.coefficients.stride()[-2:] == (0, 0)
    assert slow.A.coefficients.stride()[-2:] != (0, 0)
    gap = abs(fast.A.to_scipy() - slow.A.to_scipy()).max()
    assert gap < 1e-12
    torch.testing.assert_close(fast.b, slow.b)
    assert fast.notes == slow.notes


def test_a_constant_axis_parameter_keeps_one_row_per_sample():
    stated = Problem(
        SQUARE, Equation(K="k", f=1), sides(*[DIRICHLET] * 4), parameters={"k": [1.0, 2.0]}
    )
    A = discretize(stated, Grid((9, 12))).A
    assert A.batch == (2,)
    assert A.coefficients.stride()[-2:] == (0, 0)


@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize("rim", (None, Condition(dirichlet="a*x"), Condition(neumann="a"), LEAKING))
def test_a_batch_equals_a_loop(centring, rim):
    def stated(a, s):
        boundary = sides(Condition(dirichlet="a*y"), INSULATED, Condition(neumann="s"), LEAKING)
        equation = Equation(K="1 + a*x*y", c="a", f="sin(s*x)")
        hole = Obstacle(DISK, rim) if rim else None
        return Problem(SQUARE, equation, boundary, hole, parameters={"a": a, "s": s})

    grid = Grid((9, 12), centring=centring)
    together = discretize(stated([0.5, 1.0, 2.0], [1.0, 3.0, 2.0]), grid)
    assert together.A.batch == (3,)
    lifted = together.lift(together.b)
    for i, (a, s) in enumerate(((0.5, 1.0), (1.0, 3.0), (2.0, 2.0))):
        one = discretize(stated(a, s), grid)
        torch.testing.assert_close(together.A.coefficients[i], one.A.coefficients)
        torch.testing.assert_close(together.b[i], one.b)
        torch.testing.assert_close(lifted[i], one.lift(one.b), equal_nan=True)


def test_a_batch_of_sources_shares_one_matrix():
    f = torch.randn(4, 9, 12, dtype=torch.float64)
    system = discretize(Problem(SQUARE, Equation(K=K, f=f), sides(*[DIRICHLET] * 4)), Grid((9, 12)))
    assert system.A.batch == ()
    assert system.b.shape == (4, 7, 10)


def test_tensor_batch_equals_a_loop():
    def stated(a):
        equation = Equation(K=(("2 + a", "0.3*a"), ("0.3*a", "1 + x")), f="a")
        return Problem(SQUARE, equation, BOUNDARY["mixed"], parameters={"a": a})

    together = discretize(stated([0.5, 1.0]), Grid((9, 12)))
    for i, a in enumerate((0.5, 1.0)):
        one = discretize(stated(a), Grid((9, 12)))
        torch.testing.assert_close(together.A.coefficients[i], one.A.coefficients)
        torch.testing.assert_close(together.b[i], one.b)


def test_shapes_and_corners_of_a_node_grid():
    boundary = sides(*(Condition(dirichlet=v) for v in (1, 2, 3, 4)))
    system = discretize(Problem(SQUARE, Equation(), boundary), Grid((9, 12)))
    value = system.lift(torch.zeros(7, 10, dtype=torch.float64))
    assert value[0].tolist() == [1.0] * 12
    assert value[-1].tolist() == [2.0] * 12
    assert value[1:-1, 0].tolist() == [3.0] * 7
    assert value[1:-1, -1].tolist() == [4.0] * 7
    boundary = sides(PERIODIC, PERIODIC, INSULATED, DIRICHLET)
    system = discretize(Problem(SQUARE, Equation(), boundary), Grid((9, 12)))
    assert system.A.shape == (8, 11)
    assert system.A.periodic == (True, False)
    value = system.lift(torch.randn(8, 11, dtype=torch.float64))
    torch.testing.assert_close(value[0], value[-1])


@pytest.mark.parametrize("rim", (Condition(dirichlet="x"), Condition(neumann=0)))
def test_values_inside_an_obstacle(rim):
    stated = Problem(
        SQUARE,
        Equation(f="1/((x-0.5)**2 + (y-0.75)**2)"),
        sides(*[DIRICHLET] * 4),
        Obstacle(DISK, rim),
    )
    value = solve_directly(discretize(stated, Grid((17, 17))))
    middle = value[8, 8]
    assert torch.isnan(middle) if rim.neumann is not None else middle == pytest.approx(0.5)


def test_a_negative_reaction_is_symmetric_but_not_definite():
    A = discretize(Problem(SQUARE, Equation(c=-50.0), sides(*[DIRICHLET] * 4)), Grid((9, 12))).A
    assert A.symmetric
    assert not A.definite


def test_fields_in_files_arrays_and_functions_agree(tmp_path):
    grid = Grid((9, 12)).bind(SQUARE)
    x, y = grid.coordinates()
    values = 1 + 0.9 * torch.sin(5 * x) * torch.cos(7 * y)
    np.save(tmp_path / "k.npy", values.numpy())
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["inputs/a"] = values.numpy()
    expected = discretize(Problem(SQUARE, Equation(K=K), BOUNDARY["mixed"]), grid)
    for field in (
        values, values.numpy(), FieldFile(str(tmp_path / "k.npy")),
        FieldFile(str(tmp_path / "k.h5"), "inputs/a"), FieldFile(str(tmp_path / "k.h5")),
        lambda x, y: 1 + 0.9 * torch.sin(5 * x) * torch.cos(7 * y),
    ):  # fmt: skip
        system = discretize(Problem(SQUARE, Equation(K=field), BOUNDARY["mixed"]), grid)
        torch.testing.assert_close(system.A.coefficients, expected.A.coefficients)


def test_a_field_on_another_grid_is_interpolated_and_noted():
    """Exact for a bilinear field, whatever its own grid."""
    x, y = Grid((5, 4)).bind(SQUARE).coordinates()
    stated = Problem(SQUARE, Equation(K=1 + x * y + 2 * y), BOUNDARY["mixed"])
    system = discretize(stated, Grid((9, 12)))
    expected = discretize(
        Problem(SQUARE, Equation(K="1 + x*y + 2*y"), BOUNDARY["mixed"]), Grid((9, 12))
    )
    torch.testing.assert_close(system.A.coefficients, expected.A.coefficients)
    assert system.notes == ("K: interpolated linearly from 5 x 4 to 9 x 12 points",)


def test_boundary_values_on_a_side_and_on_the_grid_agree():
    y = Grid((9, 12)).bind(SQUARE).coordinates()[1]
    systems = [
        discretize(
            Problem(SQUARE, Equation(), sides(Condition(dirichlet=g), *[INSULATED] * 3)),
            Grid((9, 12)),
        )
        for g in ("y**2", y**2, y[0] ** 2)
    ]
    for system in systems[1:]:
        torch.testing.assert_close(system.b, systems[0].b)


@pytest.mark.parametrize("centring", ("node", "cell"))
def test_gradients_flow_from_the_system_to_the_coefficients(centring):
    generator = torch.Generator().manual_seed(2)
    shape = (5, 6)
    boundary = BOUNDARY["mixed"]
    values = [torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5 for _ in range(2)]
    u = torch.randn(
        4 if centring == "node" else 5,
        5 if centring == "node" else 6,
        generator=generator,
        dtype=torch.float64,
    )

    def residual(K, f):
        stated = Problem(SQUARE, Equation(K=K, f=f), boundary)
        system = discretize(stated, Grid(shape, centring=centring))
        return system.A.apply(u) - system.b

    inputs = tuple(v.requires_grad_() for v in values)
    assert torch.autograd.gradcheck(residual, inputs)


def test_dtype_is_kept():
    system = discretize(
        Problem(SQUARE, Equation(K=K, f="x"), BOUNDARY["mixed"]), Grid((9, 12)), dtype=torch.float32
    )
    exact = discretize(Problem(SQUARE, Equation(K=K, f="x"), BOUNDARY["mixed"]), Grid((9, 12)))
    assert system.A.dtype == system.b.dtype == torch.float32
    torch.testing.assert_close(system.b, exact.b.float())
    assert isinstance(system.A, Stencil)
    torch.testing.assert_close(system.A.coefficients, exact.A.coefficients.float())


def test_the_memory_estimate_grows_with_points_entries_and_batch():
    grid = Grid((65, 65))
    scalar = memory_estimate(problem(EQUATION["scalar"], BOUNDARY["dirichlet"]), grid)
    constant = memory_estimate(problem(EQUATION["constant"], BOUNDARY["dirichlet"]), grid)
    full = memory_estimate(problem(EQUATION["tensor"], BOUNDARY["dirichlet"]), grid)
    batch = Problem(SQUARE, Equation(K=torch.ones(7, 65, 65), f="x"), BOUNDARY["dirichlet"])
    assert constant < scalar < full
    assert memory_estimate(batch, grid) == 7 * scalar
    assert scalar >= 65 * 65 * 5 * 8
