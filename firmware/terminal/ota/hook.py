# The application's side of updates: loads an agent only when there is something to do, since it costs RAM.
#
# There are two: OtaAgent for the application's bundles, ImageAgent for firmware images on chips that have two
# app partitions. They go about their work side by side; what keeps them apart is in ImageAgent._is_busy and
# in on_offer below.

import asyncio

from ..compat import const
from ..wire.fresh import APPLICATION, CANCEL
from .states import TRIAL, OtaError

LASTED_S = const(60)  # so long a start has to go on to count as a good one
_VERSION = const(3)  # which of OtaAgent's arguments behind the board it is
_IMAGE_PATH = b"image/micropython.bin"  # what an image's manifest names


def _unasked():
    return True


class Updates:
    # authority: of authority.py. traffic() -> (orders without an answer, answers so far). The other
    # arguments are OtaAgent's. board.update_pending, on_trial, image_pending, image_on_trial: set by the
    # loader.

    def __init__(self, authority, traffic, board, *rest):
        self.agent = None
        self.authority = authority
        self._traffic = traffic
        self.image_agent = None
        self._board = board
        self._rest = rest
        # Set by whoever made this. is_sound(): whether the application passes its self-test; if not, it has
        # restarted the terminal, or is about to. lasted_s: as LASTED_S.
        self.is_sound = _unasked
        self.lasted_s = LASTED_S
        self._had_session = False
        self._needed = asyncio.Event()
        self._image_needed = asyncio.Event()
        if board.update_pending:
            self.load()
        if self._image_flag("image_pending"):
            self.load_image()

    def _image_flag(self, name):
        # Boards without a second image never set them.
        return getattr(self._board, name, False)

    def load(self):
        # -> the OtaAgent.
        if self.agent is None:
            from .agent import OtaAgent

            self.agent = self._equipped(OtaAgent(self._board, *self._rest))
            self._needed.set()
        return self.agent

    def load_image(self):
        # -> the ImageAgent.
        if self.image_agent is None:
            from .image_agent import ImageAgent

            self.image_agent = self._equipped(ImageAgent(self._board, *self._rest))
            self._image_needed.set()
        return self.image_agent

    def _equipped(self, agent):
        agent.authority = self.authority
        agent.questions = self._questions
        agent.pace.traffic = self._traffic
        return agent

    def _questions(self):
        # -> [(hardware class, running release), ...] to ask the server about.
        asked = [(self._board.hardware, self._rest[_VERSION])]
        if self._has_images():
            question = self._image_question()
            asked += [question] if question else []
        return asked

    def _image_question(self):
        # -> None where the chip does not run one of two images.
        try:
            return self.load_image().question()
        except OtaError:
            return None

    def ask(self):
        # A session with the server is there: ask whether there is an update.
        if self.authority is not None:
            self.authority.ask(self._questions())

    def on_fresh(self, frame):
        if self.authority is not None:
            self.authority.on_answer(frame)

    def on_rotation(self, frame):
        self.load().on_rotation(frame)

    def on_command(self, frame):
        # An operator cancels an update, or releases what is in quarantine. WireError as authority's.
        if self.authority is None:
            return
        layer, what = self.authority.on_command(frame)
        try:
            if layer == APPLICATION:
                agent = self.load()
            elif self._has_images():
                agent = self.load_image()
            else:
                return
        except OtaError:
            return  # the chip does not run one of two images
        if what == CANCEL:
            agent.cancel()
        else:
            agent.release()
            self.ask()  # what was refused until now may be on offer

    def on_offer(self, frame):
        if _IMAGE_PATH in bytes(frame) and self._has_images():
            self.load_image().on_offer(frame)
        elif not self._image_flag("image_on_trial"):  # one trial at a time; the server offers it again
            self.load().on_offer(frame)

    def _has_images(self):
        return hasattr(self._board, "images") and self._board.images() is not None

    def _agents(self):
        return [agent for agent in (self.agent, self.image_agent) if agent is not None]

    def on_chunk(self, frame):
        for agent in self._agents():
            agent.on_chunk(frame)

    def link_up(self):
        for agent in self._agents():
            agent.link_up()

    def prove(self):
        # Call when there is a session with the server. -> True if that confirmed a bundle or an image on
        # trial, whose self-test has to pass.
        self._had_session = True
        if self._is_tried() and not self.is_sound():
            return False
        is_confirmed = self._confirm()
        self._last()
        return is_confirmed

    def _confirm(self):
        image = self._image_flag("image_on_trial") and self.load_image().confirm()
        if image and self.agent is not None:
            self.agent.link_up()  # it waited for this
        return (self._board.on_trial and self.load().confirm()) or image

    def _is_tried(self):
        return self._board.on_trial or self._image_flag("image_on_trial")

    def _last(self):
        # What is on trial in spite of a session could not be confirmed: no network was missing.
        for agent in self._agents():
            if not (self._had_session and agent.record.state.state == TRIAL):
                agent.lasted()

    async def run(self):
        parts = [self._run_agent()]
        if self._has_images():
            parts.append(self._run_image_agent())
        if self._agents():
            parts.append(self._watch_start())
        await asyncio.gather(*parts)

    async def _watch_start(self):
        # A start that lasts is given back, with or without a network: once. The watchdog runs meanwhile.
        await asyncio.sleep(self.lasted_s)
        if not self._is_tried() or self.is_sound():
            self._last()

    async def _run_agent(self):
        await self._needed.wait()
        await self.agent.run()

    async def _run_image_agent(self):
        await self._image_needed.wait()
        await self.image_agent.run()
