"""`python -m service`."""

from service.main import run

run()
