"""Trees of items."""

from __future__ import annotations

import random

import pytest

from dynamo_stores.calls.observer import measuring, recording
from dynamo_stores.client import Put
from dynamo_stores.exceptions import InvalidRequestError

BELOW = {"parent": "parent", "index": "by-parent"}


def shape(node):
    """Return a node's id and the shapes below it."""
    return (node.item["id"], [shape(each) for each in node.children])


@pytest.fixture
def chat(client):
    """A tree of five nodes by their parents, and by lists of children."""
    client.batch_write(
        "posts",
        puts=[
            {"id": "root", "kids": ["b", "a"]},
            {"id": "a", "parent": "root", "at": 2, "kids": ["c"]},
            {"id": "b", "parent": "root", "at": 1},
            {"id": "c", "parent": "a", "at": 3, "kids": {"d"}},
            {"id": "d", "parent": "c", "at": 4},
            {"id": "other", "parent": "elsewhere", "at": 1},
        ],
    )
    return client


@pytest.mark.parametrize("how", [BELOW, {"children": "kids"}])
def test_a_tree_in_its_order(chat, how):
    """Children by the index's sort key, or in the order of the list."""
    tree = chat.read_tree("posts", "root", **how, include_metadata=True)
    assert shape(tree.root) == ("root", [("b", []), ("a", [("c", [("d", [])])])])
    metadata = tree.metadata
    assert (metadata.node_count, metadata.depth, metadata.is_complete) == (5, 3, True)
    assert chat.read_tree("posts", "root", **how).metadata is None
    assert chat.read_tree("posts", "none", **how) is None


def test_calls_for_each_level(chat):
    """A Query for each node, or a BatchGetItem for each level."""
    for how, expected in (
        (BELOW, ["GetItem"] + ["Query"] * 5),
        ({"children": "kids"}, ["GetItem"] + ["BatchGetItem"] * 3),
    ):
        with measuring() as found:
            chat.read_tree("posts", "root", **how)
        assert [each.operation for each in found] == expected


def test_reads_of_the_index_are_counted_for_it(chat):
    """Not for the table: an index without reads looks unused. A total has them in one figure."""
    with recording() as found:
        chat.read_tree("posts", "root", **BELOW)
    asked = {each.request["ReturnConsumedCapacity"] for each in found if each.operation == "Query"}
    assert asked == {"INDEXES"}


def test_max_depth(chat):
    """Levels below it are not read, and it says so."""
    tree = chat.read_tree("posts", "root", **BELOW, max_depth=1, include_metadata=True)
    assert shape(tree.root) == ("root", [("b", []), ("a", [])])
    assert (tree.metadata.depth, tree.metadata.is_complete) == (1, False)
    with measuring() as found:
        assert chat.read_tree("posts", "root", **BELOW, max_depth=0).root.children == []
    assert len(found) == 1


def test_cycles_and_missing_items_are_counted(client):
    """Each item is in the tree once."""
    client.batch_write(
        "posts",
        puts=[
            {"id": "1", "kids": ["2", "3", "gone"]},
            {"id": "2", "kids": ["1", "3"]},
            {"id": "3", "kids": ["3"]},
        ],
    )
    tree = client.read_tree("posts", "1", children="kids", include_metadata=True)
    assert shape(tree.root) == ("1", [("2", []), ("3", [])])
    metadata = tree.metadata
    assert (metadata.node_count, metadata.missing, metadata.repeated) == (3, 1, 3)


def test_a_deep_and_a_wide_tree(client):
    """Neither recursion nor one request for each node of a level's list."""
    rng = random.Random(5)
    parents = {n: n - 1 if n < 300 else rng.randrange(n) for n in range(1, 700)}
    kids = {n: [str(kid) for kid, parent in parents.items() if parent == n] for n in range(700)}
    client.batch_operations(
        Put("posts", {"id": str(n), "kids": kids[n]} if kids[n] else {"id": str(n)})
        for n in range(700)
    )
    tree = client.read_tree("posts", "0", children="kids", include_metadata=True)
    assert tree.metadata.node_count == 700
    assert tree.metadata.depth >= 299
    waiting, found = [tree.root], {}
    while waiting:
        each = waiting.pop()
        found[each.item["id"]] = [below.item["id"] for below in each.children]
        waiting += each.children
    assert found == {str(n): kids[n] for n in range(700)}


def test_a_table_with_a_sort_key(client):
    """References and the root are whole keys."""
    client.batch_write(
        "lines",
        puts=[
            {
                "order": "a",
                "line": 1,
                "kids": [{"order": "a", "line": 2}, {"order": "b", "line": 1}],
            },
            {"order": "a", "line": 2},
            {"order": "b", "line": 1},
        ],
    )
    tree = client.read_tree("lines", {"order": "a", "line": 1}, children="kids")
    assert [each.item["order"] for each in tree.root.children] == ["a", "b"]
    with pytest.raises(
        InvalidRequestError, match=r"key \(order, line\); expected a dict with both"
    ):
        client.read_tree("lines", "a", children="kids")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "expected parent with index, or children alone"),
        ({"parent": "parent"}, "expected parent with index"),
        ({"parent": "parent", "index": "by-parent", "children": "kids"}, "or children alone"),
        ({"children": "kids", "index": "by-parent"}, "or children alone"),
        ({"children": "kids", "max_depth": -1}, "max_depth is -1; expected 0 or more"),
    ],
)
def test_wrong_arguments(client, arguments, words):
    """They are refused before a call."""
    with measuring() as found, pytest.raises(InvalidRequestError, match=words):
        client.read_tree("posts", "a", **arguments)
    assert not found


def test_references_that_are_no_keys(client):
    """The message names the attribute."""
    client.put("posts", {"id": "a", "kids": [{"name": "x"}]})
    with pytest.raises(InvalidRequestError, match="attribute 'kids' lists references"):
        client.read_tree("posts", "a", children="kids")
