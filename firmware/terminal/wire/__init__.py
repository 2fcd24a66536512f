# Seal/1 on the wire: CBOR, COSE, RSA and the frames. Pure code: no I/O, no clock, randomness handed in.
