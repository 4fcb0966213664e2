# Completion of shms for bash: commands, options, names of heaps as the daemon (or --embedded) knows them.

# What was typed, up to the cursor, in words. Bash splits at "=" and ":", too (COMP_WORDBREAKS): "--socket=PATH" is three of its words, and one of ours.
_shms_split()
{
    local i
    words=()

    for ((i = 0; i <= COMP_CWORD; i++)); do
        if ((i > 1)) && [[ ${COMP_WORDS[i]} == [=:]* || ${COMP_WORDS[i - 1]} == *[=:] ]]; then
            words[${#words[@]} - 1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
    done
}

# Of the words before the current one: the command, how many arguments it has already, where its heaps are.
_shms_parse()
{
    local i

    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        case ${words[i]} in
        -s | --socket) place+=(--socket "${words[++i]}") ;;
        -H | --huge) ((++i)) ;;
        --socket=*) place+=("${words[i]}") ;;
        --embedded | -e | -[jkq]*e*)
            embedded=yes
            place+=(--embedded)
            ;;
        -*) ;;
        *) if [[ $command ]]; then ((++arguments)); else command=${words[i]}; fi ;;
        esac
    done
}

_shms_ask()         # KEY COMMAND: what the daemon's answer has as KEY
{
    shms "${place[@]}" --json "$2" 2>/dev/null | sed -n 's/^ *"'"$1"'": *"\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p'
}

_shms_offer()       # WORDS: those that begin as the current one does
{
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
}

_shms_value()       # OPTION or LIMIT whose value is being typed
{
    case $1 in
    -s | --socket) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    -H | --huge) _shms_offer '2M 1G' ;;
    huge | committed) _shms_offer any ;;
    esac
}

_shms_argument()
{
    case $command in
    '') _shms_offer 'ls info create rm clients fsck acl seal roots who kick gc obituary top watch metrics doctor quota' ;;
    rm) _shms_offer "$(_shms_ask name ls)" ;;
    info | clients | fsck | acl | seal | roots | obituary | watch) ((arguments > 0)) || _shms_offer "$(_shms_ask name ls)" ;;
    gc) [[ $arguments -gt 0 || ! $embedded ]] || _shms_offer "$(_shms_ask name ls)" ;;
    kick) _shms_offer "$(_shms_ask pid clients)" ;;
    quota)
        if ((arguments > 0)); then
            _shms_offer 'clients= heaps= bytes= huge= requests= committed='
            compopt -o nospace
        else
            mapfile -t COMPREPLY < <(compgen -u -- "$current")
        fi
        ;;
    esac
}

_shms()
{
    local command='' embedded='' arguments=0 current previous option
    local -a words place=()

    _shms_split
    _shms_parse
    current=${words[${#words[@]} - 1]}
    previous=${words[${#words[@]} - 2]}
    COMPREPLY=()
    if [[ $current == *=* ]]; then
        option=${current%%=*}
        current=${current#*=}
        _shms_value "$option"
        # Where bash does not split at "=", what is offered takes the place of the whole word.
        [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=("${COMPREPLY[@]/#/$option=}")
    elif [[ $previous == @(-s|--socket|-H|--huge) ]]; then
        _shms_value "$previous"
    elif [[ $current == -* ]]; then
        _shms_offer '--socket --embedded --json --kill --huge --quarantine --help --usage --version'
    else
        _shms_argument
    fi
}

complete -F _shms shms
