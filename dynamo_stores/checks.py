"""System checks of the settings."""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, get_resolver, reverse
from django.utils.module_loading import import_string

from . import conf
from .cache import options
from .cache.store import codecs
from .calls.environment import has_profile, has_region
from .conf.functions import is_coroutine_function
from .conf.groups import BreakerConfig, RateLimitConfig, ScalingConfig
from .conf.rules import TABLE_NAME, Problem, settings_of, suggestion
from .exceptions import ConfigurationError
from .infrastructure.references import declaring_models, reference_of
from .middleware import AdviceMiddleware
from .models import concrete_models, mistake_of, mistaken_models, name_in_model, path_of
from .monitoring.sinks.base import Sink
from .ratelimit import problems as limits
from .ratelimit.middleware import RateLimitMiddleware


def check_settings(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """
    Return an Error for each error in ``DYNAMO_STORES`` and for each alias without a region, and
    Warnings for settings beside it.
    """
    problems = conf.find_problems() or [
        *_find_missing_regions(),
        *_find_account_problems(),
        *_find_function_problems(),
        *_find_sink_problems(),
    ]
    return [*_errors(problems), *_misplaced_settings()]


def _find_sink_problems() -> Iterator[Problem]:
    for using in conf.aliases():
        metrics = conf.get_config(using).metrics
        for path in metrics.sinks:
            try:
                found = import_string(path)
                is_sink = isinstance(found, type) and issubclass(found, Sink)
                what = "" if is_sink else "it is no subclass of dynamo_stores.monitoring.sinks.Sink"
            except Exception as exc:  # noqa: BLE001 - a module of the project may raise anything
                what = str(exc).removesuffix(".")
            if not what:
                yield from _unknown_sink_options(using, path, found, metrics.options.get(path, {}))
            else:
                yield Problem(
                    "dynamo_stores.E163",
                    f"DYNAMO_STORES[{using!r}]['METRICS']['SINKS'] has {path!r}; expected the "
                    f"dotted path of a sink: {what}.",
                    "docs/metrics.md lists the sinks, and the packages that they need.",
                )


def _unknown_sink_options(
    using: str, path: str, sink: type[Sink], given: Mapping[str, Any]
) -> Iterator[Problem]:
    # A subclass may have further options, so those of its parent are not its own.
    known: tuple[str, ...] | None = vars(sink).get("option_names")
    if known is None:
        return
    for name in given:
        if name not in known:
            yield Problem(
                "dynamo_stores.E164",
                f"DYNAMO_STORES[{using!r}]['METRICS']['OPTIONS'][{path!r}] has no option {name!r}"
                f"{suggestion(name, known)}",
                f"Known: {', '.join(known) or 'none'}.",
            )


def _why_not_a_receiver(found: object) -> str:
    if not callable(found):
        return f"it is {type(found).__name__}"
    if is_coroutine_function(found):
        return "it is a coroutine function"
    try:
        inspect.signature(found).bind(None)
    except TypeError as exc:
        return f"it cannot be called with one argument ({exc})"
    except ValueError:  # a function without a signature, such as some of C
        return ""
    return ""


def _find_function_problems() -> Iterator[Problem]:
    for using in conf.aliases():
        path = conf.get_config(using).notify.function
        if path is None:
            continue
        try:
            found = conf.imported(path)
            what = _why_not_a_receiver(found)
        except Exception as exc:  # noqa: BLE001 - a module of the project may raise anything
            what = str(exc).removesuffix(".")
        if what:
            yield Problem(
                "dynamo_stores.E157",
                f"DYNAMO_STORES[{using!r}]['NOTIFY']['FUNCTION'] is {path!r}; expected a function: "
                f"{what}.",
                "Name a plain function that takes one argument, a Notification.",
            )


# Groups of an alias that other packages are not likely to have, with settings of the same names.
_GROUPS: dict[str, type] = {
    "RATE_LIMIT": RateLimitConfig,
    "SCALING": ScalingConfig,
    "CIRCUIT_BREAKER": BreakerConfig,
}


def _misplaced_settings() -> Iterator[checks.CheckMessage]:
    for name, group in _GROUPS.items():
        found = getattr(settings, name, None)
        if isinstance(found, Mapping) and settings_of(group).keys() & found.keys():
            yield checks.Warning(
                f"{name} is a setting of the project, where it has no effect.",
                hint=f"Move it into an alias: DYNAMO_STORES = {{'default': {{'{name}': …}}}}.",
                id="dynamo_stores.W011",
            )


def check_caches(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return an Error for each error in the DynamoDB caches of ``CACHES``."""
    try:
        problems = options.find_cache_problems()
    except ConfigurationError:
        return []  # check_settings reports it
    found = _errors(problems or list(_find_codec_problems()))
    if not problems:
        found += [*_unindexed_caches(), *_unsafe_sessions()]
    return [*found, *_useless_options(), *_settings_of_django_redis()]


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
    found = _errors(limits.find_problems())
    for name, why in _IGNORED.items():
        if conf.ratelimit_setting(name) is not None:
            found.append(
                checks.Warning(
                    f"RATELIMIT_{name} has no effect in dynamo_stores: {why}.",
                    hint="Remove it.",
                    id="dynamo_stores.W002",
                )
            )
    return [*found, *_unused_paths()]


def _unused_paths() -> Iterator[checks.CheckMessage]:
    try:
        paths = conf.get_config().rate_limit.paths
    except ConfigurationError:
        return  # check_settings reports it
    if paths and not _has_middleware(RateLimitMiddleware):
        yield checks.Warning(
            "RATE_LIMIT['PATHS'] has no effect: MIDDLEWARE has no RateLimitMiddleware.",
            hint="Add 'dynamo_stores.ratelimit.middleware.RateLimitMiddleware' to MIDDLEWARE.",
            id="dynamo_stores.W010",
        )


def _has_middleware(wanted: type) -> bool:
    for path in settings.MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError:
            continue  # Django reports it
        if isinstance(middleware, type) and issubclass(middleware, wanted):
            return True
    return False


def check_advice(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return a Warning if findings are logged without ``DEBUG``."""
    try:
        is_enabled = conf.get_config().advice.enabled
    except ConfigurationError:
        return []  # check_settings reports it
    if not is_enabled or settings.DEBUG or not _has_middleware(AdviceMiddleware):
        return []
    return [
        checks.Warning(
            "ADVICE['ENABLED'] is True, and DEBUG is off: AdviceMiddleware records the operations "
            "of every request.",
            hint="Remove ENABLED, so that only development pays for it, or silence this check.",
            id="dynamo_stores.W021",
        )
    ]


def check_admin(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return a Warning if tables are scaled and Django's admin is without the status pages."""
    if not apps.is_installed("django.contrib.admin") or not _is_scaling():
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
            "SCALING is enabled, and the URLs of the status pages are not included.",
            hint="Add path('admin/dynamo-stores/', include('dynamo_stores.admin.urls')) before "
            "path('admin/', …), or silence this check.",
            id="dynamo_stores.W004",
        )
    ]


def _is_scaling() -> bool:
    try:
        configs = [conf.get_config(using) for using in conf.aliases()]
    except ConfigurationError:
        return False  # check_settings reports it
    return any(
        each.scaling.enabled
        for config in configs
        for each in (config, *map(config.for_table, config.tables))
    )


def check_scaling(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return Warnings if there are provisioned tables and no task lowers or watches them."""
    try:
        provisioned = conf.provisioned_aliases()
    except ConfigurationError:
        return []  # check_settings reports it
    found = list(_unnoticed_tables(provisioned))
    if not provisioned or beat_lowers_tables():
        return found
    return [
        *found,
        checks.Warning(
            f"The aliases {', '.join(map(repr, provisioned))} have provisioned tables, but Celery "
            "beat does not run 'dynamo_stores.reconcile_capacity': capacity that is raised, "
            "automatically or manually, may never be lowered.",
            hint="Add the entries of dynamo_stores.tasks.beat_schedule() to beat_schedule, and "
            "import the Celery app in the __init__.py of the project; or run 'manage.py "
            "dynamo_reconcile' every minute by cron and silence this check.",
            id="dynamo_stores.W003",
        ),
    ]


def _unnoticed_tables(provisioned: list[str]) -> Iterator[checks.CheckMessage]:
    telling = [using for using in provisioned if conf.get_config(using).notify.is_on]
    if telling and not _beat_runs("dynamo_stores.roll_up_status"):
        yield checks.Warning(
            f"The aliases {', '.join(map(repr, telling))} have NOTIFY and provisioned tables, but "
            "Celery beat does not run 'dynamo_stores.roll_up_status': nobody is told of a table "
            "that should have been lowered and was not.",
            hint="Add the entries of dynamo_stores.tasks.beat_schedule() to beat_schedule, or "
            "silence this check.",
            id="dynamo_stores.W020",
        )


def beat_lowers_tables() -> bool:
    """Return whether the schedule of Celery beat has the task that lowers tables."""
    return _beat_runs("dynamo_stores.reconcile_capacity")


def _beat_runs(task: str) -> bool:
    from celery import current_app

    current_app.finalize()
    planned = {entry.get("task") for entry in (current_app.conf.beat_schedule or {}).values()}
    return task in planned


def check_references(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return an Error for each reference that a model declares wrongly."""
    if conf.find_problems():
        return []  # check_settings reports them
    found: list[checks.CheckMessage] = []
    for model in declaring_models():
        for name in model.references:
            try:
                reference_of(model, name)
            except ConfigurationError as exc:
                hint = "See docs/backups.md, References."
                found.append(checks.Error(str(exc), hint=hint, id="dynamo_stores.E131"))
    return found


def check_models(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """
    Return an Error for each model of an installed app that lacks what a table needs, or whose table
    has a name that DynamoDB refuses; a Warning for one without ``Meta``, which may be a base of
    models elsewhere.
    """
    found: list[checks.CheckMessage] = [
        checks.Error(mistake_of(model), hint="See docs/tables.md.", id="dynamo_stores.E132")
        if hasattr(model, "Meta")
        else checks.Warning(
            mistake_of(model),
            hint="If models elsewhere inherit from it, silence this check. See docs/tables.md.",
            id="dynamo_stores.W023",
        )
        for model in mistaken_models()
        if apps.get_containing_app_config(model.__module__)
    ]
    if not conf.find_problems():
        found += _wrong_names_of_tables()
    return found


def _wrong_names_of_tables() -> Iterator[checks.CheckMessage]:
    known = conf.aliases()
    for model in concrete_models():
        name = name_in_model(model)
        if name is None or model.using not in known:
            continue
        if not apps.get_containing_app_config(model.__module__):
            continue
        real = conf.get_config(model.using).real_name(name)
        if not TABLE_NAME.accepts(real) and not real.startswith("arn:"):
            yield checks.Error(
                f"{path_of(model)}: the name of its table in DynamoDB is {real!r}; expected "
                f"{TABLE_NAME.expected}.",
                hint="Change its table_name, or TABLE_PREFIX or TABLES of its alias.",
                id="dynamo_stores.E134",
            )


# Less similar names are those of other tables.
_SIMILAR = 0.8


def check_tables(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """
    Return a Warning for each name in ``TABLES`` that is that of a table in DynamoDB instead of that
    in its model, or that is nearly the name in a model. Others may be of tables without a model.
    """
    if conf.find_problems():
        return []  # check_settings reports them
    names = {name for model in concrete_models() if (name := name_in_model(model)) is not None}
    found: list[checks.CheckMessage] = []
    for using in conf.aliases():
        config = conf.get_config(using)
        known = {*names, config.table_name, f"{config.table_name}-control"}
        in_dynamodb = {config.real_name(name): name for name in sorted(known)}
        for table in sorted(config.tables.keys() - known):
            where = f"DYNAMO_STORES[{using!r}]['TABLES'][{table!r}]"
            if (name := in_dynamodb.get(table)) is not None:
                message = f"{where} is the name in DynamoDB; expected that in the model, {name!r}."
            elif similar := difflib.get_close_matches(table, sorted(known), 1, _SIMILAR):
                message = f"{where} is the table of no model; did you mean {similar[0]!r}?"
            else:
                continue
            hint = "TABLES takes table_name of the model, without TABLE_PREFIX."
            found.append(checks.Warning(message, hint=hint, id="dynamo_stores.W017"))
    return found


def _find_account_problems() -> Iterator[Problem]:
    for using in conf.aliases():
        config = conf.get_config(using)
        where = f"DYNAMO_STORES[{using!r}]"
        if config.session is not None:
            try:
                function = conf.imported(config.session)
            except ConfigurationError as exc:
                yield Problem("dynamo_stores.E009", f"{where}['SESSION']: {exc}", _SESSION_HINT)
                continue
            if not callable(function):
                yield Problem(
                    "dynamo_stores.E009",
                    f"{where}['SESSION'] is {config.session!r}, which is not a function.",
                    _SESSION_HINT,
                )
        if config.profile is not None and not has_profile(config.profile):
            yield Problem(
                "dynamo_stores.W016",
                f"{where}['PROFILE'] is {config.profile!r}, which AWS's configuration files do "
                "not have on this machine.",
                "Add it to ~/.aws/config or ~/.aws/credentials, or correct PROFILE. The first call "
                "fails without it.",
            )


_SESSION_HINT = (
    "Expected the dotted path of a function without arguments that returns a session of botocore "
    "or boto3, or a function that makes clients."
)


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
        useless = [each for each in options.CULLING_OPTIONS if each in (cache.get("OPTIONS") or ())]
        useless += [each for each in options.CULLING_OPTIONS if each in cache]
        if useless:
            yield checks.Warning(
                f"CACHES[{name!r}] sets {', '.join(useless)}, which has no effect with DynamoDB.",
                hint="Remove it: the number of entries is not limited, and none are culled.",
                id="dynamo_stores.W001",
            )


# Settings of django-redis, and what stands for them.
_OF_DJANGO_REDIS = {
    "IGNORE_EXCEPTIONS": "Set IGNORE_EXCEPTIONS in the OPTIONS of the cache.",
    "LOG_IGNORED_EXCEPTIONS": "Remove it: they are always logged.",
    "LOGGER": "Remove it: the logger is 'dynamo_stores.cache.fallback'.",
    "SCAN_ITERSIZE": "Remove it: itersize is an argument of the methods.",
}


def _settings_of_django_redis() -> Iterator[checks.CheckMessage]:
    backends = [str(cache.get("BACKEND")) for cache in settings.CACHES.values()]
    if not options.our_caches() or any(each.startswith("django_redis.") for each in backends):
        return
    for name, hint in _OF_DJANGO_REDIS.items():
        if hasattr(settings, f"DJANGO_REDIS_{name}"):
            yield checks.Warning(
                f"DJANGO_REDIS_{name} has no effect with DynamoDB.",
                hint=hint,
                id="dynamo_stores.W015",
            )


def _unindexed_caches() -> Iterator[checks.CheckMessage]:
    for name, cache in options.our_caches().items():
        chosen = options.get_cache_options(cache.get("OPTIONS", {}))
        using = cache.get("LOCATION") or conf.DEFAULT_ALIAS
        if chosen.clear_by_index and not conf.get_config(using).cache.expiry_index:
            yield checks.Error(
                f"CACHES[{name!r}]['OPTIONS']['CLEAR_BY_INDEX'] is True, and "
                f"DYNAMO_STORES[{using!r}]['CACHE']['EXPIRY_INDEX'] is False: clear() deletes "
                "nothing.",
                hint="Set EXPIRY_INDEX to True, or remove CLEAR_BY_INDEX.",
                id="dynamo_stores.E130",
            )


_SESSIONS_IN_CACHE = "django.contrib.sessions.backends.cache"
_SESSIONS_IN_BOTH = "django.contrib.sessions.backends.cached_db"


def _unsafe_sessions() -> Iterator[checks.CheckMessage]:
    name = settings.SESSION_CACHE_ALIAS
    cache = options.our_caches().get(name)
    if cache is None or settings.SESSION_ENGINE not in (_SESSIONS_IN_CACHE, _SESSIONS_IN_BOTH):
        return
    given = cache.get("OPTIONS", {})
    if given.get("CONSISTENT_READ") is False:
        yield checks.Warning(
            f"Sessions are in CACHES[{name!r}], whose CONSISTENT_READ is False: a request may read "
            "the session as it was before the last one.",
            hint="Remove CONSISTENT_READ or set it to True, or use another cache for sessions.",
            id="dynamo_stores.W012",
        )
    if given.get("IGNORE_EXCEPTIONS") and settings.SESSION_ENGINE == _SESSIONS_IN_CACHE:
        yield checks.Warning(
            f"Sessions are in CACHES[{name!r}], whose IGNORE_EXCEPTIONS is True: while DynamoDB is "
            "unavailable users are logged out, and a log-in tries 10,000 session keys.",
            hint="Use a cache without IGNORE_EXCEPTIONS for sessions, or the session engine "
            f"'{_SESSIONS_IN_BOTH}'.",
            id="dynamo_stores.W013",
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
    found: list[checks.CheckMessage] = []
    for problem in problems:
        kind = checks.Warning if ".W" in problem.id else checks.Error
        found.append(kind(problem.message, hint=problem.hint, id=problem.id))
    return found
