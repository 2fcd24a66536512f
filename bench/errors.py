"""What can go wrong on the bench, as types with a code and a sentence for the person at the keyboard."""

from __future__ import annotations


class BenchError(Exception):
    """Something the bench needs is missing, busy or broken: a set-up problem, never a verdict.

    `code` is a stable upper-case word for machines; the text says what happened and what to do next.
    """

    exit_status = 2

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class CaseFailed(Exception):
    """The thing under test broke a promise: the case fails, the bench itself is fine."""


class DeadlinePassed(CaseFailed):
    """Something awaited did not happen in time; the text names it and what was seen instead."""


class ConsoleClosed(CaseFailed):
    """The board went away (power off, crash, reset without relaunch) while its console was awaited."""


class RpcRefused(Exception):
    """The terminal answered a console command with an error; `code` is its code, the text its sentence."""

    def __init__(self, command: str, code: str, text: str) -> None:
        super().__init__(f"{command}: {code}: {text}" if text else f"{command}: {code}")
        self.command = command
        self.code = code
        self.text = text


def check(promise: bool, text: str) -> None:
    """Judge one promise of a case.

    Raises: CaseFailed with `text`, which says what was seen and what should have been.
    """
    if not promise:
        raise CaseFailed(text)
