"""`python -m engine.cli` is the `probemill` command."""

from engine.cli import main

if __name__ == "__main__":
    main()
