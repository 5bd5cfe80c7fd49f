"""Listening sockets: addresses from text, all bound or none, files of Unix sockets, and sockets of systemd."""

import errno
import grp
import os
import pwd
import re
import signal
import socket
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.listening import Binding, inherited_bindings, listening, parse_binding
from penstock.runtime.socketfile import parse_owner
from tests.support.ports import free_port

NOBODY = 65534
NO_ADDRESSES = ["x", "::1:80", "x:", "x:99999", "x:-1", "x:1.5", "unix:", "fd:", "fd:x", "fd:-1", "fd:99999999999"]
NO_ADDRESSES += ["[::1]", "[x]:80", "http://x:80", "", "a b:80", "x:\u0663", "unix:a\0b", "x:" + "9" * 5000]
# the child runs a few system calls and ends: threads of other tests do not matter
FORKS = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")


def bound(*bindings: Binding) -> list[tuple[object, ...]]:
    """Bind and close, and return the names of the sockets."""
    with listening(bindings) as listeners:
        return [listener.getsockname() for listener in listeners]


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("127.0.0.1:80", Binding("127.0.0.1", 80)),
        ("localhost:0", Binding("localhost", 0)),
        ("[::1]:80", Binding("::1", 80)),
        (":8000", Binding("0.0.0.0", 8000)),
        ("unix:/run/x.sock", Binding(uds="/run/x.sock")),
        ("unix:x:1", Binding(uds="x:1")),
        ("fd:3", Binding(fd=3)),
    ],
)
def test_an_address_is_read_from_its_text(text: str, binding: Binding) -> None:
    assert parse_binding(text) == binding


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_any_other_text_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address") as caught:
        parse_binding(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_a_text_is_an_address_or_an_error(text: str) -> None:
    try:
        binding = parse_binding(text)
    except ValueError as error:
        assert "address" in str(error)
    else:
        assert 0 <= binding.port <= 65535


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        (Binding("::1", 80), "[::1]:80"),
        (Binding("127.0.0.1", 80), "127.0.0.1:80"),
        (Binding(uds="/x.sock"), "/x.sock"),
        (Binding(fd=4, fd_name="web"), "file descriptor 4 (web)"),
    ],
)
def test_an_address_is_shown_as_people_write_it(binding: Binding, text: str) -> None:
    assert str(binding) == text


def test_port_0_picks_a_free_one_each_time() -> None:
    first, second = bound(Binding(port=0), Binding(port=0))
    assert first[1] != second[1] and first[1] != 0


def test_all_are_bound_or_none(tmp_path: Path) -> None:
    path, port = tmp_path / "x.sock", free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = (Binding(port=port), Binding(uds=str(path)), Binding(port=taken.getsockname()[1]))
        with pytest.raises(OSError, match="Address already in use; stop what listens there"):
            bound(*wanted)
    assert not path.exists()
    assert bound(*wanted)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Binding(port=8), Binding(port=8)),
        (Binding("", 8), Binding("0.0.0.0", 8)),
        (Binding(uds="x.sock"), Binding(uds="./x.sock")),
        (Binding(fd=7), Binding(fd=7)),
    ],
)
def test_an_address_that_is_given_twice_is_one_line(one: Binding, other: Binding) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(str(other))} is given twice$"):
        bound(one, other)


def test_all_addresses_of_both_families_are_had_on_one_port() -> None:
    port = free_port()
    try:
        assert [name[1] for name in bound(Binding("0.0.0.0", port), Binding("::", port))] == [port, port]
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            pytest.skip("this machine has no IPv6")
        raise


def test_a_socket_that_somebody_answers_on_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with listening([Binding(uds=path)]):
        with pytest.raises(OSError, match="Address already in use; a server answers there"):
            bound(Binding(uds=path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    assert not Path(path).exists()


def test_a_server_whose_backlog_is_full_still_counts_as_one(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as busy, closing(socket.socket(socket.AF_UNIX)) as client:
        busy.bind(path)
        busy.listen(0)
        client.connect(path)
        with pytest.raises(OSError, match="a server answers there"):
            bound(Binding(uds=path))


def test_a_datagram_socket_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(OSError, match="a server answers there"):
            bound(Binding(uds=path))


def test_the_file_of_a_server_that_has_ended_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert bound(Binding(uds=str(path))) == [str(path)]
    assert not path.exists()


def test_the_file_of_a_later_server_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listening([Binding(uds=str(path))]) as (listener,):
        made_ns = path.stat().st_mtime_ns
        path.unlink()
        # the file's number is free from now on
        listener.close()
        while True:
            with socket.socket(socket.AF_UNIX) as later:
                later.bind(str(path))
            if path.stat().st_mtime_ns != made_ns:
                break
            path.unlink()
    assert path.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(("mode", "expected"), [(None, 0o666), (0o660, 0o660), (0o600, 0o600), (0o777, 0o777)])
def test_the_file_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int, mode: int | None, expected: int) -> None:
    path = tmp_path / "x.sock"
    before = os.umask(umask)
    try:
        with listening([Binding(uds=str(path), mode=mode)]):
            assert stat.S_IMODE(path.stat().st_mode) == expected
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_the_file_never_has_wider_permissions_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "x.sock", []

    def note(change: object) -> object:
        def noted(*arguments: object, **more: object) -> object:
            seen.append(path.stat().st_mode & 0o777)
            return change(*arguments, **more)  # type: ignore[operator]

        return noted

    for name in ("chown", "chmod", "umask"):
        monkeypatch.setattr(os, name, note(getattr(os, name)) if name != "umask" else os.umask)
    with listening([Binding(uds=str(path), mode=0o660, owner=str(os.getuid()))]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    # the group's permission comes once the group is the right one
    assert seen == [0o600, 0o600, 0o660]


@ROOT_ONLY
def test_the_file_has_its_owner_by_name_or_number(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    user, group = pwd.getpwuid(NOBODY).pw_name, grp.getgrgid(NOBODY).gr_name
    expected = {f"{user}:{group}": (NOBODY, NOBODY), str(NOBODY): (NOBODY, 0), f":{group}": (0, NOBODY)}
    for owner, numbers in expected.items():
        with listening([Binding(uds=str(path), mode=0o660, owner=owner)]):
            found = path.stat()
            assert (found.st_uid, found.st_gid) == numbers
            assert stat.S_IMODE(found.st_mode) == 0o660


@pytest.mark.parametrize("owner", ["", ":", "root:", "no-such-user-x", ":no-such-group-x", str(2**32 - 1), "-1"])
def test_an_owner_that_does_not_exist_is_one_line(owner: str) -> None:
    with pytest.raises(ValueError, match=r"owner|no user|no group|number"):
        parse_owner(owner)


def as_nobody(call: object) -> str:
    """Call it in a child process of the user nobody, and return its error's text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            call()  # type: ignore[operator]
            text = "none"
        except OSError as error:
            text = error.strerror or str(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode()
    os.waitpid(pid, 0)
    return text


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as /tmp is."""
    folder = tmp_path_factory.mktemp("public")
    for each in (folder, *folder.parents[:3]):
        if each.stat().st_uid == os.geteuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o711)
    folder.chmod(0o1777)
    return folder


@ROOT_ONLY
@FORKS
def test_a_socket_of_another_user_in_a_sticky_directory_is_one_line(public: Path) -> None:
    path = str(public / "x.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        os.chmod(path, 0o666)
    told = as_nobody(lambda: bound(Binding(uds=path)))
    assert told == (
        f"cannot listen on {path}: Operation not permitted; the socket file of another user is there (user 0), "
        "and may not be removed"
    )
    os.chmod(path, 0o600)
    assert "Permission denied; the socket file of another user is there" in as_nobody(lambda: bound(Binding(uds=path)))


@ROOT_ONLY
@FORKS
def test_an_owner_that_may_not_be_set_is_one_line_and_leaves_no_file(public: Path) -> None:
    path = public / "x.sock"
    told = as_nobody(lambda: bound(Binding(uds=str(path), owner="root")))
    assert told.startswith(f"cannot listen on {path}: Operation not permitted; only root may give a file")
    assert not path.exists()


@FORKS
def test_two_servers_that_start_at_once_do_not_both_have_the_path(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    for _ in range(20):
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        reader, writer = os.pipe()
        pids = [_bind_in_child(str(path), writer) for _ in range(4)]
        os.close(writer)
        try:
            with os.fdopen(reader, "rb", buffering=0) as told:
                assert sorted(told.read(1) for _ in pids) == [b"n", b"n", b"n", b"y"]
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _bind_in_child(path: str, writer: int) -> int:
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException), listening([Binding(uds=path)]):
            os.write(writer, b"y")
            signal.pause()
        os.write(writer, b"n")
        signal.pause()
    return pid


def activation(count: object, names: str = "", pid: int | None = None) -> dict[str, str]:
    found = {"LISTEN_PID": str(os.getpid() if pid is None else pid), "LISTEN_FDS": str(count), "PATH": "/bin"}
    return found | ({"LISTEN_FDNAMES": names} if names else {})


@pytest.fixture
def from_three(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two open descriptors in a row, in the place of 3 and 4."""
    first = os.open(os.devnull, os.O_RDONLY)
    high = 900
    os.dup2(first, high)
    os.dup2(first, high + 1)
    os.close(first)
    monkeypatch.setattr("penstock.runtime.listening.FIRST_FD", high)
    yield [high, high + 1]
    os.close(high)
    os.close(high + 1)


def test_sockets_of_systemd_are_taken_once(from_three: list[int]) -> None:
    environ = activation(2, "web:unknown")
    first, second = inherited_bindings(environ)
    assert (first.fd, first.fd_name, second.fd, second.fd_name) == (from_three[0], "web", from_three[1], "")
    assert environ == {"PATH": "/bin"}
    assert not any(map(os.get_inheritable, from_three))
    assert inherited_bindings(environ) == []


def test_sockets_of_another_process_are_not_taken() -> None:
    environ = activation(2, pid=os.getpid() + 1)
    assert inherited_bindings(environ) == []
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("count", ["", "x", "-1", "1.5", "9" * 5000, 10**9])
def test_a_count_that_makes_no_sense_is_one_line(count: object) -> None:
    with pytest.raises(ValueError, match=r"LISTEN_FDS=.* is not a count of descriptors"):
        inherited_bindings(activation(count))


def test_a_descriptor_that_is_not_open_is_one_line(from_three: list[int]) -> None:
    with pytest.raises(OSError, match=r"LISTEN_FDS=3: file descriptor 902 is not open"):
        inherited_bindings(activation(3))


def test_a_connection_is_not_listened_on_and_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as made:
        with pytest.raises(OSError, match="a connection, not a listening socket"):
            bound(Binding(fd=made.fileno()))
        assert made.getsockname()


def test_an_inherited_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with listening([Binding(fd=os.dup(listener.fileno()))]) as (inherited,):
            assert not inherited.get_inheritable()
    assert path.exists()
