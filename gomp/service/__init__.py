"""The service process: HTTP and the log sink. It reads shared memory and changes nothing in it; threads live here and nowhere else."""
