"""What can be wrong with an installation, each found by looking and named with its fix."""
