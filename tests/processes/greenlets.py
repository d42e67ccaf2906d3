"""Greenlets that use the stores under time limits of gevent, and what they leave behind."""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import secrets  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import django  # noqa: E402
import gevent  # noqa: E402
from django.conf import settings  # noqa: E402

settings.configure(
    CACHES={
        "default": {
            "BACKEND": "dynamo_stores.cache.DynamoDBCache",
            "KEY_PREFIX": secrets.token_hex(6),
            "OPTIONS": {
                "LOCAL_TIMEOUT": 1,
                "STAMPEDE_LEASE": 5,
                "OPERATION_TIMEOUT": 30.0,
            },
        }
    },
    DYNAMO_STORES={
        "default": {
            "ENDPOINT_URL": os.environ["DYNAMODB_ENDPOINT"],
            "TABLE_PREFIX": os.environ["DYNAMODB_TABLE_PREFIX"],
            "REGION": "us-east-1",
            "DEDUPE": {"LEASE": 5, "MAX_WAIT": 60},
            "REPORTS": {"ENABLED": False},
        }
    },
    INSTALLED_APPS=["dynamo_stores"],
    SECRET_KEY="greenlets",
)
django.setup()

from django.core.cache import cache  # noqa: E402

from dynamo_stores.calls.connection import get_connection  # noqa: E402
from dynamo_stores.calls.policy import time_left  # noqa: E402
from dynamo_stores.stores import DedupeStore, RateLimitStore  # noqa: E402

GREENLETS, OPERATIONS = 8, 25
OWN = secrets.token_hex(6)
ended_early = 0


def operate(number):
    key = f"k{number % 4}"
    match number % 7:
        case 0:
            cache.set(key, number)
        case 1:
            cache.get(key)
        case 2:
            cache.get_many([key, "k0", "k1"])
        case 3:
            cache.get_or_set(f"computed{number}", lambda: gevent.sleep(0.01) or number)
        case 4:
            with cache.lock(key, 5):
                gevent.sleep(0.005)
        case 5:
            RateLimitStore().acquire(OWN, rate="1000/m")
        case 6:
            DedupeStore().run(f"{OWN}{key}", lambda: gevent.sleep(0.01) or number)


def work():
    global ended_early
    for _ in range(OPERATIONS):
        limit = gevent.Timeout(random.uniform(0.0005, 0.03))
        limit.start()
        try:
            operate(random.randrange(70))
        except gevent.Timeout as exc:
            if exc is not limit:
                raise
            ended_early += 1
        finally:
            limit.close()
        assert time_left(1_000.0) == 1_000.0, "a deadline was left behind"


gevent.joinall([gevent.spawn(work) for _ in range(GREENLETS)], raise_error=True)
assert ended_early > GREENLETS, f"only {ended_early} operations were ended"
until = time.monotonic() + 60
while any(policy.backpressure.in_flight for policy in get_connection("default").policies()):
    # Locks that were not released are released in the background.
    assert time.monotonic() < until, "a place was left behind"
    gevent.sleep(0.1)
    gc.collect()
near = cache.store.core.reader.near
assert not near._flights, "a shared read was left behind"
# All of it can be used again: leases that were not released end after five seconds.
for number in range(70):
    operate(number)
print(f"{ended_early} of {GREENLETS * OPERATIONS} operations were ended by gevent.Timeout")
sys.exit(0)
