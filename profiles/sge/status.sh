#!/bin/sh
# What became of a Grid Engine job, in the words of the cluster-generic plugin: status.sh JOB
if qstat -j "$1" >/dev/null 2>&1; then
  echo running
else
  # it may take a while until qacct knows of it
  qacct -j "$1" 2>/dev/null | awk '
    $1 == "failed" || $1 == "exit_status" { seen = 1; if ($2 != 0) bad = 1 }
    END { print seen ? (bad ? "failed" : "success") : "running" }'
fi
