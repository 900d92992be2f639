"""What is tried. Each step is a function of the stack and returns what it found."""
