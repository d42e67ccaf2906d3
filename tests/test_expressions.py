"""Conditions and changes as text: what they say, and that DynamoDB takes them as PynamoDB's."""

from __future__ import annotations

import pytest
from pynamodb.attributes import (
    BinaryAttribute,
    NumberAttribute,
    UnicodeAttribute,
    UnicodeSetAttribute,
)

from dynamo_stores.expressions import (
    NO_CHANGE,
    add,
    at_least,
    at_most,
    equals,
    exists,
    less,
    missing,
    more,
    put,
    remove,
    to_arguments,
)

NAME = UnicodeAttribute(attr_name="n")
COUNT = NumberAttribute(attr_name="c")
TTL = NumberAttribute(attr_name="TTL")
DATA = BinaryAttribute(attr_name="d", legacy_encoding=False)
TAGS = UnicodeSetAttribute(attr_name="t")


def test_a_condition():
    """AND binds more tightly than OR, so alternatives are in parentheses."""
    condition = exists(NAME) & (missing(COUNT) | more(COUNT, 5)) & at_most(TTL, 7)
    assert condition.text == (
        "attribute_exists(n) AND (attribute_not_exists(c) OR c > :gt_c) AND #TTL <= :le_TTL"
    )
    assert condition.values == {":gt_c": {"N": "5"}, ":le_TTL": {"N": "7"}}
    assert to_arguments(condition) == {
        "ConditionExpression": condition.text,
        "ExpressionAttributeValues": condition.values,
        "ExpressionAttributeNames": {"#TTL": "TTL"},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


@pytest.mark.parametrize(
    ("compare", "sign"),
    [(equals, "="), (less, "<"), (at_most, "<="), (more, ">"), (at_least, ">=")],
)
def test_comparisons(compare, sign):
    """Each has a placeholder of its own, so that two of one attribute can be joined."""
    text, values = compare(COUNT, 2)
    (placeholder,) = values
    assert text == f"c {sign} {placeholder}"
    assert (compare(COUNT, 2) & equals(NAME, "x")).values[placeholder] == {"N": "2"}


def test_a_change():
    """Clauses are joined; values have the types of their attributes."""
    change = put(NAME, "x") + put(DATA, b"y") + remove(COUNT, TTL) + add(TAGS, {"a"}) + NO_CHANGE
    assert change.text == "SET n = :n, d = :d REMOVE c, #TTL ADD t :t"
    assert change.values == {":n": {"S": "x"}, ":d": {"B": b"y"}, ":t": {"SS": ["a"]}}
    assert to_arguments(None, change) == {
        "UpdateExpression": change.text,
        "ExpressionAttributeValues": change.values,
        "ExpressionAttributeNames": {"#TTL": "TTL"},
    }
    assert to_arguments(exists(NAME), remove(NAME)) == {
        "UpdateExpression": "REMOVE n",
        "ConditionExpression": "attribute_exists(n)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def test_a_placeholder_has_one_value():
    """Two different values of one would silently change the first condition."""
    assert (equals(COUNT, 1) & equals(COUNT, 1)).values == {":eq_c": {"N": "1"}}
    assert (equals(COUNT, 1) & equals(COUNT, 2, "seen")).text == "c = :eq_c AND c = :seen_c"
    with pytest.raises(ValueError, match=":eq_c has two values"):
        equals(COUNT, 1) | equals(COUNT, 2)
    with pytest.raises(ValueError, match=":n has two values"):
        put(NAME, "a") + put(NAME, "b")
    # A change and its condition have placeholders of their own.
    assert to_arguments(equals(NAME, "a"), put(NAME, "b"))["ExpressionAttributeValues"] == {
        ":n": {"S": "b"},
        ":eq_n": {"S": "a"},
    }
