"""Faults the bench makes on purpose: a hostile link, and power that fails at the worst moment."""
