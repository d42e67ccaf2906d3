"""
Prometheus: a page with what all processes of a host have counted.

Each process writes its counts to a file of its own every few seconds and at its end. The page adds
the files up, with its own process as of now. Counts of ended processes are kept in one more file,
so that no counter goes back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ..histogram import Buckets, add
from ..meter import get_meter
from ..metrics import FAMILIES, Distribution, Labels, Snapshot
from .base import Metric, Sink

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

# Seconds between writes of a process's file.
_INTERVAL = 5.0
# Bounds of the buckets: powers of two from 256 microseconds to 34 seconds.
_BOUNDS = range(8 * 4, 25 * 4 + 1, 4)
_ENDED, _LOCK = "ended.json", "lock"
_PREFIX = "dynamo_stores_"
_OTHER = re.compile(r"[^a-zA-Z0-9_]")
# Metrics of the application with other names or dimensions than these are left out.
_MOST_METRICS = 500

# A value of the application, and when it was recorded.
_Values = dict[tuple[str, Labels], tuple[float, float]]


class PrometheusSink(Sink):
    """
    Writes the counts of this process for the page ``metrics/``; see ``dynamo_stores.urls``.

    Options: ``FOLDER``, for the files of all processes of one host and application (by default a
    folder in the system's one for temporary files that belongs to this user and project), and
    ``INTERVAL``, seconds between writes (5).
    """

    option_names = ("INTERVAL", "FOLDER")

    def __init__(self, using: str, options: Mapping[str, Any]) -> None:
        super().__init__(using, options)
        self.interval = float(options.get("INTERVAL", _INTERVAL))
        self.folder = Folder(Path(options["FOLDER"]) if "FOLDER" in options else default_folder())
        self.name = f"{using}-{os.getpid()}-{secrets.token_hex(4)}"
        self._meter = get_meter(using)
        self._values: _Values = {}
        self._lock: weakref.finalize[..., PrometheusSink] | None = None
        self._writing = threading.Lock()
        self.is_closed = False

    def metric(self, metric: Metric) -> None:
        key = metric.name, tuple(f"{name}={value}" for name, value in metric.dimensions)
        if key in self._values or len(self._values) < _MOST_METRICS:
            self._values[key] = (metric.value, metric.at)

    def export(self, snapshot: Snapshot, since: Snapshot) -> None:
        with self._writing:
            self._write(self.counts())

    def shown(self) -> Counts:
        """
        Return what the page shows of this process, and write it, so that the page of another
        process does not show less.
        """
        with self._writing:
            counts = self.counts()
            with contextlib.suppress(OSError):
                self._write(counts)
            return counts

    def counts(self) -> Counts:
        """Return what was counted until now."""
        return Counts.of(self._meter.snapshot(), dict(self._values))

    def _write(self, counts: Counts) -> None:
        if self.is_closed:
            return
        if self._lock is None or not self.folder.has_begun(self.name):
            if self._lock is not None:
                # Somebody deleted the files.
                self._lock()
            self._lock = weakref.finalize(self, os.close, self.folder.begin(self.name))
        self.folder.write(self.name, counts)

    def close(self) -> None:
        # The next page adds the file to those of ended processes.
        with self._writing:
            self.is_closed = True
            if self._lock is not None:
                self._lock()


class Counts:
    """Counts that can be added up over processes, by alias."""

    def __init__(self) -> None:
        # By family, then by the alias and labels.
        self.counters: dict[str, dict[Labels, float]] = {}
        self.gauges: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, dict[Labels, Distribution]] = {}
        # Of the application, each with its time.
        self.values: dict[Labels, tuple[float, float]] = {}
        # Of the sum of ended processes: the last that were added, whose files may still be there.
        self.added: set[str] = set()

    @classmethod
    def of(cls, snapshot: Snapshot, values: _Values) -> Counts:
        """Return the counts of one process."""
        found, using = cls(), (snapshot.using,)
        for name, counters in snapshot.counters.items():
            found.counters[name] = {using + labels: value for labels, value in counters.items()}
        for name, gauges in snapshot.gauges.items():
            found.gauges[name] = {using + labels: value for labels, value in gauges.items()}
        for name, each in snapshot.histograms.items():
            found.histograms[name] = {using + labels: value for labels, value in each.items()}
        for (name, labels), value in values.items():
            found.values[(name, *using, *labels)] = value
        return found

    def add(self, other: Counts, *, has_ended: bool = False) -> None:
        """Add the counts of another process; if it has ended, without its present state."""
        for name, counters in other.counters.items():
            found = self.counters.setdefault(name, {})
            for labels, value in counters.items():
                found[labels] = found.get(labels, 0.0) + value
        for name, histograms in other.histograms.items():
            totals = self.histograms.setdefault(name, {})
            for labels, each in histograms.items():
                total = totals.get(labels, Distribution(0, 0.0, {}))
                buckets: Buckets = dict(total.buckets)
                add(buckets, each.buckets)
                totals[labels] = Distribution(
                    total.count + each.count, total.total + each.total, buckets
                )
        if has_ended:
            return
        for name, gauges in other.gauges.items():
            found = self.gauges.setdefault(name, {})
            for labels, value in gauges.items():
                found[labels] = found.get(labels, 0.0) + value
        for key, (number, at) in other.values.items():
            if key not in self.values or self.values[key][1] < at:
                self.values[key] = (number, at)

    def as_text(self) -> str:
        """Return the counts as JSON."""
        return json.dumps(
            {
                "counters": _listed(self.counters),
                "gauges": _listed(self.gauges),
                "histograms": {
                    name: [
                        [labels, each.count, each.total, list(each.buckets.items())]
                        for labels, each in found.items()
                    ]
                    for name, found in self.histograms.items()
                },
                "values": [[labels, *value] for labels, value in self.values.items()],
                "added": sorted(self.added),
            }
        )

    @classmethod
    def read(cls, text: str) -> Counts:
        """
        Return the counts that ``as_text`` wrote, without those that had other labels in another
        version.
        """
        values, found = json.loads(text), cls()
        found.counters = _read(values["counters"])
        found.gauges = _read(values["gauges"])
        found.histograms = {
            name: {
                tuple(labels): Distribution(count, total, dict(map(tuple, buckets)))
                for labels, count, total, buckets in each
                if _is_known(name, labels)
            }
            for name, each in values["histograms"].items()
        }
        found.values = {tuple(labels): (value, at) for labels, value, at in values["values"]}
        found.added = set(values.get("added", ()))
        return found


class Folder:
    """The files of all processes of one host and application."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, name: str) -> int:
        """
        Create the folder if need be. Return the descriptor of an open file, which is locked while
        its process runs.
        """
        self._create()
        path, flags = self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT
        if fcntl is None:
            return os.open(path, flags, 0o600)
        # It is locked before others see it.
        new = self.path / f"{name}.lock.new"
        file = os.open(new, flags, 0o600)
        # Released by the system when the process ends, and not inherited by its children.
        fcntl.lockf(file, fcntl.LOCK_EX)
        new.replace(path)
        return file

    def has_begun(self, name: str) -> bool:
        """Return whether the locked file of :meth:`begin` is still there."""
        return (self.path / f"{name}.lock").exists()

    def write(self, name: str, counts: Counts) -> None:
        """Replace the counts of a process."""
        path = self.path / f"{name}.new"
        path.write_text(counts.as_text())
        path.replace(self.path / f"{name}.json")
        # What deletes old files from folders for temporary ones must see that it is in use.
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path / f"{name}.lock")

    def total(self, own: Mapping[str, Counts]) -> Counts:
        """Return the sum of all processes, with ``own`` in place of the files of these names."""
        found = Counts()
        for counts in own.values():
            found.add(counts)
        if not self.path.is_dir():
            return found
        self._check()
        with self._locked():
            ended, files, is_changed = self._read(_ENDED), [], False
            for path in sorted(self.path.glob("*.json")):
                if path.name == _ENDED or path.stem in own:
                    continue
                if path.stem not in ended.added:
                    if self._runs(path.stem):
                        found.add(self._read(path.name))
                        continue
                    ended.add(self._read(path.name), has_ended=True)
                    is_changed = True
                files.append(path)
            if is_changed:
                # A process that is killed before it deletes the files does not add them twice.
                ended.added = {path.stem for path in files}
                self.write(Path(_ENDED).stem, ended)
            for path in files:
                for each in (path.with_suffix(".lock"), path):
                    each.unlink(missing_ok=True)
        found.add(ended, has_ended=True)
        return found

    def _read(self, name: str) -> Counts:
        try:
            return Counts.read((self.path / name).read_text())
        except FileNotFoundError:
            return Counts()
        except (ValueError, KeyError, TypeError, AttributeError):
            # Of another version; a file is never written by halves.
            return Counts()

    def _runs(self, name: str) -> bool:
        if fcntl is None:
            return True
        try:
            with (self.path / f"{name}.lock").open("r+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Locked, or deleted by somebody, which says nothing about the process.
            return True
        return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.path / _LOCK).open("w") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                if fcntl is not None:
                    # A child that was forked meanwhile has the file open, too.
                    fcntl.flock(file, fcntl.LOCK_UN)

    def _create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check()

    def _check(self) -> None:
        # Others must not be able to write what the page shows.
        found = self.path.lstat()
        is_ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        if not (stat.S_ISDIR(found.st_mode) and is_ours):
            raise ImproperlyConfigured(
                f"{self.path} must be a folder that belongs to the user of this process. Set the "
                "option FOLDER of PrometheusSink to another one."
            )


def default_folder() -> Path:
    """Return the folder of this user and project."""
    project = os.environ.get("DJANGO_SETTINGS_MODULE", "") + str(getattr(settings, "BASE_DIR", ""))
    digest = hashlib.sha256(project.encode()).hexdigest()[:12]
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"dynamo-stores-metrics-{user}-{digest}"


def page(sinks: Sequence[PrometheusSink], *, openmetrics: bool) -> str:
    """Return the page with the counts of all processes that share a folder with the sinks."""
    by_folder: dict[Path, dict[str, Counts]] = {}
    for sink in sinks:
        own = by_folder.setdefault(sink.folder.path, {})
        if not sink.is_closed:
            own[sink.name] = sink.shown()
    total = Counts()
    for path, own in by_folder.items():
        total.add(Folder(path).total(own))
    return render(total, openmetrics=openmetrics)


def render(counts: Counts, *, openmetrics: bool) -> str:
    """Return counts in the format of OpenMetrics, or in Prometheus' text format."""
    lines: list[str] = []
    for family in FAMILIES.values():
        name, labels = _PREFIX + family.name, ("using", *family.labels)
        if family.kind == "histogram":
            if found := counts.histograms.get(family.name):
                lines += _head(name, "histogram", family.text)
                for values, each in sorted(found.items()):
                    lines += _histogram(name, dict(zip(labels, values, strict=True)), each)
            continue
        is_counter = family.kind == "counter"
        values_of = (counts.counters if is_counter else counts.gauges).get(family.name)
        if not values_of:
            continue
        sample = f"{name}_total" if is_counter else name
        lines += _head(name if openmetrics else sample, family.kind, family.text)
        lines += [
            f"{sample}{_labels(dict(zip(labels, values, strict=True)))} {_number(value)}"
            for values, value in sorted(values_of.items())
        ]
    applications: dict[str, dict[str, float]] = {}
    # Of names that are the same here, the latest value.
    for (name, using, *dimensions), (value, _) in sorted(
        counts.values.items(), key=lambda each: each[1][1]
    ):
        full, named = _PREFIX + "app_" + _OTHER.sub("_", name), {"using": using}
        for dimension in dimensions:
            key, _, text = dimension.partition("=")
            named.setdefault(_name(key), text)
        applications.setdefault(full, {})[f"{full}{_labels(named)}"] = value
    for full, samples in sorted(applications.items()):
        lines += _head(full, "gauge", "A value of the application.")
        lines += [f"{sample} {_number(value)}" for sample, value in sorted(samples.items())]
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _histogram(name: str, labels: Mapping[str, str], found: Distribution) -> list[str]:
    lines, total, ordered = [], 0, sorted(found.buckets.items())
    at = 0
    for bound in _BOUNDS:
        while at < len(ordered) and ordered[at][0] <= bound:
            total += ordered[at][1]
            at += 1
        le = _number(2 ** (bound // 4) / 1e6)
        lines.append(f"{name}_bucket{_labels({**labels, 'le': le})} {total}")
    lines.append(f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {found.count}")
    lines.append(f"{name}_sum{_labels(labels)} {_number(found.total)}")
    lines.append(f"{name}_count{_labels(labels)} {found.count}")
    return lines


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {_escaped(text)}", f"# TYPE {name} {kind}"]


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _name(text: str) -> str:
    found = _OTHER.sub("_", text)
    return found if found and not found[0].isdigit() else f"_{found}"


def _escaped(text: str) -> str:
    text = text.encode(errors="replace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return repr(float(value))


def _listed(found: Mapping[str, Mapping[Labels, float]]) -> dict[str, list[list[Any]]]:
    return {
        name: [[labels, value] for labels, value in values.items()]
        for name, values in found.items()
    }


def _read(found: Mapping[str, Any]) -> dict[str, dict[Labels, float]]:
    return {
        name: {tuple(labels): float(value) for labels, value in values if _is_known(name, labels)}
        for name, values in found.items()
    }


def _is_known(name: str, labels: Sequence[str]) -> bool:
    return name in FAMILIES and len(labels) == 1 + len(FAMILIES[name].labels)
