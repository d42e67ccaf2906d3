"""The prices that the settings of an alias choose."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from ..calls.account import get_account
from ..conf import get_config
from .prices import Prices, read_prices


def prices_of(
    using: str,
    *,
    path: str | Path | None = None,
    region: str | None = None,
    price_region: str | None = None,
    factor: Decimal | None = None,
) -> Prices:
    """
    Return the prices for the region of an alias; what is not given is that of ``COST``.

    Raises ConfigurationError as :func:`~dynamo_stores.cost.read_prices` does, and the errors of
    the alias's account.
    """
    config = get_config(using)
    region = region or config.region
    if region is None:
        region = get_account(using).session.get_config_variable("region")
    return read_prices(
        path or config.cost.prices,
        region,
        price_region=price_region or config.cost.price_region,
        factor=Decimal(str(config.cost.factor)) if factor is None else factor,
    )
