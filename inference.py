"""Emotions of the people in your images: the same as `cocoer predict`."""

import sys

from cocoer.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
