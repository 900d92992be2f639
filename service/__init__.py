"""The FastAPI front end: check, record, queue, answer. Never imports torch."""
