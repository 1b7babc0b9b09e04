from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from headrace.errors import ServerStartFailed
from headrace.server import ensure_server
from headrace.server.folder import SOCKET_PATH_LIMIT_BYTES, DataFolder, ServerPlace
from tests.server.processes import runs

REMEDY = "Set HEADRACE_DATA_DIR to a folder that this user can write, or set REDIS_URL to a running server."
PLACE = ServerPlace(
    control_path="/run/c.sock",
    socket_path="/run/s.sock",
    program="/bin/redis-server",
    product="redis",
    version=[7, 4],
    origin="PATH",
)


def long_folder(tmp_path: Path) -> Path:
    return tmp_path / ("long" * 30)


def test_a_folder_below_a_file_is_refused_with_its_path_and_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ServerStartFailed) as caught:
        ensure_server(tmp_path / "file" / "data")

    assert str(caught.value) == f"the data folder {tmp_path}/file/data cannot be used: Not a directory. {REMEDY}"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ServerStartFailed, match=r"/file cannot be used: File exists\."):
        ensure_server(tmp_path / "file")


def test_a_folder_that_this_user_may_not_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Why simulated: the tests may run as root, whom no permission bit stops.
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)

    with pytest.raises(ServerStartFailed, match=r"cannot be used: permission denied\. Set HEADRACE_DATA_DIR"):
        ensure_server(tmp_path)


def test_a_folder_on_a_read_only_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(ServerStartFailed, match=r"cannot be used: Read-only file system\. Set HEADRACE_DATA_DIR"):
        ensure_server(tmp_path / "data")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_another_user_gets_the_error_and_no_server() -> None:
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "data"
        folder.mkdir(mode=0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(ServerStartFailed, match=r"cannot be used: Permission denied\. Set HEADRACE_DATA_DIR"):
                ensure_server(folder)
        finally:
            os.seteuid(0)


def test_a_new_folder_is_private_and_ignored_by_git(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "a" / "data")

    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / ".gitignore").read_text() == "*\n"


def test_a_folder_that_was_there_is_left_as_it_is(tmp_path: Path) -> None:
    DataFolder(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_relative_folder_is_taken_from_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert DataFolder(Path(".headrace")).path == tmp_path / ".headrace"


def test_two_names_of_a_folder_are_one_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "data").mkdir()

    with ensure_server(tmp_path / "data", linger=0.0) as use, ensure_server(tmp_path / "link", linger=0.0) as other:
        assert other.pid == use.pid


def test_a_folder_with_a_long_path_has_its_sockets_in_a_short_one(tmp_path: Path) -> None:
    with ensure_server(long_folder(tmp_path), linger=0.0) as use:
        socket_folder = Path(use.socket_path).parent

        assert len(os.fsencode(use.socket_path)) <= SOCKET_PATH_LIMIT_BYTES
        assert socket_folder.parent == Path(tempfile.gettempdir())
        assert socket_folder.stat().st_mode & 0o777 == 0o700
        with ensure_server(long_folder(tmp_path), linger=0.0) as other:
            assert other.pid == use.pid
        assert use.release_and_wait() == 0

    assert not socket_folder.exists()


def test_the_socket_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    folder = DataFolder(long_folder(tmp_path))
    own, _ = folder.make_socket_paths()
    Path(own).parent.rmdir()
    Path(own).parent.symlink_to(tmp_path)
    try:
        with pytest.raises(ServerStartFailed, match=r"is no folder of this user \(owner \d+, this user \d+\)"):
            folder.make_socket_paths()
    finally:
        Path(own).parent.unlink()


def test_what_a_crash_of_the_machine_left_is_cleared(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    control_path, socket_path = folder.make_socket_paths()
    for path in (control_path, socket_path):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
    folder.write_place(PLACE)

    with ensure_server(tmp_path / "data", linger=0.0) as use:
        assert use.socket_path == socket_path
        assert runs(use.pid)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"control_path": 1, "more": 2}', "\x00"])
def test_a_state_file_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    folder = DataFolder(tmp_path)
    folder.state_path.write_text(text)

    assert folder.read_place() is None
    with ensure_server(tmp_path, linger=0.0) as use:
        assert runs(use.pid)


def test_a_place_is_read_as_written(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)

    folder.write_place(PLACE)

    assert folder.read_place() == PLACE


def test_the_lock_is_taken_once(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    first = folder.try_lock()

    second = folder.try_lock()

    assert first is not None
    assert second is None
    first.close()
    third = folder.try_lock()
    assert third is not None
    third.close()


def test_the_log_tail_is_short_whatever_the_log(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    assert folder.log_tail() == "(no log)"

    folder.log_path.write_text("".join(f"line {number}\n" for number in range(1000)))

    assert folder.log_tail() == "\n".join(f"  line {number}" for number in range(994, 1000))
