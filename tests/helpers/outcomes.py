"""``--outcomes FILE`` writes the outcomes of tests, ``--compare FILE`` lists differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="Write the outcome of each test to this file.")
    parser.addoption(
        "--compare", type=Path, help="List differences from the outcomes in this file."
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    found = {
        report.nodeid: outcome
        for outcome in ("passed", "failed", "skipped", "error")
        for report in terminalreporter.stats.get(outcome, [])
    }
    if path := config.getoption("--outcomes"):
        path.write_text(json.dumps(found))
    if path := config.getoption("--compare"):
        before = json.loads(path.read_text())
        different = [
            f"{name}: {before[name]} there, {outcome} here"
            for name, outcome in found.items()
            if before.get(name, outcome) != outcome
        ]
        terminalreporter.section("differences from the other engine")
        for line in different or ["Nothing: every test has the same outcome on both."]:
            terminalreporter.line(line)
