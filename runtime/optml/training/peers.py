"""What the hosts of a job tell each other while their programs run, as PID 1 takes it in.

They speak in lines. `HOST CODE` is the end of a host, `HOST vanished` tells that its connection broke, and
`HOST stop N` that it was asked to stop by signal N, where that stops all. `HOST start COMMAND` is what mpirun
on the first host has for another, which waits for it (`rendezvous.Host.order`). The first host is linked with
all others and passes on to them what one of them tells.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from .supervisor import Ended


class Ledger:
    """What has become of the hosts, line by line. It knows no connection: `send` gets a host and a line."""

    def __init__(
        self, current: str, links: list[str], send: Callable[[str, str], None], follows: str
    ) -> None:
        self._current, self._links, self._send = current, links, send
        self.follows = follows
        """The host whose end is this host's end, whatever it is; empty for none."""
        self.ends: dict[str, int] = {}
        """Exit code of each host that has told its end."""
        self.lost: str | None = None
        """The first thing that happened on another host, so that the job cannot go on."""
        self.stopped = 0
        """The signal by which another host was asked to stop, where that is a stop for all, or 0."""

    def hear(self, link: str, line: str) -> None:
        """Take in a line of this host, or `HOST COMMAND` of mpirun's agent, which is none."""
        host, _, what = line.partition(" ")
        if not link:
            self._send(host, f"{self._current} start {what}")
        elif what.isdecimal():
            self.ends[host] = int(what)
            if int(what) or self.follows:
                self._lose(f"host {host} ended with code {what}", line, link)
        elif what.startswith("stop ") and what[5:].isdecimal():
            self.stopped = self.stopped or int(what[5:])
        elif what:
            self._lose(f"host {line}", line, link)

    def hang_up(self, link: str) -> None:
        """Take in that the connection with this host has ended."""
        if link not in self.ends:
            self._lose(f"host {link} vanished", f"{link} vanished", link)

    def stop(self, number: int) -> None:
        """Tell a stop of this host to all."""
        for link in self._links:
            self._send(link, f"{self._current} stop {number}")

    def end(self, code: int) -> None:
        """Tell the end of this host to all."""
        for link in self._links:
            self._send(link, f"{self._current} {code}")

    def code(self, ended: Ended) -> int:
        """The exit code of this host: its program's, never 0 if another host was lost, or that of the host
        it follows."""
        if self.follows:
            return self.ends.get(self.follows, ended.code or 1)
        return ended.code or int(self.lost is not None)

    def _lose(self, reason: str, line: str, link: str) -> None:
        self.lost = self.lost or reason
        for other in self._links:
            if other != link:
                self._send(other, line)


class Peers(Ledger):
    """The ledger over the connections of this host: the first one's to all others, another's to the first."""

    def __init__(self, current: str, links: dict[str, int], follows: str, orders: str = "") -> None:
        super().__init__(current, list(links), self._write, follows)
        self._fd_of = links
        self._host_of = {fd: host for host, fd in links.items()}
        if orders:
            self._host_of[os.open(orders, os.O_RDWR | os.O_CLOEXEC)] = (
                ""  # open for writing, so it never ends
            )
        self._begun: dict[int, str] = {}

    @property
    def fds(self) -> list[int]:
        """What to poll for input."""
        return list(self._host_of)

    def read(self, fd: int) -> bool:
        """Take in what has come; False where no more can come."""
        host = self._host_of[fd]
        try:
            piece = os.read(fd, 4096).decode("utf-8", "surrogateescape")
        except OSError:
            piece = ""
        *lines, self._begun[fd] = (self._begun.get(fd, "") + piece).split("\n")
        for line in lines:
            self.hear(host, line)
        if not piece:
            self.hang_up(host)
        return bool(piece)

    def close(self, code: int) -> None:
        """Tell the exit code of this host to the others."""
        self.end(code)
        for fd in self.fds:
            os.close(fd)

    def _write(self, host: str, line: str) -> None:
        try:
            os.write(self._fd_of[host], f"{line}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            pass  # that host has ended
