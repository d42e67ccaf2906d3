"""System checks and the project's settings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from celery import current_app
from django.conf import settings as settings_of_django
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import override_settings
from pynamodb.attributes import UnicodeAttribute

from dynamo_stores.cache import DynamoDBCache
from dynamo_stores.checks import check_caches
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.infrastructure.tables import models_of_apps, table_of
from dynamo_stores.models import DynamoModel, name_in_model
from dynamo_stores.monitoring.sinks import LoggingSink
from dynamo_stores.ratelimit.middleware import RateLimitMiddleware
from dynamo_stores.tasks import beat_schedule, dynamodb_caches
from forum.models import Post

BACKEND = "dynamo_stores.cache.DynamoDBCache"


class MySink(LoggingSink):
    """It has an option of its own."""


def ids():
    """Return the ids of everything that the checks of this package find."""
    return sorted(m.id for m in checks.run_checks() if m.id.startswith("dynamo_stores."))


def test_the_project_is_clean():
    """No check finds anything."""
    assert ids() == []


def test_unknown_options_of_sinks_are_found():
    """Of a subclass they are not known."""
    sinks = "dynamo_stores.monitoring.sinks."
    logs, mine = f"{sinks}LoggingSink", f"{__name__}.MySink"
    options = {logs: {"JSON": True, "JSNO": True}, mine: {"FORMAT": "x"}}
    metrics = {"SINKS": [logs, mine, f"{sinks}emf.EMFSink"], "OPTIONS": options}
    default = {**settings_of_django.DYNAMO_STORES["default"], "METRICS": metrics}
    with override_settings(DYNAMO_STORES={"default": default}):
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.E164"]
    assert found.msg == (
        f"DYNAMO_STORES['default']['METRICS']['OPTIONS']['{logs}'] has no option 'JSNO'; "
        "did you mean 'JSON'?"
    )
    assert found.hint == "Known: JSON."


def test_wrong_settings_are_found_with_their_id():
    """Each wrong setting by its own id."""
    wrong = {"TABLE_NAME": "", "RETRY": {"DELAY": -1, "MAX_DELAYS": 1}}
    with override_settings(DYNAMO_STORES={"default": wrong}):
        assert ids() == ["dynamo_stores.E001", "dynamo_stores.E010", "dynamo_stores.E022"]
    with override_settings(DYNAMO_STORES=3):
        assert ids() == ["dynamo_stores.E002"]


@pytest.mark.parametrize(
    ("cache", "found"),
    [
        ({"LOCATION": "defualt"}, "dynamo_stores.E106"),
        ({"KEY_PREFIX": "x" * 1025}, "dynamo_stores.E107"),
        ({"KEY_PREFIX": "\ud800"}, "dynamo_stores.E107"),
        ({"OPTIONS": {"SERIALISER": "json"}}, "dynamo_stores.E001"),
        ({"OPTIONS": {"CONSISTENT_READ": "yes"}}, "dynamo_stores.E104"),
        ({"OPTIONS": {"STAMPEDE_LEASE": 1e300}}, "dynamo_stores.E116"),
        ({"OPTIONS": {"STALE_TIMEOUT": 1e300}}, "dynamo_stores.E117"),
        ({"OPTIONS": {"SERIALIZER": "no.such.thing"}}, "dynamo_stores.E100"),
        ({"OPTIONS": {"SERIALIZER": f"{__name__}.NeedsOptions"}}, "dynamo_stores.E100"),
        ({"OPTIONS": {"COMPRESSOR": f"{__name__}.NeedsOptions"}}, "dynamo_stores.E101"),
        ({"OPTIONS": {"COMPRESSOR": "zip"}}, "dynamo_stores.E101"),
        ({"OPTIONS": {"MAX_ENTRIES": 100}}, "dynamo_stores.W001"),
        ({"OPTIONS": {"CLEAR_BY_INDEX": True}}, "dynamo_stores.E130"),
        ({"BACKEND": f"{__name__}.OwnCache", "LOCATION": "defualt"}, "dynamo_stores.E106"),
    ],
)
def test_wrong_caches_are_found(cache, found):
    """LOCATION, KEY_PREFIX and OPTIONS of a DynamoDB cache."""
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, **cache}}):
        assert ids() == [found]


class NeedsOptions:
    """As the serializers and compressors of django-redis."""

    def __init__(self, options):
        pass


class OwnCache(DynamoDBCache):
    """A subclass, as projects have."""


def test_caches_that_cannot_be_imported_are_left_to_django():
    """The checks do not stop at them."""
    for backend in ("no.such.Backend", "nodots", "os.path", "os.path.join", None):
        caches = {"default": {"BACKEND": BACKEND}, "other": {"BACKEND": backend}}
        with override_settings(CACHES=caches):
            assert check_caches() == []


def test_options_that_are_none_are_an_error():
    """A sentence, where Django's own check of caches has a traceback."""
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "OPTIONS": None}}):
        assert [each.id for each in check_caches()] == ["dynamo_stores.E002"]


def test_clear_by_index_is_right_with_the_index(default_alias):
    """Of the alias of the cache."""
    aliases = {
        "default": default_alias,
        "other": {**default_alias, "CACHE": {"EXPIRY_INDEX": True}},
    }
    cache = {"BACKEND": BACKEND, "LOCATION": "other", "OPTIONS": {"CLEAR_BY_INDEX": True}}
    with override_settings(DYNAMO_STORES=aliases, CACHES={"default": cache}):
        assert ids() == []


@pytest.mark.parametrize(
    ("engine", "options", "found"),
    [
        ("cache", {}, []),
        ("cache", {"CONSISTENT_READ": True}, []),
        ("cache", {"CONSISTENT_READ": False}, ["dynamo_stores.W012"]),
        ("cached_db", {"CONSISTENT_READ": False}, ["dynamo_stores.W012"]),
        ("cache", {"IGNORE_EXCEPTIONS": True}, ["dynamo_stores.W013"]),
        ("cached_db", {"IGNORE_EXCEPTIONS": True}, []),
        ("db", {"CONSISTENT_READ": False, "IGNORE_EXCEPTIONS": True}, []),
    ],
)
def test_sessions_in_a_cache_that_may_lose_or_lag_are_a_warning(engine, options, found):
    """If the cache of SESSION_CACHE_ALIAS is ours."""
    ours = {"BACKEND": f"{__name__}.OwnCache", "OPTIONS": options}
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    engine = f"django.contrib.sessions.backends.{engine}"
    with override_settings(SESSION_ENGINE=engine, CACHES={"default": local, "ours": ours}):
        assert ids() == []
        with override_settings(SESSION_CACHE_ALIAS="ours"):
            assert ids() == found


class OwnMiddleware(RateLimitMiddleware):
    """A subclass, as projects have."""


def test_paths_without_the_middleware_are_a_warning(default_alias):
    """The site would believe that it is protected."""
    paths = {"RATE_LIMIT": {"PATHS": {"/api/": {"RATE": "2/m"}}}}
    with override_settings(DYNAMO_STORES={"default": {**default_alias, **paths}}):
        assert ids() == ["dynamo_stores.W010"]
        for kind in (RateLimitMiddleware, OwnMiddleware):
            own = [*settings_of_django.MIDDLEWARE, f"{kind.__module__}.{kind.__qualname__}"]
            with override_settings(MIDDLEWARE=own):
                assert ids() == []


@pytest.mark.parametrize(
    "misplaced",
    [
        {"RATE_LIMIT": {"PATHS": {}}},
        {"SCALING": {"ENABLED": True}},
        {"CIRCUIT_BREAKER": {"FAILURE_THRESHOLD": 3}},
    ],
)
def test_groups_beside_dynamo_stores_are_a_warning(misplaced):
    """Those that have a setting of ours; another package may have a RATE_LIMIT, too."""
    (name,) = misplaced
    with override_settings(**misplaced):
        assert ids() == ["dynamo_stores.W011"]
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.W011"]
        assert found.hint == (
            f"Move it into an alias: DYNAMO_STORES = {{'default': {{'{name}': …}}}}."
        )
    for value in ("100/h", {"default": "100/h"}, None):
        with override_settings(**{name: value}):
            assert ids() == []


def test_a_function_that_cannot_be_imported_is_named_with_its_option():
    """E110 names the cache, the option, the path and what was expected."""
    cache = {"BACKEND": BACKEND, "OPTIONS": {"REVERSE_KEY_FUNCTION": "no.such.function"}}
    with override_settings(CACHES={"default": cache}):
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.E110"]
    assert found.msg == (
        "CACHES['default']['OPTIONS']: REVERSE_KEY_FUNCTION is 'no.such.function', which cannot be "
        "imported: No module named 'no'. Expected the dotted path of a function."
    )


def test_a_location_without_aliases_has_no_known_ones():
    """E106 with an empty DYNAMO_STORES; a cache without a location is not reported."""
    cache = {"BACKEND": BACKEND, "LOCATION": "redis://127.0.0.1:6379/0"}
    caches = {"default": cache, "other": {"BACKEND": BACKEND}}
    with override_settings(DYNAMO_STORES={}, CACHES=caches):
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.E106"]
    assert found.hint == "Known: none. Without LOCATION it is 'default'."


@pytest.mark.parametrize("cache", [{}, {"LOCATION": "default"}])
@pytest.mark.parametrize("settings", [{"TABLE_NAME": "t"}, {"RETRY": {"DELAY": 1}}])
def test_settings_without_an_alias_are_one_error(cache, settings):
    """It says where they belong, as the first use does."""
    caches = {"default": {"BACKEND": BACKEND, **cache}}
    (name,) = settings
    text = f"DYNAMO_STORES['{name}'] is a setting; expected aliases with their settings: "
    with override_settings(DYNAMO_STORES=settings, CACHES=caches):
        found = [each for each in checks.run_checks() if each.id.startswith("dynamo_stores.")]
        assert [each.msg for each in found] == [
            f"{text}DYNAMO_STORES = {{'default': {{'{name}': …}}}}."
        ]
        with pytest.raises(ImproperlyConfigured, match="expected aliases with their settings"):
            DynamoDBCache("default", {}).get("k")


@pytest.mark.parametrize("options", [{"COMPRESSOR": "gzip"}, {"SERIALIZER": "no.such.thing"}])
def test_a_wrong_codec_is_an_error_of_the_first_call(options):
    """Not only of the first value that is written."""
    with pytest.raises(ImproperlyConfigured, match=next(iter(options.values()))):
        DynamoDBCache("default", {"OPTIONS": options}).get("k")


@override_settings(DJANGO_REDIS_IGNORE_EXCEPTIONS=True)
def test_settings_of_django_redis_are_named():
    """Unless one of its caches is left."""
    ours = {"default": {"BACKEND": BACKEND}}
    with override_settings(CACHES=ours):
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.W015"]
    assert found.msg == "DJANGO_REDIS_IGNORE_EXCEPTIONS has no effect with DynamoDB."
    with override_settings(CACHES={**ours, "redis": {"BACKEND": "django_redis.cache.RedisCache"}}):
        assert list(check_caches()) == []


def test_options_of_django_redis_are_named():
    """They are to be removed."""
    redis = {"CLIENT_CLASS": "django_redis.client.DefaultClient", "SERIALIZER": "json"}
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "OPTIONS": redis}}):
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.E001"]
    assert found.msg == (
        "CACHES['default']['OPTIONS']['CLIENT_CLASS'] is an option of django-redis; it does "
        "nothing here."
    )
    assert found.hint.startswith("Remove it. Known: SERIALIZER, COMPRESSOR")


def test_a_cache_with_wrong_options_cannot_be_used():
    """The error is Django's ImproperlyConfigured and names the option."""
    with pytest.raises(ImproperlyConfigured, match="'SERIALISER'; did you mean 'SERIALIZER'"):
        DynamoDBCache("default", {"OPTIONS": {"SERIALISER": "json"}}).get("k")


def settings(code, **environment):
    """Run ``code`` on project.settings in a process with only ``environment`` set."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", f"from project.settings import *\n{code}"],
        env={"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_settings_import_with_no_variable_and_with_only_a_secret_key():
    """Nothing set is development; a secret key is production."""
    development = settings("print(DEBUG, DYNAMO_STORES['default']['ENDPOINT_URL'])")
    assert development.stdout.strip() == "True http://127.0.0.1:8400", development.stderr
    production = settings(
        "print(DEBUG, DYNAMO_STORES['default']['ENDPOINT_URL'])", SECRET_KEY="s" * 50
    )
    assert production.stdout.strip() == "False None", production.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"ALLOWED_HOSTS": "forum.example.com"},
        {"ALLOWED_HOSTS": "forum.example.com", "DJANGO_DEBUG": "true"},
        {"ALLOWED_HOSTS": "127.0.0.1,*"},
        {"DJANGO_DEBUG": "false"},
    ],
)
def test_without_a_secret_key_only_this_machine_is_served(environment):
    """The key of the repository is public: it signs nothing for another host."""
    done = settings("print(SECRET_KEY)", **environment)
    assert done.returncode != 0
    assert "ImproperlyConfigured: SECRET_KEY is not set" in done.stderr
    assert done.stdout == ""


def test_settings_behind_a_proxy():
    """The scheme and the clients' addresses come from its headers; health needs no HTTPS."""
    code = (
        "print(SECURE_PROXY_SSL_HEADER, DYNAMO_STORES['default']['RATE_LIMIT'])\n"
        "print(SECURE_REDIRECT_EXEMPT)"
    )
    production = {"SECRET_KEY": "s" * 50, "SECURE_PROXY_SSL_HEADER": "X-Forwarded-Proto"}
    for proxies, expected in (("2", "2"), ("10.0.0.0/8,fd00::/8", "['10.0.0.0/8', 'fd00::/8']")):
        done = settings(code, TRUSTED_PROXIES=proxies, **production)
        assert done.stdout.splitlines() == [
            "('HTTP_X_FORWARDED_PROTO', 'https') {'IN_PROCESS': False, 'TRUSTED_PROXIES': "
            + expected
            + "}",
            "['^dynamo-stores/health/']",
        ], done.stderr


def test_settings_are_equal_to_the_librarys_defaults():
    """Without variables the project changes only the endpoint of DynamoDB."""
    code = (
        "from dynamo_stores import conf\n"
        "from django.conf import settings\n"
        "settings.configure(DYNAMO_STORES=DYNAMO_STORES)\n"
        "from dataclasses import asdict\n"
        "mine = {**asdict(conf.get_config()), 'endpoint_url': None}\n"
        "print(mine == asdict(conf.StoreConfig()))"
    )
    done = settings(code)
    assert done.stdout.strip() == "True", done.stderr


def test_every_variable_reaches_its_setting():
    """Milliseconds and minutes become seconds."""
    code = (
        "alias = DYNAMO_STORES['default']\n"
        "print(alias['REGION'], alias['TABLE_NAME'], alias['ENDPOINT_URL'])\n"
        "print(alias['CONNECT_TIMEOUT'], alias['OPERATION_TIMEOUT'])\n"
        "print(alias['MAX_POOL_CONNECTIONS'])\n"
        "print(alias['RETRY'], alias['SCALING'], alias['TABLES'])\n"
        "print(CACHES['default']['BACKEND'], LOGGING['loggers']['dynamo_stores']['level'])"
    )
    done = settings(
        code,
        AWS_REGION="eu-west-1",
        DYNAMODB_TABLE_NAME="mine",
        NODE_ENV="development",
        DYNAMODB_LOCAL_ENDPOINT="http://localhost:8001",
        DYNAMODB_CONNECTION_TIMEOUT="2500",
        DYNAMODB_REQUEST_TIMEOUT="15000",
        DYNAMODB_MAX_SOCKETS="7",
        DYNAMODB_MAX_RETRIES="5",
        DYNAMODB_INITIAL_RETRY_DELAY="1000",
        DYNAMODB_BASE_READ_CAPACITY="6",
        DYNAMODB_BASE_WRITE_CAPACITY="7",
        DYNAMODB_MAX_READ_CAPACITY="60",
        DYNAMODB_MAX_WRITE_CAPACITY="70",
        DYNAMODB_SCALE_UP_FACTOR="3.0",
        DYNAMODB_SCALING_ENABLED="true",
        DYNAMODB_RECONCILE_INTERVAL="2000",
        DYNAMODB_SCALE_DOWN_DELAY_MINUTES="5",
        DYNAMODB_USERS_TABLE="u",
        DYNAMODB_THREADS_TABLE="t",
        DYNAMODB_POSTS_TABLE="p",
        DYNAMODB_SUPPORT_TABLE="s",
        DYNAMODB_ENABLE_LOGGING="true",
        USE_DYNAMODB="false",
        SECRET_KEY="s" * 50,
    )
    assert done.stdout.splitlines() == [
        "eu-west-1 mine http://localhost:8001",
        "2.5 15.0",
        "7",
        "{'MAX_RETRIES': 5, 'DELAY': 1.0} {'ENABLED': True, 'RECONCILE_INTERVAL': 2.0, "
        "'BASE_READ_CAPACITY': 6, 'BASE_WRITE_CAPACITY': 7, "
        "'MAX_READ_CAPACITY': 60, 'MAX_WRITE_CAPACITY': 70, 'SCALE_UP_FACTOR': 3.0, "
        "'SCALE_DOWN_DELAY': 300.0} {'forum-users': {'TABLE_NAME': 'u'}, "
        "'forum-threads': {'TABLE_NAME': 't'}, 'forum-posts': {'TABLE_NAME': 'p'}, "
        "'forum-support': {'TABLE_NAME': 's'}}",
        "django.core.cache.backends.locmem.LocMemCache DEBUG",
    ], done.stderr


def test_a_deployment_is_clean():
    """manage.py check --deploy with a secret key and a region alone; no migration is missing."""
    environment = {
        "AWS_REGION": "us-east-1",
        "PATH": os.environ["PATH"],
        "ENV_FILE": os.devnull,
        "SECRET_KEY": "k3y-" + "".join(chr(97 + n % 26) for n in range(60)),
    }
    for command in ("check --deploy --fail-level WARNING", "makemigrations --check"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "manage.py", *command.split()],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_scaling_without_reconciliation_is_a_warning():
    """If beat does not run the task; with the schedule of the tasks it does."""
    scaling = {"default": {"REGION": "us-east-1", "SCALING": {"ENABLED": True}}}
    # The project sets the schedule when its application is finalized.
    current_app.finalize()
    before = current_app.conf.beat_schedule
    try:
        with override_settings(DYNAMO_STORES=scaling):
            current_app.conf.beat_schedule = {}
            assert "dynamo_stores.W003" in ids()
            current_app.conf.beat_schedule = beat_schedule()
            assert ids() == []
        current_app.conf.beat_schedule = {}
        assert ids() == []
    finally:
        current_app.conf.beat_schedule = before


def test_an_alias_without_a_region_is_found(monkeypatch, tmp_path):
    """Neither in the settings nor in botocore's; an endpoint on this machine needs none."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    local = {"ENDPOINT_URL": "http://127.0.0.1:8400"}
    with override_settings(DYNAMO_STORES={"default": local, "other": {"TABLE_NAME": "other"}}):
        (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.E126"]
        assert found.msg.startswith("DYNAMO_STORES['other']['REGION'] is not set")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        assert ids() == []
    with override_settings(DYNAMO_STORES={"default": {"REGION": "us-east-1"}}):
        assert ids() == []


def test_names_in_tables_that_are_nearly_those_of_models_are_a_warning(default_alias):
    """That in DynamoDB, or a similar one; a name of no model may be of a table without one."""

    def found(*names):
        alias = {**default_alias, "TABLE_PREFIX": "shop-", "TABLES": {name: {} for name in names}}
        with override_settings(DYNAMO_STORES={"default": alias}):
            return [each.msg for each in checks.run_checks() if each.id == "dynamo_stores.W017"]

    assert found("forum-posts", "dynamo-stores", "dynamo-stores-control", "archive") == []
    (message,) = found("shop-forum-posts")
    assert message.endswith("is the name in DynamoDB; expected that in the model, 'forum-posts'.")
    (message,) = found("forum-post")
    assert message.endswith("is the table of no model; did you mean 'forum-posts'?")


class WithoutMeta(DynamoModel):
    key = UnicodeAttribute(hash_key=True)


class OnlyABase(DynamoModel):
    using = "default"


class WithoutName(OnlyABase):
    class Meta:
        tablename = "books"

    key = UnicodeAttribute(hash_key=True)


class WithoutKey(OnlyABase):
    class Meta:
        table_name = "books"

    name = UnicodeAttribute()


class WithoutText(OnlyABase):
    class Meta:
        table_name = 5

    key = UnicodeAttribute(hash_key=True)


MISTAKES = [
    (
        WithoutText,
        "forum.models.WithoutText has 5 as table_name in its class Meta. Expected class Meta: "
        'table_name = "…".',
    ),
    (
        WithoutName,
        "forum.models.WithoutName has no table_name in its class Meta, but 'tablename'. Expected "
        'class Meta: table_name = "…".',
    ),
    (
        WithoutKey,
        "forum.models.WithoutKey has no attribute with hash_key=True, the partition key of its "
        "table. Add one, such as key = UnicodeAttribute(hash_key=True).",
    ),
]


@pytest.mark.parametrize(("model", "message"), MISTAKES)
def test_a_model_without_what_a_table_needs_is_an_error(model, message, monkeypatch):
    """Of a model in an installed app; bases of others may lack it. Commands end with it."""
    assert ids() == []
    monkeypatch.setattr(OnlyABase, "__module__", "forum.models")
    monkeypatch.setattr(model, "__module__", "forum.models")
    (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.E132"]
    assert found.msg == message
    for command in (
        ["dynamo_create_tables"],
        ["dynamo_verify"],
        ["dynamo_verify", "forum"],
        ["dynamo_status"],
        ["dynamo_infrastructure", "--format", "terraform"],
    ):
        with pytest.raises(CommandError) as refused:
            call_command(*command)
        assert str(refused.value) == message


class ShortName(OnlyABase):
    class Meta:
        table_name = "ab"

    key = UnicodeAttribute(hash_key=True)


class WrongName(OnlyABase):
    class Meta:
        table_name = "books of 2026"

    key = UnicodeAttribute(hash_key=True)


@pytest.mark.parametrize(("model", "name"), [(ShortName, "'ab'"), (WrongName, "'books of 2026'")])
def test_a_name_of_a_table_that_dynamodb_refuses(model, name, monkeypatch, default_alias):
    """Of a model in an installed app, with the prefix of its alias, or by TABLES."""
    monkeypatch.setattr(model, "__module__", "forum.models")

    def found(**changes):
        with override_settings(DYNAMO_STORES={"default": {**default_alias, **changes}}):
            return [each.msg for each in checks.run_checks() if each.id == "dynamo_stores.E134"]

    path = f"forum.models.{model.__name__}"
    assert found(TABLE_PREFIX="") == [
        f"{path}: the name of its table in DynamoDB is {name}; expected 3 to 255 of A-Z, a-z, 0-9, "
        "'_', '-' and '.'."
    ]
    if model is ShortName:
        assert found(TABLE_PREFIX="shop-") == []
    assert found(TABLES={name_in_model(model): {"TABLE_NAME": "books"}}) == []


def test_a_model_without_meta_may_be_a_base(monkeypatch):
    """A warning; commands go on without it."""
    monkeypatch.setattr(WithoutMeta, "__module__", "forum.models")
    (found,) = [each for each in checks.run_checks() if each.id == "dynamo_stores.W023"]
    assert (
        found.msg == 'forum.models.WithoutMeta has no class Meta. Add class Meta: table_name = "…".'
    )
    assert models_of_apps()


def test_a_table_of_a_model_without_a_name_is_refused():
    """Of any model, with its dotted path."""
    with pytest.raises(ConfigurationError, match=f"{__name__}.WithoutName has no table_name"):
        table_of(WithoutName)


def test_wrong_references_are_an_error(monkeypatch):
    """Each with the model and the attribute."""
    monkeypatch.setattr(Post, "references", {"thread_id": "Thread", "user": "forum.models.User"})
    found = [each for each in checks.run_checks() if each.id == "dynamo_stores.E131"]
    assert [each.msg.partition(":")[0] for each in found] == [
        "forum.models.Post.references['thread_id']",
        "forum.models.Post.references['user']",
    ]


def test_subclasses_of_the_backend_are_cleaned():
    """By the task and by dynamo_cleanup."""
    caches = {"default": {"BACKEND": f"{__name__}.OwnCache", "KEY_PREFIX": "own"}}
    with override_settings(CACHES=caches):
        assert list(dynamodb_caches()) == ["default"]
