"""`python -m triscale`."""

from triscale.cli.main import main

if __name__ == "__main__":
    main()
