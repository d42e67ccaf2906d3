"""The forum's pages in a browser."""

from __future__ import annotations

import io
import re

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client, override_settings

from forum import accounts, posting, threads

from .conftest import BOTH_LOOKS, NARROW, WIDE
from .test_status_pages import is_wider_than_its_window

PASSWORD = "correct horse battery"
POLICY = "default-src 'self'"
# What Chromium says of a status that a test asks for.
EXPECTED = re.compile(r"Failed to load resource: .* status of (400|403|404|409|429|503)")
STICKING_OUT = """[...document.querySelectorAll("main *, .bar > *")]
    .filter(each => each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 1)
    .filter(each => !["hidden", "auto"].includes(getComputedStyle(each).overflowX))
    .map(each => each.outerHTML.slice(0, 80))"""
# Links and buttons that are shown, and too low for a finger.
LOW = """[...document.querySelectorAll("main a, main button")]
    .filter(each => !each.closest(".hidden") && each.getClientRects()[0].height < 24)
    .map(each => each.outerHTML)"""
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_tables")]


@pytest.fixture
def visit(chromium, transactional_db, live_server):
    """
    ``visit()``: a page of a browser, in which ``user`` is logged in. What the browser complains of,
    a request to another host and a page without the policy fail the test.
    """
    contexts, complaints = [], []

    def check(response):
        is_page = response.request.resource_type == "document" and response.status // 100 != 3
        if is_page and response.headers.get("content-security-policy") != POLICY:
            complaints.append(f"{response.url} has no policy.")

    def visit(user=None, *, viewport=WIDE, scheme="light", scripts=True):
        context = chromium.new_context(
            viewport=viewport,
            color_scheme=scheme,
            java_script_enabled=scripts,
            base_url=live_server.url,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", check)
        page.on(
            "request",
            lambda sent: sent.url.startswith(live_server.url) or complaints.append(sent.url),
        )
        if user is not None:
            client = Client()
            client.force_login(user)
            cookie = client.cookies["sessionid"].value
            context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [each for each in complaints if not EXPECTED.match(each)] == []


@pytest.fixture
def countess(transactional_db):
    """A user with a thread of ten levels, one post that is deleted, and her profile's id."""
    user = accounts.sign_up("countess", "countess@example.com", PASSWORD, "Ada Lovelace")
    user.profile_id = accounts.profile_id_of(user)
    thread = posting.create_thread(user.profile_id, "What to read first?", "The queries.")
    user.thread_id = thread["threadId"]
    parent = user.post_id = threads.show_thread(user.thread_id).content.posts[0].post_id
    for level in range(2, 11):
        text = f"Reply at level {level}. " + "The writes matter as much as the reads. " * 3
        added = posting.create_post(user.profile_id, user.thread_id, text, parent=parent)
        parent = added["postId"]
        if level == 7:
            user.deep_id = parent
    gone = posting.create_post(user.profile_id, user.thread_id, "x" * 200, parent=user.post_id)
    posting.create_post(user.profile_id, user.thread_id, "y" * 200, parent=gone["postId"])
    posting.delete_post(
        user.profile_id, threads.get_post(user.thread_id, gone["postId"]), version=1
    )
    return user


@pytest.fixture
def guest(countess):
    """A user with a long name of one word, who has replied with long words, and a thread."""
    user = accounts.sign_up("g" * 60, "guest@example.com", PASSWORD, "G" * 80)
    user.profile_id = accounts.profile_id_of(user)
    accounts.edit_profile(user.profile_id, name="G" * 80, bio="b" * 200, version=1)
    for parent in (countess.post_id, countess.deep_id):
        posting.create_post(user.profile_id, countess.thread_id, "w" * 200, parent=parent)
    thread = posting.create_thread(user.profile_id, "t" * 120, "w" * 200)
    user.thread_id = thread["threadId"]
    user.post_id = threads.show_thread(user.thread_id).content.posts[0].post_id
    return user


def violations(page):
    """What an accessibility check finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [(each["id"], each["impact"], page.url) for each in found]


def check(page):
    """The page fits its window, what is on it its place, and the page is accessible."""
    assert not is_wider_than_its_window(page), page.url
    assert page.evaluate(STICKING_OUT) == [], page.url
    assert violations(page) == []


def paths_of(user):
    thread = f"/threads/{user.thread_id}/"
    post = f"{thread}posts/{user.post_id}/"
    return [
        "/", thread, post, f"{post}reply/", f"{post}edit/", f"{post}delete/", f"{thread}edit/",
        "/new/", f"/users/{user.profile_id}/", "/account/edit/", "/account/activity/",
        "/account/tokens/", "/account/password/", "/search/?q=what", "/search/?q=zzz", "/search/",
        "/threads/none/", f"{thread}delete/",
    ]  # fmt: skip


@BOTH_LOOKS
def test_pages_fit_and_are_accessible(visit, countess, guest, scheme, viewport):
    """Wide and narrow, light and dark, for users, a visitor and the staff, with long words."""
    page = visit(countess, viewport=viewport, scheme=scheme)
    for path in paths_of(countess):
        page.goto(path)
        check(page)
    page = visit(guest, viewport=viewport, scheme=scheme)
    post = f"/threads/{guest.thread_id}/posts/{guest.post_id}/"
    for path in (
        f"/threads/{guest.thread_id}/",
        post,
        f"{post}delete/",
        "/account/",
        "/account/activity/",
    ):
        page.goto(path)
        check(page)
    page = visit(viewport=viewport, scheme=scheme)
    for path in ("/sign-up/", "/login/", "/password-reset/", f"/threads/{countess.thread_id}/"):
        page.goto(path)
        check(page)
    page.goto("/sign-up/")
    page.fill("#id_username", "countess")
    page.fill("#id_email", "other@example.com")
    page.fill("#id_password1", PASSWORD)
    page.fill("#id_password2", PASSWORD)
    page.click("main button")
    assert page.locator("#id_username").get_attribute("aria-invalid") == "true"
    check(page)
    root = get_user_model().objects.create_superuser("root")
    page = visit(root, viewport=viewport, scheme=scheme)
    thread = f"/threads/{countess.thread_id}/"
    post = f"{thread}posts/{countess.post_id}/"
    for path in (thread, f"{thread}delete/", f"{post}move/", f"{post}delete-replies/"):
        page.goto(path)
        check(page)


def left(page, selector):
    return round(page.locator(selector).first.bounding_box()["x"])


def test_pages_are_aligned(visit, countess, expect):
    """Buttons and errors are where the text begins, and a phone shows the bar in two rows."""
    page = visit(countess, viewport=NARROW)
    post = f"/threads/{countess.thread_id}/posts/{countess.post_id}/"
    page.goto(f"{post}delete/")
    assert left(page, "main button") == left(page, "h1")
    page.goto("/account/edit/")
    accounts.edit_profile(countess.profile_id, name="Ada", bio="", version=1)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Replace the present profile")).to_be_visible()
    cancel = page.get_by_role("link", name="Cancel").bounding_box()
    button = page.locator("main button").bounding_box()
    assert cancel["y"] < button["y"] + button["height"] or cancel["x"] == button["x"]
    page = visit(get_user_model().objects.create_superuser("admin"), viewport=NARROW)
    page.goto(f"/threads/{countess.thread_id}/")
    assert page.locator(".top").bounding_box()["height"] < 120
    assert page.get_by_role("link", name="Administration").count() == 1
    for path in ("/", f"/threads/{countess.thread_id}/", post, f"/users/{countess.profile_id}/"):
        page.goto(path)
        assert page.evaluate(LOW) == []
    page = visit()
    page.goto("/threads/none/")
    assert left(page, "h1") == left(page, ".brand")


@pytest.mark.parametrize("scripts", [True, False], ids=["with-scripts", "without"])
def test_a_user_signs_up_and_writes(visit, scripts, expect):
    """Sign up, new thread, reply, reply to the reply, edit, delete, search, log out and in."""
    page = visit(viewport=NARROW, scripts=scripts)
    page.goto("/")
    assert page.get_by_role("heading", name="There are no threads yet").is_visible()
    page.get_by_role("link", name="Sign up").click()
    page.get_by_label("User name").fill("bo")
    page.get_by_label("Name (optional)").fill("Bo Lind")
    page.get_by_label("E-mail address").fill("bo@example.com")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    assert "Your account is made" in page.get_by_role("status").inner_text()

    page.get_by_role("link", name="New thread").click()
    page.get_by_label("Title", exact=True).fill("A <b>first</b> thread")
    page.get_by_label("First post").fill("Hello & welcome")
    page.get_by_role("button", name="Start the thread").dblclick()
    # The second click may abort the navigation of the first, which wait_for_url takes for an error.
    expect(page).to_have_url(re.compile("/threads/"))
    expect(page.get_by_role("heading", level=1)).to_have_text("A <b>first</b> thread")
    expect(page.get_by_text("Hello & welcome")).to_be_visible()

    for text, above in (("A reply", "Hello & welcome"), ("A reply to it", "A reply")):
        post = page.locator("article", has=page.get_by_text(above, exact=True))
        post.get_by_role("link", name="Reply to").click()
        page.get_by_label("Your text").fill(text)
        page.get_by_role("button", name="Post the reply").click()
        assert page.get_by_text(text, exact=True).is_visible()
    articles = page.locator("article")
    lefts = [articles.nth(n).bounding_box()["x"] for n in range(3)]
    assert lefts == sorted(set(lefts))

    page.locator("article", has_text="A reply to it").get_by_role("link", name="Edit").click()
    page.get_by_label("Your text").fill("An edited reply")
    page.get_by_role("button", name="Save").click()
    last = page.locator("article", has_text="An edited reply")
    assert "edited just now" in last.inner_text()
    last.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete the post").click()
    assert page.get_by_text("Your post is deleted.").is_visible()
    assert page.locator("article").count() == 2

    page.get_by_label("Search titles").fill("fir")
    page.get_by_role("button", name="Search").click()
    assert page.get_by_role("link", name="A <b>first</b> thread").is_visible()
    page.get_by_role("link", name="bo", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text() == "Bo Lind"
    assert page.locator(".posts li").count() == 2
    page.get_by_role("link", name="Edit your profile").click()
    page.get_by_label("About you").fill("I write.")
    page.get_by_role("button", name="Save").click()
    assert page.get_by_text("I write.").is_visible()

    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="Log in").click()
    page.get_by_label("User name").fill("bo")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    assert "correct user name and password" in page.get_by_role("alert").inner_text()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    assert page.get_by_role("button", name="Log out").is_visible()


def test_a_conflict_shows_both_texts(visit, countess):
    """And the second save replaces the present text."""
    path = f"/threads/{countess.thread_id}/posts/{countess.post_id}/edit/"
    first, second = visit(countess), visit(countess)
    for page, text in ((first, "from the first window"), (second, "from the second window")):
        page.goto(path)
        page.get_by_label("Your text").fill(text)
    for page in (first, second):
        page.get_by_role("button", name="Save").click()
    assert "Your change is not saved" in second.get_by_role("alert").inner_text()
    assert second.get_by_text("from the first window").is_visible()
    assert second.get_by_label("Your text").input_value() == "from the second window"
    check(second)
    second.get_by_role("button", name="Replace the present text").click()
    assert second.get_by_text("from the second window").is_visible()


def test_tokens(visit, countess):
    """One is made, shown once, and deleted."""
    page = visit(countess, viewport=NARROW)
    page.goto("/account/")
    page.get_by_role("link", name="Your tokens").click()
    page.get_by_label("Name").fill("nightly backup")
    page.get_by_role("button", name="Make a token").click()
    assert len(page.locator("code.secret").inner_text()) > 40
    check(page)
    page.get_by_role("button", name="Delete nightly backup").click()
    assert page.get_by_text("No tokens yet").is_visible()


def test_too_many_posts(visit, countess):
    """The page says how long to wait, and has the text that was not posted."""
    page = visit(countess, viewport=NARROW)
    page.goto(f"/threads/{countess.thread_id}/")
    for n in range(11):
        page.get_by_label("Your text").fill(f"Text {n}")
        page.get_by_role("button", name="Post the reply").click()
    assert page.get_by_role("heading", name="That was a little too fast").is_visible()
    assert page.locator("#unsent-text").input_value() == "Text 10"
    check(page)


def test_a_form_that_is_too_old(visit, countess):
    """It keeps its text, which is posted when it is sent again."""
    page = visit(countess, viewport=NARROW)
    page.goto(f"/threads/{countess.thread_id}/")
    page.get_by_label("Your text").fill("Is it lost?")
    page.context.clear_cookies(name="csrftoken")
    page.get_by_role("button", name="Post the reply").click()
    assert page.get_by_role("heading", name="This form is too old").is_visible()
    check(page)
    assert is_posted(page)
    assert page.get_by_text("Is it lost?").is_visible()


def is_posted(page):
    page.get_by_role("button", name="Send it again").click()
    return page.get_by_text("Your reply is posted.").count()


def test_an_outage(visit, countess, settings, dynamo_faults, until):
    """Known pages say how old they are, others when to try again; nobody is logged out."""
    default = settings.DYNAMO_STORES["default"]
    relayed = {**default, "ENDPOINT_URL": dynamo_faults.url, "RETRY": {"MAX_RETRIES": 0}}
    page = visit(countess)
    path = f"/threads/{countess.thread_id}/"
    with override_settings(DYNAMO_STORES={"default": relayed}):
        page.goto(path)
        dynamo_faults.fail()
        page.goto(path)
        assert "The forum’s database does not answer" in page.get_by_role("status").inner_text()  # noqa: RUF001
        assert page.get_by_text("The queries.").is_visible()
        check(page)
        page.get_by_label("Your text").fill("Is it lost?")
        page.get_by_role("button", name="Post the reply").click()
        assert page.get_by_role("heading", name="not available").is_visible()
        assert page.locator("#unsent-text").input_value() == "Is it lost?"
        assert page.get_by_role("button", name="Log out").is_visible()
        check(page)
        dynamo_faults.clear()
        # The breakers let calls through again after a while.
        until(lambda: is_posted(page))
        assert page.get_by_text("Is it lost?").count() == 1


def test_by_keyboard(visit, countess):
    """The first key leads to the content, and what has the focus is marked."""
    page = visit(countess)
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "What to read first?"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/threads/"))


def test_the_sample_forum(visit):
    """Its threads are listed and open, with names, counts and times."""
    call_command("forum_seed", stdout=io.StringIO())
    page = visit(viewport=NARROW)
    page.goto("/")
    assert page.locator(".threads li").count() > 5
    assert re.search(r"\d posts", page.locator(".facts").first.inner_text())
    page.locator(".threads h2 a").first.click()
    assert page.locator("article .avatar").first.inner_text().isalpha()
    assert page.locator("article time").first.get_attribute("title").endswith("UTC")
