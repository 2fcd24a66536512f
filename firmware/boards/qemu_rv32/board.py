# The QEMU RISC-V board.

import _board
from emulated import *  # noqa: F403

name = "qemu"
hardware = "qemu-rv32"


async def network_up():
    # Bring the virtual Ethernet up; the host's 127.0.0.1 is 10.0.2.2.
    _board.net_up()
