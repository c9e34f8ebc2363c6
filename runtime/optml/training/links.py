"""One TCP connection from each host to the first one, so that a host that vanishes is noticed and named.

torchrun and MPI do the work. What they do not tell in time is that a whole host has been killed or
cut from the network: without this a job hangs until some timeout of half an hour. Each host also
tells its end, with its exit code. Nothing else is said here, and only the hosts of the job are
listened to.
"""

from __future__ import annotations

import os
import socket
import time

from ..report import Problem, say
from .network import PATIENCE, addresses, wait_for_names

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from .job import Job
    from .supervisor import Ended

PORT = 7778
_PAUSE = 0.1

# A host that does not answer for 4 + 2 * 4 seconds is gone: sooner than the engines notice.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 4), (socket.TCP_KEEPINTVL, 4), (socket.TCP_KEEPCNT, 2))
_USER_TIMEOUT = 12_000  # the same where sent data stay unanswered, in milliseconds


class Links:
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
                try:
                    link.sendall(f"{line}\n".encode("ascii"))
                except OSError:
                    pass  # that host has ended


def connect(job: Job, follow: bool = False) -> Links | None:
    """Link the hosts of the distribution; None where there is one alone.

    With `follow` this host has nothing to do but for the first one, and ends with it.

    Returns when all hosts are there. Raises Problem naming those that are not within 15 minutes.
    """
    hosts = job.distribution_hosts
    if len(hosts) == 1:
        return None
    others = [host for host in hosts if host != job.current_host]
    if job.current_host == job.master:
        return Links(job.current_host, _accept(others))
    link = _call(job.master, job.current_host)
    return Links(job.current_host, {job.master: link}, job.master if follow else None)


def _accept(others: list[str]) -> dict[str, socket.socket]:
    links: dict[str, socket.socket] = {}
    deadline = time.monotonic() + PATIENCE
    with socket.create_server(("", PORT), backlog=len(others)) as server:
        server.settimeout(1)
        while missing := [host for host in others if host not in links]:
            if time.monotonic() > deadline:
                raise Problem(
                    f"no sign of {', '.join(missing)} in {PATIENCE:.0f} s; see the logs of these hosts"
                )
            try:
                link, (address, *_) = server.accept()
            except TimeoutError:
                continue
            link.settimeout(5)
            host = _name(link)
            if host in missing and address in addresses(host):
                links[host] = _kept_alive(link)
            else:
                say(f"a connection from {address} is not of this job")
                link.close()
    for link in links.values():
        link.sendall(b"\n")
    return links


def _name(link: socket.socket) -> str:
    try:
        return link.recv(256).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _call(master: str, current: str) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    wait_for_names([master])
    while True:
        try:
            link = socket.create_connection((master, PORT), timeout=5)
            link.sendall(f"{current}\n".encode("ascii"))
            link.settimeout(PATIENCE)
            if link.recv(1):
                return _kept_alive(link)
            link.close()
        except OSError:
            pass  # not up yet
        if time.monotonic() > deadline:
            raise Problem(f"host {master} does not answer on port {PORT}; see its log")
        time.sleep(_PAUSE)


def _kept_alive(link: socket.socket) -> socket.socket:
    link.settimeout(None)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        link.setsockopt(socket.IPPROTO_TCP, option, value)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)
    os.set_inheritable(link.fileno(), False)
    return link
