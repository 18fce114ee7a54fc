# What the guest's shell is told once it has greeted. Everything here runs in
# that bash, so that a command costs one fork and no program: nothing is done by
# another process that bash can do itself.
#
# The host writes one line for each command:
#
#   _vmt NUMBER LIMIT UNTIL FOR BYTES COMMAND
#
# LIMIT   seconds for one attempt; - for none. What is over it gets SIGTERM, a
#         second later SIGKILL, and the status is 124, as with coreutils' timeout.
# UNTIL   - runs the command once; 0 repeats it until it succeeds, 1 until it fails.
# FOR     hundredths of a second for which to repeat; the host asks again then.
# BYTES   how many bytes of input follow for the command; - for none.
#
# and reads frames, "KIND NUMBER …" with a number of raw bytes behind the line:
#
#   vmt-ready STDERR PORT             once, after this: whether there are a console
#                                     for standard error and a data port, 1 or 0
#   vmt-out NUMBER LENGTH NUL         the first part of a long output; with NUL
#                                     set to 1, a NUL byte comes next
#   vmt-end NUMBER STATUS LENGTH HOW  the end. A short output is all here. HOW is
#                                     port (the rest came by the data port, whose
#                                     stream now has the mark), again (what is
#                                     waited for is not there yet) or -
#
# The rest of a long output comes between them, raw through the data port when
# there is one. Else it comes as lines of base64, and the guest waits for a line
# feed of the host after each full one: QEMU drops what a guest writes to a
# virtio console while the host's end of it is full. A data port has flow control.

# Process substitution needs it; initial RAM disks may lack it.
[[ -e /dev/fd/0 ]] || ln -s /proc/self/fd /dev/fd

# Standard error of commands: a console of its own, live and apart from the
# kernel's and the journal's lines.
if [[ $_vmt_err && -c $_vmt_err ]]; then exec 2>"$_vmt_err"; else _vmt_err=; fi
[[ -c $_vmt_tee ]] || _vmt_tee=

_vmt_port=
for _vmt_f in /sys/class/virtio-ports/*/name; do
	[[ -e $_vmt_f ]] && read -r _vmt_x <"$_vmt_f" && [[ $_vmt_x = "$_vmt_name" ]] || continue
	_vmt_f=${_vmt_f%/name}
	[[ -c /dev/${_vmt_f##*/} ]] && _vmt_port=/dev/${_vmt_f##*/}
done

# A pause of bash's own. Nobody ever writes to the pipe.
_vmt_sleep() { read -r -t "$1" <> <(:); }

# Bash forgets how a process substitution ended that ends before it is noted
# down, so each waits for a line from here.
exec 6<> <(:)

# Hundredths of a second since boot: the clock that tests do not set.
_vmt_now() {
	local IFS=' '
	read -r _vmt_t _ </proc/uptime
	_vmt_t=$((10#${_vmt_t/./}))
}

# _vmt_pause N: hundredths of a second.
_vmt_pause() {
	local t=00$1
	_vmt_sleep "$(($1 / 100)).${t: -2}"
}

# _vmt_tree PID: a process and all its descendants, in _vmt_p.
_vmt_tree() {
	local IFS=$' \t\n' f s p=" $1 " more=1
	while [[ $more ]]; do
		more=
		for f in /proc/[0-9]*/stat; do
			read -r s <"$f" || continue
			s=${s##*) ?}
			set -- $s
			f=${f#/proc/} f=${f%/stat}
			[[ $p = *" $1 "* && $p != *" $f "* ]] && p+="$f " more=1
		done 2>/dev/null
	done
	_vmt_p=($p)
}

# _vmt_stop PID: stops that tree, and what it still becomes meanwhile.
_vmt_stop() {
	local n=0
	while _vmt_tree "$1"; ((${#_vmt_p[@]} > n)); do
		n=${#_vmt_p[@]}
		kill -STOP "${_vmt_p[@]}"
	done
}

# _vmt_watch PID N: ends a command that takes more than so many hundredths of a
# second, whatever it does about SIGTERM, and then whoever still reads what a
# process that has left it keeps open. The command itself comes last each time:
# who waits for it ends this.
_vmt_watch() {
	local f p
	_vmt_pause "$2"
	_vmt_stop "$1"
	p=("${_vmt_p[@]:1}")
	kill -TERM "$1" "${p[@]}"
	kill -CONT "${p[@]}"
	kill -CONT "$1"
	_vmt_pause 100
	_vmt_stop "$1"
	kill -KILL "${_vmt_p[@]:1}" "${p[@]}"
	kill -KILL "$1"
	_vmt_pause 30
	_vmt_tree $$
	for f in "${_vmt_p[@]}"; do
		[[ $f = $$ || $f = "$BASHPID" ]] || kill -KILL "$f"
	done
} 2>/dev/null

# _vmt_run NUMBER LIMIT UNTIL BYTES COMMAND: one attempt. It sets _vmt_s, the
# status, _vmt_x, the output or its beginning, _vmt_n, whether a NUL comes next,
# _vmt_o, what is left in base64, and _vmt_how.
_vmt_run() {
	exec 7< <(
		# A process of its own. This is no function because bash 5.2 complains
		# when "set -e" ends an eval in a function of a subshell.
		read -r -n 1 -u 6
		exec 6<&-
		trap - INT QUIT # which bash ignores in the background
		_vmt_c=$5
		if [[ $4 != - ]]; then
			if [[ $_vmt_port ]]; then exec <"$_vmt_port"; fi
			# What the command leaves of its input must not become a command.
			head -c "$4" | {
				set --
				(set -euo pipefail; eval "$_vmt_c")
				_vmt_s=$?
				cat >/dev/null
				exit $_vmt_s
			}
			exit
		fi
		exec </dev/null
		set --
		if [[ $_vmt_tee ]]; then
			(set -euo pipefail; eval "$_vmt_c") | tee "$_vmt_tee"
			exit ${PIPESTATUS[0]}
		fi
		set -euo pipefail
		eval "$_vmt_c"
	)
	local p=$! end= w= r LC_ALL=C IFS=
	echo >&6
	_vmt_x= _vmt_o= _vmt_n=0 _vmt_how=-
	if [[ $2 != - ]]; then
		_vmt_now
		end=$((_vmt_t + 10#${2/./} / 10))
	fi
	# Reading a pipe, bash takes one byte at a time, so it reads short outputs
	# only. "read" ends at a NUL byte, which no variable can hold.
	read -r -d '' -n 1024 -t "${2/#-/315360000}" -u 7 _vmt_x
	r=$?
	# Most commands are over when their output is, and need no watch.
	if [[ $end ]] && { ((r != 1)) || _vmt_alive $p; }; then
		_vmt_now
		_vmt_watch $p $((end > _vmt_t && r <= 128 ? end - _vmt_t : 0)) &
		w=$!
		disown $w # else bash tells how it ended
	fi
	if ((r > 128)); then
		read -r -d '' -n 4096 -t 2 -u 7 r
		_vmt_x+=$r
	elif ((r == 0)); then
		((${#_vmt_x} == 1024)) || _vmt_n=1
		if [[ $3 != - ]]; then
			_vmt_o=$(base64 -w 32768 <&7)
		elif [[ $4 != - && ! $_vmt_port ]]; then
			cat <&7 >/dev/null # the host has no way to take it piece by piece
		else
			printf 'vmt-out %d %d %d\n%s' $1 ${#_vmt_x} $_vmt_n "$_vmt_x"
			_vmt_x=
			# A port can be opened once, and a command with input has it.
			if [[ $_vmt_port && $4 = - ]] && exec 8>"$_vmt_port"; then
				cat <&7 >&8
				printf %s "$_vmt_key$1" >&8
				exec 8>&-
				_vmt_how=port
			else
				_vmt_lines "$(base64 -w 32768 <&7)"
			fi
		fi
	fi
	exec 7<&-
	# For a child that ends while "wait" looks for it, its status is -1 (bash 5.2)
	# or 127 (5.3). Once more, and it finds what has been reaped.
	wait $p 2>/dev/null
	_vmt_s=$?
	if ((_vmt_s < 0 || _vmt_s == 127)); then
		wait $p 2>/dev/null
		_vmt_s=$?
	fi
	if [[ $w ]]; then
		# A bash that was only just forked may lose a SIGTERM.
		kill -KILL $w 2>/dev/null
		_vmt_now
		((_vmt_t < end)) || _vmt_s=124
	fi
}

_vmt_alive() {
	local s
	read -r s </proc/$1/stat || return
	[[ ${s##*) } != Z* ]]
} 2>/dev/null

_vmt_lines() {
	local IFS=$'\n' l
	for l in $1; do
		echo "$l"
		((${#l} < 32768)) || read -r
	done
}

_vmt_print() {
	local LC_ALL=C
	if [[ $_vmt_o || $3$_vmt_n = [01]1 ]]; then
		printf 'vmt-out %d %d %d\n%s' $1 ${#_vmt_x} $_vmt_n "$_vmt_x"
		_vmt_x=
		_vmt_lines "$_vmt_o"
	fi
	# So that the host knows that it has all of standard error.
	((!_vmt_s)) || [[ ! $_vmt_err ]] || printf '%s%d\n' "$_vmt_key" $1 >&2
	printf 'vmt-end %d %d %d %s\n%s' $1 $_vmt_s ${#_vmt_x} $_vmt_how "$_vmt_x"
}

_vmt() {
	if [[ $3 != - ]]; then
		_vmt_now
		_vmt_end=$((_vmt_t + $4))
	fi
	while :; do
		_vmt_begin=$_vmt_t
		_vmt_run $1 $2 $3 "$5" "$6"
		case $3 in
		-) break ;;
		0) ((_vmt_s)) || break ;;
		1) ((_vmt_s)) && break ;;
		esac
		_vmt_now
		if ((_vmt_t >= _vmt_end)); then
			_vmt_x= _vmt_o= _vmt_n=0 _vmt_how=again
			break
		fi
		# As long as the attempt took: between 20 and 100 ms.
		_vmt_begin=$((_vmt_t - _vmt_begin))
		_vmt_pause $((_vmt_begin < 2 ? 2 : _vmt_begin > 10 ? 10 : _vmt_begin))
		_vmt_now
	done
	_vmt_print "$@"
}

[[ ! $_vmt_port ]] || printf %s "${_vmt_key}0" >"$_vmt_port"
printf 'vmt-ready %d %d\n' $((${#_vmt_err} > 0)) $((${#_vmt_port} > 0))
