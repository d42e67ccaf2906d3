"""A relay before an engine that refuses what a policy of IAM does not allow, as DynamoDB does."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

from dynamo_stores.testing import FaultProxy

ACCOUNT = "000000000000"
# Actions without a resource, and those of the parts of a transaction.
_ON_ALL = {"DescribeLimits", "ListBackups", "ListStreams", "ListTables"}
_INSIDE = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "Get": "GetItem",
    "ConditionCheck": "ConditionCheckItem",
}


class AuthorizingRelay(FaultProxy):
    """
    Refuses requests that ``document`` does not allow. ``refused`` has what was missing, as actions
    and ARNs, and ``unused()`` the grants that no request needed.
    """

    def __init__(self, upstream, document):
        super().__init__(upstream)
        self.grants = {
            (action, resource)
            for each in document["Statement"]
            for action in _listed(each["Action"])
            for resource in _listed(each["Resource"])
            if action.startswith("dynamodb:")
        }
        self.refused, self._used = set(), set()
        self._stream = ""

    def unused(self):
        """Return the grants that no request needed so far."""
        return sorted(self.grants - self._used)

    def _next(self, operation, request):
        act = super()._next(operation, request)
        return lambda handler, request: (
            self._check(handler, request) or (act is not None and act(handler, request))
        )

    def _check(self, handler, request):
        operation = handler.headers["X-Amz-Target"].rpartition(".")[2]
        region = handler.headers["Authorization"].split("/")[2]
        place = f"arn:aws:dynamodb:{region}:{ACCOUNT}:table/"
        body = json.loads(request)
        # An iterator is of the stream for which it was requested; what it looks like is open.
        self._stream = body.get("StreamArn", self._stream)
        if "ShardIterator" in body:
            body["StreamArn"] = self._stream
        for action, resource in _needed(operation, body, place):
            found = {
                grant
                for grant in self.grants
                if grant[0] == f"dynamodb:{action}" and fnmatchcase(resource, grant[1])
            }
            self._used |= found
            if not found:
                self.refused.add((action, resource))
                text = f"User is not authorized to perform: dynamodb:{action} on {resource}"
                answer = {"__type": "x#AccessDeniedException", "Message": text}
                handler.answer(400, json.dumps(answer).encode())
                return True
        return False


def _listed(value):
    return [value] if isinstance(value, str) else value


def _needed(operation, body, place):
    """Yield the actions and ARNs that an operation requires."""
    if operation in _ON_ALL:
        yield operation, "*"
    elif "RequestItems" in body:
        yield from ((operation, place + _name(table)) for table in body["RequestItems"])
    elif "TransactItems" in body:
        for each in body["TransactItems"]:
            ((kind, item),) = each.items()
            yield _INSIDE[kind], place + _name(item["TableName"])
    elif "StreamArn" in body:
        yield operation, body["StreamArn"]
    elif "ResourceArn" in body:
        yield operation, body["ResourceArn"]
    else:
        table = place + _name(body["TableName"])
        yield operation, f"{table}/index/{body['IndexName']}" if "IndexName" in body else table
        if operation == "CreateTable" and body.get("Tags"):
            yield "TagResource", table
        for update in body.get("ReplicaUpdates", ()):
            ((kind, _),) = update.items()
            yield f"{kind}TableReplica", table


def _name(table):
    return table.rpartition("/")[2]
