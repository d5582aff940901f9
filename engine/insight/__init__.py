"""Rows of scans that are done, for people: reports and comparisons."""
