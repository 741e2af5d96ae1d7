"""The daemon itself: serve.py puts its parts together; start there."""
