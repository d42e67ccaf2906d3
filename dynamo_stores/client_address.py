"""
The request of a view, and its client's address, also behind proxies. Pure.

Any client may send ``X-Forwarded-For``; each proxy appends the address from which it received the
request. So the header is read from the right, and only as far as the trusted proxies reach.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpRequest

from .conf import DEFAULT_ALIAS, get_config, imported, ratelimit_setting
from .conf.functions import call
from .exceptions import ConfigurationError

IPv4_MASK, IPv6_MASK = 32, 64
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(meta: Mapping[str, Any], trusted: int | Sequence[str] = 0) -> Address:
    """
    Return the client's address of a request with this ``META``.

    ``trusted`` is the number of trusted proxies before the application, or their networks (CIDRs).
    Without any the address is ``REMOTE_ADDR``. If the header is too short, or has an invalid
    address, the last valid one is returned. Raises ConfigurationError if ``REMOTE_ADDR`` is
    missing, as behind a Unix socket.
    """
    peer = meta.get("REMOTE_ADDR") or ""
    forwarded = [
        each for each in str(meta.get("HTTP_X_FORWARDED_FOR", "")).split(",") if each.strip()
    ]
    found = parse_address(str(peer))
    if isinstance(trusted, int):
        if trusted and found is None and not peer and forwarded:
            # A proxy on a Unix socket has no address, but counts as a trusted proxy.
            found = parse_address(forwarded[-1])
            forwarded, trusted = forwarded[:-1], trusted - 1
        hops: list[Any] = [None] * trusted
    else:
        hops = [ipaddress.ip_network(each, strict=False) for each in trusted]
    if found is None:
        raise ConfigurationError(
            f"REMOTE_ADDR is {'empty' if not peer else 'not an IP address'}, as behind a proxy on "
            "a Unix socket. Set RATE_LIMIT['TRUSTED_PROXIES'] to the number of your proxies, or "
            "set RATELIMIT_IP_META_KEY."
        )
    for each in reversed(forwarded):
        if isinstance(trusted, int):
            if not hops:
                break
            hops.pop()
        elif not any(found in network for network in hops):
            break
        further = parse_address(each)
        if further is None:
            break
        found = further
    return found


def parse_address(text: str) -> Address | None:
    """Return the address in ``text``, also with a port, in brackets, or IPv4 written as IPv6."""
    host = text.strip().strip('"')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def masked(address: Address, v4: int = IPv4_MASK, v6: int = IPv6_MASK) -> str:
    """Return the network address of ``address``, because one client often has a whole /64."""
    mask = v4 if address.version == 4 else v6
    return str(ipaddress.ip_network(f"{address}/{mask}", strict=False).network_address)


def is_in(address: Address, networks: Sequence[str]) -> bool:
    """Return whether ``address`` is in one of ``networks`` (CIDRs)."""
    return any(address in ipaddress.ip_network(each, strict=False) for each in networks)


def get_ip(request: HttpRequest, using: str = DEFAULT_ALIAS) -> str:
    """Return the client's address with the masks of the settings applied."""
    return masked(
        get_address(request, using),
        ratelimit_setting("IPV4_MASK", 32),
        ratelimit_setting("IPV6_MASK", 64),
    )


def has_own_function() -> bool:
    """Return whether a function of the project finds the address."""
    source = ratelimit_setting("IP_META_KEY") or ""
    return callable(source) or "." in source


def get_address(request: HttpRequest, using: str = DEFAULT_ALIAS) -> Any:
    """Return the client's address. Raises ConfigurationError if the request has none."""
    source = ratelimit_setting("IP_META_KEY")
    if not source:
        return client_address(request.META, get_config(using).rate_limit.trusted_proxies)
    if has_own_function():
        text = call("RATELIMIT_IP_META_KEY", imported(source), request)
    else:
        text = request.META.get(source, "")
    found = parse_address(str(text or ""))
    if found is None:
        raise ConfigurationError(
            f"RATELIMIT_IP_META_KEY is {source!r}, and gives no IP address for this request."
        )
    return found


def request_of(args: Sequence[Any], kwargs: Mapping[str, Any], decorator: str) -> HttpRequest:
    """Return the request among the arguments of a view, a handler or a method."""
    for each in (*args[:2], kwargs.get("request")):
        if hasattr(each, "META"):
            request: HttpRequest = each
            return request
    raise ConfigurationError(f"{decorator} is for views: it was called without a request.")
