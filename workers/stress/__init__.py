"""Programs that do to memory what services do at their worst: `gomp stress NAME` runs each in a cgroup of its own."""
