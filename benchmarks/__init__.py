"""Claims of speed and size, measured: `make bench-…` prints a table and writes build/bench/."""
