"""The starter specs of ``sciml new``: YAML files that lie in the package, their titles on top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sciml.core.errors import InputError, did_you_mean

_FOLDER = Path(__file__).parent / "templates"
_COMMANDS = {"dataset": "generate {path} --out data/dataset", "train": "train {path}"}


@dataclass(frozen=True)
class Preset:
    """A starter spec: its name, its text, and one line that says what it states."""

    name: str
    text: str

    @property
    def title(self) -> str:
        """The first line, a comment."""
        return self.text.partition("\n")[0].removeprefix("# ")

    def next_command(self, path: Path) -> str:
        """What to type once it lies at ``path``."""
        return "sciml " + _COMMANDS.get(self.name, "solve {path}").format(path=path)


def presets() -> list[Preset]:
    """All of them, by name."""
    return [Preset(path.stem, path.read_text("utf-8")) for path in sorted(_FOLDER.glob("*.yaml"))]


def preset(name: str) -> Preset:
    """The one called ``name``; raises InputError where there is none."""
    known = {found.name: found for found in presets()}
    wanted = name.lower().replace("_", "-").removesuffix(".yaml")
    if wanted not in known:
        raise InputError(f"unknown preset '{name}'{did_you_mean(wanted, known)}")
    return known[wanted]


def names_starting(beginning: str) -> list[str]:
    """What a shell offers after ``sciml new``."""
    return [found.name for found in presets() if found.name.startswith(beginning)]
