"""The key in KMS that ``ENCRYPTION_KEY`` names."""

from __future__ import annotations

from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ..calls.account import get_account
from ..calls.environment import is_loopback
from ..conf import get_config
from ..exceptions import StoreError, code_of
from .options import AWS_MANAGED, AWS_OWNED


def key_arn(using: str, key: str | None) -> str | None:
    """
    Return the ARN of the key that ``ENCRYPTION_KEY`` names, or its id if it names that; None for
    None and the key that AWS owns.

    DynamoDB describes tables by the ARN of the key, so an alias is looked up in KMS: one call.
    Raises StoreError if KMS does not know it, refuses, or does not answer.
    """
    if key is None or key == AWS_OWNED:
        return None
    alias = f"alias/{AWS_MANAGED[0]}" if key in AWS_MANAGED else key
    if "alias/" not in alias:
        return key
    config = get_config(using)
    try:
        client = _make_client(using)
        is_local = config.endpoint_url is not None and is_loopback(config.endpoint_url)
        if is_local and not is_loopback(client.meta.endpoint_url):
            # An engine on this machine comes without KMS, and describes the alias itself.
            return alias
        found = client.describe_key(KeyId=alias)
        return str(found["KeyMetadata"]["Arn"])
    except (BotoCoreError, ClientError) as exc:
        raise StoreError(
            f"KMS did not say which key {alias} is ({code_of(exc) or type(exc).__name__}). Allow "
            "kms:DescribeKey, or set ENCRYPTION_KEY to the ARN of the key."
        ) from exc


def is_key(live: str | None, wanted: str | None) -> bool:
    """Return whether the ARN ``live`` is that of the key ``wanted`` (an ARN, an alias or an id)."""
    if live is None or wanted is None:
        return live is wanted
    return live == wanted or live.endswith((f":{wanted}", f":key/{wanted}"))


def _make_client(using: str) -> Any:
    config = get_config(using)
    local = config.endpoint_url is not None and is_loopback(config.endpoint_url)
    return get_account(using).create_client(
        "kms",
        region_name=config.region or ("us-east-1" if local else None),
        # In a VPC without an endpoint for this service its address does not answer.
        config=Config(
            connect_timeout=2.0,
            read_timeout=5.0,
            retries={"total_max_attempts": 2, "mode": "standard"},
        ),
    )
