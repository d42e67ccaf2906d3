"""
A panel of django-debug-toolbar with the operations of a request and the findings about them.

Only the toolbar imports it, by its path in ``DEBUG_TOOLBAR_PANELS``.
"""

from __future__ import annotations

from typing import Any

from debug_toolbar.panels import Panel
from django.http import HttpRequest, HttpResponse

from ..conf import get_config
from .advice import Facts, Finding, Group, Recorder, advise, group

# Keys of a batch that are shown.
_KEYS = 5


class DynamoDBPanel(Panel):
    """
    Lists the operations of DynamoDB that a request made, in groups that are alike, with their time,
    units, attempts, errors and the lines from which they were called; and what costs more than it
    has to. For sync and async views. It shows keys, and no other values.
    """

    title = "DynamoDB operations"
    nav_title = "DynamoDB"
    template = "dynamo_stores/debug_panel.html"
    is_async = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recorder = Recorder()

    @property
    def nav_subtitle(self) -> str:
        """The number of operations, their time, and the number of problems."""
        stats = self.get_stats()
        if not stats:
            return ""
        problems = sum(each["severity"] == "problem" for each in stats["findings"])
        found = f", {_count(problems, 'problem')}" if problems else ""
        return f"{_count(stats['total'], 'operation')} in {stats['milliseconds']:.1f} ms{found}"

    def enable_instrumentation(self) -> None:
        """Begin to record, in the context of the request."""
        self._recorder.start()

    def disable_instrumentation(self) -> None:
        """End it."""
        self._recorder.stop()

    def generate_stats(self, request: HttpRequest, response: HttpResponse) -> None:
        """Record what the page of the panel shows, as plain values."""
        recorder, config = self._recorder, get_config().advice
        found = advise(recorder.operations, one_by_one=config.one_by_one, ignore=config.ignore)
        codes: dict[int, list[str]] = {}
        for finding in found:
            for each in finding.operations:
                codes.setdefault(id(each), []).append(finding.code)
        self.record_stats(
            {
                "total": recorder.total,
                "dropped": recorder.dropped,
                "milliseconds": sum(each.seconds for each in recorder.operations) * 1000,
                "units": sum(each.total_units for each in recorder.operations),
                "findings": [_shown_finding(each) for each in found],
                "groups": [_shown_group(each, codes) for each in group(recorder.operations)],
            }
        )

    def generate_server_timing(self, request: HttpRequest, response: HttpResponse) -> None:
        """Tell the browser the time of all operations."""
        stats = self.get_stats()
        self.record_server_timing(
            "operations", _count(stats["total"], "DynamoDB operation"), stats["milliseconds"]
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _shown_finding(finding: Finding) -> dict[str, Any]:
    places = dict.fromkeys(each.place for each in finding.operations if each.place)
    return {
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "advice": finding.advice,
        "places": [list(each) for each in places],
    }


def _shown_group(found: Group, codes: dict[int, list[str]]) -> dict[str, Any]:
    first = found.first
    return {
        "using": first.using,
        "operation": first.operation,
        "where": first.where,
        "shape": first.shape,
        "count": len(found.operations),
        "milliseconds": found.seconds * 1000,
        "units": found.units,
        "codes": sorted({code for each in found.operations for code in codes.get(id(each), ())}),
        "operations": [_shown(each, codes.get(id(each), [])) for each in found.operations],
    }


def _shown(facts: Facts, codes: list[str]) -> dict[str, Any]:
    keys = facts.keys
    if len(facts.tables) == 1:
        keys = tuple(each.removeprefix(f"{facts.tables[0]} ") for each in keys)
    more = len(keys) - _KEYS
    return {
        "milliseconds": facts.seconds * 1000,
        "units": facts.total_units,
        "attempts": facts.attempts,
        "throttles": facts.throttles,
        "error": facts.error or ", ".join(facts.errors),
        "keys": [*keys[:_KEYS], *([f"{more} more"] if more > 0 else [])],
        "partition": "" if facts.keys else facts.partition,
        "read": facts.read if facts.is_read else None,
        "returned": facts.returned,
        "place": list(facts.place),
        "codes": codes,
    }
