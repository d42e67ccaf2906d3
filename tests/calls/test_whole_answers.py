"""Answers without a checksum: which of them are complete."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.calls.wire import is_complete_json

VALUES = st.recursive(
    st.text() | st.sampled_from(["{", "}", "}}"]), lambda each: st.dictionaries(st.text(), each)
)


@given(st.dictionaries(st.text(), VALUES))
def test_a_complete_answer_is_complete(answer):
    """Whatever its strings contain."""
    assert is_complete_json(json.dumps(answer).encode())


@given(
    st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.sampled_from("ab"), st.text("ab")))
)
def test_a_part_of_an_answer_is_not(answer):
    """Also if it ends with a brace; botocore would take it for an empty answer."""
    body = json.dumps({"Attributes": answer}).encode()
    assert not any(is_complete_json(body[:end]) for end in range(len(body)))
