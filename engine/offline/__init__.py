"""Responses that somebody stored, identified again without touching a host; and captures of new ones."""
