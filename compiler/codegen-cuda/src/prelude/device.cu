// What generated kernels call, for NVIDIA GPUs. All inline PTX of linc is here; nothing is included. A host twin with
// the same names runs the same kernels in tests. Addresses of shared memory are byte offsets (u32) into the block's
// dynamic shared memory. Functions that say "warp" are called by all 32 lanes together.
#define LINC_INLINE __device__ __forceinline__

typedef unsigned short bf16;
struct f16 {
  unsigned short bits;
};
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long index;

extern __shared__ __align__(1024) unsigned char linc_shared[];

LINC_INLINE u32 shared_address(u32 at) { return (u32)__cvta_generic_to_shared(linc_shared) + at; }

// ---- synchronisation and warps ----

// Waits for all threads of the block; makes their accesses to shared and global memory visible to each other.
LINC_INLINE void barrier() { __syncthreads(); }

// Warp: the value of the lane whose number differs by `mask`.
LINC_INLINE float shuffle_xor(float v, int mask) { return __shfl_xor_sync(~0u, v, mask); }
// Warp: the value of lane `from`.
LINC_INLINE float shuffle(float v, int from) { return __shfl_sync(~0u, v, from); }
// Warp: a number that all lanes have alike, so that the compiler knows it too.
LINC_INLINE int uniform(int v) { return __shfl_sync(~0u, v, 0); }

// A number as if it were another: the compiler computes what depends on it again, rather than to keep it in registers.
LINC_INLINE int again(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

// ---- bf16 and f16 ----

// Two values rounded to nearest even, the first in the low half.
LINC_INLINE u32 pack_bf16(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

LINC_INLINE u32 pack_f16(float low, float high) {
  u32 packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
LINC_INLINE float low_f16(u32 packed) {
  float x;
  asm("{\n\t.reg .b16 l, h;\n\tmov.b32 {l, h}, %1;\n\tcvt.f32.f16 %0, l;\n\t}" : "=f"(x) : "r"(packed));
  return x;
}
LINC_INLINE float high_f16(u32 packed) {
  float x;
  asm("{\n\t.reg .b16 l, h;\n\tmov.b32 {l, h}, %1;\n\tcvt.f32.f16 %0, h;\n\t}" : "=f"(x) : "r"(packed));
  return x;
}

// ---- mathematics: approximations of the special-function unit, a few units in the last place of f32 ----

// 2^x
LINC_INLINE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 1/x
LINC_INLINE float recip(float x) {
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// The larger and the smaller of two; NaN if one is.
LINC_INLINE float maximum(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
LINC_INLINE float minimum(float a, float b) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
// 1/sqrt(x)
LINC_INLINE float rsqrt(float x) { return rsqrtf(x); }

LINC_INLINE u32 float_bits(float x) { return __float_as_uint(x); }
LINC_INLINE float bits_float(u32 x) { return __uint_as_float(x); }

// ---- global memory: N neighbouring elements in one access, aligned to its size; 16 bits are widened and rounded to ----

template <int N> LINC_INLINE void load(float* to, const float* from) {
  static_assert(N == 1 || N == 2 || N == 4, "an access has 4, 8 or 16 bytes");
  if constexpr (N == 1) {
    to[0] = *from;
  } else if constexpr (N == 2) {
    float2 v = *reinterpret_cast<const float2*>(from);
    to[0] = v.x, to[1] = v.y;
  } else {
    float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  }
}

template <int N> LINC_INLINE void load(int* to, const int* from) {
  static_assert(N == 1 || N == 2 || N == 4, "an access has 4, 8 or 16 bytes");
  if constexpr (N == 1) {
    to[0] = *from;
  } else if constexpr (N == 2) {
    int2 v = *reinterpret_cast<const int2*>(from);
    to[0] = v.x, to[1] = v.y;
  } else {
    int4 v = *reinterpret_cast<const int4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  }
}

LINC_INLINE void widen(float* to, u32 packed, const bf16*) {
  to[0] = __uint_as_float(packed << 16), to[1] = __uint_as_float(packed & 0xffff0000u);
}
LINC_INLINE void widen(float* to, u32 packed, const f16*) { to[0] = low_f16(packed), to[1] = high_f16(packed); }

template <int N, class Narrow> LINC_INLINE void load_narrow(float* to, const Narrow* from) {
  static_assert(N == 1 || N == 2 || N == 4 || N == 8, "an access has 2, 4, 8 or 16 bytes");
  if constexpr (N == 1) {
    float pair[2];
    widen(pair, *reinterpret_cast<const unsigned short*>(from), from);
    to[0] = pair[0];
  } else if constexpr (N == 2) {
    widen(to, *reinterpret_cast<const u32*>(from), from);
  } else if constexpr (N == 4) {
    uint2 v = *reinterpret_cast<const uint2*>(from);
    widen(to, v.x, from), widen(to + 2, v.y, from);
  } else {
    uint4 v = *reinterpret_cast<const uint4*>(from);
    widen(to, v.x, from), widen(to + 2, v.y, from), widen(to + 4, v.z, from), widen(to + 6, v.w, from);
  }
}
template <int N> LINC_INLINE void load(float* to, const bf16* from) { load_narrow<N>(to, from); }
template <int N> LINC_INLINE void load(float* to, const f16* from) { load_narrow<N>(to, from); }

template <int N> LINC_INLINE void store(float* to, const float* from) {
  static_assert(N == 1 || N == 2 || N == 4, "an access has 4, 8 or 16 bytes");
  if constexpr (N == 1) *to = from[0];
  else if constexpr (N == 2) *reinterpret_cast<float2*>(to) = make_float2(from[0], from[1]);
  else *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
}

template <int N> LINC_INLINE void store(int* to, const int* from) {
  static_assert(N == 1 || N == 2 || N == 4, "an access has 4, 8 or 16 bytes");
  if constexpr (N == 1) *to = from[0];
  else if constexpr (N == 2) *reinterpret_cast<int2*>(to) = make_int2(from[0], from[1]);
  else *reinterpret_cast<int4*>(to) = make_int4(from[0], from[1], from[2], from[3]);
}

LINC_INLINE u32 pack(float low, float high, const bf16*) { return pack_bf16(low, high); }
LINC_INLINE u32 pack(float low, float high, const f16*) { return pack_f16(low, high); }

template <int N, class Narrow> LINC_INLINE void store_narrow(Narrow* to, const float* from) {
  static_assert(N == 1 || N == 2 || N == 4 || N == 8, "an access has 2, 4, 8 or 16 bytes");
  if constexpr (N == 1) {
    *reinterpret_cast<unsigned short*>(to) = (unsigned short)pack(from[0], 0.0f, to);
  } else if constexpr (N == 2) {
    *reinterpret_cast<u32*>(to) = pack(from[0], from[1], to);
  } else if constexpr (N == 4) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack(from[0], from[1], to), pack(from[2], from[3], to));
  } else {
    *reinterpret_cast<uint4*>(to) = make_uint4(pack(from[0], from[1], to), pack(from[2], from[3], to),
                                               pack(from[4], from[5], to), pack(from[6], from[7], to));
  }
}
template <int N> LINC_INLINE void store(bf16* to, const float* from) { store_narrow<N>(to, from); }
template <int N> LINC_INLINE void store(f16* to, const float* from) { store_narrow<N>(to, from); }

// ---- shared memory ----

LINC_INLINE float shared_load(u32 at) { return *reinterpret_cast<const float*>(linc_shared + at); }
LINC_INLINE void shared_store(u32 at, float v) { *reinterpret_cast<float*>(linc_shared + at) = v; }
// Two packed numbers of 16 bits.
LINC_INLINE void shared_store_pair(u32 at, u32 v) { *reinterpret_cast<u32*>(linc_shared + at) = v; }
// 16 bytes of elements of that type, widened as `load` does.
template <class Element, class T> LINC_INLINE void shared_load_piece(T* to, u32 at) {
  load<16 / sizeof(Element)>(to, reinterpret_cast<const Element*>(linc_shared + at));
}
// 16 bytes from shared to global memory.
LINC_INLINE void shared_to_global16(void* to, u32 from) {
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(linc_shared + from);
}

// cp.async: 16 bytes from global to shared memory, asynchronously; zeros, and nothing is read, if not `valid`.
LINC_INLINE void copy_async16(u32 to, const void* from, bool valid) {
  int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
// Ends a group of asynchronous copies.
LINC_INLINE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread's copies are under way.
template <int N> LINC_INLINE void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// ---- TMA: copies of whole tiles (sm_90) ----

// What TMA knows of the memory behind a parameter; the driver writes it.
struct __align__(128) TensorMap {
  u64 words[16];
};

// Asks for a map before it is used.
LINC_INLINE void prefetch_map(const TensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

// Warp: true in one of the lanes. A condition on its number is a loop over all lanes to the compiler.
LINC_INLINE bool elected() {
  u32 is;
  asm volatile("{.reg .pred is; elect.sync _|is, 0xffffffff; selp.u32 %0, 1, 0, is;}" : "=r"(is));
  return is;
}
// Waits for all lanes of the warp; makes their accesses to memory visible to each other.
LINC_INLINE void sync_warp() { __syncwarp(); }

// An mbarrier of 8 bytes at `at`, whose phases end when `count` have arrived and all expected bytes are there. One
// thread makes it; others may use it after fence_async() of that thread and a barrier.
LINC_INLINE void mbarrier_init(u32 at, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(count) : "memory");
}
LINC_INLINE void mbarrier_arrive(u32 at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
}
// Arrives, and lets this phase wait for so many bytes of copies.
LINC_INLINE void mbarrier_expect(u32 at, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)), "r"(bytes) : "memory");
}
// Waits for the end of the phase of that parity: the current one, or the one before it, which has ended. Before the first
// phase, one of parity 1 has ended.
LINC_INLINE void mbarrier_wait(u32 at, u32 parity) {
  asm volatile("{.reg .pred over;\nTRY:\nmbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n@over bra OVER;\nbra TRY;\nOVER:\n}" ::"r"(
                   shared_address(at)),
               "r"(parity)
               : "memory");
}

// One thread: copies the box of the map whose first element has column x and row y, swizzled as by `swizzled`,
// asynchronously. Its bytes count at the mbarrier.
LINC_INLINE void copy_tile_async(u32 to, const TensorMap& map, int x, int y, u32 mbarrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                   shared_address(to)),
               "l"(&map), "r"(x), "r"(y), "r"(shared_address(mbarrier))
               : "memory");
}

// ---- tensor cores ----

// Warp: four 8x8 matrices of 16-bit elements; lanes 8i..8i+7 give the addresses of the rows of matrix i. Lane l gets the elements
// (l/4, 2(l%4)) and (l/4, 2(l%4)+1) of matrix i in r[i].
LINC_INLINE void load_matrices(u32 (&r)[4], u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(at))
               : "memory");
}
// Warp: the same of the transposed matrices.
LINC_INLINE void load_matrices_transposed(u32 (&r)[4], u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(at))
               : "memory");
}

// Warp: c[16,8] += a[16,16] b[16,8], bf16 with f32 sums. Lane l holds of c the elements (l/4, 2(l%4)+{0,1}) in c0, c1
// and (l/4+8, ..) in c2, c3; of a, in the same pattern, the quarters (0,0), (8,0), (0,8), (8,8) in a[0..4]; of b
// (2(l%4)+{0,1}, l/4) in b0 and (2(l%4)+8+{0,1}, l/4) in b1.
LINC_INLINE void mma_bf16(float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// The same of f16.
LINC_INLINE void mma_f16(float& c0, float& c1, float& c2, float& c3, const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- products of warpgroups (sm_90a): 128 threads, the four warps of a warpgroup, come together ----

// What this thread has written to shared memory, or waited for, can be read by products after the next barrier.
LINC_INLINE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Registers that were written before can be read and added to by the products that follow.
LINC_INLINE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Ends a group of products.
LINC_INLINE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most N groups of products are under way. Until then their registers and operands must not be touched.
template <int N> LINC_INLINE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// Keeps the compiler from moving accesses to registers from one side of this to the other.
template <int R, int C> LINC_INLINE void pin(float (&v)[R][C]) {
#pragma unroll
  for (int i = 0; i < R * C; ++i) asm volatile("" : "+f"(v[i / C][i % C])::"memory");
}
template <int K, int R, int C> LINC_INLINE void pin(u32 (&v)[K][R][C]) {
#pragma unroll
  for (int i = 0; i < K * R * C; ++i) asm volatile("" : "+r"(v[i / (R * C)][i / C % R][i % C])::"memory");
}
