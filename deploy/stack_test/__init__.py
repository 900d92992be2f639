"""The whole stack in containers, as README.md tells it; `make stack-test`."""
