"""What the server remembers: one SQLite file per site, one writer, every answer behind an fsync."""
