"""Celery processes on GPU hosts: they denoise requests and run erasure jobs."""
