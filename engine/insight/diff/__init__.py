"""Two scans compared, target by target: what is new, what is gone, what answers otherwise.

kinds: the words for what can be found. compare: the comparison itself, in DuckDB. words: a finding as people read it.
markdown, html, ndjson: one form each, made line by line, so that none holds all findings. The table that people see on
a terminal is made where terminals are known, in cli/diff_table.py.
"""
