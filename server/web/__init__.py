"""The HTTP API: a thin layer of routes over the same writer, verification and ledger the terminals use."""
