"""The interactive page of the forum's API."""

from __future__ import annotations

from django.test import Client


def test_the_page_of_the_api_works_within_its_policy(chromium, live_server, tables, people):
    """
    It lists the paths, reads, and writes with the session; nothing is refused by the policy or from
    elsewhere. It fits a telephone.
    """
    context = chromium.new_context(viewport={"width": 360, "height": 800})
    client = Client()
    client.force_login(people["root"])
    session = client.cookies["sessionid"].value
    context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
    page = context.new_page()
    errors, hosts = [], set()
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto(f"{live_server.url}/api/docs")
    assert page.get_attribute("html", "lang") == "en"
    page.wait_for_selector("#operations-users-list_users")
    assert page.locator(".opblock").count() == 16
    for operation, status in (
        ("users-list_users", "200"),
        ("threads-create_thread", "201"),
    ):
        block = page.locator(f"#operations-{operation}")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        answer = block.locator(".live-responses-table tbody .response-col_status")
        answer.wait_for()
        assert status in answer.inner_text()
        if operation == "threads-create_thread":
            assert "Expired items" in block.locator(".live-responses-table").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert errors == []
    assert {host for host in hosts if host} == {live_server.url.split("/")[2]}
    context.close()
