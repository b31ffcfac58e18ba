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

// Kept for kernels with tensor maps only.
struct Knowledge {
  bool kept = false;
  Clock now;                     // by warp: how often its lanes have met
  std::vector<Clock> of;         // by thread
  std::vector<uint32_t> read;    // by piece of 16 bytes and warp: what the warp's clock was, plus one
  std::vector<Landing> landings; // by piece; where the last writer was a tile
};
inline Knowledge knowledge;

// All lanes of a warp have met.
inline void advance(unsigned warp) {
  knowledge.now[warp]++;
  for (unsigned lane = 1; lane < WARP; lane++) join(knowledge.of[warp * WARP], knowledge.of[warp * WARP + lane]);
  knowledge.of[warp * WARP][warp] = knowledge.now[warp];
  for (unsigned lane = 1; lane < WARP; lane++) knowledge.of[warp * WARP + lane] = knowledge.of[warp * WARP];
}

// All threads have met.
inline void advance_all() {
  if (!knowledge.kept) return;
  for (uint32_t& clock : knowledge.now) clock++;
  for (Clock& known : knowledge.of) known = knowledge.now;
}

}  // namespace linc
