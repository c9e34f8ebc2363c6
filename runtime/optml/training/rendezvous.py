"""One TCP connection from each host to the first one, so that a lost host is noticed and named.

torchrun and MPI do the work, but do not report in time that a whole host was killed, was cut off from the
network, or never started its program: without this, a job hangs for half an hour until some timeout. Only
hosts of the job are accepted: each proves that it knows a key, which is derived from the job's own data and
never crosses the network (`keys.py`).

    first host                          another host
                             ←          connects
    CHALLENGE                →
                             ←          HOST CHALLENGE PROOF, and `HOST CODE` if its program will not start
    PROOF, once all are there,
    or `HOST CODE PROOF`     →

A proof is the MAC of the other side's challenge and of the message with it. `peers.py` has what follows.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from ..machine import listen
from ..report import UserError, log
from . import keys

PORT = 7778
PATIENCE = 15 * 60.0
_PAUSE = 0.1
_REMIND_EVERY = 30.0
# Seconds for a connection to identify itself.
_INTRODUCTION = 5.0
_LONGEST_LINE = 1024
_LONGEST_ORDER = 1 << 17

# A host that does not answer for 4 + 2 * 4 s is lost, which is sooner than torchrun and MPI notice. The last
# option is the same for unacknowledged data, in milliseconds.
_TCP_OPTIONS = {
    socket.TCP_KEEPIDLE: 4,
    socket.TCP_KEEPINTVL: 4,
    socket.TCP_KEEPCNT: 2,
    socket.TCP_USER_TIMEOUT: 12_000,
}


class Host:
    """A host's side of the rendezvous, until all hosts are there."""

    def __init__(self, current: str, hosts: list[str], key: bytes) -> None:
        self.current, self.hosts, self._key = current, hosts, key

    def join(self) -> dict[str, socket.socket]:
        """Connect the hosts; return the connections by host. Raises UserError naming those that are missing
        after 15 minutes, or one that ended before."""
        raise NotImplementedError

    def announce(self, code: int, patience: float) -> None:
        """Tell the others that this host ends with this code. Those not yet up get `patience` seconds; one
        that is up but still preparing is waited for."""
        raise NotImplementedError

    def order(self) -> str:
        """The order of mpirun on the first host for this one, which has joined."""
        raise NotImplementedError


class FirstHost(Host):
    """It listens from the start, so that even a host that fails at once can report that."""

    def __init__(self, current: str, hosts: list[str], key: bytes) -> None:
        super().__init__(current, hosts, key)
        self._others = set(hosts) - {current}
        self._guests: dict[int, Guest] = {}
        self._here: dict[str, Guest] = {}
        try:
            self._server = listen(PORT, len(hosts))
        except OSError as error:
            raise UserError(f"cannot listen to the other hosts on port {PORT}: {error.strerror}") from error
        self._poll = select.poll()
        self._poll.register(self._server, select.POLLIN)

    def join(self) -> dict[str, socket.socket]:
        deadline = time.monotonic() + PATIENCE
        while missing := self._others - self._here.keys():
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing))
                raise UserError(f"no sign of {names} in {PATIENCE:.0f} s; see the logs of these hosts")
            self._receive()
            for guest in self._here.values():
                _check_end(guest.end)
        self._server.close()
        for guest in self._here.values():
            guest.answer("")
        return {host: guest.link for host, guest in self._here.items()}

    def announce(self, code: int, patience: float) -> None:
        deadline = time.monotonic() + patience
        ends = [guest.end for guest in self._here.values() if guest.end]
        end = min(ends, default=f"{self.current} {code}")
        informed: set[str] = set()
        while self._others - informed and time.monotonic() < deadline:
            for host in self._here.keys() - informed:
                self._here[host].answer(end)
                informed.add(host)
            self._receive()

    def _receive(self) -> None:
        """Handle new connections and introductions, for at most a second."""
        ready = {fd for fd, _ in self._poll.poll(1000)}
        for fd, guest in list(self._guests.items()):
            if (fd in ready and guest.has_spoken()) or time.monotonic() > guest.deadline:
                self._poll.unregister(fd)
                del self._guests[fd]
                if guest.host in self._others:
                    self._here[guest.host] = guest
                else:
                    log(f"a connection from {guest.address} is not of this job")
                    guest.link.close()
        if self._server.fileno() in ready:
            guest = Guest(self._server, self._key)
            self._guests[guest.link.fileno()] = guest
            self._poll.register(guest.link, select.POLLIN)


class Guest:
    """An incoming connection; from a host of the job, once it has proved that."""

    def __init__(self, server: socket.socket, key: bytes) -> None:
        link, (address, *_) = server.accept()
        self.address = address.removeprefix("::ffff:")  # IPv6's prefix of an IPv4 address
        self.link = _kept_alive(link)
        self.deadline = time.monotonic() + _INTRODUCTION
        self.host, self.end = "", ""
        """Its name, once authenticated, and `HOST CODE` if it has ended."""
        self._key, self._challenge, self._their_challenge = key, os.urandom(16).hex(), ""
        self._received = ""
        _send(self.link, self._challenge)
        self.link.setblocking(False)

    def has_spoken(self) -> bool:
        """Read from it; whether its introduction is over."""
        try:
            piece = self.link.recv(_LONGEST_LINE).decode("ascii", "replace")
        except OSError:
            piece = ""
        self._received += piece
        if "\n" not in self._received:
            return not piece or len(self._received) > _LONGEST_LINE
        self.host, self._their_challenge, self.end = introduction(self._key, self._challenge, self._received)
        self.link.setblocking(True)
        return True

    def answer(self, end: str) -> None:
        """Tell it that all hosts are there, or which one has ended."""
        _send(self.link, f"{end} {keys.proof(self._key, self._their_challenge, end)}".strip())


class OtherHost(Host):
    """It calls the first host until that answers."""

    _link: socket.socket

    def join(self) -> dict[str, socket.socket]:
        deadline = time.monotonic() + PATIENCE
        first = self.hosts[0]
        wait_for_name(first, deadline)
        link = self._call_until(deadline, "")
        if not link:
            raise UserError(f"host {first} does not answer on port {PORT}; see its log")
        self._link = link
        return {first: link}

    def announce(self, code: int, patience: float) -> None:
        self._call_until(time.monotonic() + patience, f"{self.current} {code}")

    def _call_until(self, deadline: float, end: str) -> socket.socket | None:
        while not (link := self._call(end)) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        return link

    def order(self) -> str:
        while True:
            try:
                host, _, what = _line(self._link, _LONGEST_ORDER).partition(" ")
            except OSError:
                raise UserError(f"host {self.hosts[0]} vanished before mpirun started; see its log") from None
            word, _, rest = what.partition(" ")
            if word == "start":
                return rest
            if word == "stop" and rest.isdecimal():
                os.kill(os.getppid(), int(rest))  # a stop of all hosts includes this one: PID 1 handles it
            else:
                _check_end(f"{host} {word}")

    def _call(self, end: str) -> socket.socket | None:
        """Call the first host, and wait until it says that all are there. With `end`, only report that this
        host has ended."""
        try:
            link = _kept_alive(socket.create_connection((self.hosts[0], PORT), timeout=_INTRODUCTION))
        except OSError:
            return None  # not up yet
        try:
            link.settimeout(PATIENCE)  # it listens from its start, but answers only once it has prepared
            challenge, ours = _line(link), os.urandom(16).hex()
            # The container may end right after this, but not before the line has arrived.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
            _send(link, introduce(self._key, challenge, self.current, ours, end))
            if end:
                link.close()
                return link
            answer, _, proof = f" {_line(link)}".rpartition(" ")
            if keys.proves(self._key, proof, ours, answer.strip()):
                _check_end(answer.strip())
                link.settimeout(None)
                return link
        except (OSError, UnicodeError):
            pass  # it has ended, or is not the first host
        link.close()
        return None


def introduce(key: bytes, challenge: str, host: str, ours: str, end: str) -> str:
    """A host's reply to a challenge."""
    return f"{host} {ours} {keys.proof(key, challenge, f'{host} {ours} {end}')} {end}".strip()


def introduction(key: bytes, challenge: str, line: str) -> tuple[str, str, str]:
    """Host, challenge and end of an introduction; all empty if the proof is wrong."""
    host, ours, proof, end = [*line.partition("\n")[0].split(" ", 3), "", "", "", ""][:4]
    return (host, ours, end) if keys.proves(key, proof, challenge, f"{host} {ours} {end}") else ("", "", "")


def wait_for_name(host: str, deadline: float) -> None:
    """A name resolves only some time after its container has started. Raises UserError if it never does."""
    reminder = time.monotonic() + _REMIND_EVERY
    while True:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return
        except (OSError, UnicodeError):
            now = time.monotonic()
        if now > deadline:
            raise UserError(
                f"no address for {host} after {PATIENCE:.0f} s; check that every host of resourceconfig.json"
                " was started, in the same network"
            )
        if now > reminder:
            reminder = now + _REMIND_EVERY
            log(f"waiting for the name of {host}")
        time.sleep(_PAUSE)


def _check_end(end: str) -> None:
    """Raise UserError if this is the end of a host."""
    host, _, code = end.partition(" ")
    if host:
        raise UserError(f"host {host} ended with code {code} before its program started; see its log")


def _send(link: socket.socket, line: str) -> None:
    try:
        link.sendall(f"{line}\n".encode("ascii"))
    except OSError:
        pass  # that host has ended


def _line(link: socket.socket, longest: int = _LONGEST_LINE) -> str:
    """The next line; raises OSError if there is none. Read bytewise: what follows is for PID 1."""
    line = b""
    while not line.endswith(b"\n"):
        byte = link.recv(1)
        if not byte or len(line) > longest:
            raise OSError("no line")
        line += byte
    return line[:-1].decode("utf-8", "surrogateescape")


def _kept_alive(link: socket.socket) -> socket.socket:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _TCP_OPTIONS.items():
        link.setsockopt(socket.IPPROTO_TCP, option, value)
    return link
