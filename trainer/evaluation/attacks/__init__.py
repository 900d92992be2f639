"""Attacks on erased models, written from their papers; black-box and white-box kept apart."""
