#!/usr/bin/env bash
# Installs and starts Interceptor on a Debian 12, and shows a refused statement.
#
# Run as root, in the guest; as often as you like. Takes the tree from /vagrant
# or from INTERCEPTOR_SOURCE. Builds it, unless there is a program to take:
# INTERCEPTOR_BINARY, or `dist/interceptor` in the tree.
set -euo pipefail

source_tree=${INTERCEPTOR_SOURCE:-/vagrant}
binary=${INTERCEPTOR_BINARY:-$source_tree/dist/interceptor}
build=/var/cache/interceptor-build
agent=interceptor-demo
database=interceptor_demo

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'provision.sh: %s\n' "$*" >&2; exit 1; }

need_root_on_debian() {
    [ "$(id -u)" -eq 0 ] || fail "must be run as root"
    [ -r /etc/debian_version ] || fail "written for Debian 12; this is something else"
    [ -f "$source_tree/Cargo.toml" ] || fail "no source tree in $source_tree"
}

install_packages() {
    say "packages"
    local needed=(ca-certificates postgresql postgresql-client redis-server)
    [ -x "$binary" ] || needed+=(curl gcc g++ libc6-dev make)
    if ! dpkg-query --show "${needed[@]}" >/dev/null 2>&1; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends "${needed[@]}"
    fi
    systemctl enable --now --quiet postgresql redis-server
}

build_program() {
    if [ -x "$binary" ]; then
        say "taking $binary"
        return
    fi
    say "building"
    export PATH="$HOME/.cargo/bin:$PATH" CARGO_TARGET_DIR=$build
    if ! command -v rustup >/dev/null; then
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --quiet --profile minimal --default-toolchain none
    fi
    local channel
    channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$source_tree/rust-toolchain.toml")
    [ -n "$channel" ] || fail "no channel in rust-toolchain.toml"
    rustup toolchain install "$channel" --profile minimal
    (cd "$source_tree" && cargo "+$channel" build --release --locked --package interceptor-user --bin interceptor)
    binary=$build/release/interceptor
}

install_program() {
    say "installing"
    install -m 0755 "$binary" /usr/local/bin/interceptor
    # The shipped packs are replaced; files of other names are left alone.
    install -d -m 0755 /etc/interceptor /etc/interceptor/rules /usr/local/share/interceptor/rules
    install -m 0644 "$source_tree"/rules/*.yaml /etc/interceptor/rules/
    if [ -d "$source_tree/rules/optional" ]; then
        install -m 0644 "$source_tree"/rules/optional/*.yaml /usr/local/share/interceptor/rules/
    fi
    /usr/local/bin/interceptor rules check /etc/interceptor/rules
    install -m 0644 "$source_tree/packaging/interceptor.service" /etc/systemd/system/interceptor.service
    systemctl daemon-reload
    systemctl enable --quiet interceptor
    systemctl restart interceptor
}

wait_for_daemon() {
    local try
    for try in $(seq 1 60); do
        if interceptor status >/dev/null 2>&1; then
            return
        fi
        sleep 0.5
    done
    journalctl --unit interceptor --no-pager --lines 30 >&2
    fail "the daemon did not answer after $try tries"
}

as_postgres() { runuser -u postgres -- psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 "$@"; }

prepare_demo() {
    say "a user, a role and a table to try it on"
    id "$agent" >/dev/null 2>&1 || useradd --create-home --shell /usr/sbin/nologin "$agent"
    local password file=/home/$agent/.pgpass
    # Made once; the role gets it again, so that the two cannot differ.
    if [ ! -s "$file" ]; then
        install -m 0600 -o "$agent" -g "$agent" /dev/null "$file"
        printf '*:*:*:*:%s\n' "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" >"$file"
    fi
    password=$(cut -d: -f5 "$file")
    if [ -z "$(as_postgres -Atc "SELECT 1 FROM pg_roles WHERE rolname = '$agent'")" ]; then
        as_postgres -c "CREATE ROLE \"$agent\" LOGIN"
    fi
    printf "ALTER ROLE \"%s\" PASSWORD '%s';\n" "$agent" "$password" | as_postgres --file -
    if [ -z "$(as_postgres -Atc "SELECT 1 FROM pg_database WHERE datname = '$database'")" ]; then
        as_postgres -c "CREATE DATABASE $database OWNER \"$agent\""
    fi
    as_postgres --dbname "$database" --file - <<SQL
SET client_min_messages = warning;
CREATE TABLE IF NOT EXISTS customers (id int PRIMARY KEY, name text, email text);
INSERT INTO customers VALUES (1, 'Ada', 'ada@example.com'), (2, 'Ben', 'ben@example.com') ON CONFLICT DO NOTHING;
ALTER TABLE customers OWNER TO "$agent";
SQL
}

# The agent's own psql with an ordinary connection string.
agent_runs() {
    interceptor exec --agent vagrant --user "$agent" -- \
        psql --no-psqlrc "host=127.0.0.1 user=$agent dbname=$database sslmode=disable" \
        --command "$1"
}

show_refusal() {
    say "an agent reads: values that look like addresses are masked"
    agent_runs "SELECT * FROM customers"
    say "an agent drops the table: refused"
    local answer
    if answer=$(agent_runs "DROP TABLE customers" 2>&1); then
        fail "the statement was not refused: $answer"
    fi
    printf '%s\n' "$answer"
    grep -q "no-drop" <<<"$answer" || fail "it failed, but not by the rule no-drop"
    [ "$(as_postgres --dbname "$database" -Atc 'SELECT count(*) FROM customers')" = 2 ] ||
        fail "the table is not what it was"
    say "what is on record"
    interceptor sessions list
}

need_root_on_debian
install_packages
build_program
install_program
wait_for_daemon
prepare_demo
show_refusal
