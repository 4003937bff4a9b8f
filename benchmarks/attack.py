"""Attack the program from all sides: what is hostile or damaged must never pass as an answer.

    python benchmarks/attack.py [--only specs,meshes] [--journal runs/attack] [--keep]

Every attack is a program beside this one, ``attack_NAME.py``, which takes ``--journal FILE`` and
writes one JSON line there for each case it tried, with the case's name and its verdict. A case
that is in the journal already is not tried again, so that a run that was stopped goes on. The
table counts the verdicts: an attack fails where anything is silently wrong, ends in a traceback,
or is lost. ``--keep`` writes it to ``benchmarks/results/attack.json``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results

HERE = Path(__file__).resolve().parent
# A case ends in an answer or in one line, or takes too long for an attack; the others are faults.
ANSWERED, REFUSED, STOPPED = "answered", "refused", "stopped"
WRONG, TRACEBACK, LOST = "silently wrong", "traceback", "lost"
FAULTS = (WRONG, TRACEBACK, LOST)
MACHINE = "2 shared x86-64 cores, 24 GiB, no GPU"


@dataclass(frozen=True)
class Journal:
    """What was tried, a JSON line each: ``family``, ``case``, ``verdict`` and what explains it.

    ``seconds`` among it are those that the case took.
    """

    path: Path

    def entries(self) -> Iterator[dict[str, Any]]:
        """All whole lines; the last of a process that was killed may be half."""
        if not self.path.is_file():
            return
        for line in self.path.read_text("utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def done(self) -> set[tuple[str, str]]:
        """The cases that need not be tried again."""
        return {(entry["family"], str(entry["case"])) for entry in self.entries()}

    def add(self, family: str, case: object, verdict: str, **more: Any) -> None:
        """Write one case down."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"family": family, "case": str(case), "verdict": verdict, **more}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=True, default=str) + "\n")

    def seconds(self) -> dict[str, float]:
        """What the cases of each family took, together."""
        found: dict[str, float] = {}
        for entry in self.entries():
            family = entry["family"]
            found[family] = found.get(family, 0.0) + entry.get("seconds", 0.0)
        return found

    def counts(self) -> dict[str, Counter[str]]:
        """Verdicts by family."""
        found: dict[str, Counter[str]] = {}
        for entry in self.entries():
            found.setdefault(entry["family"], Counter())[entry["verdict"]] += 1
        return found


def attacks() -> list[str]:
    """The names of the programs beside this one."""
    return sorted(path.stem.removeprefix("attack_") for path in HERE.glob("attack_*.py"))


def rows(folder: Path) -> list[list[results.Cell]]:
    """Family, seconds, tried, answered, refused, and the faults, of all journals in a folder."""
    table: list[list[results.Cell]] = []
    for path in sorted(folder.glob("*.jsonl")):
        journal = Journal(path)
        seconds = journal.seconds()
        for family, counts in journal.counts().items():
            sound = [str(counts[verdict]) for verdict in (ANSWERED, REFUSED, STOPPED)]
            faults = [str(counts[verdict]) for verdict in FAULTS]
            table.append([family, f"{counts.total():,}", *sound, *faults, f"{seconds[family]:.0f}"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="names of attacks, joined by commas")
    parser.add_argument("--journal", type=Path, default=HERE.parent / "runs" / "attack")
    parser.add_argument("--keep", action="store_true", help="write the table into results/")
    chosen = parser.parse_args()
    known = attacks()
    names = chosen.only.split(",") if chosen.only else known
    if foreign := sorted(set(names) - set(known)):
        sys.exit(f"no attack is called {', '.join(foreign)}; there are {', '.join(known)}")
    threads = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in threads}
    chosen.journal.mkdir(parents=True, exist_ok=True)
    waiting, running, start = list(names), {}, time.perf_counter()
    failed = []
    while waiting or running:
        # One core each, two at a time.
        while waiting and len(running) < 2:
            name = waiting.pop(0)
            command = [sys.executable, HERE / f"attack_{name}.py", "--journal"]
            log = (chosen.journal / f"{name}.log").open("w")
            running[name] = subprocess.Popen(
                [*command, chosen.journal / f"{name}.jsonl"],
                env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        time.sleep(0.2)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            code = running.pop(name).returncode
            print(f"{name}: ended with {code}, {time.perf_counter() - start:.0f} s", flush=True)
            failed += [name] if code else []
    columns = ("family", "tried", ANSWERED, REFUSED, STOPPED, *FAULTS, "seconds")
    found = rows(chosen.journal)
    table = results.Table(
        "Hostile inputs", str(datetime.date.today()), MACHINE, "make attack", columns, found,
        "Answered: with a true status; refused: by one line; stopped: too large for an attack.",
    )  # fmt: skip
    print(table.markdown())
    if chosen.keep:
        results.keep("attack", table)
    faults = sum(int(str(cell)) for row in found for cell in row[-len(FAULTS) - 1 : -1])
    if failed or faults:
        sys.exit(f"{faults} faults" + (f"; not finished: {', '.join(failed)}" if failed else ""))


if __name__ == "__main__":
    main()
