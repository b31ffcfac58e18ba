// c[64,64] = aᵀ[64,64] b[64,64] + a[64,64] bᵀ[64,64], bf16 to f32, by one warpgroup: first with both operands in shared
// memory, then with the left one in registers.
constexpr u32 B_TILE = 64 * 64 * 2;

extern "C" __global__ void __launch_bounds__(128) warpgroup(const bf16* a, const bf16* b, float* c) {
  int t = threadIdx.x, warp = t / 32, lane = t % 32;
  for (int i = t; i < 64 * 8; i += 128) {
    int row = i / 8, piece = i % 8;
    copy_async16(swizzled<8>(row, piece), a + row * 64 + piece * 8, true);
    copy_async16(B_TILE + swizzled<8>(row, piece), b + row * 64 + piece * 8, true);
  }
  copy_async_commit();
  copy_async_wait<0>();
  fence_async();
  barrier();  // tiles are there
  float sums[2][16];
  u32 left[4][1][4];
  for (int k = 0; k < 4; k++) load_matrices(left[k][0], swizzled<8>(warp * 16 + lane % 16, k * 2 + lane / 16));
  const u64 left_at = matrix_descriptor<8>(0, 512), right = matrix_descriptor<8>(B_TILE, 512);
  pin(left);
  wgmma_fence();
  for (int k = 0; k < 4; k++) wgmma_bf16<1, 1>(sums[0], sums[1], left_at + k * 128, right + k * 128, k > 0);
  wgmma_commit();
  wgmma_fence();
  for (int k = 0; k < 4; k++) wgmma_bf16<0>(sums[0], sums[1], left[k][0], right + k * 2, true);
  wgmma_commit();
  wgmma_wait<0>();
  pin(sums);
  for (int n = 0; n < 8; n++) {
    int row = warp * 16 + lane / 4, column = n * 8 + lane % 4 * 2;
    store<2>(c + row * 64 + column, &sums[0][n * 2]);
    store<2>(c + (row + 8) * 64 + column, &sums[1][n * 2]);
  }
}
