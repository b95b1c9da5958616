"""Facts about configurations: what they mean, and the one sentence where they mean nothing."""

import re
from pathlib import Path

import pytest

from snapmig.backups.config import ConfigError, load_config, parse_config
from snapmig.backups.retention import UNLIMITED
from snapmig.backups.schema import TABLES, GuestTable, TopTable
from snapmig.backups.template import TEMPLATE

PATH = Path("/etc/backup.toml")
HEAD = 'repository = "repo"\n'
GUEST = '[guests.web]\nsource = "web.ram"\n'


def parsed(text):
    """Return the configuration that a text is."""
    return parse_config(text, PATH)


def web(general="", guest=""):
    """Return the guest of a configuration with these lines."""
    return parsed(HEAD + general + "\n" + GUEST + guest).guests[0]


def test_paths_are_relative_to_the_file():
    """Neither the working directory of cron nor that of systemd matters."""
    config = parsed(HEAD + GUEST + '[guests.db]\nsource = "qmp:db.qmp"')

    assert (config.repository, [guest.source for guest in config.guests]) == (
        Path("/etc/repo"),
        ["/etc/web.ram", "qmp:/etc/db.qmp"],
    )


def test_a_connection_is_for_domains():
    """A domain of libvirt's has no path; other guests do not see the URI of all."""
    text = '[save]\nconnect = "qemu:///session"\n[guests.db]\nsource = "libvirt:db"\n'
    guests = parsed(HEAD + text + GUEST).guests

    assert [(guest.source, guest.save.get("connect")) for guest in guests] == [
        ("libvirt:db", "qemu:///session"),
        ("/etc/web.ram", None),
    ]


def test_a_guest_overrides_key_by_key():
    """A guest's table takes the place of the general one in the keys that it has."""
    rules = web("[retention]\nkeep_last = 3\nkeep_daily = 7", "retention.keep_daily = 0").rules

    assert (rules.last, rules.daily) == (3, 0)


def test_unlimited_counts():
    """As with restic, a count may be without an end."""
    assert web('[retention]\nkeep_yearly = "unlimited"').rules.yearly == UNLIMITED


def test_without_rules_there_are_none():
    """An empty retention is no rule at all."""
    assert not web("[retention]").rules


@pytest.mark.parametrize("rule", ["keep_last = 0", 'keep_within = "0d"'])
def test_a_rule_of_nothing_is_no_rule(rule):
    """A rule that keeps nothing does not make the rules say that all is to go."""
    assert not web(f"[retention]\n{rule}").rules


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "repository: the key is missing"),
        ("repository = 7", "repository: expected a string, found a whole number"),
        ('repository = ""', "repository: expected a path, found ''"),
        ('repository = "s3://"', "repository: expected s3://BUCKET/PREFIX, found 's3://'"),
        (
            'repository = "s3://b"\n[save]\nlayout = "fixed"\n[guests.web]\nsource = "web.ram"',
            "guests.web.save.layout: layout is fixed, expected packed: an object has no holes",
        ),
        (
            'repository = "s3://b"\n[save]\nlive = true\n[guests.web]\nsource = "qmp:s"',
            "guests.web.save.live: a live save writes packets again, "
            "expected a repository in files",
        ),
        (
            HEAD + '[guests.web]\nsource = "libvirt:w"\nsave.connect = "system"',
            "guests.web.save.connect: connect is 'system', expected a URI like qemu:///system",
        ),
        (
            HEAD + '[guests.web]\nsource = "libvirt:"',
            "guests.web.source: expected the name of a domain, found ''",
        ),
        (HEAD + "keep_daily = 7", "keep_daily: unknown key"),
        (HEAD + "lockwait = 7", "lockwait: unknown key, did you mean lock_wait?"),
        (HEAD + "lock_wait = -1", "lock_wait: expected at least 0, found -1"),
        (HEAD + "nice = 20", "nice: expected at most 19, found 20"),
        (HEAD + "nice = true", "nice: expected a whole number, found true or false"),
        (
            HEAD + 'ionice = "fast"',
            "ionice: expected idle, best-effort:0 to :7 or realtime:0 to :7, found 'fast'",
        ),
        (
            HEAD + "[retention]\nkeep_dayly = 7",
            "retention.keep_dayly: unknown key, did you mean keep_daily?",
        ),
        (
            HEAD + '[retention]\nkeep_daily = "7"',
            "retention.keep_daily: expected a whole number or one of 'unlimited', found '7'",
        ),
        (
            HEAD + "[retention]\nkeep_daily = 1.5",
            "retention.keep_daily: expected a whole number or a string, "
            "found a number with a fraction",
        ),
        (
            HEAD + "[retention]\nkeep_daily = -1",
            "retention.keep_daily: expected at least 0, found -1",
        ),
        (HEAD + "retention = 7", "retention: expected a table, found a whole number"),
        (
            HEAD + GUEST + '[guests.web.retention]\nkeep_within = "7 days"',
            "guests.web.retention.keep_within: duration is '7 days', expected one like 1y5m7d2h "
            "(years, months, days, hours)",
        ),
        (
            HEAD + '[hooks]\nbefore = "sync"',
            "hooks.before: expected an array, found a string",
        ),
        (
            HEAD + '[hooks]\nbefore = ["sync", 1]',
            "hooks.before 2: expected a string, found a whole number",
        ),
        (HEAD + "guests = 7", "guests: expected a table, found a whole number"),
        (HEAD + "guests.web = 7", "guests.web: expected a table, found a whole number"),
        (HEAD + "[guests.web]", "guests.web.source: the key is missing"),
        (
            HEAD + GUEST + "optinal = true",
            "guests.web.optinal: unknown key, did you mean optional?",
        ),
        (
            HEAD + GUEST + 'hooks.befor = ["a"]',
            "guests.web.hooks.befor: unknown key, did you mean before?",
        ),
        (
            HEAD + '[guests."../etc"]\nsource = "a"',
            "guests.'../etc': expected a name of letters, digits, '_', '-' and '.', for it names "
            "a folder",
        ),
        (
            HEAD + GUEST + 'full_every = "often"',
            "guests.web.full_every: duration is 'often', expected one like 1y5m7d2h "
            "(years, months, days, hours)",
        ),
        (HEAD + GUEST + "full_every = 0", "guests.web.full_every: expected at least 1, found 0"),
        (
            HEAD + GUEST + 'full_every = "0d"',
            "guests.web.full_every: expected more than nothing, found '0d'",
        ),
        (
            HEAD + GUEST + 'check_within = "5h"',
            "guests.web.check_within: expected a day at least, found '5h'",
        ),
        (
            HEAD + GUEST + "save.level = 10",
            "guests.web.save.level: level of zlib is 10, expected 0 to 9 or auto",
        ),
        (
            HEAD + GUEST + 'save.packet_size = "100K"',
            "guests.web.save.packet_size: packet size is 100.0 KiB, expected a power of two from "
            "64.0 KiB to 4.0 MiB",
        ),
        (
            HEAD + GUEST + "attach.a = 1",
            "guests.web.attach.a: expected a string, found a whole number",
        ),
        (
            HEAD + GUEST + "created = 2026-11-23",
            "guests.web.created: unknown key",
        ),
        ("repository = repo", "not TOML: invalid value (at line 1, column 14)"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_with_the_place(text, sentence):
    """File, table and key are named, and what was expected and found there."""
    with pytest.raises(ConfigError, match=re.escape(f"/etc/backup.toml: {sentence}") + "$"):
        parsed(text)


def test_an_unknown_format_names_those_that_are_known():
    """A guest's format is checked before anything is saved."""
    with pytest.raises(ConfigError, match=r"guests.web.format: expected one of .*raw.*'vmdk'"):
        web(guest='format = "vmdk"')


def test_what_is_not_utf_8_is_refused(tmp_path):
    """A file that is no text is one sentence."""
    (tmp_path / "c").write_bytes(b"repository = '\xff'")
    with pytest.raises(ConfigError, match="byte 14 is not UTF-8"):
        load_config(tmp_path / "c")


def test_a_file_that_is_no_configuration_is_not_read_whole(tmp_path):
    """A path to an image by mistake takes no memory."""
    with (tmp_path / "c").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"larger than 4\.0 MiB"):
        load_config(tmp_path / "c")


def test_the_commented_configuration_is_one():
    """The file made by init is accepted as it is."""
    assert [guest.name for guest in parsed(TEMPLATE).guests] == ["example"]


def uncommented():
    """Return what init writes with all of its keys."""
    lines = [re.sub(r'^#(?=["a-z\[])', "", line) for line in TEMPLATE.splitlines()]
    return "\n".join(line for line in lines if line != "full_every = 7")


def test_the_commented_keys_are_right():
    """With all of its keys the configuration that init writes is accepted too."""
    guest = parsed(uncommented()).guests[0]

    assert (guest.optional, guest.rules.daily, guest.check_days) == (True, 14, 30)


def test_the_commented_configuration_has_every_key():
    """No key is known that init does not show."""
    keys = {*TopTable.__struct_fields__, *GuestTable.__struct_fields__}
    for table in TABLES.values():
        keys |= set(table.__struct_fields__)
    shown = set(re.findall(r'^#?\[*(?:guests\.example\.)?"?(\w+)', TEMPLATE, re.MULTILINE))

    assert keys - shown - {"guests"} == set()


def test_the_document_has_every_key():
    """No key is known that docs/backups.md does not explain."""
    document = (Path(__file__).parents[2] / "docs" / "backups.md").read_text()
    keys = {*TopTable.__struct_fields__, *GuestTable.__struct_fields__}
    for table in TABLES.values():
        keys |= set(table.__struct_fields__)

    assert {key for key in keys if f"`{key}`" not in document} == set()
