"""The Protocol between a worker and what it has made: the dispatcher, the execution, the control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .http.loop import Loop
    from .intake import Intake
    from .journal import Journal
    from .model.handlers import Model
    from .scoreboard import Scoreboard
    from .settings import Settings
    from .slots import Slots


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
    several: bool
    alive: bool
    app: Any
    intake: Intake
    scoreboard: Scoreboard

    @property
    def closes(self) -> bool:
        """Whether answers end their connections."""

    def replace(self) -> None:
        """Finish what runs, and have another worker take this one's place."""
