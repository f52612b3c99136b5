"""`python -m cocoer COMMAND`: the same as `cocoer COMMAND`."""

import sys

from cocoer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
