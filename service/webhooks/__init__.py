"""Telling a client's own server that its job has ended."""
