"""The commented configuration written by ``snapmig backup init``."""

from __future__ import annotations

__all__ = ("TEMPLATE",)

TEMPLATE = """\
# Guests for "snapmig backup", and rules for full snapshots and retention: see docs/backups.md.
# Lines that start with "#" and a key show that key with its default or an example.
# Paths are relative to the folder of this file. Try: snapmig backup run --dry-run THIS_FILE

# Where snapshots go, in a folder for each guest. The directory must exist: a disk that is not
# mounted must not be mistaken for an empty one. In object storage: "s3://BUCKET/PREFIX", see
# docs/s3.md for the server and its keys.
repository = "/var/backups/snapmig"

# Seconds to wait for another run that works on the same guest.
#lock_wait = 0

# One full snapshot, then incremental ones: of how many one is full, or the greatest age of the
# full one. 1: each is full.
#full_every = 7
#full_every = "7d"

# "check" reads a part each day, so that within this time everything was read. Without: all of it.
#check_within = "30d"

# The age from which "report" and metrics call a guest's last good snapshot late.
#max_age = "1d6h"

# Step back behind others: -20 to 19; and idle, best-effort:0 to :7 or realtime:0 to :7.
#nice = 10
#ionice = "idle"

# A folder elsewhere for roots of snapshots: check then sees one that was replaced or taken away.
#roots = "/var/lib/snapmig/roots"

# What prune, and each run after its saves, keeps; the words are restic's and borg's. Without any of
# them nothing is ever removed. What a kept snapshot builds on is kept too.
[retention]
keep_daily = 7
keep_weekly = 5
keep_monthly = 12
#keep_last = 3
#keep_hourly = 24
#keep_yearly = "unlimited"
#keep_within = "1y5m7d2h"

# Programs around each save, as lists of arguments; no shell reads them. What there is to know is in
# the environment, as SNAPMIG_GUEST, SNAPMIG_SNAPSHOT, SNAPMIG_ERROR. Each "before" is followed by
# "after" or by "error".
[hooks]
#before = ["/usr/local/bin/quiesce", "--soon"]
#after = ["/usr/local/bin/thaw"]
#error = ["/usr/bin/logger", "-p", "user.err", "a guest was not saved"]
#timeout = 600

# Options of "snapmig save".
[save]
#jobs = 4
#compression = "zlib"
#accelerator = "auto"
#level = 1
#window = "32k"
#huffman = "dynamic"
#depth = 8
#packet_size = "512K"
#layout = "fixed"
#page_digests = true
#deltas = true
#live = true             # or "background"
#via = "multifd"
#max_downtime = 300
#pause_after = 300
#connect = "qemu:///system"
#monitor_timeout = 30
#encrypt = true          # with keys, docs/encryption.md
#sign = false
#mixed_chain = true
#passphrase_file = "phrase"
#passphrase_command = "pass show snapmig"
#key_file = ["web.key"]
#identity = ["backup.identity"]
#recipient = ["age1..."]

# A guest; its name is that of its folder. It may have all of the tables above, and full_every and
# check_within; its keys override those above one by one.
[guests.example]
# A file with the guest's RAM, qmp:SOCKET for a guest that runs under QEMU, or libvirt:DOMAIN.
source = "qmp:/run/example.qmp"
#format = "raw"
#base = ["older.diff"]
# Skip a missing source with a warning; otherwise it is an error.
#optional = true

#[guests.example.attach]
#"domain.xml" = "/etc/libvirt/qemu/example.xml"

#[guests.example.retention]
#keep_daily = 14
"""
