"""``/SMSReceiver/<profile>``: a provider's requests, read, checked and answered as its profile says."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters, digits
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from smsdaemon.domain.model import Receipt, Submission, WireRequest
from smsdaemon.domain.reading import ProviderAnswer, Reading
from smsdaemon.errors import MalformedRequest, SmsDaemonError, UnsupportedBody
from smsdaemon.web.answers import Answer
from smsdaemon.web.errors import Header, MethodNotAllowed, detail, refusal
from smsdaemon.web.request import BoundedRequest, Observe
from smsdaemon.web.routes import Page
from smsdaemon.web.waiting import Waiting

_IDS_TOLD = 50
"""So many of a batch's ids are in the answer's header."""
_UNCODED = (b"", b"identity")
_OF_HOSTS = b"%s%s-._~:[]" % (ascii_letters.encode(), digits.encode())


class Profile(Protocol):
    """A provider's profile (providers.loaded.LoadedProfile), as far as a page needs it."""

    name: str
    methods: tuple[str, ...]

    def read(self, request: WireRequest) -> Reading: ...
    def success(self, request: WireRequest, reading: Reading, id: str, duplicate: bool) -> ProviderAnswer: ...
    def refusal(self, status: int, detail: str) -> ProviderAnswer | None: ...


class Desk(Protocol):
    """The use case behind the pages (doors.ProfileDesk)."""

    def receive(
        self, profile: str, request: WireRequest, submissions: Sequence[Submission]
    ) -> Deferred[list[Receipt]]:
        """Check that the request is authentic, and store all it has brought."""
        ...

    def handshake(self, profile: str, request: WireRequest) -> Deferred[ProviderAnswer] | None:
        """What to answer where the request is a handshake; None where it is none."""
        ...

    def not_an_sms(self, profile: str, kind: str) -> None:
        """Something was no SMS, and is only counted."""
        ...

    def unreadable(self, profile: str, why: str) -> None:
        """A request could not be read."""
        ...


@frozen(kw_only=True)
class Surroundings:
    """What all pages share."""

    desk: Desk
    public_url: str
    """Up to what stands before ``/SMSReceiver``, "" where requests say it."""
    observe: Observe
    waiting: Waiting


def pages(profiles: Sequence[Profile], surroundings: Surroundings, path: str) -> dict[bytes, Page]:
    """A page for each profile, by its path below ``path``."""
    return {
        f"{path}/{profile.name}".encode(): ProfilePage(profile, surroundings).receive for profile in profiles
    }


class ProfilePage:
    """The page of one profile."""

    def __init__(self, profile: Profile, surroundings: Surroundings) -> None:
        self._profile, self._around = profile, surroundings
        self._methods = frozenset(method.encode() for method in profile.methods)
        self._base = surroundings.public_url.rstrip("/")
        self._allow = (b"Allow", ", ".join(profile.methods).encode())

    def receive(self, request: BoundedRequest) -> Deferred[None] | None:
        """Contract 3 and 8. Whatever goes wrong on the way is answered here."""
        request.observed_by(self._around.observe)
        try:
            wire = self._wire_request(request)
            shaken = self._around.desk.handshake(self._profile.name, wire)
            if shaken is not None:
                answered = self._around.waiting.follow(shaken).addCallback(self._handshake_done, request)
                return answered.addErrback(self._refuse, request)
            reading = self._profile.read(wire)
            for name in (*((reading.name,) if reading.name else ()), *reading.ignored):
                self._around.desk.not_an_sms(self._profile.name, name)
            if reading.answer is not None:
                request.answer(_web_answer(reading.answer))
                return None
            stored = self._around.desk.receive(self._profile.name, wire, reading.submissions)
        except SmsDaemonError as error:
            if isinstance(error, MalformedRequest):
                self._around.desk.unreadable(self._profile.name, str(error))
            self._refuse(Failure(), request)
            return None
        answered = self._around.waiting.follow(stored).addCallback(self._stored, request, wire, reading)
        return answered.addErrback(self._refuse, request)

    def _stored(
        self, receipts: list[Receipt], request: BoundedRequest, wire: WireRequest, reading: Reading
    ) -> None:
        ids = [str(receipt.id) for receipt in receipts]
        duplicate = all(receipt.duplicate for receipt in receipts)
        answer = self._profile.success(wire, reading, ids[0], duplicate)
        request.answer(_web_answer(answer, (b"SMS-Message-Id", ", ".join(ids[:_IDS_TOLD]).encode())))

    def _handshake_done(self, answer: ProviderAnswer, request: BoundedRequest) -> None:
        self._around.desk.not_an_sms(self._profile.name, "handshake")
        request.answer(_web_answer(answer))

    def _refuse(self, failure: Failure, request: BoundedRequest) -> None:
        if failure.check(CancelledError):
            return  # the peer is gone
        error = failure.value or RuntimeError("a failure without an exception")
        row = refusal(error)
        rendered = None
        if isinstance(error, SmsDaemonError):
            rendered = self._profile.refusal(row.status, detail(error, row))
        if rendered is None and not isinstance(error, MethodNotAllowed):
            request.processingFailed(failure)
            return
        headers = (self._allow,) if isinstance(error, MethodNotAllowed) else row.headers
        if rendered is None:
            rendered = ProviderAnswer(
                status=row.status,
                content_type="text/plain; charset=utf-8",
                body=f"{detail(error, row)}\n".encode(),
            )
        request.answer(_web_answer(rendered, *headers))

    def _wire_request(self, request: BoundedRequest) -> WireRequest:
        """What the profile gets to see; raises in the order of contract 3."""
        request.check_url()
        if request.method not in self._methods:
            allowed = " and ".join(self._profile.methods)
            raise MethodNotAllowed(f"only {allowed} is allowed here")
        body = request.body()
        if body and request.header(b"Content-Encoding").lower() not in _UNCODED:
            raise UnsupportedBody("the body must not be compressed")
        return WireRequest(
            method=request.method.decode(),
            url=self._url(request),
            query=request.query,
            headers={
                name.lower().decode("latin-1"): tuple(value.decode("latin-1") for value in values)
                for name, values in request.requestHeaders.getAllRawHeaders()
            },
            body=body,
        )

    def _url(self, request: BoundedRequest) -> str:
        target = request.uri
        if not target.startswith(b"/"):
            target = request.path + (b"?" + request.query if request.query else b"")
        base = self._base
        if not base:
            scheme = "https" if request.isSecure() else "http"
            host = request.header(b"Host")
            if host.translate(None, _OF_HOSTS):
                # With a "?" in it, the signature of another URL would be good for any that follows.
                raise MalformedRequest("the Host is no name")
            base = f"{scheme}://{host.decode('latin-1')}"
        return base + target.decode("latin-1")


def _web_answer(answer: ProviderAnswer, *more: Header) -> Answer:
    own = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in answer.headers]
    return Answer(answer.status, answer.content_type.encode("latin-1", "replace"), answer.body, (*own, *more))
