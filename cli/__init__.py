"""The `trce` command."""
