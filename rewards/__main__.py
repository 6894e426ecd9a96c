"""`python -m rewards` is the command `rewards`."""

from rewards.cli import main

if __name__ == "__main__":
    main()
