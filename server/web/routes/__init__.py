"""The routes, one file per subject; each offers a ``router``."""
