"""Formulas between dollar signs become MathML while the site is built: no script, no network.

``$a$`` stands in a line, ``$$a$$`` on its own. Every browser since 2023 draws MathML itself.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as etree
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

# A dollar sign before a blank or behind one is money, or a shell's.
_FORMULA = r"(\$\$)([^$]+)\$\$|(?<![\\$\w])\$(?!\s)([^$]+?)(?<!\s)\$(?![\w$])"
# Behind code, which is looked for at 190, and before everything that a formula might contain.
_PRIORITY = 185
# A lone bar has no partner, and would grow with whatever stands in its row.
_BARS = re.compile(r"<mo>(&#x02016;|&#x0007C;|&#x02223;|‖|\|)</mo>")


class Formulas(Extension):
    """The Markdown extension."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Look for formulas in every line of text that is not code."""
        md.inlinePatterns.register(_Formula(_FORMULA, md), "formula", _PRIORITY)


class _Formula(InlineProcessor):
    def handleMatch(  # type: ignore[override]
        self, m: re.Match[str], data: str
    ) -> tuple[etree.Element | str, int, int]:
        displayed = m[1] is not None
        text = (m[2] if displayed else m[3]).strip()
        markup = convert(text, display="block" if displayed else "inline")
        markup = _BARS.sub(r'<mo stretchy="false">\1</mo>', markup)
        return self.md.htmlStash.store(markup), m.start(0), m.end(0)


def on_config(config: Any) -> Any:
    """Add the extension to those of mkdocs.yml."""
    config.markdown_extensions.append(Formulas())
    return config
