// What generated kernels call and is plain arithmetic, the same on every machine.

// The number of this thread, from that of its lane where it is used.
struct Thread {
  const int& lane;
  const int& warp;
  __device__ operator int() const { return warp * 32 + lane; }
};

LINC_INLINE float low_bf16(u32 packed) { return bits_float(packed << 16); }
LINC_INLINE float high_bf16(u32 packed) { return bits_float(packed & 0xffff0000u); }
// Rounds, to nearest even, and back.
LINC_INLINE float round_bf16(float x) { return low_bf16(pack_bf16(x, 0.0f)); }
LINC_INLINE float round_f16(float x) { return low_f16(pack_f16(x, 0.0f)); }

// e^x; 0 for -inf, and where the result would be subnormal. The error grows with |x|, to some 40 units in the last
// place at -80.
LINC_INLINE float exp_fast(float x) { return exp2_fast(x * 1.4426950408889634f); }
LINC_INLINE float sigmoid(float x) { return recip(1.0f + exp_fast(-x)); }

LINC_INLINE index index_min(index a, index b) { return a < b ? a : b; }
LINC_INLINE index index_max(index a, index b) { return a > b ? a : b; }
// How many of `extent` positions lie below `bound`.
LINC_INLINE int below(index bound, int extent) { return (int)index_max(0, index_min(bound, extent)); }

// Byte offset of 16-byte piece `piece` of row `row` in a tile of PIECES (2, 4 or 8) pieces a row. Pieces are swizzled,
// exchanged within a row, so that eight rows of one column, and eight pieces of one row, lie in different banks: the patterns of 32,
// 64 and 128 bytes of Hopper's matrix instructions. Of more pieces, each PIECES are a panel of ROWS rows.
template <int PIECES, int ROWS = 0> LINC_INLINE u32 swizzled(u32 row, u32 piece) {
  static_assert(PIECES == 2 || PIECES == 4 || PIECES == 8, "a row of a panel has 32, 64 or 128 bytes");
  if constexpr (ROWS > 0) return piece / PIECES * (ROWS * PIECES * 16) + swizzled<PIECES>(row, piece % PIECES);
  constexpr u32 ROWS_PER_LINE = 8 / PIECES;
  return (row * PIECES + (piece ^ ((row / ROWS_PER_LINE) & (PIECES - 1)))) * 16;
}

// The matrix that starts at `at` in a tile of PIECES pieces a row, swizzled. Eight rows follow the
// eight before them; panels are `panel` pieces apart. Adding to a descriptor moves it by so many pieces.
template <int PIECES> LINC_INLINE u64 matrix_descriptor(u32 at, u32 panel) {
  constexpr u64 PATTERN = PIECES == 8 ? 1 : PIECES == 4 ? 2 : 3;
  return PATTERN << 62 | (u64)(8 * PIECES) << 32 | (u64)panel << 16 | (shared_address(at) & 0x3ffff) >> 4;
}

// A pipeline: tiles that come while others are read, in two places that take turns. Turn t fills place t % 2. Its four
// mbarriers are at `at`: two say that tiles are there, two that all warps have read them.
LINC_INLINE void pipeline_init(u32 at, u32 warps) {
  for (u32 place = 0; place < 2; ++place) {
    mbarrier_init(at + place * 8, 1);
    mbarrier_init(at + 16 + place * 8, warps);
  }
}
// Waits until the place of a turn may be filled.
LINC_INLINE void pipeline_acquire(u32 at, u32 turn) { mbarrier_wait(at + 16 + turn % 2 * 8, turn / 2 % 2 ^ 1); }
// One thread, then: says how many bytes will be copied; returns the mbarrier where the copies count.
LINC_INLINE u32 pipeline_expect(u32 at, u32 turn, u32 bytes) {
  const u32 arrival = at + turn % 2 * 8;
  mbarrier_expect(arrival, bytes);
  return arrival;
}
// Waits for the tiles of a turn.
LINC_INLINE void pipeline_wait(u32 at, u32 turn) { mbarrier_wait(at + turn % 2 * 8, turn / 2 % 2); }
// Warp: is done with the tiles of a turn.
LINC_INLINE void pipeline_release(u32 at, u32 turn, int lane) {
  sync_warp();
  if (lane == 0) mbarrier_arrive(at + 16 + turn % 2 * 8);
}

#define LINC_INFINITY bits_float(0x7f800000u)

LINC_INLINE int int_min(int a, int b) { return a < b ? a : b; }
LINC_INLINE int int_max(int a, int b) { return a > b ? a : b; }
// Arithmetic that wraps.
LINC_INLINE int int_add(int a, int b) { return (int)((u32)a + (u32)b); }
LINC_INLINE int int_sub(int a, int b) { return (int)((u32)a - (u32)b); }
LINC_INLINE int int_mul(int a, int b) { return (int)((u32)a * (u32)b); }

template <int N> LINC_INLINE void clear(float* to) {
#pragma unroll
  for (int e = 0; e < N; ++e) to[e] = 0.0f;
}
template <int N> LINC_INLINE void clear(int* to) {
#pragma unroll
  for (int e = 0; e < N; ++e) to[e] = 0;
}

// The first `count` of N neighbours; zeros for the others, which are not read.
template <int N, class To, class From> LINC_INLINE void load_some(To* to, const From* from, int count) {
  if (count >= N) {
    load<N>(to, from);
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e) {
      if (e < count) load<1>(to + e, from + e);
      else to[e] = 0;
    }
  }
}

// Warp: the sum of v over the lanes up to this one, among the LANES lanes that differ in the bits from BIT on; from
// the last one down if REVERSE.
template <int LANES, int BIT, bool REVERSE> LINC_INLINE float scan_lanes(float v, int lane) {
  const int own = (lane >> BIT) & (LANES - 1);
#pragma unroll
  for (int step = 1; step < LANES; step *= 2) {
    const float other = shuffle(v, (REVERSE ? lane + (step << BIT) : lane - (step << BIT)) & 31);
    if (REVERSE ? own + step < LANES : own >= step) v += other;
  }
  return v;
}
// Warp: the value of the lane before this one among these lanes, 0 for the first; of the one after if REVERSE.
template <int LANES, int BIT, bool REVERSE> LINC_INLINE float lane_before(float v, int lane) {
  if constexpr (LANES == 1) return 0.0f;
  const int own = (lane >> BIT) & (LANES - 1);
  const float other = shuffle(v, (REVERSE ? lane + (1 << BIT) : lane - (1 << BIT)) & 31);
  return own == (REVERSE ? LANES - 1 : 0) ? 0.0f : other;
}
// Warp: the value of the last of these lanes; of the first if REVERSE.
template <int LANES, int BIT, bool REVERSE> LINC_INLINE float last_lane(float v, int lane) {
  if constexpr (LANES == 1) return v;
  const int mask = (LANES - 1) << BIT;
  return shuffle(v, REVERSE ? lane & ~mask : lane | mask);
}
