"""One module per step; what a step has once written stays as it is."""
