"""Fixtures for the tests of apps, and a check that a test leaves nothing behind; pytest finds them by itself.

Loading this imports nothing but pytest: whoever uses none of it pays for none. The check is off until asked for::

    pytest --headrace-leaks                              for one run
    headrace_leaks = true                                for a project, in its pytest settings
    @pytest.mark.headrace_leaks                          for one test, or in `pytestmark` for a module
    @pytest.mark.headrace_leaks(allow=["thread"])        all but some kinds
    @pytest.mark.headrace_leaks(False)                   not this one
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from headrace.app import Headrace
    from headrace.server import PrivateServer
    from headrace.testing import Connected
    from headrace.testing.leaks import Watch

#: The watch of the test that runs; one a process at a time.
_watches: list[Watch] = []
MARK = "headrace_leaks"


@pytest.fixture(scope="session")
def headrace_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """Give one private server for all tests of a run; nothing of it is written to the disk."""
    from headrace.server import start_private_server  # noqa: PLC0415 - see above
    from headrace.testing.clean import IN_MEMORY  # noqa: PLC0415 - see above

    with start_private_server(tmp_path_factory.mktemp("headrace"), extra=IN_MEMORY) as server:
        yield server


@pytest.fixture
def headrace_connected(headrace_server: PrivateServer) -> Callable[[Headrace], Connected]:
    """Give `headrace.testing.connected` with the server of the run, which each use empties.

    Example::

        async def test_an_order_is_confirmed(headrace_connected):
            async with headrace_connected(app):
                await place_order("tea")
                await run_until_idle(app)
    """
    from headrace.testing import connected  # noqa: PLC0415 - see above

    return functools.partial(connected, server=headrace_server)


@pytest.fixture
def headrace_prefix(headrace_server: PrivateServer) -> Iterator[str]:
    """Give a prefix of keys for one test; it fails when it leaves jobs that have not ended below it, or foreign keys.

    Totals, receipts, results that are kept, and dead and cancelled jobs are no leak. All keys are deleted in the end.

    Example::

        async def test_an_order_is_confirmed(headrace_server, headrace_prefix):
            app = Headrace(headrace_server.url, settings={"prefix": headrace_prefix})
    """
    from headrace.ids import random_name  # noqa: PLC0415 - see above
    from headrace.testing.left_keys import take_keys  # noqa: PLC0415 - see above

    prefix = f"test-{random_name(10)}"
    yield prefix
    left = take_keys(headrace_server, prefix)
    if left:
        pytest.fail("the test left Redis keys behind:\n  " + "\n  ".join(left), pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting that switch the check on."""
    text = "fail a test that leaves census entries, tasks, threads, child processes, files or sockets behind"
    parser.getgroup("headrace").addoption("--headrace-leaks", action="store_true", default=False, help=text)
    parser.addini("headrace_leaks", text, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(on=True, allow=()): fail when the test leaves anything behind, except of the kinds in allow: census, "
        "task, thread, process, file, socket; False switches the check off",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch a test from before its fixtures are set up."""
    if not _is_watched(item):
        return (yield)
    from headrace.testing.leaks import Watch  # noqa: PLC0415 - see above

    _watches.append(Watch())
    try:
        return (yield)
    finally:
        _watches.clear()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Leave out what a fixture of a wider scope makes: it stays for other tests."""
    if not _watches or fixturedef.scope == "function":
        return (yield)
    from headrace.testing.leaks import look  # noqa: PLC0415 - see above

    before = look()
    try:
        return (yield)
    finally:
        _watches[-1].belongs_to_fixture(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:  # noqa: ARG001 - pytest calls by name
    """Tell the tasks of the test from those of its fixtures."""
    if not _watches:
        return (yield)
    watch = _watches[-1]
    watch.call_begins()
    try:
        return (yield)
    finally:
        watch.call_ended()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test when anything is left after its fixtures were torn down."""
    result = yield
    if _watches:
        allowed = _allowed(item)
        left = [leak for leak in _watches[-1].end() if leak.kind not in allowed]
        if left:
            lines = "\n  ".join(str(leak) for leak in left)
            pytest.fail(f"the test left {len(left)} behind:\n  {lines}", pytrace=False)
    return result


def _is_watched(item: pytest.Item) -> bool:
    mark = item.get_closest_marker(MARK)
    if mark is None:
        return bool(item.config.getoption("--headrace-leaks") or item.config.getini("headrace_leaks"))
    on = mark.kwargs.get("on", mark.args[0] if mark.args else True)
    if not isinstance(on, bool):
        raise pytest.UsageError(
            f"{MARK}({on!r}) at {item.nodeid}: expected True or False. Say which kinds with allow=."
        )
    return on


def _allowed(item: pytest.Item) -> frozenset[str]:
    from headrace.testing.leaks import KINDS  # noqa: PLC0415 - see above

    mark = item.get_closest_marker(MARK)
    allowed = frozenset(mark.kwargs.get("allow", ())) if mark is not None else frozenset()
    if unknown := sorted(allowed.difference(KINDS)):
        raise pytest.UsageError(
            f"{MARK}(allow={unknown}) at {item.nodeid}: expected some of {', '.join(KINDS)}. Correct the mark."
        )
    return allowed
