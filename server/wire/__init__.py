"""Seal/1 on the server side: bounded decoding, COSE envelopes, frames and the key schedule.

The contract is `fixtures/protocol/seal.cddl`. Nothing in this package does I/O; hostile bytes end in a
`server.wire.errors.Refusal` with a stable code and in no other exception.
"""
