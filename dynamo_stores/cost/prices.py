"""
Prices of one region, read from a JSON file. Pure but for the file.

Numbers in the file are strings, or numbers without an exponent, and are read as decimals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

from ..exceptions import ConfigurationError

HERE = Path(__file__).parent
DEFAULT_FILE = HERE / "prices.json"
# The prices of 2024 in the document about the forum's database, whose table they make.
FILE_OF_2024 = HERE / "prices-2024.json"
MILLION = Decimal(1_000_000)
# Files are small; a larger one is another file.
_MOST_BYTES = 2**20
_HOURS = (Decimal(600), Decimal(800))
# What is divided by.
_ABOVE_ZERO = frozenset(["on_demand.read", "on_demand.write", "years", "gib"])
_LEAST = Decimal("0.000001")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Units:
    """
    Prices of read and write units: per million on demand, or per unit and hour provisioned.
    ``replicated_write`` is that of a write in a replica.
    """

    read: Decimal
    write: Decimal
    replicated_write: Decimal

    def of(self, kind: str) -> Decimal:
        """Return the price of ``"read"`` or ``"write"``."""
        return self.read if kind == "read" else self.write


@dataclass(frozen=True)
class Reserved:
    """Reserved capacity for so many years, per 100 units: the upfront fee, and the hourly one."""

    years: Decimal
    read_upfront: Decimal
    read_hour: Decimal
    write_upfront: Decimal
    write_hour: Decimal

    def upfront(self, kind: str) -> Decimal:
        """Return the upfront fee for 100 units of ``"read"`` or ``"write"``."""
        return self.read_upfront if kind == "read" else self.write_upfront

    def hour(self, kind: str) -> Decimal:
        """Return the hourly fee for 100 units of ``"read"`` or ``"write"``."""
        return self.read_hour if kind == "read" else self.write_hour


@dataclass(frozen=True)
class InfrequentAccess:
    """The table class Standard-IA, on demand: per million units, and per GB and month."""

    read: Decimal
    write: Decimal
    storage: Decimal


@dataclass(frozen=True)
class Streams:
    """Reads of streams (GetRecords), per million, and how many a month are free."""

    read: Decimal
    free: Decimal


@dataclass(frozen=True)
class RedisNode:
    """A node of a managed Redis: its type, its memory in GiB, and its price an hour."""

    engine: str
    type: str
    gib: Decimal
    hour: Decimal


@dataclass(frozen=True)
class RedisServerless:
    """
    A serverless Redis: per GB and hour of data, with a least amount, and per million processing
    units (ECPU).
    """

    engine: str
    gb_hour: Decimal
    ecpu: Decimal
    least_gb: Decimal


@dataclass(frozen=True)
class Prices:
    """
    The prices for ``region`` in ``currency``: storage, replicas' storage, backups and point-in-time
    recovery per GB and month. They are those of ``price_region``, which may be another one,
    multiplied by ``factor``. ``name``, ``date`` and ``source`` are those of the file.
    """

    name: str
    date: str
    source: str
    currency: str
    region: str
    price_region: str
    hours_per_month: Decimal
    on_demand: Units
    provisioned: Units
    storage: Decimal
    replica_storage: Decimal
    backup: Decimal
    point_in_time_recovery: Decimal
    streams: Streams
    reserved: tuple[Reserved, ...] = ()
    infrequent_access: InfrequentAccess | None = None
    redis_nodes: tuple[RedisNode, ...] = ()
    redis_serverless: tuple[RedisServerless, ...] = ()
    factor: Decimal = Decimal(1)

    @property
    def days_per_month(self) -> Decimal:
        """The days of a month."""
        return self.hours_per_month / 24

    @property
    def title(self) -> str:
        """What they are, as text: the name, the region, the date, and what was changed."""
        of = "" if self.region == self.price_region else f", taken for {self.region}"
        times = "" if self.factor == 1 else f", multiplied by {self.factor}"
        return f"{self.name}, {self.price_region}, {self.date}{of}{times}"

    def money(self, amount: Decimal) -> str:
        """Return an amount to the cent, or small ones to four digits: ``$12.30``, ``$0.0375``."""
        return money(amount, self.currency)


def money(amount: Decimal, currency: str) -> str:
    """Return an amount to the cent; under one of the currency, to four digits."""
    sign = "$" if currency == "USD" else f"{currency} "
    if abs(amount) >= 1:
        return f"{sign}{rounded(amount):,}"
    if 0 < amount < Decimal("0.0001"):
        return f"under {sign}0.0001"
    text = f"{rounded(amount, 4):f}".rstrip("0")
    whole, _, digits = text.partition(".")
    return f"{sign}{whole}.{digits.ljust(2, '0')}"


def rounded(amount: Decimal, digits: int = 2) -> Decimal:
    """Return ``amount`` rounded half up, as bills are."""
    # With all its digits, however many they are.
    context = Context(prec=max(28, amount.adjusted() + digits + 2))
    return amount.quantize(Decimal(1).scaleb(-digits), rounding="ROUND_HALF_UP", context=context)


def read_prices(
    path: str | Path | None = None,
    region: str | None = None,
    *,
    price_region: str | None = None,
    factor: Decimal = Decimal(1),
) -> Prices:
    """
    Return the prices of ``region`` from the file at ``path``, by default from the one of the
    package (``"2024"``: from its older one); without a region, of the first one in the file.

    For a region that the file does not have, ``price_region`` names another one whose prices are
    taken, multiplied by ``factor``. Raises ConfigurationError if the file or the region is missing,
    or a price is none.
    """
    file = DEFAULT_FILE if path is None else FILE_OF_2024 if path == "2024" else Path(path)
    values = _read(file)
    regions = _part(values, "regions", file)
    if not regions:
        raise ConfigurationError(f"The price file {file} has no regions; expected one or more.")
    wanted = price_region or region or next(iter(regions))
    if wanted not in regions:
        raise ConfigurationError(
            f"The price file {file.name} has no prices of the region {wanted}; it has "
            f"{', '.join(regions)}. Name a file with them in COST['PRICES'] or by --prices; or "
            "take those of another region, multiplied by a factor, by COST['PRICE_REGION'] and "
            "COST['FACTOR'] or by --price-region us-east-1 --factor 1.13."
        )
    found = _Reader(file, f"regions.{wanted}", _part(regions, wanted, file))
    try:
        prices = _prices(values, found, region or wanted, wanted, file)
    except RecursionError:
        raise ConfigurationError(f"The price file {file} is nested too deeply.") from None
    return prices if factor == 1 else _multiplied(prices, factor)


def _prices(
    values: Mapping[str, Any], found: _Reader, region: str, price_region: str, file: Path
) -> Prices:
    whole = _Reader(file, "", values)
    hours = whole.number("hours_per_month")
    if not _HOURS[0] <= hours <= _HOURS[1]:
        raise ConfigurationError(
            f"'hours_per_month' in the price file {file} is {hours}; expected 600 to 800."
        )
    redis = found.part("redis", optional=True)
    ia = found.part("infrequent_access", optional=True)
    return Prices(
        name=whole.text("name"),
        date=whole.text("date"),
        source=whole.text("source"),
        currency=whole.text("currency"),
        region=region,
        price_region=price_region,
        hours_per_month=hours,
        on_demand=found.part("on_demand").made(Units),
        provisioned=found.part("provisioned").made(Units),
        storage=found.number("storage"),
        replica_storage=found.number("replica_storage"),
        backup=found.number("backup"),
        point_in_time_recovery=found.number("point_in_time_recovery"),
        streams=found.part("streams").made(Streams),
        reserved=tuple(each.made(Reserved) for each in found.parts("reserved")),
        infrequent_access=ia.made(InfrequentAccess) if ia.values else None,
        redis_nodes=tuple(each.made(RedisNode) for each in redis.parts("nodes")),
        redis_serverless=tuple(each.made(RedisServerless) for each in redis.parts("serverless")),
    )


class _Reader:
    """Values of a part of the file, with errors that name it."""

    def __init__(self, file: Path, where: str, values: Mapping[str, Any]) -> None:
        self.values = values
        self._file = file
        self._where = where

    def number(self, name: str) -> Decimal:
        value = self.values.get(name)
        part = self._where.rpartition(".")[2]
        least = _LEAST if {name, f"{part}.{name}"} & _ABOVE_ZERO else Decimal(0)
        try:
            if isinstance(value, bool) or not isinstance(value, str | Decimal):
                raise ValueError
            number = Decimal(value)
            if not (number.is_finite() and least <= number < 10**12):
                raise ValueError
        except (InvalidOperation, ValueError):
            wanted = f'a number, {least:f} or more, such as "0.25"'
            raise self._wrong(name, wanted) from None
        return number

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            raise self._wrong(name, "a text that is not empty")
        return value

    def part(self, name: str, *, optional: bool = False) -> _Reader:
        value = self.values.get(name, {} if optional else None)
        if not isinstance(value, Mapping):
            raise self._wrong(name, "an object")
        return _Reader(self._file, self._path(name), value)

    def parts(self, name: str) -> list[_Reader]:
        value = self.values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
            raise self._wrong(name, "a list of objects")
        return [_Reader(self._file, self._path(name), each) for each in value]

    def made(self, cls: type[_T]) -> _T:
        texts = ("engine", "type")
        return cls(
            **{
                each.name: self.text(each.name) if each.name in texts else self.number(each.name)
                for each in fields(cls)  # type: ignore[arg-type]
            }
        )

    def _path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def _wrong(self, name: str, expected: str) -> ConfigurationError:
        has = repr(self.values[name])[:80] if name in self.values else "missing"
        return ConfigurationError(
            f"{self._path(name)!r} in the price file {self._file} is {has}; expected {expected}."
        )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(f"The price file {file} is larger than 1 MB.")
        found = json.loads(file.read_bytes(), parse_float=Decimal, parse_int=Decimal)
    except OSError as exc:
        raise ConfigurationError(
            f"The price file {file} could not be read: {exc.strerror or type(exc).__name__}."
        ) from exc
    except (ValueError, ArithmeticError, RecursionError) as exc:
        raise ConfigurationError(f"The price file {file} is not JSON: {exc}") from exc
    if not isinstance(found, Mapping):
        raise ConfigurationError(f"The price file {file} is no JSON object.")
    return found


def _part(values: Mapping[str, Any], name: str, file: Path) -> Mapping[str, Any]:
    found = values.get(name)
    if not isinstance(found, Mapping):
        raise ConfigurationError(f"{name!r} in the price file {file} is missing, or no object.")
    return found


def _multiplied(prices: Prices, factor: Decimal) -> Prices:
    def each(value: Any, name: str = "") -> Any:
        if isinstance(value, Decimal) and name not in ("years", "free", "gib", "least_gb"):
            return value * factor
        if isinstance(value, tuple):
            return tuple(map(each, value))
        if hasattr(value, "__dataclass_fields__"):
            return replace(
                value,
                **{part.name: each(getattr(value, part.name), part.name) for part in fields(value)},
            )
        return value

    found: Prices = each(prices)
    return replace(found, hours_per_month=prices.hours_per_month, factor=prices.factor * factor)
