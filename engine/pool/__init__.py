"""Who scans what, and when: the worker of one process, its limits, and the runners that share work among processes."""
