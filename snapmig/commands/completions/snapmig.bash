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
        elif [[ " --accelerator --address --arch --attach --base --before --block --bwlimit --channels --compression --connect --days --depth --domain-xml --format --guests-at-once --huffman --jobs --layout --level --listen --lock-wait --max-downtime --monitor-timeout --packet-size --parent --pause-after --progress --scheduler --share --snapshot --timeout --tls --tls-ca --tls-cert --tls-key --uuid --via --window --wire --working-set -g -j " == *" ${words[i]} "* ]]; then
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
    '') echo 'save receive restore send info verify chain diff merge rebase repack batch backup commit accelerators completion' ;;
    'backup') echo 'run list restore check prune init' ;;
    esac
}

_snapmig_options() {
    case $1 in
    '') echo '-h --help --version' ;;
    'save') echo '-h --help --parent --compression --level -j --jobs -f --force --live --live=background --attach --format --base --address --arch --connect --via --max-downtime --pause-after --monitor-timeout --follow-remote-parents --share --bwlimit --progress --json --debug --layout --packet-size --page-digests --no-page-digests --deltas --no-deltas --accelerator --depth --window --huffman' ;;
    'receive') echo '-h --help --listen --channels --tls --insecure --timeout --parent --compression --level -j --jobs -f --force --attach --arch --follow-remote-parents --bwlimit --progress --json --debug --packet-size --page-digests --no-page-digests --deltas --no-deltas --accelerator --depth --window' ;;
    'restore') echo '-h --help -j --jobs -f --force --in-place --for-qemu --block --format --address --arch --domain-xml --via --wire --postcopy --working-set --monitor-timeout --follow-remote-parents --bwlimit --progress --json --debug --accelerator --depth' ;;
    'send') echo '-h --help --channels --tls --insecure --timeout --recover --uuid --wire --postcopy --working-set --follow-remote-parents --bwlimit --progress --json --debug --accelerator --depth' ;;
    'info') echo '-h --help --json --debug' ;;
    'verify') echo '-h --help -j --jobs --quick --window --accelerator --depth --follow-remote-parents --progress --json --debug' ;;
    'chain') echo '-h --help --follow-remote-parents --json --debug' ;;
    'diff') echo '-h --help -j --jobs --ranges --follow-remote-parents --progress --json --debug' ;;
    'merge') echo '-h --help -j --jobs --page-digests --no-page-digests -f --force --follow-remote-parents --progress --json --debug' ;;
    'rebase') echo '-h --help --parent -j --jobs --page-digests --no-page-digests --follow-remote-parents --progress --json --debug' ;;
    'repack') echo '-h --help --compression --level -j --jobs -f --force --follow-remote-parents --progress --json --debug --layout --packet-size --page-digests --no-page-digests --accelerator --depth --window' ;;
    'batch') echo '-h --help -j --jobs -g --guests-at-once --fail-fast --no-fail-fast --bwlimit --monitor-timeout --scheduler --tls-ca --tls-cert --tls-key --progress --json --debug' ;;
    'backup') echo '-h --help' ;;
    'backup run') echo '-h --help -n --dry-run --full --no-prune --lock-wait --monitor-timeout -j --jobs -v --verbose -q --quiet --progress --json --debug' ;;
    'backup list') echo '-h --help --json --debug' ;;
    'backup restore') echo '-h --help --before --snapshot --format -f --force --in-place --for-qemu --monitor-timeout -j --jobs -v --verbose -q --quiet --progress --json --debug' ;;
    'backup check') echo '-h --help --all --days -j --jobs -v --verbose -q --quiet --progress --json --debug' ;;
    'backup prune') echo '-h --help -n --dry-run --lock-wait -v --verbose -q --quiet --json --debug' ;;
    'backup init') echo '-h --help -f --force -v --verbose -q --quiet --json --debug' ;;
    'commit') echo '-h --help -f --force --abandon --json --debug' ;;
    'accelerators') echo '-h --help --measure --json --debug' ;;
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
        'repack --compression') choices='zlib zstd lz4 none' ;;
    'save --format') choices='cloud-hypervisor elf firecracker libvirt mapped-ram qemu-stream raw' ;;
    'save --arch' | \
        'receive --arch' | \
        'restore --arch') choices='x86_64 i386 aarch64 arm riscv64 riscv32 loongarch64 ppc64le s390x' ;;
    'save --via') choices='shared multifd mapped-ram stream' ;;
    'save --progress' | \
        'receive --progress' | \
        'restore --progress' | \
        'send --progress' | \
        'verify --progress' | \
        'diff --progress' | \
        'merge --progress' | \
        'rebase --progress' | \
        'repack --progress' | \
        'batch --progress' | \
        'backup run --progress' | \
        'backup restore --progress' | \
        'backup check --progress') choices='auto tty json none' ;;
    'save --layout' | \
        'repack --layout') choices='fixed packed' ;;
    'save --accelerator' | \
        'receive --accelerator' | \
        'restore --accelerator' | \
        'send --accelerator' | \
        'verify --accelerator' | \
        'repack --accelerator') choices='auto isal python qpl qpl:software qat' ;;
    'save --window' | \
        'receive --window' | \
        'verify --window' | \
        'repack --window') choices='4k 32k' ;;
    'save --huffman') choices='dynamic fixed trained' ;;
    'restore --format' | \
        'backup restore --format') choices='cloud-hypervisor elf firecracker libvirt mapped-ram qemu-stream raw raw-by-address' ;;
    'restore --via') choices='shared multifd mapped-ram' ;;
    'restore --wire' | \
        'send --wire') choices='auto none zstd zlib' ;;
    'completion 0') choices='bash zsh fish' ;;
    'save --parent' | \
        'save --attach' | \
        'save --base' | \
        'save 0' | \
        'save 1' | \
        'receive --tls' | \
        'receive --parent' | \
        'receive --attach' | \
        'receive 0' | \
        'restore --domain-xml' | \
        'restore --working-set' | \
        'restore 0' | \
        'restore 1' | \
        'send --tls' | \
        'send --working-set' | \
        'send 0' | \
        'info 0' | \
        'verify 0' | \
        'verify '[0-9]* | \
        'chain 0' | \
        'diff 0' | \
        'diff 1' | \
        'merge 0' | \
        'merge 1' | \
        'rebase --parent' | \
        'rebase 0' | \
        'repack 0' | \
        'repack 1' | \
        'batch --tls-ca' | \
        'batch --tls-cert' | \
        'batch --tls-key' | \
        'batch 0' | \
        'backup run 0' | \
        'backup list 0' | \
        'backup restore 0' | \
        'backup restore 2' | \
        'backup check 0' | \
        'backup prune 0' | \
        'backup init 0' | \
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
    elif [[ " --accelerator --address --arch --attach --base --before --block --bwlimit --channels --compression --connect --days --depth --domain-xml --format --guests-at-once --huffman --jobs --layout --level --listen --lock-wait --max-downtime --monitor-timeout --packet-size --parent --pause-after --progress --scheduler --share --snapshot --timeout --tls --tls-ca --tls-cert --tls-key --uuid --via --window --wire --working-set -g -j " == *" $last "* ]]; then
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
