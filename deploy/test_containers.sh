#!/usr/bin/env bash
# A real cluster in real containers: three nodes and a Celery worker by deploy/compose.yaml.
#
#   engine running? --no--> install and start one --cannot--> "SKIP: why", exit 0
#        |                          |
#        '--> base image --> wheels --> image --> up --> healthy
#             --> send tasks, kill the queue's leader in the middle --> each ran once?
#             --> bring it back --> level with the others? --> a clean stop --> all removed
#
# No image is pulled: the base is made here of the distribution's packages, unless BASE_IMAGE
# names one that is there already. What costs time is kept in RAFTMQ_CONTAINERS_DIR
# (default /var/tmp/raftmq-containers) for the next run. An engine that this script started
# is stopped by it, by its process id; one that ran before is left as it was.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
KEPT=${RAFTMQ_CONTAINERS_DIR:-/var/tmp/raftmq-containers}
TASKS=${TASKS:-3000}
PAUSE_MS=2
PROJECT=raftmq-test-$$
IMAGE=raftmq:test-$$
OWN_BASE=raftmq-test-base:bookworm
PYTHON_OF_OWN_BASE=3.11
LIMIT_S=90 # for every single wait

say() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
skip() { printf 'SKIP: %s\n' "$*"; exit 0; }

WORK=$(mktemp -d "${TMPDIR:-/tmp}/raftmq-containers.XXXXXX")
engine_pid=
composed=
good=

# --- the end, however it comes -------------------------------------------------------------------

finish() {
  local code=$?
  trap - EXIT
  set +e
  if [ -n "$composed" ]; then
    if [ -z "$good" ]; then
      compose ps
      compose logs --no-color --tail=60
    fi
    compose down --volumes --timeout 5 >"$WORK/down.log" 2>&1 || cat "$WORK/down.log"
  fi
  [ -n "${IMAGE_BUILT:-}" ] && docker rmi --force "$IMAGE" >/dev/null 2>&1
  [ -n "$engine_pid" ] && stop_engine
  rm -rf "$WORK"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_for WHAT COMMAND...: until the command succeeds, at most LIMIT_S seconds.
wait_for() {
  local what=$1 end=$((SECONDS + LIMIT_S))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "not within $LIMIT_S s: $what"
    sleep 0.3
  done
}

# --- the engine ----------------------------------------------------------------------------------

install() { # install PACKAGE...: those that are missing, by the distribution's own tool
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] || return 1
  local log="$WORK/apt.log"
  # A package that starts a service while it is being installed would start a second engine.
  printf '#!/bin/sh\nexit 101\n' >"$WORK/policy"
  local policy=/usr/sbin/policy-rc.d mine=
  if [ ! -e "$policy" ]; then cp "$WORK/policy" "$policy"; chmod 755 "$policy"; mine=1; fi
  local done=0
  { DEBIAN_FRONTEND=noninteractive apt-get update &&
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"; } >"$log" 2>&1 || done=1
  [ -z "$mine" ] || rm -f "$policy"
  [ "$done" = 0 ] || tail -n 5 "$log"
  return "$done"
}

# try_engine OPTION...: start the engine with these options; its own socket, files and network
# of its own, so that it is in nobody's way.
try_engine() {
  local run="$WORK/engine"
  mkdir -p "$run" "$KEPT/engine"
  dockerd --data-root "$KEPT/engine" --exec-root "$run/exec" --pidfile "$run/pid" \
    --host "unix://$run/docker.sock" --bridge=none "$@" >"$run/log" 2>&1 &
  engine_pid=$!
  export DOCKER_HOST=unix://$run/docker.sock
  local end=$((SECONDS + 40))
  while kill -0 "$engine_pid" 2>/dev/null && [ "$SECONDS" -lt "$end" ]; do
    docker info >/dev/null 2>&1 && return 0
    sleep 0.3
  done
  cp "$run/log" "$WORK/engine.log"
  stop_engine
  return 1
}

stop_engine() {
  kill "$engine_pid" 2>/dev/null
  for _ in $(seq 100); do
    kill -0 "$engine_pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$engine_pid" 2>/dev/null
  wait "$engine_pid" 2>/dev/null
  engine_pid=
  unset DOCKER_HOST
  # What the engine mounted below its own folders, should it have been killed.
  awk -v kept="$KEPT/engine" -v work="$WORK/" \
    'index($2, kept) == 1 || index($2, work) == 1 {print $2}' /proc/mounts | sort -r |
    while read -r mounted; do umount --lazy "$mounted" 2>/dev/null; done
}

# Whether the running engine can really start a process in a container, and let it end.
engine_runs_containers() {
  docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 || make_base_image || return 1
  docker run --rm --network none "$BASE_IMAGE" python3 -c 'print("runs")' >"$WORK/try.log" 2>&1
}

find_engine() {
  if docker info >/dev/null 2>&1; then
    say "a container engine runs already"
    engine_runs_containers || skip "the engine runs and cannot start a container: $(tail -n 1 "$WORK/try.log")"
    return
  fi
  [ "$(id -u)" = 0 ] || skip "no container engine runs, and only root can start one."
  if ! command -v dockerd >/dev/null; then
    say "installing a container engine"
    install docker.io iptables || skip "no container engine is installed, and none can be."
  fi
  say "starting a container engine"
  local options
  while read -r options; do
    # shellcheck disable=SC2086  # the words are options
    if try_engine $options; then
      if engine_runs_containers; then
        docker info --format 'engine {{.ServerVersion}}, {{.Driver}}, cgroups v{{.CgroupVersion}}'
        return
      fi
      stop_engine
    fi
    echo "not with: ${options:-its own choice}"
  done <<'OPTIONS'

--storage-driver=vfs
--storage-driver=vfs --exec-opt native.cgroupdriver=cgroupfs --iptables=false --ip6tables=false
OPTIONS
  skip "no container engine can run here: $(tail -n 1 "$WORK/engine.log" 2>/dev/null || tail -n 1 "$WORK/try.log" 2>/dev/null || true)"
}

find_compose() {
  if docker compose version >/dev/null 2>&1; then
    COMPOSE="docker compose"
  else
    command -v docker-compose >/dev/null || install docker-compose || install docker-compose-plugin ||
      skip "the engine runs, and Compose cannot be installed."
    COMPOSE=docker-compose
    docker compose version >/dev/null 2>&1 && COMPOSE="docker compose"
  fi
  echo "compose: $($COMPOSE version 2>/dev/null | head -n 1)"
}

compose() {
  # shellcheck disable=SC2086  # two words in one of the cases
  $COMPOSE --project-name "$PROJECT" --env-file "$WORK/env" --file "$ROOT/deploy/compose.yaml" "$@"
}

# --- images --------------------------------------------------------------------------------------

make_base_image() {
  [ "$BASE_IMAGE" = "$OWN_BASE" ] || { echo "no image $BASE_IMAGE" >"$WORK/try.log"; return 1; }
  local tar="$KEPT/base-bookworm.tar"
  if [ ! -s "$tar" ]; then
    say "making a base image of the distribution's packages"
    command -v debootstrap >/dev/null || install debootstrap || return 1
    local tree="$WORK/base"
    debootstrap --variant=minbase --include=python3,python3-venv bookworm "$tree" \
      </dev/null >"$WORK/debootstrap.log" 2>&1 || { tail -n 5 "$WORK/debootstrap.log"; return 1; }
    tar --create --file "$tar.part" --directory "$tree" --one-file-system \
      --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' .
    mv "$tar.part" "$tar"
    rm -rf --one-file-system "$tree"
  fi
  docker import "$tar" "$BASE_IMAGE" >/dev/null
}

# The build context, with every wheel the image needs: what is built has no network.
make_context() {
  local context="$WORK/context" wheels="$WORK/context/deploy/wheels" part
  mkdir -p "$wheels" "$KEPT/wheels"
  for part in setup.cfg pyproject.toml LICENSE README.md broker raftlog kombu_transport examples .dockerignore; do
    [ ! -e "$ROOT/$part" ] || cp -r "$ROOT/$part" "$context/"
  done
  [ -e "$context/README.md" ] || : >"$context/README.md"
  cp "$ROOT/deploy/Dockerfile" "$context/deploy/"
  local python=python3 version
  version=$(docker run --rm --network none "$BASE_IMAGE" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$wheels" "$context" \
    >"$WORK/pip.log" 2>&1 || { tail -n 5 "$WORK/pip.log"; fail "no wheel of this package"; }
  rm -rf "$context/build" "$context"/*.egg-info
  local machine platform=()
  machine=$(uname -m)
  for tag in manylinux2014 manylinux_2_17 manylinux_2_24 manylinux_2_26 manylinux_2_28 manylinux_2_34; do
    platform+=(--platform "${tag}_$machine")
  done
  "$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: \
    --python-version "$version" "${platform[@]}" --find-links "$KEPT/wheels" \
    --dest "$wheels" "$wheels"/raftmq-*.whl \
    >"$WORK/pip.log" 2>&1 || { tail -n 5 "$WORK/pip.log"; fail "no wheels of what this package needs"; }
  find "$wheels" -name '*.whl' ! -name 'raftmq-*' -exec cp {} "$KEPT/wheels/" \;
  echo "wheels: $(find "$wheels" -name '*.whl' | wc -l), for Python $version"
}

build_image() {
  local builder=0
  ! docker buildx version >/dev/null 2>&1 || builder=1
  DOCKER_BUILDKIT=$builder docker build --network none --file "$WORK/context/deploy/Dockerfile" \
    --build-arg "BASE_IMAGE=$BASE_IMAGE" --tag "$IMAGE" "$WORK/context" >"$WORK/build.log" 2>&1 ||
    { tail -n 30 "$WORK/build.log"; fail "the image was not built"; }
  IMAGE_BUILT=1
  docker image inspect --format '{{.Config.User}} {{.Config.Entrypoint}}' "$IMAGE"
  [ "$(docker run --rm --network none --entrypoint id "$IMAGE" -u)" = 10001 ] || fail "the image does not run as uid 10001"
}

# --- what the cluster says -----------------------------------------------------------------------

container() { compose ps -q "$1"; }
status() { curl_status "${HTTP[$1]}"; }
curl_status() {
  python3 -c 'import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=2).read().decode())' \
    "http://127.0.0.1:$1/status" 2>/dev/null
}
is_ready() {
  python3 -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=2)' \
    "http://127.0.0.1:${HTTP[$1]}/ready" 2>/dev/null
}
is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }

# The node that leads the shard of the worker's queue, as the nodes named say.
leader_of_queue() {
  local node
  for node in "$@"; do
    status "$node" | python3 -c '
import json, sys
seen = json.load(sys.stdin)
shard = next((q["shard"] for q in seen["queues"] if q["name"] == "celery"), None)
print(next((s["leader"] for s in seen["shards"] if s["shard"] == shard), ""))' 2>/dev/null || true
  done | grep --max-count=1 . || true
}
leader_known() { leader=$(leader_of_queue n1 n2 n3); [ -n "$leader" ]; }

# Whether a node has applied the same entries as the others, in every shard.
level() {
  for node in n1 n2 n3; do status "$node" >"$WORK/status.$node" || return 1; done
  python3 - "$WORK"/status.n? <<'PYTHON'
import json, sys
views = [{s["shard"]: s["applied"] for s in json.load(open(path))["shards"]} for path in sys.argv[1:]]
sys.exit(0 if all(view == views[0] for view in views) else 1)
PYTHON
}

worker_runs() { [ "$(docker inspect --format '{{.State.Status}}' "$worker")" = running ]; }
runs() { docker exec "$worker" sh -c 'cat /var/lib/raftmq/tally 2>/dev/null | wc -l' 2>/dev/null || echo 0; }
at_least() { # at_least COUNT: so many runs; no use in waiting for them once the producer failed
  if ! kill -0 "$sender" 2>/dev/null && ! wait "$sender"; then
    tail -n 20 "$WORK/send.log"
    fail "the producer ended with an error"
  fi
  [ "$(runs)" -ge "$1" ]
}

# --- the test ------------------------------------------------------------------------------------

BASE_IMAGE=${BASE_IMAGE:-$OWN_BASE}
mkdir -p "$KEPT"
find_engine
find_compose

say "building the image"
make_context
build_image

read -r -a ports < <(python3 -c '
import random, socket
found = []
while len(found) < 6:
    with socket.socket() as s:
        port = random.randrange(15000, 30000)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        if port not in found:
            found.append(port)
print(*found)')
declare -A HTTP=([n1]=${ports[3]} [n2]=${ports[4]} [n3]=${ports[5]})
cat >"$WORK/env" <<ENV
RAFTMQ_IMAGE=$IMAGE
RAFTMQ_CLUSTER_NAME=$PROJECT
RAFTMQ_SHARDS=4
BIND_ADDRESS=127.0.0.1
N1_PORT=${ports[0]}
N2_PORT=${ports[1]}
N3_PORT=${ports[2]}
N1_HTTP_PORT=${ports[3]}
N2_HTTP_PORT=${ports[4]}
N3_HTTP_PORT=${ports[5]}
ENV

say "three nodes and a worker"
composed=1
compose up --no-build --detach >"$WORK/up.log" 2>&1 || { cat "$WORK/up.log"; fail "compose up"; }
for node in n1 n2 n3; do wait_for "$node healthy" is_healthy "$node"; done
for node in n1 n2 n3; do wait_for "$node ready" is_ready "$node"; done
worker=$(container worker)
wait_for "a running worker" worker_runs
echo "healthy and ready: n1 n2 n3"

say "sending $TASKS tasks, and killing the leader of their queue in the middle"
docker exec "$worker" python -m examples.tally send "$TASKS" --pause-ms "$PAUSE_MS" >"$WORK/send.log" 2>&1 &
sender=$!
wait_for "a third of the tasks run" at_least $((TASKS / 3))
wait_for "a leader of the queue's shard" leader_known
victim=$leader
docker kill "$(container "$victim")" >/dev/null
others=$(printf '%s\n' n1 n2 n3 | grep -v "^$victim$" | tr '\n' ' ')
at_kill=$(runs)
kill -0 "$sender" 2>/dev/null || fail "all tasks were sent before the leader was killed; give more TASKS"
echo "killed $victim after $at_kill runs"
wait_for "tasks run again without $victim" at_least $((at_kill + TASKS / 10))
# shellcheck disable=SC2086  # two words
echo "the queue's leader is now $(leader_of_queue $others)"

wait "$sender" || { cat "$WORK/send.log"; fail "the producer ended with an error"; }
tail -n 1 "$WORK/send.log"
docker exec "$worker" python -m examples.tally count "$TASKS" --timeout-s 60 || fail "not every task ran exactly once"

say "bringing $victim back"
docker start "$(container "$victim")" >/dev/null
wait_for "$victim healthy" is_healthy "$victim"
wait_for "$victim ready" is_ready "$victim"
wait_for "$victim level with the others" level
echo "$victim has applied what the others have"

say "a clean stop"
compose stop --timeout 20 >"$WORK/stop.log" 2>&1 || { cat "$WORK/stop.log"; fail "compose stop"; }
for node in n1 n2 n3; do
  code=$(docker inspect --format '{{.State.ExitCode}}' "$(compose ps -a -q "$node" 2>/dev/null || container "$node")")
  [ "$code" = 0 ] || fail "$node stopped with code $code"
done
echo "all nodes stopped with code 0"

good=1
say "PASSED: $TASKS tasks through three containers, each ran once, with a leader killed"
