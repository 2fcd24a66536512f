"""What an order costs and whether it can be taken: pure pricing, and the one transaction that applies it."""
