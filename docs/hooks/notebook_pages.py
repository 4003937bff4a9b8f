"""Notebooks as pages, with the outputs that are stored in them; nothing is executed.

A page holds the cells in order: text as it is, code in a block, what it printed in another, and
its pictures, which become files beside the page.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
Picture = tuple[str, bytes]


def on_files(files: Files, *, config: Any) -> Files:
    """Add a page for each notebook, its pictures, and the notebook itself."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        pictures: list[Picture] = []
        blocks = list(page(path, pictures))
        blocks.insert(1, f"[Download this notebook]({path.name})")
        name = f"notebooks/{path.stem}"
        files.append(File.generated(config, f"{name}.md", content="\n\n".join(blocks) + "\n"))
        files.append(File.generated(config, f"{name}.ipynb", abs_src_path=str(path)))
        for picture, content in pictures:
            files.append(File.generated(config, f"notebooks/{picture}", content=content))
    return files


def page(path: Path, pictures: list[Picture]) -> Iterator[str]:
    """The Markdown of a notebook, block by block; its pictures are added to the list."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            yield text
        elif cell["cell_type"] == "code" and text:
            yield fenced(text, "python")
            for output in cell["outputs"]:
                yield from shown(output, path.stem, pictures)


def shown(output: Mapping[str, Any], stem: str, pictures: list[Picture]) -> Iterator[str]:
    """What a cell printed or drew."""
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}-{len(pictures) + 1}.png"
        pictures.append((name, base64.b64decode("".join(data["image/png"]))))
        yield f"![Output of the cell above]({name})"
        return
    text = "".join(output.get("text", data.get("text/plain", ""))).strip()
    if text and output.get("name") != "stderr":
        yield fenced(text, "text")


def fenced(text: str, language: str) -> str:
    """A block of code, whatever it holds."""
    fence = "`" * (4 if "```" in text else 3)
    return f"{fence}{language}\n{text}\n{fence}"
