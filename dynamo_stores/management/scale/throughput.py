"""What a table carries as a whole: its quota, its provisioned units, its growth on demand."""

from __future__ import annotations

from typing import Protocol

from .units import BURST_SECONDS, GROWTH_SECONDS


class Throughput(Protocol):
    """The throughput of one kind, of reads or of writes, in units a second."""

    @property
    def sustained(self) -> float:
        """What the table's partitions are made for."""

    @property
    def available(self) -> float:
        """What may be used in the present second."""

    @property
    def limit(self) -> str:
        """What bounds it now: ``growth``, ``quota`` or ``provisioned``."""

    def use(self, units: float) -> None:
        """End the second, in which ``units`` were used."""


class OnDemand:
    """
    An on-demand table: it carries its warm throughput from the start, and always twice the peak
    that it reached ``growth`` seconds ago, as far as its quota.
    """

    def __init__(self, warm: float, quota: float, growth: int = GROWTH_SECONDS) -> None:
        self._warm, self._quota, self._growth = warm, quota, growth
        self._peaks = [0.0]  # by the second

    @property
    def sustained(self) -> float:
        return min(self._quota, self._grown)

    available = sustained

    @property
    def limit(self) -> str:
        return "quota" if self._grown >= self._quota else "growth"

    @property
    def _grown(self) -> float:
        then = len(self._peaks) - 1 - self._growth
        return max(self._warm, 2 * self._peaks[then] if then >= 0 else 0.0)

    def use(self, units: float) -> None:
        self._peaks.append(max(self._peaks[-1], units))


class Provisioned:
    """A provisioned table, with the unused units of up to ``burst`` seconds; it starts with all."""

    limit = "provisioned"

    def __init__(self, units: float, burst: int = BURST_SECONDS) -> None:
        self.sustained = units
        self._most = self._saved = units * burst

    @property
    def available(self) -> float:
        return self.sustained + self._saved

    def use(self, units: float) -> None:
        self._saved = max(0.0, min(self._most, self._saved + self.sustained - units))
