"""Large tensors in huge pages, where the kernel lends them to who asks.

A pass of the UNet takes memory that the last one gave back. In pages of 4 KiB those are 9,000 for
32 rows of the shipped model, each handed out and cleared in a fault of its own: 5 to 10 % of the
pass. glibc asks for pages of 2 MiB instead. It is told when a program starts, so whoever starts
the process that draws tells it. Other C libraries do not know the words.
"""

from collections.abc import MutableMapping

TUNABLES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def ask(environment: MutableMapping[str, str]) -> None:
    """Have the processes that are started with this environment ask for huge pages.

    Tunables that an operator has set stay as they are, empty ones too: then nobody asks.
    """
    for name, value in TUNABLES.items():
        environment.setdefault(name, value)
