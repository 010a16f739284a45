# Completion of weft(1) for bash. Commands and options are read from weft itself.

_weft()
{
	local cur=${COMP_WORDS[COMP_CWORD]} cmd=${COMP_WORDS[1]} prog=${COMP_WORDS[0]} i

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W "$("$prog" --help | sed -n 's/^  \([a-z]*\) .*/\1/p')" -- "$cur"))
		return
	fi
	if [[ $cmd == run || $cmd == try ]]; then
		for ((i = 2; i < COMP_CWORD; i++)); do
			[[ ${COMP_WORDS[i]} == -- ]] && _command_offset $((i + 1)) && return
		done
	fi
	case ${COMP_WORDS[COMP_CWORD - 1]} in
	-o | --output) COMPREPLY=($(compgen -W "json text" -- "$cur")) && return ;;
	-m | --mode) COMPREPLY=($(compgen -W "enforce observe off" -- "$cur")) && return ;;
	-f | --file | --socket | --library | --stdin | --keep) COMPREPLY=($(compgen -f -- "$cur")) && return ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$("$prog" "$cmd" --help | grep -o -- '--[a-z-]*') --help" -- "$cur"))
	elif [[ $cmd == endpoints || $cmd == identity ]]; then
		COMPREPLY=($(compgen -W "$("$prog" endpoints 2>/dev/null | awk 'NR > 1 {print $1}')" -- "$cur"))
	elif [[ $cmd == run || $cmd == try ]]; then
		COMPREPLY=($(compgen -c -- "$cur"))
	fi
}
complete -F _weft weft
