"""``dynamo_simulate``: what it prints, what it advises, and what docs/scale.md shows of it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command, load_command_class

from dynamo_stores.management.scale.workload import Workload

PAGE = (Path(settings.BASE_DIR) / "docs" / "scale.md").read_text()
EXAMPLES = re.findall(
    r"^```sh\npython manage\.py dynamo_simulate ?([^\n]*)\n```\n\n```text\n(.*?)^```$",
    PAGE,
    re.MULTILINE | re.DOTALL,
)


def command(*arguments):
    out = io.StringIO()
    call_command("dynamo_simulate", *arguments, stdout=out)
    return out.getvalue()


def test_command_prints_a_table_and_a_verdict():
    """One line for the first minute, one for the last, and what to do."""
    lines = command(
        "--requests=2000", "--write-share=1", "--keys=1", "--minutes=25", "--shards=1"
    ).splitlines()
    assert lines[1].split()[:2] == ["minute", "offered"]
    assert " ".join(lines[2].split()) == "1 2,000 0 1,000 1,000 0 0 4 100% 0 1,000"
    assert lines[-5].split()[0] == "25"
    assert lines[-4] == "All that was served: 0 read units, 1,500,000 write units."
    assert "one key, which is asked for 2,000 write units a second and carries 1,000." in lines[-3]
    assert lines[-2] == "Spread the key over 2 items, as SHARDS of a limit does."
    assert lines[-1].startswith("In the last minute 50.00% of the requests is throttled")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--read-units=450000", "--write-units=100000", "--quota=1000000"], "Nothing is thrott"),
        ([], "Raise the warm throughput to 450,000 read units and 100,000 write units before"),
        ([], "Ask AWS for a quota of 450,000 read units and 100,000 write units"),
        (
            ["--ramp=1", "--requests=100000", "--write-share=0"],
            "Raise the warm throughput to 50,000 read",
        ),
        (["--requests=10000", "--write-share=0", "--keys=1"], "Raise LOCAL_TIMEOUT"),
        (
            ["--requests=4000", "--write-share=1", "--billing-mode=PROVISIONED"],
            "Nothing is throttled",
        ),
        (
            [
                "--requests=5000",
                "--write-share=1",
                "--billing-mode=PROVISIONED",
                "--burst-seconds=0",
            ],
            "Provision 5,000 write units.",
        ),
        (
            ["--requests=4000", "--write-share=1", "--hot-share=0.2", "--minutes=20"],
            "DynamoDB splits it after 300 seconds; let the traffic grow slowly. "
            "In the last minute nothing is throttled.",
        ),
    ],
)
def test_verdict_names_what_breaks_and_what_to_do(arguments, words):
    """A sentence for each cause."""
    assert words in " ".join(command("--minutes=1", *arguments).split())


@pytest.mark.parametrize(("arguments", "output"), EXAMPLES)
def test_examples_of_the_documentation_print_what_it_shows(arguments, output):
    """Each example in docs/scale.md, to the letter."""
    assert command(*arguments.split()) == output


def test_every_option_is_documented_with_its_default():
    """docs/scale.md names them all."""
    parser = load_command_class("dynamo_stores", "dynamo_simulate").create_parser("", "")
    own = {"requests", *Workload.__dataclass_fields__, "billing_mode", "quota", "seed", "minutes"}
    options = [line for line in PAGE.splitlines() if line.startswith("| `--")]
    for action in parser._actions:
        if action.dest in own or action.dest.endswith(("_minutes", "_units", "_seconds")):
            option = f"`{action.option_strings[-1]}`"
            (row,) = [line for line in options if option in line.split("|")[1]]
            if action.default:
                shown = action.default if isinstance(action.default, str) else f"{action.default:g}"
                assert shown.replace("e+06", "000000") in row, row


def test_command_prints_json():
    """Every minute, with the names of the model."""
    found = json.loads(command("--requests=2000", "--write-share=1", "--minutes=3", "--json"))
    assert [each["number"] for each in found["minutes"]] == [1, 2, 3]
    assert found["minutes"][0]["throttled"] == {"key": 0, "table": 0, "partition": 0}
    assert found["units"] == {"read": 0, "write": 360_000}
    assert found["first"] is None
    assert found["verdict"].startswith("Nothing is throttled.")
    found = json.loads(command("--minutes=1", "--json"))
    assert found["first"]["cause"] == "table"
    assert found["first"]["asked"] == {"read": 450_000, "write": 100_000}


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--requests=0", "--requests is 0.0; expected a number from 1 to 10,000,000."),
        ("--write-share=1.5", "--write-share is 1.5; expected a number from 0 to 1."),
        ("--keys=0", "--keys is 0; expected a whole number from 1 to"),
        ("--zipf=nan", "--zipf is nan; expected a number from 0 to 5."),
        ("--item-bytes=409601", "--item-bytes is 409601; expected"),
        ("--minutes=0", "--minutes is 0; expected"),
        ("--shards=0", "--shards is 0; expected"),
        ("--processes=0", "--processes is 0; expected"),
        ("--near-timeout=-1", "--near-timeout is -1.0; expected"),
        ("--billing-mode=free", "--billing-mode is free; expected PAY_PER_REQUEST or PROVISIONED."),
        ("--read-units=50000", "--read-units is 50,000; expected at most --quota, 40,000."),
        ("--write-units=50000", "--write-units is 50,000; expected at most --quota, 40,000."),
        ("--keys=many", "invalid int value: 'many'"),
    ],
)
def test_wrong_options_are_named(argument, sentence):
    """In one sentence, before any work."""
    with pytest.raises(CommandError) as caught:
        command(argument)
    assert sentence in str(caught.value)
