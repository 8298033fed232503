"""How fast the system is, beside what limits it: `make bench` (see README.md). It must never be run by the tests."""
