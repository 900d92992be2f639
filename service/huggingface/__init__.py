"""What clients of Hugging Face inference endpoints speak."""
