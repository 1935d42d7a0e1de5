"""The service process: HTTP and the log sink. It reads shared memory and changes nothing in it:
what acts, the coordinator is asked for. Threads live here and nowhere else."""
