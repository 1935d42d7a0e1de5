"""Pathologies as programs: what each looks like in the numbers, and which alert says so. ``gomp demo NAME`` runs one with the live page.

Each module has ``SETTINGS``, the service's options under which its pathology shows, and ``main(seconds)``, which goes on for so long. The first line
of its docstring says what is wrong, ``ALERT`` which rule of ``configs/prometheus/alerts.yml`` fires; none does in ``healthy``.
"""
