// Order by mbarriers, which a barrier of the block does not need: a warp's clock says how often its lanes have met, and each
// thread keeps the latest that it knows of every warp. Who arrives at an mbarrier hands on what it knows, who waits for
// it takes that over (mbarrier.h). What a warp read before its clock stood where another thread knows it to be, is over.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "schedule.h"

namespace linc {

// What somebody knows of each warp: how often its lanes had met when it said so.
typedef std::vector<uint32_t> Clock;
inline void join(Clock& to, const Clock& other) {
  for (size_t i = 0; i < to.size(); i++) to[i] = std::max(to[i], other[i]);
}

// A tile that landed in a phase of an mbarrier.
struct Landing {
  unsigned mbarrier;
  uint32_t phase;
};

// The last read of a piece by a thread of a warp, and how often that thread had told the engine.
struct Touch {
  unsigned thread;
  uint32_t fences;
};
constexpr unsigned UNTOUCHED = ~0u;

// Kept for kernels with tensor maps only.
struct Knowledge {
  bool kept = false;
  Clock now;                     // by warp: how often its lanes have met
  std::vector<Clock> of;         // by thread
  std::vector<uint32_t> read;    // by piece of 16 bytes and warp: what the warp's clock was, plus one
  std::vector<Landing> landings; // by piece; where the last writer was a tile

  // The engine's way to memory is not the threads' own: what they have read must be told as well, by themselves before
  // a barrier, or by the copying thread when it knows that they are done.
  std::vector<Touch> touched;         // by piece and warp
  std::vector<uint32_t> fences, met;  // by thread: how often it has told, and had when the block met last
  std::vector<bool> told;             // by thread: since it waited for others
};
inline Knowledge knowledge;

// All lanes of a warp have met.
inline void advance(unsigned warp) {
  knowledge.now[warp]++;
  for (unsigned lane = 1; lane < WARP; lane++) join(knowledge.of[warp * WARP], knowledge.of[warp * WARP + lane]);
  knowledge.of[warp * WARP][warp] = knowledge.now[warp];
  for (unsigned lane = 1; lane < WARP; lane++) knowledge.of[warp * WARP + lane] = knowledge.of[warp * WARP];
  for (unsigned lane = 0; lane < WARP; lane++) knowledge.told[warp * WARP + lane] = false;
}

// All threads have met.
inline void advance_all() {
  if (!knowledge.kept) return;
  for (uint32_t& clock : knowledge.now) clock++;
  for (Clock& known : knowledge.of) known = knowledge.now;
  knowledge.met = knowledge.fences;
  knowledge.told.assign(knowledge.told.size(), false);
}

// A block begins, to which nothing that was before matters.
inline void advance_block() {
  advance_all();
  std::fill(knowledge.touched.begin(), knowledge.touched.end(), Touch{UNTOUCHED, 0});
}

// Whether the engine has been told of what threads read of a piece, as far as the copying thread needs it.
inline bool told(uint32_t piece, unsigned thread) {
  if (knowledge.told[thread]) return true;
  size_t warps = knowledge.now.size();
  return std::all_of(&knowledge.touched[piece * warps], &knowledge.touched[piece * warps] + warps, [](const Touch& last) {
    return last.thread == UNTOUCHED || knowledge.met[last.thread] > last.fences;
  });
}

}  // namespace linc
