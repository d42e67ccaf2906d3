"""The findings about a list of operations."""

from __future__ import annotations

import pytest

from dynamo_stores.conf.groups import ADVICE_CODES, AdviceConfig
from dynamo_stores.monitoring.advice import CODES, HINT, PROBLEM, advise, facts_of, group
from dynamo_stores.monitoring.advice.findings import ONE_BY_ONE
from tests.helpers.operations import get, key, operation, put, query, update

STRONG = {"ConsistentRead": True}
WIDE = {**key("k"), "text": {"S": "x" * 70_000}}


def codes(*operations, **options):
    return {each.code: each.severity for each in advise(operations, **options)}


def batch(*names):
    return operation("BatchGetItem", {"RequestItems": {"t": {"Keys": [key(n) for n in names]}}})


def scan(read=9, returned=2, **request):
    return operation("Scan", request, {"Count": returned, "ScannedCount": read}, units=3.5)


def transaction(*names):
    actions = [{"Put": {"TableName": "t", "Item": key(each)}} for each in names]
    return operation("TransactWriteItems", {"TransactItems": actions})


def test_settings_and_rules_know_the_same_codes():
    assert set(CODES) == set(ADVICE_CODES)
    assert AdviceConfig().one_by_one == ONE_BY_ONE


def test_nothing_is_found_about_a_plain_request():
    done = (get("a"), put("b"), query(), update("a"), batch("a", "c"), transaction("a", "b"))
    assert advise(done) == []


def test_a_scan():
    (finding,) = advise([scan(), scan(read=5, returned=0)])
    assert (finding.code, finding.severity, finding.count) == ("scan", PROBLEM, 2)
    assert finding.message == "t was scanned 2 times: 14 items read, 2 returned (7 units)."
    assert finding.units == 7.0
    assert finding.tables == ("t",)


@pytest.mark.parametrize(
    ("make", "code"),
    [(get, "reads-one-by-one"), (put, "writes-one-by-one")],
)
def test_items_one_by_one(make, code):
    """From the number that is given, and each item once."""
    assert codes(*map(make, "abcd")) == {}
    assert codes(*map(make, "abcde")) == {code: PROBLEM}
    assert codes(*map(make, "abcde"), one_by_one=6) == {}
    assert codes(*map(make, "abc"), one_by_one=3) == {code: PROBLEM}


def test_items_one_by_one_from_many_lines_are_a_hint():
    """They may depend on each other."""
    found = [facts_of(get(each), place=(f"views.py:{each}",)) for each in range(5)]
    assert codes(*found) == {"reads-one-by-one": HINT}


def test_what_no_batch_can_do_is_not_one_by_one():
    """Updates, conditions, old values, and deletes of another kind."""
    assert codes(*map(update, "abcdef")) == {}
    assert codes(*[put(each, ConditionExpression="a = :a") for each in "abcdef"]) == {}
    assert codes(*[put(each, ReturnValues="ALL_OLD") for each in "abcdef"]) == {}
    assert codes(*[put(each, ReturnValues="NONE") for each in "abcdef"]) != {}


def test_the_same_read_again():
    (finding,) = advise([get("a"), get("b"), get("a"), query(), query("q"), query()])[:1]
    assert (finding.code, finding.count) == ("repeated-reads", 2)
    assert finding.message == "GetItem on t was made 2 times for 1 answer."
    assert codes(query(), query()) == {"repeated-reads": PROBLEM}
    assert codes(batch("a", "b"), batch("a", "b")) == {"repeated-reads": PROBLEM}


def test_a_read_after_a_write_is_no_repetition():
    """Of that item, or of any item of the table that a Query reads."""
    assert codes(get("a"), update("a"), get("a")) == {}
    assert codes(get("a"), update("b"), get("a")) == {"repeated-reads": PROBLEM}
    assert codes(query(), update("b"), query()) == {}
    assert codes(get("a"), put("a", ConditionExpression="x"), get("a")) == {}


def test_a_put_of_an_unknown_key_may_change_every_item():
    """The names of the key attributes are learnt from the keys of other requests."""
    unknown = facts_of(put("a"))
    first, second = facts_of(get("a")), facts_of(get("a"))
    assert codes(first, unknown, second) == {}


def test_other_reads_are_no_repetitions():
    assert codes(get("a"), get("a", **STRONG)).keys() == {"strong-reads"}
    assert codes(query(Limit=1), query(Limit=1, ExclusiveStartKey=key("a"))) == {}


def test_a_strong_read_may_ask_what_has_changed():
    """Once more; stores wait for locks and jobs, as often as they have to."""
    again = [get("a", **STRONG), query(), get("a", **STRONG)]
    assert codes(*again, ignore=["strong-reads"]) == {"repeated-reads": HINT}
    assert codes(*again, again[0], ignore=["strong-reads"]) == {"repeated-reads": PROBLEM}
    found = [facts_of(get("a", **STRONG), is_own=True) for _ in range(3)]
    assert codes(*found) == {"repeated-reads": HINT}
    found = [facts_of(get("a"), is_own=True) for _ in range(3)]
    assert codes(*found) == {"repeated-reads": PROBLEM}


def test_a_filter_that_drops_most():
    wanted = {"FilterExpression": "v = :v"}
    assert codes(query(read=10, returned=5, **wanted)) == {}
    assert codes(query(read=9, returned=0, **wanted)) == {}
    (finding,) = advise([query(read=10, returned=4, **wanted)])
    assert (finding.code, finding.severity) == ("filtered", PROBLEM)
    assert finding.message == "A filter of Query on t left 4 of 10 items that were read."
    assert codes(scan(read=100, returned=1, **wanted)) == {"scan": PROBLEM}


def test_wide_reads():
    """Where a projection would save transfer; counting returns no items."""
    assert codes(get("k", WIDE)) == {"wide-reads": HINT}
    assert codes(get("k", WIDE, ProjectionExpression="id, text")) == {}
    assert codes(get("k", {**WIDE, "text": {"S": "x"}})) == {}
    assert codes(facts_of(get("k", WIDE), is_own=True)) == {}


def test_strong_reads_of_what_was_not_written_here():
    assert codes(get("a", **STRONG)) == {"strong-reads": HINT}
    assert codes(update("a"), get("a", **STRONG)) == {}
    assert codes(put("a"), get("a", **STRONG)) == {}
    assert codes(update("b"), get("a", **STRONG)) == {"strong-reads": HINT}
    assert codes(update("b"), query(**STRONG)) == {}
    assert codes(query(**STRONG)) == {"strong-reads": HINT}
    assert codes(facts_of(get("a", **STRONG), is_own=True)) == {}
    other = operation("Scan", {"TableName": "u"}, table="u")
    found = advise([get("a", **STRONG), other, query(**STRONG), query(IndexName="i", **STRONG)])
    assert [each.message for each in found if not each.is_problem] == [
        "t was read strongly 3 times, for what was not written here before."
    ]


def test_many_pages_without_a_limit():
    pages = [query(), *[query(ExclusiveStartKey=key(each)) for each in "ab"]]
    assert codes(*pages) == {"many-pages": PROBLEM}
    assert codes(*pages[:2]) == {}
    limited = [query(Limit=9), *[query(Limit=9, ExclusiveStartKey=key(each)) for each in "ab"]]
    assert codes(*limited) == {}


def test_a_hot_key():
    """With half of many operations, at least 20."""
    assert codes(*[update("a") for _ in range(19)]) == {}
    (finding,) = advise([update("a") for _ in range(20)])
    assert (finding.code, finding.severity, finding.count) == ("hot-key", HINT, 20)
    others = [update(each) for each in range(21)]
    assert codes(*[update("a") for _ in range(20)], *others) == {}


def test_the_hot_key_of_a_table_with_a_sort_key():
    """By the partition key alone, as far as it is known."""
    done = [
        operation(
            "UpdateItem", {"Key": {"s": {"N": str(each)}, "p": {"S": "a"}}, "UpdateExpression": "x"}
        )
        for each in range(20)
    ]
    known = [facts_of(each, {"t": ("p", "s")}) for each in done]
    assert codes(*known) == {"hot-key": HINT}
    assert codes(*[facts_of(each) for each in done]) == {}


def test_transactions_of_one_item():
    (finding,) = advise([transaction("a")])
    assert (finding.code, finding.severity) == ("single-transaction", HINT)
    assert finding.message == "TransactWriteItems on t with one item was made once."


def test_throttled_and_retried_operations():
    throttled = operation("GetItem", {"Key": key("a")}, errors=["ThrottlingError"], throttles=1)
    (finding,) = advise([throttled])
    assert (finding.code, finding.severity) == ("throttled", PROBLEM)
    assert finding.message == "Operations on t were throttled: 1 attempt of 1 operation."
    retried = operation("GetItem", {"Key": key("a")}, errors=["OperationTimeoutError"])
    (finding,) = advise([retried])
    assert (finding.code, finding.severity) == ("retried", HINT)
    assert finding.message == "1 operation on t was repeated after OperationTimeoutError."
    twice = operation("GetItem", {"Key": key("b")}, errors=["StoreUnavailable"] * 2)
    (finding,) = advise([retried, twice])
    assert finding.message == (
        "2 operations on t were repeated after OperationTimeoutError and StoreUnavailable."
    )


def test_an_item_that_is_replaced_after_it_was_read():
    assert codes(get("a"), put("a")) == {"overwrites": HINT}
    assert codes(get("a"), put("b")) == {}
    assert codes(get("a"), put("a", ConditionExpression="version = :v")) == {}


def test_items_just_over_a_unit():
    """If most of several are; one says nothing."""

    def of(size):
        return {"id": {"S": "k"}, "v": {"S": "x" * (size - 4)}}

    def reads(*sizes):
        return [get(n, of(size), ProjectionExpression="") for n, size in enumerate(sizes)]

    whole = [get(number, of(4096 + 50)) for number in range(5)]
    assert codes(*whole, one_by_one=9) == {"unit-boundary": HINT}
    assert codes(*whole[:4]) == {}
    assert codes(*[get(number, of(4096)) for number in range(5)], one_by_one=9) == {}
    assert codes(*[get(number, of(4400)) for number in range(5)], one_by_one=9) == {}
    puts = [
        operation("PutItem", {"Item": {**of(1060), "id": key(n)["id"]}, "ConditionExpression": "x"})
        for n in range(5)
    ]
    assert codes(*puts) == {"unit-boundary": HINT}


def test_problems_come_first_and_some_are_ignored():
    found = advise([get("k", WIDE, **STRONG), scan()])
    assert [each.code for each in found] == ["scan", "strong-reads", "wide-reads"]
    kept = advise([get("k", WIDE, **STRONG), scan()], ignore=["scan", "wide-reads"])
    assert [each.code for each in kept] == ["strong-reads"]


def test_tables_aliases_and_indexes_are_apart():
    several = [*map(get, "abc"), *[get(each)._replace(using="other") for each in "abc"]]
    assert codes(*several) == {}
    assert codes(query(), query(IndexName="GSI1")) == {}
    (finding,) = advise([query(IndexName="GSI1"), query(IndexName="GSI1")])
    assert finding.message == "Query on t, index GSI1 was made 2 times for 1 answer."


def test_no_text_of_a_finding_has_keys_or_values():
    secret = "s3cret"
    done = [
        *[
            get(f"{secret}{number % 6}", {**WIDE, "x": {"S": secret}}, **STRONG)
            for number in range(30)
        ],
        *[put(f"{secret}{number}") for number in range(6)],
        *[query(secret, read=50, returned=1, FilterExpression="a = :0") for _ in range(2)],
        *[update(secret) for _ in range(80)],
        scan(),
        transaction(secret),
    ]
    found = advise(done)
    assert {each.code for each in found} >= {
        "scan", "reads-one-by-one", "writes-one-by-one", "repeated-reads", "filtered", "hot-key",
        "single-transaction", "strong-reads", "wide-reads", "overwrites",
    }  # fmt: skip
    assert not [each for each in found if secret in str(each)]


def test_facts_of_a_batch_and_of_a_transaction():
    facts = facts_of(
        operation(
            "BatchWriteItem",
            {
                "RequestItems": {
                    "u": [{"PutRequest": {"Item": key("a")}}],
                    "t": [{"DeleteRequest": {"Key": key("b")}}],
                }
            },
        ),
        {"u": ["id"]},
    )
    assert facts.tables == ("t", "u")
    assert sorted(facts.keys) == ["t id=b", "u id=a"]
    assert facts.actions == 2
    facts = facts_of(transaction("a", "b"))
    assert facts.keys == ("t *", "t *")
    assert facts.shape == "Put, Put"


def test_a_long_key_is_kept_short():
    one, other = facts_of(get("x" * 1999 + "1")), facts_of(get("x" * 1999 + "2"))
    assert len(one.keys[0]) < 200
    assert one.keys != other.keys


def test_operations_that_are_alike():
    """By what their expressions say, not by how they call their names and values."""

    def named(name, value, text):
        return facts_of(
            query(
                KeyConditionExpression=text,
                ExpressionAttributeNames={name: "author"},
                ExpressionAttributeValues={value: {"S": text}},
            )
        )

    same = [named("#0", ":0", "#0 = :0"), named("#key", ":v1", "#key = :v1")]
    other = facts_of(query())
    found = group([same[0], other, same[1]])
    assert [each.operations for each in found] == [tuple(same), (other,)]
    assert found[0].first.shape == "KeyCondition: author = ?"
    assert found[0].seconds == pytest.approx(0.02)
    assert facts_of(query(FilterExpression="a IN (:a, :b, :c)")).shape.endswith("a IN (?, …)")
