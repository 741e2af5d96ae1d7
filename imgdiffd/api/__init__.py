"""Both ends of the HTTP protocol on the Unix socket: the app that answers and the client that asks."""
