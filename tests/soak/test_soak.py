"""
Processes and threads use all stores at once, through a relay that injects faults and lag, while
processes are killed, stopped and interrupted. The models of the workers know what may be seen.

``SOAK_SECONDS`` is how long (30), ``SOAK_SEED`` repeats a run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict

import pytest

from dynamo_stores.calls.account import get_account
from dynamo_stores.calls.client import make_client
from dynamo_stores.conf import get_config
from dynamo_stores.stores import LockStore
from tests.soak.models import most_in_any

SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
SEED = os.environ.get("SOAK_SEED") or secrets.token_hex(4)
PROCESSES = 3
LAG = 0.3
CACHES = {
    "plain": {"OPTIONS": {}},
    "near": {"OPTIONS": {"LOCAL_TIMEOUT": 3, "STAMPEDE_LEASE": 3}},
    "generation": {"OPTIONS": {"CLEAR": "generation"}},
}
WRITES = ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"]
READS = ["GetItem", "BatchGetItem", "Query"]


class Worker:
    """A process of the soak, whose events are collected by a thread."""

    def __init__(self, seed, seconds, alias, direct, secret, events):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        options = {"seed": seed, "seconds": seconds, "alias": alias, "direct": direct}
        options |= {"caches": CACHES, "secret": secret}
        with self.process.stdin as stream:
            stream.write(json.dumps(options) + "\n")
        self.errors: list[str] = []
        self.is_killed = False
        self.threads = [
            threading.Thread(target=self._read, args=(events,), daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for each in self.threads:
            each.start()

    def _read(self, events):
        with self.process.stdout as lines:
            for line in lines:
                # The last line of a process that is killed may be cut.
                with contextlib.suppress(json.JSONDecodeError):
                    events.append(json.loads(line))

    def _read_errors(self):
        with self.process.stderr as lines:
            for line in lines:
                self.errors = [*self.errors[-30:], line]

    def kill(self):
        self.is_killed = True
        os.killpg(self.process.pid, signal.SIGKILL)

    def join(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process.wait()
        for each in self.threads:
            each.join(10)


def inject(faults, rng, until):
    """Inject faults at random, and remove them."""
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.1, 0.6))
        operation, times = rng.choice([*WRITES, *READS, "*"]), rng.randrange(1, 6)
        kind = rng.randrange(9)
        if kind == 0:
            faults.throttle(operation, times)
        elif kind == 1:
            faults.fail(operation, times)
        elif kind == 2:
            faults.delay(rng.uniform(0.05, 0.4), operation, times)
        elif kind == 3:
            faults.lose_answer(operation, times)
        elif kind == 4:
            faults.reset(operation, times)
        elif kind == 5:
            faults.cut(operation, times)
        elif kind == 6:
            batch = rng.choice(["BatchWriteItem", "BatchGetItem"])
            faults.take_in_part(batch, rng.randrange(3), times)
        elif kind == 7:
            faults.fail(operation, times, status=400, code="TransactionConflictException")
        else:
            faults.reset("*")
            time.sleep(rng.uniform(0.2, 0.8))
            faults.clear()
    faults.clear()


@pytest.mark.slow
def test_nothing_is_wrong_lost_or_left(alias, dynamo_faults, default_alias):
    """No wrong value, no request over a limit, no lock or job lost, nothing left behind."""
    print(f"SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:.0f}")
    rng, secret = random.Random(SEED), secrets.token_hex(20)
    prefix = f"soak-{secrets.token_hex(4)}-"
    own = {**default_alias, "TABLE_PREFIX": prefix}
    direct = alias(**own)
    from dynamo_stores.infrastructure.tables import create_table, wanted_tables

    for spec in wanted_tables():
        if spec.using == direct and spec.name.startswith(prefix):
            create_table(spec, lambda line: None)
    dynamo_faults.lag(LAG)
    behind = {
        **own,
        "ENDPOINT_URL": dynamo_faults.url,
        "CIRCUIT_BREAKER": {"RECOVERY_TIMEOUT": 0.5},
        "DEDUPE": {"LEASE": 3},
    }
    events: list[dict] = []
    numbers = iter(range(10_000))

    def start(seconds):
        return Worker(f"{SEED}-{next(numbers)}", seconds, behind, own, secret, events)

    end = time.monotonic() + SECONDS
    workers = [start(SECONDS) for _ in range(PROCESSES)]
    injector = threading.Thread(target=inject, args=(dynamo_faults, rng, end), daemon=True)
    injector.start()
    ended, kills = [], 0
    while time.monotonic() < end - 5:
        time.sleep(rng.uniform(2, 5))
        number = rng.randrange(PROCESSES)
        if rng.random() < 0.5:
            os.killpg(workers[number].process.pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.1, 4))
            os.killpg(workers[number].process.pid, signal.SIGCONT)
            continue
        workers[number].kill()
        ended.append(workers[number])
        kills += 1
        workers[number] = start(max(3.0, end - time.monotonic()))
    injector.join()
    hung = []
    for each in [*ended, *workers]:
        killed = each.is_killed
        each.join(120)
        hung += [each] if each.is_killed and not killed else []
    problems = [event["violation"] for event in events if "violation" in event]
    problems += ["a process did not end" for _ in hung]
    problems += [
        "".join(each.errors) for each in workers if each.process.returncode and not each.is_killed
    ]
    problems += check_locks(events, direct, kills)
    problems += check_limits(events)
    problems += check_jobs(events)
    problems += check_leases(events)
    counts: Counter[str] = Counter()
    for event in events:
        counts.update(event.get("counts", {}))
    print(f"{kills} kills; {dict(sorted(counts.items()))}")
    assert not problems, "\n".join(problems[:20])
    for verb in ("plain: done", "near: done", "locks: done", "limits: admitted", "jobs: done"):
        # Some, on a machine that is as busy as can be.
        assert counts[verb] > 0, counts


def check_locks(events, direct, kills):
    """Every fence has one owner, every counted step is there, and every lock is free at last."""
    problems = []
    fences = Counter((each["lock"], each["fence"]) for each in events if "lock" in each)
    problems += [f"{name} had fence {fence} twice" for (name, fence), n in fences.items() if n > 1]
    counted = Counter(each["counted"] for each in events if "counted" in each)
    config = get_config(direct)
    client, table = make_client(config, get_account(direct)), config.store_table
    missing = 0
    for name, steps in counted.items():
        key = {"PK": {"S": f"soak#{name}"}, "SK": {"S": "count"}}
        item = client.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
        stored = int(item["N"]["N"])
        if stored < steps:
            problems.append(f"{name}: {steps} steps were counted, {stored} are stored")
        missing += stored - steps
    # A process may be killed or interrupted between a step and its report.
    if missing > kills + 5:
        problems.append(f"{missing} steps are stored that nobody counted")
    until = time.monotonic() + 10
    store = LockStore(direct, prefix="plain")
    for name in counted:
        while store.is_taken(f"plain:1:{name}"):
            if time.monotonic() > until:
                problems.append(f"{name} is held by nobody")
                break
            time.sleep(0.2)
    return problems


def check_limits(events):
    """No window has more than the limit."""
    admitted = defaultdict(list)
    for each in events:
        if "limit" in each:
            admitted[each["limit"]].append((each["asked"], each["got"]))
    # gcra admits a burst of a tenth beyond it, fixed windows twice the limit around an edge.
    most = {"sliding": 20, "log": 20, "gcra": 22, "fixed": 40}
    found = {name: most_in_any(5.0, pairs) for name, pairs in admitted.items()}
    return [
        f"{name}: {count} in 5 s, at most {most[name]}"
        for name, count in found.items()
        if count > most[name]
    ]


def check_jobs(events):
    """Callers of a job have one result, unless its owner was killed or could not store it."""
    results = defaultdict(set)
    for each in events:
        if "result" in each:
            results[each["job"]].add(each["result"])
    several = {job: tokens for job, tokens in results.items() if len(tokens) > 1}
    return [f"{job} has several results: {sorted(tokens)}" for job, tokens in several.items()]


def check_leases(events):
    """No two processes had the lease of a record at one time."""
    began = {each["lease"]: each["at"] for each in events if "lease" in each}
    ended = {each["released"]: each["at"] for each in events if "released" in each}
    spans = sorted((began[owner], ended[owner]) for owner in began if owner in ended)
    return [
        f"two leases overlap: {first} and {second}"
        for first, second in itertools.pairwise(spans)
        if second[0] < first[1] and first[1] - first[0] < 4
    ]
