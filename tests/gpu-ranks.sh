#!/usr/bin/env bash
# Ranks on GPUs over NCCL, on a machine with one GPU or more: minutes.
#
#   1. one       a run of one process, whose checkpoint the others are compared with
#   2. world-1   a rank alone under a launcher is that process
#   3. modes     two ranks, with copies of the optimizer and with parts of it: the bits of the one process, in each mode
#   4. again     the same run twice has the same bits
#   5. killed    rank 1 is killed: rank 0 ends in time and names it
#   6. stopped   rank 1 hangs: rank 0 ends at the deadline, with code 3, and names it
#
#   tests/gpu-ranks.sh [--bin DIR] [--out DIR] [--ranks N] [--steps N] [--device cuda|cpu]
#
# With --device cpu the ranks exchange over TCP alone: that tests this script.
# Where there are fewer GPUs than ranks they share one: NCCL 2.30 or later. Needs linc in DIR (bin/ beside tests/, or
# target/release), and NVRTC, cuBLASLt and NCCL where linc finds them (LINC_NVRTC, LINC_CUBLASLT, LINC_NCCL, or an active
# Python environment). Exit code 1 if something is wrong, 2 without a GPU. No step waits for ever.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bin='' out=$root/outputs/gpu-ranks ranks=2 steps=5 device=cuda
usage() { sed -n '2,18s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
while [ $# -gt 0 ]; do
  case $1 in
    --bin | --out | --ranks | --steps | --device)
      if [ $# -lt 2 ]; then echo "error: $1 needs a value" >&2; exit 2; fi
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: $1 means nothing here; --help shows what does" >&2; exit 2 ;;
  esac
  shift
done
if [ -z "$bin" ]; then bin=$root/bin; fi
if [ ! -x "$bin/linc" ]; then bin=$root/target/release; fi
linc=$(cd "$bin" 2>/dev/null && pwd)/linc
if [ ! -x "$linc" ]; then
  echo "error: there is no $linc: cargo build --release -p linc, or say --bin DIR" >&2
  exit 2
fi
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
cd "$root" || exit 2

# GPUs that the driver shows.
gpus=${GPUS:-$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')}
if [ "$device" = cpu ]; then gpus=$ranks; fi
if [ "$gpus" -lt 1 ]; then echo "there is no GPU (nvidia-smi shows none; GPUS=N says how many there are)" >&2; exit 2; fi
if [ "$gpus" -lt "$ranks" ]; then
  export NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_MAX_CTAS=${NCCL_MAX_CTAS:-4}
  echo "$ranks ranks share $gpus GPU(s)"
fi
batches=4
settings=(configs/quickstart.toml --training.device "$device" --training.batch_size 2 --training.global_batch_size $((2 * batches))
  --parallelism.accumulate tree --training.steps "$steps" --checkpoint.last_save_model_only false --validation.enable false
  --comm.init_timeout_seconds 60 --comm.train_timeout_seconds 15 --comm.compare_weights_freq 1)

results=() wrong=false
result() {
  results+=("$(printf '%-28s %s' "$1" "$2")")
  if [ "$2" != ok ]; then wrong=true; fi
}
# Ranks of a run into a folder; their codes in `codes`, their words in FOLDER.RANK.log.
declare -a pids codes
begin() {
  local folder=$1 rank port=$((20000 + RANDOM % 20000))
  shift
  rm -rf "$folder"
  pids=()
  for ((rank = 0; rank < ranks; rank++)); do
    RANK=$rank WORLD_SIZE=$ranks MASTER_ADDR=localhost MASTER_PORT=$port timeout -k 10 240 "$linc" train "${settings[@]}" \
      --job.dump_folder "$folder" "$@" >"$folder.$rank.log" 2>&1 &
    pids+=($!)
  done
}
finish() {
  local pid
  codes=()
  for pid in "${pids[@]}"; do
    wait "$pid"
    codes+=($?)
  done
}
# `ok` if all ranks ended well, with the weights and moments of another folder.
same() {
  local code file
  for code in "${codes[@]}"; do
    if [ "$code" != 0 ]; then echo "FAILED: exit codes ${codes[*]}, see $1.*.log"; return; fi
  done
  for file in model optimizer; do
    if ! cmp -s "$1/checkpoint/step-$steps/$file.safetensors" "$2/checkpoint/step-$steps/$file.safetensors"; then
      echo "FAILED: other bits in $file"
      return
    fi
  done
  echo ok
}
# The process of linc that a rank's `timeout` has started.
process_of() { pgrep -P "${pids[$1]}" | head -1; }
# Waits until a run has a checkpoint.
trains() {
  local second
  for ((second = 0; second < 120; second++)); do
    if compgen -G "$1/checkpoint/step-*" >/dev/null; then return 0; fi
    sleep 1
  done
  return 1
}

"$linc" --version
LINC_LAUNCHER=none timeout -k 10 240 "$linc" train "${settings[@]}" --job.dump_folder "$out/one" >"$out/one.log" 2>&1
code=$?
if [ $code -eq 0 ]; then result one ok; else result one "FAILED: exit code $code, see $out/one.log"; fi

all=$ranks
ranks=1 && begin "$out/world-1" && finish
result world-1 "$(same "$out/world-1" "$out/one")"
ranks=$all
for copies in "$ranks" 1; do
  begin "$out/copies-$copies" --parallelism.data_parallel_replicate_degree "$copies" && finish
  result "$ranks ranks, copies $copies" "$(same "$out/copies-$copies" "$out/one")"
done
begin "$out/again" --parallelism.data_parallel_replicate_degree 1 && finish
result again "$(same "$out/again" "$out/copies-1")"
for signal in KILL STOP; do
  begin "$out/$signal" --training.steps 1000000 --checkpoint.interval 5
  if trains "$out/$signal"; then
    culprit=$(process_of 1)
    kill -$signal "$culprit"
    begun=$SECONDS
    wait "${pids[0]}"
    code=$? took=$((SECONDS - begun))
    kill -KILL "$culprit" 2>/dev/null
    wait
    if [ $code -eq 3 ] && grep -q 'rank 0 waits for rank 1 in' "$out/$signal.0.log" && [ $took -lt 60 ]; then
      result "rank 1 gets SIG$signal" ok
    else
      result "rank 1 gets SIG$signal" "FAILED: rank 0 ended with $code after $took s, see $out/$signal.0.log"
    fi
  else
    kill "${pids[@]}" 2>/dev/null
    wait
    result "rank 1 gets SIG$signal" "FAILED: no checkpoint within 2 minutes, see $out/$signal.0.log"
  fi
done

printf '\n'
printf '%s\n' "${results[@]}"
if $wrong; then exit 1; fi
