"""Where caches are used: sessions, debug toolbar."""

from __future__ import annotations

import pytest
from django.contrib.sessions.backends import cache as session_engine
from django.test import RequestFactory, override_settings

BACKEND = "dynamo_stores.cache.DynamoDBCache"


def test_sessions(cache):
    """Saved, loaded, cycled and deleted through Django's engine."""
    with override_settings(
        CACHES={"default": {"BACKEND": BACKEND, "KEY_PREFIX": cache.key_prefix}}
    ):
        session = session_engine.SessionStore()
        session["user"] = 7
        session.save()
        assert session_engine.SessionStore(session.session_key)["user"] == 7
        session.cycle_key()
        assert session_engine.SessionStore(session.session_key)["user"] == 7
        session.delete()
        assert "user" not in session_engine.SessionStore(session.session_key)


def test_the_debug_toolbars_cache_panel(cache, settings):
    """It counts hits, misses and calls of ours as of any other backend."""
    pytest.importorskip("debug_toolbar")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "debug_toolbar"]
    settings.CACHES = {"default": {"BACKEND": BACKEND, "KEY_PREFIX": cache.key_prefix}}
    from debug_toolbar.panels.cache import CachePanel
    from debug_toolbar.toolbar import DebugToolbar
    from django.core.cache import cache as used
    from django.http import HttpResponse

    request = RequestFactory().get("/")

    def view(request):
        used.set("k", 1)
        used.get("k")
        used.get("missing")
        used.get_many(["k", "missing"])
        return HttpResponse()

    toolbar = DebugToolbar(request, view)
    panel = toolbar.get_panel_by_id(CachePanel.panel_id)
    panel.enable_instrumentation()
    try:
        response = panel.process_request(request)
        panel.generate_stats(request, response)
    finally:
        panel.disable_instrumentation()
    stats = panel.get_stats()
    assert (stats["total_calls"], stats["hits"], stats["misses"]) == (4, 2, 2)
