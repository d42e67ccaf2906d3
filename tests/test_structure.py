"""The structure of the package that no import contract can express."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import subprocess
import sys

import dynamo_stores


def modules():
    """Yield the modules of the package that can be imported here."""
    for found in pkgutil.walk_packages(dynamo_stores.__path__, "dynamo_stores."):
        if found.name.rpartition(".")[2] == "__main__":
            continue
        # Some need an extra.
        with contextlib.suppress(ImportError):
            yield importlib.import_module(found.name)


def test_no_class_has_more_than_two_ancestors_of_ours():
    """Objects hold each other instead."""
    found = {}
    for module in modules():
        for name, each in inspect.getmembers(module, inspect.isclass):
            if each.__module__ != module.__name__:
                continue
            ours = [
                base.__name__
                for base in each.__mro__[1:]
                if base.__module__.startswith("dynamo_stores")
            ]
            if len(ours) > 2:
                found[f"{module.__name__}.{name}"] = ours
    assert not found


def test_a_web_process_imports_what_it_uses():
    """Neither Celery nor pages nor scaling before they are used: a start takes time."""
    code = (
        "import sys, django\n"
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['dynamo_stores'], SECRET_KEY='x', CACHES={'default': "
        "{'BACKEND': 'dynamo_stores.cache.DynamoDBCache'}}, DYNAMO_STORES={'default': {}})\n"
        "django.setup()\n"
        "from django.core.cache import cache\n"
        "cache.store.core\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    imported = set(done.stdout.split())
    assert "dynamo_stores.cache.backend" in imported
    assert not imported & {
        "celery",
        "django.contrib.admin",
        "dynamo_stores.cache.store.sweeps",
        "dynamo_stores.capacity.planner",
        "dynamo_stores.capacity.scale_up",
        "dynamo_stores.checks",
        "dynamo_stores.monitoring.notifications.messages",
        "dynamo_stores.monitoring.snapshot",
        "dynamo_stores.ratelimit.decorators",
        "dynamo_stores.tasks",
    }
