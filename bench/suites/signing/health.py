"""After everything: the server still rotates keys and never lost its temper."""

from __future__ import annotations

from bench.errors import check
from bench.rig import Rig
from bench.suites import forging
from bench.suites.signing.common import (
    SUITE,
    genuine_beacon,
    rekey,
)
from bench.suites.steps import (
    good_order_works,
)
from bench.wait import until


@SUITE.case("a_rotated_server_key_is_accepted")
def a_rotated_server_key_is_accepted(rig: Rig) -> str:
    """After the server key is renewed (a higher epoch) the terminal trusts the new one, and only that."""
    before = forging.open_beacon(genuine_beacon(rig), rig.options.site)
    rig.server.stop()
    rig.server.admin("keys", "rotate")
    rig.server.start()
    until(
        lambda: forging.open_beacon(genuine_beacon(rig), rig.options.site).epoch > before.epoch,
        "the new epoch",
        20,
    )
    rekey(rig)
    good_order_works(rig)
    return f"epoch {before.epoch} to {forging.open_beacon(genuine_beacon(rig), rig.options.site).epoch}"


@SUITE.case("the_server_never_lost_its_temper")
def the_server_never_lost_its_temper(rig: Rig) -> None:
    """After all of this the server's log has no traceback."""
    check("Traceback" not in rig.server.log_text(), "there is a traceback in the server's log")
