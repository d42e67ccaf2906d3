"""A lock whose owners are killed and stopped at random, around values that must stay exact."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time

import pytest
from pynamodb.exceptions import UpdateError

from dynamo_stores.models import StoreItem

fork = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
# At least so many seconds, and until so many writes were acknowledged.
PROCESSES, THREADS, SECONDS, WRITES = 3, 8, 9, 20


def update(pk, expression, condition, values):
    """One UpdateItem on the guarded item; its attributes afterwards, None if it was refused."""
    table = StoreItem._get_connection()
    try:
        answer = table.connection.dispatch(
            "UpdateItem",
            {
                "TableName": table.table_name,
                "Key": {"PK": {"S": pk}, "SK": {"S": "GUARDED"}},
                "UpdateExpression": expression,
                "ConditionExpression": condition,
                "ExpressionAttributeNames": {"#fence": "fence", "#done": "done"},
                "ExpressionAttributeValues": values,
                "ReturnValues": "ALL_NEW",
            },
        )
    except Exception as exc:
        if "ConditionalCheckFailed" in repr(exc) or isinstance(exc, UpdateError):
            return None
        raise
    return answer["Attributes"]


@pytest.mark.slow
def test_what_a_fenced_lock_guards_is_exact(cache, tmp_path):
    """
    24 threads read a list, think, and write it with their name added. Processes are killed, and
    stopped past the lease. Nothing that was acknowledged is missing, nothing is there twice.
    """
    pk = f"guarded-{cache.key_prefix}"
    end = tmp_path / "end"
    StoreItem(pk, "GUARDED").save()

    def add(name, fence):
        """Read under the fence, so that an earlier owner of the lock can no longer write."""
        mine = {":mine": {"N": str(fence)}}
        read = update(
            pk,
            "SET #fence = :mine, #done = if_not_exists(#done, :none)",
            "attribute_not_exists(#fence) OR #fence < :mine",
            {**mine, ":none": {"L": []}},
        )
        if read is None:
            return False
        time.sleep(random.uniform(0, 0.01))
        names = {"L": [*read["done"]["L"], {"S": name}]}
        values = {**mine, ":names": names}
        return update(pk, "SET #done = :names", "#fence = :mine", values) is not None

    def thread(number, log):
        turn = 0
        while not end.exists():
            lock = cache.lock("guard", timeout=1)
            if lock.acquire(blocking_timeout=0.5):
                name = f"{os.getpid()}:{number}:{turn}"
                turn += 1
                fence = lock.fence
                # A process that was stopped meanwhile may have lost the lock already.
                if fence is not None and add(name, fence):
                    os.write(log, f"{name}\n".encode())
                lock.release()

    def process():
        log = os.open(tmp_path / f"{os.getpid()}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        threads = [threading.Thread(target=thread, args=(each, log)) for each in range(THREADS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def start():
        child = fork.Process(target=process)
        child.start()
        return child

    def acknowledged():
        return {line for log in tmp_path.glob("*.log") for line in log.read_text().splitlines()}

    children = [start() for _ in range(PROCESSES)]
    kills = stops = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or (
        len(acknowledged()) <= WRITES and time.monotonic() < until + 60
    ):
        time.sleep(random.uniform(0.5, 1.0))
        chosen = random.randrange(PROCESSES)
        child = children[chosen]
        if kills <= stops:
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            children[chosen] = start()
            kills += 1
        else:
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(1.5)
            os.kill(child.pid, signal.SIGCONT)
            stops += 1
    end.touch()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    names = [
        each["S"]
        for each in update(pk, "SET #fence = #fence", "#done <> :x", {":x": {"S": ""}})["done"]["L"]
    ]
    written = acknowledged()
    assert kills
    assert stops
    assert len(written) > WRITES
    assert len(names) == len(set(names))
    # A process that was killed between the write and its record has one more.
    assert written <= set(names)
    assert len(set(names) - written) <= kills
    StoreItem(pk, "GUARDED").delete()
