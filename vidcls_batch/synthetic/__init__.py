"""Clips with known content, made by the seed: what the demo, the tests and the benchmarks label."""
