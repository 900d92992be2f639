"""What serving costs beside the limit of this machine; `make bench-serving`.

Contenders take turns within a run, and every figure is a ratio or a median of such turns, so
that whatever else the machine does hits all of them.
"""
