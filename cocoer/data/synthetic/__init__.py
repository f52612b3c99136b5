"""The demo world: drawn scenes with people whose face, posture and surroundings each carry a cue (docs/demo.md).

Everything made here is synthetic. It shows that the code works; it says nothing about photographs.
"""
