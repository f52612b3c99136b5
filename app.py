"""Emotions in the browser: the same as `cocoer app`."""

import sys

from cocoer.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
