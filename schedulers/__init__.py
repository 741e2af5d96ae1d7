"""Deciding what runs where: pure decisions in their own modules, one anyio loop that applies them.

It owns the order of work; it does not know torch, SQL or processes.
"""
