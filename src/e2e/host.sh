#!/usr/bin/env bash
# A host for a test; hosts.ts starts it. It has a name, a network, processes and a file system of its own, which is this machine's
# with everything written kept in memory and gone with the host. Debian's own systemd is its process 1. In /root lies the program
# under test, where somebody who installs it would have put it.
set -euo pipefail
stage=$1 name=$2 directory=$3 cgroup=$4 program=$5
root=$directory/root

if [ "$stage" = outside ]; then
  mount --make-rprivate /
  mkdir -p "$directory"
  mount -t tmpfs -o mode=755 tmpfs "$directory"
  mkdir "$directory"/{cgroup,upper,work,root}
  # systemd keeps its processes in control groups: below one of its own, or several hosts would share theirs
  mount -t cgroup2 none "$directory/cgroup"
  mkdir "$directory/cgroup/$cgroup"
  echo $$ >"$directory/cgroup/$cgroup/cgroup.procs"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" "$root"
  exec unshare --uts --ipc --net --pid --cgroup --fork --kill-child bash "$0" inside "${@:2}"
fi

# what this machine may have of smartstack is not this host's
rm -rf "$root"/usr/local/bin/smartstack "$root"/etc/{smartstack,systemd/system/smartstack*} "$root"/var/{lib,backups}/smartstack*
for place in root run srv tmp var/log; do mount -t tmpfs -o mode=1777 tmpfs "$root/$place"; done
touch "$root/root/smartstack"
mount --bind "$program" "$root/root/smartstack"

hostname "$name"
echo "$name" >"$root/etc/hostname"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
mount -t proc proc "$root/proc"
# read-only: that is how systemd knows that devices are none of its business
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ip link set lo up
exec chroot "$root" env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target
