"""`python -m elslightning.cli` is the program `elslightning`."""

from elslightning.cli.main import main

if __name__ == "__main__":
    main()
