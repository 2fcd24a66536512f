"""The kill -9 campaign: real processes are killed at random and at every commit boundary, then judged.

A kill loses what a process had in memory and nothing that the kernel had taken: it shows every window
between the steps of a commit, and cannot show a missing fsync. That is the simulation's work, whose disk
loses what was not synced.
"""
