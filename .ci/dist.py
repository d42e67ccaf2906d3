"""
Build the wheel and the sdist in ``dist/``, check them, and install the wheel in an empty
environment. Nothing is uploaded.

The sdist is built from the working tree and the wheel from the sdist, each in an environment of its
own, with the tools in ``.ci/dist.txt``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
# A project with nothing but the library: Django's checks, and a name of each capability.
USE = """
from importlib.metadata import version

import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    INSTALLED_APPS=["dynamo_stores"],
    SECRET_KEY="for this check",
    USE_TZ=True,
    CACHES={"default": {"BACKEND": "dynamo_stores.cache.DynamoDBCache"}},
    DYNAMO_STORES={"default": {"REGION": "us-east-1"}},
)
django.setup()
import dynamo_stores
from dynamo_stores.client import get_dynamodb_client
from dynamo_stores.decorators import cached, deduplicated, idempotent, ratelimit
from dynamo_stores.stores import CacheStore, DedupeStore, RateLimitStore

call_command("check", fail_level="WARNING")
assert dynamo_stores.__version__ == version("dynamo-stores")
print(f"dynamo-stores {version('dynamo-stores')} on Django {django.__version__}")
"""


def main() -> None:
    """Build and check; raise SystemExit with the reason."""
    with tempfile.TemporaryDirectory() as folder:
        tools = _environment(Path(folder) / "tools", "-r", str(ROOT / ".ci" / "dist.txt"))
        shutil.rmtree(DIST, ignore_errors=True)
        _run(tools, "-m", "build", "--outdir", str(DIST), str(ROOT))
        (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
        _run(tools, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
        _run(tools, "-m", "check_wheel_contents", str(wheel))
        _check_metadata(wheel)
        empty = _environment(Path(folder) / "empty", str(wheel))
        _run(empty, "-m", "pip", "check")
        _run(empty, "-W", "error", "-c", USE, cwd=folder)
    print(f"Built and checked: {wheel.name}, {sdist.name}")


def _environment(folder: Path, *requirements: str) -> Path:
    """Make a virtual environment, install into it, and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    return python


def _run(python: Path, *arguments: str, cwd: str | Path = ROOT) -> None:
    # Without what this environment has: the others must do with what they have.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "DJANGO_SETTINGS_MODULE")
    }
    done = subprocess.run([python, *arguments], cwd=cwd, env=environment, check=False)
    if done.returncode:
        sys.exit(f"Failed: python {' '.join(arguments[:3])} … (exit status {done.returncode})")


def _check_metadata(wheel: Path) -> None:
    """Compare the metadata of the wheel with pyproject.toml; what is missing there is an error."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (name,) = (each for each in names if each.endswith(".dist-info/METADATA"))
        metadata: Message = message_from_bytes(archive.read(name))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = {
        "Name": project["name"],
        "Summary": project["description"],
        "License-Expression": project["license"],
        "License-File": project["license-files"][0],
        "Requires-Python": project["requires-python"],
        "Description-Content-Type": "text/markdown",
    }
    for field, value in expected.items():
        if metadata.get(field) != value:
            sys.exit(
                f"The metadata {field} of the wheel is {metadata.get(field)!r}; expected {value!r}."
            )
    for field, wanted, found in (
        ("classifiers", project["classifiers"], metadata.get_all("Classifier", [])),
        ("keywords", project["keywords"], metadata.get("Keywords", "").split(",")),
        ("extras", project["optional-dependencies"], metadata.get_all("Provides-Extra", [])),
    ):
        if differ := {*wanted} ^ {*found}:
            sys.exit(f"The {field} of the wheel differ from pyproject.toml: {sorted(differ)}.")
    if "dynamo_stores/py.typed" not in names:
        sys.exit("The wheel has no dynamo_stores/py.typed, so type checkers ignore its types.")


if __name__ == "__main__":
    main()
