"""`python -m lbkit`, the same as `lbkit`."""

from lbkit.cli.main import main

if __name__ == "__main__":
    main()
