"""
Makes the navigation of the site from the lists of links in index.md and api.md, so that these are
plain Markdown, and a new page is listed once.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_LINK = re.compile(r"\]\(([\w/.-]+)\.(?:md|rst)(#[\w-]+)?\)")


def add_navigation(app: Sphinx, name: str, content: list[str]) -> None:
    """Append a hidden table of contents for each section of index.md, and one to api.md."""
    if name == "index":
        sections = [each.partition("\n") for each in content[0].split("\n## ")[1:]]
        home: dict[str, str] = {}
        for whole in (True, False):
            # A page belongs to the section that names all of it, else to the first one.
            for title, _, text in sections:
                for page, heading in _LINK.findall(text):
                    if "/" not in page and bool(heading) is not whole:
                        home.setdefault(page, title)
        for title, _, text in sections:
            pages = dict.fromkeys(page for page, _ in _LINK.findall(text))
            content[0] += _contents([page for page in pages if home.get(page) == title], title)
    elif name == "api":
        pages = [page for page, _ in _LINK.findall(content[0]) if page.startswith("api/")]
        content[0] += _contents(pages, "")


def _contents(pages: list[str], title: str) -> str:
    if not pages:
        return ""
    caption = f":caption: {title}\n" if title else ""
    return f"\n\n```{{toctree}}\n:hidden:\n{caption}\n" + "\n".join(pages) + "\n```\n"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", add_navigation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
