"""Errors in what was given, in the words that the user used; see core."""

from core.explaining import explain

__all__ = ["explain"]
