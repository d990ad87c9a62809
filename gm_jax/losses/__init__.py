"""Losses as pure functions, arrays in and arrays out."""
