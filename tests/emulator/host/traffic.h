// What memory accesses would cost on the device: sectors of global memory, wavefronts of shared memory. Threads run one
// after the other here, so the accesses that the lanes of a warp make together are put together afterwards: the n-th
// time that one lane passes a call belongs to the n-th time of the other lanes.
#pragma once
#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "schedule.h"

namespace linc {

enum class Access { LOAD, STORE, COPY, MATRICES };
constexpr int ACCESSES = 4;
inline const char* name(Access access) {
  switch (access) {
    case Access::LOAD: return "load";
    case Access::STORE: return "store";
    case Access::COPY: return "copy";
    case Access::MATRICES: return "matrices";
  }
  return "";
}

// Units that accesses of whole warps took, and the fewest that their bytes can do with.
struct Traffic {
  uint64_t accesses = 0, units = 0, least = 0;
};

// One access of a warp, or of those of its lanes that take part.
struct WarpAccess {
  uint64_t address[WARP];
  uint32_t lanes = 0;
  uint16_t bytes;   // per lane
  uint16_t parameter;

  // The addresses of the lanes in `mask` that take part; returns how many.
  unsigned collect(uint32_t mask, uint64_t* to) const {
    unsigned count = 0;
    for (uint32_t rest = lanes & mask; rest != 0; rest &= rest - 1) to[count++] = address[__builtin_ctz(rest)];
    return count;
  }
};

constexpr unsigned SECTOR = 32;

// Sectors of 32 bytes of global memory.
inline void count_sectors(const WarpAccess& access, Traffic& traffic) {
  uint64_t addresses[WARP];
  unsigned count = access.collect(~0u, addresses);
  if (!std::is_sorted(addresses, addresses + count)) std::sort(addresses, addresses + count);
  unsigned distinct = 0, sectors = 0;
  for (unsigned i = 0; i < count; i++) {
    distinct += i == 0 || addresses[i] != addresses[i - 1];
    sectors += i == 0 || addresses[i] / SECTOR != addresses[i - 1] / SECTOR;
  }
  traffic.accesses++;
  traffic.units += sectors;
  traffic.least += (distinct * access.bytes + SECTOR - 1) / SECTOR;
}

constexpr unsigned BANKS = 32;

// Wavefronts of shared memory: 32 banks of 4 bytes serve one word each, which any number of lanes may read. Wide
// accesses go in halves or quarters of a warp.
inline void count_wavefronts(const WarpAccess& access, Traffic& traffic) {
  unsigned words = access.bytes / 4, group = WARP / words;
  traffic.accesses++;
  for (unsigned first = 0; first < WARP; first += group) {
    uint64_t addresses[WARP];
    uint32_t mask = (group == WARP ? ~0u : (1u << group) - 1) << first;
    unsigned count = access.collect(mask, addresses);
    if (count == 0) continue;
    uint32_t seen[BANKS][WARP];
    unsigned filled[BANKS] = {};
    unsigned most = 1;
    for (unsigned i = 0; i < count; i++) {
      for (unsigned w = 0; w < words; w++) {
        uint32_t word = addresses[i] / 4 + w, bank = word % BANKS;
        uint32_t* end = seen[bank] + filled[bank];
        if (std::find(seen[bank], end, word) != end) continue;
        *end = word;
        most = std::max(most, ++filled[bank]);
      }
    }
    traffic.units += most;
    traffic.least++;
  }
}

// Puts lanes' accesses together. `Count` is told of each access of a warp once all that take part are known.
template <class Count> class Grouping {
 public:
  explicit Grouping(Count count) : count(count) {}

  // `call` tells calls apart: the address that the runtime's function returns to.
  void add(const void* call, Access access, unsigned parameter, uint64_t address, unsigned bytes) {
    const Thread& thread = *block.current;
    Site& site = find(call, access);
    Queue& queue = site.queues[thread.warp];
    unsigned place = site.passed[thread.id]++ - queue.finished;
    if (queue.head + place >= queue.open.size()) queue.open.resize(queue.head + place + 1);
    WarpAccess& open = queue.open[queue.head + place];
    open.address[thread.lane] = address;
    open.lanes |= 1u << thread.lane;
    open.bytes = bytes;
    open.parameter = parameter;
    while (queue.head < queue.open.size() && queue.open[queue.head].lanes == ~0u) {
      count(site.access, queue.open[queue.head++]);
      queue.finished++;
    }
    if (queue.head == queue.open.size()) queue.open.clear(), queue.head = 0;
  }

  // The end of a block: what is still open stays without the missing lanes.
  void finish_block() {
    for (Site& site : sites) {
      std::fill(site.passed.begin(), site.passed.end(), 0);
      for (Queue& queue : site.queues) {
        for (size_t i = queue.head; i < queue.open.size(); i++) {
          if (queue.open[i].lanes != 0) count(site.access, queue.open[i]);
        }
        queue.open.clear(), queue.head = 0, queue.finished = 0;
      }
    }
  }

 private:
  struct Queue {
    std::vector<WarpAccess> open;
    size_t head = 0;        // those before are finished
    unsigned finished = 0;  // in this block
  };
  struct Site {
    Access access;
    std::vector<unsigned> passed;  // by thread
    std::vector<Queue> queues;     // by warp
  };

  Site& find(const void* call, Access access) {
    // A few calls at a time take turns.
    Known& known = recent[(reinterpret_cast<uintptr_t>(call) * 0x9e3779b97f4a7c15u) >> 56];
    if (call == known.call) return sites[known.site];
    auto [found, is_new] = numbers.try_emplace(call, sites.size());
    if (is_new) {
      size_t threads = block.threads.size();
      sites.push_back({access, std::vector<unsigned>(threads), std::vector<Queue>(threads / WARP)});
    }
    known = {call, found->second};
    return sites[known.site];
  }

  Count count;
  std::vector<Site> sites;
  std::unordered_map<const void*, size_t> numbers;
  struct Known {
    const void* call;
    size_t site;
  };
  Known recent[256] = {};
};

// By parameter, then by kind.
inline std::vector<Traffic> global_traffic;
inline Traffic shared_traffic[ACCESSES];

struct CountGlobal {
  void operator()(Access access, const WarpAccess& warp) const {
    count_sectors(warp, global_traffic[warp.parameter * ACCESSES + static_cast<int>(access)]);
  }
};
struct CountShared {
  void operator()(Access access, const WarpAccess& warp) const {
    count_wavefronts(warp, shared_traffic[static_cast<int>(access)]);
  }
};
inline Grouping<CountGlobal> global_accesses{CountGlobal()};
inline Grouping<CountShared> shared_accesses{CountShared()};

}  // namespace linc
