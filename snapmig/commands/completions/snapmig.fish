# Completion of snapmig for fish 3.0 or newer.
# Made by "make docs" from the program's options.

# Prints, a line each, the words before the cursor that are neither options nor their values.
function __snapmig_places
    set -l skip 0
    set -l only_places 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if test $only_places = 1
            printf '%s\n' "$word"
        else if test "$word" = --
            set only_places 1
        else if contains -- "$word" --accelerator --address --arch --attach --base --before --block --bwlimit --channels --compression --connect --days --depth --domain-xml --format --guests-at-once --huffman --jobs --layout --level --listen --lock-wait --max-downtime --monitor-timeout --packet-size --parent --pause-after --progress --scheduler --share --snapshot --timeout --tls --tls-ca --tls-cert --tls-key --uuid --via --window --wire --working-set -g -j
            set skip 1
        else if not string match -q -- '-?*' "$word"
            printf '%s\n' "$word"
        end
    end
end

# Says whether these words are the verb, and if a number comes first, whether so many places follow
# the verb; with a "+" behind the number, so many or more. Never where the name of an object begins,
# for which there are no words.
function __snapmig_at
    string match -q '*s3://*' -- (commandline -ct); and return 1
    set -l places (__snapmig_places)
    set -l number
    if string match -qr '^[0-9]' -- $argv[1]
        set number $argv[1]
        set -e argv[1]
    end
    set -l length (count $argv)
    test (count $places) -ge $length; or return 1
    if test $length -gt 0
        test "$places[1..$length]" = "$argv"; or return 1
    end
    set -l behind (math (count $places) - $length)
    switch "$number"
        case ''
            return 0
        case '*+'
            test $behind -ge (string replace + '' -- $number)
        case '*'
            test $behind -eq $number
    end
end

# A path behind the first equals sign.
function __snapmig_assignment
    set -l word (string replace -r '^--[a-z-]*=' '' -- (commandline -ct))
    set -l parts (string split -m 1 = -- $word)
    if test (count $parts) = 2
        __fish_complete_path $parts[2] | string replace -r '^' "$parts[1]="
    end
end

complete -c snapmig -f
complete -c snapmig -n '__snapmig_at 0' -a save -d 'save a guest RAM image to a snapshot'
complete -c snapmig -n '__snapmig_at 0' -a receive -d 'save a guest that its QEMU migrates here'
complete -c snapmig -n '__snapmig_at 0' -a restore -d 'restore a snapshot to a guest RAM image'
complete -c snapmig -n '__snapmig_at 0' -a send -d 'migrate a snapshot into a waiting QEMU, here or elsewhere'
complete -c snapmig -n '__snapmig_at 0' -a info -d 'show the facts of a snapshot'
complete -c snapmig -n '__snapmig_at 0' -a verify -d 'check snapshots for damage'
complete -c snapmig -n '__snapmig_at 0' -a chain -d 'show a snapshot and its parents'
complete -c snapmig -n '__snapmig_at 0' -a diff -d 'show which pages of two snapshots differ'
complete -c snapmig -n '__snapmig_at 0' -a merge -d 'make a snapshot independent of its parents'
complete -c snapmig -n '__snapmig_at 0' -a rebase -d 'give a snapshot another parent'
complete -c snapmig -n '__snapmig_at 0' -a repack -d 'store a snapshot in another form'
complete -c snapmig -n '__snapmig_at 0' -a batch -d 'save or restore many guests in one run'
complete -c snapmig -n '__snapmig_at 0' -a backup -d 'back up guests by rules, and remove old snapshots'
complete -c snapmig -n '__snapmig_at 0' -a commit -d 'join the shares of several hosts to a snapshot'
complete -c snapmig -n '__snapmig_at 0' -a accelerators -d 'list the zlib engines of this host'
complete -c snapmig -n '__snapmig_at 0' -a completion -d 'print a completion script for a shell'
complete -c snapmig -n '__snapmig_at 0' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at 0' -l version -d 'show program\'s version number and exit'
complete -c snapmig -n '__snapmig_at save' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at save' -l parent -r -F -d 'an older snapshot: store only the changes since then'
complete -c snapmig -n '__snapmig_at save' -l compression -r -f -a 'zlib zstd lz4 none' -d 'zlib, zstd, lz4 or none (zlib)'
complete -c snapmig -n '__snapmig_at save' -l level -r -f -d 'zlib 0 to 9, zstd -7 to 19, lz4 1 to 12, or auto (1)'
complete -c snapmig -n '__snapmig_at save' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at save' -s f -l force -d 'replace an existing SNAPSHOT'
complete -c snapmig -n '__snapmig_at save' -l live -d 'save while the guest runs, pause it only briefly'
complete -c snapmig -n '__snapmig_at save' -l live=background -d 'the same, as the guest is at the start'
complete -c snapmig -n '__snapmig_at save' -l attach -r -f -a '(__snapmig_assignment)' -d 'keep a file in the snapshot; may be repeated'
complete -c snapmig -n '__snapmig_at save' -l format -r -f -a 'cloud-hypervisor elf firecracker libvirt mapped-ram qemu-stream raw' -d 'of IMAGE: cloud-hypervisor, elf, firecracker, libvirt, mapped-ram, qemu-stream, raw (by content)'
complete -c snapmig -n '__snapmig_at save' -l base -r -F -d 'the file that IMAGE, a Firecracker diff, builds on'
complete -c snapmig -n '__snapmig_at save' -l address -r -f -d 'guest physical address of BLOCK[@OFFSET]'
complete -c snapmig -n '__snapmig_at save' -l arch -r -f -a 'x86_64 i386 aarch64 arm riscv64 riscv32 loongarch64 ppc64le s390x' -d 'architecture of the guest, such as aarch64'
complete -c snapmig -n '__snapmig_at save' -l connect -r -f -d 'libvirt\'s, like qemu:///system'
complete -c snapmig -n '__snapmig_at save' -l via -r -f -a 'shared multifd mapped-ram stream' -d 'shared, multifd, mapped-ram or stream (auto)'
complete -c snapmig -n '__snapmig_at save' -l max-downtime -r -f -d 'longest pause of a live save via multifd (300)'
complete -c snapmig -n '__snapmig_at save' -l pause-after -r -f -d 'pause it then, though much is left to save (300)'
complete -c snapmig -n '__snapmig_at save' -l monitor-timeout -r -f -d 'seconds to wait for answers of QEMU (30)'
complete -c snapmig -n '__snapmig_at save' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at save' -l share -r -f -d 'save part K of N (docs/cluster.md); then commit'
complete -c snapmig -n '__snapmig_at save' -l bwlimit -r -f -d 'write at most RATE bytes per second, like 200M'
complete -c snapmig -n '__snapmig_at save' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at save' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at save' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at save' -l layout -r -f -a 'fixed packed' -d 'fixed (sparse file) or packed, for s3:// (fixed)'
complete -c snapmig -n '__snapmig_at save' -l packet-size -r -f -d '64K to 4M of RAM at once (512K, or as OLDER)'
complete -c snapmig -n '__snapmig_at save' -l page-digests -l no-page-digests -d 'for faster later saves; --no-page-digests (as OLDER)'
complete -c snapmig -n '__snapmig_at save' -l deltas -l no-deltas -d 'store differences within pages; --no-deltas (auto)'
complete -c snapmig -n '__snapmig_at save' -l accelerator -r -f -a 'auto isal python qpl qpl:software qat' -d 'zlib engine, see "snapmig accelerators" (auto)'
complete -c snapmig -n '__snapmig_at save' -l depth -r -f -d 'packets in flight per worker, for hardware'
complete -c snapmig -n '__snapmig_at save' -l window -r -f -a '4k 32k' -d 'zlib history: 32k, or 4k for hardware decoders (32k)'
complete -c snapmig -n '__snapmig_at save' -l huffman -r -f -a 'dynamic fixed trained' -d 'qpl code tables: dynamic, fixed, trained (dynamic)'
complete -c snapmig -n '__snapmig_at 0 save' -F
complete -c snapmig -n '__snapmig_at 1 save' -F
complete -c snapmig -n '__snapmig_at receive' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at receive' -l listen -r -f -d 'unix:PATH or tcp:ADDRESS:PORT, where QEMU migrates to'
complete -c snapmig -n '__snapmig_at receive' -l channels -r -f -d 'multifd-channels of that QEMU, 0 without multifd (2)'
complete -c snapmig -n '__snapmig_at receive' -l tls -r -F -d 'certificates as for QEMU\'s tls-creds-x509'
complete -c snapmig -n '__snapmig_at receive' -l insecure -d 'let other hosts connect without TLS'
complete -c snapmig -n '__snapmig_at receive' -l timeout -r -f -d 'seconds to wait for the migration (600)'
complete -c snapmig -n '__snapmig_at receive' -l parent -r -F -d 'an older snapshot: store only the changes since then'
complete -c snapmig -n '__snapmig_at receive' -l compression -r -f -a 'zlib zstd lz4 none' -d 'zlib, zstd, lz4 or none (zlib)'
complete -c snapmig -n '__snapmig_at receive' -l level -r -f -d 'zlib 0 to 9, zstd -7 to 19, lz4 1 to 12, or auto (1)'
complete -c snapmig -n '__snapmig_at receive' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at receive' -s f -l force -d 'replace an existing SNAPSHOT'
complete -c snapmig -n '__snapmig_at receive' -l attach -r -f -a '(__snapmig_assignment)' -d 'keep a file in the snapshot; may be repeated'
complete -c snapmig -n '__snapmig_at receive' -l arch -r -f -a 'x86_64 i386 aarch64 arm riscv64 riscv32 loongarch64 ppc64le s390x' -d 'architecture of the guest, such as aarch64'
complete -c snapmig -n '__snapmig_at receive' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at receive' -l bwlimit -r -f -d 'write at most RATE bytes per second, like 200M'
complete -c snapmig -n '__snapmig_at receive' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at receive' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at receive' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at receive' -l packet-size -r -f -d '64K to 4M of RAM at once (512K, or as OLDER)'
complete -c snapmig -n '__snapmig_at receive' -l page-digests -l no-page-digests -d 'for faster later saves; --no-page-digests (as OLDER)'
complete -c snapmig -n '__snapmig_at receive' -l deltas -l no-deltas -d 'store differences within pages; --no-deltas (auto)'
complete -c snapmig -n '__snapmig_at receive' -l accelerator -r -f -a 'auto isal python qpl qpl:software qat' -d 'zlib engine, see "snapmig accelerators" (auto)'
complete -c snapmig -n '__snapmig_at receive' -l depth -r -f -d 'packets in flight per worker, for hardware'
complete -c snapmig -n '__snapmig_at receive' -l window -r -f -a '4k 32k' -d 'zlib history: 32k, or 4k for hardware decoders (32k)'
complete -c snapmig -n '__snapmig_at 0 receive' -F
complete -c snapmig -n '__snapmig_at restore' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at restore' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at restore' -s f -l force -d 'replace an existing IMAGE'
complete -c snapmig -n '__snapmig_at restore' -l in-place -d 'fill an existing IMAGE of the same size; a running program may have it mapped'
complete -c snapmig -n '__snapmig_at restore' -l for-qemu -d 'make IMAGE a directory, and print the commands that resume the guest from it'
complete -c snapmig -n '__snapmig_at restore' -l block -r -f -d 'only this RAM block (all, in order)'
complete -c snapmig -n '__snapmig_at restore' -l format -r -f -a 'cloud-hypervisor elf firecracker libvirt mapped-ram qemu-stream raw raw-by-address' -d 'of IMAGE: cloud-hypervisor, elf, firecracker, libvirt, mapped-ram, qemu-stream, raw, raw-by-address (as saved)'
complete -c snapmig -n '__snapmig_at restore' -l address -r -f -d 'guest physical address of BLOCK[@OFFSET]'
complete -c snapmig -n '__snapmig_at restore' -l arch -r -f -a 'x86_64 i386 aarch64 arm riscv64 riscv32 loongarch64 ppc64le s390x' -d 'architecture of the guest, such as aarch64'
complete -c snapmig -n '__snapmig_at restore' -l domain-xml -r -F -d 'domain definition for --format libvirt (the attachment domain.xml)'
complete -c snapmig -n '__snapmig_at restore' -l via -r -f -a 'shared multifd mapped-ram' -d 'shared, multifd or mapped-ram, see docs/guests.md (auto)'
complete -c snapmig -n '__snapmig_at restore' -l wire -r -f -a 'auto none zstd zlib' -d 'form of pages sent via multifd: none, zstd or zlib (auto: none)'
complete -c snapmig -n '__snapmig_at restore' -l postcopy -d 'run the guest at once and send its memory meanwhile; until that ends it depends on this process'
complete -c snapmig -n '__snapmig_at restore' -l working-set -r -F -d 'what it asks for: kept, or sent before it runs'
complete -c snapmig -n '__snapmig_at restore' -l monitor-timeout -r -f -d 'seconds to wait for answers of QEMU (30)'
complete -c snapmig -n '__snapmig_at restore' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at restore' -l bwlimit -r -f -d 'write at most RATE bytes per second, like 200M'
complete -c snapmig -n '__snapmig_at restore' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at restore' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at restore' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at restore' -l accelerator -r -f -a 'auto isal python qpl qpl:software qat' -d 'zlib engine, see "snapmig accelerators" (auto)'
complete -c snapmig -n '__snapmig_at restore' -l depth -r -f -d 'packets in flight per worker, for hardware'
complete -c snapmig -n '__snapmig_at 0 restore' -F
complete -c snapmig -n '__snapmig_at 1 restore' -F
complete -c snapmig -n '__snapmig_at send' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at send' -l channels -r -f -d 'multifd-channels of that QEMU, 0 without multifd (2)'
complete -c snapmig -n '__snapmig_at send' -l tls -r -F -d 'certificates as for QEMU\'s tls-creds-x509'
complete -c snapmig -n '__snapmig_at send' -l insecure -d 'send to other hosts without TLS'
complete -c snapmig -n '__snapmig_at send' -l timeout -r -f -d 'seconds until it listens, and then until it loads (60)'
complete -c snapmig -n '__snapmig_at send' -l recover -d 'with --postcopy: send the rest'
complete -c snapmig -n '__snapmig_at send' -l uuid -r -f -d 'of the waiting guest (none)'
complete -c snapmig -n '__snapmig_at send' -l wire -r -f -a 'auto none zstd zlib' -d 'as the parameter multifd-compression there: none, zstd or zlib (auto: none)'
complete -c snapmig -n '__snapmig_at send' -l postcopy -d 'run the guest at once and send its memory meanwhile; until that ends it depends on this process'
complete -c snapmig -n '__snapmig_at send' -l working-set -r -F -d 'what it asks for: kept, or sent before it runs'
complete -c snapmig -n '__snapmig_at send' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at send' -l bwlimit -r -f -d 'send at most RATE bytes per second, like 200M'
complete -c snapmig -n '__snapmig_at send' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at send' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at send' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at send' -l accelerator -r -f -a 'auto isal python qpl qpl:software qat' -d 'zlib engine, see "snapmig accelerators" (auto)'
complete -c snapmig -n '__snapmig_at send' -l depth -r -f -d 'packets in flight per worker, for hardware'
complete -c snapmig -n '__snapmig_at 0 send' -F
complete -c snapmig -n '__snapmig_at info' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at info' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at info' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 info' -F
complete -c snapmig -n '__snapmig_at verify' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at verify' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at verify' -l quick -d 'check tables, index and unused space only'
complete -c snapmig -n '__snapmig_at verify' -l window -r -f -a '4k 32k' -d 'check that a decoder with this history is enough'
complete -c snapmig -n '__snapmig_at verify' -l accelerator -r -f -a 'auto isal python qpl qpl:software qat' -d 'zlib engine, see "snapmig accelerators" (auto)'
complete -c snapmig -n '__snapmig_at verify' -l depth -r -f -d 'packets in flight per worker, for hardware'
complete -c snapmig -n '__snapmig_at verify' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at verify' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at verify' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at verify' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0+ verify' -F
complete -c snapmig -n '__snapmig_at chain' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at chain' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at chain' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at chain' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 chain' -F
complete -c snapmig -n '__snapmig_at diff' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at diff' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at diff' -l ranges -d 'print each range of pages'
complete -c snapmig -n '__snapmig_at diff' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at diff' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at diff' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at diff' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 diff' -F
complete -c snapmig -n '__snapmig_at 1 diff' -F
complete -c snapmig -n '__snapmig_at merge' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at merge' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at merge' -l page-digests -l no-page-digests -d 'for faster later saves; --no-page-digests (unchanged)'
complete -c snapmig -n '__snapmig_at merge' -s f -l force -d 'replace an existing OUT'
complete -c snapmig -n '__snapmig_at merge' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at merge' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at merge' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at merge' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 merge' -F
complete -c snapmig -n '__snapmig_at 1 merge' -F
complete -c snapmig -n '__snapmig_at rebase' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at rebase' -l parent -r -F -d 'the new parent'
complete -c snapmig -n '__snapmig_at rebase' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at rebase' -l page-digests -l no-page-digests -d 'for faster later saves; --no-page-digests (unchanged)'
complete -c snapmig -n '__snapmig_at rebase' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at rebase' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at rebase' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at rebase' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 rebase' -F
complete -c snapmig -n '__snapmig_at repack' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at repack' -l compression -r -f -a 'zlib zstd lz4 none' -d 'zlib, zstd, lz4 or none (as it is)'
complete -c snapmig -n '__snapmig_at repack' -l level -r -f -d 'zlib 0 to 9, zstd -7 to 19, lz4 1 to 12, or auto (1)'
complete -c snapmig -n '__snapmig_at repack' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at repack' -s f -l force -d 'replace an existing OUT'
complete -c snapmig -n '__snapmig_at repack' -l follow-remote-parents -d 'find parents anywhere, not just beside or below'
complete -c snapmig -n '__snapmig_at repack' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at repack' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at repack' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at repack' -l layout -r -f -a 'fixed packed' -d 'fixed (sparse file) or packed, for s3:// (as it is)'
complete -c snapmig -n '__snapmig_at repack' -l packet-size -r -f -d '64K to 4M of RAM at once (as it is)'
complete -c snapmig -n '__snapmig_at repack' -l page-digests -l no-page-digests -d 'for faster later saves; --no-page-digests (as it is)'
complete -c snapmig -n '__snapmig_at repack' -l accelerator -r -f -a 'auto isal python qpl qpl:software qat' -d 'zlib engine, see "snapmig accelerators" (auto)'
complete -c snapmig -n '__snapmig_at repack' -l depth -r -f -d 'packets in flight per worker, for hardware'
complete -c snapmig -n '__snapmig_at repack' -l window -r -f -a '4k 32k' -d 'zlib history: 32k, or 4k for hardware decoders (as it is)'
complete -c snapmig -n '__snapmig_at 0 repack' -F
complete -c snapmig -n '__snapmig_at 1 repack' -F
complete -c snapmig -n '__snapmig_at batch' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at batch' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at batch' -s g -l guests-at-once -r -f -d 'guests at the same time (the file\'s, or 2; on a cluster as many as it has hosts)'
complete -c snapmig -n '__snapmig_at batch' -l fail-fast -l no-fail-fast -d 'cancel the others when one fails (the file\'s, or no)'
complete -c snapmig -n '__snapmig_at batch' -l bwlimit -r -f -d 'write at most RATE bytes per second, like 200M'
complete -c snapmig -n '__snapmig_at batch' -l monitor-timeout -r -f -d 'seconds to wait for answers of QEMU (the file\'s, or 30)'
complete -c snapmig -n '__snapmig_at batch' -l scheduler -r -f -d 'of a Dask cluster: each job on its host (docs/cluster.md); tls://HOST:PORT, or tcp://HOST:PORT on one machine'
complete -c snapmig -n '__snapmig_at batch' -l tls-ca -r -F -d 'of the authority that signed all certificates'
complete -c snapmig -n '__snapmig_at batch' -l tls-cert -r -F -d 'of our own certificate, for tls://'
complete -c snapmig -n '__snapmig_at batch' -l tls-key -r -F -d 'of its key (in --tls-cert)'
complete -c snapmig -n '__snapmig_at batch' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at batch' -l json -d 'print a line of JSON for each job as it ends'
complete -c snapmig -n '__snapmig_at batch' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 batch' -F
complete -c snapmig -n '__snapmig_at 0 backup' -a run -d 'save guests, then remove snapshots by the rules'
complete -c snapmig -n '__snapmig_at 0 backup' -a list -d 'list the snapshots'
complete -c snapmig -n '__snapmig_at 0 backup' -a restore -d 'restore a guest as of a given time'
complete -c snapmig -n '__snapmig_at 0 backup' -a check -d 'check that snapshots can be restored'
complete -c snapmig -n '__snapmig_at 0 backup' -a prune -d 'remove snapshots by the rules'
complete -c snapmig -n '__snapmig_at 0 backup' -a init -d 'write a configuration with comments'
complete -c snapmig -n '__snapmig_at 0 backup' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at backup run' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at backup run' -s n -l dry-run -d 'print what would be done, and do nothing'
complete -c snapmig -n '__snapmig_at backup run' -l full -d 'save in full, whatever the rule'
complete -c snapmig -n '__snapmig_at backup run' -l no-prune -d 'remove nothing'
complete -c snapmig -n '__snapmig_at backup run' -l lock-wait -r -f -d 'time to wait for each lock (as in CONFIG, else 0)'
complete -c snapmig -n '__snapmig_at backup run' -l monitor-timeout -r -f -d 'seconds to wait for answers of QEMU (as in CONFIG, else 30)'
complete -c snapmig -n '__snapmig_at backup run' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at backup run' -s v -l verbose -d 'print results'
complete -c snapmig -n '__snapmig_at backup run' -s q -l quiet -d 'print warnings and errors only'
complete -c snapmig -n '__snapmig_at backup run' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at backup run' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at backup run' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 backup run' -F
complete -c snapmig -n '__snapmig_at backup list' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at backup list' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at backup list' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 backup list' -F
complete -c snapmig -n '__snapmig_at backup restore' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at backup restore' -l before -r -f -d 'the last snapshot before TIME (now)'
complete -c snapmig -n '__snapmig_at backup restore' -l snapshot -r -f -d 'a snapshot by its name in list'
complete -c snapmig -n '__snapmig_at backup restore' -l format -r -f -a 'cloud-hypervisor elf firecracker libvirt mapped-ram qemu-stream raw raw-by-address' -d 'of TARGET (as saved)'
complete -c snapmig -n '__snapmig_at backup restore' -s f -l force -d 'replace an existing TARGET'
complete -c snapmig -n '__snapmig_at backup restore' -l in-place -d 'fill an existing TARGET'
complete -c snapmig -n '__snapmig_at backup restore' -l for-qemu -d 'see snapmig restore --help'
complete -c snapmig -n '__snapmig_at backup restore' -l monitor-timeout -r -f -d 'seconds to wait for answers of QEMU (30)'
complete -c snapmig -n '__snapmig_at backup restore' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at backup restore' -s v -l verbose -d 'print results'
complete -c snapmig -n '__snapmig_at backup restore' -s q -l quiet -d 'print warnings and errors only'
complete -c snapmig -n '__snapmig_at backup restore' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at backup restore' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at backup restore' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 backup restore' -F
complete -c snapmig -n '__snapmig_at 2 backup restore' -F
complete -c snapmig -n '__snapmig_at backup check' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at backup check' -l all -d 'read all of it now'
complete -c snapmig -n '__snapmig_at backup check' -l days -r -f -d 'catch up on N days of parts (1)'
complete -c snapmig -n '__snapmig_at backup check' -s j -l jobs -r -f -d 'worker processes (one for each processor)'
complete -c snapmig -n '__snapmig_at backup check' -s v -l verbose -d 'print results'
complete -c snapmig -n '__snapmig_at backup check' -s q -l quiet -d 'print warnings and errors only'
complete -c snapmig -n '__snapmig_at backup check' -l progress -r -f -a 'auto tty json none' -d 'auto (a bar on a terminal), tty, json (lines), none'
complete -c snapmig -n '__snapmig_at backup check' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at backup check' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 backup check' -F
complete -c snapmig -n '__snapmig_at backup prune' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at backup prune' -s n -l dry-run -d 'print what would be done, and do nothing'
complete -c snapmig -n '__snapmig_at backup prune' -l lock-wait -r -f -d 'time to wait for each lock (as in CONFIG, else 0)'
complete -c snapmig -n '__snapmig_at backup prune' -s v -l verbose -d 'print results'
complete -c snapmig -n '__snapmig_at backup prune' -s q -l quiet -d 'print warnings and errors only'
complete -c snapmig -n '__snapmig_at backup prune' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at backup prune' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 backup prune' -F
complete -c snapmig -n '__snapmig_at backup init' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at backup init' -s f -l force -d 'replace an existing CONFIG'
complete -c snapmig -n '__snapmig_at backup init' -s v -l verbose -d 'print results'
complete -c snapmig -n '__snapmig_at backup init' -s q -l quiet -d 'print warnings and errors only'
complete -c snapmig -n '__snapmig_at backup init' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at backup init' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 backup init' -F
complete -c snapmig -n '__snapmig_at commit' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at commit' -s f -l force -d 'replace an existing SNAPSHOT'
complete -c snapmig -n '__snapmig_at commit' -l abandon -d 'remove the shares instead'
complete -c snapmig -n '__snapmig_at commit' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at commit' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at 0 commit' -F
complete -c snapmig -n '__snapmig_at accelerators' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at accelerators' -l measure -d 'measure each on a sample like guest RAM, in seconds'
complete -c snapmig -n '__snapmig_at accelerators' -l json -d 'print the result as a line of JSON'
complete -c snapmig -n '__snapmig_at accelerators' -l debug -d 'show a traceback after an error'
complete -c snapmig -n '__snapmig_at completion' -s h -l help -d 'show this help message and exit'
complete -c snapmig -n '__snapmig_at 0 completion' -f -a 'bash zsh fish'
