"""Rows that exist, for people: what a scan found, and what has changed between two."""
