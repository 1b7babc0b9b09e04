"""Where a server is and how to log in, read from one URL: a place, sentinels that know it, or nodes of a cluster."""

from __future__ import annotations

import ssl
import weakref
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from redis.connection import parse_url

from headrace.errors import SettingError
from headrace.settings_env import CLUSTER_SCHEMES, SENTINEL_SCHEMES, mask_url, split_cluster_url, split_sentinel_url


class Follower(Protocol):
    """Has a connection that has to lead to the primary."""

    def follow(self, host: str, port: int) -> None:
        """Leave any other place than this one."""
        ...


@dataclass(slots=True, unsafe_hash=True)
class Sentinels:
    """The sentinels of one primary, and which of them is asked first. Its text never shows the password.

    Attributes:
        places: Host and port of each, as the URL names them; at most 16.
        service: Name of the primary.
        username: User of the sentinels themselves.
        password: Password of the sentinels themselves.
        first: Index of the sentinel that is asked first: the last one that gave a good answer.
        switches: How often it was heard that the primary was replaced.
        followers: Who is told so.
    """

    places: tuple[tuple[str, int], ...]
    service: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    first: int = field(default=0, compare=False)
    switches: int = field(default=0, compare=False)
    followers: weakref.WeakSet[Follower] = field(default_factory=weakref.WeakSet, compare=False, repr=False)

    def trust(self, place: tuple[str, int]) -> None:
        """Ask this sentinel first from now on: it gave an answer."""
        self.first = self.places.index(place)

    def doubt(self) -> None:
        """Ask another sentinel first: what this one named is no primary, or is not there."""
        self.first = (self.first + 1) % len(self.places)

    def switched(self, host: str, port: int) -> None:
        """Tell all followers where the primary is now."""
        self.switches += 1
        for follower in list(self.followers):
            follower.follow(host, port)


@dataclass(frozen=True, slots=True)
class Address:
    """Location and credentials of one server. Its text never shows the password.

    With `sentinels` it is no place itself: `headrace.pool.sentinel.locate` asks them for the place of the primary.

    Attributes:
        sentinels: Who knows where the primary is, or None when the address is a place.
        is_sentinel: Whether it is the place of a sentinel.
        is_primary: Whether the server there has to be a primary; a replica is refused.
        seeds: Host and port of some nodes of a cluster, the first of them the place itself; none of a single server.
    """

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    sentinels: Sentinels | None = None
    is_sentinel: bool = False
    is_primary: bool = False
    seeds: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        """Return the address as a URL without credentials."""
        if self.path is not None:
            return f"unix://{self.path}?db={self.database}"
        scheme = "rediss" if self.tls else "redis"
        if self.sentinels is not None:
            places = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.sentinels.places)
            return f"{scheme}+sentinel://{places}/{self.sentinels.service}/{self.database}"
        if self.seeds:
            places = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.seeds)
            return f"{scheme}+cluster://{places}/"
        place = f"{scheme}://{_bracketed(self.host)}:{self.port}"
        return place if self.is_sentinel else f"{place}/{self.database}"

    def node_at(self, host: str, port: int) -> Self:
        """Return the address of a node of the cluster, with the credentials of this one."""
        return replace(self, host=host, port=port, path=None, database=0, seeds=())

    def primary_at(self, host: str, port: int) -> Self:
        """Return the address of the primary that the sentinels of this one have named."""
        return replace(self, host=host, port=port, sentinels=None, is_primary=True)

    def watch_address(self) -> Self:
        """Return the address of whichever sentinel can be reached, to listen to."""
        group = self.sentinels
        return replace(self, sentinels=None if group is None else replace(group), is_sentinel=True)

    def doubt(self) -> None:
        """Note that the place that was found is no primary, or not there: another sentinel is asked first."""
        if self.sentinels is not None:
            self.sentinels.doubt()

    def sentinel_addresses(self) -> list[Self]:
        """Return the addresses of the sentinels in the order in which to ask them; none when this is a place."""
        group = self.sentinels
        if group is None:
            return []
        return [
            replace(
                self, host=host, port=port, username=group.username, password=group.password, sentinels=None,
                is_sentinel=True,
            )
            for host, port in (*group.places[group.first :], *group.places[: group.first])
        ]  # fmt: skip

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
        """Return the commands that log in, choose RESP3, name it, select the database, and ask if it is ready.

        The first reply also tells the role of the server. A sentinel is only logged in to.
        """
        hello: tuple[Any, ...] = ("HELLO", 3)
        if self.password is not None:
            hello = ("HELLO", 3, "AUTH", self.username or "default", self.password)
        if self.is_sentinel:
            return [hello, ("PING",)]
        commands: list[tuple[Any, ...]] = [hello, ("CLIENT", "SETNAME", client_name)]
        if self.database:
            commands.append(("SELECT", self.database))
        # Why: a server that still loads its data answers all of these, but not PING.
        commands.append(("PING",))
        return commands


def parse_address(url: str) -> Address:
    """Read a redis://, rediss:// or unix:// URL, or one with +sentinel or +cluster and several places.

    `sentinel_username` and `sentinel_password` in the query log in to the sentinels; the user and password in front of
    the hosts are those of the server. TLS with its `ssl_...` options holds for both.

    Raises:
        SettingError: The URL is malformed.

    Example:
        >>> str(parse_address("redis://user:secret@db.example:6380/2"))
        'redis://db.example:6380/2'
        >>> str(parse_address("rediss+sentinel://user:secret@one:26379,two:26379/main/2?sentinel_password=other"))
        'rediss+sentinel://one:26379,two:26379/main/2'
        >>> str(parse_address("redis+cluster://user:secret@one:7000,two/"))
        'redis+cluster://one:7000,two:6379/'
    """
    given = url
    scheme, _, rest = url.partition("://")
    sentinels: Sentinels | None = None
    seeds: tuple[tuple[str, int], ...] = ()
    try:
        login, at, _ = rest.partition("/")[0].rpartition("@")
        query = rest.partition("?")[2]
        if scheme in CLUSTER_SCHEMES:
            seeds = split_cluster_url(url)
            options = dict(parse_url(f"{scheme.partition('+')[0]}://{login}{at}nodes/0?{query}"))  # type: ignore[no-untyped-call]  # redis-py has no types here
            options["host"], options["port"] = seeds[0]
        elif scheme in SENTINEL_SCHEMES:
            places, service, database = split_sentinel_url(url)
            url = f"{scheme.partition('+')[0]}://{login}{at}sentinels/{database}?{query}"
            options = dict(parse_url(url))  # type: ignore[no-untyped-call]  # as above
            name, password = options.get("sentinel_username"), options.get("sentinel_password")
            sentinels = Sentinels(places, service, name or None, password or None)
        else:
            options = dict(parse_url(url))  # type: ignore[no-untyped-call]  # as above
    except ValueError as error:
        shown = mask_url(given)
        text = f"REDIS_URL='{shown}': {str(error).rstrip('.')}. Write redis://host:port/db, rediss://host:port/db, unix:///path.sock"
        text += ", redis+sentinel://host:port,host:port/name/db or redis+cluster://host:port,host:port/."
        raise SettingError(text, variable="REDIS_URL", value=shown) from error
    return Address(
        host=options.get("host", "127.0.0.1"),
        port=int(options.get("port", 6379)),
        path=options.get("path"),
        database=int(options.get("db", 0)),
        username=options.get("username"),
        password=options.get("password"),
        tls=scheme.startswith("rediss"),
        tls_options=tuple((name, value) for name, value in options.items() if name.startswith("ssl_")),
        sentinels=sentinels,
        seeds=seeds,
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
