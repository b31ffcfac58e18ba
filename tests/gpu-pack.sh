#!/usr/bin/env bash
# Puts all that tests/gpu.sh and tests/gpu-ranks.sh need on a machine without Rust or network into one archive:
#
#   tests/gpu-pack.sh [--out linc-gpu.tar.xz] [--nvrtc WHEEL|FOLDER] [--limit MIB]
#
# Build first: cargo build --release -p linc -p linc-gpu-check. WHEEL is one of nvidia-cuda-nvrtc (pip download
# nvidia-cuda-nvrtc --no-deps), FOLDER one with libnvrtc.so.*; leave it out if the machine has NVRTC. There:
#
#   tar xf linc-gpu.tar.xz && linc-gpu/tests/gpu.sh
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/outputs/linc-gpu.tar.xz nvrtc='' limit=60
while [ $# -gt 0 ]; do
  case $1 in
    --out | --nvrtc | --limit)
      if [ $# -lt 2 ]; then echo "error: $1 needs a value" >&2; exit 2; fi
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "error: $1 means nothing here; --help shows what does" >&2; exit 2 ;;
  esac
  shift
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pack=$work/linc-gpu
mkdir -p "$pack"/{bin,tests,benches}
for program in linc linc-gpu-check; do
  built=$root/target/release/$program
  if [ ! -x "$built" ]; then
    echo "error: there is no $built: cargo build --release -p linc -p linc-gpu-check" >&2
    exit 2
  fi
  strip -o "$pack/bin/$program" "$built"
done
cp -r "$root/models" "$root/configs" "$pack"
cp "$root/tests/gpu.sh" "$root/tests/gpu-ranks.sh" "$pack/tests"
cp "$root"/benches/{torch_gpu,torch_llama,gpu_table}.py "$pack/benches"
if [ -n "$nvrtc" ]; then
  # The compiler and what it has built in; not the second edition of each that the package also has.
  mkdir "$pack/nvrtc"
  if [ -d "$nvrtc" ]; then
    cp "$nvrtc"/libnvrtc*.so.* "$pack/nvrtc"
  else
    unzip -qj "$nvrtc" '*/libnvrtc*.so.*' -d "$pack/nvrtc"
  fi
  rm -f "$pack"/nvrtc/*.alt.so*
  if ! compgen -G "$pack/nvrtc/libnvrtc.so.*" >/dev/null; then
    echo "error: there is no libnvrtc.so.* in $nvrtc" >&2
    exit 2
  fi
fi
mkdir -p "$(dirname "$out")"
tar -C "$work" -cf - linc-gpu | xz -T0 -6 >"$out"
bytes=$(stat -c %s "$out")
echo "$out: $((bytes / 1048576)) MiB"
if [ "$bytes" -gt $((limit * 1048576)) ]; then
  echo "error: that is more than $limit MiB" >&2
  exit 1
fi
