"""Train CocoER, alone or under torchrun: the same as `cocoer train`."""

import sys

from cocoer.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
