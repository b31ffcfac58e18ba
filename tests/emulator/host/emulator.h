// The host twin of device.cu: what a kernel's text sees when it is compiled for the emulator. Same names, signatures
// and meaning; where device.cu has an instruction, this has a call into the runtime, which runs it and checks it.
// Includes no library header, so that a kernel compiles in a fraction of a second.
#pragma once
#include "interface.h"

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define LINC_INLINE __device__ __forceinline__
#define threadIdx linc_thread_index
#define blockIdx linc_block_index

typedef unsigned short bf16;
struct f16 {
  unsigned short bits;
};
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long index;

// The functions of CUDA's own that kernels use.
extern "C" {
float fmaxf(float, float);
float fminf(float, float);
float fmaf(float, float, float);
float fabsf(float);
float sqrtf(float);
float logf(float);
float tanhf(float);
float rintf(float);
float exp2f(float);
}

// ---- synchronisation and warps ----

LINC_INLINE void barrier() { linc_barrier(); }
LINC_INLINE float shuffle_xor(float v, int mask) { return linc_shuffle_xor(v, mask); }
LINC_INLINE float shuffle(float v, int from) { return linc_shuffle(v, from); }
LINC_INLINE int uniform(int v) { return v; }
LINC_INLINE int again(int v) { return v; }

// ---- bf16, f16 and bits ----

LINC_INLINE u32 float_bits(float x) {
  u32 bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}
LINC_INLINE float bits_float(u32 x) {
  float value;
  __builtin_memcpy(&value, &x, 4);
  return value;
}

// Nearest even; every NaN becomes the one that the instruction gives.
inline u32 linc_round_bf16(float x) {
  u32 bits = float_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
LINC_INLINE u32 pack_bf16(float low, float high) { return linc_round_bf16(low) | linc_round_bf16(high) << 16; }

// f16 from the compiler's own type, which rounds to nearest even; every NaN becomes the one that the instruction gives.
inline u32 linc_round_f16(float x) {
  if (x != x) return 0x7fff;
  _Float16 narrow = (_Float16)x;
  unsigned short bits;
  __builtin_memcpy(&bits, &narrow, 2);
  return bits;
}
// By bits, since compilers call a library for this. A normal number gets the exponent's other bias by a multiplication,
// which makes subnormal ones normal as well.
inline float linc_widen_f16(u32 bits) {
  u32 wide = (bits & 0x7fffu) << 13;
  float value = wide >= 0x0f800000u ? bits_float(wide | 0x7f800000u) : bits_float(wide) * 0x1p112f;
  return bits_float(float_bits(value) | (bits & 0x8000u) << 16);
}
LINC_INLINE u32 pack_f16(float low, float high) { return linc_round_f16(low) | linc_round_f16(high) << 16; }
LINC_INLINE float low_f16(u32 packed) { return linc_widen_f16(packed & 0xffff); }
LINC_INLINE float high_f16(u32 packed) { return linc_widen_f16(packed >> 16); }

// ---- mathematics ----

// Zero of the same sign for what is smaller than the smallest normal number.
LINC_INLINE float linc_flush(float x) {
  u32 bits = float_bits(x);
  return (bits & 0x7f800000u) == 0 ? bits_float(bits & 0x80000000u) : x;
}
LINC_INLINE float exp2_fast(float x) { return linc_flush(exp2f(linc_flush(x))); }
LINC_INLINE float maximum(float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; }
LINC_INLINE float minimum(float a, float b) { return a != a ? a : b != b ? b : a < b ? a : b; }
LINC_INLINE float recip(float x) { return 1.0f / x; }
LINC_INLINE float rsqrt(float x) { return 1.0f / sqrtf(x); }

// Elements of memory as they are in registers.
template <int N, class Element> LINC_INLINE void linc_widen(Element* to, const Element* from) {
  for (int i = 0; i < N; i++) to[i] = from[i];
}
template <int N> LINC_INLINE void linc_widen(float* to, const bf16* from) {
  for (int i = 0; i < N; i++) to[i] = bits_float((u32)from[i] << 16);
}
template <int N> LINC_INLINE void linc_widen(float* to, const f16* from) {
  for (int i = 0; i < N; i++) to[i] = linc_widen_f16(from[i].bits);
}

// ---- global memory ----

template <int N> LINC_INLINE void load(float* to, const float* from) {
  static_assert(N == 1 || N == 2 || N == 4, "an access has 4, 8 or 16 bytes");
  linc_global_load(to, from, 4 * N);
}
template <int N> LINC_INLINE void load(int* to, const int* from) {
  static_assert(N == 1 || N == 2 || N == 4, "an access has 4, 8 or 16 bytes");
  linc_global_load(to, from, 4 * N);
}
template <int N> LINC_INLINE void load(float* to, const bf16* from) {
  static_assert(N == 1 || N == 2 || N == 4 || N == 8, "an access has 2, 4, 8 or 16 bytes");
  bf16 narrow[N];
  linc_global_load(narrow, from, 2 * N);
  linc_widen<N>(to, narrow);
}
template <int N> LINC_INLINE void load(float* to, const f16* from) {
  static_assert(N == 1 || N == 2 || N == 4 || N == 8, "an access has 2, 4, 8 or 16 bytes");
  f16 narrow[N];
  linc_global_load(narrow, from, 2 * N);
  linc_widen<N>(to, narrow);
}

template <int N> LINC_INLINE void store(float* to, const float* from) {
  static_assert(N == 1 || N == 2 || N == 4, "an access has 4, 8 or 16 bytes");
  linc_global_store(to, from, 4 * N);
}
template <int N> LINC_INLINE void store(int* to, const int* from) {
  static_assert(N == 1 || N == 2 || N == 4, "an access has 4, 8 or 16 bytes");
  linc_global_store(to, from, 4 * N);
}
template <int N> LINC_INLINE void store(bf16* to, const float* from) {
  static_assert(N == 1 || N == 2 || N == 4 || N == 8, "an access has 2, 4, 8 or 16 bytes");
  bf16 narrow[N];
  for (int i = 0; i < N; i++) narrow[i] = (bf16)linc_round_bf16(from[i]);
  linc_global_store(to, narrow, 2 * N);
}
template <int N> LINC_INLINE void store(f16* to, const float* from) {
  static_assert(N == 1 || N == 2 || N == 4 || N == 8, "an access has 2, 4, 8 or 16 bytes");
  f16 narrow[N];
  for (int i = 0; i < N; i++) narrow[i].bits = (unsigned short)linc_round_f16(from[i]);
  linc_global_store(to, narrow, 2 * N);
}

// ---- shared memory ----

LINC_INLINE u32 shared_address(u32 at) { return at; }
LINC_INLINE float shared_load(u32 at) {
  float v;
  linc_shared_load(&v, at, 4);
  return v;
}
LINC_INLINE void shared_store(u32 at, float v) { linc_shared_store(at, &v, 4); }
LINC_INLINE void shared_store_pair(u32 at, u32 v) { linc_shared_store(at, &v, 4); }
template <class Element, class T> LINC_INLINE void shared_load_piece(T* to, u32 at) {
  Element piece[16 / sizeof(Element)];
  linc_shared_load(piece, at, 16);
  linc_widen<16 / sizeof(Element)>(to, piece);
}
LINC_INLINE void shared_to_global16(void* to, u32 from) {
  u32 piece[4];
  linc_shared_load(piece, from, 16);
  linc_global_store(to, piece, 16);
}

LINC_INLINE void copy_async16(u32 to, const void* from, bool valid) { linc_copy_async16(to, from, valid); }
LINC_INLINE void copy_async_commit() { linc_copy_async_commit(); }
template <int N> LINC_INLINE void copy_async_wait() { linc_copy_async_wait(N); }

// ---- copies of TMA ----

// Filled by the runtime.
struct TensorMap {
  u64 words[16];
};
LINC_INLINE void prefetch_map(const TensorMap& map) {}
LINC_INLINE bool elected() { return linc_elected(); }
LINC_INLINE void sync_warp() { linc_sync_warp(); }
LINC_INLINE void mbarrier_init(u32 at, u32 count) { linc_mbarrier_init(at, count); }
LINC_INLINE void mbarrier_arrive(u32 at) { linc_mbarrier_arrive(at, 0); }
LINC_INLINE void mbarrier_expect(u32 at, u32 bytes) { linc_mbarrier_arrive(at, bytes); }
LINC_INLINE void mbarrier_wait(u32 at, u32 parity) { linc_mbarrier_wait(at, parity); }
LINC_INLINE void copy_tile_async(u32 to, const TensorMap& map, int x, int y, u32 mbarrier) {
  linc_copy_tile(to, &map, x, y, mbarrier);
}

// ---- tensor cores ----

LINC_INLINE void load_matrices(u32 (&r)[4], u32 at) { linc_load_matrices(r, at, false); }
LINC_INLINE void load_matrices_transposed(u32 (&r)[4], u32 at) { linc_load_matrices(r, at, true); }
LINC_INLINE void mma_bf16(float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4], u32 b0, u32 b1) {
  float* const c[4] = {&c0, &c1, &c2, &c3};
  linc_mma(c, a, b0, b1, false);
}
LINC_INLINE void mma_f16(float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4], u32 b0, u32 b1) {
  float* const c[4] = {&c0, &c1, &c2, &c3};
  linc_mma(c, a, b0, b1, true);
}

// ---- products of warpgroups ----

LINC_INLINE void fence_async() { linc_fence_async(); }
LINC_INLINE void wgmma_fence() { linc_wgmma_fence(); }
LINC_INLINE void wgmma_commit() { linc_wgmma_commit(); }
template <int N> LINC_INLINE void wgmma_wait() { linc_wgmma_wait(N); }
// Registers are memory here, which a call may read and write.
template <int R, int C> LINC_INLINE void pin(float (&v)[R][C]) {}
template <int K, int R, int C> LINC_INLINE void pin(u32 (&v)[K][R][C]) {}

// One for all numbers of columns, which device text is generated for as needed.
template <int TRANS_B, int C>
LINC_INLINE void wgmma_bf16(float (&upper)[C], float (&lower)[C], const u32 (&a)[4], u64 b, bool add) {
  linc_wgmma(upper, lower, 4 * C, a, 0, false, b, TRANS_B, add, false);
}
template <int TRANS_A, int TRANS_B, int C>
LINC_INLINE void wgmma_bf16(float (&upper)[C], float (&lower)[C], u64 a, u64 b, bool add) {
  linc_wgmma(upper, lower, 4 * C, nullptr, a, TRANS_A, b, TRANS_B, add, false);
}
template <int TRANS_B, int C>
LINC_INLINE void wgmma_f16(float (&upper)[C], float (&lower)[C], const u32 (&a)[4], u64 b, bool add) {
  linc_wgmma(upper, lower, 4 * C, a, 0, false, b, TRANS_B, add, true);
}
template <int TRANS_A, int TRANS_B, int C>
LINC_INLINE void wgmma_f16(float (&upper)[C], float (&lower)[C], u64 a, u64 b, bool add) {
  linc_wgmma(upper, lower, 4 * C, nullptr, a, TRANS_A, b, TRANS_B, add, true);
}

// ---- making a kernel known: LINC_ENTRY behind its text ----

namespace linc {

template <class Pointer> constexpr char LETTER = '?';
template <> inline constexpr char LETTER<const float*> = 'f';
template <> inline constexpr char LETTER<const bf16*> = 'b';
template <> inline constexpr char LETTER<const f16*> = 'h';
template <> inline constexpr char LETTER<const int*> = 'i';
template <> inline constexpr char LETTER<float*> = 'F';
template <> inline constexpr char LETTER<bf16*> = 'B';
template <> inline constexpr char LETTER<f16*> = 'H';
template <> inline constexpr char LETTER<int*> = 'I';
template <> inline constexpr char LETTER<TensorMap> = 't';

template <class P> struct Argument {
  static P of(void* argument) { return (P)argument; }
};
template <> struct Argument<TensorMap> {
  static const TensorMap& of(void* argument) { return *(const TensorMap*)argument; }
};

template <int... I> struct Indices {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> {
  typedef Indices<I...> type;
};

template <auto KERNEL, class Type = decltype(KERNEL)> struct Entry;
template <auto KERNEL, class... P> struct Entry<KERNEL, void (*)(P...)> {
  static constexpr char SIGNATURE[] = {LETTER<P>..., 0};
  template <int... I> static void call(void* const* arguments, Indices<I...>) { KERNEL(Argument<P>::of(arguments[I])...); }
  static void launch(void* const* arguments) { call(arguments, typename Count<sizeof...(P)>::type()); }
};

}  // namespace linc

#define LINC_ENTRY(key, name) \
  static LincEntry linc_entry(key, linc::Entry<&name>::SIGNATURE, linc::Entry<&name>::launch);
