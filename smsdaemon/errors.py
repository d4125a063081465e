"""The one tree of errors; web/errors.py turns those a peer may hear into statuses."""


class SmsDaemonError(Exception):
    """Anything this program raises on purpose; its text is one line that a user may read."""


class ConfigurationError(SmsDaemonError):
    """A settings or directory file cannot be used; ``problems`` holds one line per problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


# --- what a provider may hear ----------------------------------------------------------------


class RequestRefused(SmsDaemonError):
    """The provider's request is not taken; the text says why and names no internals."""


class MalformedRequest(RequestRefused):
    """The body cannot be parsed, a required field is missing or a field is too long."""


class UnsupportedBody(RequestRefused):
    """The body has a Content-Type that this URL does not read."""


class UnknownConnector(RequestRefused):
    """No connector has this number."""


class TokenRefused(RequestRefused):
    """The connector requires a token, and it is missing or wrong."""


class SignatureRefused(RequestRefused):
    """The request is not signed as its connector's provider signs; the text holds no secret, no value."""


class NotRoutable(RequestRefused):
    """The connector cannot pass an SMS on: something is disabled, missing or of another client."""


# --- our own side ----------------------------------------------------------------------------


class StoreUnavailable(SmsDaemonError):
    """PostgreSQL did not do what was asked, or not in time; asking again later may help."""


class StoreOverloaded(StoreUnavailable):
    """So much is waiting already that more would only wait to hear of failure."""


class StoreConflict(StoreUnavailable):
    """Another process was at the same rows; the same statement goes through when repeated."""


class StoreUnfit(StoreUnavailable):
    """PostgreSQL answers and cannot do its work: a table or a right is missing, say. Not the rows' fault."""


class FetchFailed(SmsDaemonError):
    """What a provider has us fetch did not come (a certificate, say); asking again later may help."""


class LeaseLost(SmsDaemonError):
    """A delivery is another's by now, or may be: nothing may be sent or recorded under the old lease."""


class StoreRefused(SmsDaemonError):
    """PostgreSQL refused the values it was given; asking again will not help."""


class SchemaMismatch(SmsDaemonError):
    """The schema in the database cannot be used by this version of the code."""


class UnsafeDatabase(SmsDaemonError):
    """PostgreSQL is set up so that what it committed can be lost; ``problems``: a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class EmbeddedPostgresError(SmsDaemonError):
    """The embedded PostgreSQL cannot be initialised or started; the text says what would help."""


class ApplyRefused(SmsDaemonError):
    """A directory file is sound but cannot be applied to what is stored."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NameNotFound(SmsDaemonError):
    """A host name has no address, or none that could be found in time."""


# --- a target's side -------------------------------------------------------------------------


class TargetUnreachable(SmsDaemonError):
    """The target could not be called, or did not answer in time."""


class NoRoute(SmsDaemonError):
    """A delivery cannot go where it should: the target is gone, or its answer names none."""
