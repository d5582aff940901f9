"""`probemill top`: a scan that is going on, watched from another terminal. What is seen comes from a `Source`.

view.py says what can be seen, endpoint.py and folder.py are the sources, watch.py asks one again and again in a thread
of its own, tables.py makes tables of what it says, screen.py shows them. Only screen.py needs the extra `top`.
"""
