// Which thread of the block runs next, and the places where threads wait for each other: the barrier and the
// operations of a whole warp. Blocks run one after the other; one fiber runs at a time.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "fault.h"
#include "fibers.h"

namespace linc {

constexpr unsigned WARP = 32, WARPGROUP = 128;

enum class State { READY, AT_BARRIER, AT_MBARRIER, IN_WARP, IN_WARPGROUP, EXITED };

enum class Operation { SHUFFLE_XOR, SHUFFLE, SYNC_WARP, ELECT, LOAD_MATRICES, LOAD_MATRICES_TRANSPOSED, MMA, WGMMA, COPY_TILE };
constexpr int OPERATIONS = 9;
inline const char* name(Operation operation) {
  switch (operation) {
    case Operation::SHUFFLE_XOR: return "shuffle_xor";
    case Operation::SHUFFLE: return "shuffle";
    case Operation::SYNC_WARP: return "sync_warp";
    case Operation::ELECT: return "elected";
    case Operation::LOAD_MATRICES: return "load_matrices";
    case Operation::LOAD_MATRICES_TRANSPOSED: return "load_matrices_transposed";
    case Operation::MMA: return "mma";
    case Operation::WGMMA: return "wgmma";
    case Operation::COPY_TILE: return "copy_tile";
  }
  return "";
}

struct Thread {
  Context context;
  unsigned id, lane, warp;
  unsigned position;  // in the order
  State state;
  unsigned mbarrier;  // where it waits, if it does
};

// The operation that threads of a warp or warpgroup have come to, until the last one comes.
struct Meeting {
  Operation operation;
  unsigned arrived = 0;
  void* operand[WARPGROUP];
};

// The order in which threads get their turn.
struct Order {
  enum Kind { ROUND_ROBIN, REVERSE, PERMUTED, GREEDY } kind;
  uint64_t seed;
};

// A permutation of 0..count that depends on the seed only.
inline std::vector<unsigned> permutation(unsigned count, uint64_t seed) {
  std::vector<unsigned> items(count);
  for (unsigned i = 0; i < count; i++) items[i] = i;
  for (unsigned i = count; i > 1; i--) {
    // splitmix64
    uint64_t bits = (seed += 0x9e3779b97f4a7c15u);
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    std::swap(items[i - 1], items[(bits ^ (bits >> 31)) % i]);
  }
  return items;
}

// Threads by their turn. Greedy orders keep a warp together, so that it runs as far as it can before the next begins.
inline std::vector<unsigned> thread_order(const Order& order, unsigned count) {
  if (order.kind == Order::PERMUTED) return permutation(count, order.seed);
  std::vector<unsigned> threads(count);
  for (unsigned i = 0; i < count; i++) threads[i] = order.kind == Order::REVERSE ? count - 1 - i : i;
  if (order.kind == Order::GREEDY && order.seed != 0) {
    std::vector<unsigned> warps = permutation(count / WARP, order.seed), lanes = permutation(WARP, ~order.seed);
    for (unsigned i = 0; i < count; i++) threads[i] = warps[i / WARP] * WARP + lanes[i % WARP];
  }
  return threads;
}

// Blocks by their turn, as numbers along x, then y, then z.
inline std::vector<unsigned> block_order(const Order& order, unsigned count) {
  if (order.seed != 0) return permutation(count, order.seed);
  std::vector<unsigned> blocks(count);
  for (unsigned i = 0; i < count; i++) blocks[i] = order.kind == Order::REVERSE ? count - 1 - i : i;
  return blocks;
}

struct Block {
  std::vector<Thread> threads;
  std::vector<Meeting> meetings;   // one per warp
  std::vector<Meeting> groups;     // one per warpgroup
  std::vector<unsigned> order;     // threads by position
  std::vector<uint64_t> ready;     // a bit per position
  bool greedy;
  Thread* current;
  Context outside;                 // where the last thread returns to
  unsigned waiting, exited;        // threads at the barrier, threads that have ended
  // The time between two barriers. Goes up over all blocks of a launch and starts at 1, so that what a block before
  // this one left behind, or nobody, is recognised by its epoch.
  uint32_t epoch = 0, first_epoch = 0;
  uint64_t switches = 0, barriers = 0;
  uint64_t operations[OPERATIONS] = {};  // of whole warps and warpgroups
};
inline Block block;

inline void make_ready(Thread& thread) {
  thread.state = State::READY;
  block.ready[thread.position / 64] |= uint64_t(1) << thread.position % 64;
}

// The ready thread at `from` or the nearest position behind it, without going around.
inline Thread* first_ready(unsigned from) {
  for (size_t word = from / 64; word < block.ready.size(); word++) {
    uint64_t bits = block.ready[word];
    if (word == from / 64) bits &= ~uint64_t(0) << from % 64;
    if (bits != 0) return &block.threads[block.order[word * 64 + __builtin_ctzll(bits)]];
  }
  return nullptr;
}

// Takes the next thread out of the ready ones; none if all wait or have ended.
inline Thread* next_thread() {
  Thread* next = block.greedy ? nullptr : first_ready(block.current->position + 1);
  if (!next) next = first_ready(0);
  if (next) block.ready[next->position / 64] &= ~(uint64_t(1) << next->position % 64);
  return next;
}

inline std::string describe(const Thread& thread) {
  char text[64];
  snprintf(text, sizeof text, "thread %u (warp %u, lane %u)", thread.id, thread.warp, thread.lane);
  std::string place = text;
  switch (thread.state) {
    case State::READY: return place + " runs";
    case State::AT_BARRIER: return place + " waits at a barrier";
    case State::AT_MBARRIER:
      return place + " waits for a phase of the mbarrier at shared byte " + std::to_string(thread.mbarrier);
    case State::IN_WARP: return place + " waits in " + name(block.meetings[thread.warp].operation);
    case State::IN_WARPGROUP: return place + " waits in " + name(block.groups[thread.id / WARPGROUP].operation);
    case State::EXITED: return place + " has ended";
  }
  return place;
}

// No thread can go on: says who waits for whom.
[[noreturn]] inline void stuck() {
  auto find = [](auto wanted) { return std::find_if(block.threads.begin(), block.threads.end(), wanted); };
  auto waits = find([](const Thread& t) { return t.state == State::AT_MBARRIER; });
  if (waits != block.threads.end()) {
    fault("mbarrier", waits->id, "no thread can go on, and %s", describe(*waits).c_str());
  }
  for (const Meeting& meeting : block.meetings) {
    if (meeting.arrived == 0) continue;
    unsigned warp = &meeting - block.meetings.data();
    auto missing = find([=](const Thread& t) { return t.warp == warp && t.state != State::IN_WARP; });
    fault("divergence", missing->id, "%u of 32 lanes of warp %u wait in %s for the others, but %s", meeting.arrived,
          warp, name(meeting.operation), describe(*missing).c_str());
  }
  for (const Meeting& meeting : block.groups) {
    if (meeting.arrived == 0) continue;
    unsigned group = &meeting - block.groups.data();
    auto missing = find([=](const Thread& t) { return t.id / WARPGROUP == group && t.state != State::IN_WARPGROUP; });
    fault("divergence", missing->id, "%u of 128 threads of warpgroup %u wait in %s for the others, but %s",
          meeting.arrived, group, name(meeting.operation), describe(*missing).c_str());
  }
  auto missing = find([](const Thread& t) { return t.state != State::AT_BARRIER; });
  fault("barrier", missing->id, "%u of %zu threads wait at a barrier for the others, but %s", block.waiting,
        block.threads.size(), describe(*missing).c_str());
}

inline void enter(Context& from, Thread& next) {
  block.switches++;
  block.current = &next;
  linc_thread_index.x = next.id;
  switch_context(from, next.context);
}

// Stops the running thread; returns when somebody has made it ready and its turn has come.
inline void park(State state) {
  Thread& self = *block.current;
  self.state = state;
  Thread* next = next_thread();
  if (!next) stuck();
  enter(self.context, *next);
}

// Ends the running thread.
[[noreturn]] inline void leave() {
  Thread& self = *block.current;
  self.state = State::EXITED;
  block.exited++;
  Thread* next = next_thread();
  if (next) enter(self.context, *next);
  if (block.exited < block.threads.size()) stuck();
  switch_context(self.context, block.outside);
  __builtin_unreachable();
}

// Waits until all `count` threads that share the meeting are here with the same operation. The last one computes for
// all of them: `compute` reads and writes the operands, which lie on the threads' stacks.
template <class Compute>
inline void meet(Meeting& meeting, unsigned count, const char* of, State state, Operation operation, void* operand,
                 Compute compute) {
  Thread& self = *block.current;
  if (meeting.arrived > 0 && meeting.operation != operation) {
    fault("divergence", self.id, "thread %u (warp %u, lane %u) comes to %s while %u other %s wait in %s", self.id,
          self.warp, self.lane, name(operation), meeting.arrived, of, name(meeting.operation));
  }
  meeting.operation = operation;
  meeting.operand[self.id % count] = operand;
  if (++meeting.arrived < count) return park(state);
  meeting.arrived = 0;
  block.operations[static_cast<int>(operation)]++;
  compute(meeting.operand);
  for (unsigned id = self.id / count * count, end = id + count; id < end; id++) {
    if (id != self.id) make_ready(block.threads[id]);
  }
}

template <class Compute> inline void meet(Operation operation, void* operand, Compute compute) {
  Meeting& meeting = block.meetings[block.current->warp];
  meet(meeting, WARP, "lanes of its warp", State::IN_WARP, operation, operand, compute);
}

template <class Compute> inline void meet_warpgroup(Operation operation, void* operand, Compute compute) {
  unsigned id = block.current->id, group = id / WARPGROUP;
  if (group >= block.groups.size()) {
    fault("divergence", id, "thread %u comes to %s, but is in no whole warpgroup", id, name(operation));
  }
  meet(block.groups[group], WARPGROUP, "threads of its warpgroup", State::IN_WARPGROUP, operation, operand, compute);
}

// `met` is told when all have come.
template <class Met> inline void wait_at_barrier(Met met) {
  if (++block.waiting < block.threads.size()) return park(State::AT_BARRIER);
  block.waiting = 0;
  block.barriers++;
  block.epoch++;
  met();
  for (Thread& thread : block.threads) {
    if (&thread != block.current) make_ready(thread);
  }
}

// Sets up `count` threads, once per launch.
inline void prepare_threads(const Order& order, unsigned count) {
  block.threads.resize(count);
  block.meetings.resize(count / WARP);
  block.groups.resize(count / WARPGROUP);
  block.ready.resize((count + 63) / 64);
  block.greedy = order.kind == Order::GREEDY;
  block.order = thread_order(order, count);
  for (unsigned i = 0; i < count; i++) {
    Thread& thread = block.threads[i];
    thread.id = i, thread.lane = i % WARP, thread.warp = i / WARP;
    block.threads[block.order[i]].position = i;
  }
}

// Runs one block: every thread from `entry` to its end.
inline void run_threads(const Stacks& stacks, void (*entry)()) {
  block.waiting = block.exited = 0;
  block.first_epoch = ++block.epoch;
  for (Thread& thread : block.threads) {
    prepare_context(thread.context, stacks.at(thread.id), stacks.usable(thread.id), entry);
    make_ready(thread);
  }
  Thread& first = block.threads[block.order[0]];
  block.ready[0] &= ~uint64_t(1);
  enter(block.outside, first);
  block.current = nullptr;
}

}  // namespace linc
