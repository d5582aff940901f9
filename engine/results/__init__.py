"""Rows on their way out: their schema and columns, the collector, and the sinks that write them."""
