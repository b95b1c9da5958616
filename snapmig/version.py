"""The program's version; the file format has its own (:mod:`snapmig.container.format`)."""

__version__ = "0.2.0"
