#!/bin/sh
# Records session.jsonl, what a real QEMU answers to a few commands: a success,
# errors of several classes, foreign ids, a line that is no JSON, events.
cd "$(dirname "$0")" || exit
qemu-system-x86_64 -accel tcg -S -nodefaults -display none -qmp stdio >session.jsonl <<'COMMANDS'
{"execute": "qmp_capabilities", "id": 1}
{"execute": "query-status", "id": 2}
{"execute": "nonsense", "id": 3}
{"execute": "system_reset", "id": "x"}
{"execute": "set_link", "arguments": {"name": "nope", "up": true}, "id": 4}
garbage
{"execute": "human-monitor-command", "arguments": {"command-line": "info version"}, "id": 5}
{"execute": "quit", "id": 6}
COMMANDS
