"""Emotions in the browser: the same as `cocoer app`."""

import sys

from cocoer.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
