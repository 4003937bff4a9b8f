"""Reports: formulas as MathML, specs that read back, pages as a browser sees them."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import chromium
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from sciml.app import cli
from sciml.app.formula import mathml, number, statement, terms
from sciml.app.read import load_spec
from sciml.app.report import columns_table, copied, document
from sciml.app.yaml import one_line, parse_yaml, to_yaml
from sciml.core.run.serialise import dump

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))
SPEC = """\
problem:
  name: Two & <three>
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: diffusion, K: "1 + 0.5*sin(2*pi*x)*cos(pi*y)**2", f: "exp(-x**2)/(1 + y)"}
  boundary: {all: {dirichlet: "x*y"}}
grid: {shape: [17, 17]}
solver: {kind: cg, preconditioner: {kind: multigrid}, rtol: 1.0e-8}
"""


def sciml_run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run compared with other solvers, and a looser one of another coefficient."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "spec.yaml").write_text(SPEC)
    found = [folder / "tight", folder / "loose"]
    changes = ["--set", "solver.rtol=1e-3", "--set", "problem.equation.K=1 + x"]
    for out, more in zip(found, (["--compare"], changes), strict=True):
        result = sciml_run("solve", folder / "spec.yaml", "--out", out, *more)
        assert result.exit_code == 0, result.output
    return found


def plain(mathml_text: str) -> str:
    """The text of a formula, without its tags and the signs that are not seen."""
    root = ElementTree.fromstring(f"<r>{mathml_text}</r>")
    return re.sub("[\u2061\u2062]", "", "".join(root.itertext()))


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("1 + x", "1+x"),
        ("2*pi*x", "2πx"),
        ("x*2", "x·2"),
        ("(a + b)*c", "(a+b)c"),
        ("a - (b - c)", "a−(b−c)"),
        ("a - (b + c)*d", "a−(b+c)d"),
        ("-x**2", "−x2"),
        ("(-x)**2", "(−x)2"),
        ("a*(-b)", "a(−b)"),
        ("a/(b + c)", "ab+c"),
        ("sqrt(1 + x)", "1+x"),
        ("abs(u)", "|u|"),
        ("sin(x)**2", "sin2(x)"),
        ("exp(-t)", "e−t"),
        ("log(u)", "ln(u)"),
        ("where(x < 0.5 and y > 0, 1, 2)", "{1where x<0.5 and y>02elsewhere"),
        ("lam*nu", "λν"),
        ("x1 + ux", "x1+ux"),
        ("1e-5", "10−5"),
        ("3e7*x", "3×107x"),
        ("min(x, y)", "min(x,y)"),
    ],
)
def test_an_expression_is_set_as_it_is_meant(expression: str, shown: str) -> None:
    assert plain(mathml(expression)).replace("\u00a0", " ") == shown


@pytest.mark.parametrize("text", ["x +", "f(", "a 'quoted' text", "<script>alert(1)</script>"])
def test_what_is_no_expression_stands_as_text(text: str) -> None:
    assert plain(mathml(text)).replace("\u00a0", " ") == text


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32).map(float)


@given(numbers)
def test_a_number_is_shown_to_ten_digits(value: float) -> None:
    text = plain(number(value).replace("<msup><mn>10</mn>", "<msup><mn>1e</mn>"))
    text = text.replace("−", "-").replace("×1e", "e").replace("--", "-")
    read = float(re.sub(r"^(-?)1e", r"\g<1>1.0e", text))
    assert math.isclose(read, value, rel_tol=1e-9, abs_tol=0.0)


@pytest.mark.parametrize("expression", ["a - b + c*d", "-(a - b) - -c", "a", "3", "a*b - c/d"])
def test_the_terms_of_a_sum_add_up_to_it(expression: str) -> None:
    joined = plain("".join(terms(expression))).replace("−", "-").replace("+-", "-")
    values = {"a": 2.0, "b": 3.0, "c": 5.0, "d": 7.0}
    # Products stand side by side and quotients one above the other.
    joined = joined.replace("cd", "c/d" if "/" in expression else "c*d").replace("ab", "a*b")
    assert eval(joined, {}, values) == pytest.approx(eval(expression, {}, values))


class Tags(HTMLParser):
    """Raises where a tag is closed that is not open."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def assert_well_formed(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_stated_in_formulas(config: Path) -> None:
    text = statement(dump(load_spec(config))["problem"])
    assert_well_formed(text)
    assert text.count("<math>") >= 2
    shown = re.sub(r"<[^>]*>", "", text)
    assert "**" not in shown and "None" not in shown


def test_the_heat_equation_reads_as_in_a_book() -> None:
    (heat,) = (path for path in CONFIGS if path.stem == "heat")
    first = statement(dump(load_spec(heat))["problem"]).partition("</p>")[0]
    assert re.sub(r"<[^>]*>|\s", "", first) == "∂tu−Δu=0"


def test_an_equation_without_a_formula_is_shown_by_its_data() -> None:
    plain = {"equation": {"kind": "beam", "load": "1 + x", "stiffness": 2.0}, "domain": None}
    shown = re.sub(r"<[^>]*>|\s", "", statement(plain))
    assert shown.startswith("beam")
    assert "load=1+x" in shown
    assert "stiffness=2" in shown
    assert "Δ" not in shown  # it has no diffusion that anyone knows of


trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | numbers | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True), inner,
                          max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), trees, min_size=1, max_size=4))
def test_yaml_reads_back_equal(tree: object) -> None:
    assert parse_yaml(to_yaml(tree)).data == tree
    assert parse_yaml(one_line(tree)).data == tree


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_spec_of_a_report_is_the_spec(config: Path, tmp_path: Path) -> None:
    spec = load_spec(config)
    copy = config.with_name("copy.yaml")  # files are found beside it
    assert parse_yaml(to_yaml(dump(spec)), str(copy)).data == json.loads(json.dumps(dump(spec)))


def test_names_from_specs_cannot_write_html(runs: list[Path]) -> None:
    page = (runs[0] / "report.html").read_text()
    assert "Two &amp; &lt;three&gt;" in page and "<three>" not in page
    assert_well_formed(page)


def test_the_comparison_reaches_one_tolerance_and_is_kept(runs: list[Path]) -> None:
    record = json.loads((runs[0] / "run.json").read_text())
    rows = record["baselines"]
    assert [row["own"] for row in rows] == [True] + [False] * (len(rows) - 1)
    assert {"cg + multigrid", "PyAMG RS + cg", "PyAMG SA + cg", "SciPy SuperLU"} <= {
        row["name"] for row in rows
    }
    assert all(row["residual"] <= 1.01e-8 for row in rows)
    assert all(row["setup"] >= 0 and row["solve"] > 0 for row in rows)
    assert rows[0]["residual"] == pytest.approx(record["residual"], rel=1e-6)
    assert "PyAMG RS + cg" in (runs[0] / "report.html").read_text()
    assert json.loads((runs[1] / "run.json").read_text())["baselines"] == []


@pytest.mark.parametrize(
    ("solver", "names"),
    [
        ("{kind: gmres, preconditioner: {kind: multigrid}}", {"PyAMG RS + bicgstab"}),
        ("{kind: auto}", {"PyAMG RS + bicgstab", "SciPy SuperLU"}),
    ],
)
def test_a_system_that_is_not_symmetric_is_compared_too(
    solver: str, names: set[str], tmp_path: Path
) -> None:
    (config,) = (path for path in CONFIGS if path.stem == "convection_diffusion")
    options = ["--set", "grid.shape=[17,17]", "--set", f"solver={solver}", "--compare"]
    result = sciml_run("solve", config, *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "run.json").read_text())["baselines"]
    assert names <= {row["name"] for row in rows}
    assert all(row["residual"] <= 1.01e-8 for row in rows if row["solve"] is not None)


def test_what_has_no_classical_rival_is_said_before_it_is_solved(tmp_path: Path) -> None:
    (config,) = (path for path in CONFIGS if path.stem == "burgers")
    result = sciml_run("solve", config, "--set", "solver.kind=auto", "--compare", "--out", tmp_path)
    assert result.exit_code == 2
    assert "--compare has nothing" in result.output
    assert not any(tmp_path.iterdir())


def test_certify_adds_to_the_record_and_the_report(runs: list[Path]) -> None:
    assert "Certificate" not in (runs[1] / "report.html").read_text()
    assert sciml_run("certify", runs[1]).exit_code == 0
    bounds = json.loads((runs[1] / "run.json").read_text())["certificate"]
    assert 0 < bounds["lower"] <= bounds["upper"] < 1e-2
    assert "Certificate" in (runs[1] / "report.html").read_text()


def test_a_report_is_written_anew_equal(runs: list[Path], tmp_path: Path) -> None:
    before = (runs[0] / "report.html").read_text()
    assert sciml_run("report", runs[0], "--out", tmp_path / "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_text() == before


@pytest.fixture(scope="module")
def comparison(runs: list[Path]) -> Path:
    out = runs[0].parent / "comparison.html"
    result = sciml_run("report", *runs, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def test_two_runs_stand_side_by_side(comparison: Path) -> None:
    page = comparison.read_text()
    assert_well_formed(page)
    assert page.count("data:image/png") == 2
    marked = re.findall(r"<mark>(.*?)</mark>", page)
    assert "  rtol: 1.0e-08" in marked and "  rtol: 0.001" in marked
    assert not any("domain" in line for line in marked)
    differing = re.findall(r'<tr class="differs"><td>([^<]*)</td>', page)
    assert {"problem.equation.K", "solver.rtol", "true relative residual"} <= set(differing)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "does not exist; name the directory"),
        ([__file__], "is a file; name the directory"),
        ([Path(__file__).parent], "holds no run.json"),
    ],
    ids=["missing", "file", "foreign"],
)
def test_what_is_no_run_is_said(arguments: list[object], said: str) -> None:
    result = sciml_run("report", *arguments)
    assert result.exit_code == 2
    assert said in result.output and len(result.output.splitlines()) == 1


def test_a_run_is_not_compared_with_itself(runs: list[Path]) -> None:
    assert "compared with itself" in sciml_run("report", runs[0], runs[0]).output


@pytest.fixture(scope="module")
def page() -> object:
    if chromium.executable() is None:
        pytest.skip("needs chromium, which is not installed (Debian: apt-get install chromium)")
    with chromium.chromium_page() as opened:
        yield opened


SCREENS = {"phone": (360, 740), "desktop": (1280, 900)}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_browser_shows_it_whole_and_asks_for_nothing(
    page: chromium.Page, runs: list[Path], comparison: Path, which: str, screen: str, dark: bool
) -> None:
    file = runs[0] / "report.html" if which == "report" else comparison
    page.requests.clear()
    page.open(file, *SCREENS[screen], dark=dark)
    assert page.complaints == []
    asked = [url for url in page.requests if not url.startswith("data:")]
    assert asked == [file.resolve().as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == SCREENS[screen][0]
    seen = page.evaluate("document.body.innerText")
    for words in ("What was solved", "true relative residual", "rtol: 1.0e-08"):
        assert words.lower() in seen.lower()
    images = "[...document.images].map(i => i.complete && i.naturalWidth > 300 && i.width > 250)"
    assert all(page.evaluate(images)) and page.evaluate("document.images.length") >= 2
    formula = "document.querySelector('.equation math').getBoundingClientRect()"
    assert page.evaluate(f"{formula}.height") > 10 and page.evaluate(f"{formula}.width") > 40
    ink, ground = (
        sum(map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body).{name}"))))
        for name in ("color", "backgroundColor")
    )
    assert ink > ground + 300 if dark else ground > ink + 300


def test_the_spec_is_copied_by_a_button(page: chromium.Page, runs: list[Path]) -> None:
    page.open(runs[0] / "report.html", *SCREENS["desktop"])
    taken = "let taken; navigator.clipboard.writeText = async (text) => { taken = text; }; "
    click = "document.querySelector('button.copy').click(); taken"
    text = page.evaluate(taken + click)
    assert parse_yaml(text).data == json.loads((runs[0] / "run.json").read_text())["spec"]


def test_a_table_marks_what_differs() -> None:
    text = columns_table(["a"], [["1"], ["<2>"]], [False, True])
    assert '<tr class="differs"><td>&lt;2&gt;</td>' in text
    assert "<mark>b</mark>" in copied("a\nb\n", [False, True])
    assert_well_formed(document("t", [text]))
