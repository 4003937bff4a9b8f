"""Tables of measured figures as data, shown on every page that names them.

    python benchmarks/results.py            write the tables into the pages
    python benchmarks/results.py --check    name the pages that show something else, and write none

``benchmarks/results/NAME.json`` holds a table: title, date, machine, command, columns, rows, note.
A page shows it between two lines, ``<!-- table: NAME -->`` and ``<!-- end -->``; what stands there
is written anew. A benchmark keeps its figures by :func:`keep`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"
_SHOWN = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """What was measured, when, on what, by which command; texts are shown as they are.

    Numbers are shown with four digits; nothing (null) as an empty cell. ``note`` stands below.
    """

    title: str
    date: str
    machine: str
    command: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"'{self.title}' has {len(self.columns)} columns; got {row}")

    def markdown(self) -> str:
        """The command, the table, and the note with date and machine."""
        command = [f"    {line}" for line in self.command.splitlines()]
        table = [_row(self.columns), "|---" * len(self.columns) + "|"]
        table += [_row([_text(cell) for cell in row]) for row in self.rows]
        note = f"{self.note} ({self.date}, {self.machine}.)".strip()
        return "\n".join([*command, "", *table, "", *textwrap.wrap(note, 100)])


def keep(name: str, table: Table) -> Path:
    """Write a table under its name, which is how pages call it."""
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(asdict(table), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def load(name: str) -> Table:
    """The table of that name; raises ValueError where there is none, or it is not whole."""
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"there is no table '{name}' in {FOLDER}")
    return Table(**json.loads(path.read_text("utf-8")))


def shown(text: str) -> str:
    """A page's text with the tables that it names written anew."""
    return _SHOWN.sub(lambda m: f"{m[1]}\n{load(m[2]).markdown()}\n\n{m[3]}", text)


def pages() -> Iterator[Path]:
    """Where tables may be shown."""
    yield from (ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md")
    yield from sorted((ROOT / "docs").rglob("*.md"))


def stale() -> dict[Path, str]:
    """The pages that do not show what the tables hold, with the text that they should have."""
    texts = {page: page.read_text("utf-8") for page in pages()}
    return {page: new for page, text in texts.items() if (new := shown(text)) != text}


def unseen() -> list[str]:
    """The tables that no page shows."""
    named = {m[2] for page in pages() for m in _SHOWN.finditer(page.read_text("utf-8"))}
    return sorted({path.stem for path in FOLDER.glob("*.json")} - named)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:.4g}"


def main() -> None:
    """Write the tables into the pages, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one differs")
    check = parser.parse_args().check
    different = stale()
    for page, text in different.items():
        print(page.relative_to(ROOT))
        if not check:
            page.write_text(text, "utf-8")
    if check and different:
        sys.exit("these pages differ from the tables: run python benchmarks/results.py")


if __name__ == "__main__":
    main()
