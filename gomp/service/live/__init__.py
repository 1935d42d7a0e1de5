"""The live page: what the service shows to a browser, read from shared memory while somebody looks, and sent as it changes."""
