"""Plain values and DynamoDB-JSON."""

from __future__ import annotations

import base64
import inspect
import sys
from decimal import Context, Decimal

import pytest
from boto3.dynamodb.types import Binary, TypeDeserializer, TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.client.values import from_raw, identity_of, to_raw
from dynamo_stores.exceptions import InvalidRequestError

NUMBERS = st.integers(-(10**38) + 1, 10**38 - 1) | st.decimals(
    allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20
)
SCALARS = st.none() | st.booleans() | st.text() | st.binary() | NUMBERS
SETS = (
    st.sets(st.text(), min_size=1) | st.sets(st.binary(), min_size=1) | st.sets(NUMBERS, min_size=1)
)
VALUES = st.recursive(
    SCALARS | SETS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


def plain(value):
    """Return a value of boto3's deserializer with bytes instead of its class for them."""
    match value:
        case Binary():
            return bytes(value)
        case dict():
            return {name: plain(each) for name, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case set():
            return {plain(each) for each in value}
    return value


@given(VALUES)
def test_values_come_back_as_they_were(value):
    """As boto3 reads them, too: ints and Decimals are equal by value."""
    raw = to_raw(value, "item")
    assert from_raw(raw) == value
    assert plain(TypeDeserializer().deserialize(raw)) == value


@given(VALUES)
def test_what_boto3_wrote_is_read(value):
    """The same values from boto3's own serializer."""
    assert from_raw(TypeSerializer().serialize(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-7", -7), ("1.0", 1), ("1E+2", 100), ("0.10", Decimal("0.1")), ("1e-130", None)],
)
def test_whole_numbers_are_ints(text, value):
    """In every notation that an engine returns; all others are exact Decimals."""
    found = from_raw({"N": text})
    assert found == (Decimal(text) if value is None else value)
    assert type(found) is (int if isinstance(value, int) else Decimal)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": ["\ud800"]}, r"item\['a'\]\[0\] has half of a character"),
        ({"a": {"\udfff": 1}}, r"A name of item\['a'\] has half of a character"),
        ({"a": [1, 1.5]}, r"item\['a'\]\[1\] is a float.*Decimal\(str"),
        ({"a": {"b": set()}}, r"item\['a'\]\['b'\] is a set of nothing"),
        ({"a": {1, "x"}}, "set of int, str; expected a set of strings, of numbers or of bytes"),
        ({"a": {None}}, "set of NoneType"),
        ({"a": object()}, r"item\['a'\] is of the type object; expected a str"),
        ({1: "a"}, "item has a name of the type int; expected strings"),
        ({"a": {"": 1}}, r"item\['a'\] has an empty name"),
        ({"a": Decimal("NaN")}, r"item\['a'\] is NaN; expected a finite number"),
        ({"a": Decimal("Infinity")}, "finite"),
        ({"a": 10**38 + 1}, "39 significant digits"),
        ({"a": Decimal(10) ** 126}, "power of 126"),
        ({"a": Decimal("1E-131")}, "power of -131"),
    ],
)
def test_what_dynamodb_cannot_store_is_refused(value, words):
    """The message says where it is, what it is and what was expected, and not the value."""
    with pytest.raises(InvalidRequestError, match=words):
        to_raw(value, "item")


def test_a_deep_caller_is_not_told_of_its_values():
    """A RecursionError stays one if the value is not the reason."""
    value = 1
    for _ in range(20):
        value = [value]

    def call(levels):
        return call(levels - 1) if levels else to_raw(value, "item")

    with pytest.raises(RecursionError):
        call(sys.getrecursionlimit() - len(inspect.stack()) - 15)
    assert call(0)


@pytest.mark.parametrize(
    "number",
    [
        10**125,
        -(10**125),
        Decimal("9." + "9" * 37 + "E+125"),
        Decimal("1E-130"),
        Decimal(10**38 - 1),
        Decimal("0E+500"),
        Decimal("-0"),
        True + 1,
    ],
)
def test_numbers_at_the_limits(number):
    """38 digits, and powers from -130 to 125."""
    exact = Context(prec=200).create_decimal(number)
    assert Decimal(to_raw(number, "n")["N"]) == exact
    assert from_raw(to_raw(number, "n")) == exact


def test_bytes_in_all_their_types():
    """bytearray and memoryview are stored as bytes are, base64 is for the wire."""
    for value in (b"ab", bytearray(b"ab"), memoryview(b"ab")):
        assert to_raw(value, "b") == {"B": b"ab"}
    assert from_raw({"BS": [b"a", base64.b64decode("Yg==")]}) == {b"a", b"b"}


def test_keys_are_equal_by_value():
    """1 and 1.0 are one key, "1" is another."""
    keys = [{"id": {"N": text}} for text in ("1", "1.0", "1E+0")] + [{"id": {"S": "1"}}]
    assert len({identity_of(key, ["id"]) for key in keys}) == 2
