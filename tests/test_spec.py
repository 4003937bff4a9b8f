"""Specs: every file is a Spec or one line that says where and what; nothing is ever run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sciml
from sciml.app.read import explain, json_schema, load_spec, read_spec, solver_classes
from sciml.app.spec import Spec
from sciml.app.yaml import SpecError, parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, FieldFile, Problem, Robin
from sciml.core.problem.table import Table
from sciml.core.run.serialise import dump

GOOD = """\
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 2]}
  equation:
    kind: diffusion
    K: "1 + k*x"
    f: 1
  boundary:
    left: {dirichlet: 0}
    right: {neumann: "y"}
    top: {robin: {alpha: 1, g: 0}}
    bottom: {dirichlet: "sin(pi*x)"}
  parameters: {k: 0.5}
grid: {shape: [17, 33]}
solver: {kind: cg, rtol: 1e-6}
"""


def spec_of(text: str, *overrides: str) -> Spec:
    return read_spec(parse_yaml(text, "s.yaml"), overrides)


def message_of(text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        spec_of(text, *overrides)
    line = explain(caught.value)
    assert "\n" not in line and "pydantic" not in line.lower()
    return line


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_spec_is_the_objects_that_python_would_write() -> None:
    from sciml.solvers import CG

    spec = spec_of(GOOD)
    assert spec.problem == Problem(
        domain=Box((0.0, 0.0), (1.0, 2.0)),
        equation=Equation(kind="diffusion", K="1 + k*x", f=1.0),
        boundary={
            "left": Condition(dirichlet=0.0),
            "right": Condition(neumann="y"),
            "top": Condition(robin=Robin(alpha=1.0, g=0.0)),
            "bottom": Condition(dirichlet="sin(pi*x)"),
        },
        parameters={"k": 0.5},
    )
    assert spec.on == Grid((17, 33), domain=Box((0.0, 0.0), (1.0, 2.0)))
    assert spec.solver == CG(rtol=1e-6)
    assert spec.path == "s.yaml" and spec.text == GOOD


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1.0e-8", 1e-8), ("1E5", 1e5), (".5", 0.5), ("2.", 2.0), ("+3", 3),
        ("010", 10), ("0o17", 15), ("0x1F", 31), ("no", "no"), ("yes", "yes"), ("on", "on"),
        ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("2026-01-01", "2026-01-01"), ("~", None),
        ("", None), ("True", True), ("false", False), ("'3'", "3"), ('"true"', "true"),
        ("2*pi", "2*pi"), ("-1", -1), ("0b1", "0b1"), ("tRUE", "tRUE"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    result = parse_yaml(f"a: {text}").data["a"]
    assert result == value and type(result) is type(value)


BROKEN = [
    (changed("kind: diffusion", "kind: diffusoin"),
     "s.yaml:4:11: problem.equation.kind: ", "did you mean 'diffusion'?"),
    (changed('K: "1 + k*x"', 'k: "1 + k*x"'),
     "s.yaml:5:5: problem.equation.k: unknown key 'k'; "),
    (changed('"1 + k*x"', '"1 + q*x"'),
     "s.yaml:5:8: problem.equation.K: unknown name 'q' at column 5"),
    (changed('"1 + k*x"', '"1 + sine(x)"'), "s.yaml:5:8: ", "column 5; did you mean 'sin'?"),
    (changed('"1 + k*x"', '"1 + z"'), "s.yaml:5:8: ", "only the coordinates x, y"),
    (changed('"1 + k*x"', '"1 + t"'), "s.yaml:5:8: ", "no time: {end: ...}"),
    (changed('"1 + k*x"', '"1 + v**2"'), "s.yaml:5:8: ", "unknown name 'v'"),
    (changed('"1 + k*x"', "x < 1"), "s.yaml:5:8: ", "a condition, not a number"),
    (changed('"1 + k*x"', "true"), "s.yaml:5:8: ", "got true"),
    (changed('"1 + k*x"', ""), "s.yaml:5:5: ", "got nothing"),
    (changed('"1 + k*x"', "[1, 2, 3]"), "s.yaml:5:8: problem.equation.K: ", "2 lists of 2"),
    (changed('"1 + k*x"', "[1, [2, 3]]"), "s.yaml:5:8: ", "2 lists of 2"),
    (changed('"1 + k*x"', "[[1, 0], [0, q]]"), "s.yaml:5:21: problem.equation.K.1.1: unknown name"),
    (changed('"1 + k*x"', "{file: k.npy}"), "s.yaml:5:15: ", "cannot find the file 'k.npy'"),
    (changed('"1 + k*x"', "{file: k.txt}"), "s.yaml:5:15: ", ".npy, .h5, .hdf5"),
    (changed('"1 + k*x"', "{fiel: k.npy}"), "s.yaml:5:9: ", "did you mean 'file'?"),
    (changed("    f: 1", "    f: 1\n    c: 2"),
     "s.yaml:7:8: problem.equation.c: ", "kind: general"),
    (changed("    f: 1", "    f: 1\n    b: 2"), "s.yaml:7:8: problem.equation.b: ", "a list of 2"),
    (changed("lower: [0, 0]", "lower: [0]"), "s.yaml:2:11: problem.domain: ", "same length"),
    (changed("lower: [0, 0]", "lower: [3, 0]"), "s.yaml:2:11: problem.domain: ", "below"),
    (changed("lower: [0, 0]", "lower: [0, 'o']"),
     "s.yaml:2:34: problem.domain.lower.1: expected a number; got the text 'o'"),
    (changed("lower: [0, 0], ", ""), "s.yaml:2:11: problem.domain: 'lower' is missing"),
    (changed("    left: {dirichlet: 0}\n", ""), "s.yaml:8:5: problem.boundary: ", "on left"),
    (changed("left:", "lfet:"), "s.yaml:8:11: problem.boundary.lfet: ", "did you mean 'left'?"),
    (changed("left: {dirichlet: 0}", "left: {dirichlet: 0, neumann: 1}"),
     "s.yaml:8:11: problem.boundary.left: ", "exactly one of"),
    (changed("left: {dirichlet: 0}", "left: {periodic: true}"),
     "s.yaml:8:11: problem.boundary.left: periodic needs both sides"),
    (changed("left: {dirichlet: 0}", "left: {periodic: yes}"),
     "s.yaml:8:22: problem.boundary.left.periodic: expected true or false; got the text 'yes'"),
    (changed("left: {dirichlet: 0}", "left: 0"), "s.yaml:8:11: ", "expected a mapping"),
    (changed("alpha: 1", "alhpa: 1"), "s.yaml:10:19: ", "did you mean 'alpha'?"),
    (changed("alpha: 1, ", ""), "s.yaml:10:18: problem.boundary.top.robin: 'alpha' is missing"),
    (changed("{k: 0.5}", "{k: a}"), "s.yaml:12:19: problem.parameters.k: expected a number"),
    (changed("{k: 0.5}", "{k: 1, x: 2}"), "s.yaml:12:25: ", "already has a meaning"),
    (changed("{k: 0.5}", "{k: [1, 2], j: [1, 2, 3]}"), "s.yaml:12:15: ", "k has 2, j has 3"),
    (changed("[17, 33]", "[17, 33.5]"), "s.yaml:13:20: grid.shape.1: expected a whole number"),
    (changed("[17, 33]", "[17, 33, 9]"), "s.yaml:13:15: grid.shape: the domain has 2 dimensions"),
    (changed("[17, 33]", "[17, 2]"), "s.yaml:13:15: grid.shape: ", "at least 3 points"),
    (changed("[17, 33]", "17"), "s.yaml:13:15: grid.shape: expected a list; got the number 17"),
    (changed("grid:", "gird:"), "s.yaml:13:1: gird: unknown key 'gird'; did you mean 'grid'?"),
    (changed("grid:", "on:"), "s.yaml:13:1: on: ", "write grid:"),
    (changed("grid:", "mesh:"), "s.yaml:13:8: mesh.shape: ", "unknown key 'shape'"),
    (changed("kind: cg", "kind: cgg"), "s.yaml:14:16: solver.kind: ", "did you mean 'cg'?"),
    (changed("kind: cg, ", ""), "s.yaml:14:9: solver: kind is missing; one of auto"),
    (changed("rtol: 1e-6", "rtol: 1e-6x"), "s.yaml:14:26: solver.rtol: expected a number"),
    (changed("rtol: 1e-6", "rtol: 7"), "s.yaml:14:26: solver.rtol: "),
    (changed("rtol: 1e-6", "rtol: .inf"), "s.yaml:14:26: ", "not a finite number"),
    (changed("rtol: 1e-6", "rtlo: 1e-6"), "s.yaml:14:20: solver.rtlo: ", "did you mean 'rtol'?"),
    (changed("rtol: 1e-6", "preconditioner: {kind: amg, rtol: 7}"),
     "s.yaml:14:54: solver.preconditioner.rtol: "),
    (changed("rtol: 1e-6", "preconditioner: {kind: agm}"),
     "s.yaml:14:43: solver.preconditioner.kind: ", "did you mean 'amg'?"),
    (changed("rtol: 1e-6", "max_iterations: 1.5"), "s.yaml:14:36: ", "a whole number"),
    (changed("  parameters: {k: 0.5}", "  parameters: {k: 1}\n  obstacle: {inside: x, boundary: "
             "{dirichlet: 0}}"), "s.yaml:13:22: problem.obstacle.inside: ", "not a condition"),
    (changed("  parameters: {k: 0.5}", "  parameters: {k: 1}\n  exact: [1]"),
     "s.yaml:13:10: problem.exact: expected a number or an expression"),
    (changed("{kind: cg, rtol: 1e-6}", "{kind: pinn, optimiser: {kind: adma}}"),
     "s.yaml:14:40: solver.optimiser.kind: ", "did you mean 'adam'?"),
    (changed("{kind: cg, rtol: 1e-6}", "{kind: pinn, optimiser: [{kind: adam}, {kind: lbgfs}]}"),
     "s.yaml:14:55: solver.optimiser.1.kind: ", "did you mean 'lbfgs'?"),
    (changed("{kind: cg, rtol: 1e-6}", "{kind: pinn, optimiser: [{kind: adam, iteratons: 3}]}"),
     "s.yaml:14:47: solver.optimiser.0.iteratons: ", "did you mean 'iterations'?"),
    (changed("{kind: cg, rtol: 1e-6}", "{kind: pinn, optimiser: [{kind: adam, rate: x}]}"),
     "s.yaml:14:53: solver.optimiser.0.rate: expected a number"),
    (GOOD + "grid: {shape: [5, 5]}\n", "s.yaml:15:1: duplicate key 'grid'; first given on line 13"),
    ("- 1\n", "s.yaml:1:1: a spec is a mapping"),
    ("", "s.yaml:1:1: a spec is a mapping"),
    ("grid: {shape: [5, 5]}\n", "s.yaml:1:1: 'problem' is missing"),
]  # fmt: skip


@pytest.mark.parametrize("case", BROKEN, ids=range(len(BROKEN)))
def test_a_fault_is_named_at_its_line_and_column(case: tuple[str, ...]) -> None:
    text, start, *fragments = case
    line = message_of(text)
    assert line.startswith(start)
    assert all(fragment in line for fragment in fragments), line


LAUGHS = "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10 if i else ['lol'])}]\n" for i in range(10)
)
HOSTILE = [
    (LAUGHS, "aliases expand to over"),
    ("a: &a [*a]\n", "contains itself"),
    ("a: &a {b: *a}\n", "contains itself"),
    ("a: *b\n", "has no anchor"),
    ("a: !!python/object/apply:os.system ['true']\n", "tags such as"),
    ("a: !!python/name:os.system\n", "tags such as"),
    ("!!map {a: 1}\n", "tags such as"),
    ("a: !include /etc/passwd\n", "tags such as"),
    ("a: " + "[" * 3000 + "]" * 3000 + "\n", "nested over"),
    ("- " * 2000 + "1\n", "nested over"),
    ("a: [" + "1," * 60_000 + "1]\n", "over 50000 values"),
    ("a: 1\na: 2\n", "duplicate key"),
    ("a: 1\n---\nb: 2\n", "one YAML document"),
    ("a:\n\t- 1\n", "tabs"),
    ("a: \0\n", "not YAML"),
    ("<<: {a: 1}\n", "YAML 1.1"),
    ("? [1, 2]\n: 3\n", "a key must be a plain word"),
    ("a: [1, 2\n", "not YAML"),
    ("a: .nan\n", "not a finite number"),
    ("a: " + "9" * 5000 + "\n", "too large"),
    ("a: 1e999\n", "too large"),
    ("a: 0x" + "f" * 5000 + "\n", "too large"),
    ("%YAML 9.9\n---\na: 1\n", "not YAML"),
    ("a: 'x\n", "not YAML"),
    ("x" * 1_000_001, "over 1000000 characters"),
]


@pytest.mark.parametrize(("text", "fragment"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_yaml_is_refused(text: str, fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_yaml(text, "s.yaml")
    line = str(caught.value)
    assert fragment in line and re.match(r"s\.yaml:\d+:\d+: ", line)
    assert "\n" not in line and len(line) < 400


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "large.yaml").write_bytes(b"#" * 2_000_000)
    for name, fragment in [("binary.yaml", "UTF-8"), ("large.yaml", "1000000 bytes"),
                           ("absent.yaml", "start one with sciml new"),
                           ("larg.yaml", "did you mean '.*large.yaml'"), (".", "is a directory"),
                           ("nul\0.yaml", "cannot read")]:  # fmt: skip
        with pytest.raises(InputError, match=fragment):
            load_spec(tmp_path / name)


def test_aliases_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    text = GOOD.replace("left: {dirichlet: 0}", "left: &wall {dirichlet: 0}")
    text = text.replace('right: {neumann: "y"}', "right: *wall")
    (tmp_path / "s.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    spec = load_spec(tmp_path / "s.yaml", ["problem.boundary.left.dirichlet=3"])
    assert spec.problem.boundary["left"] == Condition(dirichlet=3.0)
    assert spec.problem.boundary["right"] == Condition(dirichlet=0.0)


def test_field_files_are_found_beside_the_spec(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.ones((17, 33)))
    (tmp_path / "s.yaml").write_text(changed('"1 + k*x"', "{file: k.npy}"))
    K = load_spec(tmp_path / "s.yaml").problem.equation.K
    assert isinstance(K, FieldFile) and K.file == str(tmp_path / "k.npy")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("solver.rtol=1e-4", "solver.rtol", 1e-4),
        ("grid.shape=[9, 9]", "grid.shape", [9, 9]),
        ("grid.shape.1=65", "grid.shape", [17, 65]),
        ("problem.equation.K=2 + x", "problem.equation.K", "2 + x"),
        ("problem.equation.K=[1, 2]", "problem.equation.K", [1.0, 2.0]),
        ("solver.preconditioner.kind=amg", "solver.preconditioner.kind", "amg"),
        ("problem.parameters.k=[1, 2, 3]", "problem.parameters.k", [1.0, 2.0, 3.0]),
    ],
)
def test_overrides(override: str, key: str, value: Any) -> None:
    found = dump(spec_of(GOOD, override))
    for part in key.split("."):
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "solver.rtlo=1",
            "--set solver.rtlo=1: solver.rtlo: unknown key 'rtlo'; did you mean 'rtol'?",
        ),
        (
            "slover.rtol=1",
            "--set slover.rtol=1: slover: unknown key 'slover'; did you mean 'solver'?",
        ),
        ("solver.rtol.x=1", "is a value; nothing can be below it"),
        ("grid.shape.2=5", "the list has 2 entries"),
        ("solver.rtol", "write key.path=value"),
        ("=1", "write key.path=value"),
        ("solver.rtol=[", "--set solver.rtol=[: this is not YAML"),
        (
            "solver.rtol=no",
            "--set solver.rtol=no: solver.rtol: expected a number; got the text 'no'",
        ),
        (
            "problem.boundary.top={robin: {alhpa: 1}}",
            "problem.boundary.top.robin.alhpa: unknown key",
        ),
    ],
)
def test_wrong_overrides_say_so(override: str, message: str) -> None:
    assert message in message_of(GOOD, override)


def test_later_errors_find_their_place() -> None:
    spec = spec_of(GOOD, "solver.rtol=1e-3")
    assert spec.locate("problem.equation.K") == "s.yaml:5:8"
    assert spec.locate("problem.boundary.top.robin.alpha") == "s.yaml:10:26"
    assert spec.locate("problem.equation.c") == "s.yaml:4:5"
    assert spec.locate("nothing.of.this") == "s.yaml:1:1"
    assert spec.locate("grid.shape[1]") == "s.yaml:13:20"
    assert spec.locate("solver.rtol") == "--set solver.rtol=1e-3"
    error = InputError("K is -1 at x = 0.5, y = 0", "problem.equation.K")
    assert explain(error, spec) == "s.yaml:5:8: problem.equation.K: K is -1 at x = 0.5, y = 0"
    assert explain(InputError("no"), spec) == "s.yaml: no"
    assert explain(InputError("no")) == "no"


def test_no_solver_means_auto() -> None:
    from sciml.solvers import Auto

    assert spec_of(changed("solver: {kind: cg, rtol: 1e-6}\n", "")).solver == Auto()


def test_every_solver_can_be_named() -> None:
    import sciml.solvers

    for cls in solver_classes():
        needed = (
            {"path": "runs/mgno"} if cls in (sciml.solvers.Surrogate, sciml.solvers.HINTS) else {}
        )
        given = {"kind": cls.kind, **needed}
        options = ", ".join(f"{key}: {value}" for key, value in given.items())
        spec = spec_of(changed("kind: cg, rtol: 1e-6", options))
        assert spec.solver == cls(**needed)
        assert spec == read_spec(parse_yaml(json.dumps(dump(spec))))


def resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def test_the_schema_names_every_key() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["required"] == ["problem"] and schema["additionalProperties"] is False
    problem = resolved(schema, schema["properties"]["problem"])
    own = {"domain", "equation", "boundary", "obstacle", "parameters", "exact", "name"}
    own |= {"time", "initial", "observations", "noise"}
    assert set(problem["properties"]) == own
    equation = schema["$defs"]["Equation"]
    assert "general" in equation["properties"]["kind"]["enum"]
    assert equation["description"]
    places = {
        "grid": {"shape", "centring", "scheme"},
        "mesh": {"file", "element", "merge", "axisymmetric", "scheme"},
        "points": {"count", "seed"},
    }
    for name, keys in places.items():
        place = resolved(schema, schema["properties"][name]["anyOf"][0])
        assert set(place["properties"]) == keys
    assert schema["$defs"]["CG"]["properties"]["rtol"]["default"] == 1e-8


def test_numbers_may_be_written_as_expressions_of_numbers() -> None:
    text = """\
problem:
  domain: {kind: box, lower: ["log(0.1)"], upper: ["2*pi"]}
  equation: {kind: heat, K: "k"}
  boundary: {left: {dirichlet: 0}, right: {dirichlet: 0}}
  time: {end: "1/3"}
  initial: 0
  parameters: {k: "sqrt(2)", j: [1, "2*e"]}
grid: {shape: [17]}
"""
    problem = spec_of(text).problem
    assert problem.box == Box((math.log(0.1),), (2 * math.pi,))
    assert problem.time is not None
    assert problem.time.end == 1 / 3
    assert problem.parameters["k"] == pytest.approx(math.sqrt(2), rel=1e-15)
    assert problem.parameters["j"] == (1.0, 2 * math.e)
    line = message_of(text.replace("2*pi", "2*x"))
    assert line.startswith("s.yaml:2:52: problem.domain.upper.0: expected a number; got")
    assert "unknown name 'x'" in line


def tabled(K: str, parameters: str = "{}") -> str:
    text = changed('K: "1 + k*x"', f"K: {K}").replace("{k: 0.5}", parameters)
    return text.replace("kind: diffusion", "kind: nonlinear_poisson").replace("cg", "newton")


def test_a_table_is_a_coefficient_and_a_parameter(tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text("T,k\n0,1\n2,3\n")
    columns = "{columns: {u: [0, 2], k: [1, 3]}, of: u}"
    K = spec_of(tabled(columns)).problem.equation.K
    assert Table(columns={"u": (0.0, 2.0), "k": (1.0, 3.0)}, of="u") == K
    path = tmp_path / "s.yaml"
    path.write_text(tabled("k(u)", "{k: {table: k.csv, of: T, outside: hold}}"))
    spec = load_spec(path)
    assert spec.problem.parameters["k"] == Table(str(tmp_path / "k.csv"), of="T", outside="hold")
    assert load_spec(path).problem == spec.problem
    assert dump(spec)["problem"]["parameters"]["k"]["of"] == "T"
    at_u = spec_of(tabled("1 + k", f"{{k: {columns}}}"))
    assert not at_u.problem.linear


@pytest.mark.parametrize(
    ("K", "parameters", "said"),
    [
        ("{columns: {T: [0, 1], k: [1, 2]}, of: T}", "{}", "s.yaml:5:46: problem.equation.K.of: "),
        ("{columns: {u: [0, 0], k: [1, 2]}, of: u}", "{}", "0 occurs twice"),
        ("{columns: {u: [0, 1], k: [1]}, of: u}", "{}", "columns are equally long"),
        ("{table: nowhere.csv, of: u}", "{}", "s.yaml:5:16: problem.equation.K.table: cannot find"),
        ("{table: k.csv, off: u}", "{}", "unknown key 'off'; did you mean 'of'?"),
        ("{columns: {u: [0, 1], k: [1, 2]}}", "{}", "say what the table is of"),
        ("{columns: {u: [0, 1], k: [1, 2]}, of: u, outside: clip}", "{}", "refuse or hold"),
        ("k", "{k: {columns: {T: [0, 1], k: [1, 2]}, of: T}}", "write k(...)"),
        ("k(u, x)", "{k: {columns: {T: [0, 1], k: [1, 2]}, of: T}}", "takes 1 argument"),
        ("tabel(u)", "{table: {columns: {T: [0, 1], k: [1, 2]}, of: T}}", "did you mean 'table'?"),
        ("{file: k.npy, centering: cell}", "{}", "did you mean 'centring'?"),
    ],
)
def test_a_fault_in_a_table_is_named_in_its_place(K: str, parameters: str, said: str) -> None:
    assert said in message_of(tabled(K, parameters))


SIDES = """
problem:
  domain: {{kind: box, lower: [0], upper: [1]}}
  equation: {{kind: poisson, f: 1}}
  boundary:
    left: {{dirichlet: {left}}}
    right: {{robin: {{alpha: "{alpha}", g: "0.5*nx"}}}}
grid: {{shape: [33]}}
"""


def test_a_dirichlet_value_of_a_spec_may_name_the_normal_and_a_source_may_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SIDES.format(left='"nx"', alpha="1"))
    spec = load_spec(path)
    assert float(sciml.solve(spec.problem, on=spec.on).value[0]) == -1
    path.write_text(SIDES.format(left=0, alpha="1").replace("f: 1", "f: nx"))
    with pytest.raises(InputError, match="normal is known in the data of a side") as caught:
        load_spec(path)
    assert "4:32: problem.equation.f" in str(caught.value)


def test_side_data_of_a_spec_may_name_the_solution_and_the_normal(tmp_path: Path) -> None:
    """u'' = -1, u(0) = 0: u = c x - x^2/2 with (1 + u(1)^2) u(1) + c - 1 = 0.5."""
    path = tmp_path / "spec.yaml"
    path.write_text(SIDES.format(left=0, alpha="1 + u**2"))
    spec = load_spec(path)
    assert not spec.problem.linear
    end = float(sciml.solve(spec.problem, on=spec.on).value[-1])
    assert (1 + end**2) * end + (end + 0.5) - 1 == pytest.approx(0.5, abs=1e-8)


@pytest.mark.parametrize(
    ("left", "alpha", "where", "reason"),
    [
        ('"u"', "1", "6:23: problem.boundary.left.dirichlet", "robin data may depend on"),
        ('"ny"', "1", "6:23: problem.boundary.left.dirichlet", "only the coordinates x"),
        ("0", "ny", "7:28: problem.boundary.right.robin.alpha", "only the coordinates x"),
    ],
)
def test_what_a_side_cannot_name_is_refused_where_it_stands(
    tmp_path: Path, left: str, alpha: str, where: str, reason: str
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SIDES.format(left=left, alpha=alpha))
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        load_spec(path)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        (0.0, 5e-324, "choose units in which it is 1e-60"),
        (0.0, 1e308, "choose units"),
        (-1e308, 1e308, "choose units"),
        (1e16, 1e16 + 2, "move the origin nearer"),
    ],
)
def test_boxes_whose_points_no_number_tells_apart(lower: float, upper: float, said: str) -> None:
    """An infinite 1/h, or nodes that are one number: 65 of them on [1e16, 1e16 + 2] were two."""
    with pytest.raises(InputError, match=said) as caught:
        Box((0.0, lower), (1.0, upper))
    assert caught.value.key == "problem.domain" and "along y" in str(caught.value)
    shift, scale = 1e6, 1e-40
    assert Box((shift,), (shift + 1,)).dimension == Box((0.0,), (scale,)).dimension == 1


def test_overrides_without_a_value_remove_a_key() -> None:
    text = GOOD + "output: {quantities: {most: {max: u}, least: {min: u}}}\n"
    assert spec_of(text, "output=").output is None
    left = spec_of(text, "output.quantities.most=", "output.quantities.least.min=3").output
    assert left is not None
    assert list(left.quantities) == ["least"]
    assert spec_of(GOOD, "grid.shape.1=", "grid.shape=[9, 9]").grid == Grid((9, 9))
    message = "'mots' cannot be removed; output.quantities has most, least"
    assert message in message_of(text, "output.quantities.mots=")
    assert "'equation' is missing" in message_of(GOOD, "problem.equation=")
