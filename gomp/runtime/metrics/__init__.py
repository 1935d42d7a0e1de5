"""Every metric of a runtime, described once: what it is called, what it says, and how it is read."""
