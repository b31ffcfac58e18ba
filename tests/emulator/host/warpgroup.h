// Products of warpgroups: 128 threads multiply together, read operands from shared memory through descriptors, and get
// results in their registers only when they wait. Until then the registers hold NaN, so that a result that is used too
// early shows.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "fault.h"
#include "memory.h"
#include "schedule.h"

namespace linc {

constexpr unsigned GROUP_ROWS = 64, STEP = 16;

// What one thread brings to a product: 64 rows of `left` by `columns` columns of `right`.
struct Product {
  float *upper, *lower;    // two registers of each eight columns, of a row and of the one eight below
  unsigned columns;
  const uint32_t* left;    // the thread's part of the left operand, or none: it is in shared memory
  uint64_t left_at, right_at;
  bool left_across, right_across;  // the inner axis goes down the rows of the tile
  bool add, half;

  unsigned per_row() const { return columns / 4; }
};

// Registers that a product under way will write, with what they will be.
struct InFlight {
  float *upper, *lower;
  std::vector<float> values;  // those of `upper`, then those of `lower`
  unsigned group;             // the last that adds to them
};

// Registers and memory that a product under way reads.
struct Reading {
  const uint32_t* left;
  uint32_t values[4];
  std::vector<uint32_t> pieces;  // of shared memory; for the first lane of a warp only
  uint32_t epoch;
  unsigned group;
};

// Of one thread.
struct Products {
  unsigned committed = 0;  // groups
  bool fenced = false;     // registers are ready for a product
  std::vector<InFlight> results;
  std::vector<Reading> readings;
};
inline std::vector<Products> products;

// A number of 16 bits: f16 if `half`, else bf16. As in emulator.h.
inline float widen(uint32_t bits, bool half = false) {
  auto number = [](uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
  };
  if (!half) return number(bits << 16);
  uint32_t wide = (bits & 0x7fff) << 13, sign = (bits & 0x8000) << 16;
  float value = wide >= 0x0f800000 ? number(wide | 0x7f800000) : number(wide) * 0x1p112f;
  return sign ? -value : value;
}

// A matrix in shared memory as the device reads it (PTX ISA, "matrix descriptor").
struct Descriptor {
  uint32_t start, panel, eight_rows, pieces;

  Descriptor(uint64_t bits, unsigned thread) {
    start = (bits & 0x3fff) * 16, panel = (bits >> 16 & 0x3fff) * 16, eight_rows = (bits >> 32 & 0x3fff) * 16;
    unsigned pattern = bits >> 62;
    if (pattern == 0) fault("descriptor", thread, "a matrix descriptor without a pattern of exchange");
    pieces = 16 >> pattern;
    if ((bits >> 46 & 0xffff) != 0 || (bits >> 30 & 3) != 0) {
      fault("descriptor", thread, "a matrix descriptor with bits that mean nothing here: %#llx",
            (unsigned long long)bits);
    }
  }

  // Address of the eight elements from `outer`, `inner` on that follow each other along the rows of the tile.
  uint32_t piece(unsigned outer, unsigned inner, bool across) const {
    unsigned row_bytes = pieces * 16, at = start;
    if (across) {
      unsigned per_panel = pieces * 8;
      at += outer / per_panel * panel + outer % per_panel * 2 + inner / 8 * eight_rows + inner % 8 * row_bytes;
    } else {
      at += outer / 8 * eight_rows + outer % 8 * row_bytes + inner * 2;
    }
    return exchanged(at, pieces);
  }
};

// What a thread wrote is seen by products only if it has said so between the write and a barrier.
inline void check_fenced(uint32_t at, unsigned thread) {
  for (uint32_t word = at / 4; word < at / 4 + 4; word++) {
    Actor writer = shared.words[word].writer;
    if (writer == ENGINE) continue;  // the same way
    if (!announced(writer, shared.fences_before[word])) {
      fault("unfenced", thread,
            "wgmma reads shared byte %u, which thread %u has written with no fence_async() and barrier behind",
            word * 4, writer);
    }
  }
}

// One operand: `count` times 16 elements.
inline std::vector<float> read_operand(uint64_t bits, unsigned count, bool across, bool half, unsigned group,
                                       std::vector<uint32_t>& pieces) {
  unsigned thread = group * WARPGROUP;
  Descriptor descriptor(bits, thread);
  std::vector<float> values(count * STEP);
  unsigned outer_step = across ? 8 : 1, inner_step = across ? 1 : 8;
  for (unsigned outer = 0; outer < count; outer += outer_step) {
    for (unsigned inner = 0; inner < STEP; inner += inner_step) {
      uint32_t at = descriptor.piece(outer, inner, across);
      touch_shared_read(at, 16, FIRST_GROUP + group, thread, "wgmma");
      check_fenced(at, thread);
      pieces.push_back(at);
      uint16_t elements[8];
      memcpy(elements, &shared.bytes[at], 16);
      for (unsigned e = 0; e < 8; e++) {
        values[across ? (outer + e) * STEP + inner : outer * STEP + inner + e] = widen(elements[e], half);
      }
    }
  }
  return values;
}

inline std::vector<float> left_in_registers(void* const* operands) {
  std::vector<float> values(GROUP_ROWS * STEP);
  for (unsigned thread = 0; thread < WARPGROUP; thread++) {
    const Product& own = *static_cast<Product*>(operands[thread]);
    unsigned lane = thread % WARP, row = thread / WARP * 16 + lane / 4, column = lane % 4 * 2;
    for (unsigned i = 0; i < 4; i++) {
      float* to = &values[(row + i % 2 * 8) * STEP + column + i / 2 * 8];
      to[0] = widen(own.left[i] & 0xffff, own.half), to[1] = widen(own.left[i] >> 16, own.half);
    }
  }
  return values;
}

// The values that a thread's registers have once all products before are done.
inline InFlight& results_of(const Product& own, Products& state) {
  for (InFlight& result : state.results) {
    if (result.upper == own.upper) return result;
  }
  unsigned count = own.per_row();
  InFlight fresh{own.upper, own.lower, std::vector<float>(own.upper, own.upper + count), 0};
  fresh.values.insert(fresh.values.end(), own.lower, own.lower + count);
  state.results.push_back(std::move(fresh));
  return state.results.back();
}

// result[64, columns] += left right; each sum in ascending k, one rounding per step.
inline void multiply(void* const* operands, unsigned group) {
  const Product& first = *static_cast<Product*>(operands[0]);
  for (unsigned thread = 0; thread < WARPGROUP; thread++) {
    const Product& own = *static_cast<Product*>(operands[thread]);
    unsigned id = group * WARPGROUP + thread;
    bool same = own.columns == first.columns && !own.left == !first.left && own.left_at == first.left_at &&
                own.right_at == first.right_at && own.left_across == first.left_across &&
                own.right_across == first.right_across && own.add == first.add && own.half == first.half;
    if (!same) fault("divergence", id, "thread %u brings another product than the first of its warpgroup", id);
    if (!products[id].fenced) {
      fault("unfenced", id, "thread %u comes to wgmma with no wgmma_fence() behind what it did before", id);
    }
  }
  std::vector<uint32_t> pieces;
  std::vector<float> left = first.left ? left_in_registers(operands)
                                       : read_operand(first.left_at, GROUP_ROWS, first.left_across, first.half, group, pieces);
  std::vector<float> right = read_operand(first.right_at, first.columns, first.right_across, first.half, group, pieces);
  for (unsigned thread = 0; thread < WARPGROUP; thread++) {
    const Product& own = *static_cast<Product*>(operands[thread]);
    Products& state = products[group * WARPGROUP + thread];
    InFlight& result = results_of(own, state);
    unsigned lane = thread % WARP, count = own.per_row();
    for (unsigned i = 0; i < 2 * count; i++) {
      unsigned row = thread / WARP * 16 + lane / 4 + i / count * 8;
      unsigned column = i % count / 2 * 8 + lane % 4 * 2 + i % 2;
      float sum = own.add ? result.values[i] : 0;
      for (unsigned k = 0; k < STEP; k++) sum += left[row * STEP + k] * right[column * STEP + k];
      result.values[i] = sum;
      (i < count ? own.upper : own.lower)[i % count] = NAN;
    }
    result.group = state.committed;
    Reading reading{own.left, {}, {}, block.epoch, state.committed};
    if (own.left) memcpy(reading.values, own.left, sizeof reading.values);
    if (thread % WARP == 0) reading.pieces = pieces;
    state.readings.push_back(std::move(reading));
  }
}

// Ends those products of the running thread that are not of its last `groups` groups.
inline void land_products(unsigned groups) {
  unsigned id = block.current->id;
  Products& state = products[id];
  auto over = [&](unsigned group) { return group < state.committed && group + groups < state.committed; };
  for (size_t i = 0; i < state.readings.size();) {
    const Reading& reading = state.readings[i];
    if (!over(reading.group)) {
      i++;
      continue;
    }
    if (reading.left && memcmp(reading.left, reading.values, sizeof reading.values) != 0) {
      fault("product-pending", id, "thread %u changes registers that a product under way reads", id);
    }
    // Somebody may have passed a barrier and written since.
    if (reading.epoch != block.epoch && id % WARPGROUP == 0) {
      for (uint32_t at : reading.pieces) {
        touch_shared_read(at, 16, FIRST_GROUP + id / WARPGROUP, id, "a product under way");
      }
    }
    // The warp has read until now.
    if (knowledge.kept) {
      for (uint32_t at : reading.pieces) {
        check_no_copy(shared.words[at / 4], at / 4, id, "a product under way");
        check_landed(at / 4, FIRST_WARP + id / WARP, id, "reads");
        note_warp_read(at / 4, id / WARP);
      }
    }
    state.readings.erase(state.readings.begin() + i);
  }
  for (size_t i = 0; i < state.results.size();) {
    InFlight& result = state.results[i];
    if (!over(result.group)) {
      i++;
      continue;
    }
    size_t count = result.values.size() / 2;
    memcpy(result.upper, result.values.data(), count * sizeof(float));
    memcpy(result.lower, result.values.data() + count, count * sizeof(float));
    state.results.erase(state.results.begin() + i);
  }
}

// The end of the running thread.
inline void check_products_done() {
  unsigned id = block.current->id;
  if (!products[id].results.empty()) {
    fault("product-pending", id, "thread %u ends with products under way", id);
  }
  products[id] = Products();
}

}  // namespace linc
