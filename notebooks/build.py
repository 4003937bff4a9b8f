"""Make the notebooks from their text: run every cell, store what it gave, and a small last picture.

python notebooks/build.py            all of them
python notebooks/build.py 3 5        these

Cells have numbers in the place of random names, and no times, so that what did not change is the
same file. Pictures above 100 kB are stored in 256 colours, dithered. Anything on stderr is an
error: a notebook has no warnings.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
THUMBNAILS = HERE.parent / "docs" / "images" / "notebooks"
WIDTH = 640  # of a thumbnail
LARGEST = 100_000  # bytes of a picture as it comes
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def build(text: Path) -> None:
    """Run one, write the .ipynb beside it and its thumbnail."""
    notebook = jupytext.read(text, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = nbformat.NotebookNode()
    client = NotebookClient(notebook, timeout=600, record_timing=False, kernel_name="python3",
                            resources={"metadata": {"path": str(HERE)}})  # fmt: skip
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output.get("name") == "stderr":
            raise SystemExit(f"{text.name} has a warning:\n{output['text']}")
    shown = [output.data for output in outputs if "image/png" in output.get("data", {})]
    for data in shown:
        if len(base64.b64decode(data["image/png"])) > LARGEST:
            data["image/png"] = base64.b64encode(few_colours(decoded(data))).decode()
    nbformat.write(notebook, text.with_suffix(".ipynb"))
    THUMBNAILS.mkdir(parents=True, exist_ok=True)
    thumbnail = decoded(shown[-1])
    thumbnail.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    (THUMBNAILS / f"{text.stem}.png").write_bytes(few_colours(thumbnail))


def decoded(data: dict[str, str]) -> Image.Image:
    """The picture in a cell's output."""
    return Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")


def few_colours(picture: Image.Image) -> bytes:
    """A PNG in 256 colours, dithered, with white kept white."""
    fitted = picture.quantize(255, kmeans=2)
    colours = fitted.getpalette()
    assert colours is not None
    fitted.putpalette([*colours[: 3 * 255], 255, 255, 255])
    numbers = np.array(picture.quantize(palette=fitted))
    numbers[(np.array(picture) == 255).all(-1)] = 255
    drawn = Image.fromarray(numbers, "P")
    drawn.putpalette(fitted.getpalette() or [])
    buffer = io.BytesIO()
    drawn.save(buffer, "png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    for path in sorted(HERE.glob("[0-9]-*.py")):
        if not sys.argv[1:] or path.name[0] in sys.argv[1:]:
            build(path)
            print(path.stem, flush=True)
