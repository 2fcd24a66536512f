"""What PlatformIO loads as the platform of platformio.ini: it adds nothing of its own."""

from platformio.public import PlatformBase


class TablesidePlatform(PlatformBase):
    """Boards whose firmware the tableside command builds."""
