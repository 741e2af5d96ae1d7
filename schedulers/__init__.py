"""Deciding what runs where: pure decisions in modules of their own, and one anyio loop that applies them."""
