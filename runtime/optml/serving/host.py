"""The Protocols of a worker: of its application, and of itself, as what it has made knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .exchange import Exchange
    from .http.loop import Loop
    from .intake import Intake
    from .journal import Journal
    from .model.handlers import Model
    from .scoreboard import Scoreboard
    from .settings import Settings
    from .slots import Slots


class Application(Protocol):
    """What a worker asks of its application: that of a server, or of the process of one model of many."""

    settings: Settings
    scoreboard: Scoreboard
    exchange: Exchange | None
    planned_workers: int
    program: str | None  # with the handlers

    def drop_privileges(self) -> None: ...
    def load(self, worker: Any) -> None: ...  # a Worker, which knows this Protocol
    def gpus_of(self, row: int) -> list[str]: ...


class Host(Protocol):
    """The worker, as its calls and its clients' requests know it."""

    settings: Settings
    loop: Loop
    slots: Slots
    journal: Journal
    model: Model | None
    wsgi: Any
    websocket: Any
    gpu: int | None
    alive: bool
    app: Application
    intake: Intake
    scoreboard: Scoreboard

    @property
    def closes(self) -> bool:
        """Whether answers end their connections."""

    def replace(self) -> None:
        """Finish what runs, and have another worker take this one's place."""
