"""The transactional order server of Tableside."""
