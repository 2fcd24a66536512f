"""Boards: a chip on USB, QEMU or a process, each behind the same small capabilities."""
