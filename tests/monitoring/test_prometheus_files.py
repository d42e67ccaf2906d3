"""The files of Prometheus' page: what crashes, forks, deleted files and odd names do to sums."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal

import pytest

from dynamo_stores.monitoring import Monitor
from dynamo_stores.monitoring.exporter import get_exporters
from dynamo_stores.monitoring.metrics import Distribution
from dynamo_stores.monitoring.sinks.prometheus import Counts, Folder, page, render
from dynamo_stores.stores import CacheStore
from tests.helpers.forking import in_processes
from tests.monitoring.test_prometheus import samples, scraped, total  # noqa: F401 - a fixture

NAME = "dynamo_stores_operations_total"
KEY = ("default", "table", "GetItem", "")


def counts(number):
    found = Counts()
    found.counters["operations"] = {KEY: float(number)}
    return found


def is_locked(sink):
    with (sink.folder.path / f"{sink.name}.lock").open("r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def total_of(folder):
    return folder.total({}).counters["operations"][KEY]


@pytest.fixture
def folder(tmp_path):
    """A folder with the counts of a process that ended."""
    found = Folder(tmp_path / "metrics")
    os.close(found.begin("ended-1"))
    found.write("ended-1", counts(5))
    return found


@pytest.mark.parametrize("suffix", [".json", ".lock"])
def test_a_page_that_is_killed_while_it_adds_an_ended_process(folder, monkeypatch, suffix):
    """Before either of the process's two files is deleted."""
    unlink = type(folder.path).unlink

    def killed(path, **kwargs):
        if path.suffix == suffix:
            raise KeyboardInterrupt
        unlink(path, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(type(folder.path), "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.total({})
    assert [total_of(folder), total_of(folder)] == [5, 5]
    assert sorted(path.name for path in folder.path.glob("ended-1*")) == []
    os.close(folder.begin("ended-2"))
    folder.write("ended-2", counts(3))
    assert [total_of(folder), total_of(folder)] == [8, 8]


def test_a_process_that_is_forked_while_a_page_adds_up(folder):
    """It inherits the open file of the lock, and must not keep it locked."""
    with folder._locked():
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
    try:
        with (folder.path / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_lock_of_a_running_process_is_deleted(folder):
    lock = folder.begin("running-1")
    folder.write("running-1", counts(2))
    (folder.path / "running-1.lock").unlink()
    for _ in range(3):
        folder.write("running-1", counts(2))
        assert total_of(folder) == 7
    os.close(lock)


def test_the_folder_is_deleted_while_processes_run(scraped):  # noqa: F811
    using, sink = scraped()
    CacheStore(using).get("k")

    def export():
        assert get_exporters(using).all[0].export()

    export()
    shutil.rmtree(sink.folder.path)
    export()
    assert in_processes(1, lambda _: is_locked(sink)) == [True]
    assert total(page([sink], openmetrics=False), NAME) == 1
    shutil.rmtree(sink.folder.path)
    os.close(Folder(sink.folder.path).begin("other"))
    export()
    assert in_processes(1, lambda _: is_locked(sink)) == [True]


def test_what_a_page_has_shown_is_in_the_file(scraped):  # noqa: F811
    """So that the page of another process does not show less."""
    using, sink = scraped()
    CacheStore(using).get("k")
    assert total(page([sink], openmetrics=False), NAME) == 1
    shown = Counts.read((sink.folder.path / f"{sink.name}.json").read_text())
    assert sum(shown.counters["operations"].values()) == 1


def test_labels_of_another_version_are_left_out(folder):
    old = counts(3)
    old.counters["operations"]["default", "table"] = 4.0
    old.counters["unknown"] = {("default",): 1.0}
    old.histograms["operation_seconds"] = {("default",): Distribution(1, 1.0, {0: 1})}
    folder.write("ended-2", old)
    assert total(render(folder.total({}), openmetrics=False), NAME) == 8


def test_odd_names_of_the_application_do_not_break_the_page(scraped):  # noqa: F811
    using, sink = scraped()
    monitor = Monitor(using)
    monitor.record_metric("queue.size", 1)
    monitor.record_metric("queue_size", 2)
    monitor.record_metric("m", 3, dimensions={"1st": "a", "": "b", "using": "c", "le gume": "d"})
    monitor.record_metric("m", 4, dimensions={"text": "lone \ud800 surrogate"})
    text = page([sink], openmetrics=False)
    text.encode()
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    found = samples(text)
    assert found["dynamo_stores_app_queue_size", ("using", using)] == 2
    names = [set(dict(pairs)) for name, *pairs in found if name == "dynamo_stores_app_m"]
    assert {"using", "_1st", "_", "le_gume"} in names
    assert all(dict(pairs)["using"] == using for _, *pairs in found)
