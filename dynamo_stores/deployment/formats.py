"""The formats of ``dynamo_infrastructure``: each is a function from a description to a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from ..monitoring.dashboard import region_of
from . import cli, cloudformation, terraform
from .description import Deployment


def _dashboard(deployment: Deployment) -> str:
    using = (*deployment.aliases, *(spec.using for spec in deployment.watched))[0]
    return json.dumps(deployment.dashboard(region_of(using)), indent=2)


FORMATS: Final[Mapping[str, Callable[[Deployment], str]]] = {
    "cloudformation": cloudformation.render,
    "terraform": terraform.render,
    "cli": cli.render,
    "dashboard": _dashboard,
}
