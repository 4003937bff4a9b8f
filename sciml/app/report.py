"""The report of a run: one HTML file with its formulas and pictures inside, that needs no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciml.app.html_page import (
    columns_table,
    copied,
    document,
    facts_table,
    figure,
    heading,
    note,
    notes_list,
    section,
    verdict,
)
from sciml.app.stated import statement
from sciml.app.yaml_text import to_yaml

# What a run's figures are called in its record; the answer stands before everything else.
SOLUTION = "Solution"


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
        lines["relative L2 error"] = f"{worst(record['error']):.3e} (against the exact solution)"
    bounds = record.get("certificate")
    if bounds is not None:
        low, high = (100 * worst(bounds[end]) for end in ("lower", "upper"))
        lines["certified error"] = (
            f"{low:.3g} to {high:.3g} % in the energy norm (against the discrete solution; wrong "
            f"with probability at most {bounds['probability']:.1g})"
        )
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
    first = {name: file for name, file in figures.items() if name == SOLUTION}
    others = {name: file for name, file in figures.items() if name != SOLUTION}
    return document(
        record["title"],
        [
            heading(record["title"], record["description"]),
            verdict(text, solved=record["status"] == "converged"),
            section("What was solved", statement(record["spec"]["problem"])),
            section(
                "The answer",
                *(figure(caption, file) for caption, file in first.items()),
                facts_table(facts(record)),
            ),
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
    steps = bounds["steps"]
    return section(
        "Certificate",
        facts_table(
            {
                "error at least": f"{low:.3g} %",
                "error at most": bounds.get("reason") or f"{high:.3g} %",
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


def compared(record: Mapping[str, Any]) -> str:
    """The table of baselines, where the run has one."""
    rows = record.get("baselines")
    if not rows:
        return ""
    from sciml.app.compare import EXPLAINED, HEAD, cells

    return section(
        "Beside other solvers",
        columns_table(HEAD, [cells(row) for row in rows], [row["own"] for row in rows]),
        note(f"{EXPLAINED} This machine, {record['threads']} thread(s)."),
    )


def _spec(record: Mapping[str, Any]) -> str:
    return section(
        "The spec, every option written out",
        copied(to_yaml(record["spec"])),
        note(f"Paths are those of the machine that ran it. {record['spec_file']}"),
    )
