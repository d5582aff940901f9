"""Benchmarks, and the loopback networks they and the demonstration scan. Not installed; run from a checkout."""
