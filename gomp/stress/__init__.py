"""``gomp stress``: programs that misuse memory, in a cgroup of their own, and a report of what came of it."""
