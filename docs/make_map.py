"""The map in docs/architecture.md, made from the first sentence of every module.

python docs/make_map.py           writes it anew
python docs/make_map.py --check   only says whether it is true
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- map: made by docs/make_map.py -->", "<!-- end of the map -->"
# The floors, from the top down.
FLOORS = (
    "sciml/app",
    "sciml/training",
    "datasets",
    "solvers",
    "operators",
    "sciml/discretization",
    "sciml/core",
)


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return re.sub(r"(?::\w+:)?`+([^`]+)`+", r"`\1`", first).replace("|", "\\|")


def rows(folder: Path) -> list[str]:
    """A row of the table for each module of a folder, packages before what is in them."""
    found = []
    for path in sorted(folder.rglob("*.py"), key=lambda p: (p.parent.as_posix(), p.name)):
        inner = path.relative_to(folder)
        if inner.name == "__init__.py":
            continue
        found.append(f"| `{inner.with_suffix('')}` | {sentence(path)} |")
    return found


def map_of(root: Path) -> str:
    """The whole map as Markdown, one table a floor."""
    parts = []
    for floor in FLOORS:
        about = sentence(root / floor / "__init__.py")
        parts += [f"### `{floor}/`\n\n{about}\n", "| module | says |\n|---|---|"]
        parts += [*rows(root / floor), ""]
    return "\n".join(parts)


def main() -> int:
    """Write the map, or with --check compare it."""
    text = PAGE.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    made = f"{before}{START}\n\n{map_of(ROOT)}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
