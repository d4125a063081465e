"""Many connections, and peers that send without reading: what they cost is bounded, and the others go on."""

from __future__ import annotations

import re
import socket
from typing import Any

from smsdaemon.web.bounded import Bounds
from tests.support.authority import Authority
from tests.support.pages import FORM, GOOD, PagesTest, get, post
from tests.support.raw_peer import RawPeer, eventually, parse
from tests.support.receivers import RecordingReceiver, Served, SilentReceiver

NOT_STORED = b"the SMS was not stored, please send it again\n"
PAIR = get("/SMSReceiver") + get()
"""Answered at once, by 400 and 200: nothing else slows a peer down that sends many of them."""
PAIRS = 8000
MOST_KEPT = 400_000


class CrowdTests(PagesTest):
    def served(self, connections: int = 2, **bounds: Any) -> Served:
        made = Served(self, RecordingReceiver(), bounds=Bounds(connections=connections, **bounds))
        self.crowd = made.site.crowd
        return made

    async def crowded(self, connections: int = 2, **bounds: Any) -> tuple[Served, list[RawPeer]]:
        """With as many peers connected as are served."""
        served = self.served(connections, **bounds)
        peers = [await self.peer(served) for _ in range(connections)]
        await eventually(lambda: self.crowd.served == connections)
        return served, peers

    async def test_one_too_many_hears_500_at_once_and_the_others_go_on(self) -> None:
        served, peers = await self.crowded(telling_seconds=50)
        for request in (
            get(),
            post(FORM, GOOD.encode()),
            post(FORM, b"x" * 900_000),
            get("/SMSReceiver", "Content-Length: 1000000000", "Expect: 100-continue", method="POST"),
            b"G" * 20_000,
        ):
            late = await self.peer(served)
            late.send(request)
            await late.end()
            [response] = parse(late.received)[0]
            self.assertEqual((response.status, response.body), (500, NOT_STORED), request[:40])
            self.assertEqual(response.headers["retry-after"], "5")
            self.assertEqual(response.headers["connection"], "close")
        self.assertEqual(served.observed, [500] * 5)
        for peer in peers:
            self.assertEqual((await peer.ask(get())).status, 200)
        self.assertEqual((self.crowd.served, self.crowd.turned_away), (2, 5))

    async def test_it_is_told_in_the_form_that_it_asks_for(self) -> None:
        served, _ = await self.crowded()
        late = await self.peer(served)
        response = await late.ask(get(f"/SMSReceiver?{GOOD}", "accept:application/json"))
        self.assertEqual(response.headers["content-type"], "application/problem+json")
        late = await self.peer(served)
        late.send(get(method="HEAD"))
        await late.end()
        head, _, body = late.received.partition(b"\r\n\r\n")
        self.assertEqual((head.split()[1], body), (b"500", b""))

    async def test_a_silent_one_is_told_after_a_moment(self) -> None:
        served, _ = await self.crowded(telling_seconds=0.1)
        for start in (b"", get()[:-2]):
            late = await self.peer(served)
            late.send(start)
            await late.end()
            self.assertEqual([answer.status for answer in parse(late.received)[0]], [500])

    async def test_over_tls_too(self) -> None:
        authority = Authority()
        tls = authority.server(["127.0.0.1"]).options()
        bounds = Bounds(connections=1, telling_seconds=0.3, swallowing_seconds=0.3)
        served = Served(self, RecordingReceiver(), bounds=bounds, tls=tls)
        first = await RawPeer.connect(served.port, authority.trust_root())
        self.addCleanup(first.close)
        self.assertEqual((await first.ask(get())).status, 200)
        for request in (get(), b"", post(FORM, b"x" * 500_000)):
            late = await RawPeer.connect(served.port, authority.trust_root())
            self.addCleanup(late.close)
            self.assertEqual((await late.ask(request)).status, 500)
            await late.end()
        silent = await self.peer(served)  # does not even begin with TLS
        await silent.end()
        self.assertEqual((await first.ask(get())).status, 200)

    async def test_far_too_many_are_closed_without_a_word(self) -> None:
        lines = self.log_lines()
        served, peers = await self.crowded(told_connections=3, telling_seconds=50)
        told = [await self.peer(served) for _ in range(3)]
        await eventually(lambda: self.crowd.told == 3)
        for _ in range(20):
            late = await self.peer(served)
            await late.end()
            self.assertEqual(late.received, b"")
        self.assertEqual((self.crowd.told, self.crowd.turned_away), (3, 23))
        self.assertEqual(len([line for line in lines if "too many connections: 2 are served" in line]), 1)
        for peer in told:
            peer.close()
        await eventually(lambda: self.crowd.told == 0)
        peers.pop().close()
        await eventually(lambda: self.crowd.served == 1)
        self.assertEqual((await (await self.peer(served)).ask(get())).status, 200, "there is room again")

    async def test_one_that_does_not_stop_sending_is_cut_off(self) -> None:
        served, _ = await self.crowded(swallowing_seconds=50, swallowed_bytes=100_000)
        late = await self.peer(served)
        late.send(get() + b"x" * 5_000_000)
        await late.end()
        await eventually(lambda: self.crowd.told == 0)


class SentAheadTests(PagesTest):
    """A peer that sends requests ahead and does not read the answers."""

    async def ahead(self, served: Served, peer: RawPeer, requests: bytes) -> Any:
        """Send them, wait until nothing moves any more; the server's channel."""
        await eventually(lambda: served.site.channels)
        channel = served.site.channels[-1]
        for transport in (_tcp(channel.transport), _tcp(peer.transport)):
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                transport.socket.setsockopt(socket.SOL_SOCKET, buffer, 16384)
        peer.transport.pauseProducing()
        peer.send(requests)
        answered = -1
        while answered != (answered := len(served.observed)):
            before = served.site.clock.seconds()
            await eventually(lambda t=before: served.site.clock.seconds() > t + 0.2)  # type: ignore[misc]
        return channel

    async def test_answers_that_it_does_not_read_do_not_pile_up_and_are_not_lost(self) -> None:
        served = Served(self, RecordingReceiver())
        peer = await self.peer(served)
        channel = await self.ahead(served, peer, PAIR * PAIRS)
        self.assertLess(_kept(channel), MOST_KEPT)
        self.assertLess(len(served.observed), PAIRS)
        other = await self.peer(served)
        self.assertEqual((await other.ask(get())).status, 200, "others are served meanwhile")
        peer.transport.resumeProducing()
        await eventually(lambda: len(served.observed) == 2 * PAIRS + 1)
        await eventually(lambda: peer.received.count(b"HTTP/1.1 ") == 2 * PAIRS)
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", peer.received), [b"400", b"200"] * PAIRS)

    async def test_nor_do_requests_that_wait_for_the_store(self) -> None:
        receiver = SilentReceiver()
        served = Served(self, receiver)
        peer = await self.peer(served)
        channel = await self.ahead(served, peer, get() * 2 * PAIRS)
        self.assertLess(_kept(channel), MOST_KEPT)
        for count in (1, 2, 3):
            await eventually(lambda n=count: len(receiver.submissions) == n)  # type: ignore[misc]
            self.assertEqual(len(receiver.waiting), 1)
            receiver.answer()
        peer.abort()
        while served.site.open():  # what is not read from is not seen to have gone: only writing tells
            receiver.answer()
            await eventually(lambda: receiver.waiting or not served.site.open())
        receiver.answer()

    async def test_nor_do_they_over_tls(self) -> None:
        authority = Authority()
        served = Served(self, RecordingReceiver(), tls=authority.server(["127.0.0.1"]).options())
        peer = await RawPeer.connect(served.port, authority.trust_root())
        channel = await self.ahead(served, peer, PAIR * PAIRS)
        self.assertLess(_kept(channel), MOST_KEPT)
        self.assertLess(len(served.observed), PAIRS)
        peer.transport.resumeProducing()
        await eventually(lambda: peer.received.count(b"HTTP/1.1 ") == 2 * PAIRS)
        peer.abort()

    async def test_one_that_never_reads_is_cut_off(self) -> None:
        served = Served(self, RecordingReceiver(), bounds=Bounds(idle_seconds=0.3))
        peer = await self.peer(served)
        await self.ahead(served, peer, PAIR * PAIRS)
        await eventually(lambda: served.site.open() == 0)
        peer.abort()


def _tcp(transport: Any) -> Any:
    """The TCP connection below, where there is TLS between."""
    return getattr(transport, "transport", transport)


def _kept(channel: Any) -> int:
    """Bytes of a connection in this process, on their way in and out."""
    tcp = _tcp(channel.transport)
    out = len(tcp.dataBuffer) + int(tcp._tempDataLen)
    return out + len(channel._buffer) + sum(map(len, channel._dataBuffer))
