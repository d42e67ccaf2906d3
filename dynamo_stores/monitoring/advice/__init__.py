"""Findings about the operations of a request, a test or a block, and what to do about them."""

from .facts import Facts, Group, facts_of, group
from .findings import CODES, HINT, PROBLEM, Finding, advise
from .recorder import Recorder, recorded

__all__ = [
    "CODES",
    "HINT",
    "PROBLEM",
    "Facts",
    "Finding",
    "Group",
    "Recorder",
    "advise",
    "facts_of",
    "group",
    "recorded",
]
