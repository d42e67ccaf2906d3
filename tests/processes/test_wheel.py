"""The wheel: only dynamo_stores in it, and an empty project works by the README's lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.made_once import made_once

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
LOAD = """
import django
from django.core.management import get_commands, load_command_class
django.setup()
for name, app in get_commands().items():
    if app == "dynamo_stores":
        load_command_class(app, name).create_parser("manage.py", name)
        print(name)
"""
VISIT = """
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
settings.ALLOWED_HOSTS = ["testserver"]
client = Client()
for _ in range(6):
    print(client.get("/search/").status_code)
print(client.get("/dynamo-stores/health/ready").status_code)
client.force_login(User.objects.get())
print(client.get("/admin/dynamo-stores/").status_code)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the working tree."""
    (found,) = made_once(tmp_path_factory, "wheel", build).glob("*.whl")
    return found


def build(folder):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and "hatchling" in done.stderr:
        pytest.skip("The package index, for the build backend, cannot be reached.")
    assert done.returncode == 0, done.stderr


def test_it_holds_the_library_alone(wheel):
    """Neither forum nor project nor tests; types and commands are in."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {re.sub(r"-.*", "", top) for top in tops} == {"dynamo_stores"}
    assert "dynamo_stores/py.typed" in names
    assert "dynamo_stores/management/commands/dynamo_local.py" in names


@pytest.fixture
def run(wheel, tmp_path):
    """
    ``run(*arguments)`` runs Python in an empty folder, ``run.folder``, with the wheel and the
    packages that it requires, and returns what it printed.
    """
    target, folder = tmp_path / "site", tmp_path / "project"
    zipfile.ZipFile(wheel).extractall(target)
    folder.mkdir()
    # Other packages, which are here for the tests, cannot be imported.
    (target / "sitecustomize.py").write_text(f"import sys\nsys.modules.update({_others()!r})\n")

    def run_python(*arguments, **environment):
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{target}{os.pathsep}{folder}"}
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run_python.folder = folder
    run_python.target = target
    return run_python


def _others():
    """Return a dict of the modules of packages that dynamo-stores does not require, and None."""
    required, waiting = set(), ["dynamo-stores"]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in required:
            required.add(name)
            parsed = map(Requirement, metadata.requires(name) or [])
            waiting += [
                each.name
                for each in parsed
                if not each.marker or each.marker.evaluate({"extra": ""})
            ]
    return {
        module: None
        for module, owners in metadata.packages_distributions().items()
        if required.isdisjoint(map(canonicalize_name, owners))
    }


def test_an_empty_project_works_by_the_readme(run, dynamo_engine):
    """Fifteen lines of settings, one command, and the cache is on DynamoDB."""
    code = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = code.group(1).replace("http://127.0.0.1:8400", dynamo_engine)
    lines = lines.replace('"my-project"', f'"readme-{os.getpid()}"', 1)
    (run.folder / "settings.py").write_text(SETTINGS + lines)
    (run.folder / "urls.py").write_text(URLS)
    named = {"DJANGO_SETTINGS_MODULE": "settings"}
    run("-m", "django", "check", **named)
    assert f"readme-{os.getpid()}: created" in run("-m", "django", "dynamo_create_tables", **named)
    printed = run("-c", f"import django; django.setup()\n{USE}", **named)
    assert printed.startswith("{'a': 1}")
    assert str(run.target) in printed


def test_a_new_project_works_by_the_quickstart(wheel, run, dynamo_engine):
    """Each block of docs/quickstart.md, in the file and the order that the page says."""
    text = (ROOT / "docs" / "quickstart.md").read_text()
    assert f"dist/{wheel.name}[local]" in text
    settings_, cache, view, urls = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    settings_ = settings_.replace("http://127.0.0.1:8400", dynamo_engine)
    settings_ = settings_.replace('"my-project"', f'"quickstart-{os.getpid()}"', 1)
    commands = re.findall(r"^python manage.py (\w+)$", text, re.M)
    assert commands == [
        *("dynamo_local", "dynamo_create_tables", "migrate", "createsuperuser", "runserver")
    ]
    assert "django-admin startproject mysite ." in text
    run("-m", "django", "startproject", "mysite", ".")
    package = run.folder / "mysite"
    with (package / "settings.py").open("a") as file:
        file.write(settings_)
    (package / "views.py").write_text(view)
    (package / "urls.py").write_text(urls)
    run("manage.py", "check")
    assert f"quickstart-{os.getpid()}: created" in run("manage.py", "dynamo_create_tables")
    run("manage.py", "shell", "-c", cache)
    run("manage.py", "migrate")
    named = {"DJANGO_SUPERUSER_PASSWORD": "a long password"}
    user = ["--noinput", "--username", "ada", "--email", "ada@example.com"]
    run("manage.py", "createsuperuser", *user, **named)
    assert run("manage.py", "shell", "--no-imports", "-c", VISIT).split() == ["200"] * 5 + [
        "429",
        "200",
        "200",
    ]


def test_commands_need_no_extra(run):
    """Each command can be loaded with the packages that the wheel requires, and no others."""
    (run.folder / "settings.py").write_text(
        f'{SETTINGS}INSTALLED_APPS = ["dynamo_stores"]\n'
        'DYNAMO_STORES = {"default": {"TABLE_NAME": "none", "REGION": "eu-west-1"}}\n'
    )
    loaded = run("-c", LOAD, DJANGO_SETTINGS_MODULE="settings").split()
    assert "dynamo_infrastructure" in loaded
    assert "dynamo_local" in loaded
