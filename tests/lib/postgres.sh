# One private PostgreSQL cluster for a test run: its data in a temporary folder, its port a free one on 127.0.0.1, no password,
# and nothing of it left afterwards. To be sourced.

postgres_pid=""
postgres_dir=""

# PostgreSQL refuses to run as root, so root hands over to the user that Debian's package makes. setpriv replaces itself by the
# command, and an array stands directly in the command where a function would be a process of its own: $! is the server.
as_postgres=()
[ "$(id -u)" -ne 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups --reset-env --)

postgres_bin() {
  local newest
  newest=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$newest" ] && dirname "$newest"
}

# Starts the cluster and exports SIGNALBOX_TEST_DATABASE_URL.
postgres_start() {
  local bin port
  bin=$(postgres_bin) || { echo "tests/run: PostgreSQL's server is not installed" >&2; return 1; }
  postgres_dir=$(mktemp -d "${TMPDIR:-/tmp}/signalbox-postgres.XXXXXX")
  [ "$(id -u)" -ne 0 ] || chown postgres: "$postgres_dir"
  port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
  (
    cd "$postgres_dir"
    "${as_postgres[@]}" "$bin/initdb" -D "$postgres_dir/data" --auth=trust --username=postgres --encoding=UTF8 --locale=C.UTF-8 >initdb.log 2>&1
  ) || { cat "$postgres_dir/initdb.log" >&2; return 1; }
  "${as_postgres[@]}" "$bin/postgres" -D "$postgres_dir/data" -p "$port" -k "$postgres_dir" \
    -c listen_addresses=127.0.0.1 -c max_connections=500 >"$postgres_dir/server.log" 2>&1 &
  postgres_pid=$!
  local tries=0
  until "$bin/pg_isready" --quiet --host=127.0.0.1 --port="$port" --username=postgres; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ] || ! kill -0 "$postgres_pid" 2>/dev/null; then
      cat "$postgres_dir/server.log" >&2
      return 1
    fi
    sleep 0.1
  done
  export SIGNALBOX_TEST_DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres"
  echo "PostgreSQL $("$bin/postgres" --version | awk '{ print $3 }') on port $port"
}

# Stops it and removes its data. Safe to call when it was never started.
postgres_stop() {
  if [ -n "$postgres_pid" ]; then
    # SIGINT is PostgreSQL's fast shutdown: it ends open connections instead of waiting for them.
    kill -INT "$postgres_pid" 2>/dev/null
    wait "$postgres_pid" 2>/dev/null
    postgres_pid=""
  fi
  [ -z "$postgres_dir" ] || rm -rf "$postgres_dir"
  postgres_dir=""
}
