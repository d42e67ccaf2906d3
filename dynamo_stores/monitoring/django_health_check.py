"""
A check for django-health-check 4, which must be installed.

It goes among the ``checks`` of a ``health_check.views.HealthCheckView``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from concurrent.futures import Executor

from health_check.base import HealthCheck, HealthCheckResult
from health_check.exceptions import ServiceUnavailable

from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import ConfigurationError
from .health import perform_health_check


@dataclasses.dataclass
class DynamoDB(HealthCheck):  # type: ignore[misc]
    """
    Check that the store's table of the alias ``using`` answers within ``HEALTH["TIMEOUT"]``.

    ``run`` raises ServiceUnavailable with the class name of the error, and no more of it.
    """

    using: str = DEFAULT_ALIAS

    async def get_result(self, executor: Executor | None = None) -> HealthCheckResult:
        """Return the result; the package's own time limit is never the shorter one."""
        with contextlib.suppress(ConfigurationError):  # run() reports it
            own = datetime.timedelta(seconds=get_config(self.using).health.timeout)
            self.timeout: datetime.timedelta = max(self.timeout, own)
        return await super().get_result(executor)

    def run(self) -> None:
        """Check, in a thread of the executor."""
        result = perform_health_check(self.using)
        if not result.success:
            raise ServiceUnavailable(f"the alias {self.using!r} does not answer ({result.error})")
