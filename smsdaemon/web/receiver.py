"""The pages of the public listeners: ``/SMSReceiver`` and ``/health/ready``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException

from smsdaemon.domain.model import RawRequest, Receipt, Submission
from smsdaemon.errors import TokenRefused, UnsupportedBody
from smsdaemon.ports import Provider
from smsdaemon.web.answers import TEXT, Answer, accepted
from smsdaemon.web.errors import MethodNotAllowed, NoSuchPage, PageIsReadOnly
from smsdaemon.web.request import BoundedRequest, Observe
from smsdaemon.web.routes import ExactRoutes, Page
from smsdaemon.web.waiting import Waiting


class Receiver(Protocol):
    """The use case (intake.Receiver), as far as this page needs it."""

    def receive(self, submission: Submission) -> Deferred[Receipt]: ...


Watch = Callable[[RawRequest, Submission, bool], object]
"""Told of a request, what it says, and whether it was accepted (or else its token refused)."""


class ReceiverPages:
    """What a provider, and a load balancer, can ask for."""

    app = Klein()
    app.url_map.merge_slashes = False  # else "//health/ready" is answered by a redirect

    def __init__(
        self,
        *,
        receiver: Receiver,
        provider: Provider,
        observe: Observe,
        ready: Callable[[], bool],
        clock: IReactorTime,
        watch: Watch,
        profile_pages: Mapping[bytes, Page] | None = None,
    ) -> None:
        """``observe`` is told of every answer of ``/SMSReceiver``; ``ready``: whether we can accept.

        ``profile_pages``: by path, as profile_pages.pages() makes them.
        """
        self._receiver, self._provider = receiver, provider
        self._observe, self._ready = observe, ready
        self._waiting = Waiting(clock)
        self._watch, self._profile_pages = watch, profile_pages

    def resource(self) -> IResource:
        """The root for a BoundedSite."""
        return ExactRoutes(self.app, self._profile_pages)

    @app.route("/SMSReceiver")
    def receive(self, request: BoundedRequest) -> Deferred[None]:
        """Contract 3. What goes wrong on the way is answered by the request, from the one table."""
        request.observed_by(self._observe)
        raw = _raw_request(request)
        submission = self._provider.read(raw)
        stored = self._waiting.follow(self._receiver.receive(submission))
        answered = stored.addCallback(self._accept, request, raw, submission)
        return answered.addErrback(self._not_stored, request, raw, submission)

    def _accept(
        self, receipt: Receipt, request: BoundedRequest, raw: RawRequest, submission: Submission
    ) -> None:
        request.answer(accepted(receipt.id, request.wants_json()))
        self._watch(raw, submission, True)

    def _not_stored(
        self, failure: Failure, request: BoundedRequest, raw: RawRequest, submission: Submission
    ) -> None:
        if failure.check(TokenRefused):
            self._watch(raw, submission, False)
        # Cancelled by Klein, because the peer is gone.
        if not failure.check(CancelledError):
            request.processingFailed(failure)

    @app.route("/health/ready")
    def health(self, request: BoundedRequest) -> None:
        if request.method not in (b"GET", b"HEAD"):
            raise PageIsReadOnly("only GET and HEAD are allowed here")
        if self._ready():
            request.answer(Answer(200, TEXT, b"ready\n"))
        else:
            request.answer(Answer(503, TEXT, b"not ready\n"))

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]  # klein says IRequest
    def no_such_page(self, request: BoundedRequest, _failure: Failure) -> None:
        """Klein found no route."""
        request.processingFailed(Failure(NoSuchPage("there is no such page")))


def _raw_request(request: BoundedRequest) -> RawRequest:
    """What the provider's profile gets to see; raises in the order of contract 3."""
    request.check_url()
    if request.method not in (b"GET", b"POST"):
        raise MethodNotAllowed("only GET and POST are allowed here")
    body = request.body()
    if body and request.method == b"POST" and request.header(b"Content-Encoding").lower() not in _UNCODED:
        raise UnsupportedBody("the body must not be compressed")
    return RawRequest(
        method=request.method.decode(),
        query=request.query,
        content_type=request.header(b"Content-Type").decode("latin-1"),
        body=body,
    )


_UNCODED = (b"", b"identity")
