"""Directories to test with: one that is spelled out, and any that Hypothesis can think of."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from hypothesis import strategies as st

from smsdaemon.domain.directory_changes import (
    ClientRow,
    ConnectorRow,
    ResellerRow,
    StoredDirectory,
    TargetRow,
)
from smsdaemon.domain.directory_values import token_hash
from smsdaemon.domain.numbers import matching_key

_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@frozen
class UnsigningProvider:
    """A profile whose requests carry no signature, and which takes any secret for none."""

    signs: bool = False
    has_scheme: bool = False

    def check_secret(self, secret: str) -> None:
        raise ValueError("it is of no use")

    def is_public(self, secret: str) -> bool:
        return False


PROVIDERS = {"telnyx": UnsigningProvider(), "twilio": UnsigningProvider()}


def row_of(*rows: Any) -> dict[Any, Any]:
    """The rows by what they are unique by."""
    return {_key(row): row for row in rows}


def _key(row: ResellerRow | ClientRow | TargetRow | ConnectorRow) -> object:
    match row:
        case ResellerRow():
            return row.name
        case ClientRow():
            return row.path
        case TargetRow():
            return row.key
        case ConnectorRow():
            return row.number_key


SHOP = StoredDirectory(
    resellers=row_of(ResellerRow(id=1, name="acme")),
    clients=row_of(ClientRow(id=1, reseller="acme", name="shop")),
    targets=row_of(
        TargetRow(id=1, client="acme/shop", kind="acd_group", name="support", url="log:", secret=_SECRET),
        TargetRow(id=2, client="acme/shop", kind="application", name="survey", url="log:", secret=_SECRET),
    ),
    connectors=row_of(
        ConnectorRow(
            id=1,
            client="acme/shop",
            number="+49123123",
            number_key="49123123",
            target=("acme/shop", "acd_group", "support"),
            tokens=frozenset({token_hash("t0ken")}),
        )
    ),
)
"""One reseller, one client, one target of each kind, one connector."""

# What a name may hold: anything readable on one line, short so that examples stay small.
_texts = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/"), max_size=8
)
_names = _texts.filter(lambda name: bool(name.strip()))
_subjects = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0{"), max_size=12)
_urls = st.sampled_from(["log:", "log://a\"b'c", "http://127.0.0.1:9/a?b=%22", "https://acd.example.com/x#y"])
_numbers = st.from_regex(r"(\+|00|)[1-9][0-9 /.-]{3,12}", fullmatch=True)


@st.composite
def directories(draw: st.DrawFn) -> StoredDirectory:
    """Small directories with odd names; the ids are not those of any database."""
    flag = st.booleans()
    names = draw(st.lists(_names, max_size=3, unique=True))
    resellers = [ResellerRow(id=n, name=name, enabled=draw(flag)) for n, name in enumerate(names, 1)]
    owners = st.sampled_from(resellers) if resellers else st.nothing()
    of_reseller = st.builds(
        lambda owner, name, on: ClientRow(id=1, reseller=owner.name, name=name, enabled=on),
        owners,
        _names,
        flag,
    )
    clients = draw(st.lists(of_reseller, max_size=3, unique_by=_key)) if resellers else []
    paths = st.sampled_from([client.path for client in clients]) if clients else st.nothing()
    of_client = st.builds(
        TargetRow,
        id=st.just(1),
        client=paths,
        kind=st.sampled_from(["acd_group", "application"]),
        name=_names,
        url=_urls,
        secret=st.just(_SECRET),
        subject=_subjects,
        enabled=flag,
    )
    targets = draw(st.lists(of_client, max_size=4, unique_by=_key)) if clients else []
    a_target = st.sampled_from([None, *(target.key for target in targets)])
    spelled = draw(st.lists(_numbers, max_size=4, unique_by=matching_key)) if clients else []
    connectors = [
        ConnectorRow(
            id=1,
            client=draw(paths),
            number=number,
            number_key=matching_key(number),
            target=draw(a_target),
            require_token=draw(flag),
            tokens=draw(st.frozensets(st.binary(min_size=32, max_size=32), max_size=2)),
            sender_format=draw(st.sampled_from(["e164", "as-is"])),
            providers=draw(st.sampled_from([("generic",), ("telnyx",), ("generic", "twilio")])),
            unsigned=draw(flag),
            enabled=draw(flag),
        )
        for number in spelled
    ]
    return StoredDirectory(
        resellers=row_of(*resellers),
        clients=row_of(*clients),
        targets=row_of(*targets),
        connectors=row_of(*connectors),
    )
