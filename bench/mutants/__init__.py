"""Planted bugs: each is a small change to one place of server or firmware, made while that file is loaded.

Production code knows nothing of them. A bug that no simulated run and no named check notices means that the
tests would not notice it either: that is a failure of the campaign.
"""
