"""
What to change in a request that DynamoDB found invalid, by kinds of its messages: those of the
service, and those that DynamoDB Local has in their place.

A message may quote values of the request. Only those that quote no more than names are shown.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class _Kind(NamedTuple):
    """
    Messages in which ``pattern`` is found; ``advice`` has its groups as ``{0}``. ``is_shown`` says
    that they quote only names and placeholders of the request.
    """

    pattern: str
    advice: str
    is_shown: bool = False


_COMPARE = "'manage.py dynamo_verify' compares the table with its model."
_OF_THE_CONDITION = (
    "Compare the partition key with =, and at most the sort key beside it; other attributes belong "
    "in the filter."
)

# The first that fits applies.
_KINDS = (
    _Kind(
        "cannot be converted to a numeric value",
        "A value is no number of DynamoDB. Pass an int or a Decimal.",
    ),
    _Kind(
        "(?s)Input collection .* contains duplicates",
        "A set has a member twice. Pass a set of Python.",
    ),
    _Kind("Syntax error", "An expression has a syntax error. Correct the expression."),
    _Kind(
        r"Attribute name is a reserved keyword; reserved keyword: (\w+)",
        'Write #{0} instead in the expression, and pass names={{"#{0}": "{0}"}}.',
        is_shown=True,
    ),
    _Kind(
        r"empty (?:string|binary) value\..*Key: (.+)",
        "The key attribute {0!r} is empty. Pass a value that is not empty.",
    ),
    _Kind(
        r"Query condition missed key schema element: (.+)",
        f"The condition does not fit the key at the attribute {{0!r}}. {_OF_THE_CONDITION}",
    ),
    _Kind(
        "Query key condition not supported|Query condition missed key schema element|"
        "Invalid operator used in KeyConditionExpression",
        f"The condition does not fit the key. {_OF_THE_CONDITION}",
    ),
    _Kind(
        "(?i)starting key|exclusive ?start ?key",
        "The start is no key of this query or scan. Pass last_key of one of its pages as start, "
        "with the same condition and index.",
    ),
    _Kind(
        "^The provided key element does not match the schema|"
        "^The number of conditions on the keys is invalid|"
        "^One of the required keys was not given a value",
        f"Pass all attributes of the key and no others, each with its type. {_COMPARE}",
        is_shown=True,
    ),
    _Kind(
        "Missing the key |Type mismatch for (?:Index Key|key)\\b|"
        "Condition parameter type does not match schema type",
        f"Pass each attribute of a key with its type. {_COMPARE}",
        is_shown=True,
    ),
    _Kind(
        "^The table does not have the specified index",
        f"Correct the name of the index, or add the index. {_COMPARE}",
        is_shown=True,
    ),
    _Kind(
        "^Filter Expression can only contain non-primary key attributes",
        "Compare attributes of the key in the condition instead of the filter.",
        is_shown=True,
    ),
    _Kind(
        "unused in expressions|attribute value used in expression is not defined|"
        "attribute name used in the document path is not defined",
        "Pass each placeholder of the expressions in names or values, and no others.",
        is_shown=True,
    ),
    _Kind(
        "cannot include multiple operations on one item",
        "Combine the operations on one item.",
        is_shown=True,
    ),
    _Kind(
        r"Cannot update attribute (.+?)\. This attribute is part of the key",
        "The key attribute {0!r} of an item cannot be changed. Put an item with the new key, and "
        "delete the old one.",
    ),
    _Kind(
        "^Consistent reads are not supported on global secondary indexes",
        "Remove consistent=True for an index.",
        is_shown=True,
    ),
    _Kind(
        "^The provided expression refers to an attribute that does not exist in the item",
        "Write the attribute first, or use if_not_exists(attribute, :value).",
        is_shown=True,
    ),
    _Kind(
        "^An operand in the update expression has an incorrect data type",
        "Numbers are added to numbers, and sets to sets of their type.",
        is_shown=True,
    ),
)


def advice_on(message: str) -> str:
    """Return what to do about DynamoDB's ``message``, and the message if it may be shown."""
    for kind in _KINDS:
        if found := re.search(kind.pattern, message):
            shown = f"{message.removesuffix('.')}. " if kind.is_shown else ""
            return shown + kind.advice.format(*found.groups())
    return "Correct the arguments."
