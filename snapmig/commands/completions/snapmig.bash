# Completion of snapmig for bash 4.4 or newer.
# Made by "make docs" from the program's options.

# Sets "words" to those before the cursor, whole: bash cuts at colons and equals signs.
_snapmig_words() {
    local line=$COMP_LINE blank piece i
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        blank=${line%%[![:blank:]]*}
        line=${line#"$blank"}
        line=${line#"$piece"}
        if [[ $i -gt 0 && -z $blank && ($piece == [:=]* || ${words[-1]} == *[:=]) ]]; then
            words[-1]+=$piece
        else
            words+=("$piece")
        fi
    done
}

# Sets "verb"; "verbs", those that can be here; and "place", the number of arguments without a name
# that stand before the word.
_snapmig_place() {
    local i=2
    verb=${words[1]}
    verbs=
    place=0
    case ${#words[@]} in
    2) verb= verbs=$(_snapmig_verbs '') ;;
    3) verbs=$(_snapmig_verbs "$verb") ;;
    *) [[ -n $(_snapmig_verbs "$verb") ]] && verb+=" ${words[2]}" i=3 ;;
    esac
    for (( ; i < ${#words[@]} - 1; i++)); do
        if [[ -n $only_places ]]; then
            place=$((place + 1))
        elif [[ ${words[i]} == -- ]]; then
            only_places=yes
        elif [[ " --accelerator --address --against --arch --attach --base --before --block --bwlimit --cache --cells --channels --color --compression --connect --days --depth --domain-xml --expect --format --guests-at-once --huffman --identity --jobs --key-file --label --layout --level --listen --lock-wait --log --max-downtime --metrics --monitor-timeout --mount --new-key-file --new-passphrase-command --new-passphrase-file --new-recipient --output --overlay --packet-size --parent --passphrase-command --passphrase-file --pause-after --progress --qcow2-snapshot --recipient --scheduler --sealing --share --snapshot --timeout --tls --tls-ca --tls-cert --tls-key --user --uuid --via --window --wire --working-set -g -j -o " == *" ${words[i]} "* ]]; then
            i=$((i + 1))
        elif [[ ${words[i]} != -?* ]]; then
            place=$((place + 1))
        fi
    done
}

# Offers the words given. Bash replaces what stands behind the last colon or equals sign only.
_snapmig_offer() {
    local piece=${COMP_WORDS[COMP_CWORD]} i
    [[ $piece == [:=] ]] && piece=
    local kept=${current%"$piece"}
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
    for i in "${!COMPREPLY[@]}"; do
        COMPREPLY[i]=${COMPREPLY[i]#"$kept"}
    done
    compopt +o default
}

_snapmig_verbs() {
    case $1 in
    '') echo 'save receive restore mount umount thaw send run info verify chain diff map merge rebase repack key batch backup daemon commit accelerators completion' ;;
    'key') echo 'list add rotate remove new' ;;
    'backup') echo 'run list restore check prune report init' ;;
    'daemon') echo 'firecracker cloud-hypervisor' ;;
    esac
}

_snapmig_options() {
    case $1 in
    '') echo '-h --help --version' ;;
    'save') echo '-h --help --parent --compression --level -j --jobs -f --force --resume --live --live=background --attach --format --base --qcow2-snapshot --address --arch --connect --via --max-downtime --pause-after --monitor-timeout --follow-remote-parents --encrypt --sign --mixed-chain --passphrase-file --passphrase-command --key-file --identity --recipient --share --bwlimit --progress --json -q --quiet -v --verbose --color --debug --layout --packet-size --page-digests --no-page-digests --deltas --no-deltas --accelerator --depth --window --huffman' ;;
    'receive') echo '-h --help --listen --channels --tls --insecure --timeout --parent --compression --level -j --jobs -f --force --attach --arch --follow-remote-parents --encrypt --sign --mixed-chain --passphrase-file --passphrase-command --key-file --identity --recipient --bwlimit --progress --json -q --quiet -v --verbose --color --debug --packet-size --page-digests --no-page-digests --deltas --no-deltas --accelerator --depth --window' ;;
    'restore') echo '-h --help -j --jobs -f --force --resume --in-place --for-qemu --lazy --keep-going --block --format --address --arch --domain-xml --via --wire --postcopy --working-set --monitor-timeout --follow-remote-parents --passphrase-file --passphrase-command --key-file --identity --bwlimit --progress --json -q --quiet -v --verbose --color --debug --accelerator --depth' ;;
    'mount') echo '-h --help -j --jobs --cache --foreground --allow-other --log --working-set --overlay --follow-remote-parents --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'umount') echo '-h --help --lazy --force --json -q --quiet -v --verbose --color --debug' ;;
    'thaw') echo '-h --help -j --jobs --progress --json -q --quiet -v --verbose --color --debug' ;;
    'send') echo '-h --help --channels --tls --insecure --timeout --recover --uuid --wire --postcopy --working-set --follow-remote-parents --passphrase-file --passphrase-command --key-file --identity --bwlimit --progress --json -q --quiet -v --verbose --color --debug --accelerator --depth' ;;
    'run') echo '-h --help -y --yes --postcopy --no-postcopy --mount --working-set -j --jobs --follow-remote-parents --progress --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'info') echo '-h --help --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'verify') echo '-h --help -j --jobs --quick --window --expect --accelerator --depth --follow-remote-parents --progress --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'chain') echo '-h --help --follow-remote-parents --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'diff') echo '-h --help -j --jobs --ranges --follow-remote-parents --progress --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'map') echo '-h --help -o --output -f --force --against --curve --cells -j --jobs --follow-remote-parents --progress --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'merge') echo '-h --help -j --jobs --page-digests --no-page-digests -f --force --follow-remote-parents --progress --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity --recipient' ;;
    'rebase') echo '-h --help --parent -j --jobs --page-digests --no-page-digests --deltas --no-deltas --follow-remote-parents --progress --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity --recipient' ;;
    'repack') echo '-h --help --compression --level -j --jobs -f --force --follow-remote-parents --sealing --passphrase-file --passphrase-command --key-file --identity --recipient --progress --json -q --quiet -v --verbose --color --debug --layout --packet-size --page-digests --no-page-digests --deltas --no-deltas --accelerator --depth --window' ;;
    'key') echo '-h --help' ;;
    'key list') echo '-h --help --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'key add') echo '-h --help --json -q --quiet -v --verbose --color --debug --new-passphrase-file --new-passphrase-command --new-key-file --new-recipient --new-passphrase --label --passphrase-file --passphrase-command --key-file --identity' ;;
    'key rotate') echo '-h --help --json -q --quiet -v --verbose --color --debug --new-passphrase-file --new-passphrase-command --new-key-file --new-recipient --new-passphrase --label --passphrase-file --passphrase-command --key-file --identity' ;;
    'key remove') echo '-h --help --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'key new') echo '-h --help --json -q --quiet -v --verbose --color --debug' ;;
    'batch') echo '-h --help -j --jobs -g --guests-at-once --fail-fast --no-fail-fast --bwlimit --monitor-timeout --scheduler --tls-ca --tls-cert --tls-key --progress --json -q --quiet -v --verbose --color --debug' ;;
    'backup') echo '-h --help' ;;
    'backup run') echo '-h --help -n --dry-run --full --no-prune --lock-wait --metrics --monitor-timeout -j --jobs --progress --json -q --quiet -v --verbose --color --debug' ;;
    'backup list') echo '-h --help --json -q --quiet -v --verbose --color --debug' ;;
    'backup restore') echo '-h --help --before --snapshot --format -f --force --in-place --for-qemu --keep-going --monitor-timeout -j --jobs --progress --json -q --quiet -v --verbose --color --debug' ;;
    'backup check') echo '-h --help --all --days -j --jobs --progress --json -q --quiet -v --verbose --color --debug' ;;
    'backup prune') echo '-h --help -n --dry-run --lock-wait --progress --json -q --quiet -v --verbose --color --debug' ;;
    'backup report') echo '-h --help -o --output -f --force --no-maps --progress --json -q --quiet -v --verbose --color --debug' ;;
    'backup init') echo '-h --help -f --force --json -q --quiet -v --verbose --color --debug' ;;
    'daemon') echo '-h --help' ;;
    'daemon firecracker') echo '-h --help --listen --user --working-set --fill --once -j --jobs --cache --follow-remote-parents --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'daemon cloud-hypervisor') echo '-h --help --listen --connect --user --timeout -j --jobs --follow-remote-parents --progress --json -q --quiet -v --verbose --color --debug --postcopy --paused --cache --parent --compression --level --layout -f --force --attach --packet-size --page-digests --no-page-digests --deltas --no-deltas --accelerator --depth --window --encrypt --sign --mixed-chain --passphrase-file --passphrase-command --key-file --identity --recipient' ;;
    'commit') echo '-h --help -f --force --abandon --progress --json -q --quiet -v --verbose --color --debug --passphrase-file --passphrase-command --key-file --identity' ;;
    'accelerators') echo '-h --help --measure --json -q --quiet -v --verbose --color --debug' ;;
    'completion') echo '-h --help' ;;
    esac
}

# Offers what may follow an option, or stand at a place. A file is offered by readline, but what is
# in a bucket by nobody.
_snapmig_values() {
    local before=${2-} choices=
    case $1 in
    'save --compression' | \
        'receive --compression' | \
        'repack --compression' | \
        'daemon cloud-hypervisor --compression') choices='zlib zstd lz4 none auto' ;;
    'save --format') choices='avml cloud-hypervisor elf firecracker kdump libvirt lime mapped-ram qemu-stream raw' ;;
    'save --arch' | \
        'receive --arch' | \
        'restore --arch') choices='x86_64 i386 aarch64 arm riscv64 riscv32 loongarch64 ppc64le s390x' ;;
    'save --via') choices='shared multifd mapped-ram stream' ;;
    'save --progress' | \
        'receive --progress' | \
        'restore --progress' | \
        'thaw --progress' | \
        'send --progress' | \
        'run --progress' | \
        'verify --progress' | \
        'diff --progress' | \
        'map --progress' | \
        'merge --progress' | \
        'rebase --progress' | \
        'repack --progress' | \
        'batch --progress' | \
        'backup run --progress' | \
        'backup restore --progress' | \
        'backup check --progress' | \
        'backup prune --progress' | \
        'backup report --progress' | \
        'daemon cloud-hypervisor --progress' | \
        'commit --progress') choices='auto tty json none' ;;
    'save --color' | \
        'receive --color' | \
        'restore --color' | \
        'mount --color' | \
        'umount --color' | \
        'thaw --color' | \
        'send --color' | \
        'run --color' | \
        'info --color' | \
        'verify --color' | \
        'chain --color' | \
        'diff --color' | \
        'map --color' | \
        'merge --color' | \
        'rebase --color' | \
        'repack --color' | \
        'key list --color' | \
        'key add --color' | \
        'key rotate --color' | \
        'key remove --color' | \
        'key new --color' | \
        'batch --color' | \
        'backup run --color' | \
        'backup list --color' | \
        'backup restore --color' | \
        'backup check --color' | \
        'backup prune --color' | \
        'backup report --color' | \
        'backup init --color' | \
        'daemon firecracker --color' | \
        'daemon cloud-hypervisor --color' | \
        'commit --color' | \
        'accelerators --color') choices='auto always never' ;;
    'save --layout' | \
        'repack --layout' | \
        'daemon cloud-hypervisor --layout') choices='fixed packed' ;;
    'save --accelerator' | \
        'receive --accelerator' | \
        'restore --accelerator' | \
        'send --accelerator' | \
        'verify --accelerator' | \
        'repack --accelerator' | \
        'daemon cloud-hypervisor --accelerator') choices='auto isal python qpl qpl:software qat' ;;
    'save --window' | \
        'receive --window' | \
        'verify --window' | \
        'repack --window' | \
        'daemon cloud-hypervisor --window') choices='4k 32k' ;;
    'save --huffman') choices='dynamic fixed trained' ;;
    'restore --format' | \
        'backup restore --format') choices='avml cloud-hypervisor elf firecracker kdump libvirt lime mapped-ram qemu-stream raw raw-by-address' ;;
    'restore --via') choices='shared multifd mapped-ram' ;;
    'restore --wire' | \
        'send --wire') choices='auto none zstd zlib' ;;
    'repack --sealing') choices='encrypted signed none' ;;
    'completion 0') choices='bash zsh fish' ;;
    'save --parent' | \
        'save --attach' | \
        'save --base' | \
        'save --passphrase-file' | \
        'save --key-file' | \
        'save --identity' | \
        'save 0' | \
        'save 1' | \
        'receive --tls' | \
        'receive --parent' | \
        'receive --attach' | \
        'receive --passphrase-file' | \
        'receive --key-file' | \
        'receive --identity' | \
        'receive 0' | \
        'restore --domain-xml' | \
        'restore --working-set' | \
        'restore --passphrase-file' | \
        'restore --key-file' | \
        'restore --identity' | \
        'restore 0' | \
        'restore 1' | \
        'mount --log' | \
        'mount --working-set' | \
        'mount --overlay' | \
        'mount --passphrase-file' | \
        'mount --key-file' | \
        'mount --identity' | \
        'mount 0' | \
        'mount 1' | \
        'umount 0' | \
        'thaw 0' | \
        'send --tls' | \
        'send --working-set' | \
        'send --passphrase-file' | \
        'send --key-file' | \
        'send --identity' | \
        'send 0' | \
        'run --mount' | \
        'run --working-set' | \
        'run --passphrase-file' | \
        'run --key-file' | \
        'run --identity' | \
        'run 0' | \
        'info --passphrase-file' | \
        'info --key-file' | \
        'info --identity' | \
        'info 0' | \
        'info '[0-9]* | \
        'verify --passphrase-file' | \
        'verify --key-file' | \
        'verify --identity' | \
        'verify 0' | \
        'verify '[0-9]* | \
        'chain --passphrase-file' | \
        'chain --key-file' | \
        'chain --identity' | \
        'chain 0' | \
        'diff --passphrase-file' | \
        'diff --key-file' | \
        'diff --identity' | \
        'diff 0' | \
        'diff 1' | \
        'map -o' | \
        'map --output' | \
        'map --against' | \
        'map --passphrase-file' | \
        'map --key-file' | \
        'map --identity' | \
        'map 0' | \
        'merge --passphrase-file' | \
        'merge --key-file' | \
        'merge --identity' | \
        'merge 0' | \
        'merge 1' | \
        'rebase --parent' | \
        'rebase --passphrase-file' | \
        'rebase --key-file' | \
        'rebase --identity' | \
        'rebase 0' | \
        'repack --passphrase-file' | \
        'repack --key-file' | \
        'repack --identity' | \
        'repack 0' | \
        'repack 1' | \
        'key list --passphrase-file' | \
        'key list --key-file' | \
        'key list --identity' | \
        'key list 0' | \
        'key add --new-passphrase-file' | \
        'key add --new-key-file' | \
        'key add --passphrase-file' | \
        'key add --key-file' | \
        'key add --identity' | \
        'key add 0' | \
        'key rotate --new-passphrase-file' | \
        'key rotate --new-key-file' | \
        'key rotate --passphrase-file' | \
        'key rotate --key-file' | \
        'key rotate --identity' | \
        'key rotate 0' | \
        'key remove --passphrase-file' | \
        'key remove --key-file' | \
        'key remove --identity' | \
        'key remove 0' | \
        'key new 0' | \
        'batch --tls-ca' | \
        'batch --tls-cert' | \
        'batch --tls-key' | \
        'batch 0' | \
        'backup run --metrics' | \
        'backup run 0' | \
        'backup list 0' | \
        'backup restore 0' | \
        'backup restore 2' | \
        'backup check 0' | \
        'backup prune 0' | \
        'backup report -o' | \
        'backup report --output' | \
        'backup report 0' | \
        'backup init 0' | \
        'daemon firecracker --listen' | \
        'daemon firecracker --working-set' | \
        'daemon firecracker --passphrase-file' | \
        'daemon firecracker --key-file' | \
        'daemon firecracker --identity' | \
        'daemon firecracker 0' | \
        'daemon cloud-hypervisor --listen' | \
        'daemon cloud-hypervisor --connect' | \
        'daemon cloud-hypervisor --parent' | \
        'daemon cloud-hypervisor --attach' | \
        'daemon cloud-hypervisor --passphrase-file' | \
        'daemon cloud-hypervisor --key-file' | \
        'daemon cloud-hypervisor --identity' | \
        'daemon cloud-hypervisor 0' | \
        'commit --passphrase-file' | \
        'commit --key-file' | \
        'commit --identity' | \
        'commit 0') [[ $current != *s3://* ]] && return ;;
    esac
    [[ -n $choices ]] && choices=$before${choices// / $before}
    _snapmig_offer "$choices"
}

_snapmig() {
    local words verb verbs place only_places= current last
    _snapmig_words
    _snapmig_place
    current=${words[-1]}
    last=${words[-2]}
    if [[ $last == *[\<\>] ]]; then
        return
    elif [[ -n $verbs ]]; then
        [[ $current == -* ]] && verbs=$(_snapmig_options "$verb")
        _snapmig_offer "$verbs"
    elif [[ -n $only_places ]]; then
        _snapmig_values "$verb $place"
    elif [[ " --accelerator --address --against --arch --attach --base --before --block --bwlimit --cache --cells --channels --color --compression --connect --days --depth --domain-xml --expect --format --guests-at-once --huffman --identity --jobs --key-file --label --layout --level --listen --lock-wait --log --max-downtime --metrics --monitor-timeout --mount --new-key-file --new-passphrase-command --new-passphrase-file --new-recipient --output --overlay --packet-size --parent --passphrase-command --passphrase-file --pause-after --progress --qcow2-snapshot --recipient --scheduler --sealing --share --snapshot --timeout --tls --tls-ca --tls-cert --tls-key --user --uuid --via --window --wire --working-set -g -j -o " == *" $last "* ]]; then
        _snapmig_values "$verb $last"
    elif [[ $current == --*=* ]]; then
        _snapmig_values "$verb ${current%%=*}" "${current%%=*}="
    elif [[ $current == -* ]]; then
        _snapmig_offer "$(_snapmig_options "$verb")"
    else
        _snapmig_values "$verb $place"
    fi
}

complete -o default -F _snapmig snapmig
