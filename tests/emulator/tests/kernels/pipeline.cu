// y[64,64] = the sum of the ROUNDS blocks of 64 rows of x[ROUNDS * 64, 192], columns 64 to 127, bf16 to f32, by four
// warps: blocks come by TMA copies, one iteration ahead.
constexpr int ROUNDS = 5;
constexpr u32 TILE = 64 * 64 * 2, PIPELINE = 2 * TILE;

extern "C" __global__ void __launch_bounds__(128)
    pipeline(const bf16* x, float* y, const __grid_constant__ TensorMap map) {
  int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  if (thread == 0) {
    pipeline_init(PIPELINE, 4);
    fence_async();
  }
  barrier();  // mbarriers are there
  const auto fetch = [&](int round, u32 turn) {
    pipeline_acquire(PIPELINE, turn);
    if (elected()) {
      fence_async();  // lanes have read by another way
      const u32 arrival = pipeline_expect(PIPELINE, turn, TILE);
      copy_tile_async(turn % 2 * TILE, map, 64, round * 64, arrival);
    }
  };
  float sums[2][16] = {};
  u32 turn = 0;
  if (warp == 0) fetch(0, turn);
  for (int round = 0; round < ROUNDS; round++) {
    pipeline_wait(PIPELINE, turn);
    if (warp == 0 && round + 1 < ROUNDS) fetch(round + 1, turn + 1);
    for (int n = 0; n < 4; n++) {
      u32 packed[4];
      load_matrices(packed, turn % 2 * TILE + swizzled<8>(warp * 16 + lane % 16, n * 2 + lane / 16));
      for (int q = 0; q < 4; q++) {
        sums[q % 2][n * 4 + q / 2 * 2] += low_bf16(packed[q]);
        sums[q % 2][n * 4 + q / 2 * 2 + 1] += high_bf16(packed[q]);
      }
    }
    pipeline_release(PIPELINE, turn, lane);
    turn += 1;
  }
  for (int n = 0; n < 8; n++) {
    int row = warp * 16 + lane / 4, column = n * 8 + lane % 4 * 2;
    store<2>(y + row * 64 + column, &sums[0][n * 2]);
    store<2>(y + (row + 8) * 64 + column, &sums[1][n * 2]);
  }
}
