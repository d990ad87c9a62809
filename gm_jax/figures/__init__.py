"""Figures as PNG files; every picture carries the caption that says what made it."""
