"""The whole service on one machine: broker, HTTP service and workers as child processes."""
