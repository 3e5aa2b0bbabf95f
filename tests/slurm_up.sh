#!/usr/bin/env bash
# A Slurm of one node for the tests, on loopback, all its files in one folder:
#   slurm_up.sh install           Debian's packages, where they are missing
#   slurm_up.sh start DIR PORT    afterwards SLURM_CONF=DIR/slurm.conf; takes PORT and PORT + 1
#   slurm_up.sh stop DIR
# Needs root: slurmd starts jobs as their users.
set -euo pipefail
action=$1 dir=${2:-} host=$(hostname -s)

install() {
    command -v slurmctld slurmd srun munged > /dev/null && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge
}

start() {
    local port=$1 memory_mb
    memory_mb=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
    mkdir -p "$dir"/state "$dir"/spool "$dir"/munge
    getent hosts "$host" > /dev/null || echo "127.0.0.1 $host" >> /etc/hosts
    # Our own munge: another one on this machine keeps its key and its socket.
    chmod 755 "$dir"
    dd if=/dev/urandom of="$dir/munge/key" bs=1024 count=1 status=none
    chmod 400 "$dir/munge/key"
    chown -R root:root "$dir/munge"
    munged --force --key-file "$dir/munge/key" --socket "$dir/munge/socket" \
        --pid-file "$dir/munge/pid" --log-file "$dir/munge/log" --seed-file "$dir/munge/seed"
    # cred_expire: a requeued job waits so long before it starts again, by default two minutes.
    # SchedulerParameters: by default the queue is looked at every half minute.
    # JobRequeue: off, so that a job is requeued because it asked to be.
    # config_overrides: two CPUs, whatever the machine has.
    cat > "$dir/slurm.conf" <<CONF
ClusterName=dashcast
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=0
KillWait=5
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=$memory_mb State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF="$dir/slurm.conf"
    slurmctld
    slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2> /dev/null | grep -qx idle; then return 0; fi
        sleep 0.5
    done
    sinfo >&2 || true
    tail -n 5 "$dir"/*.log >&2
    return 1
}

stop() {
    local file pid
    export SLURM_CONF="$dir/slurm.conf"
    timeout 10 scancel --me --full --signal=KILL 2> /dev/null || true
    timeout 10 scancel --me 2> /dev/null || true
    for file in "$dir"/slurmd.pid "$dir"/slurmctld.pid "$dir"/munge/pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2> /dev/null || true
        for _ in $(seq 20); do
            # A zombie is dead enough: in a container nobody may be there to reap it.
            grep -q '^State:[[:space:]]\+[^Z[:space:]]' "/proc/$pid/status" 2> /dev/null || break
            sleep 0.25
        done
    done
}

case $action in
    install) install ;;
    start) start "$3" ;;
    stop) stop ;;
    *) echo "install, start or stop?" >&2; exit 2 ;;
esac
