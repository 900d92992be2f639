"""How crowded this machine is: promises of seconds are given for one that is not."""

import os


def crowding() -> float:
    """Those who want a core, for each core, over the last minute; 1 where there is one for all.

    A bound of seconds is multiplied by it: the machine is the only excuse there is.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
