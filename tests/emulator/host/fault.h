// How a run ends when something is wrong: one line that says what kind of fault, one with the block, one with the
// thread, then the text for people. Read by src/process.rs.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <unistd.h>

#include "interface.h"

namespace linc {

constexpr int NO_THREAD = -1;
constexpr int FAULT_STATUS = 3;

// Nothing else has been printed by then; `_exit`, since the stacks of the fibers cannot be unwound.
[[noreturn, gnu::format(printf, 3, 4)]] inline void fault(const char* kind, int thread, const char* format, ...) {
  char text[1024];
  const LincIndex3& block = linc_block_index;
  int size = snprintf(text, sizeof text, "fault %s\nblock %u %u %u\nthread %d\n", kind, block.x, block.y, block.z,
                      thread);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + size, sizeof text - size, format, arguments);
  va_end(arguments);
  const char* at = text;
  for (size_t left = strlen(text); left > 0;) {
    ssize_t written = write(STDOUT_FILENO, at, left);
    if (written <= 0) break;
    at += written, left -= written;
  }
  _exit(FAULT_STATUS);
}

}  // namespace linc
