"""
Settings of the Django project, read from the environment; the only place that reads it.

Without any variable this is a development server on this machine that uses DynamoDB at
127.0.0.1:8400. With ``SECRET_KEY`` it is a production server. docs/settings.md lists every
variable.
"""

from pathlib import Path

import django
import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
env_file = Path(env.str("ENV_FILE", default=str(BASE_DIR / ".env")))
if env_file.is_file():
    env.read_env(env_file)

SECRET_KEY = env.str("SECRET_KEY", default="") or env.str("DJANGO_SECRET_KEY", default="")
DEBUG = env.bool("DJANGO_DEBUG", default=not SECRET_KEY)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost"])
if not SECRET_KEY:
    # Everybody can read this key, so it is used for a server of this machine alone.
    if other_hosts := set(ALLOWED_HOSTS) - {"127.0.0.1", "localhost", "[::1]"}:
        raise ImproperlyConfigured(
            f"SECRET_KEY is not set, and ALLOWED_HOSTS has {', '.join(sorted(other_hosts))}. Set "
            "SECRET_KEY to a long random string; without it only 127.0.0.1, localhost and [::1] "
            "are served."
        )
    if not DEBUG:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set, and DJANGO_DEBUG is off. Set SECRET_KEY to a long random "
            "string."
        )
    SECRET_KEY = "for development on this machine"  # noqa: S105
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "dynamo_stores",
    "forum",
    "ninja",
]
MIDDLEWARE = [
    # Not used without DEBUG.
    "dynamo_stores.middleware.AdviceMiddleware",
    "dynamo_stores.middleware.CorrelationMiddleware",
    "dynamo_stores.middleware.DeadlineMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "dynamo_stores.middleware.StoreUnavailableMiddleware",
    "forum.middleware.PagesMiddleware",
]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
# In SQL: while DynamoDB is away nobody is logged out.
SESSION_ENGINE = "django.contrib.sessions.backends.db"
CSRF_FAILURE_VIEW = "forum.views.errors.csrf_failure"
LOGIN_URL = "forum:login"
LOGIN_REDIRECT_URL = "forum:front"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"

if not DEBUG:
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
    # Load balancers ask for the health over plain HTTP.
    SECURE_REDIRECT_EXEMPT = [r"^dynamo-stores/health/"]
    if forwarded := env.str("SECURE_PROXY_SSL_HEADER", default=""):
        # Only behind a proxy that sets this header itself: a client could send it, too.
        SECURE_PROXY_SSL_HEADER = (f"HTTP_{forwarded.upper().replace('-', '_')}", "https")
    SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=31_536_000)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", default=True)
    SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", default=True)
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

# In development DynamoDB is on this machine, unless DYNAMODB_ENDPOINT is another address
# ("" is the endpoint of AWS).
IS_LOCAL = env.bool("DYNAMODB_LOCAL", default=DEBUG or env.str("NODE_ENV", "") == "development")
LOCAL_ENDPOINT = env.str("DYNAMODB_LOCAL_ENDPOINT", default="http://127.0.0.1:8400")
ENDPOINT = env.str("DYNAMODB_ENDPOINT", default=LOCAL_ENDPOINT if IS_LOCAL else "")
USE_DYNAMODB = env.bool("USE_DYNAMODB", default=True)
# The number of proxies before this server, or their networks, separated by commas.
PROXIES = env.str("TRUSTED_PROXIES", default="0")

# The variables of the environment are in milliseconds and minutes, the settings in seconds.
DYNAMO_STORES = {
    "default": {
        "TABLE_NAME": env.str("DYNAMODB_TABLE_NAME", default="dynamo-stores"),
        "TABLE_PREFIX": env.str("DYNAMODB_TABLE_PREFIX", default=""),
        "REGION": env.str("AWS_REGION", default="") or None,
        "ENDPOINT_URL": ENDPOINT or None,
        "BILLING_MODE": env.str("DYNAMODB_BILLING_MODE", default="PAY_PER_REQUEST"),
        "CONNECT_TIMEOUT": env.float("DYNAMODB_CONNECTION_TIMEOUT", default=5_000) / 1000,
        "OPERATION_TIMEOUT": env.float("DYNAMODB_REQUEST_TIMEOUT", default=30_000) / 1000,
        "MAX_POOL_CONNECTIONS": env.int("DYNAMODB_MAX_SOCKETS", default=50),
        "TRANSPORT": env.str("DYNAMODB_TRANSPORT", default="auto"),
        "LOG_OPERATIONS": env.bool("DYNAMODB_ENABLE_LOGGING", default=False),
        "RETRY": {
            "MAX_RETRIES": env.int("DYNAMODB_MAX_RETRIES", default=3),
            "DELAY": env.float("DYNAMODB_INITIAL_RETRY_DELAY", default=100) / 1000,
        },
        "CACHE": {
            "EXPIRY_INDEX": env.bool("DYNAMODB_EXPIRY_INDEX", default=False),
            "CLEANUP_INTERVAL": env.float("DYNAMODB_CLEANUP_INTERVAL", default=300_000) / 1000,
        },
        "REPORTS": {"ENABLED": USE_DYNAMODB},
        "METRICS": {
            "SINKS": env.list(
                "DYNAMODB_METRICS_SINKS", default=["dynamo_stores.monitoring.sinks.LoggingSink"]
            ),
            "TOKEN": env.str("DYNAMODB_METRICS_TOKEN", default="") or None,
        },
        "RATE_LIMIT": {
            "IN_PROCESS": not USE_DYNAMODB,
            "TRUSTED_PROXIES": int(PROXIES) if PROXIES.isdecimal() else PROXIES.split(","),
        },
        "SCALING": {
            "ENABLED": env.bool("DYNAMODB_SCALING_ENABLED", default=False),
            "RECONCILE_INTERVAL": env.float("DYNAMODB_RECONCILE_INTERVAL", default=60_000) / 1000,
            "BASE_READ_CAPACITY": env.int("DYNAMODB_BASE_READ_CAPACITY", default=5),
            "BASE_WRITE_CAPACITY": env.int("DYNAMODB_BASE_WRITE_CAPACITY", default=5),
            "MAX_READ_CAPACITY": env.int("DYNAMODB_MAX_READ_CAPACITY", default=100),
            "MAX_WRITE_CAPACITY": env.int("DYNAMODB_MAX_WRITE_CAPACITY", default=50),
            "SCALE_UP_FACTOR": env.float("DYNAMODB_SCALE_UP_FACTOR", default=2.0),
            "SCALE_DOWN_DELAY": env.float("DYNAMODB_SCALE_DOWN_DELAY_MINUTES", default=10) * 60,
        },
        "TABLES": {
            table: {"TABLE_NAME": name}
            for table, name in {
                "forum-users": env.str("DYNAMODB_USERS_TABLE", default=""),
                "forum-threads": env.str("DYNAMODB_THREADS_TABLE", default=""),
                "forum-posts": env.str("DYNAMODB_POSTS_TABLE", default=""),
                "forum-support": env.str("DYNAMODB_SUPPORT_TABLE", default=""),
            }.items()
            if name
        },
    }
}
# Where the forum keeps its tables without DynamoDB.
FORUM_FOLDER = env.str("FORUM_FOLDER", default=str(BASE_DIR / ".data" / "forum"))


def _cache(prefix: str, **options: object) -> dict[str, object]:
    if not USE_DYNAMODB:
        return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": prefix}
    return {
        "BACKEND": "dynamo_stores.cache.DynamoDBCache",
        "LOCATION": "default",
        "KEY_PREFIX": prefix,
        "OPTIONS": options,
    }


CACHES = {
    "default": _cache("forum", LOCAL_TIMEOUT=1, LOCAL_STALE=600),
    # Authors are on every page, and seldom change.
    "profiles": _cache("profiles", LOCAL_TIMEOUT=10, LOCAL_STALE=600, IGNORE_EXCEPTIONS=True),
}

DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="webmaster@localhost")
_EMAIL = env.email_url("EMAIL_URL", default="consolemail://" if DEBUG else "smtp://localhost:25")
if django.VERSION >= (6, 1):
    _NAMES = {"HOST": "host", "PORT": "port", "HOST_USER": "username", "HOST_PASSWORD": "password"}
    _NAMES |= {"USE_TLS": "use_tls", "USE_SSL": "use_ssl"}
    MAILERS = {
        "default": {
            "BACKEND": _EMAIL["EMAIL_BACKEND"],
            "OPTIONS": {
                option: _EMAIL[f"EMAIL_{name}"]
                for name, option in _NAMES.items()
                if _EMAIL.get(f"EMAIL_{name}")
            },
        }
    }
else:
    globals().update(_EMAIL)

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="filesystem://")
BROKER_FOLDER = Path(env.str("CELERY_BROKER_FOLDER", default=str(BASE_DIR / ".data" / "broker")))
if CELERY_BROKER_URL == "filesystem://":
    # One folder for both directions: a worker reads the messages that a client writes.
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(BROKER_FOLDER / "queue"),
        "data_folder_out": str(BROKER_FOLDER / "queue"),
        "control_folder": str(BROKER_FOLDER / "control"),
    }
elif CELERY_BROKER_URL.startswith(("redis", "sqs", "sentinel")):
    # These brokers deliver a task again after the visibility timeout, and the task to scale down
    # waits in a worker for all its delay. SQS allows twelve hours at most.
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": min(
            12 * 3600, int(DYNAMO_STORES["default"]["SCALING"]["SCALE_DOWN_DELAY"]) + 3600
        )
    }
CELERY_TASK_IGNORE_RESULT = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "dynamo_stores": {
            "handlers": ["console"],
            "level": "DEBUG" if env.bool("DYNAMODB_ENABLE_LOGGING", default=False) else "INFO",
        }
    },
}
