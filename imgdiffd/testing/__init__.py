"""Fakes that ship with the daemon: a worker process without models or torch, and models without weights."""
