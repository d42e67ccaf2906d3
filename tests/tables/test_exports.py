"""Exports of the service to S3 are restored, and damaged ones are refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

import pytest
from django.core.management import CommandError

from dynamo_stores.calls.control import get_control
from dynamo_stores.infrastructure.backups.digests import item_digest
from dynamo_stores.infrastructure.backups.lines import dump_item
from tests.helpers.commands import cut, flip, run, small
from tests.helpers.items import EVERY_TYPE, read_all


def exported(folder, items, **summary):
    """Write an export as the service does, in two files; return its folder."""
    export = folder / "AWSDynamoDB" / "01693685827463-2d8752fd"
    (export / "data").mkdir(parents=True)
    entries = []
    half = len(items) // 2
    for name, part in (("abc.json.gz", items[:half]), ("def.json.gz", items[half:])):
        content = gzip.compress(b"".join(map(dump_item, part)))
        (export / "data" / name).write_bytes(content)
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        key = f"AWSDynamoDB/{export.name}/data/{name}"
        etag = f"{hashlib.md5(content).hexdigest()}-1"
        entries.append(
            {"itemCount": len(part), "md5Checksum": md5, "etag": etag, "dataFileS3Key": key}
        )
    files = {
        "manifest-files": "".join(json.dumps(each) + "\n" for each in entries),
        "manifest-summary": json.dumps(
            {
                "version": "2020-06-30",
                "tableArn": "arn:aws:dynamodb:us-east-1:123456789012:table/ProductCatalog",
                "exportTime": "2020-11-04T07:28:34.028Z",
                "itemCount": len(items),
                "outputFormat": "DYNAMODB_JSON",
                **summary,
            }
        ),
    }
    for name, text in files.items():
        (export / f"{name}.json").write_text(text)
        md5 = base64.b64encode(hashlib.md5(text.encode()).digest()).decode()
        (export / f"{name}.md5").write_text(md5)
    (export / "_started").touch()
    return export


def test_an_export_of_the_service_is_restored(make_table, tmp_path):
    """From the bucket's folder or its own, into a table that exists, or like another one."""
    items = [EVERY_TYPE, *small(50)]
    export = exported(tmp_path, items)
    copy = make_table.name()
    with pytest.raises(CommandError, match=r"an export of the service has no schema.*--like"):
        run("dynamo_restore", tmp_path, table=copy)
    table = make_table()
    written = run("dynamo_restore", tmp_path, table=table)
    assert "export of ProductCatalog of 2020-11-04T07:28:34.028Z: 51 items" in written
    run("dynamo_restore", export, table=copy, like=table)
    assert read_all("default", copy) == read_all("default", table)
    found = {item_digest(item) for item in read_all("default", copy).values()}
    assert found == {item_digest(item) for item in items}


def test_a_damaged_export_is_named(make_table, tmp_path):
    """Data and manifests, by their checksums, and formats that cannot be read."""
    table = make_table()

    def refused(folder, named):
        with pytest.raises(CommandError, match=named):
            run("dynamo_restore", folder, table=table)
        assert not read_all("default", table)

    for number, (damage, named) in enumerate(
        [
            (lambda e: flip(e / "data" / "abc.json.gz"), "abc.json.gz was altered"),
            (lambda e: cut(e / "data" / "def.json.gz"), "def.json.gz is truncated"),
            (lambda e: (e / "data" / "def.json.gz").unlink(), "is incomplete: the file"),
            (lambda e: cut(e / "manifest-files.json"), "manifest-files.json was altered"),
            (lambda e: (e / "manifest-files.json").unlink(), "manifest-files.json is missing"),
            (lambda e: (e / "manifest-summary.json").unlink(), "manifest-summary.json is missing"),
        ]
    ):
        export = exported(tmp_path / str(number), small(40))
        damage(export)
        refused(export, named)
    refused(exported(tmp_path / "ion", small(4), outputFormat="ION"), "in the format ION")
    changes = exported(tmp_path / "changes", small(4), exportType="INCREMENTAL_EXPORT")
    refused(changes, "incremental export")
    refused(
        exported(tmp_path / "short", small(4), itemCount=5), "manifest-files.json is incomplete"
    )
    exported(tmp_path / "two", small(4))
    (tmp_path / "two" / "AWSDynamoDB" / "b").mkdir()
    (tmp_path / "two" / "AWSDynamoDB" / "b" / "manifest-summary.json").touch()
    refused(tmp_path / "two", "has 2 exports; expected one")


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"id": {"S": "a"}}, "has no 'n', which is an attribute of the key of"),
        ({"id": {"S": "a"}, "n": {"S": "1"}}, "has 'n' as S; the key of .* takes N only"),
        ({"id": {"S": ""}, "n": {"N": "1"}}, "has an empty 'id', which the key of"),
    ],
)
def test_an_item_that_the_key_of_the_table_refuses_is_found_first(
    make_table, tmp_path, item, problem
):
    """Also where the table does not exist; nothing is written, and no table is created."""
    export = exported(tmp_path, [*small(10), item])
    table, copy = make_table(), make_table.name()
    for options in ({"table": table}, {"table": copy, "like": table}):
        with pytest.raises(CommandError, match=f"line 6 {problem}.*Nothing was written"):
            run("dynamo_restore", export, **options)
    assert not read_all("default", table)
    assert get_control().describe(copy) is None


def test_a_missing_table_is_created_as_a_model_requires(make_table, tmp_path):
    """With its keys, its indexes and its name in AWS of --table."""
    users = [
        {"userId": {"S": str(n)}, "name": {"S": "n"}, "createdAt": {"S": "2024"}} for n in range(3)
    ]
    export = exported(tmp_path, users)
    copy = make_table.name()
    run("dynamo_restore", export, table=copy, model="forum.models.User")
    description = get_control().describe(copy)
    assert description["KeySchema"] == [{"AttributeName": "userId", "KeyType": "HASH"}]
    assert description["GlobalSecondaryIndexes"][0]["IndexName"] == "EmailIndex"
    for wrong, named in (
        ("forum.models.Nobody", "cannot be imported"),
        ("forum.models.LISTING", "expected the dotted path of a DynamoModel"),
    ):
        with pytest.raises(CommandError, match=named):
            run("dynamo_restore", export, table=make_table.name(), model=wrong)
