#!/bin/bash
# Slurm on this machine alone, to try a profile: bash cluster/slurm/one_node.sh start FOLDER, and later stop FOLDER.
# As root, with munged, slurmctld and slurmd (Debian: apt-get install slurm-wlm munge). All files are in FOLDER. Two links in
# /etc/slurm lead there until it is stopped: snakemake hides the variable SLURM_CONF from its jobs.
# There is no accounting. The node says that it has CPUS processors and one GPU, whatever the machine has.
set -eu
folder=$(realpath -m "$2")
if [ "$1" = stop ]; then
    for name in slurmd slurmctld munged; do
        [ ! -f "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" || true
    done
    find /etc/slurm -lname "$folder/*" -delete
    exit
fi
mkdir -p "$folder/state" "$folder/spool" /etc/slurm
ln -s "$folder/slurm.conf" "$folder/gres.conf" /etc/slurm  # fails where this machine has a Slurm of its own
host=$(hostname -s)
cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${PORT:-6817}
SlurmdPort=$((${PORT:-6817} + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
OverTimeLimit=0
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=${CPUS:-$(nproc)} RealMemory=${MEMORY:-100000} Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
echo "Name=gpu File=/dev/null" > "$folder/gres.conf"
[ -f "$folder/munge.key" ] || head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
slurmctld -i
slurmd -N "$host"
for _ in $(seq 30); do
    [ "$(sinfo --noheader --format=%t)" != idle ] || exit 0
    sleep 1
done
echo "The node is not ready: see $folder/slurmctld.log and $folder/slurmd.log" >&2
exit 1
