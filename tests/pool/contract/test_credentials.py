"""Logging in: passwords, ACL users, credential providers, and a new token for connections that are already open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.auth.token import SimpleToken
from redis.credentials import StreamingCredentialProvider, UsernamePasswordCredentialProvider

from headrace.ids import random_name
from tests.pool.contract.subjects import Subject, counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.server import PrivateServer
    from tests.support.raw import Raw

PASSWORD = "päss:w/rd@ +"
NEW = "another"


@pytest.fixture
def user(peer: Raw) -> Iterator[str]:
    """An ACL user of the test alone, with two passwords."""
    name = f"user-{random_name(8)}"
    peer("ACL", "SETUSER", name, "on", f">{PASSWORD}", f">{NEW}", "~*", "&*", "+@all")
    yield name
    peer("ACL", "DELUSER", name)


class Streaming(StreamingCredentialProvider):
    """Give out a token, and tell listeners of each new one."""

    def __init__(self, token: SimpleToken) -> None:
        self.token = token
        self.listener: Any = None

    def get_credentials(self) -> tuple[str, str]:
        return self.token.try_get("oid"), self.token.get_value()

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()

    def on_next(self, callback: Callable[[Any], Any]) -> None:
        self.listener = callback

    def on_error(self, callback: Callable[[Exception], Any]) -> None: ...

    def is_streaming(self) -> bool:
        return True


def token(user: str, password: str) -> SimpleToken:
    return SimpleToken(password, -1, 0, {"oid": user})


def skip_what_redis_py_lacks(subject: Subject) -> None:
    if subject.name == "redis-py-threads":
        pytest.skip("re_auth_callback of redis.BlockingConnectionPool looks for an attribute that it does not have")


async def whoami(subject: Subject, connection: Any) -> Any:
    await subject.do(connection.send_command, "ACL", "WHOAMI")
    return await subject.do(connection.read_response)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_an_acl_user_logs_in(subject: Subject, place: PrivateServer, user: str, protocol: int) -> None:
    pool = subject.pool_from(place.url, username=user, password=PASSWORD, protocol=protocol)
    client = subject.client(pool)

    assert await subject.do(client.acl_whoami) in {user, user.encode()}
    assert PASSWORD not in repr(pool) + repr(client)


async def test_an_acl_user_may_stand_in_the_url(subject: Subject, place: PrivateServer, user: str) -> None:
    url = f"redis://{user}:p%C3%A4ss%3Aw%2Frd%40%20%2B@127.0.0.1:{place.port}/0"

    client = subject.client(subject.pool_from(url, decode_responses=True))

    assert await subject.do(client.acl_whoami) == user


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_wrong_password_is_refused_and_holds_no_place(
    subject: Subject, place: PrivateServer, user: str, protocol: int
) -> None:
    pool = subject.pool_from(place.url, username=user, password="wrong", protocol=protocol, max_connections=1)
    client = subject.client(pool)

    for _ in range(2):
        with pytest.raises(redis.AuthenticationError):
            await subject.do(client.ping)

    assert counts(pool)[1] == 0


async def test_a_credential_provider_is_asked_for_each_connection(
    subject: Subject, place: PrivateServer, user: str
) -> None:
    provider = UsernamePasswordCredentialProvider(user, PASSWORD)

    client = subject.client(subject.pool_from(place.url, credential_provider=provider, decode_responses=True))

    assert await subject.do(client.acl_whoami) == user


async def test_a_provider_and_a_password_together_are_refused(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, password="x", credential_provider=UsernamePasswordCredentialProvider("a", "b"))

    with pytest.raises(redis.DataError):
        await subject.do(pool.get_connection)


async def test_re_auth_logs_idle_connections_in_before_their_next_use_and_used_ones_when_they_return(
    subject: Subject, place: PrivateServer, user: str
) -> None:
    skip_what_redis_py_lacks(subject)
    pool = subject.pool_from(place.url, decode_responses=True, protocol=3)
    idle = await subject.do(pool.get_connection)
    used = await subject.do(pool.get_connection)
    await subject.do(pool.release, idle)

    await subject.do(pool.re_auth_callback, token(user, PASSWORD))

    assert await whoami(subject, used) == "default"
    assert await subject.do(pool.get_connection) is idle
    assert await whoami(subject, idle) == user
    await subject.do(pool.release, used)
    assert await subject.do(pool.get_connection) is used
    assert await whoami(subject, used) == user


async def test_a_streaming_provider_logs_the_pools_connections_in_anew(
    subject: Subject, place: PrivateServer, peer: Raw, user: str
) -> None:
    skip_what_redis_py_lacks(subject)
    provider = Streaming(token(user, PASSWORD))
    pool = subject.pool_from(place.url, credential_provider=provider, decode_responses=True)
    client = subject.library.Redis(connection_pool=pool, credential_provider=provider)
    assert await subject.do(client.acl_whoami) == user
    other = f"{user}-2"
    peer("ACL", "SETUSER", other, "on", f">{NEW}", "~*", "&*", "+@all")

    await subject.do(provider.listener, token(other, NEW))

    assert await subject.do(client.acl_whoami) == other
    peer("ACL", "DELUSER", other)
