"""A relay before an engine whose tables have replicas, in its other regions."""

from __future__ import annotations

import json
import threading
import time

import boto3

from dynamo_stores.testing import FaultProxy


class ReplicatingTables(FaultProxy):
    """
    A relay that answers for the replicas of tables, each of which takes ``seconds`` to be added or
    removed. ``behind`` seconds after a put the item is in the regions of the table's replicas;
    None: never. A replica gets the ``status`` when it is added; None: it is gone then. With
    ``keeps`` a removal ends with an active replica. Requests for other regions are forwarded.
    """

    def __init__(self, upstream, seconds=0.3):
        super().__init__(upstream)
        self.seconds = seconds
        self.behind = 0.2
        self.status = "ACTIVE"
        self.keeps = False
        self.changes = []
        self._replicas = {}
        self._timers = []

    def _next(self, operation, request):
        own = {
            "UpdateTable": self._update,
            "DescribeTable": self._describe,
            "PutItem": self._put,
        }
        return super()._next(operation, request) or own.get(operation)

    def stop(self):
        for timer in self._timers:
            timer.cancel()
            timer.join()
        super().stop()

    def _update(self, handler, request):
        body = json.loads(request)
        if "ReplicaUpdates" not in body:
            handler.answer(*self._forwarded(handler, request))
            return True
        (change,) = body["ReplicaUpdates"]
        ((kind, content),) = change.items()
        self.changes.append((kind, content["RegionName"]))
        replicas = self._replicas.setdefault(body["TableName"], {})
        replicas[content["RegionName"]] = (kind, time.monotonic())
        handler.answer(200, b'{"TableDescription": {}}')
        return True

    def _describe(self, handler, request):
        status, answer, headers = self._forwarded(handler, request)
        if status == 200:
            found = json.loads(answer)
            replicas = self._replicas.get(json.loads(request)["TableName"], {})
            found["Table"]["Replicas"] = list(self._described(replicas))
            answer = json.dumps(found).encode()
            headers = {}
        handler.answer(status, answer, headers)
        return True

    def _described(self, replicas):
        for region, (kind, began) in replicas.items():
            is_over = time.monotonic() - began > self.seconds
            if kind == "Create":
                status = self.status if is_over else "CREATING"
            else:
                status = ("ACTIVE" if self.keeps else None) if is_over else "DELETING"
            if status is not None:
                yield {"RegionName": region, "ReplicaStatus": status}

    def _put(self, handler, request):
        handler.answer(*self._forwarded(handler, request))
        if self.behind is not None:
            for region in self._replicas.get(json.loads(request)["TableName"], {}):
                timer = threading.Timer(self.behind, self._copy, (request, region))
                self._timers.append(timer)
                timer.start()
        return True

    def _copy(self, request, region):
        client = boto3.client(
            "dynamodb",
            endpoint_url=self.upstream.geturl(),
            region_name=region,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        body = json.loads(request)
        client.put_item(TableName=body["TableName"], Item=body["Item"])
        client.close()

    @staticmethod
    def _forwarded(handler, request):
        status, headers, answer = handler.forward(request)
        return status, answer, headers
