"""Why a call got no answer at all, in one line: the cause that lies under the layers of a client's exceptions."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:  # most of a second to import, for runs that call nobody too
    import openai


def cause_of(error: openai.APIConnectionError, *, seconds: float) -> str:
    """What happened to a call that had to be answered within `seconds`."""
    import openai

    url = urlsplit(str(error.request.url))
    host = url.hostname or "the host"
    place = f"{host}:{url.port}" if url.port else host
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of {place} is not accepted ({cause.verify_message}); check OPENAI_BASE_URL, or name its authority in SSL_CERT_FILE"
        if isinstance(cause, ssl.SSLError):
            return f"{place} does not speak TLS as it should ({cause.reason or cause}); check whether OPENAI_BASE_URL begins with http:// or https:// rightly"
        if isinstance(cause, socket.gaierror):
            return f"the name {host} does not resolve ({cause.strerror}); check OPENAI_BASE_URL and the network"
        if isinstance(cause, ConnectionRefusedError):
            return f"{place} refuses the connection: nothing listens there; check OPENAI_BASE_URL and whether the server runs"
    if isinstance(error, openai.APITimeoutError):
        return f"{place} did not answer within {seconds:g} s (execution.teacher.timeout_seconds)"
    root = causes[-1]
    return f"the connection to {place} broke ({' '.join(str(root).split()) or type(root).__name__})"


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and all that it came from, outermost first."""
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found:
        found.append(step)
        step = step.__cause__ or step.__context__
    return found
