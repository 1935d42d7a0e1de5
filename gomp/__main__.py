"""``python -m gomp`` is the ``gomp`` command."""

from gomp.cli import main

if __name__ == "__main__":
    main()
