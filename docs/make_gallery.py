"""The gallery: the configs below, solved, their pictures made small, and the page that shows them.

    python docs/make_gallery.py              all that are not in runs/gallery, and docs/gallery.md
    python docs/make_gallery.py helmholtz    this one anew

Each picture is the ``solution.png`` of the command that stands beside it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
RUNS = ROOT / "runs" / "gallery"
PICTURES = DOCS / "images" / "gallery"
PAGE = DOCS / "gallery.md"
MOST_BYTES = 80_000
# Pictures of several panels are wider than this many times their height, and get a row.
WIDE = 1.8


@dataclass(frozen=True)
class Picture:
    """A config, what it shows, and the values to replace in it for a picture."""

    config: str
    words: str
    changes: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Where the picture lies."""
        return PICTURES / f"{self.config}.png"

    def command(self, out: Path | None = None) -> str:
        """What makes it."""
        sets = [part for change in self.changes for part in ("--set", change)]
        tail = [] if out is None else ["--out", str(out)]
        return shlex.join(["sciml", "solve", f"configs/{self.config}.yaml", *sets, *tail])


@dataclass(frozen=True)
class Part:
    """Pictures that belong together."""

    title: str
    pictures: tuple[Picture, ...]


GALLERY = (
    Part(
        "Steady, on grids",
        (
            Picture("darcy", "Pressure of water that flows around clay, 10 000 times less "
                    "permeable than the sand; conjugate gradients with multigrid."),
            Picture("obstacle", "Two pipes in a channel: holes that are cut out of the grid."),
            Picture("convection_diffusion", "A hot lid over a fluid that turns as one vortex."),
            Picture("minimal-surface", "Scherk's surface, the least area over its boundary; "
                    "Newton's method.", ("grid.shape=[129,129]",)),
            Picture("batch", "Eight problems in one run: a parameter given as a list."),
            Picture("helmholtz", "Waves from a point through a lens, with absorbing sides."),
        ),
    ),
    Part(
        "On meshes",
        (
            Picture("plate", "A steel plate with a hole, pulled to the right: displacements."),
            Picture("mesh-poisson", "Heat past a disk that conducts ten times as well."),
        ),
    ),
    Part(
        "In time",
        (
            Picture("cavity", "A square cavity under a moving lid, to its steady state.",
                    ("problem.time.frames=3",)),
            Picture("cylinder", "A channel flow around a cylinder.", ("problem.time.frames=3",)),
            Picture("navier-stokes", "Vorticity between periodic sides, by Fourier modes.",
                    ("problem.time.frames=4",)),
            Picture("gray-scott", "Gray and Scott's reaction: a spot grows to a ring.",
                    ("problem.time.frames=4",)),
            Picture("kuramoto-sivashinsky",
                    "Kuramoto and Sivashinsky's chaos, from a smooth wave.",
                    ("problem.time.frames=101",)),
            Picture("kdv", "A fast soliton overtakes a slow one.", ("problem.time.frames=101",)),
            Picture("klein-gordon", "A breather of the sine-Gordon equation, over one period.",
                    ("problem.time.frames=81",)),
        ),
    ),
    Part(
        "Functions trained on the equation",
        (
            Picture("burgers", "A shock forms: Burgers' equation."),
            Picture("gaussians", "The Helmholtz equation by 200 trained Gaussians."),
            Picture("inverse-heat", "The temperature of a rod whose conductivity was found from "
                    "60 noisy measurements."),
        ),
    ),
)  # fmt: skip

_FIRST = """\
# Gallery

Every picture is the `solution.png` of the command under it, run in a clone of the repository; each
takes a few seconds to half a minute of one core. `python docs/make_gallery.py` makes them all.
"""


def solve(picture: Picture, anew: bool) -> None:
    """Run the command where its run is not there yet, and keep its picture, made small."""
    out = RUNS / picture.config
    if anew:
        shutil.rmtree(out, ignore_errors=True)
    if not (out / "run.json").is_file():
        print(picture.command(), flush=True)
        command = [sys.executable, "-m", "sciml.app.cli", *shlex.split(picture.command(out))[1:]]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    shrink(out / "solution.png", picture.file)


def shrink(source: Path, target: Path) -> None:
    """A picture of few colours, and of as many pixels as MOST_BYTES allow."""
    target.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(source).convert("RGB")
    wide = picture.width > WIDE * picture.height
    for width in (1200, 1000, 850, 700) if wide else (800, 700, 600, 500):
        size = (width, round(picture.height * width / picture.width))
        small = picture.resize(size, Image.Resampling.LANCZOS)
        small.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size < MOST_BYTES:
            return
    raise ValueError(f"{target} has more than {MOST_BYTES} bytes at any size")


def page() -> str:
    """The Markdown of the gallery."""
    blocks = [_FIRST]
    for part in GALLERY:
        blocks.append(f'## {part.title}\n\n<div class="gallery" markdown>\n')
        for picture in part.pictures:
            width, height = Image.open(picture.file).size
            place = picture.file.relative_to(DOCS).as_posix()
            wide = ' class="wide"' if width > WIDE * height else ""
            blocks.append(
                f"<div{wide} markdown>\n\n"
                f"[![{picture.words}]({place})]({place})\n\n"
                f"{picture.words}\n\n```sh\n{picture.command()}\n```\n\n</div>\n"
            )
        blocks.append("</div>\n")
    return "\n".join(blocks)


def main() -> None:
    """Make what is missing or named."""
    named = sys.argv[1:]
    for part in GALLERY:
        for picture in part.pictures:
            solve(picture, picture.config in named)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
