"""docs/tutorial.md, followed: its files in a new project, its commands, and its own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text()
BLOCK = re.compile(r"^(?:([^\n]*):\n\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Those of the quickstart run before, and a server has no end.
NOT_RUN = {"runserver"}

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, dynamo_engine):
    """``project(*arguments)`` runs Python in a new project with the settings of the quickstart."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run.folder = tmp_path
    run("-m", "django", "startproject", "mysite", ".")
    _, _, lines = next(found for found in BLOCK.findall(QUICKSTART) if "CACHES" in found[2])
    lines = lines.replace("http://127.0.0.1:8400", dynamo_engine)
    lines = lines.replace(
        '"TABLE_NAME"', f'"TABLE_PREFIX": "tutorial-{os.getpid()}-", "TABLE_NAME"', 1
    )
    with (tmp_path / "mysite" / "settings.py").open("a") as file:
        file.write(lines)
    return run


def test_the_tutorial_works(project):
    """Every block in its order; the last command runs the tests that the reader has written."""
    ran = []
    for before, language, code in BLOCK.findall(TUTORIAL):
        match language:
            case "python" | "html":
                verb, path = re.search(
                    r"(Create|Replace|Add to the end of) `([^`]+)`$", before
                ).groups()
                target = project.folder / path
                assert target.exists() == (verb != "Create"), path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("a" if verb.startswith("Add") else "w") as file:
                    file.write(code)
            case "py":
                (project.folder / "shell.txt").write_text(code)
                project("manage.py", "shell", "-c", SESSION)
            case "sh":
                for command in re.findall(r"^python manage.py (\w+)(.*)$", code, re.MULTILINE):
                    ran.append(command[0])
                    if command[0] not in NOT_RUN:
                        printed = project("manage.py", command[0], *command[1].split())
    assert ran == ["startapp", "dynamo_create_tables", "runserver", "test"]
    assert re.search(r"Ran [5-9] tests", printed)
    project("manage.py", "check")


SESSION = """
import doctest
failed, tried = doctest.testfile("shell.txt", module_relative=False)
assert tried and not failed
"""
