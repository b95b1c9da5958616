"""
A module for each reader of foreign bytes, to be fuzzed.

Each has ``seeds()``, sound inputs; ``read(data, folder)``, which reads all of an input, with
``folder`` as the only place to write; and, where checksums would end most inputs early,
``repair(data)``, which makes them right again.
"""
