"""System checks: what is wrong in the settings, said before the first request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core import checks

from . import conf
from .exceptions import ConfigurationError


def check_settings(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return an Error for everything that is wrong in ``DYNAMO_STORES``."""
    return _errors(conf.find_problems())


def check_caches(app_configs: Any = None, **kwargs: object) -> Iterable[checks.CheckMessage]:
    """Return an Error for everything that is wrong in the ``CACHES`` of ours."""
    try:
        return _errors(conf.find_cache_problems())
    except ConfigurationError:
        return []  # check_settings says what is wrong with DYNAMO_STORES


def _errors(problems: list[conf.Problem]) -> list[checks.CheckMessage]:
    return [checks.Error(problem.message, hint=problem.hint, id=problem.id) for problem in problems]
