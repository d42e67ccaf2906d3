"""The documentation runs: its Python blocks, its commands, its table of settings."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import json
import re
import shlex
import sys
import textwrap
import types
from pathlib import Path

import pytest
import yaml
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


@pytest.mark.parametrize(
    # The blocks of the tutorial are files, and test_docs_tutorial.py runs them.
    "page",
    [p for p in PAGES if blocks(p, "python") and p.name != "tutorial.md"],
    ids=lambda p: p.name,
)
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
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
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


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_other_blocks_can_be_read(page):
    """Python that is not run by itself compiles, and data can be parsed."""
    for _, code in blocks(page, "py"):
        if not code.startswith(">>>"):
            compile(code, str(page), "exec")
    for _, code in blocks(page, "json"):
        json.loads(code)
    for _, code in blocks(page, "yaml"):
        # The tags are CloudFormation's.
        assert yaml.safe_load(re.sub(r"!\w+ ", "", code))
    for _, code in blocks(page, "ini"):
        configparser.ConfigParser(strict=False).read_string(code)
    known = {"python", "py", "sh", "json", "yaml", "ini", "html", "text", ""}
    assert set(re.findall(r"^ *```(\w*)$", page.read_text(), re.MULTILINE)) <= known


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


def plain(text):
    """Return Markdown ``text`` with links as their words."""
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text)


def test_every_setting_is_documented_with_its_default_its_rule_and_its_check():
    """docs/settings.md has a row for each, in the words of the system check."""
    text = plain((ROOT / "docs" / "settings.md").read_text())

    def documented(cls, path):
        for field in dataclasses.fields(cls):
            if field.metadata:
                factory = field.default_factory
                default = field.default if factory is dataclasses.MISSING else factory()
                default = list(default) if isinstance(default, tuple) else default
                number = field.metadata["id"].removeprefix("dynamo_stores.")
                row = f"| `{path}{field.name.upper()}` | `{default!r}` | "
                row += field.metadata["rule"].expected
                # A row may say more than the rule.
                assert re.search(rf"^{re.escape(row)}(; .*)? \| {number} \|$", text, re.M), row
            elif not field.name.startswith("_"):
                documented(field.default_factory, f"{field.name.upper()}.")

    documented(conf.StoreConfig, "")


def test_every_option_of_a_cache_is_documented_with_its_default_and_its_check():
    """docs/cache.md has a row for each."""
    page = (ROOT / "docs" / "cache.md").read_text()
    for field in dataclasses.fields(options.CacheOptions):
        number = field.metadata["id"].removeprefix("dynamo_stores.")
        default = f"`{json.dumps(field.default)}`"
        if field.name.endswith("_bytes"):
            default = f"{field.default // 2**20} MB"
        default = {"`null`": "`None`", "`false`": "`False`"}.get(default, default)
        row = rf"^\| `{field.name.upper()}` \| {re.escape(default)} \| .* \| {number} \|$"
        assert re.search(row, page, re.M), field.name


def test_every_system_check_is_documented():
    """Each id in the code is in the list of checks, or beside its setting."""
    code = "".join(path.read_text() for path in (ROOT / "dynamo_stores").rglob("*.py"))
    pages = [ROOT / "docs" / name for name in ("reference.md", "settings.md", "cache.md")]
    text = "".join(page.read_text() for page in pages)
    found = set(re.findall(r"dynamo_stores\.([EW]\d{3})\b", code))
    assert found
    assert not {each for each in found if not re.search(rf"\| {each} \|", text)}


def logged():
    """Return patterns of what the package logs."""
    for path in (ROOT / "dynamo_stores").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            first = call.args[0] if call.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                parts = re.split(r"%[-.\d]*[a-z]", first.value)
                yield re.compile(".+".join(map(re.escape, parts)))


def test_the_runbook_is_about_this_software():
    """The lines of the log that it quotes are logged, and the buttons that it names are there."""
    page = ROOT / "docs" / "runbook.md"
    patterns = list(logged())
    ((_, lines),) = blocks(page, "text")
    for line in lines.splitlines():
        assert any(each.fullmatch(line) for each in patterns), line
    folder = ROOT / "dynamo_stores" / "templates"
    templates = "".join(each.read_text() for each in folder.rglob("*.html"))
    buttons = re.findall(r"\*(\w[\w ]*)…\*", page.read_text())
    assert buttons
    for button in buttons:
        assert f">{button}…<" in templates or f'label="{button}"' in templates, button


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
