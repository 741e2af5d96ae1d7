"""The scheduler on virtual time: hours of a run in seconds, beside simpler ways of sharing the same work.

It owns made-up devices and what becomes of captions there; decisions are those of the modules beside it.
"""
