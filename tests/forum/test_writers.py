"""Several processes that write, and are killed: nothing is lost, and nothing is half."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from forum import posting
from forum.adapters import get_adapter
from forum.models import Post, Thread
from forum.verification import find_problems

# Writes replies, and names each one when it is written.
WRITER = """
import random, sys
from forum import posting
known = [None]
for number in range(100_000):
    post = posting.create_post("writer", "THREAD", str(number), parent=random.choice(known[-5:]))
    known.append(post["postId"])
    print(post["postId"], flush=True)
    if number % 4 == 3:
        print("?" + post["postId"], flush=True)
        posting.delete_post("writer", {**post, "replies": 0}, version=1)
        known.pop()
        print("-" + post["postId"], flush=True)
"""


@pytest.mark.slow
def test_what_processes_have_written_before_they_are_killed_is_there(
    environment, settings, tmp_path
):
    """Four processes write replies to one thread; each is killed in the middle of its writes."""
    thread_id = posting.create_thread("writer", "Title", "first")["threadId"]
    processes, logs = [], [tmp_path / f"writer{number}" for number in range(4)]
    for log in logs:
        with log.open("w") as file:
            processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "manage.py",
                        "shell",
                        "-c",
                        WRITER.replace("THREAD", thread_id),
                    ],
                    cwd=settings.BASE_DIR,
                    env=environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        for process, log in zip(processes, logs, strict=True):
            deadline = time.monotonic() + 60
            while len(lines(log)) < 15:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = [line for log in logs for line in lines(log)]
    deleted = {line[1:] for line in said if line[0] == "-"}
    in_doubt = {line[1:] for line in said if line[0] == "?"} - deleted
    written = {line for line in said if len(line) == 32} - deleted - in_doubt
    found = {item["postId"]: item for item in get_adapter(Post).get_all()}
    assert written <= found.keys()
    assert all(found[each].get("isDeleted") for each in deleted & found.keys())
    thread = get_adapter(Thread).get_by_id(thread_id, consistent=True)
    alive = sum("isDeleted" not in item for item in found.values())
    assert thread["posts"] == alive
    # The first post, and of each process one that it could not name any more.
    assert len(written) < alive <= len(written) + 1 + len(logs)
    assert [problem.kind for problem in find_problems()] == []


def lines(log):
    """Return the lines of a log that are complete and name a post."""
    found = log.read_text().rpartition("\n")[0].splitlines()
    return [line for line in found if len(line.lstrip("-?")) == 32]
