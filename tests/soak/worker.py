"""
One process of the soak: threads that use the stores, check what they see, and report.

Each line of its output is an event in JSON. It ends by itself after some seconds, or by a kill.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import django
from django.conf import settings

# A request that timed out may be carried out late.
LATE = 10.0
# A read may be so far behind: the relay's lag, and what its threads wait for.
BEHIND = 5.0
# An operation within so many seconds had no attempt that timed out.
FAST = 0.15
# MAX_RETRIES and the first attempt.
ATTEMPTS = 4
_output = threading.Lock()


def report(**event):
    with _output:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def configure(options):
    settings.configure(
        SECRET_KEY=options["secret"],
        INSTALLED_APPS=["dynamo_stores"],
        USE_TZ=True,
        DYNAMO_STORES={"default": options["alias"], "direct": options["direct"]},
        CACHES={
            name: {"BACKEND": "dynamo_stores.cache.DynamoDBCache", "KEY_PREFIX": name, **cache}
            for name, cache in options["caches"].items()
        },
        LOGGING={"version": 1, "disable_existing_loggers": False},
    )
    django.setup()


class Interrupted(BaseException):
    """As Celery's soft time limit, it comes at any bytecode."""


class CacheClient:
    """Writes and reads its own keys of one cache and compares with a model of each."""

    def __init__(self, name, seed):
        from django.core.cache import caches

        from tests.soak.models import MISSING, Count, Register

        self.missing = MISSING
        self.cache = caches[name]
        self.random = random.Random(f"{seed}-{name}")
        self.own = f"{seed}-{name}-{os.getpid()}"
        self.tag = f"tag-{self.own}"
        self.numbers = itertools.count(1)
        self.keys = {f"{self.own}-k{number}": Register(LATE, BEHIND) for number in range(6)}
        # Keys that may have the tag; True: those that certainly have it.
        self.tagged: dict[str, bool] = {}
        # When the time of the invalidations ends that may come late.
        self.late: list[float] = []
        self.counter, self.count = f"{self.own}-count", Count(ATTEMPTS)
        self.has_counter = False

    def value(self, key):
        text = f"{key}={next(self.numbers)}"
        # Now and then in parts.
        return text + "." * (450_000 if self.random.random() < 0.03 else 0)

    def check(self, key, value, verb, asked):
        seen = self.missing if value is None else value
        model = self.keys[key]
        if not model.read(seen, asked):
            possible = [str(each)[:60] for each in model.possible()]
            history = "\n  ".join(model.history)
            report(
                violation=f"{verb} of {key} returned {str(seen)[:60]}, possible: {possible}\n"
                f"  {history}"
            )

    def step(self):
        from dynamo_stores.exceptions import StoreUnavailable

        verb = self.random.choice(
            ["get"] * 4 + ["set"] * 3 + ["add", "delete", "touch", "get_many", "set_many", "incr",
             "invalidate", "delete_many", "get_or_set", "incr_version"]
        )  # fmt: skip
        key = self.random.choice(list(self.keys))
        self.keys[key].history.append(verb)
        try:
            getattr(self, f"do_{verb}")(key)
        except StoreUnavailable:
            return "unavailable"
        return "done"

    def write(self, key, value, call, is_done=bool):
        """Call a write of ``value``; tell the model when it began and, if it was done, that."""
        model, began = self.keys[key], time.monotonic()
        begun = model.begin(value, began)
        if is_done(result := call()):
            model.confirm(begun, slow=time.monotonic() - began > FAST)
        return result

    def do_get(self, key):
        asked = time.monotonic()
        self.check(key, self.cache.get(key), "get", asked)

    def do_set(self, key):
        value, tags = self.value(key), [self.tag] if self.random.random() < 0.4 else []
        before = self.tagged.get(key)
        self.tagged[key] = False
        if tags:
            for until in self.late:
                self.keys[key].begin(self.missing, until - LATE)
        self.write(key, value, lambda: self.cache.set(key, value, 600, tags=tags), always)
        self.tagged[key] = bool(tags)
        if not tags and before is None:
            del self.tagged[key]

    def do_add(self, key):
        value = self.value(key)
        if key in self.tagged:
            self.tagged[key] = False
        added = self.write(key, value, lambda: self.cache.add(key, value, 600))
        if not added and self.keys[key].possible() <= {self.missing, value}:
            # Its own first attempt may have been the one that was there.
            self.keys[key].may_be(value)

    def do_delete(self, key):
        self.write(key, self.missing, lambda: self.cache.delete(key), always)

    def do_touch(self, key):
        touched = self.cache.touch(key, 600)
        possible = self.keys[key].possible()
        if touched and possible == {self.missing}:
            report(violation=f"touch of {key} found something, and nothing is there")
        if not touched and self.missing not in possible:
            report(violation=f"touch of {key} found nothing, and there is {possible}")

    def do_get_many(self, key):
        wanted = [key, self.random.choice(list(self.keys))]
        asked = time.monotonic()
        found = self.cache.get_many(wanted)
        if extra := set(found) - set(wanted):
            report(violation=f"get_many returned keys that nobody asked for: {extra}")
        for each in set(wanted):
            self.check(each, found.get(each), "get_many", asked)

    def do_set_many(self, key):
        values = {each: self.value(each) for each in {key, self.random.choice(list(self.keys))}}
        began = time.monotonic()
        begun = {each: self.keys[each].begin(value, began) for each, value in values.items()}
        for each in values:
            if each in self.tagged:
                self.tagged[each] = False
        failed = self.cache.set_many(values, 600)
        slow = time.monotonic() - began > FAST
        for each in values:
            if each not in failed:
                self.keys[each].confirm(begun[each], slow=slow)

    def do_delete_many(self, key):
        self.write(key, self.missing, lambda: self.cache.delete_many([key]), always)

    def do_get_or_set(self, key):
        value, model = self.value(key), self.keys[key]
        if key in self.tagged:
            self.tagged[key] = False
        asked = time.monotonic()
        # It returns what it computed also if that could not be stored.
        found = self.write(
            key, value, lambda: self.cache.get_or_set(key, lambda: value, 600), never
        )
        if found != value:
            self.check(key, found, "get_or_set", asked)
        elif self.missing not in model.possible():
            report(violation=f"get_or_set of {key} computed, and there is a value")

    def do_incr_version(self, key):
        began, name = time.monotonic(), f"{key}-moved-{next(self.numbers)}"
        value = self.value(key)
        self.cache.set(name, value, 600)
        self.cache.incr_version(name)
        left, moved = self.cache.get(name), self.cache.get(name, version=2)
        self.cache.delete(name, version=2)
        if time.monotonic() - began > FAST:
            return  # an attempt may have come late
        if left is not None or moved != value:
            report(violation=f"incr_version of {name} left {left}, moved {str(moved)[:60]}")

    def do_incr(self, key):
        if not self.has_counter:
            self.has_counter = self.cache.add(self.counter, 0, None)
            return
        self.count.begin()
        value = self.cache.incr(self.counter)
        if not self.count.incremented(value):
            bounds = f"{self.count.low} to {self.count.high}"
            report(violation=f"incr returned {value}, possible: {bounds}")

    def do_invalidate(self, key):
        tagged, began = dict(self.tagged), time.monotonic()
        begun = {each: self.keys[each].begin(self.missing, began) for each in tagged}
        for each in tagged:
            self.keys[each].history.append("invalidate")
        self.late = [*(until for until in self.late if until > began), began + LATE]
        self.cache.invalidate_tags([self.tag])
        slow = time.monotonic() - began > FAST
        if not slow:
            self.late.remove(began + LATE)
        for each, is_certain in tagged.items():
            if is_certain:
                self.keys[each].confirm(begun[each], slow=slow)


def always(result):
    return True


def never(result):
    return False


class LockClient:
    """Takes locks of all processes, and counts under each by its fence."""

    def __init__(self, seed):
        from django.core.cache import caches

        from dynamo_stores.calls.account import get_account
        from dynamo_stores.calls.client import make_client
        from dynamo_stores.conf import get_config

        self.random = random.Random(f"{seed}-locks")
        self.cache = caches["plain"]
        self.table = get_config("direct").store_table
        self.direct = make_client(get_config("direct"), get_account("direct"))

    def step(self):
        from botocore.exceptions import ClientError

        name = f"lock-{self.random.randrange(3)}"
        lock = self.cache.lock(name, timeout=3)
        if not lock.acquire(blocking_timeout=2):
            return "busy"
        fence = lock.fence
        if fence is None:
            return "lost"
        report(lock=name, fence=fence)
        done = "done"
        try:
            self.count(name, "SET F = :f", "attribute_not_exists(F) OR F < :f", fence)
            time.sleep(self.random.random() * 0.2)
            self.count(name, "ADD N :one", "F = :f", fence)
            report(counted=name)
        except ClientError:
            done = "superseded"
        finally:
            lock.release()
        return done

    def count(self, name, update, condition, fence):
        values = {":f": {"N": str(fence)}}
        if ":one" in update:
            values[":one"] = {"N": "1"}
        self.direct.update_item(
            TableName=self.table,
            Key={"PK": {"S": f"soak#{name}"}, "SK": {"S": "count"}},
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeValues=values,
        )


class LimitClient:
    """Asks a limit of all processes."""

    def __init__(self, seed):
        from dynamo_stores.stores import RateLimitStore

        self.random = random.Random(f"{seed}-limits")
        self.store = RateLimitStore()

    def step(self):
        name = self.random.choice(["sliding", "gcra", "log", "fixed"])
        asked = time.monotonic()
        status = self.store.acquire(f"soak-{name}", rate="20/5s", on_unavailable="deny")
        if status.allowed:
            report(limit=name, asked=asked, got=time.monotonic())
        time.sleep(0.02)
        return "admitted" if status.allowed else "refused"


class JobClient:
    """Runs jobs that processes have in common, each of them once."""

    def __init__(self, seed):
        from dynamo_stores.stores import DedupeStore

        self.random = random.Random(f"{seed}-jobs")
        self.store = DedupeStore()
        self.seed = seed

    def step(self):
        from dynamo_stores.exceptions import StoreError

        job = f"job-{int(time.time() / 3)}"
        token = f"{os.getpid()}-{self.random.random()}"

        def work():
            report(job=job, began=token)
            time.sleep(0.05)
            return token

        try:
            result = self.store.run(job, work, ttl=600)
        except StoreError:
            return "failed"
        report(job=job, result=result)
        time.sleep(0.2)
        return "done"


class RecordClient:
    """Raises and lowers, by record only, a table that all processes have in common."""

    def __init__(self, seed):
        from dynamo_stores.capacity.records import CapacityRecords
        from tests.helpers.capacity import named

        self.random = random.Random(f"{seed}-records")
        self.records = CapacityRecords("default")
        self.capacity = named("soak-table")

    def step(self):
        if self.random.random() < 0.3:
            decision = {"from": {"": [5, 5]}, "to": {"": [5, 10]}, "code": "raised"}
            raised = self.records.record_raise(self.capacity, time.time() - 1, decision)
            report(generation=raised.generation)
        for record in self.records.due():
            if record.floor_of("") != {("", "Write"): 5}:
                report(violation=f"the floor of the record is {record.floor_of('')}")
            leased = self.records.lease(record, 5)
            if leased is not None:
                report(lease=leased.owner, at=time.monotonic())
                time.sleep(0.05)
                report(released=leased.owner, at=time.monotonic())
                self.records.finish(leased, {"code": "lowered"}, None)
        time.sleep(0.1)
        return "done"


def run(client, name, until, counts):
    from dynamo_stores.exceptions import StoreUnavailable

    while time.monotonic() < until:
        try:
            outcome = client.step()
        except StoreUnavailable:
            outcome = "unavailable"
        except Interrupted:
            outcome = "interrupted"
        except Exception as exc:
            report(violation=f"{name} raised {type(exc).__name__}: {str(exc)[:300]}")
            outcome = "crashed"
        counts[f"{name}: {outcome}"] = counts.get(f"{name}: {outcome}", 0) + 1


def run_interrupted(client, name, until, counts, rng):
    """The same in the main thread, which is interrupted at random."""

    def interrupt(number, frame):
        raise Interrupted

    signal.signal(signal.SIGALRM, interrupt)
    while time.monotonic() < until:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.5))
        try:
            run(client, name, min(until, time.monotonic() + 0.5), counts)
        except Interrupted:
            counts["interrupted"] = counts.get("interrupted", 0) + 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def leaks():
    """Return what must not be left when nothing is in progress."""
    from dynamo_stores.cache.store import near
    from dynamo_stores.calls.connection import get_connection

    found = {}
    for table, policy in get_connection("default")._policies.items():
        if policy.backpressure.in_flight:
            found[f"requests in flight on {table}"] = policy.backpressure.in_flight
    for tier in near._by_prefix.get("default").values():
        if tier._writing or tier._flights:
            found["reads or writes in progress in the near tier"] = 1
    renewing = [each.name for each in threading.enumerate() if "lock" in each.name]
    if renewing:
        found["renewals"] = renewing
    files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    if files > 200:
        found["open files"] = files
    return found


def main():
    options = json.loads(sys.stdin.readline())
    configure(options)
    seed, until = options["seed"], time.monotonic() + options["seconds"]
    counts: dict[str, int] = {}
    clients = {
        "near": CacheClient("near", seed),
        "generation": CacheClient("generation", seed),
        "locks": LockClient(seed),
        "limits": LimitClient(seed),
        "jobs": JobClient(seed),
        "records": RecordClient(seed),
    }
    threads = [
        threading.Thread(target=run, args=(client, name, until, counts), daemon=True)
        for name, client in clients.items()
    ]
    for each in threads:
        each.start()
    run_interrupted(
        CacheClient("plain", seed), "plain", until, counts, random.Random(f"{seed}-interrupts")
    )
    for each in threads:
        each.join(60)
        if each.is_alive():
            report(violation="a thread hangs")
    end = time.monotonic() + 20
    while (left := leaks()) and time.monotonic() < end:
        time.sleep(0.5)
    if left:
        report(violation=f"left at the end: {left}")
    report(counts=counts)


if __name__ == "__main__":
    main()
