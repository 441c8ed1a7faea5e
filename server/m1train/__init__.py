"""The training process: the only room that imports torch. `python -m m1train --help` says how it is started."""
