"""The interactive page of the forum's API."""

from __future__ import annotations


def test_the_page_of_the_api_works_within_its_policy(chromium, live_server, tables):
    """It lists the paths and sends requests; nothing is refused by the policy or from elsewhere."""
    page = chromium.new_page()
    errors, hosts = [], set()
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto(f"{live_server.url}/api/docs")
    page.wait_for_selector("#operations-default-list_users")
    assert page.locator(".opblock").count() == 16
    page.click("#operations-default-list_users")
    page.click("text=Try it out")
    page.click("text=Execute")
    page.wait_for_selector(".live-responses-table tbody .response-col_status")
    assert "200" in page.inner_text(".live-responses-table tbody .response-col_status")
    assert errors == []
    assert {host for host in hosts if host} == {live_server.url.split("/")[2]}
    page.close()
