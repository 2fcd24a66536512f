"""What staff may do, each a job for the one writer: one transaction, one LSN, one event row."""
