"""Operators' commands on their way to terminals: each once in a session, as soon as there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from server.devices.verify import Session
from server.wire.commands import OtaCommand

COMMAND = "ota/command"


class Commands:
    """Sends through ``send(device, topic_tail, payload)`` what ``replace`` was given last.

    ``told(device)`` is called when one is sent: what the terminal was offered before may count again.
    A terminal that did not hear a command hears it again with its next session; one that did ignores it.
    """

    def __init__(
        self,
        send: Callable[[str, str, bytes], None],
        sessions: Mapping[str, Session],
        told: Callable[[str], object],
    ) -> None:
        self._send = send
        self._on_told = told
        self._sessions = sessions
        self._waiting: Mapping[str, OtaCommand] = {}
        self._told: dict[str, tuple[bytes, int]] = {}  # device -> session and number of what it was sent last

    def replace(self, waiting: Mapping[str, OtaCommand]) -> None:
        """Send these from now on, and at once to every terminal with a session."""
        self._waiting = waiting
        for device in waiting:
            self.greet(device)

    def greet(self, device: str) -> None:
        """A terminal is there: say what it has not been told in this session."""
        command, session = self._waiting.get(device), self._sessions.get(device)
        if command is None or session is None:
            return
        this = (session.row.sid, command.number)
        if self._told.get(device) != this:
            self._told[device] = this
            self._send(device, COMMAND, session.seal_command(command))
            self._on_told(device)
