"""System checks: what is wrong in the settings, said before the first request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery import current_app
from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, get_resolver, reverse
from django.utils.module_loading import import_string

from . import conf
from .cache import options
from .cache.store import codecs
from .conf.rules import Problem
from .exceptions import ConfigurationError
from .ratelimit import decorators as limits


def check_settings(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return an Error for everything that is wrong in ``DYNAMO_STORES``."""
    return _errors(conf.find_problems())


def check_caches(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return an Error for everything that is wrong in the ``CACHES`` of ours."""
    try:
        problems = options.find_cache_problems()
    except ConfigurationError:
        return []  # check_settings says what is wrong with DYNAMO_STORES
    return [*_errors(problems or list(_find_codec_problems())), *_useless_options()]


# django-ratelimit's settings that have no meaning here, and why.
_MEANINGLESS = {
    "USE_CACHE": "limits are counted in the table of DYNAMO_STORES; choose it by using=…",
    "CACHE_PREFIX": "limits have keys of their own in the table",
    "HASH_ALGORITHM": "long keys are hashed with SHA-256",
}


def check_limits(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return what is wrong in the literals of decorators, and settings that mean nothing here."""
    with contextlib.suppress(Exception):
        # Views are decorated when they are imported; Django's own checks say what fails there.
        _ = get_resolver().url_patterns
    found = _errors(list(limits.problems))
    for name, why in _MEANINGLESS.items():
        if conf.ratelimit_setting(name) is not None:
            found.append(
                checks.Warning(
                    f"RATELIMIT_{name} has no meaning for dynamo_stores: {why}.",
                    hint="Remove it.",
                    id="dynamo_stores.W002",
                )
            )
    return found


def check_admin(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return a Warning where Django's admin is there, and the status pages are not in it."""
    if not apps.is_installed("django.contrib.admin"):
        return []
    for name, missing in (("admin:index", False), ("dynamo_stores_admin:overview", True)):
        try:
            reverse(name)
        except (NoReverseMatch, ImproperlyConfigured):
            if not missing:
                return []  # the admin itself has no pages
            break
    else:
        return []
    return [
        checks.Warning(
            "The status pages are not among the URLs of the admin.",
            hint="Before path('admin/', …): "
            "path('admin/dynamo-stores/', include('dynamo_stores.admin.urls')). "
            "Or silence this.",
            id="dynamo_stores.W004",
        )
    ]


def check_scaling(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return a Warning where tables are raised and nothing brings them down."""
    try:
        scaled = [using for using in conf.aliases() if conf.get_config(using).scaling.enabled]
    except ConfigurationError:
        return []  # check_settings says what is wrong
    current_app.finalize()
    planned = {entry.get("task") for entry in (current_app.conf.beat_schedule or {}).values()}
    if not scaled or "dynamo_stores.reconcile_capacity" in planned:
        return []
    return [
        checks.Warning(
            f"SCALING is on for {', '.join(map(repr, scaled))}, and beat does not run "
            "'dynamo_stores.reconcile_capacity': what was raised may never come down.",
            hint="Give beat_schedule what dynamo_stores.tasks.beat_schedule() returns, or run "
            "'manage.py dynamo_reconcile' every minute by cron and silence this.",
            id="dynamo_stores.W003",
        )
    ]


def _useless_options() -> Iterator[checks.CheckMessage]:
    for name, cache in options.our_caches().items():
        useless = [each for each in options.CULLING_OPTIONS if each in cache.get("OPTIONS", {})]
        useless += [each for each in options.CULLING_OPTIONS if each in cache]
        if useless:
            yield checks.Warning(
                f"CACHES[{name!r}] sets {', '.join(useless)}, which has no meaning for DynamoDB.",
                hint="Remove it: the table has no limit of entries, and nothing is culled.",
                id="dynamo_stores.W001",
            )


def _find_codec_problems() -> Iterator[Problem]:
    for name, cache in options.our_caches().items():
        chosen = options.get_cache_options(cache.get("OPTIONS", {}))
        makers: list[tuple[str, str | None, Callable[[str], object]]] = [
            ("dynamo_stores.E100", chosen.serializer, codecs.make_serializer),
            ("dynamo_stores.E101", chosen.compressor, codecs.make_compressor),
            ("dynamo_stores.E110", chosen.reverse_key_function, import_string),
        ]
        for number, wanted, make in makers:
            try:
                if wanted is not None:
                    make(wanted)
            except (ConfigurationError, ImportError) as exc:
                yield Problem(number, f"CACHES[{name!r}]['OPTIONS']: {exc}", "See docs/cache.md.")


def _errors(problems: list[Problem]) -> list[checks.CheckMessage]:
    return [checks.Error(problem.message, hint=problem.hint, id=problem.id) for problem in problems]
