"""What the hosts of a job tell each other while their programs run, as PID 1 takes it in.

They speak in lines. `HOST CODE` is the end of a host, `HOST vanished` tells that its connection broke, and
`HOST stop N` that it was asked to stop by signal N, where that stops all. `HOST start COMMAND` is what mpirun
on the first host has for another, which waits for it (`rendezvous.Host.order`). The first host is linked with
all others and passes on to them what one of them tells.
"""

from __future__ import annotations

import os


class Peers:
    """What has become of the other hosts, line by line, over this host's connections by host: the first one's
    to all others, another's to the first."""

    def __init__(self, current: str, links: dict[str, int], follows: str, orders: str = "") -> None:
        self._current, self._links = current, links
        self.follows = follows
        """The host whose end is this host's end, whatever it is; empty for none."""
        self.ends: dict[str, int] = {}
        """Exit code of each host that has told its end."""
        self.lost: str | None = None
        """The first thing that happened on another host, so that the job cannot go on."""
        self.stopped = 0
        """The signal by which another host was asked to stop, where that is a stop for all, or 0."""
        self._host_of = {fd: host for host, fd in links.items()}
        if orders:  # of mpirun's agent, which is no host; open for writing, too, so that it never ends
            self._host_of[os.open(orders, os.O_RDWR | os.O_CLOEXEC)] = ""
        self._begun = dict.fromkeys(self._host_of, "")

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
        *lines, self._begun[fd] = (self._begun[fd] + piece).split("\n")
        for line in lines:
            self.hear(host, line)
        if not piece:
            self.hang_up(host)
        return bool(piece)

    def hear(self, link: str, line: str) -> None:
        """Take in a line of this host, or `HOST COMMAND` of mpirun's agent."""
        host, _, what = line.partition(" ")
        if not link:
            self._send(host, f"{self._current} start {what}")
        elif what.isdecimal():
            self.ends[host] = int(what)
            if int(what) or self.follows:
                self._lose(line, link)
        elif what.startswith("stop ") and what[5:].isdecimal():
            self.stopped = self.stopped or int(what[5:])
        elif what:
            self._lose(line, link)

    def hang_up(self, link: str) -> None:
        """Take in that the connection with this host has ended."""
        if link not in self.ends:
            self._lose(f"{link} vanished", link)

    def stop(self, number: int) -> None:
        """Tell the others that this host was asked to stop by this signal."""
        for link in self._links:
            self._send(link, f"{self._current} stop {number}")

    def code(self, own: int) -> int:
        """The exit code of this host: its program's, never 0 if another host was lost, or that of the host
        it follows."""
        if self.follows:
            return self.ends.get(self.follows, own or 1)
        return own or int(self.lost is not None)

    def close(self, code: int) -> None:
        """Tell the others the exit code of this host, which is over."""
        for link in self._links:
            self._send(link, f"{self._current} {code}")
        for fd in self.fds:
            os.close(fd)

    def _lose(self, line: str, link: str) -> None:
        """Note that a host is lost, and pass that on to all but the one that has told it."""
        host, _, how = line.partition(" ")
        how = f"ended with code {how}" if how.isdecimal() else how
        self.lost = self.lost or f"host {host} {how}"
        for other in self._links:
            if other != link:
                self._send(other, line)

    def _send(self, host: str, line: str) -> None:
        try:
            os.write(self._links[host], f"{line}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            pass  # that host has ended
