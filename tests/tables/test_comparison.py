"""dynamo_verify: items of tables and backups, and references between items."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command
from pynamodb.attributes import NumberAttribute

from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.infrastructure.backups.comparison import compare
from dynamo_stores.infrastructure.references import references_of
from dynamo_stores.models import DynamoModel
from forum.models import Post, Support, Thread, User
from tests.helpers.commands import run
from tests.helpers.items import EVERY_TYPE, put_all


def items(count, **more):
    return [{"id": {"S": f"p{n % 7}"}, "n": {"N": str(n)}, **more} for n in range(count)]


@pytest.fixture
def two_tables(make_table):
    """Two tables of 200 items; three are only in the first, two only in the other, one differs."""
    left, right = make_table(), make_table()
    put_all("default", left, [EVERY_TYPE, *items(203)])
    put_all("default", right, [EVERY_TYPE, *items(200)[1:]])
    put_all("default", right, [{"id": {"S": "own"}, "n": {"N": str(n)}} for n in range(2)])
    put_all("default", right, items(1, v={"N": "1"}))
    return left, right


def test_differences_of_two_tables_are_counted(two_tables):
    """And their keys are printed only if that is asked for."""
    left, right = two_tables
    with pytest.raises(CommandError) as found:
        run("dynamo_verify", table=[left], other=right)
    assert str(found.value) == (
        f"{left} has 204 items, {right} has 203. 3 only in {left}, 2 only in {right}, 1 with "
        "equal keys differ."
    )
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("dynamo_verify", table=[left], other=right, keys=True, stdout=out)
    shown = [line for line in out.getvalue().splitlines() if '"n"' in line]
    assert f'only in {left}: {{"id": {{"S": "p4"}}, "n": {{"N": "200"}}}}' in shown
    assert f'only in {right}: {{"id": {{"S": "own"}}, "n": {{"N": "1"}}}}' in shown
    assert 'differs: {"id": {"S": "p0"}, "n": {"N": "0"}}' in shown
    assert len(shown) == 6


def test_a_table_is_compared_with_a_backup(two_tables, tmp_path):
    """Equal, then different; a damaged file ends the comparison."""
    left, right = two_tables
    run("dynamo_backup", left, output=tmp_path / "b")
    same = run("dynamo_verify", table=[left], with_backup=tmp_path / "b")
    assert "have the same 204 items" in same
    with pytest.raises(CommandError, match=r"3 only in .*, 1 with equal keys differ"):
        run("dynamo_verify", table=[right], with_backup=tmp_path / "b")
    file = next((tmp_path / "b" / "data").iterdir())
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CommandError, match=r"data/.* is truncated: .* Use another copy"):
        run("dynamo_verify", table=[left], with_backup=tmp_path / "b")


def test_wrong_combinations_are_refused(two_tables):
    """Several tables, none, another key, an unknown table."""
    left, right = two_tables
    for tables in ([], [left, right]):
        with pytest.raises(CommandError, match="expected one --table"):
            run("dynamo_verify", table=tables, other=right)
    with pytest.raises(CommandError, match="have different keys"):
        run("dynamo_verify", table=[left], other=get_config().store_table)
    with pytest.raises(CommandError, match="There is no table nowhere"):
        run("dynamo_verify", table=[left], other="nowhere")


class Contents:
    """Items in memory."""

    def __init__(self, found):
        self.found = found

    def each(self, handle):
        for item in self.found:
            handle([item])


def test_more_differences_than_fit_into_memory_are_said_to_be_more():
    """Two tables without a common item, and room for ten."""
    left, right = items(500), items(500, v={"S": "x"})
    found = compare(Contents(left), Contents(right), ("id", "n"), most_items=10)
    assert (found.left, found.right, found.is_complete) == (500, 500, False)
    assert 1 <= found.different <= 10
    all_of_them = compare(Contents(left), Contents(right), ("id", "n"))
    assert (all_of_them.different, all_of_them.is_complete) == (500, True)


def test_equal_items_in_another_notation_and_order_are_equal():
    """Sets have no order, and 1.0 is 1, also in keys."""
    one = {"id": {"S": "a"}, "n": {"N": "100"}, "s": {"NS": ["1", "2"]}}
    same = {"s": {"NS": ["2.0", "1e0"]}, "n": {"N": "1E+2"}, "id": {"S": "a"}}
    other = items(50)
    found = compare(Contents([one, *other]), Contents([*reversed(other), same]), ("id", "n"))
    assert found.is_equal
    assert found.left == found.right == 51


def test_items_that_refer_to_nothing_are_counted(tables):
    """Posts of a thread or a user that does not exist, and what can be no key."""
    made = [
        User("verify-u", name="n", created_at="2024"),
        Thread("verify-t", title="t", created_by="verify-u", created_at="2024"),
        Thread("verify-t2", title="t", created_at="2024"),
        Post("verify-1", "verify-t", user_id="verify-u", content="c", created_at="2024"),
        Post("verify-2", "verify-gone", user_id="verify-u", content="c", created_at="2024"),
        Post("verify-3", "verify-t2", user_id="verify-gone", content="c", created_at="2024"),
    ]
    users, threads, posts = (model.Meta.table_name for model in (User, Thread, Post))
    # No key of a user, and refused in a request for one.
    strange = [
        {"threadId": {"S": f"verify-strange-{n}"}, "createdBy": user}
        for n, user in enumerate([{"N": "5"}, {"S": ""}, {"S": "x" * 3000}, {"L": []}])
    ]
    for each in made:
        each.save()
    put_all("default", threads, strange)
    out = io.StringIO()
    try:
        with pytest.raises(CommandError) as found:
            call_command("dynamo_verify", references=True, keys=True, stdout=out)
    finally:
        for each in made:
            each.delete()
        for each in strange:
            Thread(each["threadId"]["S"]).delete()
    wrong = str(found.value)
    assert f"{posts}: threadId, a key of {threads}: 1 of " in wrong
    assert f"{posts}: userId, a key of {users}: 1 of " in wrong
    assert f"{threads}: createdBy, a key of {users}: 4 of " in wrong
    assert "verify-" not in wrong
    missing = f'threadId {{"S": "verify-gone"}} is not in {threads}'
    assert f'{posts} {{"postId": {{"S": "verify-2"}}, ' in out.getvalue()
    assert f'"threadId": {{"S": "verify-gone"}}}}: {missing}' in out.getvalue()
    assert "verify-1" not in out.getvalue()


def test_references_that_all_exist_are_said_so(tables):
    """And an empty table, and a table whose model declares none."""
    made = [User("verify-u", name="n", created_at="2024")]
    users, threads = (model.Meta.table_name for model in (User, Thread))
    assert f"{threads}: has no items" in run("dynamo_verify", references=True, table=[threads])
    made.append(Thread("verify-t", title="t", created_by="verify-u", created_at="2024"))
    for each in made:
        each.save()
    try:
        found = run("dynamo_verify", references=True, table=[threads])
    finally:
        for each in made:
            each.delete()
    assert f"{threads}: 1 item, and each 'createdBy' exists in {users}" in found
    with pytest.raises(CommandError, match=f"{users}: its model declares no references"):
        run("dynamo_verify", references=True, table=[users])


def test_the_tables_of_apps_are_chosen(tables):
    """By their labels; a model without references is no error then."""
    matches = run("dynamo_verify", "forum")
    tables_of_forum = {model.Meta.table_name for model in (User, Thread, Post, Support)}
    assert {line.partition(":")[0] for line in matches.splitlines()[1:]} == tables_of_forum
    assert f"{Thread.Meta.table_name}: " in run("dynamo_verify", "forum", references=True)
    for label, message in (
        ("forums", "No installed app with label 'forums'"),
        ("sessions", "The app 'sessions' has no models with a table in DynamoDB"),
    ):
        with pytest.raises(CommandError, match=message):
            run("dynamo_verify", label)


def test_wrong_declarations_are_named():
    """An attribute, or another model, that does not exist, and a value that can be no key."""

    def declared(**found):
        more = {"score": NumberAttribute(), "references": found, "__module__": __name__}
        return type("Declared", (Post,), more)

    with pytest.raises(ConfigurationError, match="'thred_id'; did you mean 'thread_id'"):
        references_of(declared(thred_id="forum.models.Thread"))
    with pytest.raises(
        ConfigurationError, match=r"references\['thread_id'\]: .* cannot be imported"
    ):
        references_of(declared(thread_id="forum.models.Nothing"))
    with pytest.raises(ConfigurationError, match=r"Expected .* such as 'package\.module\.Class'"):
        references_of(declared(thread_id="Thread"))
    with pytest.raises(ConfigurationError, match="is of type N, and the partition key 'threadId'"):
        references_of(declared(score="forum.models.Thread"))
    with pytest.raises(ConfigurationError, match="expected the dotted path of a DynamoModel"):
        references_of(declared(thread_id="forum.models.LISTING"))
    assert DynamoModel.references == {}
