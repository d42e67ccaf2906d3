"""The documentation runs: its Python blocks, its commands, its table of settings."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
import textwrap
import types
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands, load_command_class

from dynamo_stores import conf, exceptions
from dynamo_stores.cache import options
from dynamo_stores.monitoring.metrics import FAMILIES
from dynamo_stores.monitoring.sinks.series import DIMENSIONS

ROOT = Path(settings.BASE_DIR)
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    """Return the code blocks of ``page``, each with its line."""
    text = page.read_text()
    fence = re.compile(rf"^( *)```{language}\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [
        (text[: found.start()].count("\n") + 2, textwrap.dedent(found.group(2)))
        for found in fence.finditer(text)
    ]


def prose(page):
    """Return the text of ``page`` without its code blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the names by which links reach the headings of ``page``."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    """Return the relative links of ``page``: the page and the heading that each leads to."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", link):
            path, _, heading = link.partition("#")
            yield (page.parent / path).resolve() if path else page, heading


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run(page, empty_tables, monkeypatch):
    """In order, in one module, on the tests' own DynamoDB."""
    module = types.ModuleType("mysite.views")
    monkeypatch.setitem(sys.modules, "mysite", types.ModuleType("mysite"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    # What a settings.py has before the lines that a page adds to it.
    vars(module).update(INSTALLED_APPS=[], MIDDLEWARE=[])
    for line, code in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), vars(module))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_exist(page):
    """Every manage.py command takes its arguments, every make target is there."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for _, code in blocks(page, "sh"):
        for line in code.splitlines():
            words = shlex.split(line.rstrip("& "), comments=True)
            if "manage.py" in words:
                _, _, name, *arguments = words
                command = load_command_class(get_commands()[name], name)
                command.create_parser("manage.py", name).parse_args(arguments)
            elif words[:1] == ["make"]:
                assert words[1] in targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_a_page_and_a_heading(page):
    """Every relative link leads to a file that exists, and to a heading that it has."""
    for target, heading in links(page):
        assert target.exists(), target
        assert not heading or heading in anchors(target), f"{target.name}#{heading}"


def test_every_page_is_in_the_index():
    """docs/index.md links to each page of docs/, and the README to docs/index.md."""
    index = ROOT / "docs" / "index.md"
    linked = {target for target, _ in links(index)} | {index}
    assert linked >= set(index.parent.glob("*.md"))
    assert index in {target for target, _ in links(ROOT / "README.md")}


def test_every_error_is_documented():
    """docs/resilience.md draws the whole tree of errors."""
    text = (ROOT / "docs" / "resilience.md").read_text()
    waiting = [exceptions.StoreError]
    while waiting:
        error = waiting.pop()
        if error.__module__ == exceptions.__name__:
            assert re.search(rf"^[│├└─ ]*{error.__name__}\b", text, re.MULTILINE), error
            waiting += error.__subclasses__()


def test_the_readme_has_its_fifteen_lines(tmp_path):
    """They are enough for a working cache, and pass the checks as they stand."""
    ((_, code),) = blocks(ROOT / "README.md", "python")
    namespace = {}
    exec(code, namespace)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert namespace["CACHES"]["default"]["BACKEND"] == options.CACHE_BACKEND


def test_every_setting_is_documented_with_its_default_and_check():
    """docs/settings.md names them all."""
    text = (ROOT / "docs" / "settings.md").read_text()

    def documented(cls, path):
        for field in dataclasses.fields(cls):
            if field.metadata:
                factory = field.default_factory
                default = field.default if factory is dataclasses.MISSING else factory()
                default = list(default) if isinstance(default, tuple) else default
                number = field.metadata["id"].removeprefix("dynamo_stores.")
                row = f"| `{path}{field.name.upper()}` | `{default!r}` |"
                assert row in text, row
                assert f"| {number} |" in text, number
            elif not field.name.startswith("_"):
                documented(field.default_factory, f"{field.name.upper()}.")

    documented(conf.StoreConfig, "")
    page = (ROOT / "docs" / "cache.md").read_text()
    for field in dataclasses.fields(options.CacheOptions):
        assert f"| `{field.name.upper()}` |" in page


def test_every_metric_is_documented():
    """docs/metrics.md has their labels, and what CloudWatch gets by default."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    for name, kind, _, labels, _ in FAMILIES.values():
        assert f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} |" in text
    for name, sets in DIMENSIONS.items():
        assert len(sets) == 1
        labels = ", ".join(f"`{label}`" for label in sets[0])
        assert re.search(rf"^\| `{name}` \| {labels} ?\|", text, re.MULTILINE), name


def test_every_variable_of_the_project_is_documented():
    """What project/settings.py reads is in docs/settings.md."""
    code = (ROOT / "project" / "settings.py").read_text()
    text = (ROOT / "docs" / "settings.md").read_text()
    for name in re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', code):
        assert re.search(rf"`{name}(=\w+)?`", text), name
