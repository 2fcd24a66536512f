"""Reports of a run: a table for the terminal, JSON, JUnit XML and one HTML file that works offline."""
