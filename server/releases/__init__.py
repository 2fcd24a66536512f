"""Releases: building and signing application bundles, and answering the terminals that fetch them."""
