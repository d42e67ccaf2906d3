"""The size of an item by DynamoDB's rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KB = 1024
MAX_ITEM_BYTES = 400 * KB
MAX_BATCH_BYTES = 16 * KB * KB
MAX_PARTITION_READ_BYTES = KB * KB


def item_size(item: Mapping[str, Mapping[str, Any]]) -> int:
    """
    Return the bytes of ``item`` (DynamoDB-JSON): names and values in UTF-8, numbers about half
    a byte a digit, three bytes and one an element for lists and maps.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(_text_size(name) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return _text_size(content)
        case "B":
            return len(content)
        case "N":
            return _number_size(content)
        case "SS":
            return sum(map(_text_size, content))
        case "BS":
            return sum(len(each) for each in content)
        case "NS":
            return sum(_number_size(each) for each in content)
        case "L":
            return 3 + sum(1 + _value_size(each) for each in content)
        case "M":
            return 3 + sum(
                1 + _text_size(name) + _value_size(each) for name, each in content.items()
            )
    return 1


def _text_size(text: str) -> int:
    # JSON may have a lone surrogate, which UTF-8 has not.
    return len(text.encode(errors="surrogatepass"))


def _number_size(digits: str) -> int:
    significant = len(digits.lstrip("-").replace(".", "").strip("0"))
    return 1 + (significant + 1) // 2 + digits.startswith("-")
