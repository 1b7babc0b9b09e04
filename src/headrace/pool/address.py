"""Where a server is and how to log in, read from one URL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

from redis.connection import parse_url

from headrace.errors import SettingError


@dataclass(frozen=True, slots=True)
class Address:
    """Location and credentials of one server. Its text never shows the password."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        """Return the address as a URL without credentials."""
        if self.path is not None:
            return f"unix://{self.path}?db={self.database}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.database}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context that the URL asks for, or None without TLS."""
        if not self.tls:
            return None
        options = dict(self.tls_options)
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if options.get("ssl_certfile"):
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
        if options.get("ssl_cert_reqs") in {"none", "optional"}:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE if options["ssl_cert_reqs"] == "none" else ssl.CERT_OPTIONAL
        elif options.get("ssl_check_hostname") is False:
            context.check_hostname = False
        return context

    def handshake(self, client_name: str) -> list[tuple[Any, ...]]:
        """Return the commands that log in, choose RESP3, name it, select the database, and ask if it is ready."""
        hello: tuple[Any, ...] = ("HELLO", 3)
        if self.password is not None:
            hello = ("HELLO", 3, "AUTH", self.username or "default", self.password)
        commands: list[tuple[Any, ...]] = [hello, ("CLIENT", "SETNAME", client_name)]
        if self.database:
            commands.append(("SELECT", self.database))
        # Why: a server that still loads its data answers all of these, but not PING.
        commands.append(("PING",))
        return commands


def parse_address(url: str) -> Address:
    """Read a redis://, rediss:// or unix:// URL.

    Raises:
        SettingError: The URL is malformed.

    Example:
        >>> str(parse_address("redis://user:secret@db.example:6380/2"))
        'redis://db.example:6380/2'
    """
    try:
        options = dict(parse_url(url))  # type: ignore[no-untyped-call]  # redis-py has no types here
    except ValueError as error:
        shown = url.rsplit("@", 1)[-1]
        text = f"REDIS_URL='{shown}': {error}"
        raise SettingError(text + " Write redis://host:port/db, rediss://host:port/db or unix:///path.sock.") from error
    return Address(
        host=options.get("host", "127.0.0.1"),
        port=int(options.get("port", 6379)),
        path=options.get("path"),
        database=int(options.get("db", 0)),
        username=options.get("username"),
        password=options.get("password"),
        tls=url.startswith("rediss://"),
        tls_options=tuple((name, value) for name, value in options.items() if name.startswith("ssl_")),
    )
