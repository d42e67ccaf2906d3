"""
References between items, where models declare them.

``references = {"thread_id": "forum.models.Thread"}`` on a model says that the attribute holds the
partition key of an item of the other model. DynamoDB does not enforce it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps

from ..calls.background import BackgroundWork, Pace
from ..calls.batches import batch_get
from ..calls.connection import get_connection
from ..concurrency.effects import Verb, run
from ..conf.aliases import imported
from ..conf.rules import suggestion
from ..exceptions import ConfigurationError
from ..models import DynamoModel, concrete_models, path_of
from .backups.digests import item_digest
from .backups.pacing import PATIENCE
from .backups.scan import Page, TableScan
from .tables import table_of

RawItem = dict[str, Any]

# Values that are known to be keys of existing items.
_KNOWN = 50_000
_MAX_KEY_BYTES = 2048
_EXPECTED = "the dotted path of a DynamoModel, such as 'package.module.Class'"


@dataclass(frozen=True)
class Reference:
    """An attribute of a table that holds the partition key ``key`` of another table."""

    table: str
    using: str
    keys: tuple[str, ...]
    attribute: str
    to_table: str
    to_using: str
    to_key: str
    to_type: str
    to_has_sort_key: bool

    def __str__(self) -> str:
        return f"{self.table}: {self.attribute}, a key of {self.to_table}"


@dataclass
class Dangling:
    """
    Of all ``read`` items of a table, ``items`` have the attribute, and ``count`` of these refer to
    nothing. ``keys`` are the keys of these items, if asked for, each with the missing key.
    """

    read: int = 0
    items: int = 0
    count: int = 0
    keys: list[tuple[RawItem, RawItem]] = field(default_factory=list)


def declaring_models() -> list[type[DynamoModel]]:
    """Return the models of installed apps that declare references."""
    return [
        model
        for model in concrete_models()
        # An attribute of an item may have that name.
        if isinstance(model.references, Mapping)
        and model.references
        and apps.get_containing_app_config(model.__module__)
    ]


def references_of(model: type[DynamoModel]) -> list[Reference]:
    """Return what ``model`` declares. Raises ConfigurationError as :func:`reference_of` does."""
    return [reference_of(model, name) for name in model.references]


def reference_of(model: type[DynamoModel], name: str) -> Reference:
    """
    Return what ``model`` declares for its attribute ``name``.

    Raises ConfigurationError for an attribute that it does not have, for another model that does
    not exist, and for a value that cannot be its key.
    """
    spec, attributes, path = table_of(model), model.get_attributes(), model.references[name]
    where = f"{path_of(model)}.references[{name!r}]"
    if name not in attributes:
        raise ConfigurationError(
            f"{where}: the model has no attribute {name!r}{suggestion(name, attributes)}"
        )
    try:
        other = imported(path)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{where}: {exc} Expected {_EXPECTED}.") from None
    if not (isinstance(other, type) and issubclass(other, DynamoModel)):
        raise ConfigurationError(f"{where} is {path!r}; expected {_EXPECTED}.")
    target = table_of(other)
    key, kind = target.keys.partition, attributes[name].attr_type
    if kind != target.types[key]:
        raise ConfigurationError(
            f"{where}: the attribute is of type {kind}, and the partition key {key!r} of "
            f"{path} of type {target.types[key]}; expected the same type."
        )
    return Reference(
        table=spec.name,
        using=spec.using,
        keys=tuple(each for each in (spec.keys.partition, spec.keys.sort) if each),
        attribute=attributes[name].attr_name,
        to_table=target.name,
        to_using=target.using,
        to_key=key,
        to_type=target.types[key],
        to_has_sort_key=target.keys.sort is not None,
    )


def find_dangling(
    references: list[Reference],
    *,
    segments: int = 1,
    units_per_second: float | None = None,
    with_keys: bool = False,
    progress: Callable[[int], None] = lambda items: None,
) -> list[Dangling]:
    """
    Return for each of ``references``, all of one table, the items that refer to no item.

    The table is read once. An item without the attribute, or with null, refers to nothing and is
    none of them.
    """
    first = references[0]
    found = [Dangling() for _ in references]
    existing = [_Existing(each, units_per_second) for each in references]
    names = list(dict.fromkeys([*first.keys, *(each.attribute for each in references)]))
    attributes = {
        "ProjectionExpression": ", ".join(f"#a{number}" for number in range(len(names))),
        "ExpressionAttributeNames": {f"#a{number}": name for number, name in enumerate(names)},
    }
    lock = threading.Lock()
    done = 0

    def handle(page: Page) -> None:
        nonlocal done
        with lock:
            for reference, result, exists in zip(references, found, existing, strict=True):
                name = reference.attribute
                held = [item for item in page.items if "NULL" not in item.get(name, {"NULL": True})]
                missing = exists.missing([item[name] for item in held])
                result.read += len(page.items)
                result.items += len(held)
                for item in held:
                    if item_digest({"": item[name]}) in missing:
                        result.count += 1
                        if with_keys:
                            result.keys.append(({key: item[key] for key in first.keys}, item[name]))
            done += len(page.items)
            progress(done)

    TableScan(
        first.using,
        first.table,
        segments=segments,
        units_per_second=units_per_second,
        attributes=attributes,
    ).run(handle)
    return found


class _Existing:
    """Asks whether items exist, and remembers those that do."""

    def __init__(self, reference: Reference, units_per_second: float | None) -> None:
        self._reference = reference
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._work = BackgroundWork(PATIENCE)
        self._pace = None if units_per_second is None else Pace(units_per_second)

    def missing(self, values: list[RawItem]) -> set[bytes]:
        """Return the digests of those ``values`` that are no key of an item."""
        missing: set[bytes] = set()
        asked: dict[bytes, RawItem] = {}
        for value in values:
            digest = item_digest({"": value})
            if not self._can_be_key(value):
                missing.add(digest)
            elif digest not in self._known:
                asked[digest] = value
        if asked:
            for value in run(self._read(list(asked.values()))):
                digest = item_digest({"": value})
                asked.pop(digest, None)
                self._known[digest] = None
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return missing | asked.keys()

    def _can_be_key(self, value: RawItem) -> bool:
        # DynamoDB refuses a whole request for one value that can be no key.
        ((kind, content),) = value.items()
        if kind != self._reference.to_type:
            return False
        data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
        return 0 < len(data) <= _MAX_KEY_BYTES

    async def _read(self, values: list[RawItem]) -> list[RawItem]:
        """Return those of ``values`` that are the partition key of an item. A verb."""
        reference = self._reference
        connection, name = get_connection(reference.to_using).here, reference.to_key
        if not reference.to_has_sort_key:
            shown = {"ProjectionExpression": "#k", "ExpressionAttributeNames": {"#k": name}}

            def read() -> Verb[list[RawItem]]:
                keys = [{name: each} for each in values]
                return batch_get(
                    connection, reference.to_table, keys, consistent=True, attributes=shown
                )

            items = await self._work.call(read)
            await self._consumed(len(values))
            return [each[name] for each in items]
        found = []
        for value in values:
            request = {
                "TableName": reference.to_table,
                "KeyConditionExpression": "#k = :k",
                "ExpressionAttributeNames": {"#k": name},
                "ExpressionAttributeValues": {":k": value},
                "ProjectionExpression": "#k",
                "ConsistentRead": True,
                "Limit": 1,
            }
            answer = await self._work.call(
                lambda request=request: connection.call("Query", dict(request))  # type: ignore[misc]
            )
            await self._consumed(1)
            found += [value] if answer["Items"] else []
        return found

    async def _consumed(self, units: float) -> None:
        if self._pace is not None:
            await self._pace.consumed(units)
