"""What erased models still draw, as an independent judge sees it."""
