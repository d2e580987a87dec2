#!/bin/sh
# Install what tests start by themselves, as Debian has it: PostgreSQL, Prometheus, Chromium, and
# Podman with what it runs containers by, and with a program for them.
set -eu

missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
command -v prometheus >/dev/null || missing="$missing prometheus"
for program in chromium podman runc; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
# In an image with nothing else; Debian's other BusyBox needs libraries.
busybox=$(command -v busybox) && ! ldd "$busybox" >/dev/null 2>&1 ||
  missing="$missing busybox-static"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "Tests need:$missing. As root on Debian or Ubuntu: apt-get install$missing" >&2
  exit 1
fi
# A test starts its own servers; those of the packages stay off where this can be said.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
apt-get install -y -qq --no-install-recommends $missing >/dev/null
