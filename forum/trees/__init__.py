"""
The posts of a thread as a tree of any depth.

A post has a place: the number that it got from its parent, after the place of the parent. The
places of a thread are the sort keys of one partition, so that a Query returns a subtree in order.
A place does not grow with depth: a post whose place would be longer than ``MAX_PLACE`` characters
has a branch, a partition of its own in which its replies have places from the beginning.
"""

from .branches import TreeUnfinished
from .places import MAX_PLACE, Place, code, reply
from .reading import Cursor, Node, Root, TreePage, read_page
from .tree import (
    NoSuchPost,
    NoSuchThread,
    Tree,
    TreeBusy,
    WouldBeCycle,
    first_post,
    place_item,
)
from .work import hidden_place, place_now, removal_of_thread

__all__ = [
    "MAX_PLACE",
    "Cursor",
    "NoSuchPost",
    "NoSuchThread",
    "Node",
    "Place",
    "Root",
    "Tree",
    "TreeBusy",
    "TreePage",
    "TreeUnfinished",
    "WouldBeCycle",
    "code",
    "first_post",
    "hidden_place",
    "place_item",
    "place_now",
    "read_page",
    "removal_of_thread",
    "reply",
]
