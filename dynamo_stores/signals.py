"""
Signals. Receivers cannot change the result of an operation.

``breaker_state_changed``: ``sender`` the breaker's class; ``using``, ``table``, ``old`` and
``new`` (:class:`~dynamo_stores.calls.breaker.State`), ``error`` (a class name or ``""``).

``throttled``: ``sender`` the measurement's class; ``measurement``
(:class:`~dynamo_stores.calls.observer.Measurement`) with the ``reasons`` of the throttle.

``capacity_changed``: ``sender`` the records' class; ``using``, ``table``, ``changes`` (new units by
resource, ``""`` is the table), ``code`` and ``why``.

``capacity_decided``: ``sender`` the decisions' class; ``using``, ``table`` and ``decision`` (a dict
with ``at``, ``code``, ``why``, ``from`` and ``to``, units by resource). Sent for each decision that
is added to the history, also those that change nothing.

``failed_over``: ``sender`` the failover's class; ``using``, ``table``, ``failover`` (the alias that
answers instead), ``is_active`` (False when the alias answers again), ``error`` (a class name).

``rate_limited``: ``sender`` the store's class; ``using``, ``resource``, ``status``
(:class:`~dynamo_stores.stores.RateLimitStatus`), ``priority`` (None, ``"user"`` or
``"background"``). Sent for each refusal, also cached ones; it carries no key.

``stream_record_failed``: ``sender`` the reader's class; ``using``, ``table``, ``consumer``,
``shard``, ``record`` (:class:`~dynamo_stores.streams.StreamRecord`) and ``error``. Sent when a
record is set aside.

``stream_trimmed``: ``sender`` the reader's class; ``using``, ``table``, ``consumer``, ``shard``.
Sent when records may have been trimmed before they were read.

Receivers run after the attempt, in the thread that made the call; their errors are logged. On an
event loop those of ``rate_limited`` run on Django's thread-sensitive thread, and the others on the
loop: they must be plain functions that do not block.
"""

from django.dispatch import Signal

breaker_state_changed = Signal()
throttled = Signal()
rate_limited = Signal()
capacity_changed = Signal()
capacity_decided = Signal()
failed_over = Signal()
stream_record_failed = Signal()
stream_trimmed = Signal()
