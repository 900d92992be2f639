"""Detectors: does a picture show what it must not? Each states what it is and how it judges."""
