#!/usr/bin/env bash
# Print an interpreter of the version the project was run with, or nothing; infra/setup.sh says what to install.
for candidate in python3.11 python3 python; do
  path=$(command -v "$candidate") || continue
  if "$path" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "$path"
    exit 0
  fi
done
exit 0
