"""Reading URLs: every form that redis-py reads gives the same connection arguments here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.pool.contract.subjects import Subject

SECRET = "s3cret"
#: What redis-py's pools add by themselves to what their connections are told.
ADDED = ("himport_registry", "maint_notifications_", "orig_")

TCP = {
    "redis://my.host": {"host": "my.host"},
    "redis://my %2F host %2B%3D+": {"host": "my / host +=+"},
    "redis://localhost:6380": {"host": "localhost", "port": 6380},
    "redis://[::1]:6380": {"host": "::1", "port": 6380},
    "redis://ann:@localhost": {"host": "localhost", "username": "ann"},
    "redis://%2Fann%2F%2B b%3D%24+:@localhost": {"host": "localhost", "username": "/ann/+ b=$+"},
    "redis://:word@localhost": {"host": "localhost", "password": "word"},
    "redis://:%2Fword%2F%2B b%3D%24+@localhost": {"host": "localhost", "password": "/word/+ b=$+"},
    "redis://ann:word@localhost": {"host": "localhost", "username": "ann", "password": "word"},
    "redis://localhost/2": {"host": "localhost", "db": 2},
    "redis://localhost/2?db=3": {"host": "localhost", "db": 3},
    "redis://localhost/two": {"host": "localhost"},
    "redis://localhost?client_name=me": {"host": "localhost", "client_name": "me"},
    "redis://localhost?a=1&b=2": {"host": "localhost", "a": "1", "b": "2"},
    "redis://localhost?client_name=a%20b%2520c": {"host": "localhost", "client_name": "a b%20c"},
    "redis://localhost?protocol=3": {"host": "localhost", "protocol": 3},
    "redis://localhost?health_check_interval=5": {"host": "localhost", "health_check_interval": 5},
    "redis://localhost?socket_timeout=20&socket_connect_timeout=10&socket_keepalive=&retry_on_timeout=Yes": {
        "host": "localhost", "socket_timeout": 20.0, "socket_connect_timeout": 10.0, "retry_on_timeout": True,
    },
    "redis://": {},
}  # fmt: skip
UNIX = {
    "unix:///socket": {"path": "/socket"},
    "unix://ann:@/socket": {"path": "/socket", "username": "ann"},
    "unix://:word@/socket": {"path": "/socket", "password": "word"},
    "unix://:word@/my%2Fpath%2Fto%2F..%2F+_%2B%3D%24ocket": {
        "path": "/my/path/to/../+_+=$ocket",
        "password": "word",
    },
    "unix:///socket?db=2": {"path": "/socket", "db": 2},
    "unix:///socket?a=1": {"path": "/socket", "a": "1"},
}
TLS = {
    "rediss://my.host": {"host": "my.host"},
    "rediss://my.host:6380/4": {"host": "my.host", "port": 6380, "db": 4},
    "rediss://my.host?ssl_cert_reqs=none&ssl_check_hostname=False": {
        "host": "my.host", "ssl_cert_reqs": "none", "ssl_check_hostname": False,
    },
}  # fmt: skip
BOOLEANS = {
    "": None, "0": False, "f": False, "F": False, "False": False, "n": False, "N": False, "No": False,
    "1": True, "y": True, "Y": True, "Yes": True, "True": True,
}  # fmt: skip


def told(pool: Any) -> dict[str, Any]:
    """Return what the connections of a pool are told."""
    return {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(ADDED)}


@pytest.mark.parametrize("url", [*TCP, *UNIX, *TLS])
async def test_a_url_gives_the_arguments_of_its_connections(subject: Subject, url: str) -> None:
    expected, kind = next(
        (each[url], kind)
        for each, kind in ((TCP, "Connection"), (UNIX, "UnixDomainSocketConnection"), (TLS, "SSLConnection"))
        if url in each
    )

    pool = subject.pool_from(url)

    assert told(pool) == expected
    assert issubclass(pool.connection_class, subject.connection_class(kind))


@pytest.mark.parametrize("text", list(BOOLEANS))
async def test_booleans_are_read_in_every_spelling(subject: Subject, text: str) -> None:
    pool = subject.pool_from(f"redis://localhost?retry_on_timeout=yes&socket_keepalive={text}")

    # An option without a value counts as not given.
    assert told(pool).get("socket_keepalive") is BOOLEANS[text]


async def test_what_the_url_says_wins_over_arguments(subject: Subject) -> None:
    pool = subject.pool_from("redis://localhost/2?client_name=url", db=1, client_name="argument", encoding="latin-1")

    assert told(pool) == {"host": "localhost", "db": 2, "client_name": "url", "encoding": "latin-1"}


async def test_the_maximum_may_stand_in_the_url(subject: Subject) -> None:
    pool = subject.pool_from("redis://localhost?max_connections=10&timeout=13.37")

    assert (pool.max_connections, pool.timeout) == (10, 13.37)
    assert told(pool) == {"host": "localhost"}


async def test_options_of_our_pools_may_stand_in_the_url_too(subject: Subject) -> None:
    if not subject.ours:
        pytest.skip("they are options of ours")

    pool = subject.pool_from("redis://localhost?min_connections=3&idle_timeout=7.5&open_parallel=2&client_name=me")

    assert pool.min_connections == 3
    assert told(pool) == {"host": "localhost", "client_name": "me"}
    with pytest.raises(ValueError, match="Invalid value for 'idle_timeout' in connection URL: 'long' is no number"):
        subject.pool_class.from_url("redis://localhost?idle_timeout=long")
    with pytest.raises(ValueError, match="open_parallel=900: expected a number from 1 to 256"):
        subject.pool_class.from_url("redis://localhost?open_parallel=900")


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "http://localhost",
        "redis://localhost?socket_timeout=_",
        "redis://localhost?max_connections=abc",
        "redis://localhost?timeout=_not_a_number_",
        "redis://localhost/2?protocol=three",
    ],
)
def test_a_malformed_url_is_refused(subject: Subject, url: str) -> None:
    with pytest.raises(ValueError, match=r"scheme|Invalid value for"):
        subject.pool_class.from_url(url)


def test_a_url_makes_a_pool_of_the_class_it_was_asked_of(subject: Subject) -> None:
    class Mine(subject.pool_class):  # type: ignore[misc, name-defined]  # the base is a parameter
        pass

    assert type(Mine.from_url("redis://localhost")) is Mine


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://ann:{SECRET}@localhost:6380/1?client_name=me", ["host=localhost", "port=6380", "db=1"]),
        (f"unix://ann:{SECRET}@/a.sock?db=1&client_name=me", ["path=/a.sock", "db=1"]),
        (f"rediss://ann:{SECRET}@localhost?ssl_password={SECRET}&client_name=me", ["host=localhost"]),
    ],
)
def test_the_repr_names_the_place_and_hides_secrets(subject: Subject, url: str, shown: list[str]) -> None:
    pool = subject.pool_class.from_url(url)

    text = repr(pool)

    assert SECRET not in text
    assert "username=ann" not in text
    assert "client_name=me" in text
    assert subject.pool_class.__name__ in text
    assert pool.connection_class.__name__ in text
    for each in shown:
        assert each in text
