"""Which addresses are never called, held where the connection is made and not where a URL is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, NoReturn

from twisted.internet import address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from smsdaemon.errors import NameNotFound, TargetUnreachable
from smsdaemon.names import LookUpReactor, Names

_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = IPv6Network("::/96")
_IPV4_LINK_LOCAL = IPv4Network("169.254.0.0/16")


class Reactor(LookUpReactor, IReactorTCP):
    """The parts of a reactor that outgoing connections need."""


def is_link_local(host: str) -> bool:
    """Whether an IP address (text, perhaps with a scope) reaches this link only.

    Also where an IPv4 link-local address is written inside an IPv6 one, since gateways unpack
    these. What is no IP address raises ValueError.
    """
    called = ip_address(host)
    if isinstance(called, IPv4Address):
        return called in _IPV4_LINK_LOCAL
    embedded = _embedded_ipv4(called)
    return called.is_link_local or (embedded is not None and embedded in _IPV4_LINK_LOCAL)


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    plain = IPv6Address(int(address))  # without the scope, which no network contains
    if plain in _NAT64 or plain in _IPV4_COMPATIBLE:
        return IPv4Address(int(plain) & 0xFFFFFFFF)
    return None


@implementer(IStreamClientEndpoint)
class NamedEndpoint:
    """Looks a name up, and connects to the first of its addresses that answers."""

    def __init__(self, *, reactor: Reactor, names: Names, host: str, port: int, timeout: float) -> None:
        self._reactor, self._names = reactor, names
        self._host, self._port, self._timeout = host, port, timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        found = self._names.addresses(self._host).addErrback(_unreachable)
        return found.addCallback(self._connect, protocolFactory)

    def _connect(self, addresses: Sequence[str], factory: IProtocolFactory) -> Deferred[Any]:
        guarded = GuardedReactor(self._reactor, addresses)
        # It is here to try one address after the other. The name is not told to it: it refuses some that
        # resolve, such as those with an underscore.
        endpoint = HostnameEndpoint(guarded, "::", self._port, timeout=self._timeout)
        return endpoint.connect(factory)


def _unreachable(failure: Failure) -> NoReturn:
    failure.trap(NameNotFound)
    raise TargetUnreachable(str(failure.value)) from failure.value


@implementer(IReactorPluggableNameResolver, IHostnameResolver)
class GuardedReactor:
    """As much of a reactor as ``HostnameEndpoint`` uses; it connects to no link-local address.

    ``connectTCP`` sees the address that is really called: literals, DNS names and names that change
    between two look-ups alike.
    """

    def __init__(self, reactor: Reactor, addresses: Sequence[str]) -> None:
        """``addresses``: of whatever name it is asked for."""
        self._reactor, self._addresses = reactor, addresses
        self.nameResolver = self

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError("it lives for one connect, whose addresses are known")

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, portNumber: int = 0, *_: Any, **__: Any
    ) -> IHostResolution:
        resolution: Any = None  # it cannot be cancelled, as it is over at once
        resolutionReceiver.resolutionBegan(resolution)
        for host in self._addresses:
            kind = address.IPv6Address if ":" in host else address.IPv4Address
            resolutionReceiver.addressResolved(kind("TCP", host, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution  # type: ignore[no-any-return]

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
