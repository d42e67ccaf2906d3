"""The site of docs/: it builds without a warning, and its reference has every public name."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.management import get_commands

from dynamo_stores import exceptions
from tests.helpers.made_once import made_once

ROOT = Path(settings.BASE_DIR)
DOCS = ROOT / "docs"
pytestmark = pytest.mark.slow

# All that they have in __all__ is public.
MODULES = [
    "cache",
    "capacity",
    "client",
    "cost",
    "decorators",
    "monitoring",
    "monitoring.notifications",
    "monitoring.sinks",
    "stores",
    "streams",
    "testing",
]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site; a warning is an error."""
    return made_once(tmp_path_factory, "site", build) / "html"


def build(folder):
    # Only pages that are read have their warnings, so an earlier attempt is not built upon.
    options = ["--quiet", "--fail-on-warning", "--nitpicky", "--fresh-env"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            *options,
            "-d",
            folder / "doctrees",
            DOCS,
            folder / "html",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert not done.stderr
    assert (folder / "html" / "objects.inv").exists()


@pytest.fixture(scope="module")
def documented(site):
    """The names of Python objects that have an entry."""
    *_, entries = (site / "objects.inv").read_bytes().split(b"\n", 4)
    lines = zlib.decompress(entries).decode().splitlines()
    return {line.split()[0] for line in lines if " py:" in line}


class _Addresses(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        wanted = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
        values = dict(attributes)
        if values.get("rel") != "canonical" and values.get(wanted.get(tag)):
            self.found.append(values[wanted[tag]])


def test_every_page_is_built(site):
    """Each Markdown and reStructuredText file of docs/ is a page."""
    for source in [*DOCS.glob("*.md"), *DOCS.glob("api/*.rst")]:
        assert (site / source.relative_to(DOCS)).with_suffix(".html").exists(), source


def test_pages_load_nothing_from_other_hosts(site):
    """Neither fonts nor scripts nor pictures."""
    for page in site.rglob("*.html"):
        parser = _Addresses()
        parser.feed(page.read_text())
        assert parser.found
        assert not [each for each in parser.found if urlsplit(each).netloc], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", sheet.read_text()), sheet


def test_the_reference_has_what_modules_export(documented):
    """Every name in ``__all__`` of a public module, and every error."""
    expected = {f"dynamo_stores.{name}" for name in MODULES}
    for module in sorted(expected):
        imported = importlib.import_module(module)
        for name in imported.__all__:
            each = getattr(imported, name)
            if inspect.isclass(each) or inspect.isfunction(each):
                assert f"{module}.{name}" in documented
    for name, each in vars(exceptions).items():
        if (
            inspect.isclass(each)
            and each.__module__ == exceptions.__name__
            and name == each.__name__
        ):
            assert f"{exceptions.__name__}.{name}" in documented, name


def test_the_reference_has_what_pages_import(documented):
    """What code blocks import from the package is in the reference, under that path."""
    imports = re.compile(r"^ *from (dynamo_stores[\w.]*) import ([\w, ]+)$", re.MULTILINE)
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for module, names in imports.findall(page.read_text()):
            for name in names.split(","):
                assert f"{module}.{name.strip()}" in documented, (page.name, module, name)


def test_the_reference_has_nothing_private(documented):
    """No entry, and no parent of one, begins with an underscore."""
    assert not [name for name in documented if re.search(r"(^|\.)_[a-z]", name)]


def test_the_reference_has_every_command(site):
    """Each command of the package, with its own options."""
    page = (site / "api" / "commands.html").read_text()
    ours = [name for name, app in get_commands().items() if app == "dynamo_stores"]
    assert ours
    for name in ours:
        assert f'id="{name.replace("_", "-")}"' in page
    assert 'id="cmdoption-dynamo_cleanup-units-per-second"' in page
    assert "--settings" not in page.replace("<code", "").split("dynamo_backup", 1)[1]
