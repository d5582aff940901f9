"""The scan engine: targets -> pool -> conversation -> results -> state. `import probemill` is how it is used.

The wings, in the order in which a target passes them:

    targets/       lines in any known form become targets
    pool/          who scans what, and when
    conversation/  one port, from the first connection to its verdict
    transports/    how its bytes travel
    post/          what a recognised service tells beyond the match
    results/       rows, and the sinks that write them
    state/         exactly once, through crashes

`offline/` identifies stored responses without all that; `cli/` is the command.
"""

__version__ = "0.1.0"
