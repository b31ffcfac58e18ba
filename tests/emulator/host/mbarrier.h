// mbarriers, and the copies of whole tiles that count at them. Data lands when a thread waits for it and not before. What
// a thread has seen end orders it behind all who arrived (clocks.h).
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fault.h"
#include "memory.h"
#include "schedule.h"
#include "traffic.h"

namespace linc {

// What a kernel gets as a tensor map.
struct TileMap {
  uint64_t parameter;
  uint64_t stride;         // elements from row to row
  uint32_t rows, columns;  // of a box
};

struct TileCopy {
  uint32_t to;
  TileMap map;
  uint64_t from;  // bytes into the parameter
  unsigned thread;

  uint32_t row_bytes() const { return map.columns * parameters[map.parameter].element; }
  uint32_t bytes() const { return map.rows * row_bytes(); }
  // Where a piece of 16 bytes of a row lands.
  uint32_t place(uint32_t row, uint32_t piece) const {
    return exchanged(to + row * row_bytes() + piece * 16, row_bytes() / 16);
  }
};

struct Mbarrier {
  uint32_t at, count;
  unsigned maker;
  uint32_t made;           // epoch
  uint32_t fences_before;  // of the maker
  uint32_t pending;        // arrivals that the phase still waits for
  int64_t expected = 0;    // bytes
  uint32_t ended = 0;      // phases
  std::vector<TileCopy> copies;
  Clock arriving, arrived;        // of the phase, of those that have ended
  std::vector<uint32_t> seen;     // by thread: ended phases that it has waited for
  std::vector<uint32_t> seen_by_all;  // by warp
};
inline std::vector<Mbarrier> mbarriers;

inline Mbarrier& find_mbarrier(uint32_t at, const char* what) {
  unsigned thread = block.current->id;
  auto found = std::find_if(mbarriers.begin(), mbarriers.end(), [=](const Mbarrier& m) { return m.at == at; });
  if (found == mbarriers.end()) fault("mbarrier", thread, "%s at shared byte %u, where no mbarrier is", what, at);
  if (found->made == block.epoch && found->maker != thread) {
    fault("mbarrier", thread, "%s of the mbarrier at shared byte %u, which thread %u has made, with no barrier in between",
          what, at, found->maker);
  }
  return *found;
}

inline bool has_seen(const Landing& landing, unsigned warp) {
  return mbarriers[landing.mbarrier].seen_by_all[warp] > landing.phase;
}

inline void make_mbarrier(uint32_t at, uint32_t count) {
  unsigned thread = block.current->id;
  touch_shared_write(at, 8, thread, "mbarrier_init");
  if (count == 0) fault("mbarrier", thread, "an mbarrier that waits for nobody");
  for (uint32_t word = at / 4; word < at / 4 + 2; word++) shared.words[word].copying = MBARRIER;
  Mbarrier fresh{};
  fresh.at = at, fresh.count = fresh.pending = count, fresh.maker = thread, fresh.made = block.epoch;
  fresh.fences_before = async_fences[thread].size();
  fresh.arriving = fresh.arrived = Clock(block.threads.size() / WARP);
  fresh.seen.resize(block.threads.size()), fresh.seen_by_all.resize(block.threads.size() / WARP);
  mbarriers.push_back(std::move(fresh));
}

// Ends the phase if nothing is missing.
inline void try_to_end(Mbarrier& m) {
  if (m.pending > 0 || m.expected != 0) return;
  m.ended++;
  m.pending = m.count;
  join(m.arrived, m.arriving);
  for (Thread& thread : block.threads) {
    if (thread.state == State::AT_MBARRIER && thread.mbarrier == m.at) make_ready(thread);
  }
}

inline void arrive(uint32_t at, uint32_t bytes, const char* what) {
  Mbarrier& m = find_mbarrier(at, what);
  unsigned thread = block.current->id;
  if (m.pending == 0) fault("mbarrier", thread, "%s at shared byte %u: more than %u arrive in one phase", what, at, m.count);
  m.pending--;
  m.expected += bytes;
  // All that this thread knows, and what its warp has done up to where its lanes met.
  join(m.arriving, knowledge.of[thread]);
  try_to_end(m);
}

inline void land(Mbarrier& m) {
  for (const TileCopy& copy : m.copies) {
    const unsigned char* from = &parameters[copy.map.parameter].bytes[copy.from];
    uint64_t stride = copy.map.stride * parameters[copy.map.parameter].element;
    for (uint32_t row = 0; row < copy.map.rows; row++) {
      for (uint32_t piece = 0; piece < copy.row_bytes() / 16; piece++) {
        uint32_t at = copy.place(row, piece);
        memcpy(&shared.bytes[at], from + row * stride + piece * 16, 16);
        for (uint32_t word = at / 4; word < at / 4 + 4; word++) {
          shared.words[word].copying = 0;
          note_shared_write(word, ENGINE);
        }
        knowledge.landings[at / 16] = {unsigned(&m - mbarriers.data()), m.ended};
      }
    }
    m.expected -= copy.bytes();
  }
  m.copies.clear();
}

inline void wait_for_phase(uint32_t at, uint32_t parity) {
  Thread& self = *block.current;
  for (;;) {
    Mbarrier& m = find_mbarrier(at, "mbarrier_wait");
    if (m.ended % 2 != parity % 2) {
      join(knowledge.of[self.id], m.arrived);
      knowledge.told[self.id] = false;
      m.seen[self.id] = m.ended;
      auto first = m.seen.begin() + self.warp * WARP;
      m.seen_by_all[self.warp] = *std::min_element(first, first + WARP);
      return;
    }
    if (!m.copies.empty()) {
      land(m);
      try_to_end(m);
    } else {
      self.mbarrier = at;
      park(State::AT_MBARRIER);
    }
  }
}

inline void copy_tile(uint32_t to, const TileMap& map, int x, int y, uint32_t at) {
  unsigned thread = block.current->id;
  const char* what = "copy_tile_async";
  Mbarrier& m = find_mbarrier(at, what);
  if (!announced(m.maker, m.fences_before)) {
    fault("unfenced", thread, "%s to the mbarrier at shared byte %u, which was made with no fence_async() and barrier behind",
          what, at);
  }
  Parameter& parameter = parameters[map.parameter];
  TileCopy copy{to, map, 0, thread};
  if (to % 128 != 0) fault("misaligned", thread, "%s to shared byte %u, which is no multiple of 128", what, to);
  if (uint64_t(to) + copy.bytes() > shared.bytes.size()) {
    fault("shared-bounds", thread, "%s of %u bytes at shared byte %u, but the block has %zu", what, copy.bytes(), to,
          shared.bytes.size());
  }
  // The rows of a map are as long as its stride. What is beyond would become zeros, which no kernel asks for.
  uint64_t column = uint64_t(x), last = (uint64_t(y) + map.rows - 1) * map.stride + column + map.columns;
  if (x < 0 || y < 0 || column + map.columns > map.stride || last * parameter.element > parameter.bytes.size()) {
    fault("out-of-bounds", thread, "%s of %u rows and %u columns at row %d, column %d of %s, which has %zu elements in rows of %llu",
          what, map.rows, map.columns, y, x, parameter.name.c_str(), parameter.bytes.size() / parameter.element,
          (unsigned long long)map.stride);
  }
  copy.from = (uint64_t(y) * map.stride + column) * parameter.element;
  for (uint32_t row = 0; row < map.rows; row++) {
    for (uint32_t piece = 0; piece < copy.row_bytes() / 16; piece++) {
      begin_tile_copy(copy.place(row, piece), thread, what);
    }
  }
  uint64_t address = parameter.base + copy.from;
  Traffic& traffic = global_traffic[map.parameter * ACCESSES + static_cast<int>(Access::COPY)];
  for (uint32_t row = 0; row < map.rows; row++, address += map.stride * parameter.element) {
    traffic.accesses++;
    traffic.units += (address + copy.row_bytes() - 1) / SECTOR - address / SECTOR + 1;
    traffic.least += copy.row_bytes() / SECTOR;
  }
  m.copies.push_back(copy);
  block.operations[static_cast<int>(Operation::COPY_TILE)]++;
}

// The end of a block.
inline void check_mbarriers_done() {
  for (Mbarrier& m : mbarriers) {
    if (!m.copies.empty()) {
      fault("copy-unfinished", m.copies[0].thread, "the block ends with a tile under way to shared byte %u",
            m.copies[0].to);
    }
    for (uint32_t word = m.at / 4; word < m.at / 4 + 2; word++) shared.words[word].copying = 0;
  }
  mbarriers.clear();
}

}  // namespace linc
