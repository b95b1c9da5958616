"""Dumps of LiME and AVML: ranges of physical memory, each after a header with its addresses."""
