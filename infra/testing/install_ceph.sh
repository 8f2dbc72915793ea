#!/usr/bin/env bash
# Ceph's object gateway from Debian's packages, for the tests against a real S3 server. Needs root; about half a minute.
set -euo pipefail
if command -v ceph-mon ceph-osd radosgw ceph-authtool >/dev/null; then exit 0; fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends ceph-mon ceph-osd radosgw ceph-common >/dev/null
