// Global and shared memory with what is known of every element: who wrote it and who read it, and when. Time is counted
// in epochs, from barrier to barrier (schedule.h): two threads that touch an element in one epoch, one of them to write
// it, race in every order of the threads, not only in the one that happens to run.
#pragma once
#include <cinttypes>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "clocks.h"
#include "fault.h"
#include "schedule.h"
#include "traffic.h"

namespace linc {

// Who touches memory: a thread by its number, or, where threads read for each other, a whole warp or warpgroup.
typedef uint16_t Actor;
constexpr Actor FIRST_WARP = 1024;  // the most threads that a block has
constexpr Actor FIRST_GROUP = FIRST_WARP + 32;
constexpr Actor ENGINE = 0xfffe;  // what copies tiles
constexpr Actor NOBODY = 0xffff;

inline std::string actor_name(Actor actor) {
  if (actor == ENGINE) return "the copy of a tile";
  if (actor >= FIRST_GROUP) return "warpgroup " + std::to_string(actor - FIRST_GROUP);
  if (actor >= FIRST_WARP) return "warp " + std::to_string(actor - FIRST_WARP) + " as a whole";
  return "thread " + std::to_string(actor);
}

// The history of an element. Epoch 0 is never.
struct Cell {
  uint32_t written, read;              // the last epoch
  uint32_t first_read;                 // of the launch
  Actor writer, reader, other_reader;  // in that epoch; two readers are enough to find one that is somebody else
  uint16_t copying;                    // an asynchronous copy into it is under way: THREAD_COPY, TILE_COPY; or MBARRIER
};
constexpr uint16_t THREAD_COPY = 1, TILE_COPY = 2, MBARRIER = 3;

inline void note_write(Cell& cell, Actor actor) { cell.written = block.epoch, cell.writer = actor; }

inline void note_read(Cell& cell, Actor actor) {
  if (cell.read != block.epoch) {
    cell.read = block.epoch, cell.reader = actor, cell.other_reader = NOBODY;
    if (cell.first_read == 0) cell.first_read = block.epoch;
  } else if (cell.reader != actor && cell.other_reader == NOBODY) {
    cell.other_reader = actor;
  }
}

// Somebody else who has written the element since the last barrier, or nobody. Of the copies of tiles, `check_landed`
// knows more.
inline Actor other_writer(const Cell& cell, Actor actor) {
  bool other = cell.written == block.epoch && cell.writer != actor && cell.writer != ENGINE;
  return other ? cell.writer : NOBODY;
}
// The same for readers.
inline Actor other_reader(const Cell& cell, Actor actor) {
  if (cell.read != block.epoch) return NOBODY;
  return cell.reader != actor ? cell.reader : cell.other_reader;
}

// ---- shared memory ----

struct Shared {
  std::vector<unsigned char> bytes;
  std::vector<Cell> words;
  // Fences of the writer, as in `async_fences`, before it wrote the word.
  std::vector<uint32_t> fences_before;
};
inline Shared shared;

// When each thread has said that products may see what it wrote: the epochs, in order, of this block.
inline std::vector<std::vector<uint32_t>> async_fences;

inline void note_shared_write(uint32_t word, Actor actor) {
  note_write(shared.words[word], actor);
  if (actor != ENGINE) shared.fences_before[word] = async_fences[actor].size();
}

// Whether a thread that had told the engine `before` times when it wrote has told it since, with a barrier behind.
inline bool announced(Actor writer, uint32_t before) {
  const std::vector<uint32_t>& fences = async_fences[writer];
  return before < fences.size() && fences[before] < block.epoch;
}

// Where the byte `at` of a tile lies whose rows of so many pieces are swizzled.
inline uint32_t exchanged(uint32_t at, uint32_t pieces) { return at ^ ((at >> 7 & (pieces - 1)) << 4); }

inline void check_shared(uint32_t at, unsigned bytes, const char* what, unsigned thread) {
  if (at % bytes != 0) {
    fault("misaligned", thread, "%s of %u bytes at shared byte %u, which is no multiple", what, bytes, at);
  }
  if (uint64_t(at) + bytes > shared.bytes.size()) {
    fault("shared-bounds", thread, "%s of %u bytes at shared byte %u, but the block has %zu", what, bytes, at,
          shared.bytes.size());
  }
}

[[noreturn]] inline void shared_race(uint32_t word, unsigned thread, Actor actor, const char* does, Actor other,
                                     const char* did) {
  fault("shared-race", thread, "%s %s shared byte %u, which %s has %s, with no barrier in between",
        actor_name(actor).c_str(), does, word * 4, actor_name(other).c_str(), did);
}

inline void check_no_copy(const Cell& cell, uint32_t word, unsigned thread, const char* what) {
  if (cell.copying == MBARRIER) {
    fault("mbarrier", thread, "%s at shared byte %u, where an mbarrier is", what, word * 4);
  }
  if (cell.copying == TILE_COPY) {
    fault("copy-pending", thread, "%s at shared byte %u, where a tile is under way to", what, word * 4);
  }
  if (cell.copying) {
    fault("copy-pending", thread, "%s at shared byte %u, where an asynchronous copy of thread %u is under way", what,
          word * 4, cell.writer);
  }
}

// ---- order by mbarriers (mbarrier.h) ----

// Whether all lanes of the warp have waited for the phase. In mbarrier.h.
bool has_seen(const Landing& landing, unsigned warp);

// Warps of an actor.
inline std::pair<unsigned, unsigned> warps_of(Actor actor) {
  if (actor >= FIRST_GROUP) return {(actor - FIRST_GROUP) * 4, (actor - FIRST_GROUP) * 4 + 4};
  if (actor >= FIRST_WARP) return {actor - FIRST_WARP, actor - FIRST_WARP + 1};
  return {actor / WARP, actor / WARP + 1};
}

// What a tile brought since the last barrier may be touched by those who have waited for it.
inline void check_landed(uint32_t word, Actor actor, unsigned thread, const char* does) {
  const Cell& cell = shared.words[word];
  if (cell.writer != ENGINE || cell.written != block.epoch) return;
  auto [first, end] = warps_of(actor);
  for (unsigned warp = first; warp < end; warp++) {
    if (!has_seen(knowledge.landings[word / 4], warp)) shared_race(word, thread, actor, does, ENGINE, "written");
  }
}

inline void note_warp_read(uint32_t word, unsigned warp) {
  knowledge.read[word / 4 * knowledge.now.size() + warp] = knowledge.now[warp] + 1;
}

// A tile will be written to a piece: everyone who has read or written it must be known to be done.
inline void begin_tile_copy(uint32_t at, unsigned thread, const char* what) {
  for (uint32_t word = at / 4; word < at / 4 + 4; word++) {
    Cell& cell = shared.words[word];
    check_no_copy(cell, word, thread, what);
    Actor other = other_writer(cell, thread);
    if (other != NOBODY) shared_race(word, thread, thread, "copies a tile to", other, "written");
    bool by_thread = cell.written >= block.first_epoch && cell.writer != ENGINE;
    if (by_thread && !announced(cell.writer, shared.fences_before[word])) {
      fault("unfenced", thread, "%s to shared byte %u, which thread %u has written with no fence_async() and barrier behind",
            what, word * 4, cell.writer);
    }
    cell.copying = TILE_COPY;
  }
  const Clock& known = knowledge.of[thread];
  for (unsigned warp = 0; warp < known.size(); warp++) {
    if (knowledge.read[at / 16 * known.size() + warp] > known[warp]) {
      shared_race(at / 4, thread, thread, "copies a tile to", FIRST_WARP + warp, "read");
    }
  }
  if (!told(at / 16, thread)) {
    fault("unfenced", thread, "%s to shared byte %u, which threads have read with no fence_async() behind", what, at);
  }
}

inline void touch_shared_read(uint32_t at, unsigned bytes, Actor actor, unsigned thread, const char* what) {
  check_shared(at, bytes, what, thread);
  for (uint32_t word = at / 4; word < (at + bytes) / 4; word++) {
    Cell& cell = shared.words[word];
    check_no_copy(cell, word, thread, what);
    if (cell.written < block.first_epoch) {
      fault("uninitialised", thread, "%s at shared byte %u, which the block has not written yet", what, word * 4);
    }
    Actor other = other_writer(cell, actor);
    if (other != NOBODY) shared_race(word, thread, actor, "reads", other, "written");
    check_landed(word, actor, thread, "reads");
    note_read(cell, actor);
    if (knowledge.kept) {
      auto [first, end] = warps_of(actor);
      for (unsigned warp = first; warp < end; warp++) note_warp_read(word, warp);
      // Products of warpgroups read by the engine's way.
      if (actor < FIRST_GROUP) {
        knowledge.touched[word / 4 * knowledge.now.size() + first] = {thread, knowledge.fences[thread]};
        knowledge.told[thread] = false;
      }
    }
  }
}

inline void touch_shared_write(uint32_t at, unsigned bytes, Actor actor, const char* what) {
  check_shared(at, bytes, what, actor);
  for (uint32_t word = at / 4; word < (at + bytes) / 4; word++) {
    Cell& cell = shared.words[word];
    check_no_copy(cell, word, actor, what);
    Actor other = other_writer(cell, actor);
    if (other != NOBODY) shared_race(word, actor, actor, "writes", other, "written");
    other = other_reader(cell, actor);
    if (other != NOBODY) shared_race(word, actor, actor, "writes", other, "read");
    check_landed(word, actor, actor, "writes");
    note_shared_write(word, actor);
  }
}

// ---- global memory ----

// What the tile program says of a parameter.
enum class Mode { READ, WRITE, READ_WRITE };

struct Parameter {
  std::string name;
  Mode mode;
  unsigned element;  // bytes
  uint64_t base;     // what the kernel gets as a pointer
  std::vector<unsigned char> bytes;
  Cell* cells;       // one per element; none for what is only read
};
inline std::vector<Parameter> parameters;

// Pointers that kernels get are numbers far apart, one region for each parameter: an address says which parameter it
// comes from, however wrong the index, and nothing can be reached by following it.
constexpr unsigned REGION_BITS = 40;
constexpr uint64_t REGION = uint64_t(1) << REGION_BITS;
inline uint64_t region_base(size_t parameter) { return (parameter + 1) * REGION; }

// When each block of the launch began, in order.
inline std::vector<std::pair<uint32_t, LincIndex3>> block_starts;

inline std::string block_of(uint32_t epoch) {
  auto after = std::upper_bound(block_starts.begin(), block_starts.end(), epoch,
                                [](uint32_t wanted, const auto& start) { return wanted < start.first; });
  const LincIndex3& index = (after - 1)->second;
  char text[64];
  snprintf(text, sizeof text, "block (%u, %u, %u)", index.x, index.y, index.z);
  return text;
}

struct Place {
  unsigned number;
  Parameter& parameter;
  uint64_t offset;  // in bytes
};

inline Place check_global(const void* pointer, unsigned bytes, const char* what) {
  uint64_t address = reinterpret_cast<uintptr_t>(pointer);
  unsigned thread = block.current->id;
  uint64_t region = (address + REGION / 2) >> REGION_BITS;
  if (region == 0 || region > parameters.size()) {
    fault("out-of-bounds", thread, "%s of %u bytes at address %#" PRIx64 ", which belongs to no parameter", what,
          bytes, address);
  }
  unsigned number = region - 1;
  Parameter& parameter = parameters[number];
  int64_t offset = address - parameter.base, element = parameter.element;
  if (offset < 0 || uint64_t(offset) + bytes > parameter.bytes.size()) {
    int64_t index = offset >= 0 ? offset / element : -((element - 1 - offset) / element);
    fault("out-of-bounds", thread, "%s of %u bytes at %s[%" PRId64 "], but %s has %zu elements", what, bytes,
          parameter.name.c_str(), index, parameter.name.c_str(), parameter.bytes.size() / parameter.element);
  }
  if (address % bytes != 0) {
    fault("misaligned", thread, "%s of %u bytes at %s[%" PRId64 "], address %#" PRIx64 ", which is no multiple", what,
          bytes, parameter.name.c_str(), offset / element, address);
  }
  return {number, parameter, uint64_t(offset)};
}

[[noreturn]] inline void global_race(const Parameter& parameter, size_t index, Actor actor, const char* does,
                                     Actor other, const char* did) {
  fault("global-race", actor, "thread %u %s %s[%zu], which thread %u has %s, with no barrier in between", actor, does,
        parameter.name.c_str(), index, other, did);
}

[[noreturn]] inline void block_race(const Parameter& parameter, size_t index, const char* does, uint32_t epoch,
                                    const char* did) {
  fault("block-race", block.current->id, "%s %s[%zu], which %s has %s", does, parameter.name.c_str(), index,
        block_of(epoch).c_str(), did);
}

// Whether a block before the running one did something in that epoch.
inline bool another_block(uint32_t epoch) { return epoch != 0 && epoch < block.first_epoch; }

inline void touch_global_read(Place place, unsigned bytes, const char* what) {
  Parameter& parameter = place.parameter;
  Actor actor = block.current->id;
  if (parameter.mode == Mode::WRITE) {
    fault("write-only", actor, "%s at %s[%zu], which the kernel only writes", what, parameter.name.c_str(),
          size_t(place.offset / parameter.element));
  }
  if (!parameter.cells) return;
  for (size_t i = place.offset / parameter.element; i < (place.offset + bytes) / parameter.element; i++) {
    Cell& cell = parameter.cells[i];
    Actor other = other_writer(cell, actor);
    if (other != NOBODY) global_race(parameter, i, actor, "reads", other, "written");
    if (another_block(cell.written)) block_race(parameter, i, "reads", cell.written, "written");
    note_read(cell, actor);
  }
}

inline void touch_global_write(Place place, unsigned bytes, const char* what) {
  Parameter& parameter = place.parameter;
  Actor actor = block.current->id;
  if (parameter.mode == Mode::READ) {
    fault("read-only", actor, "%s at %s[%zu], which the kernel only reads", what, parameter.name.c_str(),
          size_t(place.offset / parameter.element));
  }
  for (size_t i = place.offset / parameter.element; i < (place.offset + bytes) / parameter.element; i++) {
    Cell& cell = parameter.cells[i];
    Actor other = other_writer(cell, actor);
    if (other != NOBODY) global_race(parameter, i, actor, "writes", other, "written");
    other = other_reader(cell, actor);
    if (other != NOBODY) global_race(parameter, i, actor, "writes", other, "read");
    if (another_block(cell.written)) block_race(parameter, i, "writes", cell.written, "written");
    if (another_block(cell.first_read)) block_race(parameter, i, "writes", cell.first_read, "read");
    note_write(cell, actor);
  }
}

// ---- asynchronous copies ----

struct Copy {
  uint32_t to;
  const unsigned char* from;  // none: zeros
  unsigned char seen[16];     // what was there when it started
};
// Of one thread: copies since the last commit, then groups that are under way, oldest first.
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};
inline std::vector<Copies> copies;  // by thread

// The destination belongs to the copy from here until it lands.
inline void begin_copy(uint32_t to, const unsigned char* from) {
  Actor actor = block.current->id;
  touch_shared_write(to, 16, actor, "copy_async16");
  for (uint32_t word = to / 4; word < to / 4 + 4; word++) shared.words[word].copying = THREAD_COPY;
  Copy copy = {to, from, {}};
  if (from) memcpy(copy.seen, from, 16);
  copies[actor].open.push_back(copy);
}

// Data is there at the wait and not before, and counts as written by this thread then: others need a barrier.
inline void land_copies(unsigned groups) {
  Actor actor = block.current->id;
  auto& under_way = copies[actor].groups;
  for (; under_way.size() > groups; under_way.pop_front()) {
    for (const Copy& copy : under_way.front()) {
      // No barrier orders a copy that is under way.
      if (copy.from && memcmp(copy.seen, copy.from, 16) != 0) {
        fault("global-race", actor, "the asynchronous copy to shared byte %u read what was written before it was waited for", copy.to);
      }
      if (copy.from) memcpy(&shared.bytes[copy.to], copy.from, 16);
      else memset(&shared.bytes[copy.to], 0, 16);
      for (uint32_t word = copy.to / 4; word < copy.to / 4 + 4; word++) {
        shared.words[word].copying = 0;
        note_shared_write(word, actor);
      }
    }
  }
}

// The end of the running thread. Empty groups are usual in a pipeline that runs out.
inline void check_copies_done() {
  unsigned thread = block.current->id;
  Copies& own = copies[thread];
  if (!own.open.empty()) {
    fault("copy-unfinished", thread, "thread %u ends with %zu copies not committed", thread, own.open.size());
  }
  size_t under_way = 0;
  for (const auto& group : own.groups) under_way += group.size();
  if (under_way != 0) fault("copy-unfinished", thread, "thread %u ends with %zu copies under way", thread, under_way);
  own.groups.clear();
}

}  // namespace linc
