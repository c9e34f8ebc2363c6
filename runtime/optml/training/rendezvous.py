"""One TCP connection from each host to the first one, so that a host that vanishes is noticed and named.

torchrun and MPI do the work. What they do not tell in time is that a whole host has been killed or
cut from the network, or never gets so far as to start its program: without this a job hangs until
some timeout of half an hour. Each host also tells its end, with its exit code. Nothing else is said
here, and only the hosts of the job are listened to.

What is said are lines. A host opens with its name, and the first host answers with an empty line once
all are there. `HOST CODE` is an end, before that or after it.
"""

from __future__ import annotations

import os
import socket
import struct
import time

from ..report import UserError, log
from .network import PATIENCE, addresses, wait_for_names
from .supervisor import Stopped

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from .supervisor import Ended

PORT = 7778
_PAUSE = 0.1

# A host that does not answer for 4 + 2 * 4 seconds is gone: sooner than the engines notice.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 4), (socket.TCP_KEEPINTVL, 4), (socket.TCP_KEEPCNT, 2))
_USER_TIMEOUT = 12_000  # the same where sent data stay unanswered, in milliseconds


class Peers:
    """The connections of this host: of the first host to all others, of another host to the first."""

    def __init__(self, current: str, sockets: dict[str, socket.socket], follows: str | None = None) -> None:
        self._current = current
        self.follows = follows
        """The host whose end is this host's end, whatever it is."""
        self._sockets = sockets
        self._hosts = {link.fileno(): host for host, link in sockets.items()}
        self.ends: dict[str, int] = {}
        """Exit code of each host that has told its end."""

    @property
    def fds(self) -> list[int]:
        """What to poll for input."""
        return list(self._hosts)

    def read(self, fd: int) -> tuple[bool, str | None]:
        """Take in what has come: whether there may be more, and why the job cannot go on, if it cannot."""
        host = self._hosts[fd]
        try:
            said = self._sockets[host].recv(4096).decode("ascii", "replace")
        except OSError:
            said = ""
        if not said:
            return False, None if host in self.ends else self._tell(f"host {host} vanished")
        reason = None
        for line in said.splitlines():
            name, _, what = line.partition(" ")
            if what.isdecimal():
                self.ends[name] = int(what)
                if int(what) or self.follows:
                    reason = self._tell(f"host {name} ended with code {what}", line, but=host)
            else:
                reason = f"host {name} {what}"
        return True, reason

    def code(self, ended: Ended) -> int:
        """The exit code of this host: its program's, never 0 if another host was lost, or that of the host
        it follows."""
        if self.follows:
            return self.ends.get(self.follows, ended.code or 1)
        return ended.code or int(ended.lost is not None)

    def close(self, code: int) -> None:
        """Tell the exit code of this host to the others."""
        self._send(f"{self._current} {code}")
        for link in self._sockets.values():
            link.close()

    def _tell(self, reason: str, line: str | None = None, but: str = "") -> str:
        """Pass on to the other hosts, which are linked with the first one only."""
        self._send(line or reason.removeprefix("host "), but)
        return reason

    def _send(self, line: str, but: str = "") -> None:
        for host, link in self._sockets.items():
            if host != but:
                _send(link, line)


class Rendezvous:
    """The hosts of the distribution until all have come. The first one listens from the start, so that
    also a host that fails at once finds somebody to tell."""

    def __init__(self, current: str, hosts: list[str], follow: bool = False) -> None:
        """With `follow` this host has nothing to do but for the first one, and ends with it."""
        self._current, self._hosts, self._first = current, hosts, hosts[0]
        self._follow = follow
        self._waiting: dict[str, socket.socket] = {}
        self._ends: dict[str, int] = {}
        self._links: Peers | None = None
        self._server = None
        if current == self._first:
            try:
                self._server = socket.create_server(("", PORT), backlog=len(hosts))
            except OSError as error:
                raise UserError(
                    f"cannot listen to the other hosts on port {PORT}: {error.strerror}"
                ) from error
            self._server.settimeout(1)

    def join(self) -> Peers:
        """Link the hosts. Returns when all are there; raises UserError naming those that are not within 15
        minutes, or one that ended before."""
        self._links = self._gather() if self._server else self._call()
        return self._links

    def cancel(self, code: int, patience: float) -> None:
        """Tell the others that this host ends with this code, and wait so many seconds for those to come
        that are not there yet."""
        deadline = time.monotonic() + patience
        try:
            if self._links:
                self._links.close(code)
            elif self._server:
                self._send_away(code, deadline)
            elif not self._ends:
                self._excuse(code, deadline)
        except (OSError, Stopped):
            pass  # nobody to tell it to, or no time left

    def _gather(self) -> Peers:
        assert self._server
        deadline = time.monotonic() + PATIENCE
        others = [host for host in self._hosts if host != self._current]
        while missing := [host for host in others if host not in self._waiting]:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no sign of {', '.join(missing)} in {PATIENCE:.0f} s; see the logs of these hosts"
                )
            self._accept()
            self._stop_if_one_has_ended()
        self._server.close()
        for link in self._waiting.values():
            _send(link, "")
        return Peers(self._current, self._waiting)

    def _accept(self) -> None:
        """Take in the next host that comes, if one does within a second."""
        assert self._server
        try:
            link, (address, *_) = self._server.accept()
        except TimeoutError:
            return
        link.settimeout(5)
        host, _, end = _said(link).partition("\n")
        known = addresses(host)
        # The name of a host that has ended may be gone before we come to read its words.
        if host not in self._hosts[1:] or not (address in known or (end and not known)):
            log(f"a connection from {address} is not of this job")
            link.close()
        elif end:
            self._ends[host] = _code(end)
        else:
            self._waiting[host] = _kept_alive(link)

    def _call(self) -> Peers:
        deadline = time.monotonic() + PATIENCE
        wait_for_names([self._first])
        while True:
            try:
                link = socket.create_connection((self._first, PORT), timeout=5)
                _send(link, self._current)
                link.settimeout(PATIENCE)
                answer = link.recv(1)
                if answer == b"\n":
                    break
                if answer:
                    host, _, end = (answer.decode("ascii", "replace") + _said(link)).partition(" ")
                    self._ends[host] = _code(end)
                link.close()
            except OSError:
                pass  # not up yet
            self._stop_if_one_has_ended()
            if time.monotonic() > deadline:
                raise UserError(f"host {self._first} does not answer on port {PORT}; see its log")
            time.sleep(_PAUSE)
        return Peers(self._current, {self._first: _kept_alive(link)}, self._first if self._follow else None)

    def _stop_if_one_has_ended(self) -> None:
        for host, code in self._ends.items():
            raise UserError(f"host {host} ended with code {code} before its program started; see its log")

    def _send_away(self, code: int, deadline: float) -> None:
        host, code = next(iter(self._ends.items()), (self._current, code))
        told = {self._current}
        while True:
            for name in self._waiting.keys() - told:
                _send(self._waiting[name], f"{host} {code}")
                told.add(name)
            if told | self._ends.keys() >= set(self._hosts) or time.monotonic() > deadline:
                return
            self._accept()

    def _excuse(self, code: int, deadline: float) -> None:
        while True:
            try:
                with socket.create_connection((self._first, PORT), timeout=5) as link:
                    # The container may end right after this: not before the words have arrived.
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
                    link.sendall(f"{self._current}\n{self._current} {code}\n".encode("ascii"))
                return
            except OSError:
                pass  # not up yet
            if time.monotonic() > deadline:
                return
            time.sleep(_PAUSE)


def _send(link: socket.socket, line: str) -> None:
    try:
        link.sendall(f"{line}\n".encode("ascii"))
    except OSError:
        pass  # that host has ended


def _said(link: socket.socket) -> str:
    try:
        return link.recv(256).decode("ascii", "replace").removesuffix("\n")
    except OSError:
        return ""


def _code(end: str) -> int:
    """The code at the end of `HOST CODE`."""
    code = end.rpartition(" ")[2].strip()
    return int(code) if code.isdecimal() else 1


def _kept_alive(link: socket.socket) -> socket.socket:
    link.settimeout(None)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        link.setsockopt(socket.IPPROTO_TCP, option, value)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)
    os.set_inheritable(link.fileno(), False)
    return link
