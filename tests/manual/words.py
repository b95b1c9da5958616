"""Words of manual pages that parsers do not have: variables, files, and other pages."""

from __future__ import annotations

Pairs = tuple[tuple[str, str], ...]

DESCRIPTION: dict[str, tuple[str, ...]] = {
    "": (
        "A snapshot is one file, which appears complete and synced or not at all. "
        "It holds the pages of a guest's RAM that are not zero, compressed, each at the place that "
        "follows from its number, so that worker processes write and read it in parallel; and "
        "what else a guest consists of, such as the state of its devices. "
        "Checksums guard every packet of pages, and a digest what it decompresses to.",
        "Where a snapshot is named, s3://BUCKET/KEY is an object in a bucket, if the extra "
        "snapmig[s3] is installed. "
        "Where the image of a guest is named, qmp:SOCKET is a guest under QEMU with its monitor "
        "at that socket, and libvirt:DOMAIN, for a save, one of libvirt's, if the extra "
        "snapmig[qemu] is installed.",
        "A snapshot holds every secret of the guest and is made readable for its owner only. "
        "With --encrypt nobody reads it without a key, if the extra snapmig[crypto] is installed.",
    ),
    "save": (
        "Where the RAM is for the guest's processors is asked of a running guest, and read from "
        "the files of hypervisors as far as they tell it. "
        "--address says it of a RAM block in place of that, or of a part of it from an offset on, "
        "as in --address ram=0 --address ram@2G=4G, and may be repeated; --arch names the "
        "architecture. "
        "Both are kept in the snapshot.",
    ),
    "restore": (
        "The formats elf and raw-by-address have RAM at its guest physical addresses. "
        "Where the snapshot does not know them, or to put others in their place, --address and "
        "--arch give them as for save.",
    ),
    "key": (
        "A snapshot has a file key of its own, and up to 16 key slots: each wraps it for a "
        "passphrase, a key file or an age recipient. "
        "Any key that opens the snapshot may add and remove others; the data stay as they are.",
    ),
    "send": (
        "The QEMU was started with -incoming defer for the same machine and devices, and was told "
        "at its monitor: migrate_set_capability multifd on, migrate_set_parameter "
        "multifd-channels N, and migrate_incoming ADDRESS. "
        "Options that differ from its settings end the send in a failure, and its migration too. "
        "It may as well be snapmig-receive(1) on another host. "
        "When all has arrived the guest runs, unless QEMU was started with -S.",
    ),
    "completion": (
        "The script completes without starting snapmig, and is to be written again when snapmig "
        "was updated. "
        "An installation into /usr or /usr/local puts all three where the shells find them.",
    ),
}
"""Paragraphs, by verb; the program's own are under the empty name."""

ENVIRONMENT: dict[str, Pairs] = {
    "": (
        (
            "TMPDIR",
            "Where temporary files are made: the parts of a snapshot on their way into a bucket or "
            "out of it, a compressed libvirt image in plain form, and RAM that QEMU itself must "
            "write or read. Otherwise /var/tmp or /tmp.",
        ),
        (
            "LIBVIRT_DEFAULT_URI",
            "Where libvirt:DOMAIN is without --connect; it is libvirt's own variable.",
        ),
        (
            "XDG_RUNTIME_DIR, XDG_CACHE_HOME",
            "Where libvirt's daemon of a session tells the process of a domain.",
        ),
        ("NO_COLOR", "Set, nothing is coloured, and map draws in letters on a terminal, too."),
        ("TERM", "Set to dumb, likewise."),
        ("TQDM_DISABLE", "Set to 1, --progress auto draws no bars."),
        (
            "OPENBLAS_NUM_THREADS",
            "Left as it is where it is set; otherwise numpy is started with one thread.",
        ),
        (
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE",
            "Credentials for s3:// names, as in Amazon's own programs, or a profile of ~/.aws.",
        ),
        (
            "AWS_REGION, AWS_DEFAULT_REGION",
            "The region; us-east-1 where there is none.",
        ),
        (
            "AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL",
            "Another server than Amazon's.",
        ),
        ("AWS_CA_BUNDLE", "Certificates to trust."),
        ("AWS_MAX_ATTEMPTS", "Attempts at each request (5)."),
        (
            "AWS_ALLOW_HTTP",
            "Set to true, guests' memory may go over a network unencrypted.",
        ),
        ("HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "The way to the server of s3:// names."),
        (
            "SNAPMIG_S3_TIMEOUT",
            "Seconds without a byte after which a connection to that server is given up (30).",
        ),
    ),
    "backup": (
        (
            "XDG_STATE_HOME",
            "Where this host keeps its half of the locks of repositories in buckets, in "
            "snapmig/locks. Otherwise ~/.local/state.",
        ),
        (
            "JOURNAL_STREAM",
            "Set by systemd: lines that go to its journal begin with their priority.",
        ),
        (
            "SNAPMIG_EVENT, SNAPMIG_GUEST, SNAPMIG_SOURCE, SNAPMIG_REPOSITORY, SNAPMIG_SNAPSHOT, "
            "SNAPMIG_KIND, SNAPMIG_PARENT, SNAPMIG_SIZE, SNAPMIG_SECONDS, SNAPMIG_ERROR, "
            "SNAPMIG_EXIT_CODE",
            "What hooks are told: when they run, for which guest and snapshot, and how it ended.",
        ),
    ),
}
"""Likewise."""

_PARTIAL = "it takes that name when it is complete. A killed run leaves it, to be removed."
_SHARES = ".SNAPSHOT.shares"

FILES: dict[str, Pairs] = {
    "save": (
        (".SNAPSHOT.*.partial", f"What becomes SNAPSHOT, beside it: {_PARTIAL}"),
        (_SHARES, "Beside SNAPSHOT: the shares of --share, until snapmig-commit(1)."),
    ),
    "restore": ((".IMAGE.*.partial", f"What becomes IMAGE, beside it: {_PARTIAL}"),),
    "merge": ((".OUT.*.partial", f"What becomes OUT, beside it: {_PARTIAL}"),),
    "rebase": ((".SNAPSHOT.*.partial", f"What becomes SNAPSHOT, beside it: {_PARTIAL}"),),
    "repack": ((".OUT.*.partial", f"What becomes OUT, beside it: {_PARTIAL}"),),
    "commit": ((_SHARES, "Beside SNAPSHOT: what its shares have saved."),),
    "backup": (
        (
            "CONFIG",
            "What is saved where and kept how long, in TOML; init writes one with comments.",
        ),
        ("REPOSITORY/GUEST/TIME.snap", "A snapshot, by the time in UTC at which its save began."),
        ("REPOSITORY/GUEST/.lock", "Held by who changes the folder, and let go by the kernel."),
        ("~/.local/state/snapmig/locks", "This host's half of the locks of buckets."),
    ),
    "batch": (("JOBS.toml", "What is to be done: tables save and restore, one for each job."),),
    "completion": (
        ("~/.local/share/bash-completion/completions/snapmig", "Where bash looks for its script."),
        ("~/.config/fish/completions/snapmig.fish", "Where fish does."),
    ),
}
"""Likewise."""

SEE_ALSO: dict[str, tuple[str, ...]] = {
    "save": ("restore", "verify", "backup", "accelerators"),
    "receive": ("save", "send"),
    "restore": ("save", "send", "run", "info"),
    "mount": ("umount", "thaw", "restore"),
    "umount": ("mount",),
    "thaw": ("mount", "run"),
    "send": ("receive", "restore"),
    "run": ("restore", "mount", "save"),
    "daemon": ("save", "restore", "verify"),
    "info": ("save", "chain"),
    "verify": ("save", "key", "accelerators"),
    "key": ("save", "verify", "repack"),
    "chain": ("diff", "merge", "rebase"),
    "diff": ("chain", "map"),
    "map": ("diff", "info"),
    "merge": ("chain", "rebase", "repack"),
    "rebase": ("chain", "merge"),
    "repack": ("merge", "save"),
    "batch": ("save", "restore", "backup"),
    "backup": ("save", "restore", "batch"),
    "commit": ("save",),
    "accelerators": ("save", "verify"),
    "completion": (),
}
"""Verbs whose pages are named on the page of a verb, besides that of the program."""
