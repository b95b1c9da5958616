"""Guests for the tests, the demo and the benchmark: real ones under QEMU, and a stand-in."""
