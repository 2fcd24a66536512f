# A terminal that is a process of the host.

from emulated import *  # noqa: F403

name = "process"
hardware = "process"


async def network_up():
    # The host's network is always there.
    pass
