#!/usr/bin/env bash
# A SLURM cluster of one node for the tests, out of the system's packages, with all it keeps in one folder:
#
#   tests/slurm_cluster.sh start FOLDER    then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm_cluster.sh status FOLDER
#   tests/slurm_cluster.sh stop FOLDER     ends every process of it and removes the folder
#
# It installs nothing (Debian: apt-get install slurmctld slurmd slurm-client munge), needs no systemd and no root, and
# takes ports that are free. It keeps no accounts, so sacct doesn't answer on it; squeue, sbatch and scancel do.
set -euo pipefail

readonly NEEDED=(munged slurmctld slurmd sbatch squeue scancel sinfo)
PATH="$PATH:/usr/sbin:/sbin"

fail() { echo "slurm_cluster: $*" >&2; exit 1; }

main() {
  [[ $# == 2 ]] || fail "start|stop|status FOLDER"
  FOLDER=$(realpath -m "$2")
  export SLURM_CONF="$FOLDER/slurm.conf"
  case "$1" in
    start) start ;;
    status) sinfo --noheader --format="%n %T" ;;
    stop) stop ;;
    *) fail "start|stop|status FOLDER" ;;
  esac
}

start() {
  local program
  for program in "${NEEDED[@]}"; do
    command -v "$program" >/dev/null || fail "$program isn't installed"
  done
  [[ -z "$(ls -A "$FOLDER" 2>/dev/null)" ]] || fail "$FOLDER isn't empty"
  mkdir -p "$FOLDER"/{state,spool}
  trap 'tail -n 5 "$FOLDER"/*.log >&2; stop; fail "the cluster did not start"' ERR
  start_munge
  configure
  slurmctld
  slurmd -N "$(node)"
  await idle
  trap - ERR
}

start_munge() {
  (umask 077; head -c 128 /dev/urandom >"$FOLDER/munge.key")
  # A folder for one user only is what munged complains of; here it is meant.
  munged --force --num-threads=1 --key-file="$FOLDER/munge.key" --socket="$FOLDER/munge.socket" \
    --pid-file="$FOLDER/munged.pid" --log-file="$FOLDER/munged.log" --seed-file="$FOLDER/munge.seed" 2>/dev/null
}

configure() {
  local ports
  ports=($(free_ports))
  # cred_expire is how long a requeued job waits before it may start again, sched_interval how often that is looked at.
  cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$(node)(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName=$(node) NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=$(node) Default=YES MaxTime=INFINITE State=UP
CONF
}

free_ports() {
  python3 - <<'PYTHON'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}

node() { hostname -s; }

await() {
  local attempt
  for attempt in {1..100}; do
    [[ "$(sinfo --noheader --format=%T 2>/dev/null)" != "$1" ]] || return 0
    sleep 0.2
  done
  return 1
}

stop() {
  local pid
  [[ -e "$FOLDER/munge.key" ]] || fail "there is no cluster in $FOLDER"
  timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
  end slurmctld
  end slurmd
  # What a job leaves when it doesn't listen: its keepers, known by the configuration that they were started with.
  for pid in $(keepers); do kill -KILL "$pid" 2>/dev/null || true; done
  end munged
  rm -rf "$FOLDER"
}

keepers() {
  local process
  for process in /proc/[0-9]*; do
    [[ "$(cat "$process/comm" 2>/dev/null)" == slurmstepd ]] || continue
    tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qxF "SLURM_CONF=$SLURM_CONF" && basename "$process"
  done
  return 0
}

end() {
  local file="$FOLDER/$1.pid" pid attempt
  [[ -s "$file" ]] || return 0
  pid=$(cat "$file")
  kill "$pid" 2>/dev/null || return 0
  for attempt in {1..50}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

main "$@"
