"""The parts of a report: one page of HTML that needs no other file and asks nobody for anything."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #5b6673; --line: #d8dde3;
  --ground: #fff; --panel: #f4f6f8; --good: #2e8b57; --bad: #c0392b; --mark: #fff3bf; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa5b1; --line: #3a434d;
  --ground: #14181c; --panel: #1e242a; --good: #57c98a; --bad: #ff7b6b; --mark: #4d4212; } }
* { box-sizing: border-box; }
body { background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif;
  margin: 0 auto; max-width: 58rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .4rem 0 .2rem; overflow-wrap: anywhere; }
h2 { border-top: 1px solid var(--line); font-size: 1.1rem; margin: 2rem 0 .6rem;
  padding-top: .9rem; }
.lead { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.verdict { background: var(--panel); border-left: .3rem solid; border-radius: .2rem;
  margin: 1rem 0; padding: .5rem .8rem; }
.solved { border-color: var(--good); } .unsolved { border-color: var(--bad); }
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


def verdict(text: str, *, solved: bool) -> str:
    """One sentence that says how it went."""
    return f'<p class="verdict {"solved" if solved else "unsolved"}">{escape(text)}</p>'


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
    """A PNG file inside the page; nothing where it is missing."""
    if not file.is_file():
        return ""
    content, alt = file.read_bytes(), escape(caption)
    width, height = struct.unpack(">II", content[16:24])  # of a PNG file's header
    image = f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
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
