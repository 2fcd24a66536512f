# A terminal that is a process of the host.

from emulated import (
    boots,
    idle_us,
    instret,
    mount,
    mounted,
    options,
    random,
    region,
    reset,
    reset_cause,
    root,
    stats,
    wdt_feed,
    wdt_start,
)

name = "process"
hardware = "process"


async def network_up():
    # The host's network is always there.
    pass
