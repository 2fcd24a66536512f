"""The deterministic simulation: real firmware and real server in one process on virtual time.

What is real: every module of ``firmware/terminal`` on a host board, every module of ``server`` including its
broker, and SQLite. What is simulated: the clock, the network between them, the server's disk, the terminals'
flash, people, and every fault. One seed is one run: the same seed gives the same events, and so the same
digest.
"""
