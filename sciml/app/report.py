"""The report of a run: one HTML file with its pictures inside, that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 54rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .4rem 0 .1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.lead { margin: 0; opacity: .75; }
.verdict { border-left: .3rem solid; margin: 1rem 0; padding: .4rem .8rem; }
.solved { border-color: #2e8b57; } .unsolved { border-color: #c0392b; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #8884; padding: .3rem .6rem .3rem 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 500; opacity: .75; width: 40%; }
td { font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } img { background: #fff; height: auto; max-width: 100%; }
figcaption { opacity: .75; font-size: .9rem; }
pre { background: #8881; font-size: .85rem; overflow-x: auto; padding: .8rem; }
"""


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
    solved = record["status"] == "converged"
    verdict = f"{record['status'].replace('_', ' ').capitalize()}. {record['advice']}"
    return page(record, verdict, facts(record), figures, solved=solved)


def page(
    record: Mapping[str, Any],
    verdict: str,
    lines: Mapping[str, str],
    figures: Mapping[str, Path],
    *,
    solved: bool,
) -> str:
    """A report: the record's title and notes, a verdict, the table ``lines``, figures, the spec."""
    title = escape(record["title"])
    where = {
        "device": record["device"],
        "precision": record["dtype"],
        "threads": str(record["threads"]),
        "seed": str(record["seed"]),
        "finished": record["finished"],
        "versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
    }
    notes = "".join(f"<li>{escape(note)}</li>" for note in record["notes"])
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f'<h1>{title}</h1><p class="lead">{escape(record["description"])}</p>',
            f'<p class="verdict {"solved" if solved else "unsolved"}">{escape(verdict)}</p>',
            _table(lines),
            f"<ul>{notes}</ul>" if notes else "",
            *(_figure(caption, file) for caption, file in figures.items()),
            "<h2>The spec, in full</h2>",
            f"<pre>{escape(json.dumps(record['spec'], indent=2))}</pre>",
            "<h2>The run</h2>",
            _table(where),
            "</body></html>\n",
        ]
    )


def _table(lines: Mapping[str, str]) -> str:
    rows = (f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in lines.items())
    return f"<table>{''.join(rows)}</table>"


def _figure(caption: str, file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    alt = escape(caption)
    return (
        f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
        f"<figcaption>{alt}</figcaption></figure>"
    )
