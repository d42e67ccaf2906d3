"""The directive ``management-commands``: the commands of an app, from their own parsers."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from typing import Any

from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import rst
from sphinx.util.docutils import SphinxDirective


class Commands(SphinxDirective):
    """``.. management-commands:: dynamo_stores``: a section for each command of the app."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        text = "\n".join(
            line
            for name, app in sorted(get_commands().items())
            if app == self.arguments[0]
            for line in _section(name, app)
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _section(name: str, app: str) -> Iterator[str]:
    parser = load_command_class(app, name).create_parser("manage.py", name)
    yield from ["", name, "-" * len(name), "", f".. program:: {name}", ""]
    yield from [rst.escape(" ".join((parser.description or "").split())), ""]
    yield from _arguments(parser)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield what is the command's own: the options of all of Django's commands are left out."""
    formatter = argparse.HelpFormatter(parser.prog)
    of_all = BaseCommand().create_parser("manage.py", "command")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                usage = each.format_usage().split()
                yield from ["", f"``{' '.join(usage[1:])}``", ""]
                about = next((c.help for c in action._choices_actions if c.dest == name), "")
                yield from [rst.escape(about or ""), "", f".. program:: {parser.prog} {name}", ""]
                yield from _arguments(each)
            continue
        if any(each.dest == action.dest for each in of_all._actions):
            continue
        if action.help == argparse.SUPPRESS:
            continue
        metavar = formatter._get_default_metavar_for_optional(action)
        takes = formatter._format_args(action, metavar)
        names = [f"{name} {takes}".strip() for name in action.option_strings] or [takes]
        yield from [f".. option:: {', '.join(names)}", ""]
        yield textwrap.indent(rst.escape(_meaning(action, formatter)), "   ")
        yield ""


def _meaning(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    text = formatter._expand_help(action) if action.help else ""
    if action.choices and not all(str(each) in text for each in action.choices):
        text += " One of: " + ", ".join(map(str, action.choices)) + "."
    default = action.default
    if default not in (None, False, True, [], "", argparse.SUPPRESS) and str(default) not in text:
        text += f" Default: {default}."
    return " ".join(text.split())


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("management-commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
