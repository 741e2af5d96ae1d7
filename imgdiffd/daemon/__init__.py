"""The daemon itself. Start reading in serve.py, which puts the parts together."""
