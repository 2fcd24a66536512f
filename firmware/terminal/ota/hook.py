# The application's side of updates: loads the agent only when there is something to do, since it costs RAM.

import asyncio


class Updates:
    # The arguments are OtaAgent's. board.update_pending, board.on_trial: set by the loader.

    def __init__(self, board, *rest):
        self.agent = None
        self._board = board
        self._rest = rest
        self._needed = asyncio.Event()
        if board.update_pending:
            self.load()

    def load(self):
        # -> the OtaAgent.
        if self.agent is None:
            from .agent import OtaAgent

            self.agent = OtaAgent(self._board, *self._rest)
            self._needed.set()
        return self.agent

    def on_offer(self, frame):
        self.load().on_offer(frame)

    def on_chunk(self, frame):
        if self.agent is not None:
            self.agent.on_chunk(frame)

    def link_up(self):
        if self.agent is not None:
            self.agent.link_up()

    def prove(self):
        # Call when the terminal works: identity read, journal and menu open, a session with the server there.
        # -> True if that confirmed a bundle on trial.
        return self._board.on_trial and self.load().confirm()

    async def run(self):
        await self._needed.wait()
        await self.agent.run()
