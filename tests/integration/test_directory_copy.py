"""The directory's copy on disk: comes back as it was, or not at all."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import LoopingCall
from twisted.logger import LogLevel

from smsdaemon.domain.model import Client, Connector, Directory, Target
from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.directory_copy import DirectoryCopy
from tests.support.cases import ReactorTest
from tests.support.journals import lines_said
from tests.support.secrets_in_tests import SECRET


def directory(connectors: int) -> Directory:
    """One with a client and two targets for every ten connectors, and every kind of value."""
    clients = [
        Client(id=n, reseller="acme", name=f"shöp\n{n}", enabled=n % 3 > 0)
        for n in range(connectors // 10 + 1)
    ]
    targets = [
        Target(
            id=n,
            client_id=n // 2,
            kind="acd_group" if n % 2 else "application",
            name=f"t{n}",
            url=f"https://acd.example.com/{n}?a=%22",
            secret=SECRET,
            subject='{sender} "x"',
            enabled=n % 5 > 0,
        )
        for n in range(connectors // 5 + 2)
    ]
    all_connectors = [
        Connector(
            id=n,
            client_id=n // 10,
            number=f"+49 {n}",
            number_key=f"49{n}",
            target_id=None if n % 7 == 0 else n // 5,
            require_token=n % 2 > 0,
            token_hashes=frozenset(hashlib.sha256(b"%d" % m).digest() for m in range(n, n + n % 4)),
            sender_format="as-is" if n % 3 else "e164",
            providers=("twilio", "generic") if n % 4 else ("generic",),
            provider_secrets=tuple(f"secret {n} {k}" for k in range(n % 3)),
            unsigned=n % 5 == 0,
            enabled=n % 11 > 0,
        )
        for n in range(connectors)
    ]
    return Directory(
        clients={client.id: client for client in clients},
        targets={target.id: target for target in targets},
        connectors={connector.number_key: connector for connector in all_connectors},
    )


def without_secrets(all_of_it: Directory) -> Directory:
    targets = {id_: evolve(target, secret="") for id_, target in all_of_it.targets.items()}
    return evolve(all_of_it, targets=targets)


class DirectoryCopyTests(ReactorTest):
    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()
        self.copy = DirectoryCopy(self.file, reactor)
        self.said = lines_said(self, LogLevel.warn, "smsdaemon.store")

    async def test_100_000_connectors_come_back_and_the_reactor_has_its_turns(self) -> None:
        large = directory(100_000)
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        looping = LoopingCall(turn)
        looping.start(0)
        self.addCleanup(looping.stop)
        await self.copy.write(large)
        written_in, turns = turns, 0
        read = await self.copy.read()
        self.assertGreater(min(written_in, turns), 300)
        self.assertEqual(read, without_secrets(large))
        assert read is not None
        self.assertEqual(list(read.connectors), list(large.connectors))

    async def test_an_empty_directory_comes_back(self) -> None:
        await self.copy.write(Directory())
        self.assertEqual(await self.copy.read(), Directory())

    async def test_no_secret_is_written_and_nobody_else_may_read_it(self) -> None:
        await self.copy.write(directory(50))
        self.assertNotIn(SECRET.removeprefix("whsec_").encode(), self.file.read_bytes())
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual([path.name for path in self.file.parent.iterdir()], [self.file.name])

    async def test_none_is_there(self) -> None:
        self.assertIsNone(await self.copy.read())
        self.assertEqual(self.said, [])

    async def test_wherever_it_is_cut_off_it_is_not_used(self) -> None:
        await self.copy.write(directory(30))
        whole = self.file.read_bytes()
        for length in [*range(0, len(whole) - 1, 97), len(whole) - 2]:
            self.file.write_bytes(whole[:length])
            self.assertIsNone(await self.copy.read(), length)
            self.assertEqual(len(self.said), 1, length)
            self.said.clear()

    async def test_wherever_it_is_damaged_it_is_not_used(self) -> None:
        await self.copy.write(directory(30))
        whole = self.file.read_bytes()
        for place in range(0, len(whole) - 1, 61):
            for other in (b"\n", b"7", b"\xff"):
                damaged = whole[:place] + other + whole[place + 1 :]
                self.file.write_bytes(damaged)
                if damaged != whole:
                    self.assertIsNone(await self.copy.read(), (place, other))
        self.assertTrue(self.said)

    async def test_one_with_a_line_too_few_or_too_many_is_not_used(self) -> None:
        await self.copy.write(directory(30))
        lines = self.file.read_bytes().splitlines(keepends=True)
        for changed in (
            lines[:3] + lines[4:],
            [*lines[:3], lines[3], *lines[3:]],
            lines[:-1],
            lines[:1],
            lines * 2,
        ):
            self.file.write_bytes(b"".join(changed))
            self.assertIsNone(await self.copy.read())

    async def test_one_of_another_format_is_not_used(self) -> None:
        head = json.dumps({"format": 3}).encode() + b"\n"
        end = {"lines": 1, "digest": hashlib.blake2b(head, digest_size=16).hexdigest()}
        self.file.write_bytes(head + json.dumps(end).encode() + b"\n")
        self.assertIsNone(await self.copy.read())
        self.assertIn("format of this version", self.said[0])

    async def test_one_of_before_there_were_providers_can_be_read(self) -> None:
        lines = b"".join(
            json.dumps(line).encode() + b"\n"
            for line in (
                {"format": 1},
                ["connector", 1, 1, 1, "+49 1", "491", False, "", "e164", True],
            )
        )
        end = {"lines": 2, "digest": hashlib.blake2b(lines, digest_size=16).hexdigest()}
        self.file.write_bytes(lines + json.dumps(end).encode() + b"\n")
        read = await self.copy.read()
        assert read is not None
        expected = Connector(id=1, client_id=1, number="+49 1", number_key="491", target_id=1)
        self.assertEqual(read.connectors, {"491": expected})

    async def test_one_that_cannot_be_written_leaves_the_old_one(self) -> None:
        await self.copy.write(directory(10))
        Path(f"{self.file}.writing").mkdir()
        await self.assertFailure(self.copy.write(directory(20)), StoreUnavailable)
        self.assertEqual(await self.copy.read(), without_secrets(directory(10)))

    async def test_what_a_killed_one_left_is_no_hindrance(self) -> None:
        Path(f"{self.file}.writing").write_bytes(b"half")
        await self.copy.write(directory(10))
        self.assertEqual(await self.copy.read(), without_secrets(directory(10)))
