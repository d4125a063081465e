"""TLS contexts for servers that are no Twisted ones."""

from __future__ import annotations

import ssl
import tempfile

from OpenSSL.crypto import FILETYPE_PEM
from twisted.internet.ssl import PrivateCertificate


def server_context(certificate: PrivateCertificate) -> ssl.SSLContext:
    """What a server with this certificate (of tests.support.authority) wraps its sockets with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:  # the ssl module reads nothing but files
        file.write(certificate.dump(FILETYPE_PEM) + certificate.privateKey.dump(FILETYPE_PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context
