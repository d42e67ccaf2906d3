"""What a release needs: versions that agree, the lowest ones, the floor of coverage, its files."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import dynamo_stores
from tests.test_docs import anchors, links

ROOT = Path(settings.BASE_DIR)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
# Extras for users; the others are for working on the library itself.
EXTRAS = ["local", "speed", "compression", "rest", "forum", "health"]
PAGES = ["CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"]


def lowest():
    """Return the versions of .ci/lowest.txt by package."""
    lines = (ROOT / ".ci" / "lowest.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def declared():
    """Return the lower bounds of pyproject.toml by package."""
    found = {}
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + [each for name in EXTRAS for each in extras[name]]:
        requirement = Requirement(text)
        (bound,) = (each for each in requirement.specifier if each.operator == ">=")
        found[canonicalize_name(requirement.name)] = Version(bound.version)
    return found


def test_ci_tests_the_lowest_versions_that_are_declared():
    """Each package that a user installs is pinned to its lower bound; botocore to boto3's."""
    pinned = lowest()
    assert pinned.pop("botocore") == pinned["boto3"]
    assert pinned == declared()


def test_the_table_of_versions_is_that_of_pyproject():
    """docs/releases.md has the lowest Python, and the lowest version of each dependency."""
    text = (ROOT / "docs" / "releases.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", text, re.MULTILINE))
    assert PROJECT["requires-python"] == f">={rows.pop('Python')}"
    names = [canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]]
    assert {name.lower(): Version(version) for name, version in rows.items()} == {
        name: declared()[name] for name in names
    }


def test_the_version_is_everywhere_the_same():
    """In the metadata, in the package and in the changelog."""
    assert dynamo_stores.__version__ == PROJECT["version"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first.group(1) == PROJECT["version"]
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_the_floor_of_coverage_only_rises():
    """No commit that measures as this one does has a higher one."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("This is no clone of the repository, so there is no history to compare with.")

    def git(*arguments):
        command = ["git", "-c", "safe.directory=*", "-C", ROOT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    log = ["log", "--full-history", "-G", "^fail_under", "--format=%H", "--", "pyproject.toml"]
    coverage = PYPROJECT["tool"]["coverage"]
    floors = []
    for commit in git(*log).split():
        before = tomllib.loads(git("show", f"{commit}:pyproject.toml"))["tool"]["coverage"]
        # What was measured in another way has no comparable figure.
        if before["run"] == coverage["run"]:
            floors.append(before["report"]["fail_under"])
    now = coverage["report"]["fail_under"]
    highest = max(floors, default=now)
    assert now >= highest, f"fail_under is {now}, and was {highest}: add tests instead."


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_other_pages(name):
    """They lead to a file and a heading that exist, and are reached from the README."""
    for target, heading in links(ROOT / name):
        assert target.exists(), target
        assert not heading or heading in anchors(target), f"{target.name}#{heading}"
    assert ROOT / name in {target for target, _ in links(ROOT / "README.md")} | {
        target for page in PAGES for target, _ in links(ROOT / page)
    }


def test_the_forge_runs_the_same_script():
    """Its workflow has no tests of its own, and its forms can be read."""
    folder = ROOT / ".github"
    workflow = yaml.safe_load((folder / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    for form in ("bug", "feature"):
        read = yaml.safe_load((folder / "ISSUE_TEMPLATE" / f"{form}.yml").read_text())
        assert {"name", "description", "body"} <= set(read)
        assert any(part.get("validations", {}).get("required") for part in read["body"])
