// The border between a kernel's text (emulator.h) and the runtime: plain declarations, so that neither side includes
// what the other needs. Pointers to global memory are numbers that the runtime hands out (memory.h) and nobody else
// may follow; addresses of shared memory are byte offsets, as on the device.
#pragma once

struct LincIndex3 {
  unsigned x, y, z;
};

// How a kernel's text makes itself known: one static object per entry point.
struct LincEntry {
  LincEntry(const char* key, const char* signature, void (*launch)(void* const*));
  const char* key;
  // One letter per parameter: `f` float, `b` bf16, `h` f16, `i` int; capital where the kernel may write; `t` a tensor map.
  const char* signature;
  // Calls the kernel as the running thread. An argument is the pointer that the kernel gets, or one to a tensor map.
  void (*launch)(void* const* arguments);
  LincEntry* next;
};

extern LincIndex3 linc_thread_index, linc_block_index;

extern "C" {
void linc_barrier();

// Operations that all lanes of a warp do together.
float linc_shuffle_xor(float v, int mask);
float linc_shuffle(float v, int from);
void linc_load_matrices(unsigned* r, unsigned at, bool transposed);
// Operands are f16 if `half`, else bf16.
void linc_mma(float* const* c, const unsigned* a, unsigned b0, unsigned b1, bool half);

void linc_sync_warp();
bool linc_elected();

// Operations of the four warps of a warpgroup.
void linc_fence_async();
void linc_wgmma_fence();
void linc_wgmma_commit();
void linc_wgmma_wait(unsigned groups);
// The left operand is in `left`, or where `left_at` says; f16 if `half`, else bf16.
void linc_wgmma(float* upper, float* lower, unsigned columns, const unsigned* left, unsigned long long left_at,
                bool left_across, unsigned long long right_at, bool right_across, bool add, bool half);

// Memory. `bytes` is the size of one access of one thread.
void linc_global_load(void* to, const void* from, unsigned bytes);
void linc_global_store(void* to, const void* from, unsigned bytes);
void linc_shared_load(void* to, unsigned from, unsigned bytes);
void linc_shared_store(unsigned to, const void* from, unsigned bytes);
void linc_copy_async16(unsigned to, const void* from, bool valid);
void linc_copy_async_commit();
void linc_copy_async_wait(unsigned groups);

// mbarriers, and copies of tiles by the map that the runtime has made.
void linc_mbarrier_init(unsigned at, unsigned count);
void linc_mbarrier_arrive(unsigned at, unsigned bytes);
void linc_mbarrier_wait(unsigned at, unsigned parity);
void linc_copy_tile(unsigned to, const void* map, int x, int y, unsigned mbarrier);
}
