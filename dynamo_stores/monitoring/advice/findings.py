"""The rules: what operations cost without need, and what to do instead. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ...calls.item_size import KB
from ...calls.observer import Operation
from .facts import ANY_KEY, Facts, facts_of, key_names_in

PROBLEM: Final = "problem"
HINT: Final = "hint"

# So many reads or writes of one table could have been one batch.
ONE_BY_ONE: Final = 5
# A filter that left less than half of at least so many items.
_FILTERED = 10
# Bytes of one answer from which on a projection is worth a thought.
_WIDE = 64 * KB
# Pages of one Query.
_PAGES = 3
# So many calls of one table in a block, and the share of them that one partition key had.
_HOT_CALLS, _HOT_SHARE = 20, 0.5
# Items just over a boundary: at most so many bytes, in at least so many operations.
_JUST_OVER = {4 * KB: 200, KB: 50}
_BOUNDARY_OPERATIONS, _BOUNDARY_UNITS = 5, 4


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What costs more than it has to. ``message`` and ``advice`` have neither keys nor values;
    ``units`` are the capacity units of the operations concerned.
    """

    code: str
    severity: str
    message: str
    advice: str
    units: float
    operations: tuple[Facts, ...]

    @property
    def count(self) -> int:
        """How many operations are concerned."""
        return len(self.operations)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that are concerned."""
        return tuple(sorted({name for each in self.operations for name in each.tables}))

    @property
    def is_problem(self) -> bool:
        """Whether it is a problem, and not only a hint."""
        return self.severity == PROBLEM

    def __str__(self) -> str:
        return f"{self.message} {self.advice}"


_ADVICE: Final = {
    "scan": "A Scan reads and charges every item of the table. Query by a key, or by an index that "
    "has the wanted attribute as its key.",
    "reads-one-by-one": "Read them with one BatchGetItem (up to 100 keys; the cache's get_many), "
    "or with one Query if they have the same partition key. The units are the same, the waits are "
    "not.",
    "writes-one-by-one": "Write them with one BatchWriteItem (up to 25 items; the cache's "
    "set_many), which takes neither conditions nor updates.",
    "repeated-reads": "Keep the first answer for the rest of the request, or cache it.",
    "filtered": "A filter is applied after the read, so what it drops is charged, too. Put the "
    "attribute into the sort key or into the key of an index.",
    "wide-reads": "If only some attributes are used, name them in a ProjectionExpression. It saves "
    "transfer and no read units; an index that has fewer attributes saves units, too.",
    "strong-reads": "If a value that is some hundred milliseconds old will do, read without "
    "ConsistentRead, at half the price.",
    "many-pages": "Ask for as many items as the page shows, with Limit, and continue from the last "
    "key in the next request.",
    "hot-key": "One partition carries 3,000 read and 1,000 write units a second. Read once, sum up "
    "writes, or spread the key over several.",
    "single-transaction": "A transaction costs twice the units. One operation with a "
    "ConditionExpression is atomic, too; only a request that is repeated needs the token.",
    "throttled": "See which of table, index and partition was short, on the status pages, and "
    "raise its capacity or spread the keys.",
    "retried": "Attempts got no answer and were repeated. See the errors of the attempts.",
    "unit-boundary": "They are charged for a whole unit more. Shorter attribute names or values "
    "would do.",
    "overwrites": "Another request may have changed the item in between. Update the changed "
    "attributes with UpdateItem, or put with a condition.",
}
CODES: Final = tuple(_ADVICE)


def advise(
    operations: Iterable[Operation | Facts],
    *,
    one_by_one: int = ONE_BY_ONE,
    ignore: Collection[str] = (),
) -> list[Finding]:
    """
    Return the findings about ``operations``, problems first, without the codes in ``ignore``.

    ``one_by_one`` is the number of reads or writes from which on they should have been a batch.
    """
    operations = _facts(operations)
    found = [
        *_scans(operations),
        *_one_by_one(operations, one_by_one),
        *_repeated_reads(operations),
        *_filtered(operations),
        *_many_pages(operations),
        *_single_transactions(operations),
        *_throttled(operations),
        *_strong_reads(operations),
        *_wide_reads(operations),
        *_hot_keys(operations),
        *_overwrites(operations),
        *_unit_boundaries(operations),
    ]
    kept = [each for each in found if each.code not in ignore]
    return sorted(kept, key=lambda each: not each.is_problem)


def _facts(operations: Iterable[Operation | Facts]) -> list[Facts]:
    given = list(operations)
    names: dict[str, tuple[str, ...]] = {}
    for each in given:
        if isinstance(each, Operation):
            names.update(key_names_in(each))
    return [each if isinstance(each, Facts) else facts_of(each, names) for each in given]


def _finding(
    code: str, operations: Sequence[Facts], message: str, severity: str = PROBLEM
) -> Finding:
    units = sum(each.total_units for each in operations)
    cost = f" ({units:g} units)" if units else ""
    return Finding(code, severity, f"{message}{cost}.", _ADVICE[code], units, tuple(operations))


def _by(operations: Iterable[Facts], key: Callable[[Facts], Hashable]) -> Iterator[list[Facts]]:
    found: defaultdict[Hashable, list[Facts]] = defaultdict(list)
    for each in operations:
        found[key(each)].append(each)
    yield from found.values()


def _target(facts: Facts) -> Hashable:
    return facts.using, facts.tables, facts.index


def _kind(facts: Facts) -> Hashable:
    return facts.using, facts.tables, facts.index, facts.operation, facts.shape


def _times(operations: Sequence[Facts]) -> str:
    return "once" if len(operations) == 1 else f"{len(operations)} times"


def _items(number: int) -> str:
    return "1 item" if number == 1 else f"{number} items"


def _scans(operations: Sequence[Facts]) -> Iterator[Finding]:
    for found in _by((each for each in operations if each.operation == "Scan"), _target):
        read, returned = sum(x.read for x in found), sum(x.returned for x in found)
        yield _finding(
            "scan",
            found,
            f"{found[0].where} was scanned {_times(found)}: {_items(read)} read, "
            f"{returned} returned",
        )


_BATCHES: Final = {
    "GetItem": ("reads-one-by-one", "read"),
    "PutItem": ("writes-one-by-one", "written"),
    "DeleteItem": ("writes-one-by-one", "written"),
}


def _one_by_one(operations: Sequence[Facts], least: int) -> Iterator[Finding]:
    fitting = [
        each
        for each in operations
        if each.operation in _BATCHES and (each.is_read or not each.conditional)
    ]
    for found in _by(fitting, lambda each: (_target(each), _BATCHES[each.operation])):
        # Each distinct item once: repeated reads are another finding.
        several = list({(each.operation, each.keys): each for each in found}.values())
        if found[0].operation != "GetItem":
            several = found
        if len(several) < least:
            continue
        code, verb = _BATCHES[found[0].operation]
        most = Counter(each.place for each in several).most_common(1)[0][1]
        yield _finding(
            code,
            several,
            f"{_items(len(several))} of {found[0].where} were {verb} one by one",
            # From different lines they may depend on each other.
            PROBLEM if most >= least else HINT,
        )


def _repeated_reads(operations: Sequence[Facts]) -> Iterator[Finding]:
    repeated: defaultdict[Hashable, list[Facts]] = defaultdict(list)
    since: dict[Hashable, Facts] = {}
    for each in operations:
        if not each.is_read:
            for identity in [key for key, read in since.items() if _may_change(each, read)]:
                del since[identity]
        elif each.operation != "Scan":
            identity = (each.using, each.operation, each.identity)
            if identity in since:
                again = repeated[identity]
                again += [each] if again else [since[identity], each]
            since[identity] = each
    kinds = _by((each[0] for each in repeated.values()), _kind)
    for firsts in kinds:
        found = [
            each
            for first in firsts
            for each in repeated[first.using, first.operation, first.identity]
        ]
        # Stores wait so for locks and jobs, and others ask so whether something has changed.
        may_differ = all(each.consistent for each in found) and (
            found[0].is_own or len(found) == 2 * len(firsts)
        )
        yield _finding(
            "repeated-reads",
            found,
            f"{firsts[0].operation} on {firsts[0].where} was made {len(found)} times for "
            f"{len(firsts)} {'answer' if len(firsts) == 1 else 'answers'}",
            HINT if may_differ else PROBLEM,
        )


def _may_change(write: Facts, read: Facts) -> bool:
    if write.using != read.using or not set(write.tables) & set(read.tables):
        return False
    if not read.keys:
        return True  # a Query
    return any(_is_written(key, write.keys) for key in read.keys)


def _is_written(key: str, written: Collection[str]) -> bool:
    return key in written or f"{key.split(' ', 1)[0]} {ANY_KEY}" in written


def _filtered(operations: Sequence[Facts]) -> Iterator[Finding]:
    for found in _by((each for each in operations if each.operation == "Query"), _kind):
        read, returned = sum(x.read for x in found), sum(x.returned for x in found)
        if read >= _FILTERED and returned < read / 2:
            yield _finding(
                "filtered",
                found,
                f"A filter of Query on {found[0].where} left {returned} of {_items(read)} that "
                "were read",
            )


def _many_pages(operations: Sequence[Facts]) -> Iterator[Finding]:
    queries = (each for each in operations if each.operation == "Query" and not each.limited)
    for found in _by(queries, lambda each: (each.using, each.family)):
        if len({each.identity for each in found}) >= _PAGES:
            yield _finding(
                "many-pages",
                found,
                f"A Query on {found[0].where} without Limit read {len(found)} pages with "
                f"{_items(sum(each.read for each in found))}",
            )


def _single_transactions(operations: Sequence[Facts]) -> Iterator[Finding]:
    single = (
        each
        for each in operations
        if each.operation in ("TransactGetItems", "TransactWriteItems") and each.actions == 1
    )
    for found in _by(single, lambda each: (_target(each), each.operation)):
        yield _finding(
            "single-transaction",
            found,
            f"{found[0].operation} on {found[0].where} with one item was made {_times(found)}",
            HINT,
        )


def _throttled(operations: Sequence[Facts]) -> Iterator[Finding]:
    for found in _by((each for each in operations if each.throttles), _target):
        attempts = sum(each.throttles for each in found)
        yield _finding(
            "throttled",
            found,
            f"Operations on {found[0].where} were throttled: {attempts} "
            f"{'attempt' if attempts == 1 else 'attempts'} of {len(found)} "
            f"{'operation' if len(found) == 1 else 'operations'}",
        )
    others = (each for each in operations if each.attempts > 1 and not each.throttles)
    for found in _by(others, _target):
        names = sorted({name for each in found for name in each.errors})
        yield _finding(
            "retried",
            found,
            f"{len(found)} {'operation' if len(found) == 1 else 'operations'} on "
            f"{found[0].where} {'was' if len(found) == 1 else 'were'} repeated after "
            f"{' and '.join(names)}",
            HINT,
        )


def _strong_reads(operations: Sequence[Facts]) -> Iterator[Finding]:
    written: defaultdict[str, set[str]] = defaultdict(set)
    strong: list[Facts] = []
    for each in operations:
        if not each.is_read:
            written[each.using].update(each.keys)
        elif each.consistent and not each.is_own and not _is_known(each, written[each.using]):
            strong.append(each)
    if strong:
        tables = sorted({table for each in strong for table in each.tables})
        yield _finding(
            "strong-reads",
            strong,
            f"{', '.join(tables)} {'was' if len(tables) == 1 else 'were'} read strongly "
            f"{_times(strong)}, for what was not written here before",
            HINT,
        )


def _is_known(read: Facts, written: Collection[str]) -> bool:
    if read.keys:
        return any(_is_written(key, written) for key in read.keys)
    return any(key.split(" ", 1)[0] in read.tables for key in written)


def _wide_reads(operations: Sequence[Facts]) -> Iterator[Finding]:
    wide = (
        each
        for each in operations
        if each.is_read
        and each.operation != "Scan"
        and not each.projected
        and not each.is_own
        and each.size >= _WIDE
    )
    for found in _by(wide, _kind):
        size = sum(each.size for each in found)
        yield _finding(
            "wide-reads",
            found,
            f"{found[0].operation} on {found[0].where} returned {size // KB} KB without a "
            "projection",
            HINT,
        )


def _hot_keys(operations: Sequence[Facts]) -> Iterator[Finding]:
    for found in _by(operations, _target):
        if len(found) < _HOT_CALLS:
            continue
        partitions = Counter(each.partition for each in found if each.partition)
        for partition, number in partitions.most_common(1):
            if number >= max(_HOT_CALLS, _HOT_SHARE * len(found)):
                concerned = [each for each in found if each.partition == partition]
                yield _finding(
                    "hot-key",
                    concerned,
                    f"{number} of {len(found)} operations on {found[0].where} had one partition "
                    "key",
                    HINT,
                )


def _overwrites(operations: Sequence[Facts]) -> Iterator[Finding]:
    read: set[Hashable] = set()
    blind: list[Facts] = []
    for each in operations:
        if each.operation == "GetItem":
            read.update((each.using, key) for key in each.keys)
        elif each.operation == "PutItem" and not (each.conditional or each.is_own):
            blind += [each] if any((each.using, key) in read for key in each.keys) else []
    for found in _by(blind, _target):
        yield _finding(
            "overwrites",
            found,
            f"Items of {found[0].where} were read and then replaced without a condition, "
            f"{_times(found)}",
            HINT,
        )


def _unit_boundaries(operations: Sequence[Facts]) -> Iterator[Finding]:
    whole = (each for each in operations if each.item_size and not each.is_own)
    for found in _by(whole, lambda each: (_target(each), each.operation)):
        over = [each for each in found if _is_just_over(each)]
        if len(over) >= max(_BOUNDARY_OPERATIONS, len(found) / 2):
            unit = "4 KB" if over[0].is_read else "1 KB"
            yield _finding(
                "unit-boundary",
                over,
                f"Items of {found[0].where} are a few bytes larger than a multiple of {unit}, "
                f"{_times(over)} {'read' if over[0].is_read else 'written'}",
                HINT,
            )


def _is_just_over(facts: Facts) -> bool:
    unit = 4 * KB if facts.is_read else KB
    units, over = divmod(facts.item_size, unit)
    return 0 < units <= _BOUNDARY_UNITS and 0 < over <= _JUST_OVER[unit]
