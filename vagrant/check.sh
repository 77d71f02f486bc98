#!/usr/bin/env bash
# Shows that interception holds on a machine that provision.sh has made: what agents
# send is taken, judged and on record, and goes nowhere while the daemon is reloaded,
# killed or stopped. Run as root, in the guest, as often as you like.
set -euo pipefail

agent=interceptor-demo
database=interceptor_demo

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'check.sh: %s\n' "$*" >&2; exit 1; }

# Whatever ends this early, the daemon's own words tell why.
at_the_end() {
    local status=$?
    [ "$status" -eq 0 ] || journalctl --unit interceptor --no-pager --lines 40 --output cat >&2
    exit "$status"
}
trap at_the_end EXIT

# The agent's own psql with an ordinary connection string.
agent_asks() {
    interceptor exec --agent check --user "$agent" -- \
        psql --no-psqlrc --tuples-only --no-align \
        "host=127.0.0.1 user=$agent dbname=$database sslmode=disable" --command "$1"
}

is_ready() { interceptor status >/dev/null 2>&1; }

wait_until() {
    local what=$1 try
    shift
    for try in $(seq 1 240); do
        if "$@"; then
            return
        fi
        sleep 0.25
    done
    fail "waited for $what, which never came ($try looks)"
}

main_pid() { systemctl show --property MainPID --value interceptor; }

on_this_machine() {
    say "this machine"
    uname -sr
    [ "$(stat --file-system --format %T /sys/fs/cgroup)" = cgroup2fs ] ||
        fail "cgroup2 does not stand alone at /sys/fs/cgroup"
    systemctl is-active --quiet interceptor || fail "the unit is not active"
    interceptor doctor
}

what_is_asked_is_taken() {
    say "an agent's question comes by the proxy: its answer is masked"
    local answer
    answer=$(agent_asks "SELECT email FROM customers WHERE id = 1")
    printf '%s\n' "$answer"
    [ -n "$answer" ] || fail "no answer"
    ! grep -q ada@example.com <<<"$answer" || fail "the value was not masked"
}

what_is_forbidden_is_refused() {
    say "what a rule forbids is refused, and what is no connection goes nowhere"
    ! agent_asks "DROP TABLE customers" || fail "the statement was not refused"
    local heard
    heard=$(mktemp)
    socat -u UDP-RECV:9999,bind=127.0.0.1 "CREATE:$heard" &
    local listener=$!
    sleep 0.5
    # Heard from here, so what is not heard was held back.
    echo outside >/dev/udp/127.0.0.1/9999
    interceptor exec --agent check --user "$agent" -- \
        bash -c 'echo inside >/dev/udp/127.0.0.1/9999' || true
    sleep 0.5
    kill "$listener"
    grep -q outside "$heard" || fail "the listener hears nothing at all"
    ! grep -q inside "$heard" || fail "a datagram of the agent's went out"
    rm "$heard"
}

# Asks until the file is gone, and writes down what was not answered or not masked.
ask_on() {
    local running=$1 told=$2 answer
    while [ -e "$running" ]; do
        if ! answer=$(agent_asks "SELECT email FROM customers WHERE id = 1" 2>&1); then
            echo "refused: $answer" >>"$told"
        elif grep -q ada@example.com <<<"$answer"; then
            echo "NOT MASKED: $answer" >>"$told"
        else
            echo "masked" >>"$told"
        fi
    done
}

while_asking() {
    local running told before
    running=$(mktemp)
    told=$(mktemp)
    ask_on "$running" "$told" &
    wait_until "the first answer" test -s "$told"
    "$@"
    wait_until "the daemon" is_ready
    before=$(wc -l <"$told")
    wait_until "an answer after it" eval "[ \"\$(wc -l <'$told')\" -gt $((before + 1)) ]"
    rm "$running"
    wait
    sort "$told" | uniq --count
    ! grep -q "NOT MASKED" "$told" || fail "an answer came directly"
    last=$told
}

reloaded() {
    say "a reload: another daemon takes over, and nothing is refused"
    while_asking systemctl reload interceptor
    ! grep -q refused "$last" || fail "something was refused"
}

restarted() {
    say "a restart: it is a hand-over, too"
    while_asking systemctl restart interceptor
    ! grep -q refused "$last" || fail "something was refused"
}

kill_it() {
    local before
    before=$(main_pid)
    kill -KILL "$before"
    wait_until "another daemon" eval '[ "$(main_pid)" != '"$before"' ] && [ "$(main_pid)" != 0 ]'
}

killed() {
    say "killed: nothing comes directly, and the unit starts it again"
    while_asking kill_it
}

is_on_record() {
    say "what is on record, and that it is as it was recorded"
    interceptor sessions list
    # Not drawn on: this is no terminal to somebody who reads it later.
    interceptor verify --all | cat
}

on_this_machine
what_is_asked_is_taken
what_is_forbidden_is_refused
reloaded
restarted
killed
is_on_record
