"""Who may speak: server keys, beacons, handshakes, sessions and the verification of every op.

Pure but for `keys` (files of its own directory): callers store what is returned, in their own transactions.
"""
