// What the parts of the made-up libraries share: operations that streams run later, and what they touch.
#include <stddef.h>
#include <stdint.h>

typedef int status;

// Live objects are counted.
void *make(size_t bytes);
void *make_aligned(size_t bytes);
status drop(void *p);

// Bytes that an operation reads or writes while it runs.
typedef struct { const char *from; size_t bytes; int writes; } range;
enum { MOST_RANGES = 24 };

typedef struct { int64_t rows, cols, leading; int type; } layout;
typedef struct { int transposed[2]; } description;
struct event;
struct exchange;
typedef struct op {
  struct op *next;
  enum { COPY, SET, ADD, MATMUL, RECORD, WAIT, EXCHANGE } kind;
  struct stream *stream;
  void *c, *a, *b;
  size_t bytes;
  uint32_t value;
  float beta, add;
  layout layouts[3];
  description desc;
  struct event *event;
  uint64_t ticket;
  struct exchange *exchange;
  uint64_t host[18];
  int begun, ranges;
  range touched[MOST_RANGES];
} op;

void touch(op *o, const void *from, size_t bytes, int writes);
status queue(struct stream *s, op o);
// Has every stream go on as far as it can; true if one did.
int progress(void);
// Ends the process, with the reason, as a test that fails.
void fault(const char *form, ...);
// How long anything is waited for, in seconds.
double seconds(void);
double longest(void);

// Runs an operation that is at the head of its stream; false if it has to wait.
int run(op *o);
// Moves bytes between processes; false as long as some have not come.
int run_exchange(struct exchange *x);
void drop_exchange(struct exchange *x);
struct exchange *share_exchange(struct exchange *x);
// The GPU of the context that is current.
int current_device(void);
