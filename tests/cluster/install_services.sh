#!/bin/sh
# Install what the cluster tests start by themselves: PostgreSQL and Prometheus, as Debian has them.
set -eu

missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
command -v prometheus >/dev/null || missing="$missing prometheus"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "The cluster tests need:$missing. As root on Debian or Ubuntu: apt-get install$missing" >&2
  exit 1
fi
# A test starts its own servers; those of the packages stay off where this can be said.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
apt-get install -y -qq --no-install-recommends $missing >/dev/null
