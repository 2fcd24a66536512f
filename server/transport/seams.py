"""What the server expects of whatever carries its messages: its own broker, or one beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class OnPublish(Protocol):
    """Receives everything terminals publish under their own topics.

    ``kind`` is the topic after ``o/<site>/<device>/``. ``done(True)`` acknowledges the message (QoS 1),
    ``done(False)`` says that nothing was stored: the message stays unacknowledged. It is called exactly
    once, later or at once.
    """

    def __call__(self, device: str, kind: str, payload: bytes, done: Callable[[bool], None]) -> None: ...


class MessageBroker(Protocol):
    """The broker of one site, as the composition root uses it. Lives on the event loop."""

    async def start(self) -> None:
        """Begin to take messages. Raises: a ConfigError whose sentence names the next step."""

    async def shutdown(self) -> None:
        """Take no more messages; what is unacknowledged stays so."""

    @property
    def listening(self) -> bool:
        """Whether it was started and not shut down."""
        ...

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that terminals connect to."""
        ...

    def connected(self) -> list[str]:
        """Devices that are there, as far as this broker can tell."""
        ...

    def disconnect(self, device: str) -> None:
        """Turn a device away that is no longer welcome."""

    def send(self, device: str, topic: str, payload: bytes) -> bool:
        """Send one device a message at QoS 1; False when it certainly will not arrive."""
        ...

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish below ``s/<site>`` and keep it for those who come (empty: forget it)."""

    def forget_retained_from(self, prefix: str, first: int) -> None:
        """Forget the retained messages ``prefix``N with N >= ``first``."""
