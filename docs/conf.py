"""Settings of Sphinx, which builds these pages into a site: ``make docs``."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import django
from django.conf import settings

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER / "_extensions")]
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "dynamo_stores"],
    DYNAMO_STORES={"default": {}},
)
django.setup()

project = "dynamo-stores"
author = "the authors of dynamo-stores"
version = release = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"][
    "version"
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "navigation", "commands", "twins"]
exclude_patterns = ["_build"]
# Links lead to headings by the names that forges give them.
myst_heading_anchors = 4

# Every reference into this package must lead somewhere. Nothing is asked of other sites.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!dynamo_stores\.).*"),
    ("py:class", r"dynamo_stores\..*\.(F|P|R|R_co|T|V)"),
]
# Types in signatures, which no project makes or reads.
nitpick_ignore = [
    ("py:class", f"dynamo_stores.{path}")
    for path in (
        "cache.options.CacheOptions",
        "cache.stream_handler.Record",
        "calls.connection.Connection",
        "client.requests.Requests",
        "conf.groups.AdaptiveConfig",
        "conf.groups.ScalingConfig",
        "keys.ItemKey",
    )
]

add_module_names = False
# Docstrings of Django and PynamoDB say what is true of theirs.
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
smartquotes = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sphinx = False

# make docs-links asks each address once; these are not there to be asked.
linkcheck_ignore = [r"http://(127\.0\.0\.1|localhost)[:/].*"]
linkcheck_timeout = 20
linkcheck_retries = 2
