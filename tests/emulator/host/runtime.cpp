// The program that runs emulated kernels: it is linked with the kernels' objects, reads one launch from standard input,
// runs it, and writes buffers and counts to standard output. One translation unit, so that checks are inlined into
// accesses. The request and the response are written and read by src/process.rs.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "device.h"
#include "fault.h"
#include "fibers.h"
#include "interface.h"
#include "memory.h"
#include "schedule.h"
#include "traffic.h"

static LincEntry* entries = nullptr;

LincEntry::LincEntry(const char* key, const char* signature, void (*launch)(void* const*))
    : key(key), signature(signature), launch(launch), next(entries) {
  entries = this;
}

namespace linc {
namespace {

struct Launch {
  const LincEntry* entry = nullptr;
  LincIndex3 grid{};
  unsigned threads = 0;
  Order order{};
  std::vector<void*> arguments;
  std::vector<unsigned char> maps;  // tensor maps, as the kernel gets them
};
Launch launch;
constexpr size_t MAP_BYTES = 128;

[[noreturn]] void bad_request(const char* what) { fault("protocol", NO_THREAD, "the request has no proper %s", what); }

// The next word of the request.
std::string word(const char* what) {
  char text[256];
  if (scanf("%255s", text) != 1) bad_request(what);
  return text;
}

unsigned long long number(const char* what) {
  unsigned long long value;
  if (scanf("%llu", &value) != 1) bad_request(what);
  return value;
}

const LincEntry* find_entry(const std::string& key) {
  for (const LincEntry* entry = entries; entry; entry = entry->next) {
    if (key == entry->key) return entry;
  }
  bad_request("kernel");
}

Order read_order() {
  std::string kind = word("order");
  Order order{Order::ROUND_ROBIN, number("seed")};
  if (kind == "reverse") order.kind = Order::REVERSE;
  else if (kind == "permuted") order.kind = Order::PERMUTED;
  else if (kind == "greedy") order.kind = Order::GREEDY;
  return order;
}

// `read f 1024 16 x`: mode, element type, elements, alignment of the pointer, name. `expected` is the letter of the
// kernel's own parameter.
void read_parameter(size_t i, char expected) {
  Parameter parameter;
  std::string mode = word("mode");
  parameter.mode = mode == "read" ? Mode::READ : mode == "write" ? Mode::WRITE : Mode::READ_WRITE;
  char element = word("element type")[0];
  parameter.element = element == 'b' || element == 'h' ? 2 : 4;
  size_t elements = number("size");
  // Aligned to what is promised and to no more.
  parameter.base = region_base(i) + number("alignment");
  parameter.name = word("name");
  parameter.bytes.resize(elements * parameter.element);
  parameter.cells = nullptr;
  if (parameter.mode != Mode::READ) {
    parameter.cells = static_cast<Cell*>(calloc(elements + 1, sizeof(Cell)));
    if (!parameter.cells) fault("crash", NO_THREAD, "no memory for the history of %zu elements", elements);
  }
  bool may_write = expected >= 'A' && expected <= 'Z';
  if ((expected | 0x20) != element || (parameter.mode != Mode::READ && !may_write)) {
    fault("signature", NO_THREAD, "parameter %zu, %s, is %s %c here and %c in the kernel's text", i,
          parameter.name.c_str(), mode.c_str(), element, expected);
  }
  launch.arguments.push_back(reinterpret_cast<void*>(static_cast<uintptr_t>(parameter.base)));
  parameters.push_back(std::move(parameter));
}

// `2 128 64 32`: parameter, stride, rows and columns of a box.
void read_map(size_t i, char expected) {
  TileMap map{};
  map.parameter = number("parameter of a map"), map.stride = number("stride");
  map.rows = number("rows"), map.columns = number("columns");
  if (expected != 't') fault("signature", NO_THREAD, "map %zu is %c in the kernel's text", i, expected);
  if (map.parameter >= parameters.size() || parameters[map.parameter].mode != Mode::READ) bad_request("map");
  unsigned element = parameters[map.parameter].element, bytes = map.columns * element;
  // What the driver asks of a map, and the exchange in rows of 32, 64 or 128 bytes.
  bool fine = (bytes == 32 || bytes == 64 || bytes == 128) && map.rows >= 1 && map.rows <= 256 &&
              map.stride * element % 16 == 0 && parameters[map.parameter].base % 16 == 0;
  if (!fine) {
    fault("misaligned", NO_THREAD, "a map of %s with rows of %u bytes, %u rows of a box, and %llu elements from row to row",
          parameters[map.parameter].name.c_str(), bytes, map.rows, (unsigned long long)map.stride);
  }
  unsigned char* to = &launch.maps[i * MAP_BYTES];
  memcpy(to, &map, sizeof map);
  launch.arguments.push_back(to);
}

// Clocks cost time, and order nothing without mbarriers.
void keep_knowledge() {
  if (launch.maps.empty()) return;
  size_t warps = launch.threads / WARP, pieces = shared.bytes.size() / 16 + 1;
  knowledge.kept = true;
  knowledge.now.assign(warps, 0);
  knowledge.of.assign(launch.threads, Clock(warps));
  knowledge.read.assign(pieces * warps, 0);
  knowledge.landings.resize(pieces);
  knowledge.touched.resize(pieces * warps);
  knowledge.fences.resize(launch.threads), knowledge.met.resize(launch.threads), knowledge.told.resize(launch.threads);
}

void read_request() {
  launch.entry = find_entry(word("kernel"));
  launch.grid = {unsigned(number("grid")), unsigned(number("grid")), unsigned(number("grid"))};
  launch.threads = number("threads");
  shared.bytes.resize(number("shared memory"));
  shared.words.resize(shared.bytes.size() / 4);
  shared.fences_before.resize(shared.words.size());
  launch.order = read_order();
  alarm(number("time limit"));
  size_t count = number("parameters"), maps = number("maps"), expected = strlen(launch.entry->signature);
  if (count + maps != expected) {
    fault("signature", NO_THREAD, "%zu parameters here and %zu in the kernel's text", count + maps, expected);
  }
  for (size_t i = 0; i < count; i++) read_parameter(i, launch.entry->signature[i]);
  launch.maps.resize(maps * MAP_BYTES);
  for (size_t i = 0; i < maps; i++) read_map(i, launch.entry->signature[count + i]);
  if (getchar() != '\n') bad_request("end of line");
  for (Parameter& parameter : parameters) {
    if (fread(parameter.bytes.data(), 1, parameter.bytes.size(), stdin) != parameter.bytes.size()) bad_request("data");
  }
}

void run_one_thread() {
  launch.entry->launch(launch.arguments.data());
  check_copies_done();
  check_products_done();
  leave();
}

void run_launch() {
  Stacks stacks(launch.threads);
  prepare_threads(launch.order, launch.threads);
  copies.resize(launch.threads);
  products.resize(launch.threads);
  keep_knowledge();
  global_traffic.resize(parameters.size() * ACCESSES);
  const LincIndex3& grid = launch.grid;
  for (unsigned at : block_order(launch.order, grid.x * grid.y * grid.z)) {
    linc_block_index = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
    block_starts.push_back({block.epoch + 1, linc_block_index});
    async_fences.assign(launch.threads, {});
    advance_block();
    run_threads(stacks, run_one_thread);
    check_mbarriers_done();
    global_accesses.finish_block();
    shared_accesses.finish_block();
  }
}

void write_traffic(const Traffic& traffic) {
  printf("%llu %llu %llu\n", (unsigned long long)traffic.accesses, (unsigned long long)traffic.units,
         (unsigned long long)traffic.least);
}

void write_response() {
  for (size_t i = 0; i < global_traffic.size(); i++) {
    if (global_traffic[i].accesses == 0) continue;
    printf("global %zu %s ", i / ACCESSES, name(Access(i % ACCESSES)));
    write_traffic(global_traffic[i]);
  }
  for (int i = 0; i < ACCESSES; i++) {
    if (shared_traffic[i].accesses == 0) continue;
    printf("shared %s ", name(Access(i)));
    write_traffic(shared_traffic[i]);
  }
  for (int i = 0; i < OPERATIONS; i++) {
    printf("operation %s %llu\n", name(Operation(i)), (unsigned long long)block.operations[i]);
  }
  printf("barriers %llu\nswitches %llu\n", (unsigned long long)block.barriers, (unsigned long long)block.switches);
  printf("data\n");
  for (const Parameter& parameter : parameters) {
    if (parameter.mode != Mode::READ) fwrite(parameter.bytes.data(), 1, parameter.bytes.size(), stdout);
  }
}

void on_signal(int signal) {
  int thread = block.current ? int(block.current->id) : NO_THREAD;
  switch (signal) {
    case SIGALRM: fault("timeout", thread, "the launch has not ended within the time limit");
    case SIGFPE: fault("crash", thread, "an integer division by zero");
    default:
      fault("crash", thread, "signal %d: the kernel follows a pointer itself, or its arrays overflow the stack", signal);
  }
}

// Signals run on a stack of their own, for those that come from the end of a fiber's stack.
void catch_signals() {
  static char memory[64 << 10];
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = sizeof memory;
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK;
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) sigaction(signal, &action, nullptr);
}

}  // namespace
}  // namespace linc

int main() {
  linc::catch_signals();
  linc::read_request();
  linc::run_launch();
  linc::write_response();
  return fflush(stdout) == 0 ? 0 : 1;
}
