"""What clients of OpenAI's Images API speak."""
