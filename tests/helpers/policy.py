"""Call policies with prepared answers."""

from __future__ import annotations

from botocore.exceptions import ClientError, EndpointConnectionError

from dynamo_stores import clock
from dynamo_stores.calls.backpressure import Backpressure
from dynamo_stores.calls.breaker import CircuitBreaker
from dynamo_stores.calls.places import Places
from dynamo_stores.calls.policy import CallPolicy
from dynamo_stores.concurrency.effects import run
from dynamo_stores.conf.groups import BreakerConfig, RetryConfig


def throttle(code="ProvisionedThroughputExceededException", reasons=()):
    key = "throttlingReasons" if code == "ThrottlingException" else "ThrottlingReasons"
    return ClientError({"Error": {"Code": code}, key: list(reasons)}, "PutItem")


def refused():
    return ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "PutItem")


def no_answer():
    return EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


class Script:
    """Raises or returns each of its outcomes in order, then the last one again."""

    def __init__(self, *steps, clock=None, takes=0.0):
        self.steps, self.clock, self.takes, self.seconds = list(steps), clock, takes, []

    async def __call__(self, until):
        seconds = until - clock.monotonic()
        self.seconds.append(seconds)
        if self.clock is not None:
            self.clock.advance(min(self.takes, seconds))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step


class Policy(CallPolicy):
    """Makes its calls in this thread."""

    def call(self, *args, **kwargs):
        return run(CallPolicy.call(self, *args, **kwargs))


def policy(timeout=30.0, read_timeout=10.0, breaker=None, **retry):
    return Policy(
        using="default",
        table="t",
        breaker=CircuitBreaker(BreakerConfig(**(breaker or {}))),
        retry=RetryConfig(**retry),
        timeout=timeout,
        read_timeout=read_timeout,
        backpressure=Backpressure("t"),
        places=Places(50),
    )


def fill(rule):
    """Return as many requests in flight as the limit allows."""
    return [run(rule.backpressure.enter(0.0)) for _ in range(int(rule.backpressure.limit))]
