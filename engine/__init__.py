"""Identify the services behind open ports as Nmap's version scan would. Public names only."""
