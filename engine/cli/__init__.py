"""The `probemill` command: a file per command, options, live line, metrics. The only place that prints or exits."""
