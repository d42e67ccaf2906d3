"""System checks of the settings."""

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
from .calls.transport import has_region
from .conf.rules import Problem
from .exceptions import ConfigurationError
from .ratelimit import decorators as limits


def check_settings(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return an Error for each error in ``DYNAMO_STORES``, and for each alias without a region."""
    return _errors(conf.find_problems() or list(_find_missing_regions()))


def check_caches(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return an Error for each error in the DynamoDB caches of ``CACHES``."""
    try:
        problems = options.find_cache_problems()
    except ConfigurationError:
        return []  # check_settings reports it
    return [*_errors(problems or list(_find_codec_problems())), *_useless_options()]


# Settings of django-ratelimit that have no effect here, and the reasons.
_IGNORED = {
    "USE_CACHE": "limits are counted in a table of DYNAMO_STORES, chosen by using=…",
    "CACHE_PREFIX": "limits have their own key format in the table",
    "HASH_ALGORITHM": "long keys are hashed with SHA-256",
}


def check_limits(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return the errors in arguments of decorators, and the settings without effect."""
    with contextlib.suppress(Exception):
        # Views are decorated when they are imported; Django's own checks report import errors.
        _ = get_resolver().url_patterns
    found = _errors(list(limits.problems))
    for name, why in _IGNORED.items():
        if conf.ratelimit_setting(name) is not None:
            found.append(
                checks.Warning(
                    f"RATELIMIT_{name} has no effect in dynamo_stores: {why}.",
                    hint="Remove it.",
                    id="dynamo_stores.W002",
                )
            )
    return found


def check_admin(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return a Warning if Django's admin is installed without the status pages."""
    if not apps.is_installed("django.contrib.admin"):
        return []
    for name, is_required in (("admin:index", False), ("dynamo_stores_admin:overview", True)):
        try:
            reverse(name)
        except (NoReverseMatch, ImproperlyConfigured):
            if not is_required:
                return []  # the project does not include the admin's URLs
            break
    else:
        return []
    return [
        checks.Warning(
            "The URLs of the status pages are not included.",
            hint="Add path('admin/dynamo-stores/', include('dynamo_stores.admin.urls')) before "
            "path('admin/', …), or silence this check.",
            id="dynamo_stores.W004",
        )
    ]


def check_scaling(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return a Warning if there are provisioned tables and no task lowers them."""
    try:
        provisioned = conf.provisioned_aliases()
    except ConfigurationError:
        return []  # check_settings reports it
    if not provisioned or beat_lowers_tables():
        return []
    return [
        checks.Warning(
            f"The aliases {', '.join(map(repr, provisioned))} have provisioned tables, but Celery "
            "beat does not run 'dynamo_stores.reconcile_capacity': capacity that is raised, "
            "automatically or manually, may never be lowered.",
            hint="Add the entries of dynamo_stores.tasks.beat_schedule() to beat_schedule, or run "
            "'manage.py dynamo_reconcile' every minute by cron and silence this check.",
            id="dynamo_stores.W003",
        )
    ]


def beat_lowers_tables() -> bool:
    """Return whether the schedule of Celery beat has the task that lowers tables."""
    current_app.finalize()
    planned = {entry.get("task") for entry in (current_app.conf.beat_schedule or {}).values()}
    return "dynamo_stores.reconcile_capacity" in planned


def _find_missing_regions() -> Iterator[Problem]:
    for using in conf.aliases():
        if not has_region(conf.get_config(using)):
            yield Problem(
                "dynamo_stores.E126",
                f"DYNAMO_STORES[{using!r}]['REGION'] is not set, and botocore finds no region.",
                "Set REGION, AWS_DEFAULT_REGION in the environment, or the region of the profile.",
            )


def _useless_options() -> Iterator[checks.CheckMessage]:
    for name, cache in options.our_caches().items():
        useless = [each for each in options.CULLING_OPTIONS if each in cache.get("OPTIONS", {})]
        useless += [each for each in options.CULLING_OPTIONS if each in cache]
        if useless:
            yield checks.Warning(
                f"CACHES[{name!r}] sets {', '.join(useless)}, which has no effect with DynamoDB.",
                hint="Remove it: the number of entries is not limited, and none are culled.",
                id="dynamo_stores.W001",
            )


def _find_codec_problems() -> Iterator[Problem]:
    for name, cache in options.our_caches().items():
        chosen = options.get_cache_options(cache.get("OPTIONS", {}))
        makers: list[tuple[str, str | None, Callable[[str], object]]] = [
            ("dynamo_stores.E100", chosen.serializer, codecs.make_serializer),
            ("dynamo_stores.E101", chosen.compressor, codecs.make_compressor),
            ("dynamo_stores.E110", chosen.reverse_key_function, _import_reverse_key_function),
        ]
        for number, wanted, make in makers:
            try:
                if wanted is not None:
                    make(wanted)
            except ConfigurationError as exc:
                yield Problem(number, f"CACHES[{name!r}]['OPTIONS']: {exc}", "See docs/cache.md.")


def _import_reverse_key_function(path: str) -> object:
    try:
        return import_string(path)
    except ImportError as exc:
        raise ConfigurationError(
            f"REVERSE_KEY_FUNCTION is {path!r}, which cannot be imported: {exc}. "
            "Expected the dotted path of a function."
        ) from exc


def _errors(problems: list[Problem]) -> list[checks.CheckMessage]:
    return [checks.Error(problem.message, hint=problem.hint, id=problem.id) for problem in problems]
