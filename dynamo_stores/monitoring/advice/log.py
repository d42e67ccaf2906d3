"""The findings of requests as lines of a log, each at most once in a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.http import HttpRequest

from ... import clock
from ...concurrency.bounded import BoundedDict
from ...conf import get_config
from .findings import Finding, advise
from .recorder import Recorder, recorded

logger = logging.getLogger(__name__)

# Views and findings whose last lines are remembered.
_REMEMBERED: Final = 1000


class FindingsLog:
    """Logs the findings of requests; the same one of a view once in ``ADVICE["INTERVAL"]``."""

    def __init__(self) -> None:
        self._logged: BoundedDict[tuple[str, str, tuple[str, ...]], float] = BoundedDict(
            _REMEMBERED
        )

    @contextmanager
    def of(self, request: HttpRequest) -> Iterator[Recorder]:
        """Record the operations of the block, and log the findings about them."""
        recorder: Recorder | None = None
        try:
            with recorded() as recorder:
                yield recorder
        finally:
            if recorder is not None:
                self._log_all(recorder, request)

    def _log_all(self, recorder: Recorder, request: HttpRequest) -> None:
        config = get_config().advice
        view = view_of(request)
        for finding in advise(
            recorder.operations, one_by_one=config.one_by_one, ignore=config.ignore
        ):
            if self._is_due(view, finding, config.interval):
                logger.log(
                    logging.WARNING if finding.is_problem else logging.INFO,
                    "%s: %s [%s]", view, finding, finding.code,
                    extra={
                        "dynamodb_view": view,
                        "dynamodb_finding": finding.code,
                        "dynamodb_count": finding.count,
                        "dynamodb_units": finding.units,
                    },
                )  # fmt: skip

    def _is_due(self, view: str, finding: Finding, interval: float) -> bool:
        name, now = (view, finding.code, finding.tables), clock.monotonic()
        last = self._logged.get(name)
        if last is not None and now - last < interval:
            return False
        self._logged.put(name, now)
        return True


def view_of(request: HttpRequest) -> str:
    """Return the name of the view of ``request``; its method without one, and never its path."""
    found = request.resolver_match
    return found.view_name if found is not None and found.view_name else f"{request.method} request"
