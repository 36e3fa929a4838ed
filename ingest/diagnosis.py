"""What is wrong with a Redis, in one line that says what to do, and that holds no password."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from urllib.parse import urlsplit

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
)

from ingest.errors import RedisUnreachable, one_line
from ingest.outage import is_mistake

LOOK_TIMEOUT_S = 1.0
"""How long to find out whether a server that hangs up speaks TLS."""

_AUTHORITY = re.compile(r"(\[[\da-fA-F:.]+\]|[\w.-]*)(:\d+)?")

_REFUSED_COMMAND = re.compile(r"to run the '([^']+)' command")

_IN_A_PIPELINE = re.compile(r"Command # \d+ \((\w+) .*\) of pipeline caused error: ", re.DOTALL)
"""What redis-py puts before an error; it quotes the command, with what may be its payload."""


def shown(url: str) -> str:
    """A URL for people: user, host, port, database or socket. What might be a password is not."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    authority, path = re.fullmatch(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    credentials, _, host = authority.rpartition("@")
    user, colon, _ = credentials.partition(":")
    if not _AUTHORITY.fullmatch(host) or (authority and "@" in path):
        return f"{scheme}{separator}…"  # a password that is not quoted may be anywhere
    place = re.split(r"[?#]", path, maxsplit=1)[0]
    return f"{scheme}{separator}{f'{user}@' if colon and user else ''}{host}{place}"


@contextmanager
def explained(url: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """What Redis refuses in here is a `RedisUnreachable`, which says what to do.

    Errors of the kinds in `but` pass as they are, unless they are mistakes.
    """
    try:
        yield
    except redis.RedisError as error:
        if isinstance(error, but) and not is_mistake(error):
            raise
        raise unreachable(url, error) from None


def unreachable(url: str, error: Exception) -> RedisUnreachable:
    """What an error of redis-py means, in one line that says what to do."""
    return RedisUnreachable(f"Redis at {shown(url)} {_meaning(url, error)}")


WRONG_MODE = {
    "cluster": "is a cluster, which Foldlog does not use; name a single server with --redis URL",
    "sentinel": "is a Sentinel; name the server that it watches with --redis URL",
}
"""What Redis says of its mode → what is wrong with that."""


def _meaning(url: str, error: Exception) -> str:
    text = one_line(error)
    match error:
        case ValueError() | TypeError() | AttributeError():  # its text may hold the password
            return (
                "cannot be read as a URL; write redis://USER:PASSWORD@HOST:6379/0, rediss://… for"
                " TLS, or unix:///path/of.sock, with %XX for special characters in the password"
            )
        case AuthenticationError() | AuthorizationError():
            return _not_let_in(text)
        case NoPermissionError():
            return _not_allowed(text)
        case MasterDownError():
            return "is a replica that has lost its primary; name the primary with --redis URL"
        case AskError() | ClusterDownError() | ClusterCrossSlotError():
            return WRONG_MODE["cluster"]
        case ReadOnlyError():
            primary = text if text.startswith("of ") else "of another server"
            return f"is a read-only replica {primary}; name its primary with --redis URL"
        case BusyLoadingError():
            return "is still loading its data; try again when it is done"
        case InvalidResponse():
            return _TLS_EXPECTED if _speaks_tls(url) else "is no Redis: it answers something else"
        case redis.ResponseError():
            return f"refused the command: {_IN_A_PIPELINE.sub('', text)}"
    return _no_contact(url, error)


def _not_let_in(text: str) -> str:
    if "uthentication required" in text or "already authenticated" in text:
        return "wants a password; write it into the URL: redis://USER:PASSWORD@HOST:6379"
    if "without any password" in text:
        return "has no password, and the URL has one; leave it out of the URL"
    return "refuses the user or the password; mend them in the URL (FOLDLOG_REDIS_URL)"


def _not_allowed(text: str) -> str:
    """What a user may not do: named by the server, or by redis-py within a pipeline."""
    command = _REFUSED_COMMAND.search(text)
    if command:
        name = command[1].upper().replace("|", " ")
        what = f"run {name}; allow it with ACL SETUSER … +{command[1].lower()}"
    else:
        sent = _IN_A_PIPELINE.search(text)
        what = f"use a key{f' with {sent[1]}' if sent else ''}; allow it with ACL SETUSER … ~KEY"
    return f"does not allow this user to {what} (docs/howto/redis-users.md)"


_TLS_EXPECTED = "speaks TLS only; write rediss:// instead of redis:// in the URL"

_START_ONE = "start one with `foldlog up`, or name another with --redis URL"


def _no_contact(url: str, error: BaseException) -> str:
    """What keeps a connection from being made, or ends it, by the errors behind redis-py's."""
    text = one_line(error)
    if url.startswith("rediss:") and _speaks_plainly(url):
        return "does not speak TLS; write redis:// instead of rediss:// in the URL"
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    f"has a certificate that is not trusted ({cause.verify_message}); name its"
                    " authority in the URL: ?ssl_ca_certs=FILE"
                )
            case ssl.SSLError():
                return f"breaks off TLS ({cause.reason}); see which certificates it asks for"
            case socket.gaierror():
                return f"is not found ({cause.strerror}); mend the host in the URL"
            case FileNotFoundError() if url.startswith("rediss:"):
                return "cannot be asked: a file that its URL names is not there"
            case FileNotFoundError():
                return f"does not answer (there is no such socket); {_START_ONE}"
            case ConnectionRefusedError():
                return f"does not answer (connection refused); {_START_ONE}"
            case PermissionError() if url.startswith("unix:"):
                return "is another user's socket (permission denied); run as that user"
    if isinstance(error, redis.TimeoutError) and "onnecting" not in text:
        return "takes the connection and does not answer in time: it is frozen, or busy for long"
    if isinstance(error, redis.ConnectionError) and _speaks_tls(url):
        return _TLS_EXPECTED
    return f"does not answer ({text}); {_START_ONE}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


@contextmanager
def _at(url: str) -> Iterator[socket.socket | None]:
    """A connection to look at what answers there; None where none can be made."""
    try:
        parts = urlsplit(url)
        place = parts.hostname or "", parts.port or 6379
        found = socket.create_connection(place, LOOK_TIMEOUT_S) if parts.hostname else None
    except (OSError, ValueError):
        found = None
    with found or nullcontext():
        yield found


def _speaks_tls(url: str) -> bool:
    """Whether what answers a TLS handshake there is TLS, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent
    with suppress(OSError), _at(url) as plain:
        if plain is not None:
            context.wrap_socket(plain).close()
            return True
    return False


def _speaks_plainly(url: str) -> bool:
    """Whether a Redis answers there without TLS, be it that we may not come in."""
    with suppress(OSError), _at(url) as plain:
        if plain is not None:
            plain.sendall(b"PING\r\n")
            return plain.recv(1)[:1] in (b"+", b"-")
    return False
