"""One port, from the first connection to its verdict: the pure state machine and what drives it."""
