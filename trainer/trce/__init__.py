"""TRCE (arXiv 2503.07389): erase concepts from a text-to-image diffusion model."""
