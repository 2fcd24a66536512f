# A terminal that is a process of the host.

from emulated import *  # noqa: F403

name = "process"
hardware = "process"


def images():
    # -> what stands in for esp32.Partition if the bench gave this board two firmware images, else None.
    if "partitions" not in options():  # noqa: F405
        return None
    from esp32 import Partition

    return Partition


async def network_up():
    # The host's network is always there.
    pass
