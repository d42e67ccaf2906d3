"""The kinds of item in the control table: what is done to the other tables, and who is there."""

from __future__ import annotations

from pynamodb.attributes import NumberAttribute, UnicodeAttribute, UnicodeSetAttribute

from .conf import DEFAULT_ALIAS
from .models import DynamoModel, IntegerAttribute, TableName


class ControlItem(DynamoModel):
    """
    An item of the control table, which says what is done to the other tables and must not live on
    one of them. It is on demand, whatever the others are.
    """

    class Meta:
        table_name = TableName(None, DEFAULT_ALIAS, "-control")

    pk = UnicodeAttribute(hash_key=True, attr_name="PK")
    sk = UnicodeAttribute(range_key=True, attr_name="SK")
    ttl = NumberAttribute(null=True, attr_name="TTL")


class CapacityRecord(ControlItem):
    """
    What was decided about a table: ``deadline`` is when it is to come down, in ms since the epoch,
    absent when nothing is to; ``generation`` counts its raises; ``lease_end`` is until when
    ``owner`` brings it down; ``decision`` is the last one, in JSON.
    """

    generation = IntegerAttribute(null=True, attr_name="g")
    deadline = IntegerAttribute(null=True, attr_name="d")
    lease_end = IntegerAttribute(null=True, attr_name="l")
    owner = UnicodeAttribute(null=True, attr_name="o")
    decision = UnicodeAttribute(null=True, attr_name="x")


class CapacityTables(ControlItem):
    """The tables that have a record."""

    tables = UnicodeSetAttribute(null=True, attr_name="t")


class CapacityClaim(ControlItem):
    """Who raises a table now: nobody else does until ``until``, in ms since the epoch."""

    until = IntegerAttribute(null=True, attr_name="u")


class DemandItem(ControlItem):
    """What one process asks of a table, in JSON, and when it said so, in ms since the epoch."""

    at = IntegerAttribute(null=True, attr_name="a")
    units = UnicodeAttribute(null=True, attr_name="x")


class StatusItem(ControlItem):
    """
    What one process reports of itself: ``report`` in JSON, ``at`` when, in ms since the epoch;
    ``resets`` are the tables whose breakers it is asked to reset.
    """

    at = IntegerAttribute(null=True, attr_name="a")
    report = UnicodeAttribute(null=True, attr_name="x")
    resets = UnicodeSetAttribute(null=True, attr_name="z")


class UseItem(ControlItem):
    """What all processes used of one table in one minute, in JSON."""

    use = UnicodeAttribute(null=True, attr_name="x")


class DecisionItem(ControlItem):
    """One decision about a table's capacity, taken or not, in JSON."""

    decision = UnicodeAttribute(null=True, attr_name="x")


class ActionItem(ControlItem):
    """That somebody's action was done: a second click finds it."""
