"""Which addresses are never called, held where the connection is made and not where a URL is read."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory
from zope.interface import implementer

from smsdaemon.errors import TargetUnreachable

_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = IPv6Network("::/96")
_IPV4_LINK_LOCAL = IPv4Network("169.254.0.0/16")


class Reactor(IReactorTCP, IReactorTime, IReactorPluggableNameResolver):
    """The parts of a reactor that outgoing connections need."""


def is_link_local(host: str) -> bool:
    """Whether an IP address (text, perhaps with a scope) reaches this link only.

    Also where an IPv4 link-local address is written inside an IPv6 one, since gateways unpack
    these. What is no IP address raises ValueError.
    """
    address = ip_address(host)
    if isinstance(address, IPv4Address):
        return address in _IPV4_LINK_LOCAL
    embedded = _embedded_ipv4(address)
    return address.is_link_local or (embedded is not None and embedded in _IPV4_LINK_LOCAL)


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    plain = IPv6Address(int(address))  # without the scope, which no network contains
    if plain in _NAT64 or plain in _IPV4_COMPATIBLE:
        return IPv4Address(int(plain) & 0xFFFFFFFF)
    return None


@implementer(IReactorPluggableNameResolver)
class GuardedReactor:
    """As much of a reactor as ``HostnameEndpoint`` uses; it connects to no link-local address.

    The endpoint resolves names before it connects, so that ``connectTCP`` sees the address that
    is really called: literals, DNS names and names that change between two look-ups alike.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    @property
    def nameResolver(self) -> IHostnameResolver:
        return self._reactor.nameResolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        return self._reactor.installNameResolver(resolver)

    def seconds(self) -> float:
        return self._reactor.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        return self._reactor.callLater(delay, callable, *args, **kw)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        if is_link_local(host):
            raise TargetUnreachable(f"{host} is a link-local address, which is never called")
        return self._reactor.connectTCP(host, port, factory, timeout, bindAddress)
