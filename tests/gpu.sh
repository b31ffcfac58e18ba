#!/usr/bin/env bash
# Everything that needs a GPU, in one go, on a machine with neither Rust nor a network:
#
#   1. kernels    every kernel and matmul against the interpreter, twice, with equal bits; on Hopper, attention also
#                 without wgmma (sm_90), and with the kernels of Ampere (sm_80)
#   2. losses     100 training steps of a hybrid in bf16, beside the same steps on the CPU
#   3. generate   a prompt continued in f32, beside the same on the CPU
#   4. sanitizer  compute-sanitizer over two small steps and, for races, over kernels, where it is installed
#   5. bench      linc bench beside PyTorch, and fla where PYTHON finds it, in turns, with tables in OUT/bench.md
#
#   tests/gpu.sh [--device cuda|cuda:N|cpu] [--bin DIR] [--out DIR] [--python PYTHON] [--only STEP,..] [--rounds N] [--quick]
#
# Needs the programs linc and linc-gpu-check in DIR (bin/ beside tests/, or target/release), NVRTC and cuBLASLt (LINC_NVRTC
# and LINC_CUBLASLT, an nvrtc/ folder beside tests/, or PYTHON's packages), and for PyTorch's side a PYTHON with torch.
# tests/gpu-pack.sh puts all that is to be carried into one archive. A failed step does not stop those after it; the
# last lines say how each went. Exit code 1 if results are wrong or could not be checked, 2 without a GPU; timings do not
# count.
# With --device cpu all but the GPU's own steps run, on small sizes: that tests this script.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

device=cuda bin='' out=$root/outputs/gpu python=python3 only='' rounds='' quick=false
usage() { sed -n '2,21s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
while [ $# -gt 0 ]; do
  case $1 in
    --device | --bin | --out | --python | --only | --rounds)
      if [ $# -lt 2 ]; then echo "error: $1 needs a value" >&2; exit 2; fi
      declare "${1#--}=$2"
      shift
      ;;
    --quick) quick=true ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: $1 means nothing here; --help shows what does" >&2; exit 2 ;;
  esac
  shift
done
for step in ${only//,/ }; do
  case $step in
    kernels | losses | generate | sanitizer | bench) ;;
    *) echo "error: there is no step $step; there are kernels, losses, generate, sanitizer and bench" >&2; exit 2 ;;
  esac
done
if [ -z "$bin" ]; then bin=$root/bin; fi
if [ ! -x "$bin/linc" ]; then bin=$root/target/release; fi
for program in linc linc-gpu-check; do
  if [ ! -x "$bin/$program" ]; then
    echo "error: there is no $bin/$program: cargo build --release -p linc -p linc-gpu-check, or say --bin DIR" >&2
    exit 2
  fi
done
bin=$(cd "$bin" && pwd)
linc=$bin/linc check=$bin/linc-gpu-check
if [[ $python == */* && $python != /* ]]; then python=$PWD/$python; fi
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
# Paths in configs start where linc is started.
cd "$root" || exit 2
gpu=true
if [ "$device" = cpu ]; then gpu=false quick=true; fi

# The newest library of that name in PYTHON's packages.
packaged() {
  "$python" - "$1" 2>/dev/null <<'PYTHON'
import glob, site, sys, sysconfig
folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages(), *sys.path}
found = [f for folder in folders if folder for f in glob.glob(f"{folder}/nvidia/**/{sys.argv[1]}.so.*", recursive=True)]
print(max(f for f in found if ".alt." not in f))
PYTHON
}
if $gpu; then
  if [ -z "${LINC_NVRTC:-}" ] && [ -d "$root/nvrtc" ]; then export LINC_NVRTC=$root/nvrtc; fi
  for pair in LINC_NVRTC:libnvrtc LINC_CUBLASLT:libcublasLt; do
    variable=${pair%%:*}
    if [ -z "${!variable:-}" ] && library=$(packaged "${pair##*:}"); then export "$variable=$library"; fi
  done
  export LINC_CACHE_DIR=${LINC_CACHE_DIR:-$out/cache}
fi

results=() wrong=false
heading() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }
wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }
result() { results+=("$(printf '%-34s %s' "$1" "$2")"); }
# Runs a command of a correctness step, within a time.
checked() {
  local name=$1 limit=$2 code=0
  shift 2
  timeout -k 10 "$limit" "$@" || code=$?
  case $code in
    0) result "$name" ok ;;
    124 | 137) result "$name" "FAILED: not done after $limit s" ;;
    *) result "$name" "FAILED: exit code $code" ;;
  esac
  if [ $code -ne 0 ]; then wrong=true; fi
  return $code
}

heading "machine"
uname -sr
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv || true
fi
if $gpu; then echo "NVRTC: ${LINC_NVRTC:-where linc finds it}; cuBLASLt: ${LINC_CUBLASLT:-where linc finds it}"; fi
"$linc" --version
# Whatever the caller compares with, the first kernels are the GPU's own.
unset LINC_CUDA_ARCH
"$check" kernels --device "$device" --group reductions --quick >"$out/probe.log"
if [ $? -eq 2 ]; then
  echo "there is nothing to run on: --device cpu tries this script out" >&2
  exit 2
fi
hopper=false
if $gpu && LINC_CUDA_ARCH=sm_90a timeout -k 10 300 "$check" kernels --device "$device" --group reductions --quick >/dev/null 2>&1; then
  hopper=true
fi
# All that follows would wait for kernels that do not end, or measure wrong ones: where a few attentions fail with
# Hopper's own kernels, it runs without wgmma, and where that fails, with Ampere's.
if $hopper; then
  for arch in sm_90a sm_90 sm_80; do
    works=true
    for group in softmax-tiles linear-precision; do
      LINC_CUDA_ARCH=$arch timeout -k 10 120 "$check" kernels --device "$device" --group "$group" --quick \
        >"$out/$arch-$group.log" 2>&1 || works=false
    done
    if $works; then break; fi
    echo "attention with the kernels of $arch fails:"
    tail -n 5 "$out/$arch"-*.log
    result "attention of $arch" "FAILED"
    wrong=true
  done
  if [ $arch != sm_90a ]; then
    export LINC_CUDA_ARCH=$arch
    echo "from here on, kernels are those of $arch"
  fi
fi

if wanted kernels; then
  # One process for each group: a GPU is lost to a process whose kernel has failed.
  heading "kernels against the interpreter, on $device"
  extent=()
  if $quick; then extent=(--quick); fi
  for group in $("$check" kernels --list); do
    checked "kernels: $group" 300 "$check" kernels --device "$device" --group "$group" "${extent[@]}"
  done
  if $hopper; then
    for arch in sm_90 sm_80; do
      for group in softmax-attention efficient-attention; do
        LINC_CUDA_ARCH=$arch checked "kernels of $arch: $group" 300 "$check" kernels --device "$device" \
          --group "$group" "${extent[@]}"
      done
    done
  fi
fi

# 100 steps on a device; the name of the run, the device, and more settings.
steps=100
if $quick; then steps=20; fi
train() {
  local name=$1 where=$2
  shift 2
  rm -rf "$out/$name"
  timeout -k 10 600 "$linc" train configs/debug_model.toml --training.device "$where" --training.steps "$steps" \
    --training.mixed_precision_param bfloat16 --metrics.disable_color_printing true --job.dump_folder "$out/$name" \
    --checkpoint.enable true "$@" \
    >"$out/$name.log" 2>&1 || { tail -5 "$out/$name.log"; return 1; }
  grep -E 'Device:|Compiled|tokens/s' "$out/$name.log"
}
if wanted losses; then
  heading "losses of $steps steps on $device and on the CPU"
  # bf16 moves losses by 0.0016 at most on the CPU (beside f32, in these 100 steps); two ways to sum, each rounded to
  # bf16, may differ by as much each. On the CPU itself nothing may change.
  tolerance=0.005 settings=()
  if ! $gpu; then tolerance=0 settings=(--training.threads 1); fi
  if train losses-cpu cpu && train losses-device "$device" "${settings[@]}"; then
    checked "losses of $steps steps" 60 "$check" losses "$out/losses-cpu/metrics.jsonl" \
      "$out/losses-device/metrics.jsonl" --tolerance "$tolerance"
  else
    result "losses of $steps steps" "FAILED: no training"
    wrong=true
  fi
fi

# A prompt of several blocks, the last of them ragged, and tokens drawn from all: f32 on two devices differs in the sixth
# digit, which moves a draw once in some thousand runs.
continued() {
  timeout -k 10 300 "$linc" generate --checkpoint "$out/losses-cpu/checkpoint/step-$steps" --device "$1" --context 1024 \
    --prompt "$(head -c 700 configs/debug_model.toml)" --tokens 200 --temperature 1 --top-k 0 >"$out/text-$1.txt" 2>"$out/text.log" ||
    { tail -5 "$out/text.log"; return 1; }
}
if wanted generate; then
  heading "a continued prompt on $device and on the CPU"
  if [ -d "$out/losses-cpu/checkpoint/step-$steps" ] || train losses-cpu cpu; then
    if continued cpu && continued "$device"; then
      checked "generated text" 10 cmp "$out/text-cpu.txt" "$out/text-$device.txt"
    else
      result "generated text" "FAILED: nothing was generated"
      wrong=true
    fi
  fi
fi

if wanted sanitizer; then
  heading "compute-sanitizer"
  sanitizer=$(command -v compute-sanitizer || true)
  if [ -z "$sanitizer" ] && [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" ]; then
    sanitizer=${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer
  fi
  if ! $gpu; then
    result sanitizer "skipped: the device is the CPU"
  elif [ -z "$sanitizer" ]; then
    result sanitizer "skipped: compute-sanitizer is not installed"
  else
    # Both kinds of attention; a sequence that no tile divides, and one of whole tiles, which Hopper copies by itself.
    small=(--training.batch_size 1 --training.steps 2 --model.overrides.n_layers 2)
    runs=(memcheck:200 memcheck:256 synccheck:256)
    if $quick; then runs=(memcheck:200 memcheck:256); fi
    for run in "${runs[@]}"; do
      tool=${run%:*} length=${run#*:}
      rm -rf "$out/sanitizer-$tool-$length"
      checked "sanitizer: $tool, $length tokens" 500 "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 20 \
        "$linc" train configs/debug_model.toml --training.device "$device" --training.mixed_precision_param bfloat16 \
        "${small[@]}" --training.seq_len "$length" --metrics.disable_color_printing true \
        --job.dump_folder "$out/sanitizer-$tool-$length"
    done
    # Kernels alone: to racecheck, cuBLASLt's own for Hopper race.
    if ! $quick; then
      for group in $("$check" kernels --list); do
        if [ "$group" != matmuls ]; then
          checked "sanitizer: racecheck, $group" 300 "$sanitizer" --tool racecheck --error-exitcode 9 --print-limit 20 \
            "$check" kernels --device "$device" --group "$group" --quick
        fi
      done
    fi
  fi
fi

# linc and PyTorch in turns, so that a clock that drifts drifts for both; each turn is a file of JSON.
bench() {
  local name=$1
  shift
  local code=0 linc_args=() torch_args=() part=linc
  for arg in "$@"; do
    case $arg in
      --linc) part=linc ;;
      --torch) part=torch ;;
      --both) part=both ;;
      *)
        if [ $part != torch ]; then linc_args+=("$arg"); fi
        if [ $part != linc ]; then torch_args+=("$arg"); fi
        ;;
    esac
  done
  for ((round = 1; round <= turns; round++)); do
    heading "bench: $name, turn $round of $turns"
    timeout -k 10 540 "$linc" bench "${linc_args[@]}" --device "$device" --precision bfloat16 --format json \
      >"$out/$name.linc.$round.json" 2>"$out/$name.linc.log" || { code=1; tail -5 "$out/$name.linc.log"; }
    if $torch && [ ${#torch_args[@]} -gt 0 ]; then
      timeout -k 10 540 "$python" benches/torch_gpu.py "${torch_args[@]}" --device "${device/auto/cuda}" \
        >"$out/$name.torch.$round.json" 2>"$out/$name.torch.log" || { code=1; tail -5 "$out/$name.torch.log"; }
    fi
  done
  case $code in
    0) result "bench: $name" ok ;;
    *) result "bench: $name" "not all of it was measured" ;;
  esac
}
if wanted bench; then
  torch=false turns=${rounds:-2}
  if "$python" -c 'import torch, sys; sys.exit(sys.argv[1] != "cpu" and not torch.cuda.is_available())' "$device" 2>/dev/null; then
    torch=true
  else
    echo "no PyTorch for $device in $python: linc is measured by itself"
  fi
  rm -rf "$out"/*.linc.*.json "$out"/*.torch.*.json "$out/sm_80"
  model=models/llama3_1b.toml dims=64,128 seqs=1024,2048,4096,8192,16384,32768 lengths=2048,8192,32768
  ratios=0,0.5,0.75,1 heads=(--heads 32 --kv-heads 8) runs=(--rounds 10) streamed=8192,32768
  if $quick; then seqs=1024,8192 lengths=2048 streamed=8192 ratios=0,0.75 turns=${rounds:-1} runs=(--rounds 5); fi
  if ! $gpu; then
    model=models/llama3_nano.toml dims=16 seqs=64,128 lengths=64 ratios=0,0.5 heads=(--heads 4 --kv-heads 2) streamed=64
    runs=(--rounds 2 --warmup 1)
  fi
  for dim in ${dims//,/ }; do
    bench "attention-$dim" --both attention --head-dim "$dim" --seq "$seqs" "${heads[@]}" "${runs[@]}"
  done
  if $hopper; then
    # What Hopper's own instructions gain; in a folder of its own, since it is another table.
    mkdir -p "$out/sm_80"
    for dim in ${dims//,/ }; do
      LINC_CUDA_ARCH=sm_80 bench "sm_80/attention-$dim" --linc attention --head-dim "$dim" --seq "$seqs" "${heads[@]}" \
        "${runs[@]}"
    done
  fi
  for length in ${lengths//,/ }; do
    bench "train-$length" --both train "$model" --seq "$length" --ratio "$ratios" "${runs[@]}"
  done
  for length in ${streamed//,/ }; do
    bench "memory-$length" --linc memory "$model" --seq "$length" "${runs[@]}"
  done
  heading "tables"
  # Without PyTorch there are no files of its.
  shopt -s nullglob
  if "$python" benches/gpu_table.py "$out"/*.linc.*.json "$out"/*.torch.*.json >"$out/bench.md" 2>"$out/table.log"; then
    if $hopper; then
      if "$python" benches/gpu_table.py "$out"/sm_80/*.linc.*.json >"$out/sm_80/bench.md" 2>>"$out/table.log"; then
        { printf '\n## Attention with the kernels of sm_80\n\n'; cat "$out/sm_80/bench.md"; } >>"$out/bench.md"
      fi
    fi
    cat "$out/bench.md"
    result "bench: tables" "$out/bench.md"
  else
    tail -5 "$out/table.log"
    result "bench: tables" "none; the numbers are in $out"
  fi
fi

heading "summary"
printf '%s\n' "${results[@]}"
if $wrong; then
  echo "FAILED"
  exit 1
fi
