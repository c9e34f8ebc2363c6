"""Protocols: a worker's application, and the worker itself as its parts see it."""

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
    """A worker's application: that of a server, or of one model's process in a multi-model server."""

    settings: Settings
    scoreboard: Scoreboard
    exchange: Exchange | None
    planned_workers: int
    program: str | None  # the file with the handlers

    def drop_privileges(self) -> None: ...
    def load(self, worker: Any) -> None: ...  # a Worker, whose module imports this one
    def gpus_of(self, row: int) -> list[str]: ...


class Host(Protocol):
    """The worker, as the code that handles its calls and requests sees it."""

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
        """Whether connections close after their responses."""

    def replace(self) -> None:
        """Finish the calls, and have another worker replace this one."""
