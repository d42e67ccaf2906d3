"""
News for whoever wants to hear it. No answer depends on whether anyone listens.

``breaker_state_changed``: ``sender`` the breaker's class; ``using``, ``table``, ``old`` and
``new`` (:class:`~dynamo_stores.calls.breaker.State`), ``error`` (a class name or ``""``).

``throttled``: ``sender`` the measurement's class; ``measurement``
(:class:`~dynamo_stores.calls.observer.Measurement`), whose ``reasons`` say what was short.

``capacity_changed``: ``sender`` the records' class; ``using``, ``table``, ``changes`` (new units by
resource, ``""`` is the table), ``code`` and ``why``.

``rate_limited``: ``sender`` the store's class; ``using``, ``resource``, ``status``
(:class:`~dynamo_stores.stores.RateLimitStatus`), ``priority`` (None, ``"user"`` or
``"background"``). Sent for each refusal, also those that were remembered; it names no key.

Receivers run in the thread that made the call, after its attempt; one that raises is logged.
"""

from django.dispatch import Signal

breaker_state_changed = Signal()
throttled = Signal()
rate_limited = Signal()
capacity_changed = Signal()
