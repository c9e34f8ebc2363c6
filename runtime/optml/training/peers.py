"""The messages between the hosts of a job while their programs run, and what PID 1 does with them.

Each message is a line. `HOST CODE` is the end of a host; `HOST vanished` means that its connection broke;
`HOST stop N` that signal N asked it to stop, if that stops all hosts. `HOST start COMMAND` is mpirun's order
to another host, which waits for it (`rendezvous.Host.order`). The first host has a connection to each other
host, and forwards what one of them reports to the rest.
"""

from __future__ import annotations

import os


class Peers:
    """The state of the other hosts, from this host's connections: those of the first host to all others, or
    another host's to the first."""

    def __init__(self, current: str, links: dict[str, int], follows: str, orders: str = "") -> None:
        self._current, self._links = current, links
        self.follows = follows
        """The host with which this one ends, whatever its exit code; empty for none."""
        self.ends: dict[str, int] = {}
        """Exit code of each host that has reported its end."""
        self.lost: str | None = None
        """The first event on another host that keeps the job from going on."""
        self.stopped = 0
        """The signal that asked another host to stop, if that stops all hosts; else 0."""
        self._host_of = {fd: host for host, fd in links.items()}
        if orders:  # from mpirun's agent, not a host; also open for writing, so that it never ends
            self._host_of[os.open(orders, os.O_RDWR | os.O_CLOEXEC)] = ""
        self._partial = dict.fromkeys(self._host_of, "")

    @property
    def fds(self) -> list[int]:
        """What to poll for input."""
        return list(self._host_of)

    def read(self, fd: int) -> bool:
        """Handle what has arrived; False at the end of the connection."""
        host = self._host_of[fd]
        try:
            piece = os.read(fd, 4096).decode("utf-8", "surrogateescape")
        except OSError:
            piece = ""
        *lines, self._partial[fd] = (self._partial[fd] + piece).split("\n")
        for line in lines:
            self.hear(host, line)
        if not piece:
            self.hang_up(host)
        return bool(piece)

    def hear(self, link: str, line: str) -> None:
        """Handle a line from this host, or `HOST COMMAND` from mpirun's agent."""
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
        """Handle the end of the connection to this host."""
        if link not in self.ends:
            self._lose(f"{link} vanished", link)

    def stop(self, number: int) -> None:
        """Tell the other hosts that this signal asked this one to stop."""
        for link in self._links:
            self._send(link, f"{self._current} stop {number}")

    def code(self, own: int) -> int:
        """The exit code of this host: its program's, never 0 if another host was lost, or that of the host
        it follows."""
        if self.follows:
            return self.ends.get(self.follows, own or 1)
        return own or int(self.lost is not None)

    def close(self, code: int) -> None:
        """Send the other hosts the exit code of this one, which has ended."""
        for link in self._links:
            self._send(link, f"{self._current} {code}")
        for fd in self.fds:
            os.close(fd)

    def _lose(self, line: str, link: str) -> None:
        """Record that a host is lost, and forward that to all but the host that reported it."""
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
