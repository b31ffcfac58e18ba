// Causal softmax attention of one head, 64 queries a block, keys in tiles of 64 that are copied while the tile before
// is worked on. Everything in shared memory is a tile of 64 rows of 128 bytes.
constexpr int DIM = 64;
constexpr u32 TILE = 64 * DIM * 2;
constexpr float SCALE_LOG2 = 0.125f * 1.4426950408889634f;

extern "C" __global__ void __launch_bounds__(128) attention(const bf16* q, const bf16* k, const bf16* v, bf16* o) {
  int t = threadIdx.x, warp = t / 32, lane = t % 32, first_row = blockIdx.x * 64;
  auto copy_tile = [&](u32 to, const bf16* from, int row0) {
    for (int i = t; i < 64 * 8; i += 128) {
      int row = i / 8, piece = i % 8;
      copy_async16(to + swizzled<8>(row, piece), from + (index)(row0 + row) * DIM + piece * 8, true);
    }
  };
  auto keys = [](int tile) { return TILE + (tile & 1) * 2 * TILE; };
  auto values = [](int tile) { return 2 * TILE + (tile & 1) * 2 * TILE; };
  int tiles = blockIdx.x + 1;
  copy_tile(0, q, first_row);
  copy_tile(keys(0), k, 0);
  copy_tile(values(0), v, 0);
  copy_async_commit();

  float out[8][4] = {}, largest[2] = {-1e30f, -1e30f}, total[2] = {};
  u32 query[4][4];
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      copy_tile(keys(tile + 1), k, (tile + 1) * 64);
      copy_tile(values(tile + 1), v, (tile + 1) * 64);
    }
    copy_async_commit();
    copy_async_wait<1>();
    barrier();  // the tile is there
    if (tile == 0) {
      for (int d = 0; d < 4; d++) load_matrices(query[d], swizzled<8>(warp * 16 + lane % 16, d * 2 + lane / 16));
    }
    float p[8][4] = {};
    for (int n = 0; n < 8; n += 2) {
      for (int d = 0; d < 4; d++) {
        u32 key[4];
        load_matrices(key, keys(tile) + swizzled<8>(n * 8 + lane % 8 + lane / 16 * 8, d * 2 + lane / 8 % 2));
        for (int i = 0; i < 2; i++) {
          mma_bf16(p[n + i][0], p[n + i][1], p[n + i][2], p[n + i][3], query[d], key[2 * i], key[2 * i + 1]);
        }
      }
    }
    for (int half = 0; half < 2; half++) {
      int row = first_row + warp * 16 + lane / 4 + half * 8;
      float most = largest[half];
      for (int n = 0; n < 8; n++) {
        for (int i = 0; i < 2; i++) {
          int column = tile * 64 + n * 8 + lane % 4 * 2 + i;
          float& score = p[n][half * 2 + i];
          score = column <= row ? score * SCALE_LOG2 : -1e30f;
          most = fmaxf(most, score);
        }
      }
      most = fmaxf(most, shuffle_xor(most, 1));
      most = fmaxf(most, shuffle_xor(most, 2));
      float shrink = exp2_fast(largest[half] - most);
      largest[half] = most;
      total[half] *= shrink;
      for (int n = 0; n < 8; n++) {
        for (int i = half * 2; i < half * 2 + 2; i++) {
          p[n][i] = exp2_fast(p[n][i] - most);
          total[half] += p[n][i];
          out[n][i] *= shrink;
        }
      }
    }
    for (int k16 = 0; k16 < 4; k16++) {
      u32 weights[4];
      for (int i = 0; i < 4; i++) {
        const float* pair = p[2 * k16 + i / 2] + i % 2 * 2;
        weights[i] = pack_bf16(pair[0], pair[1]);
      }
      for (int n = 0; n < 8; n += 2) {
        u32 value[4];
        load_matrices_transposed(value, values(tile) + swizzled<8>(k16 * 16 + lane % 16, n + lane / 16));
        for (int i = 0; i < 2; i++) {
          mma_bf16(out[n + i][0], out[n + i][1], out[n + i][2], out[n + i][3], weights, value[2 * i], value[2 * i + 1]);
        }
      }
    }
    barrier();  // the tile may be overwritten
  }
  for (int half = 0; half < 2; half++) {
    total[half] += shuffle_xor(total[half], 1);
    total[half] += shuffle_xor(total[half], 2);
    float inverse = recip(total[half]);
    index row = first_row + warp * 16 + lane / 4 + half * 8;
    for (int n = 0; n < 8; n++) {
      float pair[2] = {out[n][half * 2] * inverse, out[n][half * 2 + 1] * inverse};
      store<2>(o + row * DIM + n * 8 + lane % 4 * 2, pair);
    }
  }
}
