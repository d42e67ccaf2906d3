"""A relay before an engine whose tables take as long to change as those of the service."""

from __future__ import annotations

import json
import time

from dynamo_stores.testing import FaultProxy


class ChangingTables(FaultProxy):
    """
    A relay: each UpdateTable, restore and backup takes ``seconds``, and tags are shown so late.

    Half of the time the table is UPDATING, and then a new index is backfilled. Meanwhile another
    UpdateTable is refused; ``refused`` counts those.
    """

    def __init__(self, upstream, seconds):
        super().__init__(upstream)
        self.seconds = seconds
        self.refused = 0
        self._changing = {}
        self._tags = {}

    def _next(self, operation, request):
        own = {
            "UpdateTable": self._update,
            "DescribeTable": self._describe,
            "TagResource": self._tag,
            "ListTagsOfResource": self._list_tags,
            "RestoreTableFromBackup": self._restore,
            "RestoreTableToPointInTime": self._restore,
            "CreateBackup": self._back_up,
            "DescribeBackup": self._describe_backup,
        }
        return super()._next(operation, request) or own.get(operation)

    def _left(self, table):
        """Return the share of a change's time that is left, and the request."""
        begin, request = self._changing.get(table, (0.0, {}))
        return 1.0 - (time.monotonic() - begin) / self.seconds, request

    def _update(self, handler, request):
        body = json.loads(request)
        if self._left(body["TableName"])[0] > 0:
            self.refused += 1
            answer = {
                "__type": "com.amazonaws.dynamodb.v20120810#ResourceInUseException",
                "message": f"Attempt to change a resource which is still in use: {body}",
            }
            handler.answer(400, json.dumps(answer).encode())
            return True
        status, headers, answer = handler.forward(request)
        if status == 200:
            self._changing[body["TableName"]] = (time.monotonic(), body)
        handler.answer(status, answer, headers)
        return True

    def _describe(self, handler, request):
        status, headers, answer = handler.forward(request)
        left, change = self._left(json.loads(request)["TableName"])
        if status != 200 or left <= 0:
            handler.answer(status, answer, headers)
            return True
        table = json.loads(answer)["Table"]
        new = {
            update["Create"]["IndexName"]
            for update in change.get("GlobalSecondaryIndexUpdates", ())
            if "Create" in update
        }
        if not new or left > 0.5:
            table["TableStatus"] = "UPDATING"
        if "TargetTableName" in change:
            table["TableStatus"] = "CREATING"
        table["ItemCount"] = 1000
        for index in table.get("GlobalSecondaryIndexes", ()):
            if index["IndexName"] in new:
                index |= {"IndexStatus": "CREATING", "Backfilling": left <= 0.5}
                index["ItemCount"] = 0 if left > 0.5 else int(1000 * (1 - left))
        handler.answer(200, json.dumps({"Table": table}).encode())
        return True

    def _restore(self, handler, request):
        body = json.loads(request)
        status, headers, answer = handler.forward(request)
        if status == 200:
            self._changing[body["TargetTableName"]] = (time.monotonic(), body)
        handler.answer(status, answer, headers)
        return True

    def _back_up(self, handler, request):
        status, _, answer = handler.forward(request)
        answer = json.loads(answer)
        if status == 200:
            details = answer["BackupDetails"]
            self._changing[details["BackupArn"]] = (time.monotonic(), {})
            details["BackupStatus"] = "CREATING"
        handler.answer(status, json.dumps(answer).encode())
        return True

    def _describe_backup(self, handler, request):
        status, _, answer = handler.forward(request)
        answer = json.loads(answer)
        if status == 200 and self._left(json.loads(request)["BackupArn"])[0] > 0:
            answer["BackupDescription"]["BackupDetails"]["BackupStatus"] = "CREATING"
        handler.answer(status, json.dumps(answer).encode())
        return True

    def _tag(self, handler, request):
        # Tags are shown later. The last answer is what they were before.
        arn = json.loads(request)["ResourceArn"]
        self._changing[arn] = (time.monotonic(), {"answer": self._tags[arn]})
        return False

    def _list_tags(self, handler, request):
        arn = json.loads(request)["ResourceArn"]
        left, change = self._left(arn)
        if left > 0:
            self._tags[arn] = change["answer"]
        else:
            _, _, self._tags[arn] = handler.forward(request)
        handler.answer(200, self._tags[arn])
        return True
