"""Values that are signed, and cannot be deserialised any more."""

from __future__ import annotations

import logging
import sys
import types

import pytest


@pytest.fixture
def moved(cache, monkeypatch):
    """A cache with a value whose class has been moved, and the content of that value."""
    module = types.ModuleType("shop_models")
    exec("class Order:\n    def __init__(self, card): self.card = card", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cache.set_many({"moved": module.Order("4111-secret"), "good": 1})
    monkeypatch.delitem(sys.modules, module.__name__)
    return cache


def test_a_value_of_a_moved_class_is_missing(moved, caplog):
    """Logged once for each class of error, without its content."""
    assert moved.get("moved", "default") == "default"
    assert moved.get_many(["moved", "good"]) == {"good": 1}
    with pytest.raises(ValueError, match="not found"):
        moved.incr_version("moved")
    with pytest.raises(ValueError, match="no such key"):
        moved.incr("moved")
    logged = [each for each in caplog.records if "deserialised" in each.message]
    assert [each.levelno for each in logged] == [logging.WARNING]
    assert "ModuleNotFoundError" in logged[0].message
    assert "secret" not in caplog.text


def test_each_class_of_error_is_logged(moved, monkeypatch, caplog):
    """A class that is gone from its module is another error than a module that is gone."""
    moved.get("moved")
    monkeypatch.setitem(sys.modules, "shop_models", types.ModuleType("shop_models"))
    assert moved.get("moved") is None
    logged = [each.message for each in caplog.records if "deserialised" in each.message]
    assert len(logged) == 2
    assert "AttributeError" in logged[1]


@pytest.mark.parametrize("lease", [0, 10])
def test_get_or_set_replaces_it(moved, lease):
    """Under a lease, too, whose followers wait for the value."""
    moved._options["STAMPEDE_LEASE"] = lease
    moved.__dict__.pop("store", None)
    assert moved.get_or_set("moved", lambda: "new") == "new"
    assert moved.get("moved") == "new"
