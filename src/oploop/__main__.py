"""`python -m oploop` is `oploop`."""

from oploop.cli.main import main

if __name__ == "__main__":
    main()
