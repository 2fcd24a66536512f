"""The power-cut campaign: every way an update can be interrupted, tried on the real firmware.

The argument, in short. A golden update is run once with every flash step traced. Flash changes only by
steps, so a power cut leaves exactly one of: the steps before it, the steps up to it, or the steps before it
and a torn last one. All of these are built from the trace (`trace`, `lines`), written into a flash file and
booted by the process board (`machine`): frozen start-up, loader, slots, journal, counters, menu and update
agent are the ones that ship. What the terminals then say and what lies in flash is judged by ten oracles
(`oracles`). A recovery is traced in its turn, so that a second cut can fall anywhere into it.

Links and the server are cut and killed on real parts, apart from that (`wire`).

The flash model is firmware/boards/shared/nor.c; the network is played by firmware/boards/common/campaign.py.
"""
