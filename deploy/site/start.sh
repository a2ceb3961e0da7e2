#!/bin/sh
# Take part as one user, on one machine: agent, SuperNode and relay, until interrupted.
# systemd/ and compose.yaml separate what reads patients from what faces the network.
set -eu
if [ $# -ne 1 ] || [ ! -f "$1/site.yaml" ]; then
    echo "usage: $0 FOLDER_OF_SITE_YAML" >&2
    exit 2
fi
exec tumorboard site join --site "$1"
