#!/usr/bin/env bash
# A real Slurm on this one machine: munged, slurmctld and some slurmd, all on loopback and under one directory.
# For tests: nothing outside of that directory is written, and scripts/slurm_down.sh takes everything down again.
#   apt-get install slurmctld slurmd slurm-client munge; to be run as root
#   EL_SLURM_DIR    the directory              EL_SLURM_PORT   first of the ports, on loopback
#   EL_SLURM_NODES  nodes (2)                  EL_SLURM_GPUS   GPUs of each, as far as Slurm knows (4)
#   EL_SLURM_PARAMETERS SlurmctldParameters, such as preempt_send_user_signal (none)
set -euo pipefail

dir=${EL_SLURM_DIR:?name a directory for the cluster}
nodes=${EL_SLURM_NODES:-2}
gpus=${EL_SLURM_GPUS:-4}
port=${EL_SLURM_PORT:-17817}
host=$(hostname -s)

for program in munged slurmctld slurmd sinfo; do
    command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
        { echo "$program is missing: install slurmctld, slurmd, slurm-client and munge" >&2; exit 1; }
done
export PATH=$PATH:/usr/sbin

mkdir -p "$dir"/{etc,munge,state,log,pid,dev}
# munged refuses directories that others may write to.
chmod 755 "$dir"/munge
(umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/pid/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/munge/seed" --num-threads=2

{
    echo "ClusterName=energylens"
    echo "SlurmctldHost=$host(127.0.0.1)"
    echo "SlurmUser=root"
    echo "SlurmctldPort=$port"
    echo "AuthType=auth/munge"
    echo "AuthInfo=socket=$dir/munge/socket"
    echo "StateSaveLocation=$dir/state"
    echo "SlurmctldPidFile=$dir/pid/slurmctld.pid"
    echo "SlurmctldLogFile=$dir/log/slurmctld.log"
    echo "SlurmdSpoolDir=$dir/spool.%n"
    echo "SlurmdPidFile=$dir/pid/slurmd.%n.pid"
    echo "SlurmdLogFile=$dir/log/slurmd.%n.log"
    # No cgroups, no tracking of what is not a child: this must work inside of a container.
    echo "ProctrackType=proctrack/linuxproc"
    echo "TaskPlugin=task/none"
    echo "SwitchType=switch/none"
    echo "MpiDefault=none"
    echo "SelectType=select/cons_tres"
    echo "SelectTypeParameters=CR_Core"
    echo "GresTypes=gpu"
    echo "SlurmdParameters=config_overrides"
    echo "ReturnToService=2"
    echo "KillWait=5"
    echo "MinJobAge=3600"
    echo "MaxArraySize=${EL_SLURM_ARRAY:-1001}"
    echo "JobRequeue=1"
    echo "SlurmdTimeout=20"
    echo "SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_min_interval=0"
    echo "AccountingStorageType=accounting_storage/none"
    echo "JobAcctGatherType=jobacct_gather/none"
    for i in $(seq "$nodes"); do
        echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + i)) CPUs=8 RealMemory=4096 Gres=gpu:h100:$gpus"
    done
    # Jobs in `urgent` take the nodes of jobs in `spare`, which are requeued; some sites give these a time to end first.
    echo "PreemptType=preempt/partition_prio"
    echo "PreemptMode=REQUEUE"
    [ -z "${EL_SLURM_PARAMETERS:-}" ] || echo "SlurmctldParameters=$EL_SLURM_PARAMETERS"
    partition="Nodes=n[1-$nodes] MaxTime=60 DefaultTime=10 State=UP"
    echo "PartitionName=main $partition Default=YES PreemptMode=OFF"
    echo "PartitionName=spare $partition PriorityTier=1"
    echo "PartitionName=patient $partition PriorityTier=1 GraceTime=30"
    echo "PartitionName=urgent $partition PriorityTier=100 PreemptMode=OFF"
} >"$dir/etc/slurm.conf"

# Slurm wants a device file for each GPU; a null device does.
{
    echo "AutoDetect=off"
    for i in $(seq "$nodes"); do
        for g in $(seq 0 $((gpus - 1))); do
            [ -e "$dir/dev/n${i}gpu$g" ] || mknod "$dir/dev/n${i}gpu$g" c 1 3
        done
        echo "NodeName=n$i Name=gpu Type=h100 File=$dir/dev/n${i}gpu[0-$((gpus - 1))]"
    done
} >"$dir/etc/gres.conf"

export SLURM_CONF=$dir/etc/slurm.conf
slurmctld -c
for i in $(seq "$nodes"); do
    mkdir -p "$dir/spool.n$i"
    slurmd -N "n$i"
done
for _ in $(seq 300); do
    idle=$(sinfo --noheader --Node --format='%t' 2>/dev/null | grep -c '^idle' || true)
    if [ "$idle" -ge "$nodes" ]; then
        echo "SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 0.1
done
echo "Slurm did not come up within 30 s; its logs are in $dir/log" >&2
tail -n 5 "$dir"/log/*.log >&2 || true
exit 1
