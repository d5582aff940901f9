"""What a scan on many machines needs beside the worker: shards and leases, the words that driver and actors exchange,
the actor itself, and what a node is asked for before anything is sent. Nothing here knows the engine that starts actors
(runners/ray.py) or the loop that drives them (runners/cluster.py).
"""
