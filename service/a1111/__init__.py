"""What clients of the A1111 web UI speak."""
