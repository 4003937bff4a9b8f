"""How much of the package the tests run: pytest's plugin for ``PYTEST_PLUGINS=line_coverage``.

slipcover puts a probe before each line of a module that is imported; worker processes hand over
what they saw. What numba compiles can take no probes and counts as not run, like what runs in
processes that tests start.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import slipcover

PACKAGE = Path(__file__).resolve().parent.parent / "sciml"
LINES = slipcover.Slipcover(immediate=True)
WORKERS: list[dict[str, Any]] = []
_COMPILED = re.compile(r"^@(?:fast|njit)\(.*\)\ndef (\w+)|= Loop\((\w+)\)", re.M)


@lru_cache
def compiled(file: str) -> set[str]:
    return {name for names in _COMPILED.findall(Path(file).read_text("utf-8")) for name in names}


def instrument(
    code: CodeType, parent: CodeType | None = None, probed: Any = LINES.instrument
) -> Any:
    return code if code.co_name in compiled(code.co_filename) else probed(code, parent)


LINES.instrument = instrument
FILES = slipcover.FileMatcher([PACKAGE, *PACKAGE.iterdir()])  # links among them
slipcover.ImportManager(LINES, FILES).__enter__()


def pytest_sessionfinish(session: Any) -> None:
    getattr(session.config, "workeroutput", {})["lines"] = json.dumps(LINES.get_coverage())


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any, error: object) -> None:
    if not error:
        WORKERS.append(json.loads(node.workeroutput["lines"]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    LINES.source = [str(PACKAGE)]  # also what was never imported
    found = LINES.get_coverage()
    for lines in WORKERS:
        slipcover.merge_coverage(found, lines)
    share = {name: file["summary"]["percent_covered"] for name, file in found["files"].items()}
    total = found["summary"]["percent_covered"]
    terminalreporter.write_line(f"coverage: {total:.1f} % of all lines; least covered:")
    for name in sorted(share, key=share.__getitem__)[:10]:
        terminalreporter.write_line(f"{share[name]:6.1f} %  {name}")
