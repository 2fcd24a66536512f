"""The rig: power, console, link and flash of terminals, driven as in a lab, then measured and judged."""
