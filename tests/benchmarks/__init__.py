"""Benchmarks of the data layer; see `tests.benchmarks.__main__` for the command."""
