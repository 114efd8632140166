"""Measurements of the product; each is a command of its own."""
