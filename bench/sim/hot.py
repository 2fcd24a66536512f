"""A small house in which a great deal goes wrong: for planted bugs, and for short tests."""

from __future__ import annotations

from bench.sim.faults import FaultPlan
from bench.sim.network import PacketFaults
from bench.sim.run import SimConfig

HOT = FaultPlan(
    packets=PacketFaults(drop=0.01, duplicate=0.01, delay=0.01, swap=0.01, corrupt=0.01),
    server_kill_s=45.0,
    amnesia_s=200.0,
    clock_jump_s=400.0,
    disk_full_s=150.0,
    power_cut_s=120.0,
    reset_s=150.0,
    half_open_s=300.0,
)


def hot_config(seed: int, duration_s: float = 240.0, terminals: int = 4) -> SimConfig:
    """One run of four virtual minutes that ends at the first violation.

    One in seven houses serves in courses and closes tables: that leaves fewer tables to order from.
    """
    return SimConfig(
        seed=seed,
        duration_s=duration_s,
        terminals=terminals,
        order_every_s=4.0,
        restock_every_s=15.0,
        restock_most=8,
        opening_stock=12,
        menu_every_s=90.0,
        suspend_every_s=200.0,
        staff_every_s=1.5,
        floor_every_s=0.0 if seed % 7 else 1.5,
        faults=HOT,
        stop_at_violation=True,
        settle_within_s=1200.0,
    )
