"""The wheel: only dynamo_stores in it, and an empty project works by the README's lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
pytestmark = pytest.mark.slow
URLS = "urlpatterns = []\n"
SETTINGS = """
SECRET_KEY = "empty-project"
ROOT_URLCONF = "urls"
USE_TZ = True
"""
USE = """
import dynamo_stores
from django.core.cache import cache
cache.set("k", {"a": 1}, 60)
print(cache.get("k"), dynamo_stores.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and "hatchling" in done.stderr:
        pytest.skip("The package index, for the build backend, cannot be reached.")
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_it_holds_the_library_alone(wheel):
    """Neither forum nor project nor tests; types and commands are in."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {re.sub(r"-.*", "", top) for top in tops} == {"dynamo_stores"}
    assert "dynamo_stores/py.typed" in names
    assert "dynamo_stores/management/commands/dynamo_local.py" in names


def test_an_empty_project_works_by_the_readme(wheel, tmp_path, dynamo_engine):
    """Fifteen lines of settings, one command, and the cache is on DynamoDB."""
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    code = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = code.group(1).replace("http://127.0.0.1:8400", dynamo_engine)
    lines = lines.replace('"my-project"', f'"readme-{os.getpid()}"', 1)
    project = tmp_path / "project"
    project.mkdir()
    (project / "settings.py").write_text(SETTINGS + lines)
    (project / "urls.py").write_text(URLS)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{target}{os.pathsep}{project}",
        "DJANGO_SETTINGS_MODULE": "settings",
    }

    def run(*command):
        done = subprocess.run(
            [sys.executable, "-W", "error", *command],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "django", "check")
    assert f"readme-{os.getpid()}: created" in run("-m", "django", "dynamo_create_tables")
    printed = run("-c", f"import django; django.setup()\n{USE}")
    assert printed.startswith("{'a': 1}")
    assert str(target) in printed
