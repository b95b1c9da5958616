"""The table of the golden chains: folders, digests of what good ones hold, faults of bad ones."""

from pathlib import Path

HERE = Path(__file__).parents[1] / "golden" / "chains"
ROWS = [line.split("\t") for line in (HERE / "chains.tsv").read_text().splitlines()[1:]]
GOOD = [(name, digest) for name, code, _, digest in ROWS if code == "0"]
BAD = [(name, int(code), word) for name, code, word, _ in ROWS if code != "0"]
