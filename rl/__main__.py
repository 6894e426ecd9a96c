"""`python -m rl` is the command `rl`."""

from rl.cli import main

if __name__ == "__main__":
    main()
