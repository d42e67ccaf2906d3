"""Operations as observers see them, without a DynamoDB."""

from __future__ import annotations

from dynamo_stores.calls.observer import Measurement, Operation


def operation(name, request, answer=None, *, units=0.0, table="t", errors=(), throttles=0):
    """Return an operation, whose first attempts ended in ``errors``."""
    attempts = [
        Measurement("default", table, name, 0.01, number, None, error, (), number <= throttles)
        for number, error in enumerate(errors, 1)
    ]
    used = {"TableName": table, "CapacityUnits": units} if units else None
    attempts.append(Measurement("default", table, name, 0.01, len(attempts) + 1, used))
    request = request if "RequestItems" in request else {"TableName": table, **request}
    if "TransactItems" in request:
        del request["TableName"]
    return Operation("default", table, name, 0.01, 0.0, tuple(attempts), "", request, answer or {})


def key(name):
    return {"id": {"S": str(name)}}


def get(name, item=None, **request):
    return operation("GetItem", {"Key": key(name), **request}, {"Item": item} if item else {})


def put(name, **request):
    return operation("PutItem", {"Item": {**key(name), "v": {"N": "1"}}, **request})


def update(name):
    changes = {"UpdateExpression": "SET v = :v", "ExpressionAttributeValues": {":v": {"N": "1"}}}
    return operation("UpdateItem", {"Key": key(name), **changes})


def query(value="p", *, read=1, returned=1, **request):
    asked = {
        "KeyConditionExpression": "#0 = :0",
        "ExpressionAttributeNames": {"#0": "id"},
        "ExpressionAttributeValues": {":0": {"S": value}},
    }
    return operation("Query", asked | request, {"Count": returned, "ScannedCount": read})
