"""The firmware developer's path to a real chip: build images, flash them over a serial line, provision."""
