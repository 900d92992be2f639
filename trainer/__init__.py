"""Concept erasure as a library: the methods and their evaluation. Knows no jobs, queues or HTTP."""
