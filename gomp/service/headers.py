"""Headers of answers that are of a moment: profiles and traces."""

NOT_STORED = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
