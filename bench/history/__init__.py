"""What a site promised and what it did, compared: usable on simulated, load and kill runs alike."""
