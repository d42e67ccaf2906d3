"""Reading a tree of items, level by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..concurrency.effects import Verb
from ..concurrency.together import together
from ..exceptions import InvalidRequestError
from .values import from_raw_item, identity_of, to_raw

Key = dict[str, Any]
RawItem = dict[str, Any]
# Requests of one level at a time.
_AT_ONCE = 8


@dataclass(eq=False)
class TreeNode:
    """An item, and the nodes below it in their order."""

    item: dict[str, Any]
    children: list[TreeNode] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TreeMetadata:
    """
    ``node_count`` counts all nodes, ``depth`` the levels below the root. ``missing`` counts
    references to items that do not exist, ``repeated`` references to nodes that are elsewhere in
    the tree already (an item is in it once). With ``is_complete`` False there are levels below
    ``max_depth`` that were not read, or may be.
    """

    node_count: int
    depth: int
    missing: int = 0
    repeated: int = 0
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree below ``root``; ``metadata`` only if it was asked for."""

    root: TreeNode
    metadata: TreeMetadata | None = None


# Return the raw children of each node, and how many were missing.
ReadLevel = Callable[[list[RawItem]], Verb[tuple[list[list[RawItem]], int]]]


class TreeReader:
    """Builds the tree of one call. Its coroutines are verbs."""

    def __init__(self, key_names: tuple[str, ...], read_level: ReadLevel) -> None:
        self._key_names = key_names
        self._read_level = read_level
        self._missing = self._repeated = 0

    async def read(self, root: RawItem, max_depth: int | None, *, include_metadata: bool) -> Tree:
        """Return the tree below ``root``, an item as DynamoDB has it."""
        top = TreeNode(from_raw_item(root))
        seen, depth, count = {self._identity(root)}, 0, 1
        level: list[tuple[RawItem, TreeNode]] = [(root, top)]
        while level and (max_depth is None or depth < max_depth):
            found, missing = await self._read_level([raw for raw, _ in level])
            self._missing += missing
            below: list[tuple[RawItem, TreeNode]] = []
            for (_, node), children in zip(level, found, strict=True):
                for raw in children:
                    identity = self._identity(raw)
                    if identity in seen:
                        self._repeated += 1
                        continue
                    seen.add(identity)
                    child = TreeNode(from_raw_item(raw))
                    node.children.append(child)
                    below.append((raw, child))
            count += len(below)
            depth += bool(below)
            level = below
        if not include_metadata:
            return Tree(top)
        return Tree(
            top, TreeMetadata(count, depth, self._missing, self._repeated, is_complete=not level)
        )

    def _identity(self, item: RawItem) -> tuple[Any, ...]:
        return identity_of(item, self._key_names)


async def children_by_query(
    nodes: list[RawItem],
    id_name: str,
    query: Callable[[Any], Verb[list[RawItem]]],
) -> tuple[list[list[RawItem]], int]:
    """Return the children that a Query finds for the id of each node, side by side. A verb."""

    async def read(node: RawItem) -> list[RawItem]:
        return await query(node[id_name])

    return await together(nodes, read, max_concurrency=_AT_ONCE), 0


async def children_by_keys(
    nodes: list[RawItem],
    attribute: str,
    key_names: tuple[str, ...],
    read_keys: Callable[[list[Key]], Verb[list[RawItem]]],
) -> tuple[list[list[RawItem]], int]:
    """
    Return the children whose keys are in the list ``attribute`` of each node, and how many keys
    have no item; one BatchGetItem for each 100 of the level. A verb.
    """
    wanted = [[_key_of(each, key_names, attribute) for each in _listed(node, attribute)]
              for node in nodes]  # fmt: skip
    named = [[identity_of(key, key_names) for key in keys] for keys in wanted]
    unique = {
        name: key
        for names, keys in zip(named, wanted, strict=True)
        for name, key in zip(names, keys, strict=True)
    }
    found = {identity_of(item, key_names): item for item in await read_keys(list(unique.values()))}
    missing = sum(name not in found for names in named for name in names)
    return [[found[name] for name in names if name in found] for names in named], missing


def root_key(root_id: Any, key_names: tuple[str, ...]) -> Key:
    """Return the key of the root: its id is the partition key, or a dict of the whole key."""
    if isinstance(root_id, Mapping):
        return {name: to_raw(root_id[name], f"root_id[{name!r}]") for name in root_id}
    if len(key_names) > 1:
        raise InvalidRequestError(
            f"root_id is {type(root_id).__name__}, and the table has the key "
            f"({', '.join(key_names)}); expected a dict with both."
        )
    return {key_names[0]: to_raw(root_id, "root_id")}


def _listed(node: RawItem, attribute: str) -> list[Any]:
    value = node.get(attribute)
    if value is None:
        return []
    ((kind, content),) = value.items()
    if kind == "L":
        return list(content)
    if kind in ("SS", "NS", "BS"):
        return [{kind[0]: each} for each in sorted(content)]
    return []


def _key_of(reference: dict[str, Any], key_names: tuple[str, ...], attribute: str) -> Key:
    if "M" in reference and set(reference["M"]) == set(key_names):
        return {name: reference["M"][name] for name in key_names}
    if "M" in reference or len(key_names) > 1:
        raise InvalidRequestError(
            f"The attribute {attribute!r} lists references that are not keys of the table; "
            f"expected {'dicts with ' if len(key_names) > 1 else ''}{', '.join(key_names)}."
        )
    return {key_names[0]: reference}
