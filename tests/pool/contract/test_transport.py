"""TCP, unix sockets and TLS, with ACL users and both protocols: the same pool over each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis

from headrace.ids import random_name
from tests.pool.contract.subjects import Subject, counts
from tests.support.tls import Certificates, TlsFront, make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.server import PrivateServer
    from tests.support.raw import Raw


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def front(certificates: Certificates, place: PrivateServer) -> Iterator[TlsFront]:
    with TlsFront(certificates, place.socket_url) as front:
        yield front


@pytest.fixture(scope="module")
def strict(certificates: Certificates, place: PrivateServer) -> Iterator[TlsFront]:
    """A front that lets no client in without a certificate."""
    with TlsFront(certificates, place.socket_url, asks_client=True) as front:
        yield front


@pytest.fixture
def user(peer: Raw) -> Iterator[str]:
    name = f"user-{random_name(8)}"
    peer("ACL", "SETUSER", name, "on", ">word", "~*", "&*", "+@all")
    yield name
    peer("ACL", "DELUSER", name)


async def whoami(subject: Subject, pool: Any) -> Any:
    client = subject.client(pool)
    assert await subject.do(client.ping) is True
    answer = await subject.do(client.acl_whoami)
    assert counts(pool) == (1, 0)
    return answer


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("scheme", ["redis", "unix", "rediss"])
async def test_an_acl_user_speaks_both_protocols_over_each_transport(
    subject: Subject,
    place: PrivateServer,
    front: TlsFront,
    certificates: Certificates,
    user: str,
    scheme: str,
    protocol: int,
) -> None:
    url = {
        "redis": f"redis://{user}:word@127.0.0.1:{place.port}/3",
        "unix": f"unix://{user}:word@{place.socket_url.removeprefix('unix://')}?db=3",
        "rediss": f"rediss://{user}:word@localhost:{front.port}/3?ssl_ca_certs={certificates.authority}",
    }[scheme]
    pool = subject.pool_from(f"{url}{'&' if '?' in url else '?'}protocol={protocol}", decode_responses=True)

    assert await whoami(subject, pool) == user
    info = await subject.do(subject.client(pool).client_info)
    assert (int(info["db"]), int(info["resp"])) == (3, protocol)


async def test_a_server_that_nobody_vouches_for_is_refused(
    subject: Subject, front: TlsFront, certificates: Certificates
) -> None:
    pool = subject.pool_from(
        f"rediss://localhost:{front.port}?ssl_ca_certs={certificates.stranger}", **patience(subject)
    )

    with pytest.raises(redis.ConnectionError, match=r"(?i)certificate verify failed"):
        await subject.do(pool.get_connection)

    assert counts(pool)[1] == 0


async def test_a_server_of_another_name_is_refused_unless_told_otherwise(
    subject: Subject, place: PrivateServer, certificates: Certificates
) -> None:
    with TlsFront(certificates, place.socket_url, shows=certificates.elsewhere) as front:
        url = f"rediss://localhost:{front.port}?ssl_ca_certs={certificates.authority}"
        pool = subject.pool_from(url, **patience(subject))
        told = subject.pool_from(f"{url}&ssl_check_hostname=false")

        with pytest.raises(redis.ConnectionError, match=r"(?i)hostname mismatch|is not valid for"):
            await subject.do(pool.get_connection)

        assert counts(pool)[1] == 0
        assert await subject.do(subject.client(told).ping) is True
        await subject.close(told)


async def test_a_client_shows_its_certificate(subject: Subject, strict: TlsFront, certificates: Certificates) -> None:
    shown = f"&ssl_certfile={certificates.client}&ssl_keyfile={certificates.client}"
    url = f"rediss://localhost:{strict.port}?ssl_ca_certs={certificates.authority}"

    with_one = subject.pool_from(url + shown)
    without = subject.pool_from(url, **patience(subject))

    assert await subject.do(subject.client(with_one).ping) is True
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        await subject.do(without.get_connection)
    assert counts(without)[1] == 0


async def test_unread_data_under_tls_never_reaches_the_next_borrower(
    subject: Subject, front: TlsFront, certificates: Certificates
) -> None:
    pool = subject.pool_from(
        f"rediss://localhost:{front.port}?ssl_ca_certs={certificates.authority}", max_connections=1
    )
    if not subject.ours:
        pytest.skip("redis-py does not look at a connection that may get maintenance notifications, as all of RESP3")
    careless = await subject.do(pool.get_connection)
    await subject.do(careless.send_command, "ECHO", "wrong")
    # The reply is there before the connection is given back.
    await asyncio.sleep(0.05)
    await subject.do(pool.release, careless)

    assert await subject.do(subject.client(pool).echo, "right") == b"right"


def patience(subject: Subject) -> dict[str, Any]:
    """Ours would try again for a second, since a server may come back."""
    return {"reconnect_patience": 0.05} if subject.ours else {}
