"""Exactly once: what a run has done, kept on disk so that another can go on with it."""
