"""A pattern as a tree, and everything that reasons about it; no engine is asked here."""
