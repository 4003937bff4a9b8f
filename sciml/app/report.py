"""The report of a run, of a training, or of two runs side by side: one page of HTML.

Its formulas and pictures are inside, so that it needs no other file and asks nobody for anything.
"""

from __future__ import annotations

import base64
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import Any

from sciml.app import output
from sciml.app.console import aligned
from sciml.app.formula import statement
from sciml.app.record import RUN, check, read
from sciml.app.yaml import one_line, to_yaml
from sciml.core.disk import write_text
from sciml.core.errors import InputError
from sciml.core.run.serialise import differences
from sciml.core.run.solution import load_solution

# How captions of figures begin that tell how the answer was found; the others show the answer.
SOLUTION, METHOD = "Solution", ("Convergence", "Residual", "Coefficient")
HEAD = ("solver", "iterations", "set-up s", "solve s", "total s", "true residual", "error",
        "time over this run's")  # fmt: skip
EXPLAINED = (
    "Every solver got the same problem and the same tolerance; the least time of up to three runs, "
    "in turn. The residual is that of the discrete system, recomputed. The error is the relative "
    "L2 error against the exact solution, where the spec gives one."
)


def facts(record: Mapping[str, Any]) -> dict[str, str]:
    """The lines of a run's table, by name, from its record; of a batch the worst sample."""
    samples = len(record["statuses"])
    solved = record["statuses"].count("converged")
    seconds = record["seconds"]
    lines = {"status": record["status"].replace("_", " ")}
    if samples > 1:
        lines["samples"] = f"{solved} of {samples} converged; the worst is shown"
    lines["iterations"] = str(int(worst(record["iterations"])))
    lines["true relative residual"] = f"{worst(record['residual']):.2e}"
    if record["error"] is not None:
        times = record.get("times")
        when = f" at t = {times[-1]:g}" if times else ""
        lines["relative L2 error"] = (
            f"{worst(record['error']):.3e} (against the exact solution{when})"
        )
    for name, found in record.get("parameters", {}).items():
        error = found["standard_error"]
        known = (
            "no standard error: see the notes" if error is None else f"standard error {error:.2g}"
        )
        lines[f"found {name}"] = f"{found['value']:.6g} ({known})"
    bounds = record.get("certificate")
    if bounds is not None:
        low, high = (100 * worst(bounds[end]) for end in ("lower", "upper"))
        told = (
            "against the solution of the differential equation"
            if bounds.get("of") == "pde"
            else "against the discrete solution; wrong with probability at most "
            f"{bounds['probability']:.1g}"
        )
        lines["certified error"] = f"{low:.3g} to {high:.3g} % in the energy norm ({told})"
    if record["defect"] is not None:
        lines["compatibility defect"] = f"{worst(record['defect']):.2e} (relative to the source)"
    lines["unknowns"] = f"{record['unknowns']:,}" + (f" x {samples}" if samples > 1 else "")
    lines["time"] = ", ".join(f"{name} {value:.3g} s" for name, value in seconds.items())
    return lines


def worst(value: Any) -> float:
    """The largest number in a number or nested lists of them; NaN counts as the largest."""
    if isinstance(value, list):
        numbers = [worst(entry) for entry in value]
        return next((n for n in numbers if n != n), max(numbers, default=0.0))
    return float(value)


def html(record: Mapping[str, Any], figures: Mapping[str, Path]) -> str:
    """The report as one HTML text; ``figures`` maps captions to PNG files, which go inside."""
    text = f"{record['status'].replace('_', ' ').capitalize()}. {record['advice']}"
    doubts = record.get("doubts", [])
    text = f"{text} But: {'; '.join(doubts)}." if doubts else text
    solved = record["status"] == "converged"
    first = {name: file for name, file in figures.items() if not name.startswith(METHOD)}
    others = {name: file for name, file in figures.items() if name.startswith(METHOD)}
    return document(
        record["title"],
        [
            heading(record["title"], record["description"]),
            verdict(text, solved=solved, doubted=bool(doubts)),
            section("What was solved", statement(record["spec"]["problem"])),
            section(
                "The answer",
                *(figure(caption, file) for caption, file in first.items()),
                facts_table(facts(record)),
            ),
            quantities(record),
            certificate(record),
            compared(record),
            section(
                "How it was found", *(figure(caption, file) for caption, file in others.items())
            ),
            section("Notes", notes_list(record["notes"])),
            _spec(record),
            section("The run", facts_table(setting(record))),
        ],
    )


def page(
    record: Mapping[str, Any],
    text: str,
    lines: Mapping[str, str],
    figures: Mapping[str, Path],
    *,
    solved: bool,
) -> str:
    """The report of a training: its title and notes, a verdict, a table, figures, the spec."""
    return document(
        record["title"],
        [
            heading(record["title"], record["description"]),
            verdict(text, solved=solved),
            facts_table(lines),
            notes_list(record["notes"]),
            *(figure(caption, file) for caption, file in figures.items()),
            _spec(record),
            section("The run", facts_table(setting(record))),
        ],
    )


def setting(record: Mapping[str, Any]) -> dict[str, str]:
    """Where, when and with what it ran."""
    return {
        "device": record["device"],
        "precision": record["dtype"],
        "threads": str(record["threads"]),
        "seed": str(record["seed"]),
        "finished": record["finished"],
        "versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        "command": record["command"],
    }


def certificate(record: Mapping[str, Any]) -> str:
    """What is certain about the error, in words; nothing where nothing is."""
    bounds = record.get("certificate")
    if bounds is None:
        return ""
    low, high = (100 * worst(bounds[end]) for end in ("lower", "upper"))
    ends = {
        "error at least": f"{low:.3g} %",
        "error at most": bounds.get("reason") or f"{high:.3g} %",
    }
    if bounds.get("of") == "pde":
        assumed = "".join(f" {text[:1].upper()}{text[1:]}." for text in bounds["notes"])
        return section(
            "Certificate",
            facts_table(ends),
            note(
                "The error is the distance to the solution of the differential equation, that of "
                "the grid included, in the energy norm, relative to the solution's own. It was "
                f"bounded from both sides without knowing the solution.{assumed}"
            ),
        )
    steps = bounds["steps"]
    return section(
        "Certificate",
        facts_table(
            ends
            | {
                "that fails with probability": f"at most {bounds['probability']:.1g}",
                "tightened by": f"{steps} step{'' if steps == 1 else 's'} of multigrid-CG",
            }
        ),
        note(
            "The error is the distance to the discrete solution on this grid, not to that of the "
            "differential equation, in the energy norm, relative to the solution's own. It was "
            "bounded from both sides without knowing the solution."
        ),
    )


def quantities(record: Mapping[str, Any]) -> str:
    """The numbers that were asked for; nothing where none were."""
    lines = output.facts(record)
    return section("Quantities", facts_table(lines)) if lines else ""


def compared(record: Mapping[str, Any]) -> str:
    """The table of baselines, where the run has one."""
    rows = record.get("baselines")
    if not rows:
        return ""
    return section(
        "Beside other solvers",
        columns_table(HEAD, [cells(row) for row in rows], [row["own"] for row in rows]),
        note(f"{EXPLAINED} This machine, {record['threads']} thread(s)."),
    )


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table as text, in the order of :data:`HEAD`."""
    if row["solve"] is None:
        return [row["name"], row["remark"], *[""] * (len(HEAD) - 2)]
    total = row["setup"] + row["solve"]
    return [
        f"{row['name']} (this run)" if row["own"] else row["name"],
        str(row["iterations"]),
        *(f"{seconds:.3g}" for seconds in (row["setup"], row["solve"], total)),
        "" if row["residual"] is None else f"{row['residual']:.1e}",
        "" if row["error"] is None else f"{row['error']:.2e}",
        f"{row['ratio']:.3g}",
    ]


def comparison(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the comparison for a terminal."""
    return aligned([HEAD, *(cells(row) for row in rows)])


def _spec(record: Mapping[str, Any]) -> str:
    return section(
        "The spec, every option written out",
        copied(to_yaml(record["spec"])),
        note(f"Paths are those of the machine that ran it. {record['spec_file']}"),
    )


Record = Mapping[str, Any]


def write_pair(first: Path, second: Path, out: Path) -> Path:
    """Write the page that compares two runs' directories; returns its path."""
    from sciml.app.figures import plot_courses, plot_fields

    if first.resolve() == second.resolve():
        raise InputError(f"'{first}' is compared with itself; name two runs")
    paths = _labels(first, second)
    records = {name: read(path, RUN) for name, path in paths.items()}
    for name, path in paths.items():
        check(path, records[name])
    solutions = {name: load_solution(path) for name, path in paths.items()}
    with tempfile.TemporaryDirectory() as folder:
        fields, courses = Path(folder) / "fields.png", Path(folder) / "courses.png"
        drawn = plot_fields(solutions, fields) is not None
        plot_courses(solutions, courses)
        text = _page(records, {
            "One colour scale for both, and their difference where they share a grid": fields
        } if drawn else {}, {"Residuals as each solver saw them": courses})  # fmt: skip
    write_text(out, text)
    return out


def _labels(first: Path, second: Path) -> dict[str, Path]:
    """Short names that tell the two apart."""
    if first.name != second.name:
        return {first.name: first, second.name: second}
    return {str(first): first, str(second): second}


def _page(
    records: Mapping[str, Record], fields: Mapping[str, Path], courses: Mapping[str, Path]
) -> str:
    title = " and ".join(records)
    a, b = records.values()
    return document(
        title,
        [
            heading(title, " against ".join(record["description"] for record in records.values())),
            section("What was solved", _stated(records)),
            section("The answers", *(figure(name, file) for name, file in fields.items())),
            section("In numbers", _run_rows(records, {n: facts(r) for n, r in records.items()})),
            section("Convergence", *(figure(name, file) for name, file in courses.items())),
            section("Where the specs differ", _spec_differences(a, b, list(records))),
            section("The specs, every option written out", _specs(records)),
            section("The runs", _run_rows(records, {n: setting(r) for n, r in records.items()})),
        ],
    )


def _stated(records: Mapping[str, Record]) -> str:
    """The problem once where both solved the same, else one beside the other."""
    texts = {name: statement(record["spec"]["problem"]) for name, record in records.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values())) + note("Both runs solved this problem.")
    return _beside({name: text for name, text in texts.items()})


def _beside(parts: Mapping[str, str]) -> str:
    inner = "".join(f"<div>{note(name)}{part}</div>" for name, part in parts.items())
    return f'<div class="pair">{inner}</div>'


def _run_rows(records: Mapping[str, Record], columns: Mapping[str, Mapping[str, str]]) -> str:
    """A line for every name, a column for every run; lines that differ stand out."""
    names = list(dict.fromkeys(name for lines in columns.values() for name in lines))
    rows = [[name, *(lines.get(name, "–") for lines in columns.values())] for name in names]
    return columns_table(["", *records], rows, [row[1] != row[2] for row in rows], wraps=True)


def _spec_differences(a: Record, b: Record, names: list[str]) -> str:
    found = [
        [key, *("–" if value is None else one_line(value) for value in pair)]
        for key, *pair in differences(a["spec"], b["spec"])
    ]
    if not found:
        return note("Nowhere: the specs are equal.")
    return columns_table(["key", *names], found, [True] * len(found), wraps=True)


def _specs(records: Mapping[str, Record]) -> str:
    texts = [to_yaml(record["spec"]) for record in records.values()]
    first, second = (text.splitlines() for text in texts)
    equal = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    shared = (
        {block.a + k for block in equal for k in range(block.size)},
        {block.b + k for block in equal for k in range(block.size)},
    )
    return _beside(
        {
            name: copied(text, [k not in kept for k in range(len(text.splitlines()))])
            for name, text, kept in zip(records, texts, shared, strict=True)
        }
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #5b6673; --line: #d8dde3;
  --ground: #fff; --panel: #f4f6f8; --good: #2e8b57; --doubt: #d68910; --bad: #c0392b;
  --mark: #fff3bf; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa5b1; --line: #3a434d;
  --ground: #14181c; --panel: #1e242a; --good: #57c98a; --doubt: #f0b44c; --bad: #ff7b6b;
  --mark: #4d4212; } }
* { box-sizing: border-box; }
body { background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif;
  margin: 0 auto; max-width: 58rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .4rem 0 .2rem; overflow-wrap: anywhere; }
h2 { border-top: 1px solid var(--line); font-size: 1.1rem; margin: 2rem 0 .6rem;
  padding-top: .9rem; }
.lead { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.verdict { background: var(--panel); border-left: .3rem solid; border-radius: .2rem;
  margin: 1rem 0; padding: .5rem .8rem; }
.solved { border-color: var(--good); } .doubted { border-color: var(--doubt); }
.unsolved { border-color: var(--bad); }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .35rem .8rem .35rem 0; text-align: left;
  vertical-align: top; }
tr:last-child > td, tr:last-child > th { border-bottom: 0; }
th { color: var(--soft); font-weight: 500; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts th, .data th { width: 34%; }
.data { table-layout: fixed; }
.wide { overflow-x: auto; overflow-y: hidden; }
.columns td, .columns th { white-space: nowrap; }
.columns td:first-child { white-space: normal; min-width: 9rem; overflow-wrap: normal; }
.wrapped { table-layout: fixed; }
.wrapped td, .wrapped th { overflow-wrap: anywhere; width: auto; }
.differs td, mark { background: var(--mark); }
.equation p, .where p { margin: .4rem 0; overflow-x: auto; overflow-y: hidden;
  padding: .2rem 0; }
.equation { font-size: 1.2rem; }
mark { color: inherit; }
math { font-size: 1.08em; }
figure { margin: 1rem auto; max-width: 44rem; }
img { background: #fff; border-radius: .3rem; display: block; height: auto; max-width: 100%; }
.broad { overflow-x: auto; } .broad > img { max-width: none; min-width: 42rem; width: 100%; }
figcaption, .note { color: var(--soft); font-size: .9rem; margin-top: .3rem; }
ul { padding-left: 1.2rem; } li { overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: .3rem; font-size: .82rem; margin: 0;
  overflow-x: auto; padding: .8rem; }
details > summary { cursor: pointer; }
.spec { position: relative; }
.copy { background: var(--ground); border: 1px solid var(--line); border-radius: .3rem;
  color: var(--ink); cursor: pointer; font: inherit; font-size: .8rem; padding: .2rem .7rem;
  position: absolute; right: .5rem; top: .5rem; }
.pair { display: grid; gap: 0 1.5rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
.pair > * { min-width: 0; }
@media (max-width: 34rem) { body { padding: .8rem; } .equation { font-size: 1.05rem; } }
"""

_BROAD = 1.8  # times as wide as high

# Without it, and where scripts are off, the button stays hidden and the text can be selected.
_COPY = """
for (const button of document.querySelectorAll("button.copy")) {
  const text = button.parentElement.querySelector("pre");
  const say = (word) => { button.textContent = word;
    setTimeout(() => { button.textContent = "Copy"; }, 1500); };
  button.hidden = false;
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text.textContent); say("Copied"); }
    catch { const range = document.createRange(); range.selectNodeContents(text);
      const chosen = getSelection(); chosen.removeAllRanges(); chosen.addRange(range);
      say("Press Ctrl+C"); }
  });
}
"""


def drawn(path: Path, draw: Callable[[Path], Any]) -> str | None:
    """Draw into a file; a note where that cannot be done, which loses no answer.

    What there was under that name goes, since it would show something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # what overflows says so in the note
            draw(path)
    except Exception as error:
        path.unlink(missing_ok=True)
        said = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        return f"{path.name} could not be drawn: {said}"
    return None


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page; the empty icon keeps browsers from asking for one."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"</head><body>\n{body}\n<script>{_COPY}</script></body></html>\n"
    )


def heading(title: str, description: str) -> str:
    """The title and one line about it."""
    return f'<h1>{escape(title)}</h1><p class="lead">{escape(description)}</p>'


def verdict(text: str, *, solved: bool, doubted: bool = False) -> str:
    """One sentence that says how it went."""
    kind = "unsolved" if not solved else "doubted" if doubted else "solved"
    return f'<p class="verdict {kind}">{escape(text)}</p>'


def section(title: str, *parts: str) -> str:
    """A heading with what belongs to it; nothing where there is nothing."""
    inner = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{inner}</section>" if inner else ""


def facts_table(lines: Mapping[str, str]) -> str:
    """Names and values."""
    rows = (f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in lines.items())
    return f'<table class="facts">{"".join(rows)}</table>'


def columns_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    marked: Sequence[bool] = (),
    *,
    wraps: bool = False,
) -> str:
    """A table that scrolls by itself where it is too wide, or ``wraps`` the text of its cells.

    Rows that are ``marked`` stand out.
    """
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = []
    for index, row in enumerate(rows):
        kind = ' class="differs"' if index < len(marked) and marked[index] else ""
        body.append(f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
    layout = "wrapped" if wraps else "columns"
    return f'<div class="wide"><table class="{layout}"><tr>{top}</tr>{"".join(body)}</table></div>'


def notes_list(notes: Sequence[str]) -> str:
    """Remarks as a list."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul>{items}</ul>" if notes else ""


def note(text: str) -> str:
    """A remark in small type."""
    return f'<p class="note">{escape(text)}</p>'


def figure(caption: str, file: Path) -> str:
    """A PNG or GIF file inside the page; nothing where it is missing."""
    if not file.is_file():
        return ""
    content, alt = file.read_bytes(), escape(caption)
    kind = file.suffix[1:]
    # Of a file's header.
    width, height = struct.unpack(
        *((">II", content[16:24]) if kind == "png" else ("<HH", content[6:10]))
    )
    data = base64.b64encode(content).decode()
    image = f'<img alt="{alt}" src="data:image/{kind};base64,{data}">'
    if width > _BROAD * height:  # on a phone it scrolls by itself, to be seen at all
        image = f'<div class="broad">{image}</div>'
    return f"<figure>{image}<figcaption>{alt}</figcaption></figure>"


def copied(text: str, marked: Sequence[bool] = ()) -> str:
    """Text to copy, by a button where scripts run; lines that are ``marked`` stand out."""
    lines = []
    for index, line in enumerate(text.splitlines()):
        stands_out = index < len(marked) and marked[index]
        lines.append(f"<mark>{escape(line)}</mark>" if stands_out else escape(line))
    button = '<button class="copy" type="button" hidden>Copy</button>'
    whole = "\n".join(lines)
    return f'<div class="spec">{button}<pre>{whole}\n</pre></div>'
