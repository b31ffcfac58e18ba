// c[64,64] = a[64,64] b[64,64], bf16 to f32: tiles come by asynchronous copies, each of four warps computes 16 rows.
constexpr u32 B_TILE = 64 * 64 * 2;

LINC_INLINE u32 place(u32 row, u32 piece) { return swizzled<8>(row, piece); }

extern "C" __global__ void __launch_bounds__(128) matmul(const bf16* a, const bf16* b, float* c) {
  int t = threadIdx.x, warp = t / 32, lane = t % 32;
  for (int i = t; i < 64 * 8; i += 128) {
    int row = i / 8, piece = i % 8;
    copy_async16(place(row, piece), a + row * 64 + piece * 8, true);
    copy_async16(B_TILE + place(row, piece), b + row * 64 + piece * 8, true);
  }
  copy_async_commit();
  copy_async_wait<0>();
  barrier();  // tiles are there
  float sums[8][4] = {};
  for (int k = 0; k < 4; k++) {
    u32 left[4];
    load_matrices(left, place(warp * 16 + lane % 16, k * 2 + lane / 16));
    for (int n = 0; n < 8; n += 2) {
      u32 right[4];
      load_matrices_transposed(right, B_TILE + place(k * 16 + lane % 16, n + lane / 16));
      for (int i = 0; i < 2; i++) {
        float(&sum)[4] = sums[n + i];
        mma_bf16(sum[0], sum[1], sum[2], sum[3], left, right[2 * i], right[2 * i + 1]);
      }
    }
  }
  for (int n = 0; n < 8; n++) {
    int row = warp * 16 + lane / 4, column = n * 8 + lane % 4 * 2;
    store<2>(c + row * 64 + column, sums[n]);
    store<2>(c + (row + 8) * 64 + column, sums[n] + 2);
  }
}
