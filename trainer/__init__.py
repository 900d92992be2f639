"""Concept erasure as a library: methods and evaluation. Knows no jobs, queues or HTTP."""
