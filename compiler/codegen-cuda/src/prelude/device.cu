// What generated kernels call, for NVIDIA GPUs. All inline PTX of linc is here; nothing is included. A host twin with
// the same names runs the same kernels in tests. Addresses of shared memory are byte offsets (u32) into the block's
// dynamic shared memory. Functions that say "warp" are called by all 32 lanes together.
#define LINC_INLINE __device__ __forceinline__

typedef unsigned short bf16;
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

// ---- bf16 ----

// Two values rounded to nearest even, the first in the low half.
LINC_INLINE u32 pack_bf16(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
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

// ---- global memory: N neighbouring elements in one access, aligned to its size; bf16 is widened and rounded ----

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

LINC_INLINE void widen_bf16(float* to, u32 packed) {
  to[0] = __uint_as_float(packed << 16), to[1] = __uint_as_float(packed & 0xffff0000u);
}

template <int N> LINC_INLINE void load(float* to, const bf16* from) {
  static_assert(N == 1 || N == 2 || N == 4 || N == 8, "an access has 2, 4, 8 or 16 bytes");
  if constexpr (N == 1) {
    to[0] = __uint_as_float((u32)*from << 16);
  } else if constexpr (N == 2) {
    widen_bf16(to, *reinterpret_cast<const u32*>(from));
  } else if constexpr (N == 4) {
    uint2 v = *reinterpret_cast<const uint2*>(from);
    widen_bf16(to, v.x), widen_bf16(to + 2, v.y);
  } else {
    uint4 v = *reinterpret_cast<const uint4*>(from);
    widen_bf16(to, v.x), widen_bf16(to + 2, v.y), widen_bf16(to + 4, v.z), widen_bf16(to + 6, v.w);
  }
}

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

template <int N> LINC_INLINE void store(bf16* to, const float* from) {
  static_assert(N == 1 || N == 2 || N == 4 || N == 8, "an access has 2, 4, 8 or 16 bytes");
  if constexpr (N == 1) {
    *to = (bf16)pack_bf16(from[0], 0.0f);
  } else if constexpr (N == 2) {
    *reinterpret_cast<u32*>(to) = pack_bf16(from[0], from[1]);
  } else if constexpr (N == 4) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack_bf16(from[0], from[1]), pack_bf16(from[2], from[3]));
  } else {
    *reinterpret_cast<uint4*>(to) = make_uint4(pack_bf16(from[0], from[1]), pack_bf16(from[2], from[3]),
                                               pack_bf16(from[4], from[5]), pack_bf16(from[6], from[7]));
  }
}

// ---- shared memory ----

LINC_INLINE float shared_load(u32 at) { return *reinterpret_cast<const float*>(linc_shared + at); }
LINC_INLINE void shared_store(u32 at, float v) { *reinterpret_cast<float*>(linc_shared + at) = v; }
// Two packed bf16.
LINC_INLINE void shared_store_bf16x2(u32 at, u32 v) { *reinterpret_cast<u32*>(linc_shared + at) = v; }
// 16 bytes from shared to global memory.
LINC_INLINE void shared_to_global16(void* to, u32 from) {
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(linc_shared + from);
}

// 16 bytes from global to shared memory, in the background; zeros, and nothing is read, if not `valid`.
LINC_INLINE void copy_async16(u32 to, const void* from, bool valid) {
  int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
// Ends a group of background copies.
LINC_INLINE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread's copies are under way.
template <int N> LINC_INLINE void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// ---- tensor cores ----

// Warp: four 8x8 matrices of bf16; lanes 8i..8i+7 give the addresses of the rows of matrix i. Lane l gets the elements
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
