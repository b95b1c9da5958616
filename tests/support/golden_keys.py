"""The keys of sealed golden snapshots, by the names of the files."""

from pathlib import Path
from typing import Any

import snapmig

HERE = Path(__file__).parents[1] / "golden" / "keys"
PASSPHRASE, KEY_FILE, IDENTITY = (HERE / name for name in ("passphrase", "key-file", "identity"))


def in_words(name: str) -> list[str]:
    """Return the options of the example reader that give the key of a snapshot."""
    if not name.startswith("sealed-"):
        return []
    if name.startswith("sealed-by-passphrase"):
        return ["--passphrase-file", str(PASSPHRASE)]
    if name.startswith("sealed-by-age"):
        return ["--identity", str(IDENTITY)]
    return ["--key-file", str(KEY_FILE)]


def keys_of(name: str) -> dict[str, Any]:
    """Return the arguments that give the key of a snapshot."""
    words = in_words(name)
    if not words:
        return {}
    if words[0] == "--passphrase-file":
        return {"keys": snapmig.Keys(passphrase_file=words[1])}
    field = words[0].strip("-").replace("-", "_")
    return {"keys": snapmig.Keys(**{field: [words[1]]})}
