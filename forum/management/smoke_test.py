"""The smoke test of the demo: uses the main pages over HTTP."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import time
from html import unescape
from typing import NamedTuple
from urllib.parse import urlencode


class SmokeTestFailed(Exception):
    """A page differs from what the smoke test expects."""


class Answer(NamedTuple):
    """The response to one request."""

    status: int
    headers: dict[str, str]
    text: str
    milliseconds: float


class Browser:
    """A client of one server that keeps cookies."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._cookies: dict[str, str] = {}

    def get(self, path: str) -> Answer:
        """Return the response to a GET."""
        return self._request("GET", path)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        """Return the response to a form, sent with the CSRF token of the server."""
        form = {**fields, "csrfmiddlewaretoken": self._cookies.get("csrftoken", "")}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._request("POST", path, urlencode(form), named)

    def _request(
        self, method: str, path: str, body: str | None = None, more: dict[str, str] | None = None
    ) -> Answer:
        headers = {
            "Cookie": "; ".join(f"{k}={v}" for k, v in self._cookies.items()),
            **(more or {}),
        }
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        started = time.perf_counter()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        for name, value in response.getheaders():
            if name.lower() == "set-cookie":
                cookie, _, content = value.partition(";")[0].partition("=")
                self._cookies[cookie] = content
        took = (time.perf_counter() - started) * 1000
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, text, took)


def smoke_test(browser: Browser, username: str, password: str) -> list[str]:
    """Return a line for each check. Raises SmokeTestFailed at the first that fails."""
    seen = []
    first = _page(browser, "/", cache="miss")
    threads = re.findall(r'<a href="(/threads/[^"]+)">([^<]+)</a>', first.text)
    if not threads:
        raise SmokeTestFailed("The front page lists no thread.")
    seen.append(f"/ from DynamoDB: {len(threads)} threads in {first.milliseconds:.0f} ms")
    again = _page(browser, "/", cache="hit")
    seen.append(f"/ from the cache: in {again.milliseconds:.0f} ms")

    path, title = threads[0]
    thread = _page(browser, path, cache="miss")
    authors = re.findall(r"<b>([^<]+)</b>", thread.text)
    if title not in thread.text or not authors:
        raise SmokeTestFailed(f"{path} shows no title or no posts.")
    seen.append(
        f"{path} from DynamoDB: {unescape(title)!r}, {len(authors)} posts by "
        f"{', '.join(dict.fromkeys(map(unescape, authors)))} in {thread.milliseconds:.0f} ms"
    )
    again = _page(browser, path, cache="hit")
    seen.append(f"{path} from the cache: in {again.milliseconds:.0f} ms")

    if (missing := browser.get("/threads/no-such-thread/")).status != 404:
        raise SmokeTestFailed(f"An unknown thread returned {missing.status}, expected 404.")

    browser.get("/admin/login/")
    fields = {"username": username, "password": password, "next": "/admin/"}
    if (entered := browser.post("/admin/login/", fields)).status != 302:
        raise SmokeTestFailed(f"The admin log-in returned {entered.status}, expected 302.")
    admin = browser.get("/admin/")
    if admin.status != 200 or "Log out" not in admin.text:
        raise SmokeTestFailed(
            f"/admin/ returned {admin.status}, expected the page of a logged-in user."
        )
    seen.append(f"/admin/ logged in as {username}: in {admin.milliseconds:.0f} ms")
    seen += [*_write(browser), *_status(browser)]
    return [*seen, *_sign_up(browser)]


def _sign_up(browser: Browser) -> list[str]:
    """Log out, sign up, start a thread, reply to a reply, and edit that reply."""
    _sent(browser, "/logout/", {})
    browser.get("/sign-up/")
    password = secrets.token_urlsafe(12)
    account = {"username": "smoke", "email": "smoke@example.com"}
    _sent(browser, "/sign-up/", {**account, "password1": password, "password2": password})
    thread = _sent(browser, "/new/", {"title": "A tree", "text": "The first post"})
    path = thread
    for text in ("A reply", "A reply to the reply"):
        path = _last_post(browser, thread)
        _sent(browser, f"{path}reply/", {"text": text})
    path = _last_post(browser, thread)
    form = browser.get(f"{path}edit/")
    version = re.search(r'name="version" value="(\d+)"', form.text)
    if version is None:
        raise SmokeTestFailed(f"{path}edit/ returned {form.status}, expected a form.")
    _sent(browser, f"{path}edit/", {"text": "An edited reply", "version": version[1]})
    page = browser.get(thread)
    if "An edited reply" not in page.text or "depth-3" not in page.text:
        raise SmokeTestFailed(f"{thread} does not show the edited reply at the third level.")
    if (policy := page.headers.get("content-security-policy")) != "default-src 'self'":
        raise SmokeTestFailed(f"{thread} has the policy {policy}, expected default-src 'self'.")
    return [f"/sign-up/ made an account; {thread} shows its reply to a reply, edited"]


def _last_post(browser: Browser, thread: str) -> str:
    """Return the path of the last post of a thread."""
    found = re.findall(r'class="time" href="([^"]+)"', browser.get(thread).text)
    if not found:
        raise SmokeTestFailed(f"{thread} shows no posts.")
    return unescape(str(found[-1]))


def _sent(browser: Browser, path: str, fields: dict[str, str]) -> str:
    """Send a form that is accepted; return the path of the next page."""
    answer = browser.post(path, fields)
    if answer.status != 302:
        raise SmokeTestFailed(f"{path} returned {answer.status}, expected 302.")
    return answer.headers["location"].partition("#")[0]


def _status(browser: Browser) -> list[str]:
    """Check the status page, and a breaker and a table's capacity in its JSON."""
    path = "/admin/dynamo-stores/"
    page = browser.get(path)
    if page.status != 200 or "No problems:" not in page.text:
        raise SmokeTestFailed(f"{path} returned {page.status}, expected 200 and no problems.")
    found = json.loads(browser.get(f"{path}?format=json").text)
    breaker = next(each for each in found["breakers"] if each["table"] == "forum-threads")
    table = next(each for each in found["capacity"] if each["table"] == "forum-threads")
    write = table["resources"][0]["write"]
    if breaker["state"] != "closed" or table["status"] != "ACTIVE":
        raise SmokeTestFailed(
            f"The table forum-threads is {table['status']} and its breaker {breaker['state']}; "
            "expected ACTIVE and closed."
        )
    if (ready := browser.get("/dynamo-stores/health/ready")).status != 200:
        raise SmokeTestFailed(f"health/ready returned {ready.status}, expected 200.")
    metrics = browser.get("/dynamo-stores/metrics/")
    reads = re.findall(
        r'^dynamo_stores_operations_total\{.*operation="GetItem",error=""\} ([\d.]+)$',
        metrics.text,
        re.MULTILINE,
    )
    if metrics.status != 200 or not reads:
        raise SmokeTestFailed(
            f"/dynamo-stores/metrics/ returned {metrics.status}, expected reads of tables."
        )
    return [
        f"{path} in {page.milliseconds:.0f} ms: the breaker of forum-threads is "
        f"{breaker['state']} in {breaker['role']}; it has {write['capacity']} WCU of "
        f"{write['baseline']} to {write['maximum']}; ready; "
        f"/dynamo-stores/metrics/ counts {sum(map(float, reads)):.0f} GetItem"
    ]


def _write(browser: Browser) -> list[str]:
    """Send a new thread twice with one key, then post replies until the limit refuses one."""
    browser.get("/new/")
    thread = {"title": "Smoke test", "text": "A thread that is created once."}
    key = {"Idempotency_Key": secrets.token_urlsafe(12), "Accept": "application/json"}
    first, again = (browser.post("/new/", thread, **key) for _ in range(2))
    if first.status != 201 or again.text != first.text:
        raise SmokeTestFailed(
            f"/new/ returned {first.status} and {again.status}, expected one thread."
        )
    if again.headers.get("idempotency-replayed") != "true":
        raise SmokeTestFailed("/new/ did not mark the response to a repeated request as replayed.")
    seen = [f"/new/ created {first.text}; the repeated request got the same response"]
    path = f"/threads/{json.loads(first.text)['thread_id']}/"
    if "Smoke test" not in browser.get("/").text:
        raise SmokeTestFailed("The front page does not list the new thread.")
    for count in range(1, 20):
        answer = browser.post(f"{path}reply/", {"text": f"Reply {count}"})
        if answer.status == 429:
            break
        if answer.status != 302:
            raise SmokeTestFailed(f"{path}reply/ returned {answer.status}, expected 302 or 429.")
    shown = ("retry-after", "ratelimit", "ratelimit-policy", "x-ratelimit-remaining")
    headers = ", ".join(f"{name}: {answer.headers.get(name)}" for name in shown)
    if answer.status != 429 or "None" in headers:
        raise SmokeTestFailed(f"{path}reply/ was never limited: {answer.status}, {headers}.")
    replies = re.findall(r"Reply \d+", browser.get(path).text)
    if len(replies) != count - 1:
        raise SmokeTestFailed(f"{path} shows {len(replies)} replies, expected {count - 1}.")
    seen.append(f"{path}reply/ accepted {count - 1} posts and refused the next: 429, {headers}")
    found = browser.get("/search/?q=smoke").text
    if "Smoke test" not in found:
        raise SmokeTestFailed("/search/ does not find the new thread.")
    return [*seen, "/search/?q=smoke finds it"]


def _page(browser: Browser, path: str, *, cache: str) -> Answer:
    answer = browser.get(path)
    if answer.status != 200:
        raise SmokeTestFailed(f"{path} returned {answer.status}, expected 200.")
    if (found := answer.headers.get("x-cache")) != cache:
        raise SmokeTestFailed(f"{path} was a cache {found}, expected a {cache}.")
    return answer
