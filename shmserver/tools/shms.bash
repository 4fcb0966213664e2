# Completion of shms for bash: commands, options, names of heaps as the daemon (or --embedded) knows them.

_shms_heaps()       # the options given so far...
{
    shms "$@" --json ls 2>/dev/null | sed -n 's/^ *"name": *"\(.*\)",\{0,1\}$/\1/p'
}

_shms()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' word i
    local -a place=()

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        -s | --socket)
            place+=(--socket "${COMP_WORDS[i + 1]}")
            ((i++))
            ;;
        -H | --huge) ((i++)) ;;
        -e | --embedded | --socket=*) place+=("$word") ;;
        -*) ;;
        *) command=${command:-$word} ;;
        esac
    done

    COMPREPLY=()
    if [[ $previous == -s || $previous == --socket ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    elif [[ $previous == -H || $previous == --huge ]]; then
        mapfile -t COMPREPLY < <(compgen -W '2M 1G' -- "$current")
    elif [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '--socket --embedded --json --kill --huge --quarantine --help --usage --version' -- "$current")
    elif [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'ls info create rm clients fsck acl seal roots who kick gc obituary top watch metrics doctor quota' -- "$current")
    elif [[ $command == @(info|rm|clients|fsck|acl|seal|roots|obituary|watch) ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_shms_heaps "${place[@]}")" -- "$current")
    elif [[ $command == kick ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(shms "${place[@]}" --json clients 2>/dev/null | sed -n 's/^ *"pid": *\([0-9]*\),\{0,1\}$/\1/p')" -- "$current")
    elif [[ $command == quota && $previous == quota ]]; then
        mapfile -t COMPREPLY < <(compgen -u -- "$current")
    elif [[ $command == quota ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'clients= heaps= bytes= huge= requests= committed=' -- "$current")
    fi
}

complete -F _shms shms
