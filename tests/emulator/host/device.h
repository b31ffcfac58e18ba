// The functions of interface.h: what an instruction of the device does.
#pragma once
#include <cstdint>
#include <cstring>

#include "interface.h"
#include "mbarrier.h"
#include "memory.h"
#include "schedule.h"
#include "traffic.h"
#include "warpgroup.h"

// Not inlined, so that the return address tells the calls in a kernel apart.
#define LINC_CALLED extern "C" __attribute__((noinline, used))
#define LINC_CALL __builtin_return_address(0)

LincIndex3 linc_thread_index, linc_block_index;

LINC_CALLED void linc_barrier() { linc::wait_at_barrier(linc::advance_all); }

// ---- memory ----

LINC_CALLED void linc_global_load(void* to, const void* from, unsigned bytes) {
  linc::Place place = linc::check_global(from, bytes, "load");
  linc::touch_global_read(place, bytes, "load");
  linc::global_accesses.add(LINC_CALL, linc::Access::LOAD, place.number, reinterpret_cast<uintptr_t>(from), bytes);
  memcpy(to, &place.parameter.bytes[place.offset], bytes);
}

LINC_CALLED void linc_global_store(void* to, const void* from, unsigned bytes) {
  linc::Place place = linc::check_global(to, bytes, "store");
  linc::touch_global_write(place, bytes, "store");
  linc::global_accesses.add(LINC_CALL, linc::Access::STORE, place.number, reinterpret_cast<uintptr_t>(to), bytes);
  memcpy(&place.parameter.bytes[place.offset], from, bytes);
}

LINC_CALLED void linc_shared_load(void* to, unsigned from, unsigned bytes) {
  unsigned thread = linc::block.current->id;
  linc::touch_shared_read(from, bytes, thread, thread, "load");
  linc::shared_accesses.add(LINC_CALL, linc::Access::LOAD, 0, from, bytes);
  memcpy(to, &linc::shared.bytes[from], bytes);
}

LINC_CALLED void linc_shared_store(unsigned to, const void* from, unsigned bytes) {
  linc::touch_shared_write(to, bytes, linc::block.current->id, "store");
  linc::shared_accesses.add(LINC_CALL, linc::Access::STORE, 0, to, bytes);
  memcpy(&linc::shared.bytes[to], from, bytes);
}

LINC_CALLED void linc_copy_async16(unsigned to, const void* from, bool valid) {
  const unsigned char* source = nullptr;
  if (valid) {
    linc::Place place = linc::check_global(from, 16, "copy_async16");
    linc::touch_global_read(place, 16, "copy_async16");
    linc::global_accesses.add(LINC_CALL, linc::Access::COPY, place.number, reinterpret_cast<uintptr_t>(from), 16);
    source = &place.parameter.bytes[place.offset];
  }
  linc::begin_copy(to, source);
  linc::shared_accesses.add(LINC_CALL, linc::Access::COPY, 0, to, 16);
}

LINC_CALLED void linc_copy_async_commit() {
  linc::Copies& own = linc::copies[linc::block.current->id];
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}

LINC_CALLED void linc_copy_async_wait(unsigned groups) { linc::land_copies(groups); }

// ---- warps ----

namespace linc {

struct Shuffle {
  float value;
  int from;  // the lane to take from, or the mask
  float result;
};

struct Matrices {
  uint32_t at;
  uint32_t r[4];
};

struct Mma {
  float* const* c;
  const uint32_t* a;
  uint32_t b[2];
  bool half;
};

// Row `row` of matrix `i` lies at the address that lane 8i + row gives. The reader is the warp: what a lane wrote for
// itself reaches the other lanes only by a barrier.
inline void load_matrices(void* const* operands, unsigned warp, bool transposed) {
  const char* what = transposed ? "load_matrices_transposed" : "load_matrices";
  WarpAccess access;
  access.bytes = 16, access.lanes = ~0u, access.parameter = 0;
  uint16_t elements[4][8][8];
  for (unsigned lane = 0; lane < WARP; lane++) {
    uint32_t at = static_cast<Matrices*>(operands[lane])->at;
    touch_shared_read(at, 16, FIRST_WARP + warp, warp * WARP + lane, what);
    access.address[lane] = at;
    memcpy(elements[lane / 8][lane % 8], &shared.bytes[at], 16);
  }
  count_wavefronts(access, shared_traffic[static_cast<int>(Access::MATRICES)]);
  for (unsigned lane = 0; lane < WARP; lane++) {
    unsigned row = lane / 4, column = lane % 4 * 2;
    for (unsigned i = 0; i < 4; i++) {
      auto& matrix = elements[i];
      uint32_t low = transposed ? matrix[column][row] : matrix[row][column];
      uint32_t high = transposed ? matrix[column + 1][row] : matrix[row][column + 1];
      static_cast<Matrices*>(operands[lane])->r[i] = low | high << 16;
    }
  }
}

// c[16,8] += a[16,16] b[16,8]; each sum in ascending k, one rounding per step.
inline void mma(void* const* operands) {
  float a[16][16], b[16][8], c[16][8];
  for (unsigned lane = 0; lane < WARP; lane++) {
    const Mma& own = *static_cast<Mma*>(operands[lane]);
    unsigned group = lane / 4, pair = lane % 4 * 2;
    for (unsigned i = 0; i < 4; i++) {
      unsigned row = group + i % 2 * 8, column = pair + i / 2 * 8;
      a[row][column] = widen(own.a[i] & 0xffff, own.half), a[row][column + 1] = widen(own.a[i] >> 16, own.half);
      c[group + i / 2 * 8][pair + i % 2] = *own.c[i];
    }
    for (unsigned i = 0; i < 2; i++) {
      b[pair + i * 8][group] = widen(own.b[i] & 0xffff, own.half);
      b[pair + i * 8 + 1][group] = widen(own.b[i] >> 16, own.half);
    }
  }
  for (unsigned row = 0; row < 16; row++) {
    for (unsigned k = 0; k < 16; k++) {
      for (unsigned column = 0; column < 8; column++) c[row][column] += a[row][k] * b[k][column];
    }
  }
  for (unsigned lane = 0; lane < WARP; lane++) {
    const Mma& own = *static_cast<Mma*>(operands[lane]);
    for (unsigned i = 0; i < 4; i++) *own.c[i] = c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

}  // namespace linc

LINC_CALLED float linc_shuffle_xor(float v, int mask) {
  linc::Shuffle own{v, mask, 0};
  linc::meet(linc::Operation::SHUFFLE_XOR, &own, [](void* const* operands) {
    for (unsigned lane = 0; lane < linc::WARP; lane++) {
      linc::Shuffle& to = *static_cast<linc::Shuffle*>(operands[lane]);
      to.result = static_cast<linc::Shuffle*>(operands[(lane ^ to.from) % linc::WARP])->value;
    }
  });
  return own.result;
}

LINC_CALLED float linc_shuffle(float v, int from) {
  linc::Shuffle own{v, from, 0};
  linc::meet(linc::Operation::SHUFFLE, &own, [](void* const* operands) {
    for (unsigned lane = 0; lane < linc::WARP; lane++) {
      linc::Shuffle& to = *static_cast<linc::Shuffle*>(operands[lane]);
      to.result = static_cast<linc::Shuffle*>(operands[unsigned(to.from) % linc::WARP])->value;
    }
  });
  return own.result;
}

LINC_CALLED void linc_load_matrices(unsigned* r, unsigned at, bool transposed) {
  linc::Matrices own{at, {}};
  auto operation = transposed ? linc::Operation::LOAD_MATRICES_TRANSPOSED : linc::Operation::LOAD_MATRICES;
  unsigned warp = linc::block.current->warp;
  linc::meet(operation, &own, [=](void* const* operands) { linc::load_matrices(operands, warp, transposed); });
  memcpy(r, own.r, sizeof own.r);
}

LINC_CALLED void linc_mma(float* const* c, const unsigned* a, unsigned b0, unsigned b1, bool half) {
  linc::Mma own{c, a, {b0, b1}, half};
  linc::meet(linc::Operation::MMA, &own, linc::mma);
}

LINC_CALLED void linc_sync_warp() {
  unsigned warp = linc::block.current->warp;
  linc::meet(linc::Operation::SYNC_WARP, nullptr, [=](void* const*) {
    if (linc::knowledge.kept) linc::advance(warp);
  });
}

// Any lane may be the one: here the last that comes, which depends on the order.
LINC_CALLED bool linc_elected() {
  bool own = false;
  linc::meet(linc::Operation::ELECT, &own, [](void* const* operands) {
    *static_cast<bool*>(operands[linc::block.current->lane]) = true;
  });
  return own;
}

// ---- tiles ----

LINC_CALLED void linc_mbarrier_init(unsigned at, unsigned count) { linc::make_mbarrier(at, count); }
LINC_CALLED void linc_mbarrier_arrive(unsigned at, unsigned bytes) {
  linc::arrive(at, bytes, bytes > 0 ? "mbarrier_expect" : "mbarrier_arrive");
}
LINC_CALLED void linc_mbarrier_wait(unsigned at, unsigned parity) { linc::wait_for_phase(at, parity); }
LINC_CALLED void linc_copy_tile(unsigned to, const void* map, int x, int y, unsigned mbarrier) {
  linc::TileMap own;
  memcpy(&own, map, sizeof own);
  linc::copy_tile(to, own, x, y, mbarrier);
}

// ---- warpgroups ----

LINC_CALLED void linc_fence_async() {
  unsigned thread = linc::block.current->id;
  linc::async_fences[thread].push_back(linc::block.epoch);
  if (linc::knowledge.kept) linc::knowledge.fences[thread]++, linc::knowledge.told[thread] = true;
}

LINC_CALLED void linc_wgmma_fence() { linc::products[linc::block.current->id].fenced = true; }

LINC_CALLED void linc_wgmma_commit() {
  linc::Products& own = linc::products[linc::block.current->id];
  own.committed++;
  own.fenced = false;
}

LINC_CALLED void linc_wgmma_wait(unsigned groups) { linc::land_products(groups); }

LINC_CALLED void linc_wgmma(float* upper, float* lower, unsigned columns, const unsigned* left,
                            unsigned long long left_at, bool left_across, unsigned long long right_at,
                            bool right_across, bool add, bool half) {
  linc::Product own{upper, lower, columns, left, left_at, right_at, left_across, right_across, add, half};
  unsigned group = linc::block.current->id / linc::WARPGROUP;
  linc::meet_warpgroup(linc::Operation::WGMMA, &own, [=](void* const* operands) { linc::multiply(operands, group); });
}
