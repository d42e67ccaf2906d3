"""
Assertions about the operations of a block, as Django's ``assertNumQueries`` is about queries.

Operations count that the block makes in its own context: in its thread or task, in views that a
test client calls, and where the context is copied to. Those of other threads do not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import TracebackType

from ..calls.observer import Operation
from ..conf import get_config
from ..monitoring.advice import Facts, Finding, Recorder, advise
from ..monitoring.advice.findings import ONE_BY_ONE

# Operations of one block that are kept, and that are shown in a message.
_MOST, _SHOWN = 20_000, 50


class _Assertion:
    """A context manager, for ``with`` in sync and in async code; it gives the recorder."""

    def __init__(self, using: str | None, table: str | None, operation: str | None) -> None:
        self._using, self._table, self._operation = using, table, operation
        self._recorder = Recorder(self._is_wanted, most=_MOST)

    def __enter__(self) -> Recorder:
        self._recorder.start()
        return self._recorder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recorder.stop()
        if error is None:
            self._check(self._recorder)

    def _check(self, recorder: Recorder) -> None:
        raise NotImplementedError

    def _is_wanted(self, operation: Operation) -> bool:
        return (
            self._using in (None, operation.using)
            and self._operation in (None, operation.operation)
            and (self._table is None or self._is_on(self._table, operation))
        )

    @staticmethod
    def _is_on(table: str, operation: Operation) -> bool:
        wanted = {table, get_config(operation.using).real_name(table)}
        request = operation.request
        named = {operation.table, *request.get("RequestItems", ())}
        for action in request.get("TransactItems", ()):
            named |= {content["TableName"] for content in action.values()}
        return not wanted.isdisjoint(named)


class assertNumOperations(_Assertion):
    """
    Assert that the block makes ``number`` operations, or as many on ``table`` (its name in the
    model or in DynamoDB), of the alias ``using``, or of one ``operation`` such as ``"Query"``.

    An operation is a call with its retries; a batch is one. Raises AssertionError with a list of
    the operations, without keys and values. ``as`` gives a Recorder with ``operations``.
    """

    def __init__(
        self,
        number: int,
        using: str | None = None,
        table: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(using, table, operation)
        self._number = number

    def _check(self, recorder: Recorder) -> None:
        if recorder.total != self._number:
            raise AssertionError(
                f"{_count(recorder.total)} made, {self._number} expected"
                f"{_listed(recorder.operations, recorder.total)}"
            )


class assertNoScan(_Assertion):
    """
    Assert that the block makes no Scan, or none of ``table`` or of the alias ``using``. Raises
    AssertionError with a list of the Scans.
    """

    def __init__(self, using: str | None = None, table: str | None = None) -> None:
        super().__init__(using, table, "Scan")

    def _check(self, recorder: Recorder) -> None:
        if recorder.total:
            raise AssertionError(
                f"{_count(recorder.total)} made, no Scan expected"
                f"{_listed(recorder.operations, recorder.total)}"
            )


class assertNoAdvice(_Assertion):
    """
    Assert that there is no finding of severity problem about the operations of the block; with
    ``hints``, no hint either. ``ignore`` are codes of findings that are accepted.

    ``one_by_one`` is the number of reads or writes from which on they should have been a batch.
    Raises AssertionError with the findings and the lines from which their operations were called.
    """

    def __init__(
        self,
        using: str | None = None,
        table: str | None = None,
        *,
        hints: bool = False,
        ignore: Collection[str] = (),
        one_by_one: int = ONE_BY_ONE,
    ) -> None:
        super().__init__(using, table, None)
        self._hints, self._ignore, self._one_by_one = hints, ignore, one_by_one

    def _check(self, recorder: Recorder) -> None:
        found = advise(recorder.operations, one_by_one=self._one_by_one, ignore=self._ignore)
        found = [each for each in found if self._hints or each.is_problem]
        if found:
            raise AssertionError("\n".join(["Findings about operations:", *map(_told, found)]))


class DynamoDBAssertions:
    """The assertions as methods, for a TestCase."""

    assertNumOperations = assertNumOperations
    assertNoScan = assertNoScan
    assertNoAdvice = assertNoAdvice


def _count(number: int) -> str:
    return "1 operation" if number == 1 else f"{number} operations"


def _listed(operations: Sequence[Facts], total: int) -> str:
    shown = [f"{number}. {_line(each)}" for number, each in enumerate(operations[:_SHOWN], 1)]
    if total > len(shown):
        shown.append(f"… and {total - len(shown)} more")
    return "\n".join([":" if shown else ".", *shown])


def _line(facts: Facts) -> str:
    error = f", {facts.error}" if facts.error else ""
    return ", ".join([f"{facts.operation} on {facts.where}{error}", *facts.place])


def _told(finding: Finding) -> str:
    text = str(finding).removesuffix(".")
    return f"{finding.code}: {text}{_listed(finding.operations, finding.count)}"
